//! Registered loaders over both tiers, in several processes on one store.

mod adversary;

use std::future::pending;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use larder::{
    Batch, CallOptions, Clock, InMemoryRemote, Load, LoadErrorKind, LoadingTieredCache, LostTrust, ManualClock,
    Namespace, NamespaceBuilder, RawBytes, TieredCache, TieredCacheBuilder,
};

use super::{Act, HARD, RETRY_AFTER, Script};
use crate::scene::{Gate, PATIENCE, eventually, ms, together};
use crate::tiered::gate::Gate as Passage;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Longer than all that a test moves a clock by while it waits for something.
const TRUST: Duration = YEAR.saturating_mul(100);

type Pages = LoadingTieredCache<String, String, &'static str>;
type Builder = TieredCacheBuilder<String, String>;

/// One of the processes of a test, which looks at the journal only when it says so.
struct Process {
    pages: Pages,
    time: ManualClock,
    script: Script,
}

fn namespace(
    store: &InMemoryRemote,
    set: impl FnOnce(NamespaceBuilder) -> NamespaceBuilder,
) -> (Namespace, ManualClock) {
    let (clock, time) = Clock::manual();
    let gate = Passage::new(store.clone());
    let look = gate.next_look();
    let builder = Namespace::builder("ns", gate).timeout(PATIENCE).clock(clock);
    let namespace = set(builder.poll_interval(YEAR / 365).trust(TRUST)).build().unwrap();
    // What the thread that follows the journal reads later would be news of what the test has done.
    look.wait();
    namespace.poll_now().unwrap();
    (namespace, time)
}

fn builder(namespace: &Namespace) -> Builder {
    TieredCache::builder(namespace, "pages").capacity(1_000).soft_ttl(YEAR * 1_000).grace(YEAR).codec(RawBytes)
}

/// Returns a loader of what the script says, in text.
fn text(script: &Script) -> impl Fn(&String, Load<String>) -> Result<String, &'static str> + Send + Sync + 'static {
    let script = script.clone();
    move |_: &String, _: Load<String>| script.play().map(|number| number.to_string())
}

impl Process {
    fn new(store: &InMemoryRemote, acts: impl IntoIterator<Item = Act>) -> Process {
        Process::with(store, acts, None)
    }

    fn with(store: &InMemoryRemote, acts: impl IntoIterator<Item = Act>, hard_timeout: Option<Duration>) -> Process {
        let (namespace, time) = namespace(store, |namespace| namespace);
        let script = Script::of(acts);
        let loading = builder(&namespace).loader(text(&script));
        let loading = match hard_timeout {
            Some(timeout) => loading.hard_timeout(timeout),
            None => loading,
        };
        Process { pages: loading.build().unwrap(), time, script }
    }

    fn load(&self, key: &str) -> String {
        self.pages.load(key).unwrap()
    }

    fn local(&self, key: &str) -> Option<String> {
        self.pages.local().get(key)
    }
}

fn own(text: &str) -> String {
    text.to_owned()
}

/// Makes a value stale in both tiers, and hears of it: a load that hears of it later would be fenced.
fn expire(pages: &Pages, key: &str) {
    assert!(pages.expire(key).is_acknowledged());
    pages.namespace().poll_now().unwrap();
}

/// Returns what a process finds that starts now: what the store has.
fn in_store(store: &InMemoryRemote, key: &str) -> Option<String> {
    let (namespace, _time) = namespace(store, |namespace| namespace);
    builder(&namespace).build().unwrap().get(key)
}

#[test]
fn what_another_process_has_loaded_is_not_loaded_again() {
    for hard_timeout in [None, Some(HARD)] {
        let store = InMemoryRemote::new();
        let [a, b] = [1, 2].map(|value| Process::with(&store, [Act::Return(value)], hard_timeout));
        assert_eq!((a.load("k"), b.load("k")), (own("1"), own("1")));
        assert_eq!((a.script.calls(), b.script.calls()), (1, 0));
        assert_eq!(b.local("k").as_deref(), Some("1"), "it is copied");
        assert_eq!(block_on(b.pages.load_async("j")).unwrap(), "2");
        assert_eq!(block_on(a.pages.load_async("j")).unwrap(), "2");
        assert_eq!((a.script.calls(), b.script.calls()), (1, 1));
    }
}

