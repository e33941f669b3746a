//! What belongs nowhere else: borrowed keys, iteration, order of answers, and what may cross threads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::{
    Batch, BuildError, Cache, CacheBuilder, Claim, Clock, EntryInfo, EntryOptions, Fill, Groups, Load, LoadError,
    Lookup, ManualClock, Rejected, RemovalCause, Stats,
};

use crate::scene::together;

#[test]
fn keys_are_looked_up_and_made_from_borrowed_forms() {
    let strings: Cache<String, u32> = Cache::new(100);
    assert_eq!(strings.get_or_load("a", |_| Ok::<_, ()>(1)).unwrap(), 1);
    assert_eq!((strings.get("a"), strings.get(&"a".to_owned())), (Some(1), Some(1)));
    assert_eq!(strings.get_many(["a", "b"]), [Some(1), None]);
    assert!(strings.expire("a") && strings.contains("a"));
    assert_eq!((strings.update("a", |value| value + 1), strings.remove("a")), (Some(2), Some(2)));
    assert_eq!(strings.get_or_insert_with("c", || 3), 3);
    strings.remove_many(["c", "d"]);
    assert!(strings.is_empty());

    let boxed: Cache<Box<str>, u32> = Cache::new(100);
    assert_eq!(boxed.get_or_insert_with("a", || 1), 1);
    assert_eq!(boxed.get("a"), Some(1));
    let shared: Cache<Arc<str>, u32> = Cache::new(100);
    assert_eq!(shared.get_or_insert_with("a", || 1), 1);
    assert_eq!((shared.get("a"), shared.get(&Arc::<str>::from("a"))), (Some(1), Some(1)));
    let bytes: Cache<Vec<u8>, u32> = Cache::new(100);
    assert_eq!(bytes.get_or_insert_with(&b"a"[..], || 1), 1);
    assert_eq!((bytes.get(&b"a"[..]), bytes.get(&b"a".to_vec())), (Some(1), Some(1)));
    let slices: Cache<Arc<[u8]>, u32> = Cache::new(100);
    assert_eq!(slices.get_or_insert_with(&b"a"[..], || 1), 1);
    let slices: Cache<Box<[u8]>, u32> = Cache::new(100);
    assert_eq!(slices.get_or_insert_with(&b"a"[..], || 1), 1);
    let tuples: Cache<(u32, String), u32> = Cache::new(100);
    assert_eq!(tuples.get_or_insert_with(&(1, "a".to_owned()), || 1), 1);
}

#[test]
fn answers_come_in_the_order_of_the_keys() {
    let cache: Cache<u32, u32> = Cache::new(1_000);
    (0..100).filter(|key| key % 3 != 0).for_each(|key| cache.insert(key, key).unwrap());
    let keys: Vec<u32> = (0..100).rev().chain([5, 5]).collect();
    let expected: Vec<_> = keys.iter().map(|key| (key % 3 != 0).then_some(*key)).collect();
    assert_eq!(cache.get_many(&keys), expected);
    let loaded = cache.get_many_or_load(&keys, |batch: Batch<u32, u32>| {
        // In any order, as a database gives them.
        let mut pairs: Vec<_> = batch.keys().map(|key| (*key, *key)).collect();
        pairs.reverse();
        Ok::<_, ()>(pairs)
    });
    assert_eq!(loaded.unwrap(), keys.iter().map(|key| Some(*key)).collect::<Vec<_>>());
}

#[test]
fn an_iteration_meets_what_is_there_throughout_once() {
    let cache: Cache<u32, u32> = Cache::builder().capacity(100_000).shards(8).build().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, key).unwrap());
    let done = AtomicBool::new(false);
    together(3, |thread| match thread {
        0 => {
            for round in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                cache.insert(1_000 + round % 1_000, round).unwrap();
                cache.remove(&(1_000 + (round + 500) % 1_000));
                cache.retain(|key, _| *key < 1_000 || key % 2 == 0);
            }
        }
        _ => {
            for _ in 0..20 {
                let met: Vec<_> = cache.iter().map(|(key, _)| key).collect();
                let unique: BTreeSet<_> = met.iter().copied().collect();
                assert_eq!(unique.len(), met.len(), "an entry was met twice");
                assert!((0..1_000).all(|key| unique.contains(&key)));
            }
            done.store(true, Ordering::Relaxed);
        }
    });
    assert_eq!((&cache).into_iter().filter(|(key, _)| *key < 1_000).count(), 1_000);
}

