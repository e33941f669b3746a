//! The builder of the local tier, and its verbs.

use std::time::Duration;

use larder::{Cache, CacheBuilder, CallOptions, Clock, EntryOptions, Groups, LoadErrorKind, Lookup};

use crate::{SECOND, huge, refused};

fn builder() -> CacheBuilder<String, u64> {
    Cache::builder().capacity(100)
}

/// Checks that a cache with these settings stores, serves, and refreshes.
#[track_caller]
fn works(builder: CacheBuilder<String, u64>) {
    let cache = builder.build().unwrap();
    cache.insert("k".to_owned(), 1).unwrap();
    assert_eq!(cache.get("k"), Some(1));
    cache.expire("k");
    assert_eq!(cache.get_or_load("k", |_| Ok::<_, ()>(2)).unwrap(), 2);
}

#[test]
fn a_name_may_be_anything() {
    for name in ["", "\0\n\u{7f}", "größe", &huge()] {
        works(builder().name(name));
        assert!(format!("{:?}", builder().name(name)).contains("CacheBuilder"));
    }
}

#[test]
fn a_capacity_is_needed_and_may_be_any() {
    refused(Cache::<String, u64>::builder().build(), &["capacity is not set", "set"]);
    for cache in [Cache::new(0), builder().capacity(0).build().unwrap()] {
        let rejected = cache.insert("k".to_owned(), 1).unwrap_err();
        assert_eq!((rejected.weight, rejected.capacity), (1, 0));
        assert!(rejected.to_string().contains("weighs 1") && rejected.to_string().contains("holds 0"));
        assert_eq!(cache.get_or_load("k", |_| Ok::<_, ()>(2)).unwrap(), 2);
        assert_eq!((cache.get("k"), cache.len()), (None, 0));
    }
    works(builder().capacity(u64::MAX));
    works(builder().capacity(1));
}

