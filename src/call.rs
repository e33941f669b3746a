//! What one call asks for beside its cache's settings.

use std::time::Duration;

/// How one call reads or loads, where that is to differ from how its cache does.
///
/// Without any setting a call is like that of the verb without options.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::CallOptions;
///
/// // A health page: whatever is there, at once, and without work for anybody.
/// let glance = CallOptions::new().no_refresh().hard_timeout(Duration::from_millis(50));
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct CallOptions {
    pub(crate) skip_local: bool,
    pub(crate) skip_remote: bool,
    pub(crate) read_only: bool,
    pub(crate) no_refresh: bool,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) grace: Option<Duration>,
}

impl CallOptions {
    /// Returns options that leave everything to the cache's settings.
    pub fn new() -> CallOptions {
        CallOptions::default()
    }

    /// Passes the local tier by: the call neither looks into it nor stores anything there.
    pub fn skip_local(mut self) -> CallOptions {
        self.skip_local = true;
        self
    }

    /// Passes the remote tier by: the call neither asks it nor writes anything there. Nothing changes for a cache without one.
    pub fn skip_remote(mut self) -> CallOptions {
        self.skip_remote = true;
        self
    }

    /// Leaves both tiers as they are: the call claims nothing, loads nothing, and copies nothing from one tier into the other.
    pub fn read_only(mut self) -> CallOptions {
        self.read_only = true;
        self
    }

    /// Takes a stale value as it is, without seeing to its refresh.
    pub fn no_refresh(mut self) -> CallOptions {
        self.no_refresh = true;
        self
    }

    /// Sets how long the call waits for the refresh of a stale value, before it is answered with that value.
    pub fn soft_timeout(mut self, timeout: Duration) -> CallOptions {
        self.soft_timeout = Some(timeout);
        self
    }

    /// Sets how long the call waits for a load, its own or that of another, before it fails; and how long its own load may take.
    /// For a call that loads nothing, how long it waits for the remote tier, before it goes on as if that had nothing.
    pub fn hard_timeout(mut self, timeout: Duration) -> CallOptions {
        self.hard_timeout = Some(timeout);
        self
    }

    /// Sets how long a claim that the call takes lasts, before another caller may take it. Rounded up to a millisecond, and zero
    /// to one: a claim that is over at once would be everybody's.
    pub fn grace(mut self, grace: Duration) -> CallOptions {
        self.grace = Some(grace.max(Duration::from_millis(1)));
        self
    }
}