#[test]
fn add_lets_one_of_many_win_and_update_loses_nothing() {
    let cache: Cache<u32, u64> = Cache::new(1_000);
    let added = together(8, |thread| (0..100).filter(|key| cache.add(*key, thread as u64).unwrap()).count());
    assert_eq!(added.into_iter().sum::<usize>(), 100);
    cache.insert(1, 0).unwrap();
    together(4, |_| (0..2_000).for_each(|_| assert!(cache.update(&1, |count| count + 1).is_some())));
    assert_eq!(cache.get(&1), Some(8_000));
}

#[test]
fn a_value_in_use_outlives_its_entry() {
    let cache: Cache<u32, String> = Cache::new(10);
    cache.insert(1, "one".into()).unwrap();
    let found = cache.with(&1, |value| {
        assert_eq!(cache.remove(&1).as_deref(), Some("one"));
        cache.insert(1, "two".into()).unwrap();
        value.clone()
    });
    assert_eq!((found.as_deref(), cache.get(&1).as_deref()), (Some("one"), Some("two")));
}

fn is_send<T: Send>(_: &T) {}
fn is_shared<T: Send + Sync + 'static>() {}
fn is_cloned<T: Clone>() {}

#[test]
fn what_should_cross_threads_does() {
    type Errors = LoadError<std::io::Error>;
    is_shared::<Cache<String, String>>();
    is_shared::<CacheBuilder<String, String>>();
    is_shared::<Claim<String, String>>();
    is_shared::<Lookup<String, Claim<String, String>>>();
    is_shared::<Load<String>>();
    is_shared::<Batch<String, String>>();
    is_shared::<larder::Iter<String, String>>();
    is_shared::<EntryOptions>();
    is_shared::<(EntryInfo, Stats, RemovalCause, Fill<String>, Rejected, BuildError)>();
    is_shared::<(Groups, Clock, ManualClock)>();
    is_shared::<Errors>();
    is_cloned::<(Cache<String, String>, Groups, Clock, ManualClock, EntryOptions)>();
    is_cloned::<(Errors, Rejected, BuildError, EntryInfo, Fill<String>)>();
    let cache: Cache<String, u32> = Cache::new(10);
    is_send(&cache.get_or_load_async("a", |_| async { Ok::<_, ()>(1) }));
    is_send(&cache.get_or_load_detached("a", drop, |_| async { Ok::<_, ()>(1) }));
    is_send(&cache.get_many_or_load_async(["a"], |_| async { Ok::<_, ()>(vec![]) }));
    let Lookup::Vacant(claim) = cache.lookup("a") else { panic!("a is vacant") };
    is_send(&claim.load_async(|_| async { Ok::<_, ()>(1) }));
}

#[test]
fn a_claim_may_be_filled_from_another_thread_after_its_cache_is_gone() {
    let cache: Cache<String, u32> = Cache::new(10);
    let Lookup::Vacant(claim) = cache.lookup("a") else { panic!("a is vacant") };
    assert!(format!("{claim:?}").contains("\"a\""));
    drop(cache);
    let filled = std::thread::spawn(move || claim.fill(1)).join().unwrap();
    assert!(filled.is_stored());
}

#[test]
fn errors_say_what_happened() {
    let cache: Cache<u32, u32> = Cache::new(10);
    let error = cache.get_or_load(&1, |_| Err::<u32, _>(std::io::Error::other("no disk"))).unwrap_err();
    assert!(error.to_string().contains("no disk"));
    assert!(std::error::Error::source(&error).is_some());
    assert!(std::ptr::eq(error.loader().unwrap(), error.clone().loader().unwrap()));
}
