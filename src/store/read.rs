//! How entries are found: without a lock where they are, and under one shard's to make sure that they are not.

use equivalent::Equivalent;

use super::Store;
use crate::entry::{Entry, Freshness, Handle, Meta};
use crate::index::{Hit, Missed, Resident};
use crate::stats::Tally;

impl<K: Eq, V> Store<K, V> {
    /// Reads as [`read`](Self::read) does for a caller, who is counted, and whose hit keeps the entry from being evicted.
    #[inline]
    pub(crate) fn hit<Q, R>(&self, hash: u64, key: &Q, f: impl FnOnce(&Entry<K, V>) -> R) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        // Once for the search and for the counters.
        let reader = self.index.reader();
        let tally = self.counters.of(reader);
        let shard = self.index.shard_of(hash);
        let found = match reader {
            Some(reader) => self.index.find_by(reader, shard, hash, |entry| key.equivalent(&entry.key)),
            None => Err(Missed::Unsure),
        };
        let entry = match found {
            Ok(entry) => entry,
            Err(missed) => return self.missed(missed, tally, hash, key, f),
        };
        // Straight to what nearly every call is for.
        if self.is_fresh(&entry.meta) {
            entry.meta.recency.touch();
            tally.count(|counters| &counters.hits_fresh);
            return Some(f(&entry));
        }
        self.hit_entry(tally, &entry, f)
    }

    /// Reads as [`hit`](Self::hit) does what was not found without the lock: as a rule it is not there.
    #[inline]
    fn missed<Q, R>(
        &self,
        missed: Missed,
        tally: Tally<'_>,
        hash: u64,
        key: &Q,
        f: impl FnOnce(&Entry<K, V>) -> R,
    ) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        match self.unless_absent(missed, hash, key) {
            Some(entry) => self.hit_entry(tally, &entry, f),
            None => {
                tally.count(|counters| &counters.misses);
                None
            }
        }
    }

    /// Reads as [`hit`](Self::hit) does what may be stale or dead.
    #[inline(never)]
    fn hit_entry<R>(&self, tally: Tally<'_>, entry: &Entry<K, V>, f: impl FnOnce(&Entry<K, V>) -> R) -> Option<R> {
        let freshness = self.freshness(&entry.meta);
        tally.count(|counters| match freshness {
            Freshness::Fresh => &counters.hits_fresh,
            Freshness::Stale => &counters.hits_stale,
            Freshness::Dead => &counters.misses,
        });
        if freshness == Freshness::Dead {
            return None;
        }
        entry.meta.recency.touch();
        Some(f(entry))
    }

    /// Calls `f` with the entry of `key`, unless it is absent or dead. Runs outside of locks.
    #[inline]
    pub(crate) fn read<Q, R>(&self, hash: u64, key: &Q, f: impl FnOnce(&Entry<K, V>, Freshness) -> R) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.read_if(hash, key, |_| true, f)
    }

    /// Reads as [`read`](Self::read) does, and takes an entry that is not `usable` for a dead one.
    #[inline]
    pub(crate) fn read_if<Q, R>(
        &self,
        hash: u64,
        key: &Q,
        usable: impl FnOnce(&Meta) -> bool,
        f: impl FnOnce(&Entry<K, V>, Freshness) -> R,
    ) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let entry = match self.find_unlocked(hash, key) {
            Ok(entry) => entry,
            Err(missed) => {
                return self.unless_absent(missed, hash, key).and_then(|entry| self.read_entry(&entry, usable, f));
            }
        };
        if !usable(&entry.meta) {
            return None;
        }
        // Straight to what nearly every call is for, as in `hit`.
        if self.is_fresh(&entry.meta) {
            return Some(f(&entry, Freshness::Fresh));
        }
        self.read_entry(&entry, |_| true, f)
    }

    /// Reads as [`read_if`](Self::read_if) does what may be stale or dead.
    #[inline(never)]
    fn read_entry<R>(
        &self,
        entry: &Entry<K, V>,
        usable: impl FnOnce(&Meta) -> bool,
        f: impl FnOnce(&Entry<K, V>, Freshness) -> R,
    ) -> Option<R> {
        let freshness = if usable(&entry.meta) { self.freshness(&entry.meta) } else { Freshness::Dead };
        (freshness != Freshness::Dead).then(|| f(entry, freshness))
    }

    /// Returns the entry of `key`, unless it is absent, not `usable`, or dead.
    pub(crate) fn find_if<Q>(
        &self,
        hash: u64,
        key: &Q,
        usable: impl FnOnce(&Meta) -> bool,
    ) -> Option<(Handle<K, V>, Freshness)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let entry = match self.find_unlocked(hash, key) {
            Ok(entry) => entry.handle(),
            Err(missed) => self.unless_absent(missed, hash, key)?,
        };
        let freshness = if usable(&entry.meta) { self.freshness(&entry.meta) } else { Freshness::Dead };
        (freshness != Freshness::Dead).then_some((entry, freshness))
    }

    /// Returns the entry of `key`, if a look without the lock finds it.
    #[inline]
    pub(super) fn find_unlocked<Q>(&self, hash: u64, key: &Q) -> Result<Hit<'_, Entry<K, V>>, Missed>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.index.find(self.index.shard_of(hash), hash, |entry| key.equivalent(&entry.key))
    }

    /// Returns the entry of `key` that a look without the lock has missed, unless that is sure of it.
    #[inline]
    fn unless_absent<Q>(&self, missed: Missed, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        match missed {
            Missed::Absent => None,
            Missed::Unsure => self.find_locked(hash, key),
        }
    }

    /// Returns the entry of `key`, by a look under the lock: one without it may have missed it on its way to another place.
    #[cold]
    fn find_locked<Q>(&self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.shard(hash).read().find(hash, key).map(Resident::handle)
    }
}
