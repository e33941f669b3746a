//! R10: what a process does that cannot tell what it has missed, and when it is trusted again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use larder::{Action, Clock, Command, Expiry, InMemoryRemote, Namespace, RemoteTier, Route, SetMode};

use super::{HOUR, NAME, Process, in_store, journal, journal_key, own};
use crate::scene::{PATIENCE, eventually};
use crate::tiered::gate::{Kind, When};

/// As many as make a journal that is shortened: 24 bytes each.
const MANY: usize = 3_000;

/// Returns a process that has the value `old` for `k` in both tiers.
fn holder(store: &InMemoryRemote) -> Process {
    let process = Process::new(store);
    process.insert("k", "old");
    process.look();
    assert_eq!(process.local("k").as_deref(), Some("old"));
    process
}

/// Loses the journal, and a removal with it.
fn lose_news(store: &InMemoryRemote) {
    Process::new(store).remove("k");
    assert!(store.evict(&journal_key()));
}

#[test]
fn r10_who_finds_no_journal_confirms_everything() {
    let store = InMemoryRemote::new();
    let b = holder(&store);
    lose_news(&store);
    let resyncs = b.namespace().health().resyncs;
    b.look();
    assert_eq!(b.namespace().health().resyncs, resyncs + 1);
    assert_eq!(b.get("k"), None);
    b.look();
    assert_eq!(b.namespace().health().resyncs, resyncs + 1, "it follows the journal that it has made");
}

#[test]
fn r10_who_finds_another_journal_confirms_everything() {
    let store = InMemoryRemote::new();
    let b = holder(&store);
    lose_news(&store);
    // Makes the journal.
    Process::new(&store).insert("other", "1");
    b.look();
    assert_eq!(b.get("k"), None);
}

#[test]
fn r10_a_resync_fences_what_is_under_way() {
    let store = InMemoryRemote::new();
    let b = Process::new(&store);
    Process::new(&store).insert("copied", "old");
    let reader = b.clone();
    let other = store.clone();
    b.wire.at(Kind::Read, When::After, move || {
        Process::new(&other).remove("copied");
        assert!(other.evict(&journal_key()));
        reader.look();
    });
    assert_eq!(b.get("copied").as_deref(), Some("old"), "the read began before the removal");
    assert_eq!(b.local("copied"), None);
    b.load_after("loaded", "old", || {
        assert!(store.evict(&journal_key()));
        b.look();
    });
    assert_eq!((b.local("loaded"), in_store(&store, "loaded")), (None, None));
}

#[test]
fn r10_a_resync_forgets_tokens() {
    let store = InMemoryRemote::new();
    let b = holder(&store);
    Process::new(&store).bump();
    assert!(store.evict(&journal_key()));
    b.look();
    assert_eq!(b.get("k"), None);
}

/// The listener of a removal runs in the middle of a look that brings back trust: neither it nor who looks at the journal
/// beside it may be served what the rest of the news are about.
#[test]
fn r10_trust_comes_after_the_news() {
    for looks_beside in [false, true] {
        let store = InMemoryRemote::new();
        let a = Process::new(&store);
        let (slot, seen) = (Arc::new(OnceLock::<Process>::new()), Arc::new(OnceLock::new()));
        let (process, witness) = (slot.clone(), seen.clone());
        let b = Process::with(
            &store,
            |namespace| namespace,
            |pages| {
                pages.on_removal(move |key: &String, _, _| {
                    if let Some(process) = process.get().filter(|_| key == "k") {
                        if looks_beside {
                            process.look();
                        }
                        let _ = witness.set(process.local("of the group"));
                    }
                })
            },
        );
        a.insert("k", "old");
        a.insert("of the group", "old");
        assert_eq!(b.pages.get_many(["k", "of the group"]), [Some(own("old")), Some(own("old"))]);
        a.remove("k");
        a.bump();
        b.lapse();
        assert!(slot.set(b.clone()).is_ok());
        b.look();
        assert_eq!(seen.get(), Some(&None), "another look beside: {looks_beside}");
        assert!(!b.namespace().health().trust_left.is_zero());
        assert_eq!(b.get("of the group"), None);
    }
}

/// A journal whose making was not acknowledged may have been made at any time: nothing follows from it.
#[test]
fn r10_a_journal_is_adopted_when_it_is_acknowledged() {
    let store = InMemoryRemote::new();
    let b = holder(&store);
    b.lapse();
    assert!(store.evict(&journal_key()));
    b.wire.lose(&[Kind::WriteJournal]);
    b.namespace().poll_now().unwrap_err();
    assert!(b.namespace().health().trust_left.is_zero());
    b.wire.lose(&[]);
    b.look();
    assert!(!b.namespace().health().trust_left.is_zero());
}

/// The entries that a process has missed are not in the journal any more.
#[test]
fn r10_who_has_missed_what_was_dropped_confirms_everything() {
    let store = InMemoryRemote::new();
    let b = holder(&store);
    // Only the thread that follows the journal shortens it.
    let other = Namespace::builder(NAME, store.clone())
        .poll_interval(Duration::from_millis(1))
        .trust(HOUR)
        .clock(Clock::system())
        .build()
        .unwrap();
    let pages = larder::TieredCache::<String, String>::builder(&other, "pages").capacity(10).codec(larder::RawBytes);
    let pages = pages.build().unwrap();
    assert!(pages.remove("k").is_acknowledged());
    let full = journal(&store).len() + MANY * 24;
    let others: Vec<String> = (0..MANY).map(|number| format!("other {number}")).collect();
    assert!(pages.remove_many(&others).is_acknowledged());
    eventually("the journal is shortened", || journal(&store).len() < full);
    b.look();
    assert_eq!(b.get("k"), None);
}

/// Somebody has put an old state of the journal back: what was appended since is not in it.
#[test]
fn r10_who_is_beyond_the_end_of_the_journal_confirms_everything() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), holder(&store));
    let old = journal(&store);
    (0..3).for_each(|_| a.remove("none"));
    b.look();
    let set = Action::Set { value: &old, expiry: Expiry::Never, mode: SetMode::Always, cas: None };
    store.run(&[Command { key: &journal_key(), route: Route::Control, action: set }], PATIENCE).remove(0).unwrap();
    a.remove("k");
    b.look();
    assert_eq!(b.get("k"), None);
}
