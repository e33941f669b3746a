//! Changes reach both tiers: a feed hears of them once the remote one has acknowledged them, and not before.

use std::time::Duration;

use futures::executor::block_on;
use larder::{Bump, Change, EntryOptions, InMemoryRemote};

use super::source::{Fault, Point, Source};
use crate::rules::{HOUR, Process, own};
use crate::scene::{Gate, PATIENCE, eventually};
use crate::tiered::gate::{Kind, When};

/// Stores a value of the group `record:<key>` in both tiers.
fn store_record(process: &Process, key: u32) {
    let options = EntryOptions::new().groups([format!("record:{key}")]);
    assert!(process.pages.insert_with(name(key), own("old"), options).is_through());
}

fn name(key: u32) -> String {
    format!("k{key}")
}

fn saved(key: u32) -> Change {
    Change::invalidate([format!("record:{key}")])
}

/// Returns what a process finds of these records that starts now: what the store has.
fn in_store(store: &InMemoryRemote, keys: &[u32]) -> Vec<bool> {
    let process = Process::new(store);
    keys.iter().map(|key| process.get(&name(*key)).is_some()).collect()
}

/// Returns how many exchanges with a bump there were.
fn bumps(process: &Process) -> usize {
    process.wire.log().iter().filter(|exchange| exchange.contains(&Kind::WriteToken)).count()
}

/// A process with records that another one has in memory as well.
fn two(store: &InMemoryRemote, keys: &[u32]) -> (Process, Process) {
    let (a, b) = (Process::new(store), Process::new(store));
    for &key in keys {
        store_record(&a, key);
        assert!(b.get(&name(key)).is_some());
    }
    let _ = a.wire.log();
    (a, b)
}

#[test]
fn changes_of_every_kind_reach_both_tiers() {
    let store = InMemoryRemote::new();
    let (a, b) = two(&store, &[1, 2, 3]);
    let change = saved(1).and(Change::expire(["record:2"]));
    assert!(a.pages.invalidate_from([change, Change::default()]).is_acknowledged());
    assert!(a.pages.invalidate_from([]).is_acknowledged());
    b.look();
    for process in [&a, &b, &Process::new(&store)] {
        assert_eq!(process.get("k1"), None);
        assert_eq!(process.load("k3", "not loaded"), "old");
        assert!(process.pages.local().inspect("k2").is_none_or(|info| info.soft_in == Some(Duration::ZERO)));
    }
    assert_eq!(Process::new(&store).load("k2", "new"), "new", "it was stale there");
    assert!(a.pages.invalidate_from([Change::everything()]).is_acknowledged());
    assert_eq!((a.get("k3"), in_store(&store, &[3])), (None, vec![false]));
    store_record(&a, 3);
    assert!(a.namespace().invalidate_from([Change::everything()]).is_acknowledged());
    assert_eq!(in_store(&store, &[3]), [false]);
}

/// While one exchange is under way, what comes waits for the next, together.
#[test]
fn changes_at_hand_share_an_exchange_and_a_lone_one_waits_for_none() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 200]);
    let gate = Gate::new();
    let passes = gate.clone();
    a.wire.at(Kind::WriteToken, When::Before, move || passes.pass());
    let mut next = 0;
    let bump = a.namespace().invalidate_from(std::iter::from_fn(|| {
        next += 1;
        match next {
            // It is on its way before the second is asked for.
            2 => gate.reached(),
            201 => {
                gate.open();
                return None;
            }
            _ => {}
        }
        Some(saved(next))
    }));
    assert!(bump.is_acknowledged());
    assert_eq!((bumps(&a), in_store(&store, &[1, 200])), (2, vec![false, false]));
}

#[test]
fn a_stream_that_has_many_at_hand_is_applied_in_bounded_batches() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 300]);
    let changes = || futures::stream::iter((1..=300).map(saved));
    assert!(block_on(a.namespace().invalidate_from_stream(changes())).is_acknowledged());
    assert_eq!((bumps(&a), in_store(&store, &[1, 300])), (2, vec![false, false]));
    store_record(&a, 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let pages = a.pages.clone();
    let bump = runtime.block_on(runtime.spawn(async move { pages.invalidate_from_stream(changes()).await }));
    assert!(bump.unwrap().is_acknowledged());
    assert_eq!(in_store(&store, &[1]), [false]);
}

#[test]
fn a_stream_whose_future_is_dropped_loses_no_change_that_it_brought() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 2, 3]);
    let gate = Gate::new();
    let passes = gate.clone();
    a.wire.at(Kind::WriteToken, When::Before, move || passes.pass());
    let changes = futures::stream::iter([saved(1), Change::expire(["record:2"])]);
    let mut applying = Box::pin(a.namespace().invalidate_from_stream(changes));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(applying.as_mut().poll(&mut context).is_pending());
    drop(applying);
    gate.open();
    assert_eq!(a.local("k1"), None);
    eventually("what it owed is done", || a.namespace().owed() == 0);
    let fresh = Process::new(&store);
    assert_eq!((fresh.get("k1"), fresh.load("k2", "new"), fresh.get("k3")), (None, own("new"), Some(own("old"))));
}

