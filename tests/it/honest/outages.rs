//! What is pending is done once the store is back, and what will not be done is said.

use std::time::Duration;

use larder::{Bump, InMemoryRemote, RemoteErrorKind, Write, WriteMode};

use super::{in_store, pending};
use crate::rules::{HOUR, Process, own};
use crate::scene::{Gate, PATIENCE, eventually, within_patience};
use crate::tiered::gate::{Kind, When};

type Invalidate = fn(&Process) -> Bump;

/// What makes the key `k`, of the group `g`, leave.
const INVALIDATIONS: [(&str, Invalidate); 5] = [
    ("remove", |process| process.pages.remove("k")),
    ("remove_many", |process| process.pages.remove_many(["k", "l"])),
    ("invalidate_group", |process| process.namespace().invalidate_group("g")),
    ("clear", |process| process.pages.clear()),
    ("clear of the namespace", |process| process.namespace().clear()),
];

#[test]
fn what_is_pending_is_settled_when_the_store_is_back() {
    for (number, (verb, invalidate)) in INVALIDATIONS.into_iter().enumerate() {
        let store = InMemoryRemote::new();
        let a = Process::new(&store);
        a.insert("k", "old");
        store.offline(true);
        let receipt = pending(invalidate(&a));
        assert_eq!(receipt.error().unwrap().kind(), RemoteErrorKind::Unavailable, "{verb}");
        assert!(!receipt.is_settled() && !receipt.wait(Duration::ZERO), "{verb}");
        let health = a.namespace().health();
        assert!(!health.is_good() && health.oldest_pending.is_some(), "{verb}: {health:?}");
        assert_eq!(health.pending_deletions + health.pending_bumps, if verb == "remove_many" { 2 } else { 1 });
        eventually("another attempt fails", || a.namespace().health().last_error.is_some());
        store.offline(false);
        // Some wait as a thread, some as a future.
        let settled = if number % 2 == 0 { receipt.wait(PATIENCE) } else { waits_as_a_future(&receipt) };
        assert!(settled && receipt.is_settled(), "{verb}");
        assert!(a.namespace().health().is_good() && a.namespace().owed() == 0, "{verb}");
        assert_eq!(in_store(&store, "k"), None, "{verb}");
    }
}

fn waits_as_a_future(receipt: &larder::Receipt) -> bool {
    let receipt = receipt.clone();
    within_patience("the receipt is settled", move || ::futures::executor::block_on(receipt.wait_async()))
}

#[test]
fn an_insert_that_stays_local_leaves_nothing_older_in_the_store() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    assert_eq!(b.get("k").as_deref(), Some("old"));
    store.offline(true);
    let Write::LocalOnly(error, receipt) = a.pages.insert(own("k"), own("new")) else { panic!("no store took it") };
    assert_eq!(error.kind(), RemoteErrorKind::Unavailable);
    assert_eq!(a.get("k").as_deref(), Some("new"));
    store.offline(false);
    assert!(receipt.wait(PATIENCE));
    b.look();
    assert_eq!((b.get("k"), in_store(&store, "k")), (None, None));
    assert_eq!(a.get("k").as_deref(), Some("new"));
}

#[test]
fn shutdown_sends_what_is_pending() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.insert("k", "old");
    store.offline(true);
    let receipts = INVALIDATIONS.map(|(_, invalidate)| pending(invalidate(&a)));
    store.offline(false);
    a.namespace().shutdown(PATIENCE).unwrap();
    assert!(receipts.iter().all(larder::Receipt::is_settled));
    assert_eq!((a.namespace().owed(), in_store(&store, "k")), (0, None));
}

#[test]
fn shutdown_returns_what_it_could_not_send() {
    let store = InMemoryRemote::new();
    let a = Process::with(&store, |namespace| namespace.write_mode(WriteMode::Behind { queue: 2 }), |pages| pages);
    store.offline(true);
    let receipts = [pending(a.pages.remove("k")), pending(a.namespace().invalidate_group("g"))];
    let Write::Queued(written) = a.pages.insert(own("w"), own("1")) else { panic!("there is room") };
    let unsent = a.namespace().shutdown(Duration::ZERO).unwrap_err();
    // A write that was given up in the meantime is a deletion.
    assert_eq!(unsent.deletions() + unsent.bumps() + unsent.writes(), 3, "{unsent}");
    assert_eq!(unsent.bumps(), 1, "{unsent}");
    for receipt in receipts.iter().chain([&written]) {
        assert!(!receipt.wait(HOUR), "nobody tries any more");
    }
}

/// The thread that sends it again is in the middle of an exchange that does not end.
#[test]
fn dropping_the_last_handle_waits_for_nothing() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.wire.fail(&[Kind::Delete]);
    let receipt = pending(a.pages.remove("k"));
    let stuck = Gate::new();
    let passes = stuck.clone();
    a.wire.at(Kind::Delete, When::Before, move || passes.pass());
    stuck.reached();
    within_patience("the drop of the last handle", move || drop(a));
    assert!(!receipt.wait(HOUR), "nobody tries any more");
    stuck.open();
}
