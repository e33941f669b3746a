//! The oldest versions that a worker may be answered with, because later changes of its own are complete.

use std::sync::atomic::{AtomicU64, Ordering};

/// By record: the version that its last complete change by this worker made.
#[derive(Debug)]
pub(crate) struct Floors(Vec<AtomicU64>);

impl Floors {
    pub(crate) fn new(records: usize) -> Floors {
        Floors((0..records).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes that a change is complete: whatever the remote tier said to it, this process is not answered with what is older
    /// from now on.
    pub(crate) fn raise(&self, record: u32, version: u64) {
        // Release pairs with the Acquire in `before_read`: the read begins after the change was complete.
        self.0[record as usize].store(version, Ordering::Release);
    }

    pub(crate) fn before_read(&self, record: u32) -> u64 {
        self.0[record as usize].load(Ordering::Acquire)
    }
}
