//! What one entry, one load and one call ask for.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use futures::executor::block_on;
use larder::{Cache, CallOptions, Clock, EntryOptions, Load, LoadErrorKind, Lookup};

use crate::{SECOND, huge};

fn cache() -> (Cache<u32, u64>, larder::ManualClock) {
    let (clock, time) = Clock::manual();
    (Cache::builder().capacity(1_000).soft_ttl(SECOND).clock(clock).build().unwrap(), time)
}

/// Stores a value in each way that there is, and returns the caches.
fn stored(options: EntryOptions, ask: impl Fn(&Load<u64>)) -> [(Cache<u32, u64>, larder::ManualClock); 2] {
    let (given, loaded) = (cache(), cache());
    given.0.insert_with(7, 1, options).unwrap();
    let value = loaded.0.get_or_load(&7, |load| {
        ask(&load);
        Ok::<_, ()>(1)
    });
    assert_eq!(value.unwrap(), 1);
    [given, loaded]
}

#[test]
fn an_entrys_deadline_of_zero_is_at_once_and_the_longest_is_never() {
    let zero = Duration::ZERO;
    for (cache, _) in stored(EntryOptions::new().ttl(zero), |load| load.ttl(zero)) {
        assert_eq!(cache.get(&7), None);
    }
    for (cache, _) in stored(EntryOptions::new().hard_ttl(zero), |load| load.hard_ttl(zero)) {
        assert_eq!(cache.get(&7), None);
    }
    // Eight times nothing is nothing.
    for (cache, _) in stored(EntryOptions::new().soft_ttl(zero), |load| load.soft_ttl(zero)) {
        assert_eq!(cache.get(&7), None);
    }
    let stale = EntryOptions::new().soft_ttl(zero).hard_ttl(SECOND);
    let ask = |load: &Load<u64>| {
        load.soft_ttl(zero);
        load.hard_ttl(SECOND);
    };
    for (cache, _) in stored(stale, ask) {
        assert!(matches!(cache.lookup(&7), Lookup::Stale { value: 1, claim: Some(_) }));
    }
    let longest = Duration::MAX;
    for (cache, time) in stored(EntryOptions::new().ttl(longest), |load| load.ttl(longest)) {
        time.advance(longest);
        assert!(matches!(cache.lookup(&7), Lookup::Fresh(1)));
    }
    for (cache, time) in stored(EntryOptions::new().soft_ttl(longest), |load| load.soft_ttl(longest)) {
        time.advance(longest);
        assert!(matches!(cache.lookup(&7), Lookup::Fresh(1)));
    }
    // A soft deadline behind the hard one is the hard one.
    let late = EntryOptions::new().soft_ttl(longest).hard_ttl(SECOND);
    let ask = |load: &Load<u64>| {
        load.soft_ttl(longest);
        load.hard_ttl(SECOND);
    };
    for (cache, time) in stored(late, ask) {
        assert!(matches!(cache.lookup(&7), Lookup::Fresh(1)));
        time.advance(SECOND);
        assert_eq!(cache.get(&7), None);
    }
}

#[test]
fn an_entrys_grace_of_zero_is_a_millisecond_and_the_longest_is_forever() {
    for (grace, over_after) in [(Duration::ZERO, Some(Duration::from_millis(1))), (Duration::MAX, None)] {
        for (cache, time) in stored(EntryOptions::new().grace(grace), |load| load.grace(grace)) {
            cache.expire(&7);
            let Lookup::Stale { claim: Some(_claim), .. } = cache.lookup(&7) else { panic!("it is stale") };
            assert!(matches!(cache.lookup(&7), Lookup::Stale { claim: None, .. }));
            time.advance(over_after.unwrap_or(6 * SECOND));
            let Lookup::Stale { claim, .. } = cache.lookup(&7) else { panic!("it is stale") };
            assert_eq!(claim.is_some(), over_after.is_some(), "{grace:?}");
        }
    }
}

#[test]
fn an_entrys_weight_of_zero_is_one_and_one_too_large_is_rejected() {
    for (cache, _) in stored(EntryOptions::new().weight(0), |load| load.weight(0)) {
        assert_eq!((cache.weight(), cache.len()), (1, 1));
    }
    let (cache, _) = cache();
    let rejected = cache.insert_with(7, 1, EntryOptions::new().weight(u64::MAX)).unwrap_err();
    assert_eq!((rejected.weight, rejected.capacity), (u64::MAX, 1_000));
    assert!(cache.add_with(7, 1, EntryOptions::new().weight(1_001)).is_err());
    let loaded = cache.get_or_load(&7, |load| {
        load.weight(u64::MAX);
        Ok::<_, ()>(2)
    });
    assert_eq!((loaded.unwrap(), cache.get(&7), cache.weight()), (2, None, 0), "it is returned, and not kept");
    cache.insert_with(7, 1, EntryOptions::new().weight(1_000)).unwrap();
}

#[test]
fn an_entrys_groups_may_be_any_and_any_number() {
    let huge = huge();
    let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let names = || many.iter().map(String::as_str).chain(["", "", "\0", &huge]);
    for (cache, _) in stored(EntryOptions::new().groups(names()), |load| load.groups(names())) {
        assert_eq!(cache.get(&7), Some(1));
        cache.invalidate_group("");
        assert_eq!(cache.get(&7), None);
    }
    let none = || std::iter::empty::<&str>();
    for (cache, _) in stored(EntryOptions::new().groups(none()), |load| load.groups(none())) {
        cache.invalidate_group("");
        assert_eq!(cache.get(&7), Some(1));
    }
}

#[test]
fn a_calls_timeout_may_be_nothing_and_forever() {
    for wait in [Duration::ZERO, Duration::MAX] {
        let (cache, _) = cache();
        let soft = CallOptions::new().soft_timeout(wait).grace(wait);
        assert_eq!(cache.get_or_load_with(&7, soft, |_| Ok::<_, ()>(1)).unwrap(), 1);
        cache.expire(&7);
        // The caller that runs the loader has its result, or the stale value.
        let value = cache.get_or_load_with(&7, soft, |_| Ok::<_, ()>(2)).unwrap();
        assert!([1, 2].contains(&value));
    }
    let (cache, _) = cache();
    let hard = |wait| CallOptions::new().hard_timeout(wait);
    // A loader that runs on its caller's stack ends by itself: the timeout is for who waits.
    for wait in [Duration::ZERO, Duration::MAX] {
        assert_eq!(cache.get_or_load_with(&8, hard(wait), |_| Ok::<_, ()>(1)).unwrap(), 1);
    }
    let Lookup::Vacant(_claim) = cache.lookup(&9) else { panic!("nobody has it") };
    let error = cache.get_or_load_with(&9, hard(Duration::ZERO), |_| Ok::<_, Infallible>(1)).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TimedOut);
    assert!(error.to_string().contains("0ns"), "{error}");
    let never = pending::<Result<u64, Infallible>>;
    let error = block_on(cache.get_or_load_async_with(&10, hard(Duration::ZERO), |_| never())).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TimedOut);
    assert_eq!(cache.get(&10), None);
}
