//! The two halves of a barrier: a light one for readers, who pass one on every hit, and a heavy one for those who free.
//!
//! A reader stores and then loads, a writer stores and then loads what the other has stored. With a barrier between the
//! two on both sides, at least one of them sees the other's store. Where the kernel can make all threads of the process
//! pass a barrier (`membarrier`), one such call, for a whole batch, stands for the barriers of all readers: each of them
//! passes it either before its store, and then its load comes after the writer's store, or after its load, and then the
//! store is visible; between the two it amounts to a barrier there. Readers only have to keep the compiler from swapping
//! the two. Elsewhere both sides pay for a fence.

#[cfg(not(larder_loom))]
use std::sync::atomic::compiler_fence;

use crate::sync::Ordering;
use crate::sync::model::fence;

/// Which of the two kinds a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The writers' call reaches all readers.
    Asymmetric,
    /// Both sides pass a fence.
    Symmetric,
}

/// Returns the kind that this process uses: always the same.
pub(super) fn kind() -> Kind {
    if kernel::is_registered() { Kind::Asymmetric } else { Kind::Symmetric }
}

/// Separates a reader's store from its load.
#[inline]
pub(super) fn light(kind: Kind) {
    match kind {
        #[cfg(not(larder_loom))]
        Kind::Asymmetric => compiler_fence(Ordering::SeqCst),
        // SeqCst pairs with the fence in `heavy`.
        _ => fence(Ordering::SeqCst),
    }
}

/// Separates a writer's stores from its loads, and those of all readers. Returns whether it could.
#[must_use]
pub(super) fn heavy(kind: Kind) -> bool {
    // SeqCst pairs with the fence in `light`. Before the call, too: it orders what the processors do, this what the
    // compiler does.
    fence(Ordering::SeqCst);
    kind == Kind::Symmetric || kernel::barrier()
}

#[cfg(all(target_os = "linux", not(any(larder_loom, larder_shuttle, miri))))]
mod kernel {
    use rustix::thread::{MembarrierCommand, membarrier};

    use crate::sync::OnceLock;

    fn register() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn is_registered() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(register)
    }

    pub(super) fn barrier() -> bool {
        let barrier = || membarrier(MembarrierCommand::PrivateExpedited).is_ok();
        // A kernel that has forgotten the registration is told once more.
        barrier() || (register() && barrier())
    }
}

#[cfg(not(all(target_os = "linux", not(any(larder_loom, larder_shuttle, miri)))))]
mod kernel {
    pub(super) fn is_registered() -> bool {
        false
    }

    pub(super) fn barrier() -> bool {
        unreachable!("what was never registered is never called")
    }
}
