//! Soft and hard deadlines: who gets which value when, and who gets the claim.

use std::time::{Duration, Instant};

use larder::{Cache, Clock, EntryOptions, LoadErrorKind, Lookup};

use crate::scene::{ms, roomy};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq)]
enum State {
    Fresh,
    Stale,
    Gone,
}

fn state(cache: &Cache<u32, u32>, key: u32) -> State {
    match cache.lookup(&key) {
        Lookup::Fresh(_) => State::Fresh,
        Lookup::Stale { .. } => State::Stale,
        Lookup::Vacant(_) | Lookup::Busy => State::Gone,
    }
}

/// Finds out when an entry with these options is stale and when it is dead, in milliseconds.
fn deadlines(cache: &Cache<u32, u32>, time: &larder::ManualClock, options: EntryOptions) -> (Option<u64>, Option<u64>) {
    cache.insert_with(1, 1, options).unwrap();
    let (mut stale, mut dead) = (None, None);
    for passed in 0..200 {
        match state(cache, 1) {
            State::Fresh => assert_eq!((stale, dead), (None, None), "it became fresh again"),
            State::Stale => drop(stale.get_or_insert(passed)),
            State::Gone => drop(dead.get_or_insert(passed)),
        }
        time.advance(ms(1));
    }
    (stale, dead)
}

#[test]
fn deadlines_are_the_caches_unless_the_entry_has_its_own() {
    let new = EntryOptions::new;
    let of = |cache: &dyn Fn() -> (Cache<u32, u32>, larder::ManualClock), options| {
        let (cache, time) = cache();
        deadlines(&cache, &time, options)
    };
    let plain = || {
        let (builder, time) = roomy();
        (builder.build().unwrap(), time)
    };
    let soft = || {
        let (builder, time) = roomy();
        (builder.soft_ttl(ms(10)).build().unwrap(), time)
    };
    let both = || {
        let (builder, time) = roomy();
        (builder.soft_ttl(ms(10)).hard_ttl(ms(30)).build().unwrap(), time)
    };
    let factor = || {
        let (builder, time) = roomy();
        (builder.soft_ttl(ms(10)).hard_ttl_factor(3).build().unwrap(), time)
    };
    let ttl = || {
        let (builder, time) = roomy();
        (builder.ttl(ms(20)).build().unwrap(), time)
    };
    assert_eq!(of(&plain, new()), (None, None));
    assert_eq!(of(&soft, new()), (Some(10), Some(80)), "eight times the soft deadline");
    assert_eq!(of(&both, new()), (Some(10), Some(30)));
    assert_eq!(of(&factor, new()), (Some(10), Some(30)));
    assert_eq!(of(&ttl, new()), (None, Some(20)), "never stale");

    assert_eq!(of(&plain, new().soft_ttl(ms(5))), (Some(5), Some(40)));
    assert_eq!(of(&factor, new().soft_ttl(ms(5))), (Some(5), Some(15)));
    assert_eq!(of(&both, new().ttl(ms(50))), (None, Some(50)));
    assert_eq!(of(&both, new().hard_ttl(ms(5))), (None, Some(5)));
    assert_eq!(of(&both, new().hard_ttl(ms(15))), (Some(10), Some(15)));
    assert_eq!(of(&both, new().soft_ttl(ms(7)).hard_ttl(ms(9))), (Some(7), Some(9)));
    assert_eq!(of(&both, new().never_expires()), (None, None));
    assert_eq!(of(&ttl, new().never_expires()), (None, None));
    assert_eq!(of(&plain, new().ttl(Duration::ZERO)), (None, Some(0)), "dead at once");
    assert_eq!(of(&plain, new().ttl(Duration::from_nanos(1))), (None, Some(1)), "rounded up");
    assert_eq!(of(&plain, new().ttl(Duration::MAX)), (None, None));
    assert_eq!(of(&plain, new().soft_ttl(Duration::MAX)), (None, None));
}

#[test]
fn a_value_is_never_served_from_its_hard_deadline_on() {
    let (builder, time) = roomy();
    let cache = builder.soft_ttl(ms(10)).hard_ttl(ms(20)).build().unwrap();
    cache.insert(1, 1).unwrap();
    time.advance(ms(20));
    assert_eq!((cache.get(&1), cache.peek(&1), cache.with(&1, |value| *value)), (None, None, None));
    assert_eq!((cache.contains(&1), cache.inspect(&1), cache.iter().count()), (false, None, 0));
    assert_eq!((cache.update(&1, |value| *value), cache.expire(&1), cache.remove(&1)), (None, false, None));
    cache.insert(1, 1).unwrap();
    time.advance(Duration::MAX);
    time.advance(Duration::MAX);
    assert_eq!(cache.get(&1), None, "time does not turn back");
}

