//! Refreshing ahead of the soft deadline: at random by XFetch, or after a part of the time.

use std::time::Duration;

use larder::{Cache, CacheBuilder, EntryOptions, Lookup, ManualClock};

use crate::scene::{ms, roomy};

const SECOND: Duration = Duration::from_secs(1);

fn is_due(cache: &Cache<u32, u32>, key: u32) -> bool {
    match cache.lookup(&key) {
        Lookup::Stale { claim: Some(_), .. } => true,
        Lookup::Fresh(_) => false,
        other => panic!("{key} is neither fresh nor due: {other:?}"),
    }
}

/// Loads key 0, which takes `cost`.
fn load(cache: &Cache<u32, u32>, time: &ManualClock, cost: Duration) {
    let loaded = cache.get_or_load(&0, |_| {
        time.advance(cost);
        Ok::<_, ()>(0)
    });
    assert_eq!(loaded.unwrap(), 0);
}

/// XFetch refreshes when `cost * beta * -ln(random)` reaches what is left of the time: with a probability of
/// `exp(-left / (cost * beta))`.
#[test]
fn xfetch_is_due_as_often_as_its_formula_says() {
    const LOOKUPS: u32 = 20_000;
    fastrand::seed(1);
    for beta in [0.5, 1.0, 3.0] {
        for cost in [10, 50, 200] {
            let (builder, time) = roomy();
            let cache = builder.soft_ttl(SECOND).early_refresh(beta).build().unwrap();
            load(&cache, &time, ms(cost));
            for left in [900, 500, 250, 100, 50, 10] {
                time.advance(cache.inspect(&0).unwrap().soft_in.unwrap() - ms(left));
                let due = f64::from((0..LOOKUPS).map(|_| u32::from(is_due(&cache, 0))).sum::<u32>());
                let expected = (-(left as f64) / (cost as f64 * beta)).exp();
                // Six standard deviations, and the seed is fixed.
                let tolerance = 6.0 * (expected * (1.0 - expected) / f64::from(LOOKUPS)).sqrt() + 1e-3;
                let share = due / f64::from(LOOKUPS);
                assert!((share - expected).abs() < tolerance, "beta {beta}, {cost} ms, {left} ms left: {share}");
            }
        }
    }
}

fn ahead(part: f64) -> (CacheBuilder<u32, u32>, ManualClock) {
    let (builder, time) = roomy();
    (builder.refresh_ahead(part), time)
}

#[test]
fn a_value_is_due_once_a_part_of_its_time_has_passed() {
    for (part, due_after) in [(0.8, 800), (0.5, 500), (0.001, 1), (0.999, 999)] {
        let due = |cache: &Cache<u32, u32>, time: &ManualClock, name: &str| {
            assert!(!is_due(cache, 0), "at once, {part}, {name}");
            time.advance(ms(due_after - 1));
            assert!(!is_due(cache, 0), "a millisecond before, {part}, {name}");
            time.advance(ms(1));
            assert!(is_due(cache, 0), "{part}, {name}");
            assert_eq!(cache.get(&0), Some(0));
            time.advance(ms(999 - due_after));
            assert!(is_due(cache, 0), "until it is stale, {part}, {name}");
        };
        let (builder, time) = ahead(part);
        let cache = builder.soft_ttl(SECOND).build().unwrap();
        load(&cache, &time, Duration::ZERO);
        due(&cache, &time, "loaded");
        cache.insert(0, 0).unwrap();
        due(&cache, &time, "inserted");
        cache.insert_with(0, 0, EntryOptions::new().ttl(SECOND)).unwrap();
        due(&cache, &time, "hard deadline alone");
        cache.insert(0, 1).unwrap();
        time.advance(ms(due_after - 1));
        assert_eq!(cache.update(&0, |value| value - 1), Some(0));
        assert!(!is_due(&cache, 0), "{part}");
        time.advance(ms(1));
        assert!(is_due(&cache, 0), "an update leaves its age to a value, {part}");

        cache.insert_with(0, 0, EntryOptions::new().never_expires()).unwrap();
        time.advance(SECOND * 1_000_000);
        assert!(!is_due(&cache, 0), "without a deadline, {part}");
    }
}

#[test]
fn one_caller_refreshes_ahead_and_the_others_get_the_fresh_value() {
    let (builder, time) = ahead(0.8);
    let cache = builder.soft_ttl(SECOND).build().unwrap();
    cache.insert(0, 1).unwrap();
    time.advance(ms(800));
    let refreshed = cache.get_or_load(&0, |load| {
        assert_eq!(load.stale(), Some(&1));
        assert_eq!(cache.get_or_load(&0, |_| -> Result<_, ()> { panic!("a refresh is under way") }).unwrap(), 1);
        assert!(matches!(cache.lookup(&0), Lookup::Fresh(1)));
        Ok::<_, ()>(2)
    });
    assert_eq!((refreshed.unwrap(), cache.inspect(&0).unwrap().soft_in), (2, Some(SECOND)));
    assert!(!is_due(&cache, 0));
}

#[test]
fn a_value_that_is_fresh_yet_answers_for_a_failed_refresh() {
    type Set = fn(CacheBuilder<u32, u32>) -> CacheBuilder<u32, u32>;
    let cases: [(Set, u64); 2] = [(|builder| builder, 1_000), (|builder| builder.stale_if_error(ms(30)), 30)];
    for (set, pause) in cases {
        let (builder, time) = ahead(0.5);
        let cache = set(builder.soft_ttl(SECOND * 10)).build().unwrap();
        cache.insert(0, 1).unwrap();
        time.advance(SECOND * 5);
        assert_eq!(cache.get_or_load(&0, |_| Err::<u32, _>("no")).unwrap(), 1);
        time.advance(ms(pause - 1));
        assert!(!is_due(&cache, 0), "not tried again at every call");
        time.advance(ms(1));
        assert!(is_due(&cache, 0));
    }
    let (builder, time) = ahead(0.5);
    let cache = builder.soft_ttl(SECOND).build().unwrap();
    cache.insert(0, 1).unwrap();
    time.advance(SECOND);
    assert!(cache.get_or_load(&0, |_| Err::<u32, _>("no")).is_err(), "a stale one does not");
}

#[test]
fn jitter_spreads_when_values_are_due() {
    fastrand::seed(2);
    let (builder, time) = ahead(0.5);
    let cache = builder.soft_ttl(SECOND).jitter(0.5).build().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, 0).unwrap());
    // Each is due after half of its time, which is from half a second to a whole one.
    let due = |cache: &Cache<u32, u32>| (0..1_000).filter(|key| is_due(cache, *key)).count();
    time.advance(ms(249));
    assert_eq!(due(&cache), 0);
    time.advance(ms(126));
    let half = due(&cache);
    assert!((400..600).contains(&half), "{half}");
    time.advance(ms(125));
    assert_eq!((0..1_000).filter(|key| matches!(cache.lookup(key), Lookup::Fresh(_))).count(), 0);
}
