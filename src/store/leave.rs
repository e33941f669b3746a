//! How entries leave, and who is told of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use equivalent::Equivalent;

use super::{Listener, Store};
use crate::entry::{Entry, Freshness, Handle};
use crate::index::Unlinked;
use crate::shard::Leaving;
use crate::stats::{RemovalCause, Tally};
use crate::task::drop_quietly;

impl<K, V> Store<K, V> {
    /// Reclaims every dead entry.
    pub(crate) fn run_maintenance(&self) {
        for shard in &self.shards {
            let mut leaving = Leaving::default();
            let freed = shard.write().sweep_all(&self.judge(), &mut leaving);
            self.budget.release(freed);
            self.dispose(leaving);
        }
        self.index.reclaim();
    }

    /// Tells of what left the shards, and drops it. Called without any lock.
    pub(crate) fn dispose(&self, mut leaving: Leaving<K, V>) {
        self.dispose_by(self.tally(), &mut leaving);
    }

    /// Disposes as [`dispose`](Self::dispose) does, for who has asked for this thread's counters already.
    #[inline]
    pub(super) fn dispose_by(&self, tally: Tally<'_>, leaving: &mut Leaving<K, V>) {
        leaving.hand_over(|entry, cause| {
            tally.removed(cause);
            self.tell(&entry, cause);
        });
    }

    /// Counts an entry that has left, and tells the listener.
    pub(super) fn announce(&self, entry: &Entry<K, V>, cause: RemovalCause) {
        self.tally().removed(cause);
        self.tell(entry, cause);
    }

    /// Tells the listener of an entry that has left.
    #[inline]
    fn tell(&self, entry: &Entry<K, V>, cause: RemovalCause) {
        if let Some(listener) = &self.settings.listener {
            self.tell_listener(listener, entry, cause);
        }
    }

    #[inline(never)]
    fn tell_listener(&self, listener: &Listener<K, V>, entry: &Entry<K, V>, cause: RemovalCause) {
        // A listener is told of what has happened already: its panic must not look like a failure of the operation.
        let told = catch_unwind(AssertUnwindSafe(|| listener(&entry.key, &entry.value, cause)));
        if let Err(panic) = told {
            self.tally().count(|counters| &counters.listener_panics);
            self.watch().listener_panicked();
            drop_quietly(panic);
        }
    }

    /// Removes every entry with this hash and fences every flight with it, for those who do not know the key.
    ///
    /// Should two keys share all 64 bits, it removes both: a miss, never a wrong answer.
    #[cfg(feature = "tiered")]
    pub(crate) fn remove_hash(&self, hash: u64) {
        self.dispose(self.take_hash(hash));
    }

    /// Takes out what [`remove_hash`](Self::remove_hash) does and runs no code of the user's: the caller hands what it returns
    /// to [`dispose`](Self::dispose) once it holds no lock.
    #[cfg(feature = "tiered")]
    pub(crate) fn take_hash(&self, hash: u64) -> Leaving<K, V> {
        let mut leaving = Leaving::default();
        let freed = self.shard(hash).write().remove_hash(hash, &self.judge(), &mut leaving);
        self.budget.release(freed);
        leaving
    }

    /// Makes every entry with this hash stale and fences every flight with it; otherwise as [`remove_hash`](Self::remove_hash).
    #[cfg(feature = "tiered")]
    pub(crate) fn expire_hash(&self, hash: u64) {
        let mut leaving = Leaving::default();
        self.shard(hash).write().expire_hash(hash, &mut leaving);
        self.dispose(leaving);
    }

    /// Takes out what may be older than `entry`: fences every flight with its hash, and removes what has that hash unless it is
    /// this very entry, alive as far as invalidations go. At one moment: a fill between a look and the fence would stay. Otherwise
    /// as [`remove_hash`](Self::remove_hash).
    #[cfg(feature = "tiered")]
    pub(crate) fn outdate(&self, entry: &Handle<K, V>) {
        let mut leaving = Leaving::default();
        let mut shard = self.shard(entry.hash).write();
        let freed = if shard.has_entry(entry) && !self.is_overtaken(&entry.meta) {
            shard.fence_hash(entry.hash, &mut leaving);
            0
        } else {
            shard.remove_hash(entry.hash, &self.judge(), &mut leaving)
        };
        drop(shard);
        self.budget.release(freed);
        self.dispose(leaving);
    }

    /// Returns whether an entry, dead ones among them, or a flight with this hash stands in its shard.
    #[cfg(feature = "tiered")]
    pub(crate) fn knows_hash(&self, hash: u64) -> bool {
        self.shard(hash).read().knows_hash(hash)
    }
}

impl<K: Eq, V> Store<K, V> {
    /// Removes the entry of `key` and fences its flight. Returns the entry, unless it was dead.
    pub(crate) fn remove<Q>(&self, hash: u64, key: &Q) -> Option<Unlinked<Entry<K, V>>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let mut shard = self.shard(hash).write();
        let flight = shard.fence(hash, key);
        let entry = shard.remove(hash, key);
        drop(shard);
        drop(flight);
        let entry = entry?;
        self.budget.release(entry.meta.weight);
        let cause = self.judge().cause_of_death(&entry.meta);
        let alive = self.freshness(&entry.meta) != Freshness::Dead;
        self.announce(&entry, cause.unwrap_or(RemovalCause::Removed));
        alive.then_some(entry)
    }

    /// Makes the entry of `key` stale and fences its flight; returns whether there is one alive.
    pub(crate) fn expire<Q>(&self, hash: u64, key: &Q) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let mut shard = self.shard(hash).write();
        let flight = shard.fence(hash, key);
        let alive = match shard.find(hash, key) {
            Some(entry) if self.freshness(&entry.meta) != Freshness::Dead => {
                entry.meta.expire();
                true
            }
            _ => false,
        };
        if alive {
            shard.end_pause(hash);
        }
        drop(shard);
        drop(flight);
        alive
    }

    /// Removes this very entry, which was [placed](Self::place) and is not to count; returns whether it was still there.
    #[cfg(feature = "tiered")]
    pub(crate) fn withdraw(&self, entry: &Handle<K, V>) -> bool {
        let withdrawn = self.shard(entry.hash).write().remove_entry(entry);
        if withdrawn.is_some() {
            self.budget.release(entry.meta.weight);
            self.tell(entry, RemovalCause::Removed);
        }
        withdrawn.is_some()
    }

    /// Removes these very entries of shard `index`, as far as they are still there, and fences their flights.
    pub(crate) fn remove_entries(&self, index: usize, entries: Vec<Handle<K, V>>) {
        let mut leaving = Leaving::default();
        // Goes back to the pool even if a comparison of keys panics half-way.
        let mut freed = self.budget.take(0);
        let mut shard = self.shards[index].write();
        // Borrowed: an entry that has left meanwhile may have its last handle here, to be dropped once the lock is free.
        for entry in &entries {
            if !shard.has_entry(entry) {
                continue;
            }
            // First, since it compares keys: should that panic, what has left by then is in `leaving`, and is dropped once the
            // lock is free as well.
            if let Some(flight) = shard.fence(entry.hash, &entry.key) {
                leaving.push_flight(flight);
            }
            if let Some(entry) = shard.remove_entry(entry) {
                freed.add(entry.meta.weight);
                leaving.push(entry, RemovalCause::Removed);
            }
        }
        drop(shard);
        drop(freed);
        drop(entries);
        self.dispose(leaving);
    }
}
