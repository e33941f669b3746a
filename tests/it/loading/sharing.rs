//! One load for all who ask at once, with its value, its error, its panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use larder::{Load, LoadError, LoadErrorKind, LoadingCache, ManualClock};

use super::{Act, HARD, Numbers, Script, limited, scripted};
use crate::scene::{Gate, eventually, roomy, together, within_patience};

/// Lets 100 threads ask for one key, and the load go on once all of them wait.
fn hundred_callers(cache: &Numbers, gate: &Gate) -> Vec<Result<u32, LoadError<&'static str>>> {
    thread::scope(|scope| {
        scope.spawn(|| {
            gate.reached();
            eventually("99 wait", || cache.stats().load_waits == 99);
            gate.open();
        });
        together(100, |_| cache.load(&1))
    })
}

/// Returns a cache whose loader waits at the gate before it follows the script.
fn gated(gate: &Gate, script: &Script, hard_timeout: Option<Duration>) -> (Numbers, ManualClock) {
    let (gate, script) = (gate.clone(), script.clone());
    let loader = move |_: &u32, _: Load<u32>| {
        gate.pass();
        script.play()
    };
    let (builder, time) = roomy();
    let builder = builder.loader(loader);
    let builder = match hard_timeout {
        Some(timeout) => builder.hard_timeout(timeout),
        None => builder,
    };
    (builder.build().unwrap(), time)
}

#[test]
fn a_hundred_callers_share_one_load_whoever_runs_it() {
    for build in [scripted, limited] {
        let gate = Gate::new();
        let script = Script::of([Act::Hang(gate.clone(), 7)]);
        let (cache, _time) = build(&script);
        let answers = hundred_callers(&cache, &gate);
        assert!(answers.into_iter().all(|answer| answer.unwrap() == 7));
        assert_eq!((script.calls(), cache.stats().loads, cache.get(&1)), (1, 1, Some(7)));
    }
}

#[test]
fn callers_share_an_error_and_the_next_one_tries_again() {
    for hard_timeout in [None, Some(HARD)] {
        let gate = Gate::new();
        let script = Script::of([Act::Fail("first"), Act::Return(7)]);
        let (cache, _time) = gated(&gate, &script, hard_timeout);
        let answers = hundred_callers(&cache, &gate);
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().loader() == Some(&"first")));
        assert_eq!((script.calls(), cache.stats().load_failures), (1, 1));
        assert_eq!((cache.load(&1).unwrap(), script.calls()), (7, 2));
    }
}

#[test]
fn a_panic_in_the_background_is_an_error_of_all_who_wait() {
    let gate = Gate::new();
    let (cache, _time) = gated(&gate, &Script::of([Act::Panic]), Some(HARD));
    let answers = hundred_callers(&cache, &gate);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().kind() == LoadErrorKind::Panicked));
    assert_eq!(cache.stats().load_failures, 1);
}

#[test]
fn a_panic_of_a_load_on_the_callers_own_thread_reaches_it() {
    let (cache, _time) = scripted(&Script::of([Act::Panic, Act::Return(7)]));
    let panicked = catch_unwind(AssertUnwindSafe(|| cache.load(&1)));
    assert!(panicked.is_err());
    assert_eq!(cache.load(&1).unwrap(), 7);
}

#[test]
fn an_invalidation_fences_a_load_in_the_background() {
    let gate = Gate::new();
    let (cache, _time) = limited(&Script::of([Act::Hang(gate.clone(), 7), Act::Return(8)]));
    let asked = thread::scope(|scope| {
        let asking = scope.spawn(|| cache.load(&1));
        gate.reached();
        cache.remove(&1);
        // Who comes after the removal does not join what began before it.
        assert_eq!(cache.load(&1).unwrap(), 8);
        gate.open();
        asking.join().unwrap()
    });
    assert_eq!((asked.unwrap(), cache.get(&1), cache.stats().fences), (7, Some(8), 1));
}

#[test]
fn a_loader_may_load_other_keys_with_a_single_thread_but_not_its_own() {
    within_patience("loads within loads", || {
        let (builder, _time) = roomy();
        let itself: Arc<OnceLock<LoadingCache<u32, u32, LoadErrorKind>>> = Arc::default();
        let loader = {
            let itself = itself.clone();
            move |key: &u32, _: Load<u32>| match *key {
                0 => Ok(0),
                // Asks for itself.
                100 => itself.get().unwrap().load(&100).map_err(|error| error.kind()),
                key => itself.get().unwrap().load(&(key - 1)).map(|below| below + 1).map_err(|error| error.kind()),
            }
        };
        let cache = builder.loader(loader).hard_timeout(HARD).load_threads(1).build().unwrap();
        assert!(itself.set(cache.clone()).is_ok());
        assert_eq!(cache.load(&10).unwrap(), 10);
        let error = cache.load(&100).unwrap_err();
        assert_eq!(error.loader(), Some(&LoadErrorKind::Reentrant));
    });
}
