//! Writing through: what is sent, and how far it has come.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use super::fetch::{Found, Located, kept_for, unix_ms};
use super::load::Outgoing;
use super::touch::Renewal;
use super::{Remote, TieredCache};
use crate::broadcast::behind::{Attempt, Behind, QueuedWrite};
use crate::broadcast::journal::{Entry as News, Moved};
use crate::broadcast::slip::Slip;
use crate::entry::{Entry, Handle, Meta};
use crate::error::Rejected;
use crate::group::Generation;
use crate::key::ToKey;
use crate::namespace::core::{Owed, Standing};
use crate::namespace::leases::Lease;
use crate::namespace::{Announce, Receipt};
use crate::options::EntryOptions;
use crate::remote::batch::{Answers, Caller};
use crate::remote::envelope::{Envelope, GroupTokens, Header, WireTtl, load_cost_us};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::{RemoteKey, WireKey};
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Action, Cas, Expiry, Reply, Route, SetMode};
use crate::remote::unexpected;
use crate::stats::bump;
use crate::store::{Refusal, Store, Terms};
use crate::sync::Arc;

/// How often a write is tried that loses to another process every time, before it counts as failed.
const ATTEMPTS: usize = 8;

/// How far a write has come when the call that made it returns.
#[derive(Clone, Debug)]
#[must_use = "a write may have reached one tier alone"]
#[non_exhaustive]
pub enum Write {
    /// The value is in both tiers, unless an invalidation of a group of it, or of the cache, has taken it along that was made
    /// at the same moment.
    Through,
    /// The value waits to be sent to the remote tier, and is in the local one, unless it weighs more than that may hold. Until
    /// it is there, this process takes nothing that the remote tier holds under the key.
    Queued(Receipt),
    /// The value is in the local tier. The remote tier did not take it; what it held under the key is to be deleted, and
    /// counts as a miss in this process until the receipt is settled.
    LocalOnly(RemoteError, Receipt),
    /// The value is in the remote tier. It weighs more than the local tier may hold.
    RemoteOnly(Rejected),
    /// The value is in neither tier, for both reasons.
    Nowhere(Rejected, RemoteError, Receipt),
}

impl Write {
    /// Returns whether the value is in both tiers.
    #[must_use]
    pub fn is_through(&self) -> bool {
        matches!(self, Write::Through)
    }
}

/// What [`TieredCache::add`] did.
#[derive(Clone, Debug)]
#[must_use = "a value may have been there already"]
pub enum Added {
    /// It stored the value.
    Stored(Write),
    /// There was one already, fresh or stale.
    Present,
}

impl Added {
    /// Returns whether the value was stored, in whichever tier.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !matches!(self, Added::Present | Added::Stored(Write::Nowhere(..)))
    }
}

/// What became of a value on its way to the remote tier.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    Stored,
    /// The item was not as it had been any more.
    Fenced,
    /// An invalidation of a group of it, or of the cache, has become known meanwhile. Nothing was sent.
    Overtaken,
    Failed(RemoteError),
}

/// One of the values that an insert writes.
struct Pending<'a, K, V: 'static> {
    remote: &'a Remote<K, V>,
    entry: Handle<K, V>,
    at: Located,
    local: Result<(), Refusal>,
    /// What has been done to the item, which is to be announced yet.
    done: Option<Done>,
    sent: Option<Result<(), RemoteError>>,
    concluded: bool,
}

impl<K, V: 'static> Pending<'_, K, V> {
    /// Ends the write, and sees to it that neither tier is left with anything older than the value: unless the remote tier is
    /// through with it, what that has under the key is owed a deletion.
    fn end(&mut self, is_through: bool) -> Option<Arc<Slip>> {
        self.concluded = true;
        let Pending { remote, at, .. } = &*self;
        let owe = || remote.core().owe_item(&at.key, at.fingerprint, Some(remote.inbox.sender));
        let slip = (!is_through).then(owe);
        // Only now: from here on a reader copies the new value, or none while it is owed.
        remote.inbox.outdate(&self.entry);
        slip
    }
}

impl<K, V: 'static> Drop for Pending<'_, K, V> {
    fn drop(&mut self) {
        // A codec, or the iterator that gives the pairs, has panicked, or the future was dropped half-way: the local tier has
        // the new value by now, and must not find the old one in the remote tier later, nor must other processes.
        if !self.concluded {
            drop(self.end(matches!(self.sent, Some(Ok(())))));
        }
    }
}