#[test]
fn what_another_process_has_refreshed_is_not_loaded_again() {
    let store = InMemoryRemote::new();
    let [a, b] = [1, 2].map(|value| Process::new(&store, [Act::Return(value)]));
    assert!(a.pages.insert(own("k"), own("old")).is_through());
    expire(&a.pages, "k");
    // Stale in the remote tier alone: it is copied and served, and refreshed in the background.
    assert_eq!(b.load("k"), "old");
    eventually("it is refreshed", || b.local("k").as_deref() == Some("2"));
    assert_eq!(a.load("k"), "old");
    eventually("the refresh of the other process is found", || a.local("k").as_deref() == Some("2"));
    assert_eq!((a.script.calls(), b.script.calls()), (0, 1));
    assert_eq!((a.pages.stats().refreshes, b.pages.stats().refreshes), (1, 1));
}

#[test]
fn a_stale_value_is_refreshed_by_one_process_and_served_by_all() {
    let store = InMemoryRemote::new();
    let gate = Gate::new();
    let a = Process::new(&store, [Act::Hang(gate.clone(), 1)]);
    let b = Process::new(&store, [Act::Return(2)]);
    assert!(a.pages.insert(own("k"), own("old")).is_through());
    expire(&a.pages, "k");
    assert_eq!(a.load("k"), "old");
    gate.reached();
    assert_eq!((a.load("k"), b.load("k"), b.load("k")), (own("old"), own("old"), own("old")));
    gate.open();
    eventually("the refresh ends", || a.local("k").as_deref() == Some("1"));
    eventually("the other process finds it", || {
        b.time.advance(ms(100));
        b.load("k") == "1"
    });
    assert_eq!((a.script.calls(), b.script.calls()), (1, 0));
}

#[test]
fn a_hundred_callers_of_two_processes_share_one_load() {
    for hard_timeout in [None, Some(HARD)] {
        let store = InMemoryRemote::new();
        let gate = Gate::new();
        let [a, b] = [1, 2].map(|_| Process::with(&store, [Act::Hang(gate.clone(), 7)], hard_timeout));
        let answers = thread::scope(|scope| {
            scope.spawn(|| {
                gate.reached();
                let waits = || a.pages.stats().load_waits + b.pages.stats().load_waits;
                eventually("all but the two that ask for the others wait", || waits() == 98);
                gate.open();
            });
            together(100, |caller| if caller % 2 == 0 { a.load("k") } else { b.load("k") })
        });
        assert!(answers.iter().all(|answer| answer == "7"));
        assert_eq!(a.script.calls() + b.script.calls(), 1);
    }
}

#[test]
fn the_lease_of_a_load_that_hangs_is_given_back_at_once() {
    let store = InMemoryRemote::new();
    let gate = Gate::new();
    let a = Process::with(&store, [Act::Hang(gate.clone(), 1), Act::Return(3)], Some(HARD));
    let b = Process::new(&store, [Act::Return(2)]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| a.pages.load("k"));
        gate.reached();
        a.time.advance(HARD);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    });
    assert_eq!(a.pages.stats().load_aborts, 1);
    assert_eq!(b.load("k"), "2");
    // A caller that waited for the lease in vain would not have written it.
    assert_eq!(in_store(&store, "k").as_deref(), Some("2"));
    gate.open();
    assert_eq!(a.load("j"), "3", "another thread is there, and the next load of the key is free");
    assert_eq!((a.load("k"), in_store(&store, "k").as_deref()), (own("2"), Some("2")), "the late one is nowhere");
}

