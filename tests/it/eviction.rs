//! Eviction: who stays when not all can.

use std::time::Duration;

use larder::{Cache, Clock, EntryOptions};

/// A cache in which the keys below `hot` were hit often enough to stay, and which is full.
fn settled(cache: &Cache<u64, u64>, hot: u64) {
    for key in 0..hot {
        cache.insert(key, 0).unwrap();
        (0..3).for_each(|_| assert!(cache.get(&key).is_some()));
    }
    scan(cache, 0);
    (0..hot).for_each(|key| assert!(cache.get(&key).is_some(), "{key}"));
}

/// Goes once through ten times more keys than the cache holds.
fn scan(cache: &Cache<u64, u64>, round: u64) {
    let first = (1 + round) << 32;
    for key in first..first + 10 * cache.capacity() {
        if cache.get(&key).is_none() {
            cache.insert(key, 0).unwrap();
        }
    }
}

#[test]
fn what_is_hit_survives_scans_whatever_the_number_of_shards() {
    for shards in [1, 8] {
        let cache = Cache::builder().capacity(1_000).shards(shards).build().unwrap();
        settled(&cache, 200);
        for round in 1..10 {
            scan(&cache, round);
            (0..200).for_each(|key| assert!(cache.get(&key).is_some(), "{key} with {shards} shards"));
        }
    }
}

#[test]
fn a_new_value_stands_where_the_old_one_stood() {
    let (clock, time) = Clock::manual();
    let cache = Cache::builder().capacity(1_000).shards(1).clock(clock).build().unwrap();
    settled(&cache, 200);
    for round in 1..10 {
        for key in 0..200 {
            let hit = cache.get(&key);
            assert!(hit.is_some(), "{key}");
            match key % 4 {
                0 => cache.insert(key, round).unwrap(),
                1 => assert_eq!(cache.update(&key, |value| value + 1), Some(round)),
                2 => {
                    assert!(cache.expire(&key));
                    assert_eq!(cache.get_or_load(&key, |_| Ok::<_, ()>(round)).unwrap(), round);
                }
                _ => {
                    let brief = EntryOptions::new().ttl(Duration::from_millis(1));
                    cache.insert_with(key, round, brief).unwrap();
                    // Dead, and not reclaimed by the time that it is loaded again.
                    time.advance(Duration::from_millis(1));
                    assert_eq!(cache.get_or_load(&key, |_| Ok::<_, ()>(round)).unwrap(), round);
                }
            }
        }
        scan(&cache, round);
    }
    (0..200).for_each(|key| assert!(cache.get(&key).is_some(), "{key}"));
}

#[test]
fn a_loop_larger_than_the_cache_keeps_a_part_of_itself() {
    let cache = Cache::builder().capacity(1_000).build().unwrap();
    let mut hits = 0;
    for key in (0..3_000_u64).cycle().take(60_000) {
        match cache.get(&key) {
            Some(_) => hits += 1,
            None => cache.insert(key, key).unwrap(),
        }
    }
    // A third of it fits; what is used least recently is never there when it is wanted.
    assert!(hits > 60_000 / 5, "{hits}");
}

#[test]
fn the_hot_come_back_after_storms_of_clears_removals_and_capacities() {
    let cache = Cache::builder().capacity(1_000).shards(4).build().unwrap();
    settled(&cache, 200);
    for round in 1..10 {
        match round % 3 {
            0 => (0..50).for_each(|_| cache.clear()),
            1 => (0..200).chain((round << 32)..(round << 32) + 10_000).for_each(|key| {
                cache.remove(&key);
            }),
            _ => [10, 5_000, 0, 1_000].into_iter().for_each(|capacity| cache.set_capacity(capacity)),
        }
        for key in 0..200 {
            cache.insert(key, 0).unwrap();
            (0..3).for_each(|_| assert!(cache.get(&key).is_some()));
        }
        scan(&cache, round);
        // An eviction moves so many entries at most and then takes one, hit or not: by chance of the hasher, a few of a shard's.
        let hot = (0..200).filter(|key| cache.get(key).is_some()).count();
        assert!(hot >= 190, "{hot} of 200 in round {round}");
        assert!(cache.weight() <= cache.capacity());
    }
}
