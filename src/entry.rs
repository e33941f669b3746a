//! An entry: a value with its deadlines, its groups, and what decides whether it is fresh, stale or dead.

use std::time::Duration;

use crate::clock::{AtomicDeadline, Clock, Deadline, Timestamp};
#[cfg(feature = "tiered")]
use crate::compact::MILLIS_NS;
use crate::compact::{HardSpan, Micros, Millis, U48};
use crate::group::{AtomicGeneration, Group, GroupSet, Groups};
use crate::index::{self, Indexed};
use crate::policy::Recency;
use crate::stats::RemovalCause;

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
}

/// A counted reference to an entry.
pub(crate) type Handle<K, V> = index::Handle<Entry<K, V>>;

/// What an entry is beside key and value.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Meta {
    /// The registry's generation from before the value's load began, or a later one up to which no bump concerned the value:
    /// a bump of a group past it takes the value along.
    pub(crate) born: AtomicGeneration,
    /// From here the value is stale. Never later than the hard deadline; brought forward by `expire`.
    pub(crate) soft: AtomicDeadline,
    pub(crate) recency: Recency,
    /// Whether this process loaded or made the value, and did not copy it from the remote tier.
    #[cfg(feature = "tiered")]
    pub(crate) is_own: bool,
    /// When the value was stored, in milliseconds.
    pub(crate) created_ms: U48,
    // A hit looks at what follows where something has happened since the last one: a bump, or a deadline.
    pub(crate) groups: GroupSet,
    /// From then to where the value is dead.
    pub(crate) hard: HardSpan,
    /// How long a claim to refresh the value lasts.
    pub(crate) grace: Millis,
    /// How long the load took that brought the value; zero where there was none. But of a copy in a cache that refreshes its
    /// values after a part of their time: how many milliseconds before its soft deadline it is due, since it was fresh for a
    /// while elsewhere.
    pub(crate) lead: Micros,
    /// What it counts against the capacity: one at least.
    pub(crate) weight: u64,
}

// With the hash, the 8 bytes of its slot and its seat among others: see the guide on memory.
const _: () = assert!(cfg!(any(larder_loom, larder_shuttle)) || size_of::<Meta>() == 48);

/// Whether a value may be served, and whether it should be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    Stale,
    Dead,
}

impl Meta {
    /// Judges the entry at this moment: dead by its hard deadline or a group, stale by its soft deadline or a group.
    #[inline]
    pub(crate) fn freshness(&self, groups: &Groups, root: &Group, clock: &Clock) -> Freshness {
        if self.is_fresh(groups, root, clock) { Freshness::Fresh } else { self.past_soft(root, clock) }
    }

    /// Returns whether the entry is fresh at this moment.
    ///
    /// `soft` is never after the hard deadline, so that this costs one comparison of times, and none without deadlines.
    // Always: a call, and what it saves on the stack, would be a tenth of a hit.
    #[inline(always)]
    pub(crate) fn is_fresh(&self, groups: &Groups, root: &Group, clock: &Clock) -> bool {
        groups.settled(&self.born, root, &self.groups) && !clock.has_passed(self.soft.get())
    }

    /// Returns until when the value is as good as one read from its source at most `trust` before: it was read there when its
    /// load began, or later. `trust` counts in whole milliseconds, and what is left of one is dropped.
    #[cfg(feature = "tiered")]
    pub(crate) fn vouched_until(&self, trust: Duration) -> Deadline {
        // A copy was judged by what was known under an earlier look at the journal. Of a load that took longer than can be
        // recorded nobody knows when it began.
        if !self.is_own || self.lead.is_max() {
            return Deadline::PASSED;
        }
        Deadline::within(self.created().before(self.lead.get()), trust)
    }

    /// Makes the entry stale at once. Under the shard's lock, for those who need deadlines exact.
    pub(crate) fn expire(&self) {
        self.soft.set(Deadline::PASSED);
    }

    /// Returns from when on the value is dead.
    #[inline]
    pub(crate) fn hard(&self) -> Deadline {
        self.hard.after(self.created())
    }

    /// Returns whether the value was dead before it was stored, by a hard deadline of zero.
    #[inline]
    pub(crate) fn is_stillborn(&self) -> bool {
        self.hard.is_zero()
    }

    /// Returns when the value was stored.
    #[inline]
    pub(crate) fn created(&self) -> Timestamp {
        Timestamp::from_ms(self.created_ms.get())
    }

    /// Returns how long before its soft deadline the value is due, if it is refreshed once a `part` of its time has passed.
    pub(crate) fn ahead(&self, part: f64) -> Duration {
        #[cfg(feature = "tiered")]
        if !self.is_own {
            return self.lead.in_units::<MILLIS_NS>().get();
        }
        let whole = self.soft.get().remaining(self.created()).unwrap_or_default();
        whole.mul_f64(1.0 - part)
    }

    /// Returns whether a bump of a kind that kills came to one of the groups or to the cache.
    fn killed(&self, root: &Group) -> bool {
        let born = self.born.get();
        root.killed_since(born) || self.groups.killed_since(born)
    }

    #[cold]
    fn past_soft(&self, root: &Group, clock: &Clock) -> Freshness {
        if self.killed(root) || clock.has_passed(self.hard()) { Freshness::Dead } else { Freshness::Stale }
    }
}

/// What it takes to tell the dead from the living at one moment.
pub(crate) struct Judge<'a> {
    pub(crate) root: &'a Group,
    pub(crate) groups: &'a Groups,
    pub(crate) now: Timestamp,
}

impl Judge<'_> {
    /// Returns whether a bump of a kind that kills came to one of an entry's groups or to its cache.
    #[inline]
    pub(crate) fn is_killed(&self, meta: &Meta) -> bool {
        !self.groups.settled(&meta.born, self.root, &meta.groups) && meta.killed(self.root)
    }

    /// Returns why an entry is dead, or `None` while it is alive.
    #[inline]
    pub(crate) fn cause_of_death(&self, meta: &Meta) -> Option<RemovalCause> {
        // The soft deadline, which is no later, is compared at once; the hard one is worked out.
        if meta.soft.get().has_passed(self.now) && meta.hard().has_passed(self.now) {
            Some(RemovalCause::Expired)
        } else if self.is_killed(meta) {
            Some(RemovalCause::Invalidated)
        } else {
            None
        }
    }
}

impl<K, V> Indexed for Entry<K, V> {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn weight(&self) -> u64 {
        self.meta.weight
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
            age: now.since(meta.created()),
            soft_in: match freshness {
                Freshness::Fresh => meta.soft.get().remaining(now),
                Freshness::Stale | Freshness::Dead => Some(Duration::ZERO),
            },
            hard_in: meta.hard().remaining(now),
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
            hard: HardSpan::between(now, hard),
            groups,
            recency: Recency::default(),
            #[cfg(feature = "tiered")]
            is_own: true,
            weight: 1,
            created_ms: U48::new(now.as_ms()),
            grace: Millis::new(Duration::ZERO),
            lead: Micros::ZERO,
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
            meta.lead = Micros::new(cost);
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
