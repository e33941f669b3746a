//! One clock for all processes of a machine.

use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns nanoseconds of the monotonic clock, which all processes read alike and which nobody sets.
#[must_use]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns a duration in the clock's unit.
#[must_use]
pub fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sleeps until the clock shows `at_ns`; not at all if it is past that.
pub fn sleep_until(at_ns: u64) {
    thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns())));
}
