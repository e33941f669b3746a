//! What one call asks for beside its cache's settings, and the verbs that a tiered cache has like any other.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use larder::{BoxFuture, Bump, CallOptions, InMemoryRemote, LoadErrorKind, LostTrust};

use super::gate::When;
use super::{Stand, load, own};
use crate::rules::{Pages, Process};
use crate::scene::{PATIENCE, eventually, ms, within_patience};

#[test]
fn a_read_passes_by_the_tier_that_it_is_told_to() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (pages, other) = (stand.process(&name), stand.bystander(&name));
        let (remote, local) = (CallOptions::new().skip_local(), CallOptions::new().skip_remote());
        assert!(pages.insert(own("k"), own("old")).is_through());
        assert!(other.insert(own("k"), own("new")).is_through());
        assert!(other.insert(own("l"), own("1")).is_through());
        // This process has not heard of it yet.
        assert_eq!(pages.get_with("k", local).as_deref(), Some("old"));
        stand.gate.reset();
        assert_eq!(pages.get_with("l", local), None);
        assert_eq!(pages.get_many_with(["k", "l"], local), [Some(own("old")), None]);
        assert!(stand.gate.log().is_empty(), "{}", stand.kind());
        assert_eq!(pages.get_with("k", remote).as_deref(), Some("new"));
        assert_eq!(pages.get_many_with(["l", "k", "none"], remote), [Some(own("1")), Some(own("new")), None]);
        assert_eq!(pages.local().get("k").as_deref(), Some("old"), "nothing is copied");
        assert_eq!(pages.local().get("l"), None, "nothing is copied");
        let both = CallOptions::new().skip_local().skip_remote();
        assert_eq!(pages.get_with("k", both), None);
    }
}

#[test]
fn a_read_only_call_copies_nothing() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "1");
    let read_only = CallOptions::new().read_only();
    for _ in 0..2 {
        assert_eq!(b.pages.get_with("k", read_only).as_deref(), Some("1"));
        assert_eq!(futures::executor::block_on(b.pages.get_with_async("k", read_only)).as_deref(), Some("1"));
        assert_eq!(b.local("k"), None);
    }
    assert_eq!(b.pages.remote_stats().hits_fresh, 4);
    let before = a.wire.log().len();
    assert!(before > 0);
    assert_eq!(a.pages.get_with("k", read_only).as_deref(), Some("1"));
    assert!(a.wire.log().is_empty(), "the local tier has it");
}

#[test]
fn a_read_waits_for_the_remote_tier_no_longer_than_it_is_told_to() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (pages, other) = (stand.process(&name), stand.bystander(&name));
    assert!(other.insert(own("k"), own("1")).is_through());
    assert!(pages.insert(own("here"), own("2")).is_through());
    let soon = CallOptions::new().hard_timeout(ms(20));
    let stalled = |read: &dyn Fn() -> Vec<Option<String>>| {
        stand.gate.reset();
        let (release, released) = mpsc::channel::<()>();
        stand.gate.at(0, When::Before, move || {
            let _ = released.recv_timeout(PATIENCE);
        });
        let before = pages.remote_stats();
        // The store would not answer before this.
        let values = read();
        drop(release);
        assert_eq!(values, [Some(own("2")), None]);
        let seen = pages.remote_stats() - before;
        assert_eq!((seen.misses, seen.errors), (1, 1));
        // What it had claimed is free, and nothing of it is copied late.
        eventually("the key is read", || pages.get("k").as_deref() == Some("1"));
        assert!(pages.remove("k").is_acknowledged());
        assert!(other.insert(own("k"), own("1")).is_through());
    };
    stalled(&|| pages.get_many_with(["here", "k"], soon));
    stalled(&|| vec![pages.get_with("here", soon), pages.get_with("k", soon)]);
    stalled(&|| futures::executor::block_on(pages.get_many_with_async(["here", "k"], soon)));
    // It is no shortcut past a store that answers.
    let calm = CallOptions::new().hard_timeout(PATIENCE);
    assert_eq!(pages.get_with("k", calm).as_deref(), Some("1"));
    assert_eq!(pages.local().get("k").as_deref(), Some("1"));
}

