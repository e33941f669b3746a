//! Warming up: what is offered beforehand takes the room that is free, and gets in nobody's way.

use larder::{Cache, EntryOptions, Fill, Lookup};

use crate::scene::{ms, roomy};

#[test]
fn only_what_is_absent_is_stored() {
    let (builder, time) = roomy::<u32>();
    let cache = builder.build().unwrap();
    cache.insert(1, 10).unwrap();
    cache.insert_with(2, 20, EntryOptions::new().soft_ttl(ms(5))).unwrap();
    cache.insert_with(3, 30, EntryOptions::new().ttl(ms(5))).unwrap();
    time.advance(ms(5));
    let Lookup::Vacant(claim) = cache.lookup(&4) else { panic!("4 is vacant") };
    let before = cache.stats();
    assert_eq!(cache.warm_up((1..=5).map(|key| (key, key))), 2);
    let seen = cache.stats() - before;
    assert_eq!((seen.hits(), seen.misses, seen.stores), (0, 0, 2));
    // Fresh, stale, dead, being filled, absent.
    assert_eq!([1, 2, 3, 4, 5].map(|key| cache.peek(&key)), [Some(10), Some(20), Some(3), None, Some(5)]);
    assert_eq!(claim.fill(40), Fill::Stored, "what is being made is newer");
    assert_eq!(cache.warm_up([(5, 6)]), 0);
}

/// A claim that has outlived its grace keeps nobody away.
#[test]
fn a_holder_that_vanished_does_not_keep_its_key_cold() {
    let (builder, time) = roomy::<u32>();
    let cache = builder.grace(ms(5)).build().unwrap();
    let Lookup::Vacant(claim) = cache.lookup(&1) else { panic!("1 is vacant") };
    time.advance(ms(5));
    assert_eq!(cache.warm_up([(1, 1)]), 1);
    assert_eq!(claim.fill(2), Fill::Fenced(2));
    assert_eq!(cache.get(&1), Some(1));
}

#[test]
fn a_warm_up_ends_where_room_does() {
    for shards in [1, 16] {
        let cache: Cache<u32, u32> = Cache::builder().capacity(10).shards(shards).build().unwrap();
        (0..4).for_each(|key| cache.insert(key, key).unwrap());
        let mut offered = 0;
        let stored = cache.warm_up((100..).inspect(|_| offered += 1).map(|key| (key, key)));
        assert_eq!((stored, offered), (6, 7));
        assert_eq!((cache.weight(), cache.stats().evictions), (10, 0));
        assert!((0..4).all(|key| cache.contains(&key)), "what was asked for is there");
        assert!((100..106).all(|key| cache.contains(&key)), "the first that were offered");
    }
    let none: Cache<u32, u32> = Cache::new(0);
    assert_eq!(none.warm_up((0..5).map(|key| (key, key))), 0);
}

#[test]
fn a_value_that_is_too_heavy_is_passed_over() {
    let cache: Cache<u32, u32> = Cache::new(10);
    let weighing = |key, weight| (key, key, EntryOptions::new().weight(weight));
    assert_eq!(
        cache.warm_up_with([weighing(1, 4), weighing(2, 11), weighing(3, 4), weighing(4, 4), weighing(5, 1)]),
        2
    );
    assert_eq!([1, 2, 3, 4, 5].map(|key| cache.contains(&key)), [true, false, true, false, false]);
    assert_eq!(cache.weight(), 8);
}

#[test]
fn the_dead_make_room() {
    let (builder, time) = roomy::<u32>();
    let cache = builder.capacity(10).build().unwrap();
    (0..10).for_each(|key| cache.insert_with(key, key, EntryOptions::new().ttl(ms(5))).unwrap());
    assert_eq!(cache.warm_up([(10, 10)]), 0);
    time.advance(ms(5));
    assert_eq!(cache.warm_up((10..30).map(|key| (key, key))), 10);
    cache.clear();
    assert_eq!(cache.warm_up((30..50).map(|key| (key, key))), 10);
    assert_eq!((cache.len(), cache.stats().evictions), (10, 0));
}

/// Whoever makes a value may have looked before the bump.
#[test]
fn a_bump_while_a_value_is_made_takes_it_along() {
    let (builder, _time) = roomy::<u32>();
    let cache = builder.build().unwrap();
    let in_group = |key| (key, key, EntryOptions::new().groups(["g"]));
    let offered = (0..3).map(|key| {
        if key == 1 {
            cache.invalidate_group("g");
        }
        in_group(key)
    });
    assert_eq!(cache.warm_up_with(offered), 3);
    assert_eq!([0, 1, 2].map(|key| cache.get(&key)), [None, None, Some(2)]);
    let cleared = (3..5).map(|key| {
        cache.clear();
        (key, key)
    });
    cache.warm_up(cleared);
    assert!((0..5).all(|key| cache.get(&key).is_none()));
}
