//! R11: writes that wait are judged by what has moved since they were handed in.

use std::sync::mpsc;

use larder::{EntryOptions, InMemoryRemote, Receipt, Write, WriteMode};

use super::{Process, in_store, own};
use crate::scene::PATIENCE;
use crate::tiered::gate::{Kind, When};

fn writer(store: &InMemoryRemote) -> Process {
    Process::with(store, |namespace| namespace.write_mode(WriteMode::Behind { queue: 16 }), |pages| pages)
}

fn queue(process: &Process, key: &str, value: &str) -> Receipt {
    match process.pages.insert_with(own(key), own(value), EntryOptions::new().groups(["g"])) {
        Write::Queued(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

/// Holds the process at its next command of this kind, until what is returned is dropped.
fn hold(process: &Process, kind: Kind) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (reach, reached) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    process.wire.at(kind, When::Before, move || {
        reach.send(()).unwrap();
        // Over when the test lets go of the other end.
        let _ = released.recv_timeout(PATIENCE);
    });
    (reached, release)
}

#[test]
fn r11_a_removal_takes_a_write_out_of_its_queue() {
    let store = InMemoryRemote::new();
    let a = writer(&store);
    // What is under way keeps the second one waiting.
    let (reached, release) = hold(&a, Kind::Read);
    let first = queue(&a, "first", "1");
    reached.recv_timeout(PATIENCE).unwrap();
    let second = queue(&a, "k", "old");
    a.remove("k");
    assert!(second.is_settled(), "the removal has taken its place");
    drop(release);
    assert!(first.wait(PATIENCE));
    assert!(a.namespace().shutdown(PATIENCE).is_ok());
    assert_eq!((a.local("k"), in_store(&store, "k")), (None, None));
}

#[test]
fn r11_a_removal_fences_the_write_that_is_under_way() {
    let store = InMemoryRemote::new();
    let a = writer(&store);
    let (reached, release) = hold(&a, Kind::Write);
    let receipt = queue(&a, "k", "old");
    reached.recv_timeout(PATIENCE).unwrap();
    a.remove("k");
    drop(release);
    assert!(receipt.wait(PATIENCE));
    assert!(a.namespace().shutdown(PATIENCE).is_ok());
    assert_eq!((a.get("k"), in_store(&store, "k")), (None, None));
}

/// Another process has bumped the group while the write waited. Its token is young, the value is not.
#[test]
fn r11_a_bump_while_a_write_waits_makes_it_void() {
    for by_itself in [false, true] {
        let store = InMemoryRemote::new();
        let (a, b) = (writer(&store), Process::new(&store));
        let (reached, release) = hold(&a, Kind::Read);
        let receipt = queue(&a, "k", "old");
        reached.recv_timeout(PATIENCE).unwrap();
        let bumper = if by_itself { &a } else { &b };
        bumper.bump();
        drop(release);
        assert!(receipt.wait(PATIENCE));
        assert_eq!(in_store(&store, "k"), None, "bumped by the writer: {by_itself}");
        assert_eq!(a.get("k"), None, "bumped by the writer: {by_itself}");
    }
}