#[test]
fn once_trust_has_lapsed_a_read_of_the_local_tier_says_what_counts() {
    let store = InMemoryRemote::new();
    let start = |lost| Process::with(&store, move |namespace| namespace.on_lost_trust(lost), |pages| pages);
    for (lost, counts) in [(LostTrust::Revalidate, false), (LostTrust::ServeStale, true), (LostTrust::Refuse, false)] {
        let process = start(lost);
        process.insert("k", "1");
        process.lapse();
        process.wire.log();
        let local = CallOptions::new().skip_remote();
        assert_eq!(process.pages.get_with("k", local).is_some(), counts, "{lost:?}");
        assert_eq!(process.pages.peek("k").is_some(), counts, "{lost:?}");
        assert_eq!(process.pages.inspect("k").is_some(), counts, "{lost:?}");
        assert_eq!(process.pages.iter().count(), usize::from(counts), "{lost:?}");
        assert_eq!(process.pages.local().iter().count(), usize::from(counts), "{lost:?}");
        assert!(process.wire.log().is_empty(), "nobody is asked");
        // What this process has loaded since counts, but where nothing does.
        store.offline(true);
        let loaded = process.pages.get_or_load("l", |_| Ok::<_, Infallible>(own("2")));
        assert_eq!(loaded.is_ok(), lost != LostTrust::Refuse);
        assert_eq!(process.pages.get_with("l", local).is_some(), lost != LostTrust::Refuse, "{lost:?}");
        assert_eq!(process.pages.iter().any(|(key, _)| key == "l"), lost != LostTrust::Refuse, "{lost:?}");
        store.offline(false);
    }
}

#[test]
fn the_local_tier_is_measured_and_resized() {
    let store = InMemoryRemote::new();
    let process = Process::with(&store, |namespace| namespace, |pages| pages.capacity(10));
    let pages = &process.pages;
    assert!(pages.is_empty() && pages.capacity() == 10);
    for key in ["a", "b", "c"] {
        process.insert(key, key);
    }
    assert_eq!((pages.len(), pages.weight()), (3, 3));
    assert_eq!(pages.peek("a").as_deref(), Some("a"));
    assert_eq!(pages.inspect("a").unwrap().groups, ["g"]);
    let mut all: Vec<_> = pages.iter().collect();
    all.sort();
    assert_eq!(all, ["a", "b", "c"].map(|key| (own(key), own(key))));
    pages.set_capacity(1);
    assert_eq!((pages.len(), pages.capacity()), (1, 1));
    // The others are in the remote tier yet.
    assert!(["a", "b", "c"].iter().all(|key| process.get(key).as_deref() == Some(*key)));
    process.bump();
    assert_eq!(pages.len(), 1);
    pages.run_maintenance();
    assert!(pages.is_empty());
    assert_eq!(pages.stats().invalidations, 1);
}

#[test]
fn what_is_not_to_be_kept_leaves_both_tiers() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.process(&name), stand.bystander(&name));
        let pairs = (0..600).map(|number| (format!("key {number}"), number.to_string()));
        assert!(a.insert_many(pairs).iter().all(larder::Write::is_through));
        assert!(b.insert(own("of b"), own("odd")).is_through());
        assert_eq!(b.get("key 3").as_deref(), Some("3"));
        let is_even = |_: &String, value: &String| value.parse::<u32>().is_ok_and(|number| number % 2 == 0);
        assert!(a.retain(is_even).is_acknowledged());
        assert_eq!(a.len(), 300, "{}", stand.kind());
        assert_eq!((a.get("key 3"), a.get("key 4").as_deref()), (None, Some("4")));
        b.namespace().poll_now().unwrap();
        assert_eq!((b.get("key 3"), b.get("key 4").as_deref()), (None, Some("4")));
        assert_eq!(a.get("of b").as_deref(), Some("odd"), "nobody can list what the remote tier alone has");
        assert!(futures::executor::block_on(a.retain_async(|key, _| key != "key 4")).is_acknowledged());
        assert_eq!((a.get("key 4"), a.len()), (None, 300));
    }
}

