//! R9: a value is written in the place of what its writer has seen there.

use larder::{Added, InMemoryRemote, Write};

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

/// The bump is heard while the write is under way, so that the value is not stored. What the key held instead was loaded after
/// the bump, and is older than the write all the same: it goes, and other processes are told.
#[test]
fn what_a_write_deletes_that_an_invalidation_has_overtaken_leaves_other_processes_too() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    b.insert("other", "1");
    a.look();
    let (hearer, rival) = (a.clone(), b.clone());
    a.wire.at(Kind::Read, When::Before, move || {
        rival.bump();
        assert_eq!(rival.load("k", "old"), "old");
        hearer.look();
    });
    a.insert("k", "new");
    assert_eq!((a.local("k"), in_store(&store, "k")), (None, None));
    b.look();
    assert_eq!(b.local("k"), None);
}

/// The store will never take it. Its deletion there is announced, and the value stays where it is.
#[test]
fn a_value_that_is_in_the_local_tier_alone_stays_there() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    b.insert("k", "old");
    // That is news from before the value.
    a.look();
    let large = "x".repeat(2 << 20);
    let Write::LocalOnly(_, receipt) = a.pages.insert(own("k"), large.clone()) else { panic!("it is too large") };
    assert!(receipt.wait(PATIENCE));
    a.look();
    assert!(a.local("k") == Some(large));
    b.look();
    assert_eq!(b.local("k"), None);
}

/// The news of the faster process had taken the slower one's value out of its local tier by the time that its write was
/// refused; it took that for its own doing, and said that it had stored the value.
#[test]
fn an_add_that_loses_says_so_although_the_news_came_first() {
    let store = InMemoryRemote::new();
    let (ours, theirs) = (Process::new(&store), Process::new(&store));
    ours.wire.at(Kind::Write, When::Before, {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        move || {
            theirs.insert("k", "theirs");
            ours.look();
        }
    });
    assert!(matches!(ours.pages.add(own("k"), own("ours")), Added::Present));
    assert_eq!((ours.get("k").as_deref(), theirs.get("k").as_deref()), (Some("theirs"), Some("theirs")));
}
