//! What a namespace is built with.

use std::time::Duration;

/// What the local tier does once the trust lease is over: it has not heard from the remote tier for so long that another
/// process may have invalidated what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostTrust {
    /// Treats local entries as misses: asks the remote tier, as far as it answers, then the loader. What a load of this process brings is served
    /// for as long as the trust lease from the moment the load began. The default.
    #[default]
    Revalidate,
    /// Goes on serving local entries until their hard deadline, whatever other processes invalidate meanwhile: availability
    /// first, and no bound on staleness but that. A namespace that has not looked at the journal yet does so once before, or
    /// finds that it cannot.
    ServeStale,
    /// Answers nothing: reads find no value, and loads fail with [`LoadErrorKind::Untrusted`](crate::LoadErrorKind::Untrusted).
    Refuse,
}

/// When [`TieredCache::insert`](crate::TieredCache::insert) and its like return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteMode {
    /// Once the remote tier has answered. The default.
    #[default]
    Through,
    /// Once the value is in the local tier and in a queue of this process. Writes of one key by this process reach the remote
    /// tier in their order; a removal by another process may come before a write that is in its queue yet.
    Behind {
        /// How many writes may wait; more are answered with an error. At least 1.
        queue: usize,
    },
}

/// Which changes of single keys are told to the local tiers of other processes. Bumps of groups always are, loads never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Announce {
    /// Inserts, removals and expirations. The default.
    #[default]
    All,
    /// Removals and expirations: other processes serve the value before an insert until its deadlines. For those who write
    /// a lot.
    Removals,
    /// None: other processes serve what they have until its deadlines, or until a group of it is bumped.
    Groups,
}

/// The shortest lease: the store counts whole seconds, and a lease is renewed each third of it.
pub(crate) const MIN_LEASE: Duration = Duration::from_secs(3);

/// The longest lease. Who waits for more than a day has forgotten what for.
pub(crate) const MAX_LEASE: Duration = Duration::from_secs(24 * 3_600);

/// What a namespace was built with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) poll_interval: Duration,
    pub(crate) trust: Duration,
    pub(crate) on_lost_trust: LostTrust,
    pub(crate) write_mode: WriteMode,
    pub(crate) announce: Announce,
    pub(crate) lease: Duration,
}
