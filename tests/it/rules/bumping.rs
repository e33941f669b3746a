//! R2 to R4: how a group is bumped.

use std::future::Future;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use larder::{Bump, InMemoryRemote};

use super::{Process, in_store, own};
use crate::scene::{Gate, PATIENCE, eventually};
use crate::tiered::gate::{Kind, When};

#[test]
fn r2_a_bump_is_journal_token_journal_in_one_exchange() {
    let a = Process::new(&InMemoryRemote::new());
    let writes = || {
        let mut log = a.wire.log();
        assert_eq!(log.len(), 1, "{log:?}");
        // What is read behind them, nobody else sees.
        log[0].retain(|kind| *kind != Kind::ReadJournal);
        log.remove(0)
    };
    a.wire.log();
    a.bump();
    assert_eq!(writes(), [Kind::WriteJournal, Kind::WriteToken, Kind::WriteJournal]);
    assert!(a.namespace().invalidate_groups(["x", "y"]).is_acknowledged());
    assert_eq!(writes(), [&[Kind::WriteJournal][..], &[Kind::WriteToken; 2], &[Kind::WriteJournal]].concat());
}

/// A process that heard of the bump before the token moved has read the old token again, and copied the value by it.
#[test]
fn r2_a_bump_is_announced_after_its_token_moved() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    let listener = b.clone();
    a.wire.at(Kind::WriteToken, When::Before, move || {
        listener.look();
        assert_eq!(listener.get("k").as_deref(), Some("old"));
    });
    a.bump();
    assert_eq!(b.local("k").as_deref(), Some("old"), "until the next look");
    b.look();
    assert_eq!(b.get("k"), None);
}

/// A load that began before the bump, and names its group only at its end, finds the new token. It must find in the journal
/// that this is younger than its value.
#[test]
fn r2_a_bump_is_announced_before_its_token_moved() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    // The group has tokens, so that only the bump writes one.
    a.insert("other", "1");
    let (loading, ended) = (Gate::new(), Gate::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.load_after("k", "old", || loading.pass());
            ended.open();
        });
        loading.reached();
        let (go, end) = (loading.clone(), ended.clone());
        a.wire.at(Kind::WriteToken, When::After, move || {
            go.open();
            end.pass();
        });
        a.bump();
    });
    assert_eq!(in_store(&store, "k"), None);
    assert_eq!(b.get("k"), None);
}

/// The first attempt is carried out after the second, and after another bump: it must not bring back the token that values
/// were stored under in between.
#[test]
fn r3_an_attempt_that_comes_late_brings_no_token_back() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.wire.stall(Kind::WriteToken);
    let Bump::Pending(receipt) = a.namespace().invalidate_group("g") else { panic!("it was not answered") };
    assert!(receipt.wait(PATIENCE));
    assert_eq!(Process::new(&store).load("k", "old"), "old");
    a.bump();
    assert_eq!(in_store(&store, "k"), None);
    a.wire.arrive();
    assert_eq!(in_store(&store, "k"), None);
}

/// Beside a full journal a bump sets its token and is announced nowhere. A load may have taken that token for its old value by
/// the time that the bump is sent once more.
#[test]
fn r3_a_bump_beside_a_full_journal_is_sent_again_with_another_token() {
    let store = InMemoryRemote::new();
    // The group has tokens, which the loading process does not know.
    Process::new(&store).insert("other", "1");
    let (b, a) = (Process::new(&store), Process::new(&store.clone().with_max_value_len(100)));
    // The header takes 28 bytes and an entry 24: the third of these finds no room.
    (0..2).for_each(|_| b.remove("none"));
    let (loading, ended) = (Gate::new(), Gate::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.load_after("k", "old", || loading.pass());
            ended.open();
        });
        loading.reached();
        let (go, end) = (loading.clone(), ended.clone());
        a.wire.at(Kind::WriteToken, When::After, move || {
            go.open();
            end.pass();
        });
        a.bump();
    });
    assert_eq!(in_store(&store, "k"), None);
}

