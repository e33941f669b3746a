//! Loads past their hard timeout: given up, whatever their loaders do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use larder::{Cache, Load, LoadErrorKind};

use super::{Act, HARD, MOMENT, Numbers, RETRY_AFTER, SOFT_TTL, Script, limited, stale};
use crate::scene::{Gate, eventually, roomy};

#[test]
fn all_who_wait_for_a_load_that_hangs_are_told_and_the_next_caller_may_try() {
    let gate = Gate::new();
    let (cache, time) = limited(&Script::of([Act::Hang(gate.clone(), 1), Act::Return(2)]));
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..10).map(|_| scope.spawn(|| cache.load(&1))).collect();
        gate.reached();
        eventually("all wait", || cache.stats().load_waits == 9);
        time.advance(HARD - MOMENT);
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        time.advance(MOMENT);
        for thread in waiting {
            let error = thread.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), LoadErrorKind::TimedOut);
            assert_eq!(error.to_string(), "the load took longer than 5s");
        }
    });
    let stats = cache.stats();
    assert_eq!((stats.load_aborts, stats.load_failures, stats.loads), (1, 1, 0));
    assert_eq!(cache.load(&1).unwrap(), 2, "the key is free, and another thread is there");
    // What comes too late is stored nowhere, and counted as nothing more.
    gate.open();
    drop(cache);
}

#[test]
fn what_comes_too_late_is_stored_nowhere() {
    let gate = Gate::new();
    let (builder, time) = roomy();
    let told = Arc::new(AtomicBool::new(false));
    let loader = {
        let (gate, told) = (gate.clone(), told.clone());
        move |_: &u32, load: Load<u32>| {
            assert!(!load.is_cancelled());
            gate.pass();
            told.store(load.is_cancelled(), Ordering::SeqCst);
            Ok::<_, &str>(1)
        }
    };
    let cache: Numbers = builder.loader(loader).hard_timeout(HARD).build().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.load(&1));
        gate.reached();
        time.advance(HARD);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    });
    gate.open();
    eventually("the loader is told", || told.load(Ordering::SeqCst));
    // The next load of the only other key comes after the end of the late one, by the same count.
    let before = cache.stats();
    assert_eq!(cache.load(&2).unwrap_or(1), 1);
    let since = cache.stats() - before;
    assert_eq!((cache.get(&1), since.fences, since.load_failures), (None, 0, 0));
}

#[test]
fn a_refresh_that_hangs_leaves_the_stale_value_and_the_key_is_tried_again_after_a_pause() {
    let gate = Gate::new();
    let script = Script::of([Act::Hang(gate.clone(), 2), Act::Return(3)]);
    let (cache, time) = stale(limited(&script));
    assert_eq!(cache.load(&1).unwrap(), 1);
    gate.reached();
    // Nobody waits for it: the timer alone gives it up.
    time.advance(HARD);
    assert_eq!(cache.stats().load_aborts, 1);
    time.advance(RETRY_AFTER - MOMENT);
    assert_eq!((cache.load(&1).unwrap(), script.calls()), (1, 1));
    time.advance(MOMENT);
    assert_eq!(cache.load(&1).unwrap(), 1);
    eventually("the second refresh ends", || cache.get(&1) == Some(3));
    gate.open();
}

#[test]
fn a_load_that_waits_for_a_thread_in_vain_is_given_up_and_never_begins() {
    let gate = Gate::new();
    let script = Script::of([Act::Hang(gate.clone(), 1), Act::Return(2)]);
    let (builder, time) = roomy();
    let cache: Numbers = builder.loader(script.loader()).hard_timeout(HARD).load_threads(1).build().unwrap();
    thread::scope(|scope| {
        let waiting = [1, 2, 3].map(|key| {
            let cache = &cache;
            let waiting = scope.spawn(move || cache.load(&key));
            gate.reached();
            waiting
        });
        eventually("three miss", || cache.stats().misses == 3);
        eventually("all are given up", || {
            time.advance(HARD);
            waiting.iter().all(thread::ScopedJoinHandle::is_finished)
        });
        for thread in waiting {
            assert_eq!(thread.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
        }
    });
    // A load's time may have begun a moment after that of its caller, while the clock moved.
    time.advance(HARD);
    gate.open();
    assert_eq!(cache.load(&4).unwrap(), 2);
    assert_eq!(script.calls(), 2, "keys 2 and 3 were never loaded");
}

#[test]
fn a_caller_of_another_verb_is_told_too() {
    let gate = Gate::new();
    let (cache, time) = limited(&Script::of([Act::Hang(gate.clone(), 1)]));
    thread::scope(|scope| {
        let owner = scope.spawn(|| cache.load(&1));
        gate.reached();
        let other = scope.spawn(|| cache.get_or_load(&1, |_| Ok::<_, &str>(9)));
        eventually("it waits", || cache.stats().load_waits == 1);
        time.advance(HARD);
        assert_eq!(other.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
        assert!(owner.join().unwrap().is_err());
    });
    gate.open();
}

#[test]
fn a_future_is_dropped_at_its_hard_timeout() {
    /// Says when it is dropped.
    struct Dropped(Arc<AtomicBool>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    let dropped = Arc::new(AtomicBool::new(false));
    let (builder, time) = roomy();
    let began = Gate::new();
    let loader = {
        let (dropped, began) = (dropped.clone(), began.clone());
        move |_: u32, _: Load<u32>| {
            let guard = Dropped(dropped.clone());
            began.open();
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok::<_, &str>(1)
            }
        }
    };
    let cache: Numbers = builder.async_loader(loader).hard_timeout(HARD).build().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.load(&1));
        began.pass();
        time.advance(HARD);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    });
    eventually("the future is dropped", || dropped.load(Ordering::SeqCst));
    assert_eq!(cache.stats().load_aborts, 1);
}

#[test]
fn a_load_under_way_keeps_its_key_longer_than_the_grace() {
    let gate = Gate::new();
    let (builder, time) = roomy();
    let script = Script::of([Act::Hang(gate.clone(), 1)]);
    let builder = builder.grace(MOMENT).load_wait(Duration::MAX).loader(script.loader());
    let cache: Numbers = builder.hard_timeout(SOFT_TTL).build().unwrap();
    thread::scope(|scope| {
        let owner = scope.spawn(|| cache.load(&1));
        gate.reached();
        time.advance(SOFT_TTL / 2);
        let other = scope.spawn(|| cache.load(&1));
        eventually("it joins", || cache.stats().load_waits == 1);
        gate.open();
        assert_eq!((owner.join().unwrap().unwrap(), other.join().unwrap().unwrap()), (1, 1));
    });
    assert_eq!(script.calls(), 1);
}

#[test]
fn a_hard_timeout_works_by_the_systems_clock_too() {
    let gate = Gate::new();
    let script = Script::of([Act::Hang(gate.clone(), 1)]);
    let builder = Cache::<u32, u32>::builder().capacity(10).loader(script.loader());
    let cache = builder.hard_timeout(Duration::from_millis(20)).build().unwrap();
    assert_eq!(cache.load(&1).unwrap_err().kind(), LoadErrorKind::TimedOut);
    eventually("it is given up", || cache.stats().load_aborts == 1);
    cache.insert(2, 2).unwrap();
    // Also where nobody waits.
    assert!(cache.refresh(&2));
    eventually("it is given up", || cache.stats().load_aborts == 2);
    gate.open();
}
