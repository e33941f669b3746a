//! What a call says of how far it has come is true, and so is what follows from it: in an outage, across processes, on every
//! runtime.

mod counters;
mod futures;
mod modes;
mod outages;
mod processes;
#[cfg(feature = "memcached")]
mod servers;
mod trust;

use larder::{Bump, InMemoryRemote, Receipt};

use crate::rules::Process;

/// Returns the receipt of an invalidation that the store did not acknowledge.
#[track_caller]
fn pending(bump: Bump) -> Receipt {
    match bump {
        Bump::Pending(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

/// Returns what a process finds that starts now: what the store has.
fn in_store(store: &InMemoryRemote, key: &str) -> Option<String> {
    Process::new(store).get(key)
}