#[test]
fn r4_the_bumper_serves_nothing_old_from_the_call_on() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.insert("k", "old");
    let bumper = a.clone();
    a.wire.at(Kind::WriteJournal, When::Before, move || assert_eq!(bumper.local("k"), None));
    a.bump();
    a.insert("k", "old");
    let remover = a.clone();
    a.wire.at(Kind::Delete, When::Before, move || assert_eq!(remover.local("k"), None));
    a.remove("k");
}

/// Between the bump here and the one in the store, the old value may have been copied once more, and its token kept.
#[test]
fn r4_the_bumper_serves_nothing_old_from_its_return_on() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.insert("k", "old");
    let reader = a.clone();
    a.wire.at(Kind::WriteToken, When::Before, move || {
        assert_eq!(reader.get("k").as_deref(), Some("old"));
        assert_eq!(reader.local("k").as_deref(), Some("old"), "copied");
    });
    a.bump();
    assert_eq!(a.local("k"), None);
    assert_eq!(a.get("k"), None, "the old token is forgotten as well");
}

#[test]
fn r4_the_remover_serves_nothing_old_from_its_return_on() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.insert("k", "old");
    let reader = a.clone();
    a.wire.at(Kind::Delete, When::Before, move || {
        assert_eq!(reader.get("k").as_deref(), Some("old"));
        assert_eq!(reader.local("k").as_deref(), Some("old"), "copied");
    });
    a.remove("k");
    assert_eq!(a.local("k"), None);
}

#[test]
fn r4_what_a_process_reads_of_its_own_removals_counts() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.remove("k");
    a.insert("k", "new");
    a.look();
    assert_eq!(a.local("k"), None, "who removed it is not asked");
    assert_eq!(a.get("k").as_deref(), Some("new"));
    // Its inserts are as new here as there.
    a.look();
    a.insert("k", "newer");
    a.look();
    assert_eq!(a.local("k").as_deref(), Some("newer"));
}

/// A future that is dropped half-way drops nothing locally any more. Whoever read the old value while its deletion was under
/// way has it, until the journal says that it is gone.
#[test]
fn r4_a_removal_that_was_dropped_half_way_is_heard_of_in_the_journal() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.insert("k", "old");
    let (reached, deletes) = mpsc::channel();
    let (resume, resumed) = mpsc::channel::<()>();
    a.wire.at(Kind::Delete, When::Before, move || {
        reached.send(()).unwrap();
        resumed.recv_timeout(PATIENCE).unwrap();
    });
    let mut removal = Box::pin(a.pages.remove_async("k"));
    assert!(matches!(removal.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    deletes.recv_timeout(PATIENCE).unwrap();
    assert_eq!(a.get("k").as_deref(), Some("old"));
    drop(removal);
    resume.send(()).unwrap();
    eventually("the removal is carried out", || a.namespace().owed() == 0);
    assert_eq!(in_store(&store, "k"), None);
    a.look();
    assert_eq!(a.get("k"), None);
    assert_eq!(a.load("k", "new"), own("new"));
}

/// What the bumper loads next is not taken for older than its own bump, which it would otherwise hear of while it loads.
#[test]
fn what_is_loaded_right_after_a_bump_is_stored() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.insert("other", "1");
    a.bump();
    assert_eq!(a.load("k", "new"), "new");
    a.look();
    assert_eq!((a.local("k").as_deref(), in_store(&store, "k").as_deref()), (Some("new"), Some("new")));
}

/// More than one exchange announces.
#[test]
fn very_many_groups_are_bumped_at_once() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    b.insert("k", "old");
    let groups = (0..1_200).map(|number| format!("none {number}")).chain(["g".to_owned()]);
    assert!(a.namespace().invalidate_groups(groups).is_acknowledged());
    b.look();
    assert_eq!((b.local("k"), in_store(&store, "k")), (None, None));
}
