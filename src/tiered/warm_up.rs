//! Warming the local tier up, from an iterator or from the remote tier.

use std::hash::{BuildHasher, Hash};

use super::TieredCache;
use super::fetch::{Found, Located};
use crate::claim::Claim;
use crate::clock::real;
use crate::key::ToKey;
use crate::namespace::core::Standing;
use crate::options::EntryOptions;
use crate::remote::batch::Caller;
use crate::remote::key::RemoteKey;
use crate::stats::bump;
use crate::store::{Look, Refusal, Terms};

/// How many keys are read from the remote tier at once: what one write carries.
const READ_AT_ONCE: usize = 256;

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Stores values that are known beforehand in the local tier, and returns how many it has stored; as
    /// [`Cache::warm_up`](crate::Cache::warm_up). The remote tier is neither asked for them nor told of them.
    ///
    /// News of other processes reach these values like any others, from the moment they are stored. While the trust lease has
    /// lapsed they are not served, unlike what this process has loaded, since nobody knows when they were read.
    ///
    /// # Blocking
    /// As [`Cache::warm_up`](crate::Cache::warm_up); and on one exchange with the remote tier, for at most the namespace's
    /// timeout, where this process has not looked at the journal yet: that voids what was stored before.
    pub fn warm_up(&self, pairs: impl IntoIterator<Item = (K, V)>) -> usize {
        self.warm_up_with(pairs.into_iter().map(without_options))
    }

    /// Stores values that are known beforehand in the local tier, each with its options; otherwise as
    /// [`warm_up`](Self::warm_up).
    ///
    /// # Blocking
    /// As [`warm_up`](Self::warm_up).
    pub fn warm_up_with(&self, entries: impl IntoIterator<Item = (K, V, EntryOptions)>) -> usize {
        real::block_on(self.warm_up_local(Caller::Thread, entries))
    }

    /// Stores values that are known beforehand in the local tier: [`warm_up`](Self::warm_up) for futures. The iterator runs
    /// in one poll.
    pub async fn warm_up_async(&self, pairs: impl IntoIterator<Item = (K, V)>) -> usize {
        self.warm_up_local(Caller::Task, pairs.into_iter().map(without_options)).await
    }

    /// Stores values that are known beforehand in the local tier, each with its options:
    /// [`warm_up_with`](Self::warm_up_with) for futures, as [`warm_up_async`](Self::warm_up_async).
    pub async fn warm_up_with_async(&self, entries: impl IntoIterator<Item = (K, V, EntryOptions)>) -> usize {
        self.warm_up_local(Caller::Task, entries).await
    }

    /// Copies the values that the remote tier has for `keys` into the local one, and returns how many it has copied.
    ///
    /// As for [`warm_up`](Self::warm_up), nothing gives way to them, and the call ends once the local tier is full. An
    /// invalidation that comes meanwhile voids a copy as it does that of any read; but these reads are not the user's, and
    /// count neither as hits nor as misses, in no tier. The call ends as well where the remote tier does not answer, and
    /// copies nothing while the trust lease has lapsed, since it would not be served.
    ///
    /// # Blocking
    /// On one exchange with the remote tier for each 256 keys that the local tier has not, on two where tokens of groups have
    /// to be read, for at most the namespace's timeout each.
    pub fn warm_up_from_remote<'q, Q, I>(&self, keys: I) -> usize
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        real::block_on(self.warm_up_remotely(Caller::Thread, keys))
    }

    /// Copies the values that the remote tier has for `keys` into the local one:
    /// [`warm_up_from_remote`](Self::warm_up_from_remote) for futures. If it is dropped half-way, some of them are copied.
    pub async fn warm_up_from_remote_async<'q, Q, I>(&self, keys: I) -> usize
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.warm_up_remotely(Caller::Task, keys).await
    }

    async fn warm_up_local(&self, caller: Caller, entries: impl IntoIterator<Item = (K, V, EntryOptions)>) -> usize {
        self.core().meet(caller).await;
        let (inbox, store) = (&self.remote.inbox, &self.local.store);
        self.local.warm_up_by(entries, |entry, reclaimed| {
            let fingerprint = self.remote.locate(&entry.key).fingerprint;
            let heard = inbox.heard();
            store.warm(entry, &Terms::ToWarm, reclaimed)?;
            inbox.note(fingerprint, entry.hash);
            // Nothing is asked for after the note that would be newer: news which did not find it yet may have been of this key.
            if inbox.heard() != heard && store.withdraw(entry) {
                return Err(Refusal::Unmet);
            }
            Ok(())
        })
    }

    async fn warm_up_remotely<'q, Q, I>(&self, caller: Caller, keys: I) -> usize
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let (mut copied, mut reclaimed) = (0, false);
        let mut keys = keys.into_iter();
        loop {
            let standing = self.core().standing(caller).await;
            let part: Vec<&Q> = keys.by_ref().take(READ_AT_ONCE).collect();
            if part.is_empty() || standing != Standing::Trusted {
                return copied;
            }
            let (claims, at): (Vec<Claim<K, V>>, Vec<Located>) =
                part.into_iter().filter_map(|key| self.claim_to_copy(caller, key)).unzip();
            let found = self.remote.fetch_for(caller, &at, None, |_| false).await;
            let mut is_silent = !found.is_empty();
            for (mut claim, found) in claims.into_iter().zip(found) {
                let arrived = match found {
                    Found::Fresh(arrived, _) | Found::Stale(arrived, _) => arrived,
                    Found::Unknown(_) => continue,
                    Found::Vacant(_) | Found::Spent(_) | Found::Leased(_) => {
                        is_silent = false;
                        continue;
                    }
                };
                is_silent = false;
                let spec = self.spec_of(&arrived);
                let entry = claim.entry(arrived.value, spec, arrived.load_cost);
                match claim.warm(&entry, &mut reclaimed) {
                    Ok(()) => {
                        bump(&self.remote.counters.copies);
                        copied += 1;
                    }
                    Err(Refusal::Unmet | Refusal::Rejected(_)) => {}
                    Err(Refusal::Full) => return copied,
                }
            }
            if is_silent {
                return copied;
            }
        }
    }

    /// Claims a key that the local tier has nothing for, as the ticket of a copy.
    fn claim_to_copy<Q>(&self, caller: Caller, key: &Q) -> Option<(Claim<K, V>, Located)>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        // The first look leaves no trace, and takes no claim of a value that is stale.
        if self.local.contains(key) {
            return None;
        }
        let Look::Vacant(claim) = self.local.store.look(self.local.hash(key), key) else { return None };
        let at = self.remote.locate(key);
        self.hold(caller, &claim, &at);
        Some((claim, at))
    }
}

fn without_options<K, V>((key, value): (K, V)) -> (K, V, EntryOptions) {
    (key, value, EntryOptions::new())
}