#[test]
fn what_the_remote_tier_did_not_hear_of_is_owed() {
    let store = InMemoryRemote::new();
    let process = Process::new(&store);
    for key in 0..400 {
        process.insert(&key.to_string(), "1");
    }
    store.offline(true);
    let Bump::Pending(receipt) = process.pages.retain(|_, _| false) else { panic!("nothing can be acknowledged") };
    assert!(process.pages.is_empty());
    assert!(!receipt.is_settled());
    assert_eq!(process.namespace().owed(), 400);
    store.offline(false);
    assert!(receipt.wait(PATIENCE));
    assert_eq!(Process::new(&store).get("399"), None);
}

/// Runs what it is handed on tokio, and counts it.
#[derive(Clone)]
struct Spawner(tokio::runtime::Handle, Arc<AtomicUsize>);

impl Spawner {
    fn spawn(&self) -> impl FnOnce(BoxFuture) + use<> {
        let Spawner(runtime, spawned) = self.clone();
        move |load| {
            spawned.fetch_add(1, Ordering::Relaxed);
            drop(runtime.spawn(load));
        }
    }

    fn count(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

/// Runs a test of detached loads on tokio.
fn detached<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Spawner) -> F + Send + 'static) {
    within_patience("the test ends", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let spawner = Spawner(runtime.handle().clone(), Arc::default());
        runtime.block_on(runtime.spawn(test(spawner))).unwrap();
    });
}

async fn brings(value: &str) -> Result<String, &'static str> {
    Ok(own(value))
}

#[test]
fn a_detached_load_outlives_its_caller() {
    detached(|spawner| async move {
        let store = InMemoryRemote::new();
        let (a, b) = (Process::new(&store), Process::new(&store));
        let loaded = a.pages.get_or_load_detached("k", spawner.spawn(), |_| brings("1")).await;
        assert_eq!(loaded.unwrap(), "1");
        assert_eq!(b.get("k").as_deref(), Some("1"), "written through");
        // A stale value at once, while its refresh waits.
        assert!(a.pages.expire_async("k").await.is_acknowledged());
        let is_released = Arc::new(AtomicBool::new(false));
        let released = is_released.clone();
        let refreshes = |load: larder::Load<String>| async move {
            assert_eq!(load.stale().map(String::as_str), Some("1"));
            while !released.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
            brings("2").await
        };
        let served = a.pages.get_or_load_detached("k", spawner.spawn(), refreshes).await;
        assert_eq!(served.unwrap(), "1");
        let served = a.pages.get_or_load_detached("k", spawner.spawn(), |_| brings("never")).await;
        assert_eq!(served.unwrap(), "1");
        assert_eq!(spawner.count(), 2);
        is_released.store(true, Ordering::Release);
        while a.local("k").as_deref() != Some("2") {
            tokio::task::yield_now().await;
        }
        let there = a.pages.get_or_load_detached("k", spawner.spawn(), |_| brings("never")).await;
        assert_eq!((there.unwrap().as_str(), spawner.count()), ("2", 2));
        assert_eq!(Process::new(&store).get("k").as_deref(), Some("2"));
    });
}