#[test]
fn a_capacity_may_become_any() {
    let cache = builder().build().unwrap();
    cache.insert("k".to_owned(), 1).unwrap();
    cache.set_capacity(0);
    assert_eq!((cache.len(), cache.weight(), cache.capacity()), (0, 0, 0));
    assert!(cache.insert("k".to_owned(), 1).is_err());
    cache.set_capacity(u64::MAX);
    let heavy = || EntryOptions::new().weight(u64::MAX);
    cache.insert_with("k".to_owned(), 1, heavy()).unwrap();
    cache.insert_with("l".to_owned(), 2, heavy()).unwrap();
    assert_eq!((cache.len(), cache.weight()), (1, u64::MAX));
    cache.set_capacity(1);
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

#[test]
fn a_weigher_may_say_anything() {
    let weigher = |_: &String, value: &u64| *value;
    let cache = builder().weigher(weigher).build().unwrap();
    cache.insert("zero".to_owned(), 0).unwrap();
    assert_eq!(cache.weight(), 1, "zero counts as one");
    let rejected = cache.insert("zero".to_owned(), u64::MAX).unwrap_err();
    assert_eq!((rejected.weight, rejected.capacity), (u64::MAX, 100));
    assert_eq!((cache.get("zero"), cache.weight()), (None, 0), "what was to be replaced is gone");
    let cache = builder().capacity(u64::MAX).weigher(weigher).build().unwrap();
    for (key, weight) in [("a", u64::MAX), ("b", u64::MAX), ("c", 1)] {
        cache.insert(key.to_owned(), weight).unwrap();
        assert!(cache.weight() >= weight);
    }
}

#[test]
fn shards_are_a_power_of_two() {
    for shards in [0, 3, 100, 1 << 17, usize::MAX] {
        refused(builder().shards(shards).build(), &[&format!("shards is {shards}"), "power of two", "65536"]);
    }
    works(builder().shards(1));
    works(builder().shards(1 << 16));
}

#[test]
fn a_deadline_of_zero_is_an_error_and_the_longest_is_never() {
    refused(builder().ttl(Duration::ZERO).build(), &["ttl is zero", "leave it out"]);
    refused(builder().soft_ttl(Duration::ZERO).build(), &["soft_ttl is zero", "leave it out"]);
    refused(builder().hard_ttl(Duration::ZERO).build(), &["hard_ttl is zero", "leave it out"]);
    let (ms, second) = (Duration::from_millis, SECOND);
    refused(builder().soft_ttl(second).hard_ttl(ms(10)).build(), &["soft_ttl (1s)", "hard_ttl (10ms)", "swap"]);
    refused(builder().ttl(second).soft_ttl(ms(10)).build(), &["ttl (1s)", "leave it out"]);
    refused(builder().ttl(second).hard_ttl(ms(10)).build(), &["ttl (1s)", "leave it out"]);
    works(builder().ttl(Duration::MAX));
    works(builder().soft_ttl(Duration::MAX));
    works(builder().soft_ttl(Duration::MAX).hard_ttl(Duration::MAX));
    let (clock, time) = Clock::manual();
    let cache = builder().soft_ttl(Duration::MAX).clock(clock).build().unwrap();
    cache.insert("k".to_owned(), 1).unwrap();
    time.advance(Duration::MAX);
    assert!(matches!(cache.lookup("k"), Lookup::Fresh(1)));
}

#[test]
fn a_factor_of_zero_is_an_error_and_the_largest_is_cut() {
    refused(builder().soft_ttl(SECOND).hard_ttl_factor(0).build(), &["hard_ttl_factor is 0", "1 or more"]);
    refused(builder().hard_ttl(SECOND).hard_ttl_factor(3).build(), &["hard_ttl_factor (3)", "hard_ttl (1s)", "leave"]);
    works(builder().soft_ttl(Duration::MAX).hard_ttl_factor(u32::MAX));
}

#[test]
fn a_part_or_a_beta_that_is_no_number_is_an_error() {
    for part in [f64::NAN, -f64::MIN_POSITIVE, 1.0, f64::INFINITY, f64::NEG_INFINITY] {
        refused(builder().jitter(part).build(), &[&format!("jitter is {part}"), "from 0"]);
    }
    for beta in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        refused(builder().early_refresh(beta).build(), &[&format!("early_refresh is {beta}"), "positive"]);
    }
    for part in [f64::NAN, 0.0, -0.5, 1.0, f64::INFINITY] {
        refused(builder().refresh_ahead(part).build(), &[&format!("refresh_ahead is {part}"), "above 0 and below 1"]);
    }
    refused(builder().refresh_ahead(0.5).early_refresh(2.5).build(), &["(0.5)", "(2.5)", "leave one out"]);
    works(builder().ttl(Duration::MAX).jitter(-0.0));
    works(builder().ttl(Duration::MAX).jitter(1.0 - f64::EPSILON));
    works(builder().soft_ttl(Duration::MAX).early_refresh(f64::MAX));
    works(builder().soft_ttl(Duration::MAX).early_refresh(f64::MIN_POSITIVE));
    works(builder().soft_ttl(Duration::MAX).refresh_ahead(f64::MIN_POSITIVE));
}

#[test]
fn a_grace_of_zero_is_an_error_and_other_waits_may_be_any() {
    refused(builder().grace(Duration::ZERO).build(), &["grace is zero", "set how long"]);
    for wait in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        works(builder().load_wait(wait).stale_if_error(wait));
        works(builder().grace(wait.max(Duration::from_nanos(1))));
    }
    let cache = builder().load_wait(Duration::ZERO).build().unwrap();
    let Lookup::Vacant(_claim) = cache.lookup("k") else { panic!("nobody has it") };
    let error = cache.get_or_load("k", |_| Ok::<_, ()>(2)).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TimedOut);
}

#[test]
fn a_negative_ttl_of_zero_is_an_error_and_the_longest_is_never() {
    let builder = || Cache::<String, Option<u64>>::builder().capacity(10);
    refused(builder().negative_ttl(Duration::ZERO).build(), &["negative_ttl is zero", "leave it out"]);
    let cache = builder().negative_ttl(Duration::MAX).build().unwrap();
    cache.insert(String::new(), None).unwrap();
    assert_eq!(cache.get(""), Some(None));
}

#[test]
fn keys_may_be_empty_and_huge() {
    let cache = builder().build().unwrap();
    for key in ["", "\0", &huge()] {
        cache.insert(key.to_owned(), 7).unwrap();
        assert_eq!((cache.get(key), cache.peek(key), cache.contains(key)), (Some(7), Some(7), true));
        assert_eq!((cache.with(key, |value| value + 1), cache.inspect(key).unwrap().weight), (Some(8), 1));
        assert_eq!(cache.add(key.to_owned(), 8), Ok(false));
        assert_eq!((cache.update(key, |value| value + 1), cache.remove(key)), (Some(8), Some(8)));
        assert_eq!((cache.expire(key), cache.update(key, |value| value + 1)), (false, None));
        assert_eq!(cache.get_or_insert_with(key, || 9), 9);
        cache.retain(|_, _| false);
        assert_eq!(cache.inspect(key).map(|info| info.weight), None);
    }
}

