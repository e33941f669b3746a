//! One clock for all workers.

use rustix::time::{ClockId, clock_gettime};

/// Returns nanoseconds of the monotonic clock, which all processes of a machine read alike and which nobody sets.
pub(crate) fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
