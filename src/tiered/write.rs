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
use crate::remote::link::unexpected;
use crate::remote::tier::{Action, Cas, Command, Expiry, Reply, Route, SetMode};
use crate::stats::bump;
use crate::store::{Refusal, Terms};
use crate::sync::Arc;

/// How often a write is tried that loses to another process every time, before it counts as failed.
const ATTEMPTS: usize = 8;

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
    /// The value weighs more than the local tier may hold, and was not stored.
    Rejected(Rejected),
}

impl Added {
    pub(super) fn refused(refusal: Refusal) -> Added {
        match refusal {
            Refusal::Unmet => Added::Present,
            Refusal::Rejected(rejected) => Added::Rejected(rejected),
        }
    }

    /// Returns whether the value was stored, in whichever tier.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Added::Stored(_))
    }
}

/// What became of a value on its way to the remote tier.
pub(super) enum Sent {
    Stored,
    /// The item, or a group, was not as it had been any more.
    Fenced,
    Failed(RemoteError),
}

/// One of the values that an insert writes.
struct Pending<K, V> {
    entry: Arc<Entry<K, V>>,
    key: WireKey,
    fingerprint: u64,
    local: Result<(), Refusal>,
    sent: Option<Result<(), RemoteError>>,
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
        let store = &self.local.store;
        let admit = move |(key, value), options| {
            let (wire_key, fingerprint) = self.remote.locate(&key);
            let entry = self.local.entry(key, value, born, options);
            let local = store.admit(&entry, &Terms::Always);
            Pending { entry, key: wire_key, fingerprint, local, sent: None }
        };
        let options = std::iter::repeat(options);
        let mut writes: Vec<_> = pairs.into_iter().zip(options).map(|(pair, options)| admit(pair, options)).collect();
        for _ in 0..ATTEMPTS {
            self.write_pending(&mut writes);
        }
        let finish = |write: Pending<K, V>| {
            let sent = write.sent.unwrap_or_else(|| {
                Err(RemoteError::new(
                    RemoteErrorKind::Refused,
                    format!("other processes wrote the key {ATTEMPTS} times while this one tried to"),
                ))
            });
            if write.local.is_ok() && sent.is_ok() && !store.is_current(&write.entry) {
                // Two callers that write one key at once may pass each other between the tiers: then neither copy stays.
                drop(self.local.remove(&write.entry.key));
            }
            self.remote.outcome(&write.key, write.local, sent)
        };
        writes.into_iter().map(finish).collect()
    }

    /// Tries once to send what is not sent yet: reads the version of each item, and writes on the condition that it is still
    /// that one. A write that a stalled server carries out late can then not overwrite a newer one.
    fn write_pending(&self, writes: &mut [Pending<K, V>]) {
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
        let mut ready = Vec::new();
        for (write, version) in open.iter_mut().zip(versions) {
            let sealed = version.and_then(|cas| {
                let tokens = self.remote.tokens_of(&write.entry, &[])?;
                Ok((self.remote.seal(write.fingerprint, &write.entry, &tokens)?, cas))
            });
            match sealed {
                // Overtaken by an invalidation: what the key held is gone as well.
                Ok((_, cas)) if self.local.store.is_overtaken(&write.entry.meta) => {
                    let delete = Action::Delete { cas: Some(cas) };
                    let deleted = link.run_one(&write.key, Route::ByKey, delete);
                    if !matches!(deleted, Ok(Reply::Fenced)) {
                        write.sent = Some(deleted.map(|_| ()));
                    }
                }
                Ok(sealed) => ready.push((write, sealed)),
                Err(error) => write.sent = Some(Err(error)),
            }
        }
        let sets: Vec<_> =
            ready.iter().map(|(write, (bytes, cas))| set(&write.key, bytes, &write.entry, *cas)).collect();
        let replies = if sets.is_empty() { Vec::new() } else { link.run(&sets) };
        for ((write, _), reply) in ready.into_iter().zip(replies) {
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
    /// Writes the value of `entry` on the condition that the item is the one that `cas` was read from.
    pub(super) fn send<K>(
        &self,
        key: &WireKey,
        fingerprint: u64,
        entry: &Entry<K, V>,
        tokens: &[GroupTokens],
        cas: Cas,
    ) -> Sent {
        let sealed = self.tokens_of(entry, tokens).and_then(|tokens| self.seal(fingerprint, entry, &tokens));
        // After the tokens were read: a bump in this process moves the local group first, so that one whose new token was
        // read here shows.
        if entry.meta.groups.moved_since(entry.meta.born) {
            self.abandon(key, Some(cas));
            return Sent::Fenced;
        }
        let reply = sealed.and_then(|bytes| {
            let reply = self.namespace.link().run(&[set(key, &bytes, entry, cas)]).pop();
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
            Ok(_) => Sent::Failed(self.unreachable("to a write")),
            Err(error) => {
                bump(&self.counters.errors);
                Sent::Failed(error)
            }
        }
    }

    /// Returns the tokens of all groups of an entry: those known from before its load, and of groups named later the present
    /// ones.
    fn tokens_of<K>(&self, entry: &Entry<K, V>, known: &[GroupTokens]) -> Result<Vec<GroupTokens>, RemoteError> {
        let groups: Vec<u64> = self.roots().into_iter().chain(entry.meta.groups.hashes()).collect();
        let known: HashMap<u64, GroupTokens> = known.iter().map(|tokens| (tokens.group_hash, *tokens)).collect();
        let late: Vec<u64> = groups.iter().copied().filter(|group| !known.contains_key(group)).collect();
        let mut late =
            if late.is_empty() { Vec::new() } else { self.namespace.link().tokens_for_store(&late)? }.into_iter();
        Ok(groups.iter().filter_map(|group| known.get(group).copied().or_else(|| late.next())).collect())
    }

    /// Returns the bytes of a value as they are stored.
    fn seal<K>(&self, fingerprint: u64, entry: &Entry<K, V>, tokens: &[GroupTokens]) -> Result<Vec<u8>, RemoteError> {
        let meta = &entry.meta;
        let header = Header {
            key_fingerprint: fingerprint,
            created_ms: unix_ms(),
            soft_ttl: WireTtl::new(meta.soft.get().remaining(meta.created)),
            hard_ttl: WireTtl::new(meta.hard.remaining(meta.created)),
            load_cost_us: load_cost_us(Some(meta.load_cost.get()).filter(|cost| !cost.is_zero())),
        };
        Envelope { header, groups: tokens }.encode_value(&*self.codec, &entry.value)
    }

    /// Says how far a write has come, and sees to it that nothing old is left where it failed.
    fn outcome(&self, key: &WireKey, local: Result<(), Refusal>, remote: Result<(), RemoteError>) -> Write {
        bump(if remote.is_ok() { &self.counters.stores } else { &self.counters.errors });
        match (local, remote) {
            (Err(Refusal::Rejected(rejected)), Ok(())) => Write::RemoteOnly(rejected),
            (Err(Refusal::Rejected(rejected)), Err(error)) => {
                let receipt = self.receipt(key, error.clone());
                Write::Nowhere(rejected, error, receipt)
            }
            (_, Ok(())) => Write::Through,
            (_, Err(error)) => self.owe_deletion(key, error),
        }
    }

    /// Owes the deletion of what the remote tier holds under a key that was written locally alone.
    pub(super) fn owe_deletion(&self, key: &WireKey, error: RemoteError) -> Write {
        let receipt = self.receipt(key, error.clone());
        Write::LocalOnly(error, receipt)
    }

    fn receipt(&self, key: &WireKey, error: RemoteError) -> Receipt {
        let debt = self.namespace.link().owe(Subject::Item(key.clone()));
        Receipt::new(&self.namespace, debt, error)
    }
}

/// Returns the command that stores a sealed value.
fn set<'a, K, V>(key: &'a WireKey, bytes: &'a [u8], entry: &Entry<K, V>, cas: Cas) -> Command<'a> {
    let expiry =
        entry.meta.hard.remaining(entry.meta.created).map_or(Expiry::Never, |hard| Expiry::After(kept_for(hard)));
    let action = Action::Set { value: bytes, expiry, mode: SetMode::Always, cas: Some(cas) };
    Command { key, route: Route::ByKey, action }
}
