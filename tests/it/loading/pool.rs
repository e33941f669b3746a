//! The cache's own threads: how many loads they take, and how they end.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use larder::{Load, LoadErrorKind, LoadingCache};

use super::{Act, HARD, Numbers, SOFT_TTL, Script};
use crate::scene::{Gate, eventually, roomy, within_patience};

/// As the documentation says.
const MAX_LOADS: u32 = 4_096;

#[test]
fn too_many_loads_are_not_begun() {
    let gate = Gate::new();
    let script = Script::of([Act::Hang(gate.clone(), 0), Act::Return(0)]);
    let (builder, time) = roomy();
    let builder = builder.soft_ttl(SOFT_TTL).loader(script.loader());
    let cache: Numbers = builder.hard_timeout(HARD).load_threads(1).build().unwrap();
    let keys = MAX_LOADS + 10;
    (1..=keys).for_each(|key| cache.insert(key, key).unwrap());
    time.advance(SOFT_TTL);
    assert!((1..=keys).all(|key| cache.load(&key).unwrap() == key), "all are served what they have");
    let stats = cache.stats();
    assert_eq!((stats.refreshes, stats.refresh_overflows), (u64::from(MAX_LOADS), 10));
    assert!(!cache.refresh(&keys));
    assert_eq!(cache.load(&0).unwrap_err().kind(), LoadErrorKind::Overloaded);
    assert_eq!(cache.load_many(&[0, keys + 1]).unwrap_err().kind(), LoadErrorKind::Overloaded);
    gate.open();
    eventually("there is room again", || cache.load(&0).is_ok_and(|value| value == 0));
    eventually("the claims of those that were not begun are free", || {
        (1..=keys).all(|key| cache.load(&key).unwrap() == 0)
    });
}

#[test]
fn at_most_so_many_loads_run_at_once() {
    let (builder, time) = roomy();
    let (running, gate) = (Arc::new(Mutex::new((0, 0))), Gate::new());
    let loader = {
        let (running, gate) = (running.clone(), gate.clone());
        move |_: &u32, _: Load<u32>| {
            {
                let mut running = running.lock().unwrap();
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            gate.pass();
            running.lock().unwrap().0 -= 1;
            Ok::<_, &str>(2)
        }
    };
    let cache: Numbers = builder.soft_ttl(SOFT_TTL).loader(loader).load_threads(3).build().unwrap();
    (0..10).for_each(|key| cache.insert(key, 1).unwrap());
    time.advance(SOFT_TTL);
    (0..10).for_each(|key| assert_eq!(cache.load(&key).unwrap(), 1));
    eventually("three run", || running.lock().unwrap().0 == 3);
    gate.open();
    eventually("all are refreshed", || (0..10).all(|key| cache.get(&key) == Some(2)));
    assert_eq!(running.lock().unwrap().1, 3);
}

#[test]
fn a_load_may_drop_the_last_handle() {
    within_patience("the end of the cache", || {
        let (builder, _time) = roomy();
        let itself: Arc<Mutex<Option<Numbers>>> = Arc::default();
        let (done, ended) = mpsc::channel();
        let loader = {
            let itself = itself.clone();
            move |_: &u32, _: Load<u32>| {
                drop(itself.lock().unwrap().take());
                done.send(thread::current().name().map(str::to_owned)).unwrap();
                Ok::<_, &str>(1)
            }
        };
        let cache: Numbers = builder.loader(loader).hard_timeout(HARD).build().unwrap();
        *itself.lock().unwrap() = Some(cache.clone());
        assert!(cache.refresh(&1));
        drop(cache);
        assert_eq!(ended.recv().unwrap().as_deref(), Some("larder-load-1"));
        // The thread has ended, and with it the loader and what that holds.
        assert!(ended.recv().is_err());
    });
}

#[test]
fn the_end_waits_for_no_load_and_drops_those_that_wait_for_a_thread() {
    within_patience("the end of the cache", || {
        let gate = Gate::new();
        let script = Script::of([Act::Hang(gate.clone(), 1)]);
        let (builder, _time) = roomy();
        let held = Arc::new(());
        let loader = {
            let (play, held) = (script.loader(), held.clone());
            move |key: &u32, load: Load<u32>| {
                let _held = &held;
                play(key, load)
            }
        };
        let cache: LoadingCache<_, _, _> = builder.loader(loader).load_threads(1).build().unwrap();
        let local = (*cache).clone();
        assert!(cache.refresh(&1) && cache.refresh(&2));
        gate.reached();
        let held: Weak<()> = {
            let weak = Arc::downgrade(&held);
            drop(held);
            weak
        };
        drop(cache);
        assert_eq!(local.get_or_load(&2, |_| Ok::<_, ()>(7)).unwrap(), 7, "the claim of what waited is free");
        gate.open();
        eventually("the thread and the loader are gone", || held.upgrade().is_none());
        assert_eq!((script.calls(), local.get(&1)), (1, Some(1)));
    });
}
