//! An entry: a value with its deadlines, its groups, and what decides whether it is fresh, stale or dead.

use std::time::Duration;

use crate::clock::{AtomicDeadline, Clock, Deadline, Timestamp};
use crate::compact::{Micros, Millis};
use crate::group::{AtomicGeneration, Group, GroupSet, Groups};
use crate::policy::{NodeId, Recency, Resident};
use crate::stats::RemovalCause;
use crate::sync::{Arc, AtomicU32, Ordering};

/// A value in the cache. All but its atomics stays as it was made: a change is another entry.
///
/// In the order in which a hit reads it, so that it touches as few cache lines as can be.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) meta: Meta,
    pub(crate) hash: u64,
    pub(crate) seat: Seat,
}

/// Where a shard keeps an entry. Here rather than in the shard's table, so that the slots that a hit reads lie twice as close.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// The node of the eviction policy.
    node: AtomicU32,
    /// How many times the shard had been cleared when the entry came.
    epoch: AtomicU32,
}

// Relaxed: written and read under the shard's lock alone.
impl Seat {
    pub(crate) fn take(&self, node: NodeId, epoch: u32) {
        self.node.store(node.to_raw(), Ordering::Relaxed);
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId::from_raw(self.node.load(Ordering::Relaxed))
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }
}

/// What an entry is beside key and value.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Meta {
    /// The registry's generation from before the value's load began, or one up to which no bump concerned it: a later bump of
    /// a group takes the value along.
    pub(crate) born: AtomicGeneration,
    /// From here the value is stale. Never later than `hard`; brought forward by `expire`.
    pub(crate) soft: AtomicDeadline,
    pub(crate) groups: GroupSet,
    pub(crate) recency: Recency,
    /// Whether this process loaded or made the value, and did not copy it from the remote tier.
    #[cfg(feature = "tiered")]
    pub(crate) is_own: bool,
    /// How long a claim to refresh the value lasts.
    pub(crate) grace: Millis,
    /// From here the value is dead.
    pub(crate) hard: Deadline,
    /// Until then no refresh is tried again, after one that failed.
    pub(crate) retry_at: AtomicDeadline,
    pub(crate) weight: u64,
    pub(crate) created: Timestamp,
    /// How long the load took that brought the value; zero where there was none.
    pub(crate) load_cost: Micros,
    /// How long before its soft deadline the value is due for a refresh, where that is a fixed part of its time; else zero.
    pub(crate) ahead: Millis,
}

/// Whether a value may be served, and whether it should be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    Stale,
    Dead,
}

impl Meta {
    /// Judges the entry at this moment: dead by its hard deadline or a group, stale by its soft deadline or a group.
    ///
    /// `soft` is never after `hard`, so that a fresh entry costs one comparison of times, and one without deadlines none.
    #[inline]
    pub(crate) fn freshness(&self, groups: &Groups, root: &Group, clock: &Clock) -> Freshness {
        let untouched = groups.settled(&self.born, root, &self.groups);
        if untouched && !clock.has_passed(self.soft.get()) { Freshness::Fresh } else { self.past_soft(root, clock) }
    }

    /// Returns until when the value is as good as one read from its source at most `trust` before: it was read there when its
    /// load began, or later. `trust` counts in whole milliseconds, and what is left of one is dropped.
    #[cfg(feature = "tiered")]
    pub(crate) fn vouched_until(&self, trust: Duration) -> Deadline {
        // A copy was judged by what was known under an earlier look at the journal. Of a load that took longer than can be
        // recorded nobody knows when it began.
        if !self.is_own || self.load_cost.is_max() {
            return Deadline::PASSED;
        }
        Deadline::within(self.created.before(self.load_cost.get()), trust)
    }

    /// Makes the entry stale, and due for a refresh, at once. Under the shard's lock, for those who need deadlines exact.
    pub(crate) fn expire(&self) {
        self.soft.set(Deadline::PASSED);
        self.retry_at.set(Deadline::PASSED);
    }

    /// Returns whether a bump of a kind that kills came to one of the groups or to the cache.
    pub(crate) fn killed(&self, root: &Group) -> bool {
        let born = self.born.get();
        root.killed_since(born) || self.groups.killed_since(born)
    }

    #[cold]
    fn past_soft(&self, root: &Group, clock: &Clock) -> Freshness {
        if self.killed(root) || clock.has_passed(self.hard) { Freshness::Dead } else { Freshness::Stale }
    }
}

/// What it takes to tell the dead from the living at one moment.
pub(crate) struct Judge<'a> {
    pub(crate) root: &'a Group,
    pub(crate) groups: &'a Groups,
    pub(crate) now: Timestamp,
}

impl Judge<'_> {
    /// Returns why an entry is dead, or `None` while it is alive.
    pub(crate) fn cause_of_death(&self, meta: &Meta) -> Option<RemovalCause> {
        if meta.hard.has_passed(self.now) {
            Some(RemovalCause::Expired)
        } else if meta.killed(self.root) {
            Some(RemovalCause::Invalidated)
        } else {
            None
        }
    }
}

