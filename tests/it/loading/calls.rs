//! Options of one call, for loads by a registered loader and for those by a closure.

use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use larder::{Cache, CallOptions, LoadErrorKind};

use super::{Act, HARD, Numbers, SOFT_TTL, Script, scripted, stale};
use crate::scene::{Gate, eventually, ms, roomy};

fn options() -> CallOptions {
    CallOptions::new()
}

#[test]
fn a_call_has_timeouts_of_its_own() {
    let gate = Gate::new();
    let (cache, time) = scripted(&Script::of([Act::Hang(gate.clone(), 1)]));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.load_with(&1, options().hard_timeout(HARD)));
        gate.reached();
        time.advance(HARD);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    });
    gate.open();

    let gate = Gate::new();
    let (cache, time) = stale(scripted(&Script::of([Act::Hang(gate.clone(), 2)])));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.load_with(&1, options().soft_timeout(HARD)));
        gate.reached();
        assert!(!waiting.is_finished());
        gate.open();
        assert_eq!(waiting.join().unwrap().unwrap(), 2);
    });
    drop(time);
}

#[test]
fn a_call_that_only_reads_loads_nothing() {
    let script = Script::of([Act::Return(2)]);
    let (cache, _time) = stale(scripted(&script));
    assert_eq!(cache.load_with(&1, options().read_only()).unwrap(), 1);
    assert_eq!(cache.load_with(&2, options().read_only()).unwrap_err().kind(), LoadErrorKind::Absent);
    assert_eq!(block_on(cache.load_with_async(&2, options().read_only())).unwrap_err().kind(), LoadErrorKind::Absent);
    assert_eq!(cache.load_with(&1, options().no_refresh()).unwrap(), 1);
    assert_eq!((script.calls(), cache.stats().refreshes), (0, 0));
    assert_eq!(cache.load_with(&2, options().no_refresh()).unwrap(), 2, "where there is nothing, it is loaded");

    let never = |_| -> Result<u32, ()> { unreachable!("nothing is to be loaded") };
    let cache: &Cache<u32, u32> = &cache;
    assert_eq!(cache.get_or_load_with(&1, options().read_only(), never).unwrap(), 1);
    assert_eq!(cache.get_or_load_with(&1, options().no_refresh(), never).unwrap(), 1);
    let absent = cache.get_or_load_with(&3, options().read_only(), never).unwrap_err();
    assert_eq!(absent.kind(), LoadErrorKind::Absent);
    let skipped = cache.get_or_load_with(&1, options().read_only().skip_local(), never).unwrap_err();
    assert_eq!(skipped.kind(), LoadErrorKind::Absent);
}

#[test]
fn a_call_that_passes_the_local_tier_by_stores_nothing_and_shares_its_load() {
    let gate = Gate::new();
    let script = Script::of([Act::Hang(gate.clone(), 2)]);
    let (cache, _time) = scripted(&script);
    cache.insert(1, 1).unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| cache.load_with(&1, options().skip_local()).unwrap());
        gate.reached();
        assert_eq!(cache.load(&1).unwrap(), 1, "others are served meanwhile");
        let second = scope.spawn(|| cache.get_or_load_with(&1, options().skip_local(), |_| Err("no")).unwrap());
        eventually("it waits", || cache.stats().load_waits == 1);
        gate.open();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (2, 2));
    });
    assert_eq!((cache.get(&1), script.calls(), cache.stats().stores), (Some(1), 1, 1));
    let loaded = cache.get_or_load_with(&2, options().skip_local(), |_| Ok::<_, ()>(7)).unwrap();
    assert_eq!((loaded, cache.get(&2)), (7, None));
}

#[test]
fn the_hard_timeout_of_a_call_bounds_its_wait_for_others() {
    let (builder, time) = roomy();
    let cache: Cache<u32, u32> = builder.build().unwrap();
    let larder::Lookup::Vacant(claim) = cache.lookup(&1) else { panic!("nobody is at it") };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.get_or_load_with(&1, options().hard_timeout(ms(7)), |_| Ok::<_, &str>(1)));
        eventually("it waits", || cache.stats().load_waits == 1);
        time.advance(ms(7));
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (LoadErrorKind::TimedOut, "the load took longer than 7ms".into())
        );
    });
    drop(claim);
}

#[test]
fn a_load_that_is_part_of_a_future_is_given_up_at_the_calls_hard_timeout() {
    let (builder, time) = roomy();
    let builder = builder.soft_ttl(SOFT_TTL).stale_if_error(Duration::from_secs(1));
    let cache: Cache<u32, u32> = builder.build().unwrap();
    cache.insert(2, 2).unwrap();
    time.advance(SOFT_TTL);
    let load = |key: u32| {
        let cache = cache.clone();
        move || {
            let hangs = |_| std::future::pending::<Result<u32, ()>>();
            block_on(cache.get_or_load_async_with(&key, options().hard_timeout(HARD), hangs))
        }
    };
    let (vacant, stale) = (thread::spawn(load(1)), thread::spawn(load(2)));
    eventually("both look", || cache.stats().misses + cache.stats().hits_stale == 2);
    eventually("both are given up", || {
        time.advance(HARD);
        vacant.is_finished() && stale.is_finished()
    });
    assert_eq!(vacant.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    assert_eq!(stale.join().unwrap().unwrap(), 2, "the stale value answers for it");
    assert_eq!(cache.stats().load_aborts, 2);
    assert_eq!(cache.get_or_load(&1, |_| Ok::<_, ()>(7)).unwrap(), 7);
}

#[test]
fn the_grace_of_a_call_says_how_long_a_future_that_is_not_polled_keeps_the_key() {
    let (builder, time) = roomy();
    let cache: Numbers = builder.loader(Script::of([Act::Return(7)]).loader()).build().unwrap();
    let mut kept = Box::pin(
        cache.get_or_load_async_with(&1, options().grace(ms(5)), |_| std::future::pending::<Result<u32, ()>>()),
    );
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(kept.as_mut().poll(&mut context).is_pending());
    time.advance(ms(4));
    assert!(matches!(cache.lookup(&1), larder::Lookup::Busy));
    time.advance(ms(1));
    assert_eq!(cache.load(&1).unwrap(), 7);
    drop(kept);
}
