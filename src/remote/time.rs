//! Durations as stores count them.

use std::time::Duration;

/// Rounds `duration` up to whole seconds, at least 1: to memcached, 0 means forever.
pub(super) fn whole_secs(duration: Duration) -> u64 {
    let rest = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(rest).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_up() {
        assert_eq!(whole_secs(Duration::ZERO), 1);
        assert_eq!(whole_secs(Duration::from_nanos(1)), 1);
        assert_eq!(whole_secs(Duration::from_secs(1)), 1);
        assert_eq!(whole_secs(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_secs(Duration::MAX), u64::MAX);
    }
}
