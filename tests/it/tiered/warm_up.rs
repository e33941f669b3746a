//! Warming the local tier up, from an iterator and from the remote tier.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use larder::{EntryOptions, InMemoryRemote, LostTrust, Namespace};

use super::gate::{Kind, When};
use super::{HOUR, Stand, own, pages, process};
use crate::rules::{Pages, Process};

fn pairs(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|number| (format!("key {number}"), number.to_string()))
}

fn keys(count: usize) -> Vec<String> {
    pairs(count).map(|(key, _)| key).collect()
}

/// Nothing that a user did.
fn nothing_counted(pages: &Pages) {
    let (local, remote) = (pages.stats(), pages.remote_stats());
    assert_eq!((local.hits(), local.misses), (0, 0));
    assert_eq!((remote.hits_fresh, remote.hits_stale, remote.misses, remote.stores), (0, 0, 0, 0));
}

#[test]
fn what_is_warmed_up_stays_in_this_process() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.wire.log();
    assert_eq!(a.pages.warm_up(pairs(3)), 3);
    assert_eq!(futures::executor::block_on(a.pages.warm_up_async(pairs(4))), 1);
    assert_eq!(a.wire.log(), Vec::<Vec<Kind>>::new(), "nothing is sent");
    nothing_counted(&a.pages);
    assert_eq!(a.local("key 1").as_deref(), Some("1"));
    assert_eq!((b.get("key 1"), Process::new(&store).get("key 1")), (None, None));
}

#[test]
fn news_reach_what_is_warmed_up() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let in_group = |(key, value)| (key, value, EntryOptions::new().groups(["g"]));
    assert_eq!(a.pages.warm_up_with(pairs(4).map(in_group)), 4);
    b.remove("key 0");
    b.insert("key 1", "newer");
    assert!(b.pages.expire("key 2").is_acknowledged());
    a.look();
    assert_eq!(a.local("key 0"), None);
    assert_eq!(a.get("key 1").as_deref(), Some("newer"));
    assert!(a.pages.inspect("key 2").unwrap().soft_in.unwrap().is_zero(), "stale");
    assert_eq!(a.local("key 3").as_deref(), Some("3"));
    b.bump();
    a.look();
    assert_eq!(a.local("key 3"), None);
}

/// Another process removes the key when its value is there already, and before the index of news knows of it: between the two,
/// the listener is told of a dead one that was found in passing.
#[test]
fn news_that_come_a_moment_after_a_value_is_stored_take_it_along() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let itself: Arc<OnceLock<super::Pages>> = Arc::default();
    let listener = {
        let (itself, other, done) = (itself.clone(), stand.bystander(&name), AtomicBool::new(false));
        move |_: &String, _: &String, _| {
            let Some(pages) = itself.get().filter(|_| !done.swap(true, Ordering::SeqCst)) else { return };
            assert_eq!(pages.local().get("k").as_deref(), Some("old"), "it is stored");
            assert!(other.remove("k").is_acknowledged());
            pages.namespace().poll_now().unwrap();
        }
    };
    let pages = process(&name, stand.gate.clone(), |pages| pages.shards(1).on_removal(listener));
    assert_eq!(pages.warm_up_with([(own("dead"), own("1"), EntryOptions::new().groups(["g"]))]), 1);
    assert!(pages.invalidate_group("g").is_acknowledged());
    itself.set(pages.clone()).unwrap();
    assert_eq!(pages.warm_up([(own("k"), own("old"))]), 0);
    assert_eq!((pages.local().get("k"), pages.get("k")), (None, None));
}

/// The first look at the journal voids what was there before it.
#[test]
fn a_process_that_warms_up_at_once_keeps_what_it_has() {
    let store = InMemoryRemote::new();
    for _ in 0..20 {
        let namespace = Namespace::builder("fresh", store.clone()).version("1").trust(2 * HOUR).poll_interval(HOUR);
        let namespace = namespace.build().unwrap();
        let pages = pages(&namespace, |pages| pages);
        assert_eq!(pages.warm_up(pairs(3)), 3);
        namespace.poll_now().unwrap();
        assert_eq!(pages.local().get("key 2").as_deref(), Some("2"));
    }
}

#[test]
fn keys_are_read_from_the_remote_tier_in_batches() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let writer = stand.bystander(&name);
        assert!(writer.insert_many(pairs(600)).iter().all(larder::Write::is_through));
        let reader = stand.process(&name);
        let wanted = keys(700);
        reader.warm_up(pairs(1));
        stand.gate.reset();
        assert_eq!(reader.warm_up_from_remote(wanted.iter().map(String::as_str)), 599, "{}", stand.kind());
        let reads = |exchange: &Vec<Kind>| exchange.iter().filter(|kind| **kind == Kind::Read).count();
        let asked: Vec<usize> = stand.gate.log().iter().map(reads).filter(|reads| *reads > 0).collect();
        assert_eq!(asked.iter().sum::<usize>(), 699, "what is there is not asked for");
        assert!(asked.iter().all(|reads| *reads <= 256), "{asked:?}");
        nothing_counted(&reader);
        assert_eq!(reader.len(), 600);
        assert_eq!(reader.local().get("key 599").as_deref(), Some("599"));
        stand.gate.reset();
        assert_eq!(futures::executor::block_on(reader.warm_up_from_remote_async(["key 3", "none"])), 0);
        assert_eq!(stand.gate.log(), [[Kind::Read]]);
        // As any copy, it goes with its key.
        assert!(writer.remove("key 3").is_acknowledged());
        reader.namespace().poll_now().unwrap();
        assert_eq!(reader.local().get("key 3"), None);
    }
}

