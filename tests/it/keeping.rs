//! What a loader says of how its value is kept: the same by every way to load.

use std::convert::Infallible;
use std::time::Duration;

use futures::executor::block_on;
use larder::{Cache, EntryInfo, EntryOptions, Load, Lookup, ManualClock};

use crate::scene::{ms, roomy};

/// What a loader does: says how its value is to be kept, and returns it.
type Loader = fn(&Load<u32>) -> u32;

/// Loads a key, and returns what the caller got.
type Way = (&'static str, fn(&Cache<u32, u32>, Loader) -> Option<u32>);

const KEY: u32 = 7;

const WAYS: [Way; 7] = [
    ("get_or_load", |cache, loader| cache.get_or_load(&KEY, |load| Ok::<_, Infallible>(loader(&load))).ok()),
    ("get_or_load_async", |cache, loader| {
        block_on(cache.get_or_load_async(&KEY, |load| async move { Ok::<_, Infallible>(loader(&load)) })).ok()
    }),
    ("get_or_load_detached", |cache, loader| {
        let loaded = move |load| async move { Ok::<_, Infallible>(loader(&load)) };
        let spawn = |load| std::thread::spawn(|| block_on(load)).join().unwrap();
        block_on(cache.get_or_load_detached(&KEY, spawn, loaded)).ok()
    }),
    ("get_many_or_load", |cache, loader| {
        let answers = cache.get_many_or_load(&[KEY], |batch| {
            Ok::<_, Infallible>(batch.iter().map(|(key, load)| (*key, loader(load))).collect())
        });
        answers.ok()?.pop()?
    }),
    ("get_many_or_load_async", |cache, loader| {
        let answers = block_on(cache.get_many_or_load_async(&[KEY], |batch| async move {
            Ok::<_, Infallible>(batch.iter().map(|(key, load)| (*key, loader(load))).collect())
        }));
        answers.ok()?.pop()?
    }),
    ("Claim::load", |cache, loader| match cache.lookup(&KEY) {
        Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } => {
            claim.load(|load| Ok::<_, Infallible>(loader(&load))).ok()
        }
        found => found.value(),
    }),
    ("Claim::load_async", |cache, loader| match cache.lookup(&KEY) {
        Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } => {
            block_on(claim.load_async(|load| async move { Ok::<_, Infallible>(loader(&load)) })).ok()
        }
        found => found.value(),
    }),
];

/// Returns a cache whose values are stale after 10 ms and dead after 80.
fn cache() -> (Cache<u32, u32>, ManualClock) {
    let (builder, time) = roomy();
    (builder.soft_ttl(ms(10)).weigher(|_, value| u64::from(*value)).build().unwrap(), time)
}

/// Loads by each way into an empty cache, and hands over what has become of it.
fn for_each_way(loader: Loader, check: impl Fn(&str, &Cache<u32, u32>, &ManualClock, Option<EntryInfo>)) {
    for (name, load) in WAYS {
        let (cache, time) = cache();
        assert_eq!(load(&cache, loader), Some(3), "{name}");
        check(name, &cache, &time, cache.inspect(&KEY));
    }
}

#[test]
fn a_loader_chooses_both_deadlines() {
    let deadlines = |loader: Loader, soft: Option<u64>, hard: Option<u64>| {
        for_each_way(loader, |name, _, _, info| {
            let info = info.unwrap();
            assert_eq!((info.soft_in, info.hard_in), (soft.map(ms), hard.map(ms)), "{name}");
        });
    };
    deadlines(|_| 3, Some(10), Some(80));
    deadlines(|load| (load.soft_ttl(ms(5)), 3).1, Some(5), Some(40));
    deadlines(|load| (load.hard_ttl(ms(20)), 3).1, Some(10), Some(20));
    deadlines(|load| (load.soft_ttl(ms(5)), load.hard_ttl(ms(7)), 3).2, Some(5), Some(7));
    deadlines(|load| (load.ttl(ms(30)), 3).1, Some(30), Some(30));
    deadlines(|load| (load.soft_ttl(ms(5)), load.ttl(ms(30)), 3).2, Some(30), Some(30));
    deadlines(|load| (load.never_expires(), 3).1, None, None);
    deadlines(|load| (load.never_expires(), load.soft_ttl(ms(5)), 3).2, Some(5), Some(40));
}

#[test]
fn a_loader_chooses_groups_and_weight() {
    let loader: Loader = |load| {
        load.groups(["a"]);
        load.groups(["b"]);
        load.weight(5);
        3
    };
    for_each_way(loader, |name, cache, _, info| {
        let info = info.unwrap();
        assert_eq!((info.groups, info.weight), (vec!["a".to_owned(), "b".to_owned()], 5), "{name}");
        cache.invalidate_group("b");
        assert_eq!(cache.get(&KEY), None, "{name}");
    });
    for_each_way(|_| 3, |name, _, _, info| assert_eq!(info.unwrap().weight, 3, "what the weigher says, {name}"));
}