#[test]
fn a_detached_load_asks_the_remote_tier_first() {
    detached(|spawner| async move {
        let store = InMemoryRemote::new();
        let (a, b) = (Process::new(&store), Process::new(&store));
        b.insert("k", "of b");
        let found = a.pages.get_or_load_detached("k", spawner.spawn(), |_| async { Err::<String, _>("loaded") }).await;
        assert_eq!(found.unwrap(), "of b");
        assert_eq!(a.local("k").as_deref(), Some("of b"));
        // A stale value from there is the answer too, while it is refreshed.
        assert!(b.pages.expire_async("k").await.is_acknowledged());
        let c = Process::new(&store);
        let served = c.pages.get_or_load_detached("k", spawner.spawn(), |_| brings("new")).await;
        assert_eq!(served.unwrap(), "of b");
        while c.local("k").as_deref() != Some("new") {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_detached_load_that_comes_to_nothing_says_why() {
    detached(|spawner| async move {
        let store = InMemoryRemote::new();
        let a = Process::new(&store);
        let refusing = Process::with(&store, |namespace| namespace.on_lost_trust(LostTrust::Refuse), |pages| pages);
        let failed = a.pages.get_or_load_detached("k", spawner.spawn(), |_| async { Err::<String, _>("no") }).await;
        assert_eq!(failed.unwrap_err().loader(), Some(&"no"));
        let lost = a.pages.get_or_load_detached("k", drop, |_| brings("never")).await;
        assert_eq!(lost.unwrap_err().kind(), LoadErrorKind::Cancelled);
        let panics = |_| async { panic!("the loader") };
        let panicked = a.pages.get_or_load_detached::<_, &str, _, _>("k", spawner.spawn(), panics).await;
        assert_eq!(panicked.unwrap_err().kind(), LoadErrorKind::Panicked);
        // Cut off, it loads all the same.
        a.lapse();
        store.offline(true);
        let loaded = a.pages.get_or_load_detached("k", spawner.spawn(), |_| brings("1")).await;
        assert_eq!(loaded.unwrap(), "1");
        refusing.lapse();
        let refused = refusing.pages.get_or_load_detached("k", spawner.spawn(), |_| brings("never")).await;
        assert_eq!(refused.unwrap_err().kind(), LoadErrorKind::Untrusted);
    });
}

#[test]
fn what_is_made_for_an_absent_key_is_stored_by_futures_as_well() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    futures::executor::block_on(async {
        assert_eq!(a.pages.get_or_insert_with_async("k", || async { own("1") }).await, "1");
        assert_eq!(b.pages.get_or_insert_with_async("k", || async { own("2") }).await, "1");
    });
    // Asked for within its own making, it is made there once more, and returned unstored.
    let nested = futures::executor::block_on(a.pages.get_or_insert_with_async("l", || async {
        let inner = a.pages.get_or_insert_with_async("l", || async { own("inner") }).await;
        inner + " in outer"
    }));
    assert_eq!(nested, "inner in outer");
    assert_eq!(b.get("l").as_deref(), Some("inner in outer"));
}

/// Each is what it says: of the local tier's own counters, and of the remote tier's.
#[test]
fn a_lookup_counts_once_for_its_user() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (pages, other) = (stand.process(&name), stand.bystander(&name));
    assert_eq!(load(&other, "k", "1", &[]), "1");
    let counted = |call: &dyn Fn(&Pages)| {
        let (local, remote) = (pages.stats(), pages.remote_stats());
        call(&pages);
        let (local, remote) = (pages.stats() - local, pages.remote_stats() - remote);
        (local.hits(), local.misses, remote.hits_fresh + remote.hits_stale, remote.misses)
    };
    assert_eq!(counted(&|pages| drop(pages.lookup("none"))), (0, 1, 0, 1));
    assert_eq!(counted(&|pages| drop(pages.lookup("k"))), (0, 1, 1, 0));
    assert_eq!(counted(&|pages| drop(pages.lookup("k"))), (1, 0, 0, 0));
    let remote = CallOptions::new().skip_local();
    assert_eq!(counted(&|pages| drop(pages.lookup_with("k", remote))), (0, 0, 1, 0));
    assert_eq!(counted(&|pages| drop(pages.get_with("k", remote))), (0, 0, 1, 0));
    let local = CallOptions::new().skip_remote();
    assert_eq!(counted(&|pages| drop(pages.lookup_with("none", local))), (0, 1, 0, 0));
    assert_eq!(counted(&|pages| drop(pages.peek("k"))), (0, 0, 0, 0));
    assert_eq!(counted(&|pages| drop(pages.inspect("k"))), (0, 0, 0, 0));
    assert_eq!(counted(&|pages| drop(pages.iter().collect::<Vec<_>>())), (0, 0, 0, 0));
}