/// What a write has done to its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Stored,
    /// An invalidation has overtaken the value, and what the key held is older than that.
    Deleted,
}

/// An entry that was added to the local tier, and has to leave it again if the codec panics or the future is dropped: another
/// process may add the key now.
struct Unsettled<'a, K: Eq, V> {
    store: &'a Store<K, V>,
    entry: &'a Handle<K, V>,
}

impl<K: Eq, V> Unsettled<'_, K, V> {
    fn forget(self) {
        std::mem::forget(self);
    }
}

impl<K: Eq, V> Drop for Unsettled<'_, K, V> {
    fn drop(&mut self) {
        self.store.withdraw(self.entry);
    }
}

/// When a value was handed in that is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    Queued,
}

/// A write that waits in the queue.
struct QueuedInsert<K, V, S> {
    cache: TieredCache<K, V, S>,
    entry: Handle<K, V>,
    at: Located,
}

impl<K, V, S> QueuedWrite for QueuedInsert<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn key(&self) -> &WireKey {
        &self.at.key
    }

    fn fingerprint(&self) -> u64 {
        self.at.fingerprint
    }

    fn send(self: Arc<Self>) -> Attempt {
        Box::pin(async move { self.cache.send_queued(self.entry.clone(), self.at.clone()).await })
    }
}

/// A value as the store takes it.
struct Sealed {
    bytes: Vec<u8>,
    expiry: Expiry,
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Stores every pair in both tiers.
    pub(super) async fn write_all(
        &self,
        caller: Caller,
        pairs: impl IntoIterator<Item = (K, V)>,
        options: EntryOptions,
    ) -> Vec<Write> {
        self.core().meet(caller).await;
        let born = self.core().groups.generation();
        let options = std::iter::repeat(options);
        let admit = |((key, value), options)| self.admit(born, key, value, options);
        if let Some(behind) = &self.core().behind {
            let queue = |pair| self.queue(behind, admit(pair));
            return pairs.into_iter().zip(options).map(queue).collect();
        }
        let mut writes: Vec<_> = pairs.into_iter().zip(options).map(admit).collect();
        // Of several values for one key the last one stays, as if they were written one after the other: the others are not
        // sent, and have come as far as it.
        let last: HashMap<&WireKey, usize> = writes.iter().enumerate().map(|(at, write)| (&write.at.key, at)).collect();
        let heirs: Vec<usize> = writes.iter().map(|write| last[&write.at.key]).collect();
        for (_, write) in writes.iter_mut().enumerate().filter(|(at, _)| heirs[*at] != *at) {
            (write.sent, write.concluded) = (Some(Ok(())), true);
        }
        for _ in 0..ATTEMPTS {
            self.write_pending(caller, &mut writes, When::Now).await;
        }
        self.announce_done(caller, &mut writes).await;
        // From the end, so that the outcome of an heir is known before it is asked for.
        let mut outcomes: Vec<Write> = Vec::with_capacity(writes.len());
        let len = writes.len();
        for (write, (at, heir)) in writes.into_iter().zip(heirs.into_iter().enumerate()).rev() {
            let outcome = if heir == at { self.conclude(write) } else { outcomes[len - 1 - heir].clone() };
            outcomes.push(outcome);
        }
        outcomes.reverse();
        outcomes
    }

