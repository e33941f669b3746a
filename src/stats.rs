//! Counters: what a cache has done, gathered so that counting costs a hit next to nothing.

use std::cell::Cell;
use std::ops::Sub;
use std::time::Duration;

use crate::sync::{AtomicU64, AtomicUsize, Ordering, Padded};

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

/// How many copies of the counters there are, for threads to spread over.
const STRIPES: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a cache has done since it was made: a snapshot, each figure exact, taken one after the other.
        ///
        /// Subtract an earlier snapshot to see an interval.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
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

        /// One thread's share of the counters.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            load_time_ns: AtomicU64,
        }

        impl StripedCounters {
            pub(crate) fn snapshot(&self) -> Stats {
                let sum = |counter: fn(&Counters) -> &AtomicU64| {
                    self.stripes.iter().map(|stripe| counter(stripe).load(Ordering::Relaxed)).sum::<u64>()
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
    /// Fills refused because their key or a group of theirs was invalidated after the claim was taken.
    fences,
    /// Values stored, by whatever verb.
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

impl Counters {
    pub(crate) fn removed(&self, cause: RemovalCause) {
        bump(match cause {
            RemovalCause::Replaced => &self.replacements,
            RemovalCause::Removed => &self.removals,
            RemovalCause::Evicted => &self.evictions,
            RemovalCause::Expired => &self.expirations,
            RemovalCause::Invalidated => &self.invalidations,
        });
    }

    pub(crate) fn loaded(&self, took: Duration, success: bool) {
        bump(if success { &self.loads } else { &self.load_failures });
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.load_time_ns.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// Adds one to a counter.
#[inline]
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The counters of a cache, copied so often that threads seldom share a cache line.
#[derive(Debug, Default)]
pub(crate) struct StripedCounters {
    stripes: [Padded<Counters>; STRIPES],
}

impl StripedCounters {
    /// Returns the calling thread's share.
    #[inline]
    pub(crate) fn mine(&self) -> &Counters {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        // A thread that is being torn down counts on the first stripe.
        let stripe = STRIPE
            .try_with(|mine| {
                if mine.get() == usize::MAX {
                    mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
                }
                mine.get()
            })
            .unwrap_or(0);
        &self.stripes[stripe % STRIPES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sums_all_threads_and_subtracts() {
        let counters = StripedCounters::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| bump(&counters.mine().hits_fresh));
            }
        });
        let earlier = counters.snapshot();
        assert_eq!((earlier.hits_fresh, earlier.misses), (40, 0));
        bump(&counters.mine().misses);
        counters.mine().loaded(Duration::from_millis(3), true);
        let since = counters.snapshot() - earlier;
        assert_eq!((since.hits_fresh, since.misses, since.loads), (0, 1, 1));
        assert_eq!(since.load_time, Duration::from_millis(3));
        assert!((earlier.hit_ratio() - 1.0).abs() < f64::EPSILON);
    }
}