#[test]
fn the_claim_of_a_refresh_that_hangs_is_given_back_though_nobody_waits() {
    let store = InMemoryRemote::new();
    let gate = Gate::new();
    let a = Process::with(&store, [Act::Hang(gate.clone(), 1)], Some(HARD));
    let b = Process::new(&store, [Act::Return(2)]);
    assert!(a.pages.insert(own("k"), own("old")).is_through());
    expire(&a.pages, "k");
    assert_eq!(a.load("k"), "old");
    gate.reached();
    a.time.advance(HARD);
    assert_eq!(a.pages.stats().load_aborts, 1);
    assert_eq!(b.load("k"), "old");
    eventually("another process refreshes it", || {
        // It may have come a moment before the claim was back.
        b.time.advance(ms(100));
        b.load("k") == "2"
    });
    assert_eq!((a.load("k"), a.script.calls()), (own("old"), 1), "put off");
    a.time.advance(RETRY_AFTER);
    eventually("it finds what the other has loaded", || a.load("k") == "2");
    gate.open();
}

#[test]
fn a_future_that_hangs_is_dropped_and_its_lease_given_back() {
    let store = InMemoryRemote::new();
    let (namespace, time) = namespace(&store, |namespace| namespace);
    let (began, held) = (Gate::new(), Arc::new(()));
    let loader = {
        let (began, held) = (began.clone(), held.clone());
        move |_: String, _: Load<String>| {
            let held = held.clone();
            began.open();
            async move {
                pending::<()>().await;
                drop(held);
                Ok::<_, &str>(own("never"))
            }
        }
    };
    let a: Pages = builder(&namespace).async_loader(loader).hard_timeout(HARD).build().unwrap();
    let b = Process::new(&store, [Act::Return(2)]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| a.load("k"));
        began.pass();
        time.advance(HARD);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    });
    assert_eq!((b.load("k"), in_store(&store, "k").as_deref()), (own("2"), Some("2")));
    eventually("the future is dropped", || Arc::strong_count(&held) == 2);
}

#[test]
fn a_failure_or_a_panic_leaves_the_stale_value_in_service() {
    for act in [Act::Fail("down"), Act::Panic] {
        let store = InMemoryRemote::new();
        let (namespace, time) = namespace(&store, |namespace| namespace);
        let script = Script::of([act, Act::Return(2)]);
        let pages: Pages = builder(&namespace).loader(text(&script)).soft_timeout(HARD).build().unwrap();
        assert!(pages.insert(own("k"), own("old")).is_through());
        expire(&pages, "k");
        assert_eq!((pages.load("k").unwrap(), pages.load("k").unwrap(), script.calls()), (own("old"), own("old"), 1));
        assert_eq!(pages.stats().load_failures, 1);
        time.advance(RETRY_AFTER);
        assert_eq!(pages.load("k").unwrap(), "2", "its claim is free in both tiers");
    }
}

#[test]
fn errors_of_a_load_without_value_are_the_callers() {
    let store = InMemoryRemote::new();
    for hard_timeout in [None, Some(HARD)] {
        let a = Process::with(&store, [Act::Fail("down"), Act::Return(1)], hard_timeout);
        assert_eq!(a.pages.load("k").unwrap_err().loader(), Some(&"down"));
        assert_eq!(a.load("k"), "1");
        assert!(a.pages.remove("k").is_acknowledged());
    }
}

