//! R9: a value is written in the place of what its writer has seen there.

use larder::{InMemoryRemote, Write};

use super::{Process, in_store, own};
use crate::scene::PATIENCE;
use crate::tiered::gate::{Kind, When};

/// A stalled server carries a write out when its writer has long given up, and another process has stored a newer value.
#[test]
fn r9_a_write_that_comes_late_overwrites_nothing() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.wire.stall(Kind::Write);
    let Write::LocalOnly(_, receipt) = a.pages.insert(own("k"), own("old")) else { panic!("it was not answered") };
    assert!(receipt.wait(PATIENCE), "the deletion is owed, and paid");
    b.insert("k", "new");
    a.wire.arrive();
    assert_eq!(in_store(&store, "k").as_deref(), Some("new"));
    a.look();
    assert_eq!(a.get("k").as_deref(), Some("new"));
}

/// Of two callers of one process, the one that is first in the local tier is last in the store.
#[test]
fn r9_a_value_that_the_store_has_not_got_leaves_the_local_tier() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    let second = a.clone();
    a.wire.at(Kind::Write, When::Before, move || second.insert("k", "second"));
    a.insert("k", "first");
    assert_eq!(in_store(&store, "k").as_deref(), Some("first"));
    assert_eq!(a.get("k").as_deref(), Some("first"));
}
