//! The groups that a thread has named of late, which it finds again without a lock.

use std::cell::RefCell;

use super::Group;
use crate::sync::{Arc, Weak, thread_local};

/// How many groups a thread remembers: those of the entries that one place in a program stores are as a rule one or two.
const RECENT: usize = 8;

thread_local! {
    static RECENT_GROUPS: RefCell<[Recent; RECENT]> =
        const { RefCell::new([const { Recent { hash: 0, group: Weak::new() } }; RECENT]) };
}

/// The hash of a name, and the group that it led to once it was asked for again. Keeps neither the group nor its name known.
struct Recent {
    hash: u64,
    group: Weak<Group>,
}

/// Returns the group that `is_it` takes, if this thread remembers it under this hash. `is_it` tells it from groups of other
/// names and of other registries.
#[inline]
pub(super) fn recall(hash: u64, is_it: impl FnOnce(&Group) -> bool) -> Option<Arc<Group>> {
    // A thread that ends remembers nothing.
    let recent = RECENT_GROUPS.try_with(|groups| {
        let recent = &groups.borrow()[hash as usize % RECENT];
        if recent.hash == hash { recent.group.upgrade() } else { None }
    });
    recent.ok()?.filter(|group| is_it(group))
}

/// Remembers a group that was not [recalled](recall), for the next time.
pub(super) fn remember(hash: u64, group: &Arc<Group>) {
    let forgotten = RECENT_GROUPS.try_with(|groups| {
        let recent = &mut groups.borrow_mut()[hash as usize % RECENT];
        // Only the hash the first time: of names that come once each, the rest would be for nothing.
        let group = if recent.hash == hash { Arc::downgrade(group) } else { Weak::new() };
        std::mem::replace(recent, Recent { hash, group })
    });
    drop(forgotten);
}
