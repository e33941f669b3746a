//! R5 to R7 and R12: what is read from the store counts only if nothing has moved since before it was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::{Bump, EntryOptions, InMemoryRemote};

use super::{Process, TRUST, in_store, own};
use crate::scene::PATIENCE;
use crate::tiered::gate::{Kind, When};

/// The answer about a token was under way when the group moved. It must not become what later values are judged by.
#[test]
fn r5_a_token_that_moved_while_it_was_read_is_not_kept() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    b.look();
    let (bumper, reader) = (a.clone(), b.clone());
    // The last of the tokens that a value of one group is judged by: hard and soft, of the group and of two roots.
    b.wire.at_nth(Kind::ReadToken, 5, When::After, move || {
        bumper.bump();
        reader.look();
    });
    assert_eq!(b.get("k").as_deref(), Some("old"), "the read began before the bump");
    assert_eq!(b.get("k"), None);
}

/// The look at the journal takes so long that it brings no trust back. What has moved meanwhile is not known.
#[test]
fn r5_known_tokens_do_not_count_without_trust() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    a.insert("other", "old");
    assert_eq!(b.get("other").as_deref(), Some("old"), "which brings the tokens");
    b.look();
    b.lapse();
    let (bumper, time) = (a.clone(), b.time.clone());
    b.wire.at(Kind::ReadJournal, When::After, move || {
        bumper.bump();
        time.advance(TRUST);
    });
    assert_eq!(b.get("k"), None);
    assert_eq!(b.load("k", "new"), "new");
}

/// A value that was stored after a bump that this process has not heard of is newer than the token that it knows, not older.
#[test]
fn r5_a_token_that_differs_is_read_again_before_a_value_is_declared_dead() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("other", "1");
    assert_eq!(b.get("other").as_deref(), Some("1"), "which brings the tokens");
    a.bump();
    a.insert("k", "new");
    assert_eq!(b.load("k", "loaded again"), "new");
    assert_eq!(in_store(&store, "k").as_deref(), Some("new"));
}

/// The key was removed while its value was under way: the copy must not be made, and where it has been made already by the time
/// that the news are read, it must be found.
#[test]
fn r6_a_copy_does_not_survive_news_of_its_key() {
    for told_before_the_copy in [true, false] {
        let store = InMemoryRemote::new();
        let (a, b) = (Process::new(&store), Process::new(&store));
        a.insert("k", "old");
        let (remover, reader) = (a.clone(), b.clone());
        b.wire.at(Kind::Read, When::After, move || {
            remover.remove("k");
            if told_before_the_copy {
                reader.look();
            }
        });
        assert_eq!(b.get("k").as_deref(), Some("old"), "the read began before the removal");
        if !told_before_the_copy {
            b.look();
        }
        assert_eq!(b.local("k"), None);
    }
}

#[test]
fn r6_a_copy_is_as_old_as_the_question() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    b.look();
    let (bumper, reader) = (a.clone(), b.clone());
    // After the value was found good.
    b.wire.at_nth(Kind::ReadToken, 5, When::After, move || {
        bumper.bump();
        reader.look();
    });
    assert_eq!(b.get("k").as_deref(), Some("old"), "the read began before the bump");
    assert_eq!(b.local("k"), None);
}

/// News of a key void the load that is at it: what it brings is not even sent.
#[test]
fn r6_a_load_does_not_survive_news_of_its_key() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let loaded = b.load_after("k", "old", || {
        a.remove("k");
        b.look();
        b.wire.log();
    });
    assert_eq!(loaded, "old");
    assert_eq!(b.local("k"), None);
    assert!(!b.wire.log().iter().flatten().any(|kind| *kind == Kind::Write));
    assert_eq!(in_store(&store, "k"), None);
}

/// Another process bumps the group at every moment between the end of a loader, which names it, and the end of the fill.
#[test]
fn r7_a_group_that_is_named_late_fences_a_load() {
    for kind in [Kind::WriteToken, Kind::ReadToken, Kind::ReadJournal, Kind::Write] {
        let mut moments = 0;
        while fences_at(kind, moments) {
            moments += 1;
        }
        assert!(moments > 0, "nobody sends a {kind:?} after a load");
    }
}

/// Bumps the group before the command of this kind, and number, that follows a load. Returns `false` if there is none.
fn fences_at(kind: Kind, number: usize) -> bool {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("other", "1");
    let has_come = Arc::new(AtomicBool::new(false));
    let (bumper, comes) = (a.clone(), has_come.clone());
    let loaded = b.load_after("k", "old", || {
        b.wire.at_nth(kind, number, When::Before, move || {
            bumper.bump();
            comes.store(true, Ordering::Relaxed);
        });
    });
    assert_eq!(loaded, "old");
    if has_come.load(Ordering::Relaxed) {
        assert_eq!(in_store(&store, "k"), None, "bumped before {kind:?} {number}");
        b.look();
        assert_eq!(b.get("k"), None, "bumped before {kind:?} {number}");
    }
    has_come.load(Ordering::Relaxed)
}

#[test]
fn r7_a_bump_during_a_load_fences_it_although_nobody_has_looked() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let loaded = b.load_after("k", "old", || a.bump());
    assert_eq!(loaded, "old");
    assert_eq!((b.local("k"), in_store(&store, "k")), (None, None));
}

/// The store has not deleted the item, and the process knows: it does not take it for a value.
#[test]
fn r12_what_a_process_has_yet_to_delete_is_a_miss_for_it() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    a.wire.fail(&[Kind::Delete]);
    let Bump::Pending(receipt) = a.pages.remove("k") else { panic!("the deletion was lost") };
    assert_eq!(a.get("k"), None);
    assert_eq!(a.load("k", "new"), "new");
    assert_eq!(b.get("k").as_deref(), Some("old"), "who does not owe it does not know");
    a.wire.fail(&[]);
    assert!(receipt.wait(PATIENCE));
    b.look();
    assert_eq!(b.get("k"), None);
}

#[test]
fn r12_values_of_a_group_that_a_process_has_yet_to_bump_are_misses_for_it() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    assert!(a.pages.insert_with(own("apart"), own("1"), EntryOptions::new().groups(["h"])).is_through());
    a.wire.fail(&[Kind::WriteToken]);
    let Bump::Pending(receipt) = a.namespace().invalidate_group("g") else { panic!("the token was lost") };
    assert_eq!(a.get("k"), None);
    assert_eq!(a.get("apart").as_deref(), Some("1"), "of another group");
    assert_eq!(b.get("k").as_deref(), Some("old"), "who does not owe it does not know");
    a.wire.fail(&[]);
    assert!(receipt.wait(PATIENCE));
    b.look();
    assert_eq!((b.get("k"), in_store(&store, "k")), (None, None));
}
