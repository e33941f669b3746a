//! Allocations of one operation, on a cache that is full and has been used for a while.

use std::convert::Infallible;
use std::sync::Arc;

use larder::Lookup;

use crate::heap::account_of;
use crate::{Local, cache, insert};

/// An insert makes an entry.
const INSERT: u64 = 1;

/// So do options that name one group: its name.
const NAMED_GROUP: u64 = 1;

const ENTRIES: u64 = 1_000;

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
fn inserts_allocate_the_entry_and_nothing_else() {
    let value = Arc::from([1; 64]);
    let (cache, _) = used(&[]);
    let newcomers = 100 * ENTRIES..101 * ENTRIES;
    let inserts = allocations(newcomers, &mut |key| insert(&cache, key, Arc::clone(&value), &[]));
    assert!(inserts <= INSERT * ENTRIES, "{inserts} for {ENTRIES} inserts that evict");
    assert_eq!(cache.len() as u64, ENTRIES, "nothing was evicted");
    let residents = cache.iter().map(|(key, _)| key).collect::<Vec<_>>();
    let inserts = allocations(residents, &mut |key| insert(&cache, key, Arc::clone(&value), &[]));
    assert!(inserts <= INSERT * ENTRIES, "{inserts} for {ENTRIES} inserts that replace");
}

#[test]
fn inserts_with_a_group_allocate_its_name_as_well() {
    let value = Arc::from([1; 64]);
    let (cache, _) = used(&["group"]);
    let newcomers = 100 * ENTRIES..101 * ENTRIES;
    let inserts = allocations(newcomers, &mut |key| insert(&cache, key, Arc::clone(&value), &["group"]));
    assert!(inserts <= (INSERT + NAMED_GROUP) * ENTRIES, "{inserts} for {ENTRIES} inserts that evict");
}

#[test]
fn removals_allocate_nothing_and_invalidations_once() {
    let (cache, residents) = used(&["group"]);
    assert_eq!(allocations(residents.iter().copied().take(100), &mut |key| assert!(cache.expire(&key))), 0, "expire");
    // Room for what later groups have to know of bumps.
    assert_eq!(allocations(0..1, &mut |_| cache.invalidate_group("group")), 1, "the first invalidate_group");
    assert_eq!(allocations(0..100, &mut |_| cache.invalidate_group("group")), 0, "invalidate_group");
    assert_eq!(allocations(0..100, &mut |_| cache.invalidate_group("unknown")), 0, "invalidate_group of no entries");
    let (cache, residents) = used(&["group"]);
    assert_eq!(allocations(residents, &mut |key| drop(cache.remove(&key))), 0, "remove");
    assert!(cache.is_empty());
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
