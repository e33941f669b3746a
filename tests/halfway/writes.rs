//! Writes that are dropped, or overtaken by an invalidation.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use larder::{
    Added, Clock, EntryOptions, InMemoryRemote, Receipt, RemoteError, RemoteErrorKind, RemovalCause, Write, WriteMode,
};

use crate::gate::{Gate, Kind, When};
use crate::{Begun, HOUR, PATIENCE, Pages, eventually, own, pages, process};

/// The new value is stale already, so that a reader refreshes it: it reads the old one from the remote tier, where the write
/// is not yet and nothing is owed. Then the write is dropped. The reader's copy must not take the place of the new value: the
/// deletion that is owed from then on is announced as this process's own write, which takes nothing out of its local tier, and
/// so the old value would stay there as a fresh one.
#[test]
fn a_copy_that_began_before_a_write_was_dropped_does_not_take_its_place() {
    let gate = Gate::new(InMemoryRemote::new());
    let (clock, time) = Clock::manual();
    let pages = process(&gate, |namespace| namespace.clock(clock));
    assert!(process(&gate.ungated(), |namespace| namespace).insert(own("k"), own("old")).is_through());
    pages.namespace().poll_now().unwrap();
    gate.reset();
    // The exchange of the write gets no further until the write is dropped.
    let ((reaches, reached), (release, released)) = (mpsc::channel(), mpsc::channel());
    gate.at(0, When::Before, move || {
        reaches.send(()).unwrap();
        let _ = released.recv_timeout(PATIENCE);
    });
    let writer = pages.clone();
    let write = Begun::new(async move {
        let short = EntryOptions::new().soft_ttl(Duration::from_secs(1)).hard_ttl(HOUR);
        drop(writer.insert_with_async(own("k"), own("new"), short).await);
    });
    reached.recv_timeout(PATIENCE).unwrap();
    time.advance(Duration::from_secs(2));
    assert_eq!(pages.local().peek("k").as_deref(), Some("new"));
    gate.at(1, When::After, move || write.drop_it());
    let read = pages.get_or_load("k", |_| Err::<_, ()>(()));
    assert_eq!(read.unwrap(), "old", "it was read before the write was dropped");
    release.send(()).unwrap();
    eventually("the deletion is through", || pages.namespace().health().pending_deletions == 0);
    pages.namespace().poll_now().unwrap();
    assert_ne!(pages.local().peek("k").as_deref(), Some("old"));
    assert_ne!(pages.get("k").as_deref(), Some("old"));
}

/// What a listener has a reader do.
type Read = Box<dyn FnOnce() + Send>;

fn queued(write: Write) -> Receipt {
    let Write::Queued(receipt) = write else { panic!("{write:?}, not queued") };
    receipt
}

/// Between the two tiers of a write that is queued, here as long as a listener takes, a reader finds the new value, stale already,
/// and the old one in the remote tier. By the time that it stores its copy the write is through. The copy must not stay: it would
/// be fresh for as long as the old value is, and nobody tells this process of its own write.
#[test]
fn a_copy_that_began_before_a_write_was_queued_does_not_take_its_place() {
    let gate = Gate::new(InMemoryRemote::new());
    let behind = process(&gate, |namespace| namespace.write_mode(WriteMode::Behind { queue: 9 }));
    let ((holds, held), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    let reads = Arc::new(Mutex::new(None::<Read>));
    let reading = reads.clone();
    let pages = pages(behind.namespace(), |pages| {
        pages.on_removal(move |_, _, cause| {
            let read = reading.lock().unwrap().take();
            read.filter(|_| cause == RemovalCause::Replaced).into_iter().for_each(|read| read());
        })
    });
    assert!(queued(pages.insert(own("k"), own("old"))).wait(PATIENCE));
    let (reader, at) = (pages.clone(), gate.clone());
    let (answers, answer) = mpsc::channel();
    let read = move || {
        at.reset();
        at.at(0, When::After, move || {
            holds.send(()).unwrap();
            let _ = released.recv_timeout(PATIENCE);
        });
        std::thread::spawn(move || answers.send(reader.get_or_load("k", |_| Err::<_, ()>(())).unwrap()));
        held.recv_timeout(PATIENCE).unwrap();
    };
    *reads.lock().unwrap() = Some(Box::new(read));
    let stale = EntryOptions::new().soft_ttl(Duration::ZERO).hard_ttl(HOUR);
    assert!(queued(pages.insert_with(own("k"), own("new"), stale)).wait(PATIENCE));
    drop(release);
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), "old", "it was read before the write was queued");
    pages.namespace().poll_now().unwrap();
    assert_ne!(pages.local().peek("k").as_deref(), Some("old"));
    assert_ne!(pages.get("k").as_deref(), Some("old"));
}

