//! How processes learn what others have invalidated.

#[cfg_attr(not(test), expect(dead_code, reason = "the poller will use it"))]
pub(crate) mod journal;