#[test]
fn on_the_systems_clock_no_value_outlives_its_deadline() {
    let cache: Cache<u32, u32> = Cache::builder().capacity(10).clock(Clock::system()).ttl(ms(30)).build().unwrap();
    cache.insert(1, 1).unwrap();
    let stored = Instant::now();
    loop {
        let asked = stored.elapsed();
        // A millisecond for the rounding of the moment it was stored at.
        match cache.get(&1) {
            Some(_) => assert!(asked < ms(31), "found {asked:?} after it was stored"),
            None => break,
        }
    }
}

#[test]
fn get_never_claims() {
    let (builder, time) = roomy();
    let cache = builder.soft_ttl(ms(10)).build().unwrap();
    cache.insert(1, 1).unwrap();
    time.advance(ms(10));
    assert_eq!((cache.get(&1), cache.get_many(&[1]), cache.peek(&1)), (Some(1), vec![Some(1)], Some(1)));
    assert!(matches!(cache.lookup(&1), Lookup::Stale { claim: Some(_), .. }));
}

#[test]
fn the_first_of_each_grace_misses_and_the_others_get_the_old_value() {
    let (builder, time) = roomy();
    let cache: Cache<u32, u32> = builder.soft_ttl(SECOND).grace(ms(100)).build().unwrap();
    cache.insert(1, 1).unwrap();
    cache.insert_with(2, 2, EntryOptions::new().grace(ms(10))).unwrap();
    time.advance(SECOND);
    for (key, grace) in [(1, 100), (2, 10)] {
        for _ in 0..3 {
            // Kept, so that the key stays claimed.
            let first = cache.lookup(&key).or_claim().unwrap_err().expect("the first gets the claim");
            assert_eq!((*first.key(), first.stale()), (key, Some(&key)));
            for _ in 0..5 {
                assert_eq!(cache.lookup(&key).or_claim().unwrap(), key);
            }
            time.advance(ms(grace - 1));
            assert_eq!(cache.lookup(&key).or_claim().unwrap(), key);
            time.advance(ms(1));
            std::mem::forget(first);
        }
    }
    let vacant = cache.lookup(&3).or_claim().unwrap_err().expect("a claim");
    assert!(cache.lookup(&3).or_claim().unwrap_err().is_none(), "nobody has a value, somebody fills it");
    drop(vacant);
    assert!(cache.lookup(&3).or_claim().unwrap_err().is_some(), "a dropped claim frees the key at once");
}

#[test]
fn a_stale_value_is_refreshed_by_one_caller_while_the_others_get_it() {
    let (builder, time) = roomy();
    let cache = builder.soft_ttl(ms(10)).build().unwrap();
    cache.insert(1, 1).unwrap();
    time.advance(ms(10));
    let refreshed = cache.get_or_load(&1, |load| {
        assert_eq!(load.stale(), Some(&1));
        assert_eq!(cache.get_or_load(&1, |_| -> Result<_, ()> { panic!("a refresh is under way") }).unwrap(), 1);
        Ok::<_, ()>(2)
    });
    assert_eq!((refreshed.unwrap(), state(&cache, 1)), (2, State::Fresh));
}

#[test]
fn a_failed_refresh_returns_the_error_unless_stale_values_may_answer() {
    let (builder, time) = roomy();
    let cache = builder.soft_ttl(ms(10)).hard_ttl(ms(100)).build().unwrap();
    cache.insert(1, 1).unwrap();
    time.advance(ms(10));
    let error = cache.get_or_load(&1, |_| Err::<u32, _>("no")).unwrap_err();
    assert_eq!((error.kind(), error.loader()), (LoadErrorKind::Loader, Some(&"no")));
    assert_eq!(cache.get_or_load(&1, |_| Ok::<_, ()>(2)).unwrap(), 2);

    let (builder, time) = roomy();
    let cache = builder.soft_ttl(ms(10)).hard_ttl(ms(100)).stale_if_error(ms(30)).build().unwrap();
    cache.insert(1, 1).unwrap();
    time.advance(ms(10));
    assert_eq!(cache.get_or_load(&1, |_| Err::<u32, _>("no")).unwrap(), 1);
    time.advance(ms(29));
    assert_eq!(cache.get_or_load(&1, |_| -> Result<u32, ()> { panic!("not before retry_after") }).unwrap(), 1);
    assert!(matches!(cache.lookup(&1), Lookup::Stale { claim: None, .. }));
    time.advance(ms(1));
    let mut ran = false;
    let again = cache.get_or_load(&1, |_| {
        ran = true;
        time.advance(ms(60));
        Err::<u32, _>("no")
    });
    assert_eq!((again.unwrap_err().kind(), ran), (LoadErrorKind::Loader, true), "the stale value died meanwhile");
    assert!(cache.get_or_load(&2, |_| Err::<u32, _>("no")).is_err(), "there is no stale value");
}

