//! Writing to the remote tier: what is sent, and how far it has come.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use super::fetch::{LEASE, kept_for, unix_ms};
use super::{Remote, TieredCache};
use crate::entry::Entry;
use crate::error::Rejected;
use crate::namespace::Receipt;
use crate::options::EntryOptions;
use crate::remote::debt::Subject;
use crate::remote::envelope::{Envelope, GroupTokens, Header, WireTtl, load_cost_us};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::{RemoteKey, WireKey};
use crate::remote::link::{Owed, unexpected};
use crate::remote::tier::{Action, Cas, Command, Expiry, Reply, Route, SetMode};
use crate::stats::bump;
use crate::store::{Refusal, Store, Terms};
use crate::sync::Arc;

/// How often a write is tried that loses to another process every time, before it counts as failed.
pub(super) const ATTEMPTS: usize = 8;

/// How far a write has come when the call that made it returns.
#[derive(Clone, Debug)]
#[must_use = "a write may have reached one tier alone"]
#[non_exhaustive]
pub enum Write {
    /// The value is in both tiers.
    Through,
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
pub(super) enum Sent {
    Stored,
    /// The item was not as it had been any more.
    Fenced,
    /// This process has invalidated a group of it, or the cache, meanwhile. Nothing was sent.
    Overtaken,
    Failed(RemoteError),
}

/// One of the values that an insert writes.
struct Pending<'a, K, V: 'static> {
    remote: &'a Remote<V>,
    entry: Arc<Entry<K, V>>,
    key: WireKey,
    fingerprint: u64,
    local: Result<(), Refusal>,
    sent: Option<Result<(), RemoteError>>,
    concluded: bool,
}

impl<K, V: 'static> Drop for Pending<'_, K, V> {
    fn drop(&mut self) {
        // A codec, or the iterator that gives the pairs, has panicked: the local tier has the new value by now, and must not
        // find the old one in the remote tier later.
        if !self.concluded && !matches!(self.sent, Some(Ok(()))) {
            self.remote.namespace.link().owe(Subject::Item(self.key.clone()));
        }
    }
}

/// An entry that was added to the local tier, and has to leave it again if the codec panics: another process may add the key
/// now.
pub(super) struct Unsettled<'a, K: Eq, V> {
    pub(super) store: &'a Store<K, V>,
    pub(super) entry: &'a Arc<Entry<K, V>>,
}

impl<K: Eq, V> Unsettled<'_, K, V> {
    pub(super) fn forget(self) {
        std::mem::forget(self);
    }
}

