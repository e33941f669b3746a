//! Weight: what entries weigh, what is refused, and that the sum never exceeds the capacity.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use larder::{Cache, Clock, EntryOptions, Fill, Lookup, RemovalCause};

use crate::scene::{ByKey, eventually, ms, roomy, together, within_patience};

fn weighing(weight: u64) -> EntryOptions {
    EntryOptions::new().weight(weight)
}

#[test]
fn the_weigher_is_asked_once_and_an_entrys_own_weight_goes_before_it() {
    let cache: Cache<u32, String> =
        Cache::builder().capacity(100).weigher(|_, value: &String| value.len() as u64).build().unwrap();
    cache.insert(1, "abc".into()).unwrap();
    cache.insert(2, String::new()).unwrap();
    cache.insert_with(3, "abc".into(), weighing(10)).unwrap();
    cache.insert_with(4, "abc".into(), weighing(0)).unwrap();
    let weights = [1, 2, 3, 4].map(|key| cache.inspect(&key).unwrap().weight);
    assert_eq!((weights, cache.weight()), ([3, 1, 10, 1], 15));
    assert_eq!(cache.update(&1, |value| value.repeat(2)).as_deref(), Some("abcabc"));
    assert_eq!(cache.weight(), 18);
    assert_eq!(
        cache
            .get_or_load(&5, |load| {
                load.weight(7);
                Ok::<_, ()>("loaded".into())
            })
            .unwrap(),
        "loaded"
    );
    assert_eq!(cache.weight(), 25);
}

#[test]
fn what_is_too_heavy_is_refused_with_both_weights_and_leaves_the_key_vacant() {
    for shards in [1, 8] {
        let cache: Cache<u32, u32> = Cache::builder().capacity(10).shards(shards).build().unwrap();
        cache.insert(1, 1).unwrap();
        let rejected = cache.insert_with(1, 2, weighing(11)).unwrap_err();
        assert_eq!((rejected.weight, rejected.capacity), (11, 10));
        assert!(rejected.to_string().contains("11") && rejected.to_string().contains("10"));
        assert_eq!((cache.get(&1), cache.weight(), cache.len()), (None, 0, 0));

        cache.insert(2, 1).unwrap();
        cache.expire(&2);
        let Lookup::Stale { claim: Some(claim), .. } = cache.lookup(&2) else { panic!("2 is stale") };
        assert_eq!(claim.fill_with(5, weighing(11)), Fill::Rejected(5));
        assert_eq!((cache.get(&2), cache.weight()), (None, 0));
        assert!(matches!(cache.lookup(&2), Lookup::Vacant(_)), "a refused fill frees the key");

        assert_eq!(
            cache
                .get_or_load(&3, |load| {
                    load.weight(u64::MAX);
                    Ok::<_, ()>(7)
                })
                .unwrap(),
            7
        );
        assert_eq!(cache.get(&3), None);
        assert_eq!(cache.stats().rejections, 3);
    }
}

#[test]
fn insert_many_stores_what_fits_and_names_the_first_that_does_not() {
    let cache: Cache<u32, u64> = Cache::builder().capacity(10).weigher(|_, value| *value).build().unwrap();
    let rejected = cache.insert_many([(1, 1), (2, 20), (3, 30), (4, 4)]).unwrap_err();
    assert_eq!(rejected.weight, 20);
    assert_eq!(cache.get_many(&[1, 2, 3, 4]), [Some(1), None, None, Some(4)]);
}

#[test]
fn one_entry_as_large_as_the_cache_takes_the_room_of_all_shards() {
    let cache: Cache<u32, u32> = Cache::builder().capacity(64).shards(64).build().unwrap();
    for key in 0..64 {
        cache.insert(key, key).unwrap();
    }
    assert_eq!(cache.len(), 64, "nothing is evicted below capacity, however the keys spread");
    cache.insert_with(1_000, 7, weighing(64)).unwrap();
    assert_eq!((cache.get(&1_000), cache.len(), cache.weight()), (Some(7), 1, 64));
    cache.insert(1, 1).unwrap();
    assert_eq!((cache.get(&1), cache.len(), cache.weight()), (Some(1), 1, 1));
}

#[test]
fn nothing_is_evicted_below_capacity() {
    for (capacity, shards) in [(10, None), (10, Some(16)), (1_000, None), (1_000, Some(64))] {
        let mut builder = Cache::<u64, u64>::builder().capacity(capacity);
        if let Some(shards) = shards {
            builder = builder.shards(shards);
        }
        let cache = builder.build().unwrap();
        for key in 0..capacity {
            cache.insert(key, key).unwrap();
            cache.insert(key, key).unwrap();
        }
        assert!((0..capacity).all(|key| cache.peek(&key) == Some(key)));
        assert_eq!(cache.stats().evictions, 0);
        cache.insert(capacity, 0).unwrap();
        assert_eq!((cache.stats().evictions, cache.weight()), (1, capacity));
    }
    let plain: Cache<u32, u32> = Cache::new(10);
    (0..10).for_each(|key| plain.insert(key, key).unwrap());
    assert_eq!(plain.len(), 10);
}

