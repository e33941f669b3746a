//! Leases that nobody holds: the reply that would have told of them was lost.

use std::sync::mpsc;
use std::time::Duration;

use larder::{InMemoryRemote, Load, Lookup};

use crate::gate::{Gate, Kind};
use crate::{PATIENCE, Pages, own, pages, process};

/// How long the callers of a process wait for each other, and half as long for another process.
const WAIT: Duration = Duration::from_millis(200);

/// Returns a process that keeps nothing of its own, so that each of its callers has to ask.
fn forgetful(gate: &Gate) -> Pages {
    pages(process(gate, |namespace| namespace).namespace(), |pages| pages.load_wait(WAIT))
}

/// Loads a value that is kept nowhere.
fn load(pages: &Pages, key: &str) -> String {
    let loader = |load: Load<String>| {
        load.do_not_store();
        Ok::<_, ()>(own("loaded"))
    };
    pages.get_or_load(key, loader).unwrap()
}

/// Leaves a lease behind that nobody knows to be his.
fn orphan(memory: &InMemoryRemote, gate: &Gate, key: &str) {
    let unlucky = process(&gate.ungated(), |namespace| namespace);
    memory.lose_replies(1);
    assert_eq!(load(&unlucky, key), "loaded");
}

/// Returns how often a call has asked for a value.
fn reads(gate: &Gate, call: impl FnOnce()) -> usize {
    gate.reset();
    call();
    gate.log().iter().flatten().filter(|kind| **kind == Kind::Read).count()
}

/// Each caller would wait for half of `load_wait`, for as long as the lease stands: half a minute as a rule.
#[test]
fn a_lease_that_nobody_holds_is_waited_for_once() {
    let memory = InMemoryRemote::new();
    let gate = Gate::new(memory.clone());
    let pages = forgetful(&gate);
    orphan(&memory, &gate, "k");
    assert!(reads(&gate, || assert_eq!(load(&pages, "k"), "loaded")) > 1, "the first waits");
    for _ in 0..3 {
        assert_eq!(reads(&gate, || assert_eq!(load(&pages, "k"), "loaded")), 1, "the others do not");
    }
}

/// Were two of them to share a place in what is remembered, each would have the other forgotten.
#[test]
fn hundreds_of_leases_are_waited_for_once() {
    let memory = InMemoryRemote::new();
    let gate = Gate::new(memory.clone());
    let pages = forgetful(&gate);
    let other = process(&gate.ungated(), |namespace| namespace);
    let keys: Vec<String> = (0..500).map(|key| format!("k{key}")).collect();
    let claim = |key: &String| match other.lookup(key.as_str()) {
        Lookup::Vacant(claim) => claim,
        _ => panic!("{key} is not vacant"),
    };
    let _claims: Vec<_> = keys.iter().map(claim).collect();
    let loaded = pages.get_many_or_load(keys.iter().map(String::as_str), |_| Ok::<_, ()>(Vec::new()));
    assert_eq!(loaded.unwrap(), vec![None; keys.len()]);
    for key in &keys {
        assert_eq!(reads(&gate, || assert_eq!(load(&pages, key), "loaded")), 1, "{key}");
    }
}

/// A batch whose loader has run could not load such a key any more once it is through with waiting: it has to know at once.
#[test]
fn a_batch_loads_what_was_waited_for_before_with_the_rest() {
    let memory = InMemoryRemote::new();
    let gate = Gate::new(memory.clone());
    let pages = forgetful(&gate);
    orphan(&memory, &gate, "k");
    assert_eq!(load(&pages, "k"), "loaded");
    let mut wanted = Vec::new();
    let loaded = pages.get_many_or_load(["k", "l"], |batch| {
        wanted = batch.keys().cloned().collect();
        Ok::<_, ()>(wanted.iter().map(|key| (key.clone(), own("loaded"))).collect())
    });
    assert_eq!(loaded.unwrap(), vec![Some(own("loaded")); 2]);
    assert_eq!(wanted, ["k", "l"]);
}

/// The next lease is another process's, which is alive.
#[test]
fn another_lease_of_the_key_is_waited_for() {
    let memory = InMemoryRemote::new();
    let gate = Gate::new(memory.clone());
    let pages = forgetful(&gate);
    orphan(&memory, &gate, "k");
    assert_eq!(load(&pages, "k"), "loaded");
    gate.keys().iter().filter(|key| key.as_bytes().ends_with(b":pages:k")).for_each(|key| assert!(memory.evict(key)));
    let other = process(&gate.ungated(), |namespace| namespace);
    let ((loads, loading), (release, released)) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let loaded = other.get_or_load("k", |_| {
                loads.send(()).unwrap();
                released.recv_timeout(PATIENCE).unwrap();
                Ok::<_, ()>(own("theirs"))
            });
            assert_eq!(loaded.unwrap(), "theirs");
        });
        loading.recv_timeout(PATIENCE).unwrap();
        assert!(reads(&gate, || assert_eq!(load(&pages, "k"), "loaded")) > 1, "it waits");
        release.send(()).unwrap();
    });
}
