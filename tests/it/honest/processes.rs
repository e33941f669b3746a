//! One load for all processes, and no more exchanges than it takes.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder::InMemoryRemote;

use super::in_store;
use crate::rules::{Process, own};
use crate::scene::{Gate, eventually};
use crate::tiered::gate::Kind;

#[test]
fn a_cold_key_is_loaded_by_one_process() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let loading = Gate::new();
    std::thread::scope(|scope| {
        let load = || a.load_after("k", "of a", || loading.pass());
        let first = scope.spawn(load);
        loading.reached();
        b.wire.log();
        let second = scope.spawn(|| b.load_after("k", "of b", || panic!("a second load")));
        // It has asked, and asks again.
        let asked = Cell::new(0);
        eventually("the other process waits", || {
            asked.set(asked.get() + b.wire.log().len());
            asked.get() > 1
        });
        loading.open();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (own("of a"), own("of a")));
    });
}

#[test]
fn a_stale_value_has_one_refresher_and_the_others_are_served_at_once() {
    for b_has_it in [false, true] {
        let store = InMemoryRemote::new();
        let (a, b) = (Process::new(&store), Process::new(&store));
        a.insert("k", "old");
        if b_has_it {
            assert_eq!(b.get("k").as_deref(), Some("old"));
        }
        assert!(a.namespace().expire_group("g").is_acknowledged());
        b.look();
        let loads = AtomicUsize::new(0);
        let refreshed = a.load_after("k", "new", || {
            loads.fetch_add(1, Ordering::Relaxed);
            // While the refresher is at it: nobody else can end what this waits for.
            let served = b.load_after("k", "of b", || panic!("a second refresher"));
            assert_eq!(served, "old", "b has a copy: {b_has_it}");
        });
        assert_eq!((refreshed.as_str(), loads.into_inner()), ("new", 1));
        assert_eq!(in_store(&store, "k").as_deref(), Some("new"));
    }
}

#[test]
fn a_batch_of_loads_takes_as_many_exchanges_as_one() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    b.insert("there", "of b");
    // The tokens of the roots are known from here on, and the journal.
    a.look();
    assert_eq!(a.get("there").as_deref(), Some("of b"));
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let found = ["key 7", "key 70"];
    found.iter().for_each(|key| b.insert(key, "of b"));
    a.look();
    a.wire.log();
    let mut loads = 0;
    let values = a.pages.get_many_or_load(keys.iter().map(String::as_str), |batch| {
        loads += 1;
        Ok::<_, Infallible>(batch.keys().map(|key| (key.clone(), format!("value of {key}"))).collect())
    });
    let values = values.unwrap();
    for (key, value) in keys.iter().zip(&values) {
        let expected = if found.contains(&key.as_str()) { own("of b") } else { format!("value of {key}") };
        assert_eq!(value.as_ref(), Some(&expected));
    }
    assert_eq!(loads, 1);
    let mut log = a.wire.log();
    log.iter_mut().for_each(Vec::dedup);
    assert_eq!(log, [[Kind::Read], [Kind::Write]]);
    assert_eq!(in_store(&store, "key 99").as_deref(), Some("value of key 99"));
}
