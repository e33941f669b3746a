//! What is announced to other processes, and when a write returns.

use larder::{Announce, EntryOptions, InMemoryRemote, Receipt, RemoteErrorKind, Write, WriteMode};

use super::in_store;
use crate::rules::{Process, own};
use crate::scene::{Gate, PATIENCE};
use crate::tiered::gate::{Kind, When};

/// Returns what another process, which has `old`, serves after an insert, after a removal, and after a bump of the group.
fn heard_of(announce: Announce) -> [Option<String>; 3] {
    [
        |process: &Process| process.insert("k", "new"),
        |process: &Process| process.remove("k"),
        |process: &Process| process.bump(),
    ]
    .map(|change| {
        let store = InMemoryRemote::new();
        let a = Process::with(&store, |namespace| namespace.announce(announce), |pages| pages);
        let b = Process::new(&store);
        a.insert("k", "old");
        assert_eq!(b.get("k").as_deref(), Some("old"));
        b.look();
        assert_eq!(b.get("k").as_deref(), Some("old"));
        change(&a);
        b.look();
        b.get("k")
    })
}

#[test]
fn what_is_announced_is_heard_of() {
    assert_eq!(heard_of(Announce::All), [Some(own("new")), None, None]);
    assert_eq!(heard_of(Announce::Removals), [Some(own("old")), None, None]);
    assert_eq!(heard_of(Announce::Groups), [Some(own("old")), Some(own("old")), None]);
}

#[test]
fn loads_are_not_announced() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    b.load("k", "of b");
    b.look();
    a.wire.log();
    assert_eq!(a.load("other", "1"), "1");
    assert!(!a.wire.log().iter().flatten().any(|kind| *kind == Kind::WriteJournal));
}

fn writer(store: &InMemoryRemote, queue: usize) -> Process {
    Process::with(store, |namespace| namespace.write_mode(WriteMode::Behind { queue }), |pages| pages)
}

#[track_caller]
fn queued(write: Write) -> Receipt {
    match write {
        Write::Queued(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queued_write_is_local_at_once_and_in_the_store_when_it_is_settled() {
    let store = InMemoryRemote::new();
    let (a, b) = (writer(&store, 4), Process::new(&store));
    b.insert("k", "old");
    a.look();
    assert_eq!(a.get("k").as_deref(), Some("old"));
    b.look();
    let gate = Gate::new();
    let passes = gate.clone();
    a.wire.at(Kind::Read, When::Before, move || passes.pass());
    let receipt = queued(a.pages.insert(own("k"), own("new")));
    gate.reached();
    assert_eq!((a.get("k").as_deref(), receipt.is_settled()), (Some("new"), false));
    assert_eq!(a.namespace().health().queued_writes, 1);
    gate.open();
    assert!(receipt.wait(PATIENCE) && receipt.error().is_none());
    b.look();
    assert_eq!(b.get("k").as_deref(), Some("new"), "it was announced");
}

#[test]
fn writes_of_one_key_keep_their_order() {
    let store = InMemoryRemote::new();
    let a = writer(&store, 4);
    let gate = Gate::new();
    let passes = gate.clone();
    a.wire.at(Kind::Write, When::Before, move || passes.pass());
    let first = queued(a.pages.insert(own("k"), own("1")));
    gate.reached();
    // Those behind it are one write, of the last.
    let rest = ["2", "3", "4", "5", "6", "7"].map(|value| queued(a.pages.insert(own("k"), own(value))));
    assert_eq!(a.namespace().health().queued_writes, 2);
    let second = Gate::new();
    let passes = second.clone();
    a.wire.at(Kind::Write, When::Before, move || passes.pass());
    gate.open();
    second.reached();
    assert!(first.wait(PATIENCE));
    assert_eq!(a.get("k").as_deref(), Some("7"), "what waits is served all the time");
    second.open();
    assert!(rest.iter().all(|receipt| receipt.wait(PATIENCE)));
    assert_eq!(in_store(&store, "k").as_deref(), Some("7"));
    assert_eq!(a.get("k").as_deref(), Some("7"));
    let writes = a.wire.log().into_iter().flatten().filter(|kind| *kind == Kind::Write).count();
    assert_eq!(writes, 2);
}

#[test]
fn a_full_queue_is_an_answer() {
    let store = InMemoryRemote::new();
    let a = writer(&store, 1);
    let b = Process::new(&store);
    b.insert("late", "old");
    let gate = Gate::new();
    let passes = gate.clone();
    a.wire.at(Kind::Read, When::Before, move || passes.pass());
    let first = queued(a.pages.insert(own("k"), own("1")));
    gate.reached();
    let options = EntryOptions::new().groups(["g"]);
    let Write::LocalOnly(error, deleted) = a.pages.insert_with(own("late"), own("2"), options) else {
        panic!("there is no room")
    };
    assert_eq!(error.kind(), RemoteErrorKind::Unavailable);
    assert_eq!(a.get("late").as_deref(), Some("2"));
    gate.open();
    assert!(first.wait(PATIENCE) && deleted.wait(PATIENCE));
    assert_eq!(in_store(&store, "late"), None, "what it was to replace is gone");
    assert_eq!(in_store(&store, "k").as_deref(), Some("1"));
}

#[test]
fn what_a_bump_overtakes_in_the_queue_is_not_stored() {
    let store = InMemoryRemote::new();
    let a = writer(&store, 4);
    let gate = Gate::new();
    let passes = gate.clone();
    a.wire.at(Kind::Read, When::Before, move || passes.pass());
    let first = queued(a.pages.insert(own("first"), own("1")));
    gate.reached();
    let options = EntryOptions::new().groups(["g"]);
    let second = queued(a.pages.insert_with(own("k"), own("old"), options));
    Process::new(&store).bump();
    gate.open();
    assert!(first.wait(PATIENCE) && second.wait(PATIENCE));
    assert_eq!(in_store(&store, "first").as_deref(), Some("1"));
    assert_eq!((in_store(&store, "k"), a.get("k")), (None, None));
}
