//! The lease under which the local tier may be served.
//!
//! Each look at the journal that was applied extends it: to the time *noted before the look was sent*, plus the lease. What
//! was acknowledged before the noted time has been applied here ([`follower`](super::follower) says why), so what is served
//! at a time `t` under the lease is never older than what was acknowledged at `t - lease`.
//!
//! **Not a millisecond longer.** Timestamps are whole milliseconds, rounded down, so the noted one is never later than the
//! true time of the note; the lease is rounded down to whole milliseconds too. The deadline `d` is their sum, a whole
//! number, and the lease holds while the present time *rounded down* is before `d`, which, `d` being whole, is the same as
//! the present time itself being before `d`. So whatever is served is served before noted time + lease, by the clock that
//! took the note. A coarse reading of that clock decides only while it is further from `d` than it can lag.

use std::time::Duration;

use crate::clock::{AtomicDeadline, Clock, Deadline, Timestamp};
use crate::sync::Padded;

/// Whether this process has looked at the journal recently enough.
#[derive(Debug)]
pub(crate) struct Trust {
    clock: Clock,
    lease: Duration,
    /// On cache lines of its own: every local hit reads it.
    until: Padded<AtomicDeadline>,
}

impl Trust {
    /// Makes a lease of `lease`, in whole milliseconds, that does not hold until it is first extended.
    pub(crate) fn new(clock: Clock, lease: Duration) -> Trust {
        let rest_ns = lease.subsec_nanos() % 1_000_000;
        let lease = lease - Duration::from_nanos(rest_ns.into());
        Trust { clock, lease, until: Padded(AtomicDeadline::new(Deadline::PASSED)) }
    }

    /// Returns whether the local tier may be served.
    ///
    /// Ask before an entry is judged: whoever sees the lease extended then sees the news applied that it was extended for.
    /// An entry that was judged before them may be one that they concern.
    #[inline]
    pub(crate) fn holds(&self) -> bool {
        let until = self.until.get_acquire();
        !until.has_passed(self.clock.near(until))
    }

    /// Extends the lease to what a look grants that was noted at `noted`. It never becomes shorter.
    ///
    /// Everything that was acknowledged before that time must have been applied in this process, by whichever thread.
    pub(crate) fn extend(&self, noted: Timestamp) {
        self.until.extend(Deadline::after(noted, self.lease));
    }

    /// Returns for how much longer the lease holds; zero when it has lapsed.
    pub(crate) fn left(&self) -> Duration {
        self.until.get_acquire().remaining(self.clock.now()).unwrap_or(Duration::MAX)
    }
}

#[cfg(all(test, larder_loom))]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn holds_only_after_the_first_look_and_for_the_lease() {
        let (clock, time) = Clock::manual();
        let trust = Trust::new(clock.clone(), 50 * MS);
        assert!(!trust.holds() && trust.left().is_zero());
        let noted = clock.now();
        time.advance(20 * MS);
        assert!(!trust.holds());
        trust.extend(noted);
        assert!(trust.holds());
        assert_eq!(trust.left(), 30 * MS);
        time.advance(30 * MS - Duration::from_nanos(1));
        assert!(trust.holds());
        time.advance(Duration::from_nanos(1));
        assert!(!trust.holds() && trust.left().is_zero());
    }

    #[test]
    fn is_never_served_past_the_noted_time_and_the_lease() {
        for (into_the_ms, lease, held) in [(0, 3_999_999, 3_000_000), (999_999, 3_000_000, 2_000_001), (1, 999_999, 0)]
        {
            let (clock, time) = Clock::manual();
            let trust = Trust::new(clock.clone(), Duration::from_nanos(lease));
            time.advance(Duration::from_nanos(into_the_ms));
            trust.extend(clock.now());
            if held > 0 {
                time.advance(Duration::from_nanos(held - 1));
                assert!(trust.holds());
                time.advance(Duration::from_nanos(1));
            }
            assert!(!trust.holds());
        }
    }

    #[test]
    fn an_older_look_does_not_shorten_it() {
        let (clock, time) = Clock::manual();
        let trust = Trust::new(clock.clone(), 50 * MS);
        let earlier = clock.now();
        time.advance(10 * MS);
        trust.extend(clock.now());
        trust.extend(earlier);
        assert_eq!(trust.left(), 50 * MS);
    }

    #[test]
    fn the_longest_lease_never_lapses() {
        let (clock, time) = Clock::manual();
        let trust = Trust::new(clock.clone(), Duration::MAX);
        assert!(!trust.holds());
        trust.extend(clock.now());
        time.advance(Duration::MAX);
        assert!(trust.holds());
        assert_eq!(trust.left(), Duration::MAX);
    }

    #[test]
    fn holds_by_the_system_clock_too() {
        let clock = Clock::system();
        let trust = Trust::new(clock.clone(), Duration::from_secs(3_600));
        assert!(!trust.holds());
        trust.extend(clock.now());
        assert!(trust.holds());
    }
}