#[test]
fn batches_are_what_neither_tier_has() {
    for hard_timeout in [None, Some(HARD)] {
        let store = InMemoryRemote::new();
        let (namespace, _time) = namespace(&store, |namespace| namespace);
        let gate = Gate::new();
        gate.open();
        let loader = {
            let gate = gate.clone();
            move |batch: Batch<String, String>| {
                gate.pass();
                let known = batch.keys().filter(|key| *key != "none");
                Ok::<_, &str>(known.map(|key| (key.clone(), format!("{} of {}", key, batch.len()))).collect())
            }
        };
        let loading = builder(&namespace).batch_loader(loader);
        let loading = match hard_timeout {
            Some(timeout) => loading.hard_timeout(timeout),
            None => loading,
        };
        let pages: Pages = loading.build().unwrap();
        let other = Process::new(&store, []);
        assert!(other.pages.insert(own("remote"), own("theirs")).is_through());
        assert!(pages.insert(own("stale"), own("ours")).is_through());
        expire(&pages, "stale");
        let loaded = pages.load_many(["stale", "remote", "a", "b", "a", "none"]).unwrap();
        let expected = [Some("ours"), Some("theirs"), Some("a of 3"), Some("b of 3"), Some("a of 3"), None];
        assert_eq!(loaded, expected.map(|value| value.map(own)));
        eventually("the stale one is refreshed", || pages.local().get("stale").as_deref() == Some("stale of 1"));
        assert_eq!(in_store(&store, "a").as_deref(), Some("a of 3"));
        assert_eq!(pages.load("none").unwrap_err().kind(), LoadErrorKind::Absent);
        assert_eq!(pages.load("c").unwrap(), "c of 1");

        let third = Process::new(&store, []);
        let before = pages.stats();
        assert!(third.pages.insert(own("theirs"), own("theirs")).is_through());
        assert_eq!(pages.warm_up(["a", "theirs", "d", "none"]).unwrap(), 2);
        let since = pages.stats() - before;
        assert_eq!((since.hits(), since.misses), (0, 0));
    }
}

#[test]
fn a_refresh_on_demand_replaces_what_is_fresh_in_both_tiers() {
    let store = InMemoryRemote::new();
    let (namespace, _time) = namespace(&store, |namespace| namespace);
    let script = Script::of([Act::Return(2)]);
    // With a soft deadline, and with none at all.
    let never = TieredCache::builder(&namespace, "never").capacity(10).codec(RawBytes).loader(text(&script));
    let usual = builder(&namespace).loader(text(&script));
    for pages in [usual.build().unwrap(), never.build().unwrap()] {
        assert!(pages.insert(own("k"), own("old")).is_through());
        assert!(pages.refresh("k"));
        eventually("it is replaced", || pages.local().get("k").as_deref() == Some("2"));
    }
    assert_eq!(script.calls(), 2);
}

#[test]
fn loads_go_on_while_the_store_is_away_and_trust_is_over() {
    for hard_timeout in [None, Some(HARD)] {
        let store = InMemoryRemote::new();
        let a = Process::with(&store, [Act::Return(1), Act::Return(2)], hard_timeout);
        assert_eq!(a.load("k"), "1");
        store.offline(true);
        a.time.advance(TRUST);
        assert_eq!(a.load("k"), "2", "nothing is known of the one that is there");
        assert_eq!((a.load("k"), a.load("k"), a.script.calls()), (own("2"), own("2"), 2));
        store.offline(false);
        eventually("the store is there again", || a.pages.namespace().poll_now().is_ok());
        assert_eq!((a.load("k"), a.load("j"), a.script.calls()), (own("2"), own("2"), 3));
        assert_eq!(in_store(&store, "j").as_deref(), Some("2"), "it is written through again");
    }
}

#[test]
fn without_trust_a_cache_may_refuse() {
    let store = InMemoryRemote::new();
    let (namespace, time) = namespace(&store, |namespace| namespace.on_lost_trust(LostTrust::Refuse));
    let pages: Pages = builder(&namespace).loader(text(&Script::of([Act::Return(1)]))).build().unwrap();
    assert_eq!(pages.load("k").unwrap(), "1");
    store.offline(true);
    time.advance(TRUST);
    assert_eq!(pages.load("k").unwrap_err().kind(), LoadErrorKind::Untrusted);
    assert_eq!(pages.load_many(["k"]).unwrap_err().kind(), LoadErrorKind::Untrusted);
    let skipping = CallOptions::new().skip_remote();
    assert_eq!(pages.load_with("k", skipping).unwrap_err().kind(), LoadErrorKind::Untrusted);
}