#[test]
fn a_loader_chooses_for_how_long_its_value_is_claimed() {
    let taken_over = |loader: Loader, grace: Duration| {
        for_each_way(loader, |name, cache, time, _| {
            time.advance(ms(10));
            let Lookup::Stale { claim: Some(vanished), .. } = cache.lookup(&KEY) else { panic!("{name}") };
            time.advance(grace - ms(1));
            assert!(matches!(cache.lookup(&KEY), Lookup::Stale { claim: None, .. }), "{name}");
            time.advance(ms(1));
            assert!(matches!(cache.lookup(&KEY), Lookup::Stale { claim: Some(_), .. }), "{name}");
            drop(vanished);
        });
    };
    taken_over(|load| (load.grace(ms(20)), 3).1, ms(20));
    taken_over(|load| (load.grace(Duration::ZERO), 3).1, ms(1));
}

#[test]
fn a_loader_keeps_its_value_from_being_stored() {
    for_each_way(|load| (load.do_not_store(), 3).1, |name, _, _, info| assert_eq!(info, None, "{name}"));
    for (name, load) in WAYS {
        let (cache, time) = cache();
        cache.insert(KEY, 1).unwrap();
        time.advance(ms(10));
        let got = load(&cache, |load| {
            load.do_not_store();
            3
        });
        // Whose load is detached is answered with what was there.
        assert_eq!(got, Some(if name == "get_or_load_detached" { 1 } else { 3 }), "{name}");
        assert_eq!(cache.get(&KEY), Some(1), "what was to be refreshed stays, {name}");
    }
}

#[test]
fn what_has_not_changed_keeps_what_it_had_unless_the_loader_says_otherwise() {
    for (name, load) in WAYS {
        let (cache, time) = cache();
        let old = EntryOptions::new().soft_ttl(ms(4)).groups(["a", "b"]).weight(5).grace(ms(20));
        cache.insert_with(KEY, 1, old).unwrap();
        time.advance(ms(4));
        assert_eq!(load(&cache, |load| load.not_modified().unwrap()), Some(1), "{name}");
        let info = cache.inspect(&KEY).unwrap();
        assert_eq!((info.groups, info.weight, info.age), (vec!["a".to_owned(), "b".to_owned()], 5, ms(0)), "{name}");
        // As those of any value: the cache's, where the loader says nothing.
        assert_eq!((info.soft_in, info.hard_in), (Some(ms(10)), Some(ms(80))), "{name}");
        time.advance(ms(10));
        let Lookup::Stale { claim: Some(vanished), .. } = cache.lookup(&KEY) else { panic!("{name}") };
        time.advance(ms(20));
        assert!(matches!(cache.lookup(&KEY), Lookup::Stale { claim: Some(_), .. }), "the old grace, {name}");
        drop(vanished);

        let loaded = load(&cache, |load| {
            load.groups(["c"]);
            load.weight(6);
            load.soft_ttl(ms(3));
            load.not_modified().unwrap()
        });
        let info = cache.inspect(&KEY).unwrap();
        assert_eq!((loaded, info.groups, info.weight), (Some(1), vec!["c".to_owned()], 6), "{name}");
        assert_eq!(info.soft_in, Some(ms(3)), "{name}");
    }
}

#[test]
fn a_loader_learns_the_validator_of_what_it_refreshes() {
    for (name, load) in WAYS {
        let (builder, time) = roomy();
        let cache = builder.soft_ttl(ms(10)).validator(|value| (*value != 9).then(|| format!("v{value}"))).build();
        let cache = cache.unwrap();
        assert_eq!(load(&cache, |load| (assert_eq!(load.validator(), None), 3).1), Some(3), "{name}");
        time.advance(ms(10));
        let refreshed = load(&cache, |load| {
            assert_eq!(load.validator().as_deref(), Some("v3"));
            load.not_modified().unwrap()
        });
        assert_eq!((refreshed, cache.inspect(&KEY).unwrap().age), (Some(3), ms(0)), "{name}");
        cache.insert(KEY, 9).unwrap();
        cache.expire(&KEY);
        assert!(load(&cache, |load| (assert_eq!((load.stale(), load.validator()), (Some(&9), None)), 4).1).is_some());
    }
    let cache: Cache<u32, u32> = Cache::new(10);
    cache.insert(KEY, 1).unwrap();
    cache.expire(&KEY);
    assert_eq!(cache.get_or_load(&KEY, |load| load.validator().map_or(Ok(2), Err)).unwrap(), 2, "none is told");
}