impl<K: Eq, V> Drop for Unsettled<'_, K, V> {
    fn drop(&mut self) {
        self.store.withdraw(self.entry);
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
    pub(super) fn write_all(&self, pairs: impl IntoIterator<Item = (K, V)>, options: EntryOptions) -> Vec<Write> {
        let born = self.remote.namespace.groups().generation();
        let admit = move |(key, value), options| {
            let (wire_key, fingerprint) = self.remote.locate(&key);
            let entry = self.local.entry(key, value, born, options);
            let remote = &*self.remote;
            let mut write =
                Pending { remote, entry, key: wire_key, fingerprint, local: Ok(()), sent: None, concluded: false };
            write.local = self.local.store.admit(&write.entry, &Terms::Always);
            write
        };
        let options = std::iter::repeat(options);
        let mut writes: Vec<_> = pairs.into_iter().zip(options).map(|(pair, options)| admit(pair, options)).collect();
        // Of several values for one key the last one stays, as if they were written one after the other: the others are not
        // sent, and have come as far as it.
        let last: HashMap<&WireKey, usize> = writes.iter().enumerate().map(|(at, write)| (&write.key, at)).collect();
        let heirs: Vec<usize> = writes.iter().map(|write| last[&write.key]).collect();
        for (_, write) in writes.iter_mut().enumerate().filter(|(at, _)| heirs[*at] != *at) {
            write.sent = Some(Ok(()));
        }
        for _ in 0..ATTEMPTS {
            self.write_pending(&mut writes);
        }
        let conclude = |mut write: Pending<'_, K, V>| {
            write.concluded = true;
            let sent = write.sent.take().unwrap_or_else(|| {
                Err(RemoteError::new(
                    RemoteErrorKind::Refused,
                    format!("other processes wrote the key {ATTEMPTS} times while this one tried to"),
                ))
            });
            if sent.is_ok() {
                bump(&self.remote.counters.stores);
            }
            self.conclude(&write.key, &write.entry, write.local, sent)
        };
        // From the end, so that the outcome of an heir is known before it is asked for.
        let mut outcomes: Vec<Write> = Vec::with_capacity(writes.len());
        let len = writes.len();
        for (write, (at, heir)) in writes.into_iter().zip(heirs.into_iter().enumerate()).rev() {
            let outcome = if heir == at { conclude(write) } else { outcomes[len - 1 - heir].clone() };
            outcomes.push(outcome);
        }
        outcomes.reverse();
        outcomes
    }

    /// Says how far a write has come, and sees to it that neither tier is left with anything older.
    pub(super) fn conclude(
        &self,
        key: &WireKey,
        entry: &Arc<Entry<K, V>>,
        local: Result<(), Refusal>,
        sent: Result<(), RemoteError>,
    ) -> Write {
        let owed = sent.map_err(|error| {
            bump(&self.remote.counters.errors);
            let debt = self.remote.namespace.link().owe(Subject::Item(key.clone()));
            let receipt = Receipt::new(&self.remote.namespace, Owed { error: error.clone(), debts: vec![debt] });
            (error, receipt)
        });
        // Where the local tier has another value by now, or none, that one may be older than what the remote tier has: two
        // callers that write one key at once may pass each other between the tiers, and a reader may have copied the old
        // remote value as soon as this one was evicted. From here on it would copy the new one, or none while it is owed.
        if !self.local.store.is_current(entry) {
            drop(self.local.remove(&entry.key));
        }
        match (local, owed) {
            (Err(Refusal::Rejected(rejected)), Ok(())) => Write::RemoteOnly(rejected),
            (Err(Refusal::Rejected(rejected)), Err((error, receipt))) => Write::Nowhere(rejected, error, receipt),
            (_, Ok(())) => Write::Through,
            (_, Err((error, receipt))) => Write::LocalOnly(error, receipt),
        }
    }

    /// Tries once to send what is not sent yet: reads the version of each item, and writes on the condition that it is still
    /// that one. A write that a stalled server carries out late can then not overwrite a newer one.
    fn write_pending(&self, writes: &mut [Pending<'_, K, V>]) {
        let link = self.remote.namespace.link();
        let mut open: Vec<_> = writes.iter_mut().filter(|write| write.sent.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let read = Action::Get { value: false, lease: Some(LEASE), touch: None };
        let reads: Vec<_> =
            open.iter().map(|write| Command { key: &write.key, route: Route::ByKey, action: read }).collect();
        let versions: Vec<Result<Cas, RemoteError>> = link
            .run(&reads)
            .into_iter()
            .map(|reply| match reply? {
                Reply::Hit(item) => Ok(item.cas),
                Reply::Won(cas) | Reply::Busy(cas) => Ok(cas),
                _ => Err(unexpected("to a read that creates what is missing")),
            })
            .collect();
        let mut known = Vec::new();
        for (write, version) in open.iter_mut().zip(versions) {
            match version {
                Ok(cas) => known.push((write, cas)),
                Err(error) => write.sent = Some(Err(error)),
            }
        }
        if known.is_empty() {
            return;
        }
        // One exchange for the groups of all.
        let mut groups: Vec<u64> = known.iter().flat_map(|(write, _)| write.entry.meta.groups.hashes()).collect();
        groups.extend(self.remote.roots());
        groups.sort_unstable();
        groups.dedup();
        let tokens = link.tokens_for_store(&groups);
        let mut ready = Vec::new();
        for (write, cas) in known {
            let sealed = tokens.as_ref().map_err(Clone::clone).and_then(|tokens| {
                let tokens = self.remote.tokens_of(&write.entry, tokens)?;
                self.remote.seal(write.fingerprint, &write.entry, &tokens)
            });
            match sealed {
                // Overtaken by an invalidation: what the key held is gone as well.
                Ok(_) if self.local.store.is_overtaken(&write.entry.meta) => {
                    let delete = Action::Delete { cas: Some(cas) };
                    let deleted = link.run_one(&write.key, Route::ByKey, delete);
                    if !matches!(deleted, Ok(Reply::Fenced)) {
                        write.sent = Some(deleted.map(|_| ()));
                    }
                }
                Ok(sealed) => ready.push((write, sealed, cas)),
                Err(error) => write.sent = Some(Err(error)),
            }
        }
        let sets: Vec<_> = ready.iter().map(|(write, sealed, cas)| sealed.command(&write.key, *cas)).collect();
        let replies = if sets.is_empty() { Vec::new() } else { link.run(&sets) };
        for ((write, ..), reply) in ready.into_iter().zip(replies) {
            write.sent = match reply {
                Ok(Reply::Done) => Some(Ok(())),
                Ok(Reply::Fenced | Reply::NotStored) => None,
                Ok(_) => Some(Err(unexpected("to a write"))),
                Err(error) => Some(Err(error)),
            };
        }
    }
}

impl<V: 'static> Remote<V> {
    /// Writes the value of `entry`, which is in `store` or on its way there, on the condition that the item is the one that
    /// `cas` was read from.
    pub(super) fn send<K>(
        &self,
        key: &WireKey,
        fingerprint: u64,
        entry: &Entry<K, V>,
        store: &Store<K, V>,
        tokens: &[GroupTokens],
        cas: Cas,
    ) -> Sent {
        let sealed = self.tokens_of(entry, tokens).and_then(|tokens| self.seal(fingerprint, entry, &tokens));
        // After the tokens were read: a bump in this process moves the local group first, so that one whose new token was
        // read here shows.
        if store.is_overtaken(&entry.meta) {
            bump(&self.counters.fences);
            return Sent::Overtaken;
        }
        let reply = sealed.and_then(|sealed| {
            let reply = self.namespace.link().run(&[sealed.command(key, cas)]).pop();
            reply.unwrap_or_else(|| Err(unexpected("to a write")))
        });
        match reply {
            Ok(Reply::Done) => {
                bump(&self.counters.stores);
                Sent::Stored
            }
            Ok(Reply::Fenced | Reply::NotStored) => {
                bump(&self.counters.fences);
                Sent::Fenced
            }
            other => {
                bump(&self.counters.errors);
                Sent::Failed(other.err().unwrap_or_else(|| unexpected("to a write")))
            }
        }
    }

    /// Returns the tokens of all groups of an entry: those that are known, from before its load or all at once, and of groups
    /// named later the present ones.
    fn tokens_of<K>(&self, entry: &Entry<K, V>, known: &[GroupTokens]) -> Result<Vec<GroupTokens>, RemoteError> {
        let groups: Vec<u64> = self.roots().into_iter().chain(entry.meta.groups.hashes()).collect();
        let known: HashMap<u64, GroupTokens> = known.iter().map(|tokens| (tokens.group_hash, *tokens)).collect();
        let late: Vec<u64> = groups.iter().copied().filter(|group| !known.contains_key(group)).collect();
        let mut late =
            if late.is_empty() { Vec::new() } else { self.namespace.link().tokens_for_store(&late)? }.into_iter();
        Ok(groups.iter().filter_map(|group| known.get(group).copied().or_else(|| late.next())).collect())
    }

    /// Returns the bytes of a value as they are stored, and how long.
    fn seal<K>(&self, fingerprint: u64, entry: &Entry<K, V>, tokens: &[GroupTokens]) -> Result<Sealed, RemoteError> {
        let meta = &entry.meta;
        // What is left of the deadlines now: the store counts from when it gets the value, and the exchanges before that may
        // have taken long.
        let now = self.namespace.clock().now();
        let hard_ttl = WireTtl::new(meta.hard.remaining(now));
        let header = Header {
            key_fingerprint: fingerprint,
            created_ms: unix_ms(),
            soft_ttl: WireTtl::new(meta.soft.get().remaining(now)),
            hard_ttl,
            load_cost_us: load_cost_us(Some(meta.load_cost.get()).filter(|cost| !cost.is_zero())),
        };
        let bytes = Envelope { header, groups: tokens }.encode_value(&*self.codec, &entry.value)?;
        // From what the header says, which cuts very long deadlines: readers reckon a value's age from both.
        let expiry = hard_ttl.get().map_or(Expiry::Never, |hard| Expiry::After(kept_for(hard)));
        Ok(Sealed { bytes, expiry })
    }
}

impl Sealed {
    /// Returns the command that stores the value.
    fn command<'a>(&'a self, key: &'a WireKey, cas: Cas) -> Command<'a> {
        let action = Action::Set { value: &self.bytes, expiry: self.expiry, mode: SetMode::Always, cas: Some(cas) };
        Command { key, route: Route::ByKey, action }
    }
}
