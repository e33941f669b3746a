//! The oldest versions that a worker may be answered with.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a load that names its groups while it runs is fenced by a bump in *another* process during it.
///
/// Not yet: its result is stored with the tokens that the groups have when it ends. So a process may be answered with records
/// from before its own bump, if another was loading them just then; such answers have a line of their own in the table. With
/// one worker they are wrong values already.
const FENCED_ACROSS_PROCESSES: bool = false;

/// Versions of one record that its changes by this worker were completed with.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    written: AtomicU64,
    bumped: AtomicU64,
}

/// The same at one moment, before a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// An older answer is wrong.
    pub(crate) least: u64,
    /// An older answer is of a load that a bump overtook.
    pub(crate) bumped: u64,
}

impl Floors {
    /// Whatever the remote tier said to a change: this process must not be answered with older versions from now on.
    pub(crate) fn written(&self, version: u64) {
        // Release pairs with the Acquire in `before_read`: the read begins after the change was complete.
        self.written.store(version, Ordering::Release);
    }

    pub(crate) fn bumped(&self, version: u64) {
        self.bumped.store(version, Ordering::Release);
    }

    pub(crate) fn before_read(&self, workers: usize) -> Floor {
        let (written, bumped) = (self.written.load(Ordering::Acquire), self.bumped.load(Ordering::Acquire));
        let strict = FENCED_ACROSS_PROCESSES || workers == 1;
        Floor { least: if strict { written.max(bumped) } else { written }, bumped }
    }
}