#[test]
fn what_the_store_did_not_acknowledge_is_pending() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 2]);
    store.offline(true);
    let Bump::Pending(receipt) = a.namespace().invalidate_from([saved(1), saved(2)]) else { panic!("who took it?") };
    let stream = futures::stream::iter([saved(1)]);
    let Bump::Pending(streamed) = block_on(a.pages.invalidate_from_stream(stream)) else { panic!("who took it?") };
    assert!((a.local("k1"), a.local("k2")) == (None, None) && !receipt.is_settled());
    store.offline(false);
    assert!(receipt.wait(PATIENCE) && streamed.wait(PATIENCE));
    assert_eq!(in_store(&store, &[1, 2]), [false, false]);
}

#[test]
fn a_panic_of_the_iterator_passes_through_after_what_came_before() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1]);
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let changes = (1..).map(|key| if key == 1 { saved(1) } else { panic!("no more") });
        let _ = a.namespace().invalidate_from(changes);
    }));
    assert_eq!(*panics.unwrap_err().downcast_ref::<&str>().unwrap(), "no more");
    assert_eq!(in_store(&store, &[1]), [false]);
}

#[test]
fn a_follower_acknowledges_what_the_store_has() {
    let store = InMemoryRemote::new();
    let (a, b) = two(&store, &[1, 2]);
    let source = Source::durable();
    let mut follower = a.pages.follow("records", source.feed()).unwrap();
    source.commit([saved(1), saved(2)]);
    source.settled();
    assert_eq!(in_store(&store, &[1, 2]), [false, false]);
    b.look();
    assert_eq!((b.local("k1"), b.local("k2")), (None, None));
    assert!(follower.stop(PATIENCE));
}

#[test]
fn a_pending_change_is_not_acknowledged_and_holds_up_no_other() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 2]);
    let source = Source::durable();
    let follower = a.namespace().follow("records", source.feed()).unwrap();
    store.offline(true);
    source.commit([saved(1)]);
    eventually("it is invalidated here", || a.local("k1").is_none());
    source.asked_again();
    source.commit([saved(2)]);
    eventually("so is the next", || a.local("k2").is_none());
    source.asked_again();
    assert_eq!((follower.health().pending, source.look(|state| state.acknowledged.len())), (2, 0));
    store.offline(false);
    source.settled();
    assert_eq!(in_store(&store, &[1, 2]), [false, false]);
    eventually("nothing is pending", || follower.health().pending == 0);
}

/// The feed breaks while a change is pending: it brings that again, and until then nothing counts as applied.
#[test]
fn what_is_pending_when_the_feed_breaks_comes_again() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 2]);
    let source = Source::durable();
    let follower = a.namespace().follow("records", source.feed()).unwrap();
    store.offline(true);
    source.commit([saved(1), saved(2)]);
    eventually("it is pending", || follower.health().pending > 0);
    source.hold(true);
    source.fail([(Point::Next, Fault::Error)]);
    source.failed();
    source.asked_again();
    assert_eq!(source.look(|state| state.connected.clone()), [None, None]);
    store.offline(false);
    eventually("the store has them", || follower.health().pending == 0);
    assert!(source.look(|state| state.acknowledged.is_empty()), "they are to come again");
    source.hold(false);
    source.settled();
    assert_eq!(in_store(&store, &[1, 2]), [false, false]);
}

/// What follows a gap must not be acknowledged before the gap is: after a crash, nobody would invalidate it again.
#[test]
fn a_pending_gap_comes_before_every_acknowledgement() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 2]);
    let source = Source::forgetful(Change::everything());
    store.offline(true);
    let follower = a.namespace().follow("records", source.feed()).unwrap();
    source.asked_again();
    assert_eq!((follower.health().gaps, follower.health().pending, a.local("k2")), (1, 1, None));
    source.commit([saved(1)]);
    source.asked_again();
    assert_eq!((follower.health().pending, source.look(|state| state.acknowledged.len())), (2, 0));
    store.offline(false);
    source.settled();
    assert_eq!(in_store(&store, &[1, 2]), [false, false]);
}

/// More than can be kept apart becomes one bump of the namespace.
#[test]
fn too_many_pending_changes_become_one() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1, 2]);
    let source = Source::durable();
    let follower = a.pages.follow("records", source.feed()).unwrap();
    store.offline(true);
    let many = |part: u32| Change::invalidate((0..512).map(|group| format!("{part}:{group}")));
    source.commit((0..33).map(many).chain([saved(1)]));
    eventually("they are one", || follower.health().escalations > 0);
    assert_eq!(a.local("k2"), None, "which concerns everything");
    store.offline(false);
    source.settled();
    assert_eq!(in_store(&store, &[1, 2]), [false, false]);
}

/// A follower waits by the clock of the system: nothing of it hangs on a manual one.
#[test]
fn a_follower_needs_no_clock_of_the_namespace() {
    let store = InMemoryRemote::new();
    let (a, _) = two(&store, &[1]);
    let source = Source::durable();
    source.fail([(Point::Connect, Fault::Error)]);
    source.pause(Duration::from_millis(1));
    let mut follower = a.pages.follow("records", source.feed()).unwrap();
    source.commit([saved(1)]);
    source.settled();
    assert!(follower.stop(HOUR));
}
