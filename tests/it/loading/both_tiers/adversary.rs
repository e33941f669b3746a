//! Loads over both tiers that an opponent would begin.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::hash::{Hash, Hasher};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures::executor::block_on;
use larder::{CallOptions, Equivalent, InMemoryRemote, Load, LoadErrorKind, RemoteKey, TieredCache, ToKey};

use super::{Act, HARD, Pages, Process, YEAR, builder, expire, namespace, own, text};
use crate::loading::Script;
use crate::scene::{Gate, eventually, ms, within_patience};
use crate::tiered::gate::{Gate as Passage, Kind};

fn never(_: Load<String>) -> Result<String, ()> {
    unreachable!("nothing is to be loaded")
}

/// A process that finds a value which is stale in the remote tier alone.
fn with_a_stale_value(store: &InMemoryRemote) {
    let writer = Process::new(store, []);
    assert!(writer.pages.insert(own("k"), own("old")).is_through());
    expire(&writer.pages, "k");
}

#[test]
fn a_stale_value_will_do_where_it_is_not_to_be_copied() {
    let store = InMemoryRemote::new();
    with_a_stale_value(&store);
    let a = Process::new(&store, []);
    let options = CallOptions::new().skip_local().no_refresh();
    assert_eq!(a.pages.get_with("k", options).as_deref(), Some("old"));
    assert_eq!(a.pages.get_or_load_with("k", options, never).unwrap(), "old");
    assert_eq!(a.pages.load_with("k", options).unwrap(), "old");
    assert_eq!((a.local("k"), a.script.calls()), (None, 0));
    // As where the local tier has no room.
    let (namespace, _time) = namespace(&store, |namespace| namespace);
    let nothing: TieredCache<String, String> = builder(&namespace).capacity(0).build().unwrap();
    assert_eq!(nothing.get_or_load_with("k", CallOptions::new().no_refresh(), never).unwrap(), "old");
    // What was taken to refresh it is free again.
    let b = Process::new(&store, [Act::Return(2)]);
    assert_eq!(b.load("k"), "old");
    eventually("it is refreshed", || b.local("k").as_deref() == Some("2"));
}

#[test]
fn a_stale_value_of_the_remote_tier_answers_for_a_load_that_hangs() {
    let store = InMemoryRemote::new();
    with_a_stale_value(&store);
    let (namespace, time) = namespace(&store, |namespace| namespace);
    let pages: TieredCache<String, String> = builder(&namespace).stale_if_error(HARD).build().unwrap();
    let began = Gate::new();
    let asked = within_patience("the call", {
        let (began, pages) = (began.clone(), pages.clone());
        move || {
            std::thread::spawn({
                let began = began.clone();
                move || {
                    began.pass();
                    time.advance(HARD);
                }
            });
            let options = CallOptions::new().hard_timeout(HARD);
            block_on(pages.get_or_load_async_with("k", options, |_| {
                began.open();
                pending::<Result<String, ()>>()
            }))
        }
    });
    assert_eq!(asked.unwrap(), "old");
    assert_eq!(pages.stats().load_aborts, 1);
}

/// A key whose first look-up invalidates it, once it has been claimed.
struct Tripping<'p> {
    pages: &'p TieredCache<String, String>,
    tripped: Cell<bool>,
}

impl Hash for Tripping<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "k".hash(state);
    }
}

impl Equivalent<String> for Tripping<'_> {
    fn equivalent(&self, key: &String) -> bool {
        key == "k"
    }
}

impl ToKey<String> for Tripping<'_> {
    fn to_key(&self) -> String {
        own("k")
    }
}

impl RemoteKey for Tripping<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'k');
        if !self.tripped.replace(true) {
            drop(self.pages.remove("k"));
        }
    }
}

#[test]
fn a_key_that_was_invalidated_between_its_two_places_in_a_batch_has_one_value() {
    let store = InMemoryRemote::new();
    let (namespace, _time) = namespace(&store, |namespace| namespace.timeout(ms(100)));
    let pages: TieredCache<String, String> = builder(&namespace).build().unwrap();
    store.offline(true);
    let key = Tripping { pages: &pages, tripped: Cell::new(false) };
    let loaded = pages.get_many_or_load([&key, &key], |batch| {
        Ok::<_, ()>(batch.into_iter().map(|(key, _)| (key, own("v"))).collect())
    });
    assert_eq!(loaded.unwrap(), [Some(own("v")), Some(own("v"))]);
    assert_eq!(pages.local().get("k").as_deref(), Some("v"));
}

#[test]
fn a_read_only_call_waits_no_longer_than_the_hard_timeout_of_its_cache() {
    let store = InMemoryRemote::new();
    let gate = Passage::new(store.clone());
    let (clock, _time) = larder::Clock::manual();
    let look = gate.next_look();
    let namespace = larder::Namespace::builder("ns", gate.clone())
        .timeout(crate::scene::PATIENCE)
        .clock(clock)
        .poll_interval(YEAR / 365)
        .trust(super::TRUST)
        .build()
        .unwrap();
    look.wait();
    namespace.poll_now().unwrap();
    let script = Script::of([Act::Return(1)]);
    let pages: Pages = builder(&namespace).loader(text(&script)).hard_timeout(ms(50)).build().unwrap();
    let stuck = Gate::new();
    gate.rewrite({
        let stuck = stuck.clone();
        move |command, reply| {
            if Kind::of(command) == Kind::Read {
                stuck.pass();
            }
            reply
        }
    });
    let asked = within_patience("the call", move || pages.load_with("k", CallOptions::new().read_only()));
    assert_eq!(asked.unwrap_err().kind(), LoadErrorKind::Absent);
    stuck.open();
}

