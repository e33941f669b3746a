//! Writes that are dropped, or overtaken by an invalidation.

use std::sync::mpsc;
use std::time::Duration;

use larder::{Clock, EntryOptions, InMemoryRemote};

use crate::gate::{Gate, When};
use crate::{Begun, HOUR, PATIENCE, eventually, own, process};

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