impl<K, V> Resident for Arc<Entry<K, V>> {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn weight(&self) -> u64 {
        self.meta.weight
    }

    #[inline]
    fn recency(&self) -> &Recency {
        &self.meta.recency
    }
}

/// What [`Cache::inspect`](crate::Cache::inspect) tells of an entry. A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// How long ago the value was stored.
    pub age: Duration,
    /// How long until it is stale: zero if it is by now, by deadline or by a group; `None` if no time makes it so.
    pub soft_in: Option<Duration>,
    /// How long until it is dead; `None` if no time makes it so.
    pub hard_in: Option<Duration>,
    /// What it counts against the cache's capacity.
    pub weight: u64,
    /// The names of its groups, in the order they were given.
    pub groups: Vec<String>,
}

impl EntryInfo {
    pub(crate) fn new(meta: &Meta, freshness: Freshness, now: Timestamp) -> EntryInfo {
        EntryInfo {
            age: now.since(meta.created),
            soft_in: match freshness {
                Freshness::Fresh => meta.soft.get().remaining(now),
                Freshness::Stale | Freshness::Dead => Some(Duration::ZERO),
            },
            hard_in: meta.hard.remaining(now),
            weight: meta.weight,
            groups: meta.groups.names().map(str::to_owned).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Generation;

    fn meta(born: Generation, soft: Deadline, hard: Deadline, groups: GroupSet, now: Timestamp) -> Meta {
        Meta {
            born: AtomicGeneration::new(born),
            soft: AtomicDeadline::new(soft),
            hard,
            retry_at: AtomicDeadline::new(Deadline::PASSED),
            groups,
            recency: Recency::default(),
            #[cfg(feature = "tiered")]
            is_own: true,
            weight: 1,
            created: now,
            grace: Millis::new(Duration::ZERO),
            load_cost: Micros::new(Duration::ZERO),
            ahead: Millis::new(Duration::ZERO),
        }
    }

    #[test]
    fn freshness_follows_deadlines_and_generations() {
        let (clock, time) = Clock::manual();
        let groups = Groups::new();
        let root = groups.new_root();
        let after = |secs| Deadline::after(clock.now(), Duration::from_secs(secs));
        let set = || [groups.intern("g")].into_iter().collect::<GroupSet>();
        let entry = |soft, hard| meta(groups.generation(), soft, hard, set(), clock.now());

        let judge = |now| Judge { root: &root, groups: &groups, now };

        let timed = entry(after(1), after(2));
        let eternal = entry(Deadline::NEVER, Deadline::NEVER);
        assert_eq!(timed.freshness(&groups, &root, &clock), Freshness::Fresh);
        time.advance(Duration::from_secs(1));
        assert_eq!(timed.freshness(&groups, &root, &clock), Freshness::Stale);
        time.advance(Duration::from_secs(1));
        assert_eq!(timed.freshness(&groups, &root, &clock), Freshness::Dead);
        assert_eq!(judge(clock.now()).cause_of_death(&timed), Some(RemovalCause::Expired));

        groups.expire("g");
        assert_eq!(eternal.freshness(&groups, &root, &clock), Freshness::Stale);
        assert_eq!(judge(clock.now()).cause_of_death(&eternal), None);
        groups.invalidate("g");
        assert_eq!(eternal.freshness(&groups, &root, &clock), Freshness::Dead);
        assert_eq!(judge(clock.now()).cause_of_death(&eternal), Some(RemovalCause::Invalidated));
        assert_eq!(entry(after(1), after(2)).freshness(&groups, &root, &clock), Freshness::Fresh);
    }

    #[test]
    #[cfg(feature = "tiered")]
    fn a_value_is_vouched_for_from_the_beginning_of_its_load() {
        let (clock, _time) = Clock::manual();
        let now = clock.now();
        let micros = Duration::from_micros;
        let vouched = |cost, trust| {
            let mut meta = meta(Generation::ZERO, Deadline::NEVER, Deadline::NEVER, GroupSet::EMPTY, now);
            meta.load_cost = Micros::new(cost);
            meta.vouched_until(trust)
        };
        let after = |ms| Deadline::after(now, Duration::from_millis(ms));
        assert_eq!(vouched(Duration::ZERO, Duration::from_millis(500)), after(500));
        assert_eq!(vouched(Duration::from_millis(200), Duration::from_millis(500)), after(300));
        // Never a moment too long, whatever is rounded.
        assert_eq!(vouched(micros(1), micros(500_999)), after(499));
        assert!(vouched(Duration::from_millis(501), Duration::from_millis(500)).has_passed(now));
        // What does not fit.
        assert_eq!(vouched(Duration::ZERO, Duration::MAX), Deadline::NEVER);
        assert_eq!(vouched(Duration::from_secs(3_600), Duration::MAX), Deadline::NEVER);
        assert_eq!(vouched(Duration::MAX, Duration::from_secs(1 << 30)), Deadline::PASSED);
    }
}
