//! R1: who changes data does so first, and announces it when that was acknowledged.
//!
//! In the other order a process that hears of a change before it is carried out drops what it has, reads the old value
//! again, and keeps it: nothing will tell it a second time.

use larder::{Bump, InMemoryRemote};

use super::{Process, in_store};
use crate::scene::PATIENCE;
use crate::tiered::gate::{Kind, When};

/// Returns two processes, both of which have the value `old` for `k`, and the second of which looks at the journal and reads
/// the value just before the first sends a command of this kind.
fn overheard(kind: Kind) -> (InMemoryRemote, Process, Process) {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    assert_eq!(b.get("k").as_deref(), Some("old"));
    b.look();
    let listener = b.clone();
    a.wire.at(kind, When::Before, move || {
        listener.look();
        assert_eq!(listener.get("k").as_deref(), Some("old"));
    });
    (store, a, b)
}

#[test]
fn r1_a_removal_is_announced_after_it() {
    let (_store, a, b) = overheard(Kind::Delete);
    a.remove("k");
    b.look();
    assert_eq!(b.get("k"), None);
}

#[test]
fn r1_an_insert_is_announced_after_it() {
    let (_store, a, b) = overheard(Kind::Write);
    a.insert("k", "new");
    b.look();
    assert_eq!(b.get("k").as_deref(), Some("new"));
}

#[test]
fn r1_an_expiration_is_announced_after_it() {
    let (_store, a, b) = overheard(Kind::MarkStale);
    assert!(a.pages.expire("k").is_acknowledged());
    b.look();
    assert_eq!(b.load("k", "new"), "new", "the value is stale");
}

#[test]
fn r1_a_removal_that_is_sent_again_is_announced_after_it() {
    let (store, a, b) = overheard(Kind::WriteToken);
    a.wire.fail(&[Kind::Delete]);
    let Bump::Pending(receipt) = a.pages.remove("k") else { panic!("the deletion was lost") };
    // Before the next attempt, which nothing disturbs.
    let listener = b.clone();
    a.wire.at(Kind::Delete, When::Before, move || {
        listener.look();
        assert_eq!(listener.get("k").as_deref(), Some("old"));
    });
    a.wire.fail(&[]);
    assert!(receipt.wait(PATIENCE));
    b.look();
    assert_eq!((b.get("k"), in_store(&store, "k")), (None, None));
}