#[test]
fn what_has_not_changed_keeps_groups_and_weight_and_starts_anew() {
    let (builder, time) = roomy();
    let cache = builder.soft_ttl(ms(10)).build().unwrap();
    cache.insert_with(1, 1, EntryOptions::new().groups(["a", "b"]).weight(5)).unwrap();
    time.advance(ms(10));
    assert_eq!(cache.get_or_load(&1, |load| Ok::<_, ()>(load.not_modified().unwrap())).unwrap(), 1);
    let info = cache.inspect(&1).unwrap();
    assert_eq!(
        (info.groups, info.weight, info.soft_in, info.age),
        (vec!["a".into(), "b".into()], 5, Some(ms(10)), ms(0))
    );
    assert_eq!(
        cache.get_or_load(&2, |load| load.not_modified().ok_or("nothing")).unwrap_err().loader(),
        Some(&"nothing")
    );
}

#[test]
fn a_load_has_a_say_in_how_its_result_is_kept() {
    let (builder, _time) = roomy();
    let cache = builder.build().unwrap();
    let loaded = cache.get_or_load(&1, |load| {
        load.soft_ttl(ms(10));
        load.hard_ttl(ms(20));
        load.groups(["a"]);
        load.groups(["b", "a"]);
        load.weight(3);
        Ok::<_, ()>(1)
    });
    assert_eq!(loaded.unwrap(), 1);
    let info = cache.inspect(&1).unwrap();
    assert_eq!((info.soft_in, info.hard_in, info.weight), (Some(ms(10)), Some(ms(20)), 3));
    assert_eq!(info.groups, ["a", "b"]);
}

#[test]
fn jitter_spreads_deadlines_below_what_was_asked_for() {
    let (builder, _time) = roomy();
    let cache = builder.soft_ttl(SECOND).hard_ttl(SECOND * 2).jitter(0.5).build().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, key).unwrap());
    let soft: Vec<_> = (0..1_000).map(|key| cache.inspect(&key).unwrap().soft_in.unwrap()).collect();
    assert!(soft.iter().all(|soft| (ms(500)..=SECOND).contains(soft)));
    let (low, high) = (soft.iter().min().unwrap(), soft.iter().max().unwrap());
    assert!(*low < ms(550) && *high > ms(950), "from {low:?} to {high:?}");
}

#[test]
fn an_early_refresh_comes_the_sooner_the_longer_the_load_took() {
    let due = |beta: f64, cost: u64, inserted: bool| {
        let (builder, time) = roomy();
        let cache: Cache<u32, u32> = builder.soft_ttl(SECOND).early_refresh(beta).build().unwrap();
        (0..1_000)
            .filter(|key| {
                if inserted {
                    cache.insert(*key, 0).unwrap();
                } else {
                    let load = |_| {
                        time.advance(ms(cost));
                        Ok::<_, ()>(0)
                    };
                    assert_eq!(cache.get_or_load(key, load).unwrap(), 0);
                }
                time.advance(ms(900));
                matches!(cache.lookup(key), Lookup::Stale { claim: Some(_), .. })
            })
            .count()
    };
    // With 100 ms to go and a load of as much, one in e; with a load of a tenth, one in e to the tenth.
    let (slow, fast) = (due(1.0, 100, false), due(1.0, 10, false));
    assert!((280..460).contains(&slow), "{slow}");
    assert!(fast < 10, "{fast}");
    assert_eq!(due(1e9, 100, false), 1_000);
    assert_eq!(due(1e9, 0, false), 0);
    assert_eq!(due(1e9, 100, true), 0, "what was inserted is not refreshed early");
}

#[test]
fn a_stale_value_that_lookups_serve_counts_as_used() {
    let (builder, time) = roomy::<u32>();
    let cache = builder.capacity(100).shards(1).soft_ttl(ms(10)).hard_ttl(ms(100_000)).build().unwrap();
    cache.insert(0, 0).unwrap();
    time.advance(ms(10));
    let Lookup::Stale { claim: Some(_refreshing), .. } = cache.lookup(&0) else { panic!("0 is stale") };
    for key in 1..1_000 {
        assert!(cache.lookup(&0).value().is_some(), "evicted by {key}");
        cache.insert(key, key).unwrap();
    }
}