/// As in a cache of one tier: a future that is kept without being polled has its key for so long as the call says.
#[test]
fn a_load_that_is_polled_no_more_keeps_its_key_for_the_grace_of_its_call() {
    let store = InMemoryRemote::new();
    let a = Process::new(&store, [Act::Return(2)]);
    let options = CallOptions::new().skip_remote().grace(ms(1_000));
    let mut kept = pin!(a.pages.get_or_load_async_with("k", options, |_| pending::<Result<String, ()>>()));
    assert!(kept.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    a.time.advance(ms(999));
    assert!(!a.pages.refresh("k"));
    a.time.advance(ms(1));
    assert_eq!(a.pages.load_with("k", CallOptions::new().skip_remote().hard_timeout(YEAR)).unwrap(), "2");
}

/// Polls a future up to so often, whenever it is woken, and drops it; returns what it came to.
fn polled_at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    block_on(poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(context).map(Some);
        if left == 0 && polled.is_pending() { Poll::Ready(None) } else { polled }
    }))
}

#[test]
fn futures_that_are_dropped_at_any_await_leave_no_key_held_in_either_tier() {
    within_patience("all of them", || {
        for stale in [false, true] {
            for verb in 0..5 {
                for polls in 1.. {
                    let store = InMemoryRemote::new();
                    if stale {
                        with_a_stale_value(&store);
                    }
                    let a = Process::with(&store, [Act::Return(1)], Some(HARD));
                    let loader = async |load: Load<String>| {
                        load.groups(["late"]);
                        Ok::<_, ()>(own("1"))
                    };
                    let options = CallOptions::new().hard_timeout(HARD);
                    let done = match verb {
                        0 => polled_at_most(polls, a.pages.get_or_load_async("k", loader)).is_some(),
                        1 => polled_at_most(polls, a.pages.get_or_load_async_with("k", options, loader)).is_some(),
                        2 => polled_at_most(polls, a.pages.load_async("k")).is_some(),
                        3 => polled_at_most(polls, a.pages.load_many_async(["k", "j"])).is_some(),
                        _ => polled_at_most(polls, a.pages.lookup_async("k")).is_some(),
                    };
                    // In another process first: without a value, it would wait for a lease that was left behind.
                    let b = Process::new(&store, [Act::Return(2)]);
                    let start = std::time::Instant::now();
                    let value = b.load("k");
                    assert!(["1", "2", "old"].contains(&&*value));
                    let value = a.load("k");
                    assert!(["1", "2", "old"].contains(&&*value));
                    assert!(start.elapsed() < ms(4_000), "stale: {stale}, verb {verb}, {polls} polls");
                    if done {
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn a_value_that_dies_while_its_refresh_is_waited_for_is_not_served() {
    let store = InMemoryRemote::new();
    let (namespace, time) = namespace(&store, |namespace| namespace);
    let (began, gate) = (Gate::new(), Gate::new());
    let loader = {
        let (began, gate) = (began.clone(), gate.clone());
        move |_: &String, _: Load<String>| {
            began.open();
            gate.pass();
            Ok::<_, &'static str>(own("new"))
        }
    };
    let builder = TieredCache::builder(&namespace, "pages").capacity(1_000).codec(larder::RawBytes);
    let pages: Pages = builder.soft_ttl(HARD).hard_ttl(HARD * 2).loader(loader).soft_timeout(HARD).build().unwrap();
    let options = CallOptions::new().skip_remote();
    assert!(pages.insert(own("k"), own("old")).is_through());
    time.advance(HARD * 3 / 2);
    let mut asking = pin!(pages.load_with_async("k", options));
    let mut context = Context::from_waker(Waker::noop());
    assert!(asking.as_mut().poll(&mut context).is_pending());
    began.pass();
    time.advance(HARD);
    let polled = asking.as_mut().poll(&mut context);
    assert!(polled.is_pending(), "{polled:?}");
    gate.open();
    assert_eq!(block_on(asking).unwrap(), "new");
}

#[test]
fn loads_that_hang_fail_and_panic_keep_no_caller_and_are_one_at_a_time_among_processes() {
    let store = InMemoryRemote::new();
    let begun = crate::loading::adversary::Begun::default();
    let processes: Vec<Pages> = (0..2)
        .map(|_| {
            let namespace = larder::Namespace::builder("ns", store.clone()).poll_interval(ms(10)).build().unwrap();
            namespace.poll_now().unwrap();
            let begun = begun.clone();
            let loader = move |key: &String, load: Load<String>| {
                begun.load(key.parse().unwrap(), &load).map(|value| value.to_string())
            };
            let pages = TieredCache::builder(&namespace, "pages").capacity(100).codec(larder::RawBytes);
            let pages = pages.soft_ttl(ms(20)).hard_ttl(ms(3_000)).stale_if_error(ms(2)).loader(loader);
            pages.hard_timeout(ms(20)).soft_timeout(ms(3)).load_threads(16).build().unwrap()
        })
        .collect();
    let start = std::time::Instant::now();
    crate::scene::together(6, |thread| {
        let pages = &processes[thread % 2];
        while start.elapsed() < ms(2_000) {
            let key = fastrand::usize(..4).to_string();
            match fastrand::u8(..6) {
                0 => drop(pages.load_many([&*key, "0"])),
                1 => drop(block_on(pages.load_async(&*key))),
                2 => drop(pages.refresh(&*key)),
                _ => drop(pages.load(&*key)),
            }
        }
    });
    begun.assert_one_at_a_time();
}
