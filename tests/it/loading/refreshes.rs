//! Stale values: served while their refresh runs in the background, and while it cannot succeed.

use std::thread;
use std::time::Duration;

use larder::{CacheBuilder, CallOptions, LoadErrorKind, Lookup, ManualClock};

use super::{Act, MOMENT, Numbers, RETRY_AFTER, SOFT_TTL, Script, scripted, stale};
use crate::scene::{Gate, eventually, ms, roomy};

/// Returns a cache whose callers wait for a refresh to end, as long as nobody moves the clock.
fn patient(
    script: &Script,
    set: impl FnOnce(CacheBuilder<u32, u32>) -> CacheBuilder<u32, u32>,
) -> (Numbers, ManualClock) {
    let (builder, time) = roomy();
    let builder = set(builder.soft_ttl(SOFT_TTL)).loader(script.loader());
    (builder.soft_timeout(Duration::from_secs(10)).build().unwrap(), time)
}

#[test]
fn a_stale_value_is_served_at_once_while_one_refresh_runs() {
    let gate = Gate::new();
    let script = Script::of([Act::Hang(gate.clone(), 2)]);
    let (cache, _time) = stale(scripted(&script));
    assert!((0..10).all(|_| cache.load(&1).unwrap() == 1));
    gate.reached();
    gate.open();
    eventually("the refresh ends", || cache.load(&1).unwrap() == 2);
    let stats = cache.stats();
    assert_eq!((script.calls(), stats.refreshes, stats.loads), (1, 1, 1));
}

#[test]
fn the_caller_that_begins_a_refresh_waits_for_it_up_to_the_soft_timeout() {
    let gate = Gate::new();
    let (builder, time) = roomy();
    let script = Script::of([Act::Hang(gate.clone(), 2), Act::Return(3)]);
    let cache: Numbers = builder.soft_ttl(SOFT_TTL).loader(script.loader()).soft_timeout(ms(300)).build().unwrap();
    let (cache, time) = stale((cache, time));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.load(&1).unwrap());
        gate.reached();
        // Others are served meanwhile.
        assert_eq!(cache.load(&1).unwrap(), 1);
        time.advance(ms(299));
        assert!(!waiting.is_finished());
        eventually("the soft timeout passes", || {
            time.advance(MOMENT);
            waiting.is_finished()
        });
        assert_eq!(waiting.join().unwrap(), 1);
    });
    // The load goes on without it.
    gate.open();
    eventually("the refresh ends", || cache.get(&1) == Some(2));
    time.advance(SOFT_TTL);
    assert_eq!(cache.load(&1).unwrap(), 3, "what is there in time is the answer");
}

#[test]
fn a_refresh_that_fails_or_panics_leaves_the_stale_value_and_is_not_tried_again_at_once() {
    for act in [Act::Fail("down"), Act::Panic] {
        let script = Script::of([act.clone(), act, Act::Return(2)]);
        let (cache, time) = stale(patient(&script, |builder| builder));
        for tries in 1..=2_u32 {
            assert_eq!(cache.load(&1).unwrap(), 1);
            assert_eq!((script.calls(), cache.stats().load_failures), (tries, tries.into()));
            time.advance(RETRY_AFTER - MOMENT);
            assert_eq!((cache.load(&1).unwrap(), script.calls()), (1, tries));
            time.advance(MOMENT);
        }
        assert_eq!(cache.load(&1).unwrap(), 2, "the third try succeeds");
    }
}

#[test]
fn a_failure_that_nobody_waits_for_puts_the_next_try_off_too() {
    for act in [Act::Fail("down"), Act::Panic] {
        let script = Script::of([act]);
        let (cache, _time) = stale(scripted(&script));
        assert_eq!(cache.load(&1).unwrap(), 1);
        // Whoever takes no stale value gets the key once it is free.
        let free = || matches!(cache.lookup_with(&1, CallOptions::new().skip_local()), Lookup::Vacant(_));
        eventually("it has failed, and the key is free", || cache.stats().load_failures == 1 && free());
        assert_eq!((cache.load(&1).unwrap(), cache.stats().refreshes), (1, 1));
    }
}

#[test]
fn the_pause_between_tries_is_what_the_cache_was_built_with() {
    let script = Script::of([Act::Fail("down")]);
    let (cache, time) = stale(patient(&script, |builder| builder.stale_if_error(RETRY_AFTER * 20)));
    assert_eq!((cache.load(&1).unwrap(), script.calls()), (1, 1));
    time.advance(RETRY_AFTER * 20 - MOMENT);
    assert_eq!((cache.load(&1).unwrap(), script.calls()), (1, 1));
    time.advance(MOMENT);
    assert_eq!((cache.load(&1).unwrap(), script.calls()), (1, 2));
}

#[test]
fn past_the_hard_deadline_a_failure_is_an_error() {
    let script = Script::of([Act::Fail("down")]);
    let (cache, time) = stale(patient(&script, |builder| builder));
    assert_eq!(cache.load(&1).unwrap(), 1);
    time.advance(SOFT_TTL * 8);
    let error = cache.load(&1).unwrap_err();
    assert_eq!((error.kind(), error.loader()), (LoadErrorKind::Loader, Some(&"down")));
}

#[test]
fn a_refresh_on_demand_replaces_a_fresh_value_and_runs_once_at_a_time() {
    let gate = Gate::new();
    let script = Script::of([Act::Hang(gate.clone(), 2), Act::Fail("down"), Act::Return(3)]);
    let (cache, _time) = scripted(&script);
    cache.insert(1, 1).unwrap();
    assert!(cache.refresh(&1));
    gate.reached();
    assert!(!cache.refresh(&1), "one is under way");
    assert_eq!(cache.load(&1).unwrap(), 1, "the old value is served meanwhile");
    gate.open();
    eventually("it is replaced", || cache.get(&1) == Some(2));

    eventually("the claim is free", || cache.refresh(&1));
    eventually("it has failed", || cache.stats().load_failures == 1);
    assert_eq!(cache.get(&1), Some(2), "a failure leaves what was there");
    eventually("a key without value is loaded too", || cache.refresh(&7));
    eventually("it is loaded", || cache.get(&7) == Some(3));
}

#[test]
fn a_value_that_is_due_early_is_refreshed_in_the_background() {
    let (builder, time) = roomy();
    let script = Script::of([Act::Return(2)]);
    let cache: Numbers = builder.soft_ttl(SOFT_TTL).early_refresh(1e3).loader(script.loader()).build().unwrap();
    // What has a cost, since only that is refreshed early.
    let costly = |_: larder::Load<u32>| {
        time.advance(ms(1_000));
        Ok::<_, ()>(1)
    };
    assert_eq!(cache.get_or_load(&1, costly).unwrap(), 1);
    eventually("it is refreshed", || cache.load(&1).unwrap() == 2);
    assert_eq!(script.calls(), 1);
}
