//! Events: what somebody should know of that no caller is told.

use std::fmt;
use std::time::Duration;

use crate::clock::{AtomicDeadline, Clock, Deadline, Timestamp};
use crate::sync::{AtomicU64, Ordering};

/// How often one source tells of one kind of event: what happens more often is counted, and told with the next one. Who reads
/// them learns nothing from more.
const EVENT_INTERVAL: Duration = Duration::from_secs(10);

/// Tells `tracing` of an event, or else `log`, where the crate has that: `event!(warn, [field = value], "message {argument}")`.
/// A panic of theirs goes no further.
///
/// The message says all that the fields do, since `log` has no fields.
macro_rules! event {
    ($level:ident, [$($field:ident = $value:expr),*], $($message:tt)+) => {{
        let _ = $crate::task::guarded(|| {
            #[cfg(feature = "tracing")]
            ::tracing::$level!(target: "larder", $($field = $value,)* $($message)+);
            #[cfg(all(feature = "tiered", not(feature = "tracing")))]
            ::log::$level!($($message)+);
        });
    }};
    ($level:ident, $($message:tt)+) => { $crate::watch::event!($level, [], $($message)+) };
}
pub(crate) use event;

/// Lets one event in [`EVENT_INTERVAL`] through.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Until when events are held back.
    until: AtomicDeadline,
    held_back: AtomicU64,
}

impl Limit {
    /// Returns how many events were held back since the last one, if this one may be told of.
    pub(crate) fn pass(&self) -> Option<HeldBack> {
        // By the system's clock: a manual one may stand still for ever.
        self.pass_at(Clock::system().now())
    }

    fn pass_at(&self, now: Timestamp) -> Option<HeldBack> {
        // Two callers at once may both pass, which does no harm.
        if !self.until.get().has_passed(now) {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.until.set(Deadline::after(now, EVENT_INTERVAL));
        Some(HeldBack(self.held_back.swap(0, Ordering::Relaxed)))
    }
}

impl Default for Limit {
    fn default() -> Limit {
        Limit { until: AtomicDeadline::new(Deadline::PASSED), held_back: AtomicU64::new(0) }
    }
}

/// How many events were held back, as the end of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldBack(pub(crate) u64);

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            others => write!(f, " (and {others} more since this was last told of)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_passes_in_each_interval_and_tells_of_those_held_back() {
        let (clock, time) = Clock::manual();
        let limit = Limit::default();
        let mut passed = Vec::new();
        for _ in 0..10 {
            passed.extend(limit.pass_at(clock.now()).map(|others| others.0));
            time.advance(EVENT_INTERVAL / 4);
        }
        assert_eq!(passed, [0, 3, 3]);
        assert_eq!(
            (HeldBack(0).to_string(), HeldBack(3).to_string()),
            (String::new(), " (and 3 more since this was last told of)".to_owned())
        );
    }
}