    /// Stores a value in the local tier, from where it is sent.
    fn admit(&self, born: Generation, key: K, value: V, options: EntryOptions) -> Pending<'_, K, V> {
        let at = self.remote.locate(&key);
        let entry = self.local.entry(key, value, born, options);
        let remote = &*self.remote;
        let mut write = Pending { remote, entry, at, local: Ok(()), done: None, sent: None, concluded: false };
        write.local = self.local.store.admit(write.entry.clone(), &Terms::Always);
        remote.inbox.note(write.at.fingerprint, write.entry.hash);
        write
    }

    /// Queues a write that is in the local tier, to be sent later.
    fn queue(&self, behind: &Behind, mut write: Pending<'_, K, V>) -> Write {
        let cache = self.clone();
        let queued = QueuedInsert { cache, entry: write.entry.clone(), at: write.at.clone() };
        match behind.push(Arc::new(queued)) {
            Ok(slip) => {
                write.concluded = true;
                Write::Queued(Receipt::queued(slip))
            }
            Err(error) => {
                // An older write of the key may wait: those who hold its receipt wait for the deletion now.
                self.core().owe_instead(&write.at.key, write.at.fingerprint, Some(self.remote.inbox.sender));
                write.sent = Some(Err(error));
                self.conclude(write)
            }
        }
    }

    /// Sends a queued write once.
    async fn send_queued(&self, entry: Handle<K, V>, at: Located) -> Result<(), RemoteError> {
        let mut write = Pending {
            remote: &self.remote,
            entry,
            at,
            local: Ok(()),
            done: None,
            sent: None,
            // What becomes of it is the queue's business.
            concluded: true,
        };
        for _ in 0..ATTEMPTS {
            self.write_pending(Caller::Task, std::slice::from_mut(&mut write), When::Queued).await;
        }
        self.announce_done(Caller::Task, std::slice::from_mut(&mut write)).await;
        match write.sent.take() {
            Some(Ok(())) => bump(&self.remote.counters.stores),
            Some(Err(error)) => return Err(error),
            None => return Err(outrun()),
        }
        // Unless another write of the key is on its way, at whose end this is done.
        if !self.core().behind.as_ref().is_some_and(|behind| behind.awaits(&write.at.key)) {
            self.remote.inbox.outdate(&write.entry);
        }
        Ok(())
    }

    /// Says how far a write has come, and ends it.
    fn conclude(&self, mut write: Pending<'_, K, V>) -> Write {
        let sent = write.sent.take().unwrap_or_else(|| Err(outrun()));
        let counters = &self.remote.counters;
        bump(if sent.is_ok() { &counters.stores } else { &counters.errors });
        let slip = write.end(sent.is_ok());
        let owed = sent.map_err(|error| {
            let receipt = Receipt::of(Owed { error: error.clone(), slips: slip.into_iter().collect() });
            (error, receipt)
        });
        match (write.local, owed) {
            (Err(Refusal::Rejected(rejected)), Ok(())) => Write::RemoteOnly(rejected),
            (Err(Refusal::Rejected(rejected)), Err((error, receipt))) => Write::Nowhere(rejected, error, receipt),
            (_, Ok(())) => Write::Through,
            (_, Err((error, receipt))) => Write::LocalOnly(error, receipt),
        }
    }

    /// Tries once to send what is not stored yet: reads the version of each item, and writes on the condition that it is still
    /// that one. A write that a stalled server carries out late can then not overwrite a newer one.
    async fn write_pending(&self, caller: Caller, writes: &mut [Pending<'_, K, V>], when: When) {
        let core = self.core();
        let mut open: Vec<_> = writes.iter_mut().filter(|write| write.done.is_none() && write.sent.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let look = Action::Get { value: false, lease: Some(core.settings.lease), touch: None };
        let looks: Requests = open.iter().map(|write| Request::new(write.at.key.clone(), Route::ByKey, look)).collect();
        let versions: Vec<Result<Cas, RemoteError>> = core.run(caller, looks).await.into_iter().map(version).collect();
        let mut known = Vec::new();
        for (write, version) in open.iter_mut().zip(versions) {
            match version {
                Ok(cas) => known.push((write, cas)),
                Err(error) => write.sent = Some(Err(error)),
            }
        }
        // One exchange for the groups of all.
        let mut groups: Vec<u64> = known.iter().flat_map(|(write, _)| write.entry.meta.groups.hashes()).collect();
        groups.extend(self.remote.roots());
        groups.sort_unstable();
        groups.dedup();
        let tokens = match when {
            When::Now => core.tokens_to_record(caller, &groups).await,
            // The value is as old as its place in the queue: whatever has moved since then has to show.
            When::Queued => core.tokens_of_late(caller, &groups).await,
        };
        let tokens = tokens.map(by_group);
        let mut ready = Vec::new();
        let mut overtaken = Vec::new();
        for (write, cas) in known {
            let sealed = tokens.as_ref().map_err(Clone::clone).and_then(|tokens| {
                let tokens = self.remote.tokens_of(&write.entry, |group| tokens.get(&group).copied())?;
                self.remote.seal(write.at.fingerprint, &write.entry, &tokens)
            });
            match sealed {
                // By an invalidation, perhaps from before the value that the key holds, which this one was to replace.
                Ok(_) if self.local.store.is_overtaken(&write.entry.meta) => overtaken.push((write, cas)),
                Ok(sealed) => ready.push((write, sealed, cas)),
                Err(error) => write.sent = Some(Err(error)),
            }
        }
        let deletes = overtaken.iter().map(|(write, cas)| Request::delete(write.at.key.clone(), Some(*cas)));
        let sets = ready.iter_mut().map(|(write, sealed, cas)| sealed.take_request(&write.at.key, *cas));
        let mut replies = core.run(caller, deletes.chain(sets).collect::<Requests>()).await.into_iter();
        for ((write, _), reply) in overtaken.into_iter().zip(replies.by_ref()) {
            match deleted(reply) {
                Ok(done) => write.done = done,
                Err(error) => write.sent = Some(Err(error)),
            }
        }
        for ((write, ..), reply) in ready.into_iter().zip(replies) {
            match reply {
                Ok(Reply::Done) => write.done = Some(Done::Stored),
                Ok(Reply::Fenced | Reply::NotStored) => {}
                Ok(_) => write.sent = Some(Err(unexpected("to a write"))),
                Err(error) => write.sent = Some(Err(error)),
            }
        }
    }

    /// Tells other processes of what is done. First the store has it, then the journal: whoever hears of it finds it there.
    async fn announce_done(&self, caller: Caller, writes: &mut [Pending<'_, K, V>]) {
        let moved = |write: &Pending<'_, K, V>| match (write.done?, self.core().settings.announce) {
            (Done::Stored, Announce::All) => Some(Moved::KeyInsert(write.at.fingerprint)),
            (Done::Deleted, Announce::All | Announce::Removals) => Some(Moved::KeyRemove(write.at.fingerprint)),
            (Done::Stored, Announce::Removals) | (_, Announce::Groups) => None,
        };
        let sender = self.remote.inbox.sender;
        let news: Vec<News> = writes.iter().filter_map(moved).map(|moved| News { moved, sender }).collect();
        let announced = self.core().announce(caller, &news).await;
        for write in writes.iter_mut().filter(|write| write.done.is_some()) {
            // What others may not have heard of is deleted, and told of then.
            write.sent = Some(announced.clone());
        }
    }

    /// Stores `value` under `key` in both tiers unless either has a value.
    pub(super) async fn add_one(&self, caller: Caller, key: K, value: V, options: EntryOptions) -> Added {
        let core = self.core();
        core.meet(caller).await;
        let born = core.groups.generation();
        let at = self.remote.locate(&key);
        let entry = self.local.entry(key, value, born, options);
        // A value that waits to be sent was there before, although neither tier may have it now.
        if core.behind.as_ref().is_some_and(|behind| behind.holds(&at.key)) {
            return Added::Present;
        }
        for _ in 0..ATTEMPTS {
            let lease = Some(core.settings.lease);
            let found = self.remote.fetch_for(caller, std::slice::from_ref(&at), lease, |_| false).await.pop();
            let (cas, lease) = match found {
                Some(Found::Fresh(..) | Found::Stale(..)) => return Added::Present,
                Some(Found::Vacant(lease)) => {
                    let cas = lease.as_ref().and_then(Lease::cas);
                    (cas.ok_or_else(|| unexpected("to a read that takes a lease")), lease)
                }
                Some(Found::Spent(cas)) => (Ok(cas), None),
                Some(Found::Leased(cas)) => (Ok(cas), None),
                Some(Found::Unknown(error)) => (Err(error), None),
                None => (Err(unexpected("to a read: none")), None),
            };
            let admitted = self.local.store.place(entry.clone(), &Terms::IfAbsent);
            if admitted == Err(Refusal::Unmet) {
                return Added::Present;
            }
            let unsettled = Unsettled { store: &self.local.store, entry: &entry };
            self.remote.inbox.note(at.fingerprint, entry.hash);
            let mut write = Pending {
                remote: &self.remote,
                entry: entry.clone(),
                at: at.clone(),
                local: admitted,
                done: None,
                sent: None,
                concluded: false,
            };
            let done = match cas {
                Ok(cas) => match self.send(caller, &write, cas).await {
                    Sent::Stored => Ok(Some(Done::Stored)),
                    // Added before the invalidation, and gone with it. What the key holds is older, like the load of another
                    // process whose lease it may be: it goes too, as it would have by the value.
                    Sent::Overtaken => deleted(core.run_one(caller, Request::delete(at.key.clone(), Some(cas))).await),
                    Sent::Fenced => Ok(None),
                    Sent::Failed(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            unsettled.forget();
            match done {
                Ok(Some(done)) => {
                    lease.into_iter().for_each(Lease::forget);
                    write.done = Some(done);
                    self.announce_done(caller, std::slice::from_mut(&mut write)).await;
                }
                Err(error) => write.sent = Some(Err(error)),
                Ok(None) => {
                    write.concluded = true;
                    lease.into_iter().for_each(Lease::forget);
                    // It may be gone by now: by the news of the process that was faster, or by another caller of this one. Either
                    // way the remote tier never had it, and whoever comes next decides what is there.
                    if admitted.is_ok() {
                        self.local.store.withdraw(&entry);
                    }
                    continue;
                }
            }
            // Once, however many attempts it took.
            self.local.store.count_admitted(&admitted);
            return Added::Stored(self.conclude(write));
        }
        // Others write the key all the time: one of them was first.
        Added::Present
    }

    /// Replaces the value for `key` in both tiers by what `f` makes of it.
    pub(super) async fn update_one<Q>(&self, caller: Caller, key: &Q, f: impl Fn(&V) -> V) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let core = self.core();
        let standing = core.standing(caller).await;
        match standing {
            // Where stale values are served, nobody may have looked yet.
            Standing::Trusted => core.meet(caller).await,
            Standing::Lapsed | Standing::CutOff => {}
            Standing::Refused => return None,
        }
        let at = self.remote.locate(key);
        let hash = self.local.hash(key);
        for _ in 0..ATTEMPTS {
            let born = core.groups.generation();
            let found = match standing {
                Standing::CutOff => None,
                Standing::Trusted | Standing::Lapsed | Standing::Refused => {
                    self.remote.fetch_for(caller, std::slice::from_ref(&at), None, |_| false).await.pop()
                }
            };
            let (arrived, cas) = match found {
                Some(Found::Fresh(arrived, cas) | Found::Stale(arrived, cas)) => (arrived, cas),
                // The remote tier has none: what the local one has is there alone, and stays so.
                Some(Found::Vacant(_) | Found::Spent(_) | Found::Leased(_) | Found::Unknown(_)) | None => {
                    let usable = |meta: &Meta| standing == Standing::Trusted || self.vouches(meta);
                    let updated = self.local.update_if(key, usable, &f)?;
                    // A write that waits has the value from before.
                    core.owe_instead(&at.key, at.fingerprint, Some(self.remote.inbox.sender));
                    return Some(updated);
                }
            };
            let value = f(&arrived.value);
            let spec = self.spec_of(&arrived);
            let entry =
                self.local.store.entry::<false>(hash, key.to_key(), value.clone(), born, spec, arrived.load_cost);
            let local = self.local.store.place(entry.clone(), &Terms::Always);
            self.remote.inbox.note(at.fingerprint, hash);
            let mut write = Pending {
                remote: &self.remote,
                entry,
                at: at.clone(),
                local,
                done: None,
                sent: None,
                concluded: false,
            };
            match self.send(caller, &write, cas).await {
                Sent::Stored => {
                    write.done = Some(Done::Stored);
                    self.announce_done(caller, std::slice::from_mut(&mut write)).await;
                }
                Sent::Failed(error) => write.sent = Some(Err(error)),
                // Nothing of it was stored: the value that there is now may be another one, or none.
                Sent::Fenced | Sent::Overtaken => {
                    write.concluded = true;
                    self.local.store.withdraw(&write.entry);
                    continue;
                }
            }
            // Once, however many attempts it took.
            self.local.store.count_admitted(&write.local);
            drop(self.conclude(write));
            return Some(value);
        }
        None
    }

    /// Writes one value on the condition that the item is the one that `cas` was read from.
    async fn send(&self, caller: Caller, write: &Pending<'_, K, V>, cas: Cas) -> Sent {
        let mut groups: Vec<u64> = self.remote.roots().into_iter().chain(write.entry.meta.groups.hashes()).collect();
        groups.dedup();
        let sealed = self.core().tokens_to_record(caller, &groups).await.map(by_group).and_then(|tokens| {
            let tokens = self.remote.tokens_of(&write.entry, |group| tokens.get(&group).copied())?;
            self.remote.seal(write.at.fingerprint, &write.entry, &tokens)
        });
        if self.local.store.is_overtaken(&write.entry.meta) {
            return Sent::Overtaken;
        }
        match sealed {
            Ok(mut sealed) => set(self.core().run_one(caller, sealed.take_request(&write.at.key, cas)).await),
            Err(error) => Sent::Failed(error),
        }
    }

    /// Writes what loads have brought, each in the place of what its load has found. What is there unchanged is renewed.
    pub(super) async fn send_loads(&self, caller: Caller, outgoing: &[Outgoing<K, V>]) -> Vec<Sent> {
        let core = self.core();
        // The tokens of groups that were not known when the load began may be younger than what it has brought.
        let early = |out: &Outgoing<K, V>, group| core.known.get_since(group, out.ticket.moment());
        let mut known: Vec<HashMap<u64, GroupTokens>> = Vec::with_capacity(outgoing.len());
        let mut late: Vec<u64> = Vec::new();
        for out in outgoing {
            let groups = self.remote.roots().into_iter().chain(out.entry.meta.groups.hashes());
            let (there, missing): (Vec<_>, Vec<_>) =
                groups.map(|group| (group, early(out, group))).partition(|(_, tokens)| tokens.is_some());
            known.push(there.into_iter().filter_map(|(group, tokens)| Some((group, tokens?))).collect());
            late.extend(missing.into_iter().map(|(group, _)| group));
        }
        late.sort_unstable();
        late.dedup();
        let late = core.tokens_of_late(caller, &late).await.map(by_group);
        let mut sent: Vec<Option<Sent>> = vec![None; outgoing.len()];
        let mut sets = Vec::with_capacity(outgoing.len());
        let mut renewals = Vec::new();
        for (index, ((out, known), sent)) in outgoing.iter().zip(&known).zip(&mut sent).enumerate() {
            let of = |group| known.get(&group).or_else(|| late.as_ref().ok()?.get(&group)).copied();
            let sealed = match (self.remote.tokens_of(&out.entry, of), &late) {
                (Err(_), Err(error)) => Err(error.clone()),
                (tokens, _) => {
                    tokens.and_then(|tokens| self.remote.seal(out.ticket.fingerprint(), &out.entry, &tokens))
                }
            };
            // After the tokens were read, and after the journal that was read behind them: whatever has moved since the load
            // began shows here, or has moved a token that is younger than the recorded one.
            match (sealed, out.ticket.cas()) {
                _ if self.local.store.is_overtaken(&out.entry.meta) => *sent = Some(Sent::Overtaken),
                (Err(error), _) => *sent = Some(Sent::Failed(error)),
                (Ok(mut sealed), Some(cas)) => match self.renewal(out, &sealed) {
                    Some(renewal) => renewals.push((index, renewal)),
                    None => sets.push(sealed.take_request(out.ticket.key(), cas)),
                },
                (Ok(_), None) => *sent = Some(Sent::Fenced),
            }
        }
        if !renewals.is_empty() {
            let (places, renewals): (Vec<usize>, Vec<_>) = renewals.into_iter().unzip();
            let renewed = self.remote.renew(caller, &renewals).await;
            places.into_iter().zip(renewed).for_each(|(place, renewed)| sent[place] = Some(renewed));
        }
        let mut replies = if sets.is_empty() { Answers::new() } else { core.run(caller, sets).await }.into_iter();
        let answer = |sent: Option<Sent>| {
            sent.unwrap_or_else(|| {
                let sent = set(replies.next().unwrap_or_else(|| Err(unexpected("to a write: none"))));
                if let Sent::Stored = sent {
                    bump(&self.remote.counters.stores);
                }
                sent
            })
        };
        sent.into_iter().map(answer).collect()
    }

    /// Returns how to renew what a load has found, if what it has brought is that.
    fn renewal<'o>(&self, out: &'o Outgoing<K, V>, sealed: &Sealed) -> Option<Renewal<'o>> {
        let (renewal, asked) = (out.ticket.renewal()?, out.claim.unchanged()?);
        // Not by the word of the loader alone: it may have returned something else all the same, or have found unchanged what
        // was in the local tier, and that was not what the remote one had.
        renewal.record.stands_for(&sealed.bytes, &self.local.store.settings.lifetime, asked).then_some(renewal)
    }
}

impl<K, V: 'static> Remote<K, V> {
    /// Deletes the item that was read under `cas`, if it is still that.
    pub(super) async fn abandon(&self, caller: Caller, key: &WireKey, cas: Cas) {
        if self.core().run_one(caller, Request::delete(key.clone(), Some(cas))).await.is_err() {
            bump(&self.counters.errors);
        }
    }

    /// Returns the tokens of all groups of an entry.
    fn tokens_of(
        &self,
        entry: &Entry<K, V>,
        of: impl Fn(u64) -> Option<GroupTokens>,
    ) -> Result<Vec<GroupTokens>, RemoteError> {
        let groups = self.roots().into_iter().chain(entry.meta.groups.hashes());
        groups.map(|group| of(group).ok_or_else(|| unexpected("to the tokens of a group"))).collect()
    }

    /// Returns the bytes of a value as they are stored, and how long.
    fn seal(&self, fingerprint: u64, entry: &Entry<K, V>, tokens: &[GroupTokens]) -> Result<Sealed, RemoteError> {
        let meta = &entry.meta;
        // What is left of the deadlines now: the store counts from when it gets the value, and the exchanges before that may
        // have taken long.
        let now = self.core().clock.now();
        let hard_ttl = WireTtl::new(meta.hard().remaining(now));
        let header = Header {
            key_fingerprint: fingerprint,
            created_ms: unix_ms(),
            soft_ttl: WireTtl::new(meta.soft.get().remaining(now)),
            hard_ttl,
            load_cost_us: load_cost_us(Some(meta.lead.get()).filter(|cost| !cost.is_zero())),
        };
        let bytes = Envelope { header, groups: tokens }.encode_value(&*self.codec, self.packing, &entry.value)?;
        // From what the header says, which cuts very long deadlines: readers reckon a value's age from both.
        let expiry = hard_ttl.get().map_or(Expiry::Never, |hard| Expiry::After(kept_for(hard)));
        Ok(Sealed { bytes, expiry })
    }
}