#[test]
fn lists_may_be_empty_and_say_things_twice() {
    let cache = builder().build().unwrap();
    assert_eq!(cache.get_many(std::iter::empty::<&str>()), []);
    cache.insert_many([]).unwrap();
    cache.remove_many(std::iter::empty::<&str>());
    cache.insert_many([("k".to_owned(), 1), ("k".to_owned(), 2)]).unwrap();
    assert_eq!(cache.get_many(["k", "k", ""]), [Some(2), Some(2), None]);
    cache.remove_many(["k", "k"]);
    assert_eq!((cache.warm_up([]), cache.warm_up([("k".to_owned(), 1), ("k".to_owned(), 2)])), (0, 1));
    let heavy = EntryOptions::new().weight(u64::MAX);
    assert_eq!(cache.warm_up_with([("heavy".to_owned(), 1, heavy.clone())]), 0);
    let small = builder().capacity(1).build().unwrap();
    assert!(small.insert_with("heavy".to_owned(), 1, heavy).is_err());
}

#[test]
fn groups_may_be_called_anything() {
    let huge = huge();
    let names = ["", "\0\n", "größe", &huge];
    let groups = Groups::new();
    let cache = builder().groups(groups.clone()).build().unwrap();
    for (at, name) in names.into_iter().enumerate() {
        groups.invalidate(name);
        groups.expire(name);
        for kill in [true, false] {
            cache.insert_with("k".to_owned(), 7, EntryOptions::new().groups([name, name])).unwrap();
            // Another name is another group.
            cache.invalidate_group(names[(at + 1) % names.len()]);
            assert_eq!(cache.get("k"), Some(7), "{name:.9}");
            match (kill, at % 2 == 0) {
                (true, true) => cache.invalidate_group(name),
                (true, false) => cache.invalidate_groups([name, name]),
                (false, true) => cache.expire_group(name),
                (false, false) => groups.expire(name),
            }
            assert_eq!(cache.contains("k"), !kill, "{name:.9}");
            assert!(!matches!(cache.lookup("k"), Lookup::Fresh(_)), "{name:.9}");
        }
    }
    cache.invalidate_groups(std::iter::empty::<&str>());
    cache.clear();
    cache.run_maintenance();
    assert_eq!(groups.len(), 0);
}

#[test]
fn a_wait_may_be_nothing_and_forever() {
    let cache = builder().build().unwrap();
    for wait in [Duration::ZERO, Duration::MAX] {
        let Lookup::Vacant(claim) = cache.lookup_wait("k", wait) else { panic!("nobody has it") };
        assert!(matches!(cache.lookup_wait("k", Duration::ZERO), Lookup::Busy));
        drop(claim);
        for options in [CallOptions::new().hard_timeout(wait), CallOptions::new().soft_timeout(wait).grace(wait)] {
            assert!(matches!(cache.lookup_with("k", options), Lookup::Vacant(_)));
        }
    }
}

#[test]
fn a_claim_may_be_extended_by_nothing_and_forever() {
    let (clock, time) = Clock::manual();
    let cache = builder().clock(clock).build().unwrap();
    let Lookup::Vacant(claim) = cache.lookup("k") else { panic!("nobody has it") };
    assert!(claim.extend(Duration::MAX));
    time.advance(Duration::from_secs(1 << 32));
    assert!(matches!(cache.lookup("k"), Lookup::Busy));
    claim.extend(Duration::ZERO);
    let Lookup::Vacant(next) = cache.lookup("k") else { panic!("the claim is over") };
    assert!(!claim.extend(Duration::MAX), "another caller has the key");
    assert!(!claim.fill(1).is_stored());
    assert!(next.fill_with(2, EntryOptions::new()).is_stored());
    assert_eq!(cache.get("k"), Some(2));
}

#[test]
fn a_manual_clock_stops_at_its_end() {
    let (clock, time) = Clock::manual();
    let cache = builder().ttl(SECOND).clock(clock).build().unwrap();
    time.advance(Duration::ZERO);
    for _ in 0..2 {
        cache.insert("k".to_owned(), 1).unwrap();
        assert_eq!(cache.get("k"), Some(1));
        time.advance(Duration::MAX);
    }
    assert_eq!(cache.get("k"), Some(1), "it stands still for good");
}
