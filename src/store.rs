//! The engine of the local tier: shards behind their locks, and how entries come, are claimed, and go.
//!
//! Every operation takes one shard's lock at a time, and what leaves a shard is told of and dropped once the lock is free.

mod leave;
mod look;
mod make;
mod place;
mod read;
mod room;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use self::look::Look;
pub(crate) use self::place::{Refusal, Terms};
pub(crate) use self::settings::{Listener, Settings, Weigher};
use crate::budget::Budget;
use crate::clock::{Deadline, Timestamp};
use crate::compact::Millis;
use crate::entry::{Entry, Freshness, Handle, Judge, Meta};
use crate::group::Group;
use crate::index::Index;
use crate::limit::Observer;
use crate::options::UsualDeadlines;
use crate::shard::Shard;
use crate::stats::{Stats, StripedCounters, Tally};
use crate::sync::{Arc, Padded, RwLock};
use crate::watch::CacheWatch;

/// One shard behind its lock.
type Lock<K, V> = Padded<RwLock<Shard<K, V>>>;

/// How long a refresh that failed ahead of time is not tried again, unless the cache was built to say otherwise: not at every
/// call, as long as the value is fresh anyway.
const RETRY_AHEAD: Duration = Duration::from_secs(1);

/// A cache without its hasher: what claims and loads hold on to.
pub(crate) struct Store<K, V> {
    /// Finds entries without the shards' locks. Who is not sure that there is none looks again under the lock.
    index: Index<Entry<K, V>>,
    shards: Box<[Lock<K, V>]>,
    budget: Budget,
    pub(crate) root: Arc<Group>,
    counters: StripedCounters,
    /// The deadlines and the grace of values that say nothing of theirs.
    usual_deadlines: Option<UsualDeadlines>,
    usual_grace: Millis,
    pub(crate) settings: Settings<K, V>,
}

impl<K, V> Store<K, V> {
    pub(crate) fn new(capacity: u64, shards: usize, settings: Settings<K, V>) -> Store<K, V> {
        debug_assert!(shards.is_power_of_two());
        let (index, tables) = Index::new(shards, capacity);
        Store {
            index,
            shards: tables.into_iter().map(|table| Padded(RwLock::new(Shard::new(table)))).collect(),
            budget: Budget::new(capacity),
            root: settings.groups.new_root(),
            counters: StripedCounters::new(CacheWatch::new(&settings.name)),
            usual_deadlines: settings.lifetime.usual(),
            usual_grace: Millis::new(settings.grace),
            settings,
        }
    }

    #[inline]
    pub(crate) fn tally(&self) -> Tally<'_> {
        self.counters.mine()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Returns who the cache is to those who watch it.
    pub(crate) fn watch(&self) -> &CacheWatch {
        self.counters.watch()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Returns the number of entries and their weight, without those from before the last clear.
    pub(crate) fn census(&self) -> (usize, u64) {
        let sum = |sum: (usize, u64), part: (usize, u64)| (sum.0 + part.0, sum.1.saturating_add(part.1));
        let (len, weight) = self.shards.iter().map(|shard| shard.read().census(&self.root)).fold((0, 0), sum);
        if weight <= self.capacity() {
            return (len, weight);
        }
        // Weight that went from one shard to another meanwhile was counted in both: once more, with all of them standing
        // still. Every thread that holds several of these locks takes them in this order.
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.read()).collect();
        shards.iter().map(|shard| shard.census(&self.root)).fold((0, 0), sum)
    }

    pub(crate) fn clear(&self) {
        self.settings.groups.bump_root(&self.root);
    }

    /// Puts the next refresh of an entry off, after one that brought nothing, and returns whether the entry answers for that
    /// one: where the cache was built so, and as long as it is alive.
    pub(crate) fn put_off(&self, entry: &Handle<K, V>) -> bool {
        let retry_after = match (self.freshness(&entry.meta), self.settings.stale_if_error) {
            (Freshness::Dead, _) | (Freshness::Stale, None) => return false,
            (Freshness::Fresh, None) => RETRY_AHEAD,
            (Freshness::Fresh | Freshness::Stale, Some(retry_after)) => retry_after,
        };
        self.pause(entry, retry_after);
        true
    }

    /// Has no refresh of an entry begin for this long, if it is still there.
    pub(crate) fn pause(&self, entry: &Handle<K, V>, interval: Duration) {
        let until = Deadline::after(self.settings.clock.now(), interval);
        let mut shard = self.shard(entry.hash).write();
        if shard.has_entry(entry) {
            shard.pause(entry.hash, until);
        }
    }

    /// Returns whether an entry is fresh. Always inline for the reason that [`Meta::is_fresh`] has.
    #[inline(always)]
    pub(crate) fn is_fresh(&self, meta: &Meta) -> bool {
        meta.is_fresh(&self.settings.groups, &self.root, &self.settings.clock)
    }

    pub(crate) fn freshness(&self, meta: &Meta) -> Freshness {
        meta.freshness(&self.settings.groups, &self.root, &self.settings.clock)
    }

    /// Returns the entries of shard `index` that are alive.
    pub(crate) fn snapshot(&self, index: usize) -> Vec<Handle<K, V>> {
        let mut entries: Vec<_> = self.shards[index].read().entries().collect();
        entries.retain(|entry| self.freshness(&entry.meta) != Freshness::Dead);
        entries
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard<K, V>> {
        &self.shards[self.index.shard_of(hash)]
    }

    #[inline]
    fn judge(&self) -> Judge<'_> {
        // The coarse clock never runs ahead: what it takes for dead is dead.
        self.judge_at(self.settings.clock.coarse())
    }

    /// Returns what takes those for dead who are at `now`, a moment that has been.
    #[inline]
    fn judge_at(&self, now: Timestamp) -> Judge<'_> {
        Judge { root: &self.root, groups: &self.settings.groups, now }
    }

    /// Returns whether an entry was overtaken by a bump of one of its groups or of the cache.
    #[cfg(feature = "tiered")]
    pub(crate) fn is_overtaken(&self, meta: &Meta) -> bool {
        let born = meta.born.get();
        self.root.moved_since(born) || meta.groups.moved_since(born)
    }
}

impl<K: Send + Sync, V: Send + Sync> Observer for Store<K, V> {
    fn gave_up(&self, allowed: Duration) {
        self.tally().count(|counters| &counters.load_aborts);
        self.tally().loaded(allowed, false);
    }
}