/// Adds a value to a group, which this process invalidates after the key was found to be free, before the value is sent.
fn add_and_invalidate(gate: &Gate, pages: &Pages) -> Added {
    gate.reset();
    let invalidates = pages.clone();
    gate.at(0, When::After, move || assert!(invalidates.invalidate_group("g").is_acknowledged()));
    pages.add_with(own("k"), own("added"), EntryOptions::new().groups(["g"]))
}

/// The load began before the value was added, and is in no group: were it stored, it would come back although the value took
/// its place, which is all that the invalidation has taken along.
#[test]
fn an_addition_that_an_invalidation_overtakes_still_fences_the_older_load_of_another_process() {
    let gate = Gate::new(InMemoryRemote::new());
    let (pages, other) = (process(&gate, |namespace| namespace), process(&gate.ungated(), |namespace| namespace));
    let loaded = other.get_or_load("k", |_| {
        let added = add_and_invalidate(&gate, &pages);
        assert!(matches!(added, Added::Stored(Write::Through)), "{added:?}");
        Ok::<_, ()>(own("old"))
    });
    assert_eq!(loaded.unwrap(), "old", "whoever asked before the addition may have it");
    other.namespace().poll_now().unwrap();
    assert_eq!((pages.get("k"), other.get("k")), (None, None));
}

/// The other process has a copy of what was evicted from the remote tier since. It is older than the value that was added.
#[test]
fn an_addition_that_an_invalidation_overtakes_takes_older_copies_from_other_processes() {
    let memory = InMemoryRemote::new();
    let gate = Gate::new(memory.clone());
    let (pages, other) = (process(&gate, |namespace| namespace), process(&gate, |namespace| namespace));
    gate.reset();
    assert!(other.insert(own("k"), own("old")).is_through());
    assert!(pages.namespace().poll_now().is_ok() && other.namespace().poll_now().is_ok());
    let items = gate.keys().into_iter().filter(|key| key.as_bytes().ends_with(b":pages:k"));
    assert_eq!(items.filter(|key| memory.evict(key)).count(), 1);
    assert!(add_and_invalidate(&gate, &pages).is_stored());
    assert_eq!(other.local().peek("k").as_deref(), Some("old"));
    other.namespace().poll_now().unwrap();
    assert_eq!(other.local().peek("k"), None);
}

/// Without an answer to the deletion, nobody knows whether the older load is fenced: the key is owed another one.
#[test]
fn an_addition_that_is_overtaken_owes_the_deletion_that_it_has_no_answer_to() {
    let gate = Gate::new(InMemoryRemote::new());
    let pages = process(&gate, |namespace| namespace);
    gate.reset();
    let (invalidates, fails) = (pages.clone(), gate.clone());
    gate.at(0, When::After, move || {
        assert!(invalidates.invalidate_group("g").is_acknowledged());
        fails.rewrite(|command, reply| match Kind::of(command) {
            Kind::Delete => Err(RemoteError::new(RemoteErrorKind::Interrupted, "as the test wants it")),
            _ => reply,
        });
    });
    let added = pages.add_with(own("k"), own("added"), EntryOptions::new().groups(["g"]));
    let Added::Stored(Write::LocalOnly(_, receipt)) = added else { panic!("{added:?}") };
    assert_eq!(pages.namespace().health().pending_deletions, 1);
    gate.reset();
    assert!(receipt.wait(PATIENCE));
}