#[test]
fn a_capacity_of_zero_stores_nothing_and_shares_loads() {
    let cache: Cache<u32, u32> = Cache::new(0);
    assert_eq!(cache.insert(1, 1).unwrap_err().capacity, 0);
    assert_eq!(cache.add(1, 1).unwrap_err().weight, 1);
    assert_eq!((cache.get(&1), cache.len(), cache.capacity()), (None, 0, 0));
    let loading = AtomicBool::new(false);
    let shared = thread::scope(|scope| {
        let leader = scope.spawn(|| {
            cache.get_or_load(&1, |_| {
                loading.store(true, Ordering::Relaxed);
                eventually("somebody waits", || cache.stats().load_waits == 1);
                Ok::<_, ()>(7)
            })
        });
        eventually("the load begins", || loading.load(Ordering::Relaxed));
        let follower = cache.get_or_load(&1, |_| -> Result<u32, ()> { panic!("the load is shared") });
        (leader.join().unwrap().unwrap(), follower.unwrap())
    });
    assert_eq!((shared, cache.get(&1)), ((7, 7), None));
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let cache: Cache<u32, u32> = Cache::builder().capacity(u64::MAX).shards(4).build().unwrap();
    cache.insert_with(1, 1, weighing(u64::MAX)).unwrap();
    assert_eq!((cache.weight(), cache.get(&1)), (u64::MAX, Some(1)));
    cache.insert_with(1, 2, weighing(u64::MAX)).unwrap();
    cache.insert(2, 2).unwrap();
    assert_eq!((cache.weight(), cache.get(&1), cache.get(&2)), (1, None, Some(2)));
    cache.insert_with(3, 3, weighing(u64::MAX - 1)).unwrap();
    assert_eq!((cache.weight(), cache.len()), (u64::MAX, 2));
    cache.set_capacity(1);
    assert!(cache.weight() <= 1);
    cache.set_capacity(u64::MAX);
    cache.insert_with(3, 3, weighing(u64::MAX)).unwrap();
    assert_eq!(cache.weight(), u64::MAX);
}

#[test]
fn dead_entries_leave_before_live_ones() {
    for by_group in [false, true] {
        let evicted = Arc::new(Mutex::new(Vec::new()));
        let (clock, time) = Clock::manual();
        let cache = Cache::builder()
            .capacity(10)
            .shards(1)
            .clock(clock)
            .on_removal({
                let evicted = evicted.clone();
                move |key: &u32, _: &u32, cause| evicted.lock().unwrap().push((*key, cause))
            })
            .build()
            .unwrap();
        let doomed = || if by_group { EntryOptions::new().groups(["g"]) } else { EntryOptions::new().ttl(ms(5)) };
        for key in 0..10 {
            let options = if key % 2 == 0 { EntryOptions::new() } else { doomed() };
            cache.insert_with(key, key, options).unwrap();
        }
        cache.invalidate_group("g");
        time.advance(ms(5));
        (10..15).for_each(|key| cache.insert(key, key).unwrap());
        let cause = if by_group { RemovalCause::Invalidated } else { RemovalCause::Expired };
        let mut gone = std::mem::take(&mut *evicted.lock().unwrap());
        gone.sort_by_key(|(key, _)| *key);
        assert_eq!(gone, [1, 3, 5, 7, 9].map(|key| (key, cause)));
        assert!((0..10).step_by(2).chain(10..15).all(|key| cache.contains(&key)));
    }
}

/// The search for dead entries goes round a shard a few steps at a time. An entry that died behind the place that it has
/// reached must be found all the same before a live one is evicted.
#[test]
fn a_dead_entry_is_found_wherever_the_sweep_has_stopped() {
    for dies in 0..12 {
        let cache: Cache<u32, u32> = Cache::builder().capacity(12).shards(1).build().unwrap();
        for key in 0..11 {
            cache.insert_with(key, key, EntryOptions::new().groups([key.to_string()])).unwrap();
        }
        // A bump that kills nobody here starts a round, and this insert takes it a few steps on.
        cache.insert_with(11, 11, EntryOptions::new().groups(["11", "none"])).unwrap();
        cache.expire_group("none");
        cache.insert_with(11, 11, EntryOptions::new().groups(["11"])).unwrap();
        cache.invalidate_group(&dies.to_string());
        cache.insert(100, 100).unwrap();
        assert_eq!(cache.stats().evictions, 0, "{dies} was dead, and a live entry was evicted in its stead");
    }
}

