//! What the tests of the remote tier talk to.

pub(crate) mod fake_server;
pub(crate) mod memcached;

use std::time::{Duration, Instant};

/// How long a test waits for what must come; on any machine, longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` returns something.
///
/// # Panics
/// When it does not within [`PATIENCE`]; `what` says what was waited for.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
