//! What a process asks larder for, and how long that may take.

use std::time::Duration;

/// How long one exchange with the remote tier may take: the default of larder.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

/// How long a caller waits for the load of another: the default of larder.
pub(crate) const LOAD_WAIT: Duration = Duration::from_secs(10);

/// The longest load that a process makes.
pub(crate) const LONGEST_LOAD: Duration = Duration::from_millis(200);

/// What a call may take beyond its documented limit on a machine that has other things to do than to wake its threads. Stops that
/// were noticed come on top.
pub(crate) const SLACK: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verb {
    Local,
    Get,
    GetMany,
    GetOrLoad,
    Remove,
    Expire,
    InvalidateGroup,
    ExpireGroup,
}

impl Verb {
    pub(crate) const ALL: [Verb; 8] = [
        Verb::Local,
        Verb::Get,
        Verb::GetMany,
        Verb::GetOrLoad,
        Verb::Remove,
        Verb::Expire,
        Verb::InvalidateGroup,
        Verb::ExpireGroup,
    ];

    /// Returns how long a call may take, by its documentation.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Verb::Local => Duration::ZERO,
            // One exchange for values and one for tokens, and one more once the trust lease has lapsed.
            Verb::Get | Verb::GetMany => 3 * TIMEOUT,
            // Up to four exchanges before the loader and two after, and the load of another.
            Verb::GetOrLoad => 6 * TIMEOUT + LONGEST_LOAD + LOAD_WAIT,
            Verb::Remove | Verb::Expire => 2 * TIMEOUT,
            Verb::InvalidateGroup | Verb::ExpireGroup => TIMEOUT,
        }
    }
}
