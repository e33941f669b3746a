//! Counters: what a cache has done, gathered so that counting costs a hit next to nothing.

use std::ops::Sub;
use std::time::Duration;

use crate::index::Reader;
use crate::sync::{AtomicU64, Ordering, Padded};
use crate::watch::CacheWatch;

/// Why an entry left the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalCause {
    /// Another value was stored under its key.
    Replaced,
    /// A caller removed it.
    Removed,
    /// It made room for others.
    Evicted,
    /// Its hard deadline had passed.
    Expired,
    /// One of its groups, or the whole cache, had been invalidated.
    Invalidated,
}

/// How many threads have a copy of the counters to themselves. Others share the last one.
const OWNERS: usize = 32;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What a cache has done since it was made: a snapshot, each figure exact, taken one after the other.
        ///
        /// Subtract an earlier snapshot to see an interval.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// Time spent in loads, successful or not.
            pub load_time: Duration,
        }

        impl Sub for Stats {
            type Output = Stats;

            /// Returns what happened since `earlier`, figure by figure.
            fn sub(self, earlier: Stats) -> Stats {
                Stats {
                    $($name: self.$name.saturating_sub(earlier.$name),)*
                    load_time: self.load_time.saturating_sub(earlier.load_time),
                }
            }
        }

        #[cfg(feature = "metrics")]
        impl Stats {
            /// Calls `f` with every counter, named as a metric.
            pub(crate) fn each(&self, mut f: impl FnMut(crate::watch::Figure)) {
                $(f(crate::watch::Figure {
                    field: stringify!($name),
                    name: concat!("larder_", stringify!($name), "_total"),
                    help: concat!($($doc),*),
                    value: self.$name,
                });)*
            }
        }

        /// One thread's share of the counters.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            load_time_ns: AtomicU64,
        }

        impl StripedCounters {
            pub(crate) fn snapshot(&self) -> Stats {
                let sum = |counter: fn(&Counters) -> &AtomicU64| {
                    let parts = self.stripes.iter().map(|stripe| counter(stripe).load(Ordering::Relaxed));
                    parts.fold(0, u64::saturating_add)
                };
                Stats {
                    $($name: sum(|stripe| &stripe.$name),)*
                    load_time: Duration::from_nanos(sum(|stripe| &stripe.load_time_ns)),
                }
            }
        }
    };
}

counters! {
    /// Reads that found a fresh value.
    hits_fresh,
    /// Reads that found a stale value.
    hits_stale,
    /// Reads that found no value, or a dead one.
    misses,
    /// Loads that brought a value.
    loads,
    /// Loads that failed: by an error, a panic, or by being dropped half-way.
    load_failures,
    /// Callers that waited for a load of another.
    load_waits,
    /// Callers that gave up waiting for a load of another.
    load_timeouts,
    /// Loads given up because they took longer than their hard timeout. They count as failures too.
    load_aborts,
    /// Refreshes begun in the background.
    refreshes,
    /// Refreshes not begun in the background because too many loads were under way.
    refresh_overflows,
    /// Fills refused because their key or a group of theirs was invalidated after the claim was taken.
    fences,
    /// Values stored, by whatever verb. Copies from the remote tier are not among them.
    stores,
    /// Values refused because they weigh more than the cache's capacity.
    rejections,
    /// Entries that left because another value was stored under their key.
    replacements,
    /// Entries that a caller removed.
    removals,
    /// Entries that made room for others.
    evictions,
    /// Entries reclaimed after their hard deadline.
    expirations,
    /// Entries reclaimed after an invalidation of a group, or of the cache.
    invalidations,
    /// Panics of the removal listener, which reach nobody else.
    listener_panics,
}

impl Stats {
    /// Returns the reads that found a value, fresh or stale.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits_fresh + self.hits_stale
    }

    /// Returns the share of reads that found a value, from 0 to 1; 0 if there were none.
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        let reads = self.hits() + self.misses;
        if reads == 0 { 0.0 } else { self.hits() as f64 / reads as f64 }
    }
}

/// The counters of a cache, copied so that a thread has its own.
#[derive(Debug)]
pub(crate) struct StripedCounters {
    stripes: [Padded<Counters>; OWNERS + 1],
    watch: CacheWatch,
}

impl StripedCounters {
    pub(crate) fn new(watch: CacheWatch) -> Self {
        StripedCounters { stripes: std::array::from_fn(|_| Padded::default()), watch }
    }

    /// Returns who the cache is to those who watch it.
    pub(crate) fn watch(&self) -> &CacheWatch {
        &self.watch
    }

    /// Returns the counters for the calling thread to count on.
    #[inline]
    pub(crate) fn mine(&self) -> Tally<'_> {
        self.of(Reader::current())
    }

    /// Returns the counters for this thread to count on, which is the calling one.
    #[inline]
    pub(crate) fn of(&self, reader: Option<Reader>) -> Tally<'_> {
        // A thread that is being torn down has no number any more, and shares the last copy. Whoever has a number after another
        // sees what that one counted: it was handed on with a Release.
        let stripe = reader.map_or(OWNERS, |reader| reader.number().min(OWNERS));
        Tally { counters: &self.stripes[stripe], owned: stripe < OWNERS, watch: &self.watch }
    }
}

/// The counters that the calling thread counts on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally<'a> {
    counters: &'a Counters,
    /// Whether no other thread writes them.
    owned: bool,
    watch: &'a CacheWatch,
}

impl Tally<'_> {
    /// Adds one to a counter.
    #[inline]
    pub(crate) fn count(self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        let counter = counter(self.counters);
        if self.owned {
            // A load and a store cost a fifth of an addition that locks the line, and nobody else writes here.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        } else {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add(self, counter: impl FnOnce(&Counters) -> &AtomicU64, amount: u64) {
        let counter = counter(self.counters);
        if self.owned {
            counter.store(counter.load(Ordering::Relaxed).saturating_add(amount), Ordering::Relaxed);
        } else {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn removed(self, cause: RemovalCause) {
        self.count(|counters| match cause {
            RemovalCause::Replaced => &counters.replacements,
            RemovalCause::Removed => &counters.removals,
            RemovalCause::Evicted => &counters.evictions,
            RemovalCause::Expired => &counters.expirations,
            RemovalCause::Invalidated => &counters.invalidations,
        });
    }

    pub(crate) fn loaded(self, took: Duration, success: bool) {
        self.count(|counters| if success { &counters.loads } else { &counters.load_failures });
        self.add(|counters| &counters.load_time_ns, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.watch.loaded(took, success);
    }
}

/// Adds one to a counter that threads share.
#[cfg(feature = "tiered")]
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sums_all_threads_and_subtracts() {
        let counters = StripedCounters::new(CacheWatch::default());
        std::thread::scope(|scope| {
            for _ in 0..3 * OWNERS {
                scope.spawn(|| (0..1_000).for_each(|_| counters.mine().count(|counters| &counters.hits_fresh)));
            }
        });
        let earlier = counters.snapshot();
        assert_eq!((earlier.hits_fresh, earlier.misses), (3_000 * OWNERS as u64, 0));
        counters.mine().count(|counters| &counters.misses);
        counters.mine().loaded(Duration::from_millis(3), true);
        let since = counters.snapshot() - earlier;
        assert_eq!((since.hits_fresh, since.misses, since.loads), (0, 1, 1));
        assert_eq!(since.load_time, Duration::from_millis(3));
        assert!((earlier.hit_ratio() - 1.0).abs() < f64::EPSILON);
    }
}