#[test]
fn a_copy_that_is_overtaken_is_not_kept() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (reader, writer) = (stand.process(&name), stand.bystander(&name));
        let options = || EntryOptions::new().groups(["g"]);
        for key in ["removed", "bumped"] {
            assert!(writer.insert_with(own(key), own("old"), options()).is_through());
        }
        assert!(writer.insert(own("kept"), own("1")).is_through());
        // Of what is heard later, the removal below would hear as well, and void all copies.
        reader.namespace().poll_now().unwrap();
        stand.gate.reset();
        let here = reader.clone();
        // In this process, between the answer and the copy. On another thread, whose own calls are not part of this one.
        stand.gate.at(0, When::After, move || {
            let ends = thread::spawn(move || {
                assert!(here.remove("removed").is_acknowledged());
                assert!(here.invalidate_group("g").is_acknowledged());
            });
            ends.join().unwrap();
        });
        assert_eq!(reader.warm_up_from_remote(["removed", "bumped", "kept"]), 1, "{}", stand.kind());
        let local = ["removed", "bumped", "kept"].map(|key| reader.local().get(key));
        assert_eq!(local, [None, None, Some(own("1"))]);
    }
}

#[test]
fn what_is_read_from_the_remote_tier_evicts_nothing() {
    let stand = Stand::memory();
    let name = stand.fresh();
    assert!(stand.bystander(&name).insert_many(pairs(40)).iter().all(larder::Write::is_through));
    let small = process(&name, stand.gate.ungated(), |pages| pages.capacity(10));
    assert_eq!(small.warm_up([(own("hot"), own("1"))]), 1);
    let wanted = keys(40);
    assert_eq!(small.warm_up_from_remote(wanted.iter().map(String::as_str)), 9);
    assert_eq!((small.weight(), small.stats().evictions), (10, 0));
    assert_eq!(small.local().get("hot").as_deref(), Some("1"));
    // The keys that it had claimed are free.
    assert_eq!(small.get("key 39").as_deref(), Some("39"));
    let none = process(&name, stand.gate.ungated(), |pages| pages.capacity(0));
    assert_eq!(none.warm_up_from_remote(wanted.iter().map(String::as_str)), 0);
}

#[test]
fn a_stale_value_is_copied_as_such() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    assert!(a.pages.expire("k").is_acknowledged());
    assert_eq!(b.pages.warm_up_from_remote(["k"]), 1);
    let refreshed = b.pages.get_or_load("k", |load| {
        assert_eq!(load.stale().map(String::as_str), Some("old"));
        Ok::<_, ()>(own("new"))
    });
    assert_eq!(refreshed.unwrap(), "new");
}

#[test]
fn without_the_remote_tier_nothing_is_copied() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let memory = stand.memory.clone().unwrap();
    let reader = stand.process(&name);
    memory.offline(true);
    stand.gate.reset();
    let wanted = keys(1_000);
    assert_eq!(reader.warm_up_from_remote(wanted.iter().map(String::as_str)), 0);
    assert_eq!(stand.gate.log().len(), 1, "it does not go on");
    assert_eq!(reader.remote_stats().errors, 256, "one for each key that was asked about");
    memory.offline(false);
    assert!(stand.bystander(&name).insert(own("key 0"), own("0")).is_through());
    assert_eq!(reader.warm_up_from_remote(["key 0"]), 1, "the key is free");
}

/// Nobody knows when it was read.
#[test]
fn what_is_warmed_up_is_not_vouched_for() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    a.lapse();
    store.offline(true);
    assert_eq!(a.pages.warm_up(pairs(1)), 1);
    assert_eq!(a.local("key 0"), None);
    store.offline(false);
    assert_eq!(a.get("key 0").as_deref(), Some("0"), "once this process knows what others have done");
}

#[test]
fn while_trust_has_lapsed_nothing_is_copied() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store);
    let refusing = Process::with(&store, |namespace| namespace.on_lost_trust(LostTrust::Refuse), |pages| pages);
    a.insert("k", "1");
    refusing.lapse();
    store.offline(true);
    assert_eq!(refusing.pages.warm_up_from_remote(["k"]), 0);
    store.offline(false);
    assert_eq!(refusing.pages.warm_up_from_remote(["k"]), 1, "a look at the journal restores it");
}