#[test]
fn calls_pass_one_of_the_tiers_by_or_change_neither() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store, [Act::Return(1)]);
    let pages: &TieredCache<String, String> = &a.pages;
    let options = CallOptions::new;
    let never = |_| -> Result<String, ()> { unreachable!("nothing is to be loaded") };

    assert_eq!(a.pages.load_with("l", options().skip_local()).unwrap(), "1");
    assert_eq!((a.local("l"), in_store(&store, "l").as_deref()), (None, Some("1")));
    assert_eq!(pages.get_or_load_with("l", options().skip_local(), never).unwrap(), "1");
    assert_eq!(a.local("l"), None);
    let loaded = pages.get_or_load_with("l2", options().skip_local(), |_| Ok::<_, ()>(own("2")));
    assert_eq!((loaded.unwrap(), a.local("l2"), in_store(&store, "l2").as_deref()), (own("2"), None, Some("2")));

    assert_eq!(a.pages.load_with("r", options().skip_remote()).unwrap(), "1");
    assert_eq!((a.local("r").as_deref(), in_store(&store, "r")), (Some("1"), None));
    let loaded = block_on(pages.get_or_load_async_with("r2", options().skip_remote(), async |_| Ok::<_, ()>(own("2"))));
    assert_eq!((loaded.unwrap(), a.local("r2").as_deref(), in_store(&store, "r2")), (own("2"), Some("2"), None));

    let absent = a.pages.load_with("n", options().read_only()).unwrap_err();
    assert_eq!(absent.kind(), LoadErrorKind::Absent);
    assert_eq!(pages.get_or_load_with("n", options().read_only(), never).unwrap_err().kind(), LoadErrorKind::Absent);
    assert_eq!(pages.get_or_load_with("l", options().read_only(), never).unwrap(), "1");
    assert_eq!(a.local("l"), None, "nothing is copied");

    assert!(Process::new(&store, []).pages.insert(own("s"), own("old")).is_through());
    expire(&Process::new(&store, []).pages, "s");
    let calls = a.script.calls();
    assert_eq!(a.pages.load_with("s", options().no_refresh()).unwrap(), "old");
    assert_eq!(pages.get_or_load_with("s", options().no_refresh(), never).unwrap(), "old");
    assert_eq!(a.script.calls(), calls);
    // The claim that came with it is free: another process refreshes it.
    let b = Process::new(&store, [Act::Return(9)]);
    eventually("another process refreshes it", || {
        b.time.advance(ms(100));
        b.load("s") == "9"
    });
}

#[test]
fn the_hard_timeout_of_a_call_gives_up_its_own_future() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store, [Act::Return(1)]);
    let b = Process::new(&store, [Act::Return(2)]);
    thread::scope(|scope| {
        let began = Gate::new();
        let asking = scope.spawn({
            let (pages, began) = (&a.pages, began.clone());
            move || {
                let options = CallOptions::new().hard_timeout(HARD);
                block_on(pages.get_or_load_async_with("k", options, |_| {
                    began.open();
                    pending::<Result<String, ()>>()
                }))
            }
        });
        began.pass();
        let joined = scope.spawn(|| a.pages.load("k"));
        eventually("it waits", || a.pages.stats().load_waits == 1);
        a.time.advance(HARD);
        assert_eq!(asking.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
        assert_eq!(joined.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    });
    assert_eq!((b.load("k"), in_store(&store, "k").as_deref()), (own("2"), Some("2")), "its lease is given back");
}

#[test]
fn a_caller_leaves_an_exchange_that_hangs_at_its_hard_timeout() {
    let store = InMemoryRemote::new();
    // Another process holds the lease, and is asked again and again.
    let gate = Gate::new();
    let a = Process::new(&store, [Act::Hang(gate.clone(), 1)]);
    let b = Process::with(&store, [Act::Return(2)], Some(HARD));
    thread::scope(|scope| {
        let holder = scope.spawn(|| a.load("k"));
        gate.reached();
        let asking = scope.spawn(|| b.pages.load("k"));
        eventually("it asks", || b.pages.remote_stats().misses > 0);
        eventually("it leaves", || {
            b.time.advance(HARD);
            asking.is_finished()
        });
        assert_eq!(asking.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
        assert_eq!(b.script.calls(), 0);
        gate.open();
        assert_eq!(holder.join().unwrap(), "1");
    });
    assert_eq!(b.load("k"), "1", "the key is free here");
}