#[test]
fn the_weight_never_exceeds_the_capacity_while_threads_insert_small_and_large() {
    within_patience("inserts of all sizes end", || {
        for shards in [1, 8] {
            let cache: Cache<u32, u32> = Cache::builder().capacity(100).shards(shards).build().unwrap();
            let over = AtomicBool::new(false);
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        // A sum over several shards is no snapshot: weight moves from one to another meanwhile.
                        let sampled = if shards == 1 { cache.weight() } else { 0 };
                        over.fetch_or(sampled > 100, Ordering::Relaxed);
                    }
                });
                together(4, |thread| {
                    for round in 0..3_000 {
                        let key = (thread as u32 * 7_919 + round) % 500;
                        let weight =
                            if round % 10 == 0 { 40 + u64::from(round % 61) } else { u64::from(1 + round % 5) };
                        cache.insert_with(key, round, weighing(weight)).unwrap();
                        if round % 7 == 0 {
                            cache.remove(&(round % 500));
                        }
                    }
                });
                done.store(true, Ordering::Relaxed);
            });
            assert!(!over.load(Ordering::Relaxed));
            assert!(cache.weight() <= 100);
            // No weight was lost on the way: one entry may still take all of it.
            cache.insert_with(7, 7, weighing(100)).unwrap();
            assert_eq!((cache.weight(), cache.len()), (100, 1));
        }
    });
}

/// Two inserts that need more than their shards hold, each with a part of the free weight in hand: the one that collects
/// waited for the part of the other, which waited for its turn to collect.
#[test]
fn inserts_that_collect_from_other_shards_do_not_wait_for_each_other() {
    within_patience("large inserts into different shards end", || {
        for _ in 0..20 {
            let cache: Cache<u32, u32> = Cache::builder().capacity(10).shards(8).build().unwrap();
            together(4, |thread| {
                for round in 0..500_u32 {
                    let key = thread as u32 * 1_000 + round;
                    cache.insert_with(key, 0, weighing(6 + u64::from(round + thread as u32) % 5)).unwrap();
                    cache.insert_with(key + 500, 0, weighing(3)).unwrap();
                }
            });
            assert!(cache.weight() <= 10);
        }
    });
}

/// The listener runs while an insert has collected weight from other shards, and inserts in its turn.
#[test]
fn a_listener_may_insert_what_needs_room_itself() {
    within_patience("an insert whose listener inserts ends", || {
        let handle = Arc::new(OnceLock::<Cache<u32, u32, ByKey>>::new());
        let listener = {
            let handle = handle.clone();
            move |key: &u32, _: &u32, cause| {
                if cause == RemovalCause::Evicted && *key < 100 {
                    handle.get().unwrap().insert(101 + key, 0).unwrap();
                }
            }
        };
        let cache = Cache::builder().capacity(10).shards(2).hasher(ByKey).on_removal(listener).build().unwrap();
        handle.set(cache.clone()).unwrap();
        (0..10).for_each(|key| cache.insert(key * 2, 0).unwrap());
        cache.insert_with(1, 0, weighing(10)).unwrap();
        assert!(cache.weight() <= 10);
        cache.insert_with(2, 0, weighing(10)).unwrap();
        assert!(cache.weight() <= 10);
    });
}

#[test]
fn the_capacity_may_change_under_load() {
    within_patience("inserts and changes of the capacity end", || {
        let cache: Cache<u32, u32> = Cache::builder().capacity(50).shards(8).build().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                together(3, |thread| {
                    for round in 0..3_000_u32 {
                        let weight = 1 + u64::from(round * 31 + thread as u32) % 30;
                        let _ = cache.insert_with(round % 200 + thread as u32, round, weighing(weight));
                    }
                });
                done.store(true, Ordering::Relaxed);
            });
            for capacity in [5, 80, 0, 20, 50, u64::MAX, 7].into_iter().cycle() {
                cache.set_capacity(capacity);
                assert_eq!(cache.capacity(), capacity);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        cache.set_capacity(40);
        assert!(cache.weight() <= 40);
        cache.insert_with(1, 1, weighing(40)).unwrap();
        assert_eq!((cache.weight(), cache.get(&1)), (40, Some(1)));
    });
}

#[test]
fn a_smaller_capacity_evicts_at_once_and_a_larger_one_makes_room() {
    let (builder, _time) = roomy::<u32>();
    let cache = builder.capacity(100).shards(4).build().unwrap();
    (0..100).for_each(|key| cache.insert(key, key).unwrap());
    cache.set_capacity(30);
    assert_eq!((cache.weight(), cache.stats().evictions), (30, 70));
    cache.set_capacity(60);
    (200..230).for_each(|key| cache.insert(key, key).unwrap());
    assert_eq!((cache.weight(), cache.stats().evictions), (60, 70));
}

#[test]
fn weight_never_shows_more_than_the_capacity_while_entries_come_and_go() {
    for (capacity, heavy) in [(1_000, 400), (u64::MAX, u64::MAX)] {
        let cache: Cache<u32, u32> = Cache::builder().capacity(capacity).shards(8).build().unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for seed in 0..2 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    while !stop.load(Ordering::Relaxed) {
                        let weight = if random.u8(..3) == 0 { heavy } else { 1 };
                        cache.insert_with(random.u32(..1_000), 0, weighing(weight)).unwrap();
                    }
                });
            }
            let until = std::time::Instant::now() + ms(1_000);
            let most = std::iter::from_fn(|| (std::time::Instant::now() < until).then(|| cache.weight())).max();
            stop.store(true, Ordering::Relaxed);
            assert!(most.is_some_and(|most| most <= capacity), "{most:?} of {capacity}");
        });
    }
}
