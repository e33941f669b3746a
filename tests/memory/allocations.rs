//! Allocations of one operation, on a cache that is full and has been used for a while.

use std::convert::Infallible;
use std::sync::Arc;

use larder::Lookup;

use crate::heap::account_of;
use crate::{Local, SHARDS, cache, insert};

/// Options that name a group in more than 22 bytes allocate its name.
const LONG_NAME: u64 = 1;

/// Options that name two groups allocate the list of their names, and the entry that of the groups.
const LISTS_OF_TWO: u64 = 2;

/// How often the lists of a shard grow in which entries wait to be dropped, in all its life: each of three of them to room for
/// 128, which is as many as can be of so small a cache.
const LISTS: u64 = 3 * 6 * SHARDS;

const ENTRIES: u64 = 1_000;

/// How many times as many operations are counted as there are entries: one allocation for each would be far more than [`LISTS`],
/// and so would be one for each time that somebody looks whether those who wait are still in use.
const ROUNDS: u64 = 20;

#[test]
fn reads_allocate_nothing() {
    let (cache, residents) = used(&["group"]);
    let each = |read: &mut dyn FnMut(u64)| allocations(residents.iter().copied(), read);
    assert_eq!(each(&mut |key| drop(cache.get(&key))), 0, "get");
    assert_eq!(each(&mut |key| assert_eq!(cache.with(&key, |value| value.len()), Some(64))), 0, "with");
    assert_eq!(each(&mut |key| drop(cache.peek(&key))), 0, "peek");
    assert_eq!(each(&mut |key| assert!(cache.contains(&key))), 0, "contains");
    assert_eq!(each(&mut |key| assert!(matches!(cache.lookup(&key), Lookup::Fresh(_)))), 0, "lookup");
    let load = |key| cache.get_or_load(&key, |_| -> Result<_, Infallible> { unreachable!("every key is resident") });
    assert_eq!(each(&mut |key| assert!(load(key).is_ok())), 0, "get_or_load");
    assert_eq!(each(&mut |key| assert!(cache.get(&!key).is_none())), 0, "get of an absent key");
    cache.expire_group("group");
    assert_eq!(each(&mut |key| assert!(cache.get(&key).is_some())), 0, "get of a stale entry");
    cache.invalidate_group("group");
    assert_eq!(each(&mut |key| assert!(cache.get(&key).is_none())), 0, "get of a dead entry");
}

#[test]
fn inserts_allocate_lists_that_stay_and_nothing_else() {
    let value = Arc::from([1; 64]);
    let (cache, _) = used(&[]);
    let each = |keys: &mut dyn Iterator<Item = u64>| {
        allocations(keys, &mut |key| insert(&cache, key, Arc::clone(&value), &[]))
    };
    let newcomers = 100 * ENTRIES..(100 + ROUNDS) * ENTRIES;
    let inserts = each(&mut newcomers.clone());
    assert!(inserts <= LISTS, "{inserts} in {} inserts that evict", ROUNDS * ENTRIES);
    assert_eq!(cache.len() as u64, ENTRIES, "nothing was evicted");
    let residents: Vec<u64> = cache.iter().map(|(key, _)| key).collect();
    assert!(residents.iter().any(|key| newcomers.contains(key)), "nothing has come");
    let inserts = (0..ROUNDS).map(|_| each(&mut residents.iter().copied())).sum::<u64>();
    assert!(inserts <= LISTS, "{inserts} in {} inserts that replace", ROUNDS * ENTRIES);
}

#[test]
fn inserts_with_groups_allocate_long_names_and_lists_of_two() {
    let value = Arc::from([1; 64]);
    let long = "a group whose name is of more than 22 bytes";
    for (groups, each) in [(&["group"][..], 0), (&[long], LONG_NAME), (&["one", "two"], LISTS_OF_TWO)] {
        let (cache, _) = used(groups);
        let newcomers = 100 * ENTRIES..101 * ENTRIES;
        let inserts = allocations(newcomers, &mut |key| insert(&cache, key, Arc::clone(&value), groups));
        let lists = inserts.checked_sub(each * ENTRIES).expect("what is counted is what an insert needs, and more");
        assert!(lists <= LISTS, "{inserts} in {ENTRIES} inserts that evict, in {groups:?}");
    }
}

#[test]
fn removals_allocate_lists_that_stay_and_invalidations_once() {
    let (cache, residents) = used(&["group"]);
    assert_eq!(allocations(residents.iter().copied().take(100), &mut |key| assert!(cache.expire(&key))), 0, "expire");
    // Room for what later groups have to know of bumps.
    assert_eq!(allocations(0..1, &mut |_| cache.invalidate_group("group")), 1, "the first invalidate_group");
    assert_eq!(allocations(0..100, &mut |_| cache.invalidate_group("group")), 0, "invalidate_group");
    assert_eq!(allocations(0..100, &mut |_| cache.invalidate_group("unknown")), 0, "invalidate_group of no entries");
    assert_eq!(allocations(0..1, &mut |_| cache.clear()), 0, "clear");
    let (cache, residents) = used(&["group"]);
    let mut removals = 0;
    for _ in 0..ROUNDS {
        removals += allocations(residents.iter().copied(), &mut |key| drop(cache.remove(&key)));
        assert!(cache.is_empty());
        residents.iter().for_each(|&key| insert(&cache, key, Arc::from([1; 64]), &["group"]));
    }
    assert!(removals <= LISTS, "{removals} in {} removals", ROUNDS * ENTRIES);
}

/// A cache that has evicted nine times as many entries as it holds, and the keys that it holds.
fn used(groups: &[&str]) -> (Local<u64>, Vec<u64>) {
    let cache = cache(ENTRIES);
    for key in 0..10 * ENTRIES {
        insert(&cache, key, Arc::from([1; 64]), groups);
    }
    let residents: Vec<u64> = cache.iter().map(|(key, _)| key).collect();
    // What a thread's first read sets up is no part of the others.
    assert!(cache.get(&residents[0]).is_some());
    (cache, residents)
}

fn allocations(keys: impl IntoIterator<Item = u64>, operation: &mut dyn FnMut(u64)) -> u64 {
    account_of(|| keys.into_iter().for_each(operation)).1.allocations
}