impl Sealed {
    /// Returns the request that stores the value, once.
    fn take_request(&mut self, key: &WireKey, cas: Cas) -> Request {
        let bytes = std::mem::take(&mut self.bytes);
        Request::set(key.clone(), Route::ByKey, bytes, self.expiry, SetMode::Always, Some(cas))
    }
}

/// Returns the error of a write that lost to another at every attempt.
fn outrun() -> RemoteError {
    let message = format!("other processes wrote the key {ATTEMPTS} times while this one tried to");
    RemoteError::new(RemoteErrorKind::Refused, message)
}

fn by_group(tokens: Vec<GroupTokens>) -> HashMap<u64, GroupTokens> {
    tokens.into_iter().map(|tokens| (tokens.group_hash, tokens)).collect()
}

/// Returns the version of an item, from the answer to a read that creates what is missing.
fn version(reply: Result<Reply, RemoteError>) -> Result<Cas, RemoteError> {
    match reply? {
        Reply::Hit(item) => Ok(item.cas),
        Reply::Won(cas) | Reply::Busy(cas) => Ok(cas),
        _ => Err(unexpected("to a read that creates what is missing")),
    }
}

/// Returns what the answer to the deletion of what an overtaken write was to replace means; `None` if it is not that any more.
fn deleted(reply: Result<Reply, RemoteError>) -> Result<Option<Done>, RemoteError> {
    match reply? {
        Reply::Done | Reply::Miss => Ok(Some(Done::Deleted)),
        Reply::Fenced => Ok(None),
        _ => Err(unexpected("to a deletion")),
    }
}

/// Returns what the answer to a set means.
fn set(reply: Result<Reply, RemoteError>) -> Sent {
    match reply {
        Ok(Reply::Done) => Sent::Stored,
        Ok(Reply::Fenced | Reply::NotStored) => Sent::Fenced,
        Ok(_) => Sent::Failed(unexpected("to a write")),
        Err(error) => Sent::Failed(error),
    }
}
