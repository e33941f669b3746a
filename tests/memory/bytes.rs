//! Bytes for an entry, a cache and a group: the formula of the guide's section on memory, one constant for each part of it.
//!
//! What is counted is requested from the allocator, and leaves out what that adds by rounding up.

#![allow(clippy::print_stdout, reason = "the figures, for who asks with `--nocapture`")]

use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use crate::heap::account_of;
use crate::{Local, SHARDS, Value, cache, insert};

/// An entry beyond key and value: its deadlines, the moment it was made, weight, grace, recency, one group, and its count of
/// references.
const ENTRY: u64 = 112;

/// Its part of the table that leads from keys to entries. 10 where the table is as full as can be.
const INDEX: u64 = 24;

/// Its place in the order of eviction, and what the list of places has in reserve.
const ORDER: u64 = 27;

/// Its part of what is remembered of those that were evicted. Nothing before the first eviction.
const GHOST: u64 = 10;

/// What an entry of two or more groups needs for their list, and then for each of them.
const GROUPS: u64 = 16;
const EACH_GROUP: u64 = 8;

/// What a cache needs that holds nothing, and each of its shards.
const CACHE: u64 = 12_000;
const SHARD: u64 = 1_024;

/// What a cache that has been emptied keeps of every entry that it held, for those to come.
const KEPT: u64 = ORDER + GHOST;

/// A group that an entry belongs to, beyond its name.
const GROUP: u64 = 150;

/// What a registry of groups keeps for names to come, and for good from the first bump of a group on, however many follow.
const NAMES: u64 = 48 << 10;
const FLOORS: u64 = 96 << 10;

/// How many times over a cache is filled until all of it has been used.
const CHURN: u64 = 3;

#[test]
fn a_small_cache_of_integers() {
    check(1_000, &[], |number| number, 0);
    check(1_000, &["one"], |number| number, 0);
    check(1_000, &["one", "two"], |number| number, 0);
}

#[test]
fn a_large_cache_with_one_group() {
    check(100_000, &["one"], |number| number, 0);
}

#[test]
fn a_large_cache_with_two_groups() {
    check(100_000, &["one", "two"], |number| number, 0);
}

#[test]
fn caches_of_strings() {
    // As long as its text, and not a byte in reserve.
    let name = |number| format!("/page/{number:010}").into_boxed_str().into_string();
    let length = name(0).len() as u64;
    check(1_000, &["one"], name, length);
    check(100_000, &["one"], name, length);
}

#[test]
fn a_group_is_paid_for_while_an_entry_has_it() {
    const ENTRIES: u64 = 10_000;
    let name = |number| format!("group {number:05}");
    let names: Vec<String> = (0..ENTRIES).map(name).collect();
    let value = value();
    let grown = |cache: &Local<u64>, group: &dyn Fn(u64) -> String| {
        let insert = |number| insert(cache, number, value.clone(), &[&group(number)]);
        account_of(|| (0..ENTRIES).for_each(insert)).1.bytes
    };
    let shared = grown(&cache(ENTRIES), &|_| name(0));
    let (cache, made) = account_of(|| cache(ENTRIES));
    let own = grown(&cache, &|number| name(number));
    let group = (own - shared) as u64 / (ENTRIES - 1);
    println!("{group} bytes a group of {} letters", names[0].len());
    assert!(group <= GROUP + names[0].len() as u64, "{group} bytes a group");

    let bumps = account_of(|| names.iter().for_each(|name| cache.invalidate_group(name))).1.bytes;
    assert!(bumps as u64 <= FLOORS, "{bumps} bytes for the bumps of {ENTRIES} groups");
    let ((), removed) = account_of(|| empty(&cache, 0..ENTRIES));
    let left = made.bytes + own + bumps + removed.bytes;
    println!("{bumps} bytes of bumps, {left} bytes left");
    assert!(left as u64 <= emptied(ENTRIES) + NAMES + FLOORS, "{left} bytes left of {ENTRIES} groups that are gone");
}

/// Holds a cache of `entries` keys, each of which has `heap` bytes of its own, to the formula: when it has just become full,
/// when it has been used for long, and when it has been emptied in either way.
fn check<K>(entries: u64, groups: &[&str], key: impl Fn(u64) -> K, heap: u64)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let value = value();
    let payload = payload::<K>(heap);
    let mut taken = 0;
    let mut hold = |when: &str, bytes: i64, bound: u64| {
        taken += bytes;
        let each = taken as f64 / entries as f64 - payload as f64;
        println!("{entries} entries, {} groups, {when}: {taken} bytes of {bound}, {each:+.1} an entry", groups.len());
        let taken = u64::try_from(taken).expect("a cache gives back no more than it took");
        assert!(taken <= bound, "{entries} entries, {} groups, {when}: {taken} bytes, more than {bound}", groups.len());
    };
    let (cache, made) = account_of(|| cache(entries));
    hold("empty", made.bytes, CACHE + SHARD * SHARDS);

    let full = formula(entries, payload, groups.len() as u64, 0);
    hold("full", fill(&cache, 0..entries, groups, &value, &key), full);
    let used = formula(entries, payload, groups.len() as u64, GHOST);
    hold("used", fill(&cache, entries..CHURN * entries, groups, &value, &key), used);
    assert_eq!(cache.len() as u64, entries, "the bytes are those of another number of entries");

    let ((), cleared) = account_of(|| {
        cache.clear();
        cache.run_maintenance();
    });
    hold("cleared", cleared.bytes, emptied(entries));
    assert_eq!(Arc::strong_count(&value), 1, "values outlive the cache's clearing");

    hold("full again", fill(&cache, 0..entries, groups, &value, &key), used);
    let ((), removed) = account_of(|| empty(&cache, (0..entries).map(&key)));
    hold("removed", removed.bytes, emptied(entries));
    assert_eq!(Arc::strong_count(&value), 1, "values outlive their removal");
}

/// Inserts the keys of these numbers, and returns by how many bytes that has made the heap grow.
fn fill<K>(cache: &Local<K>, numbers: Range<u64>, groups: &[&str], value: &Value, key: impl Fn(u64) -> K) -> i64
where
    K: Hash + Eq + Send + Sync + 'static,
{
    let insert = |number| insert(cache, key(number), value.clone(), groups);
    account_of(|| numbers.for_each(insert)).1.bytes
}

/// Removes all that a cache holds, key by key.
fn empty<K>(cache: &Local<K>, keys: impl Iterator<Item = K>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    for key in keys {
        cache.remove(&key);
    }
    assert!(cache.is_empty());
    cache.run_maintenance();
}

/// Returns the most that a cache of so many entries takes, each with this payload, in so many groups.
fn formula(entries: u64, payload: u64, groups: u64, ghost: u64) -> u64 {
    let groups = if groups > 1 { GROUPS + EACH_GROUP * groups } else { 0 };
    CACHE + SHARD * SHARDS + entries * (payload + ENTRY + INDEX + ORDER + ghost + groups)
}

/// Returns the most that a cache takes once it is empty and has held so many entries.
fn emptied(entries: u64) -> u64 {
    CACHE + SHARD * SHARDS + KEPT * entries
}

/// Returns the size of a key with so many bytes on the heap, and of a value whose bytes all entries share.
fn payload<K>(heap: u64) -> u64 {
    (size_of::<K>() + size_of::<Value>()) as u64 + heap
}

fn value() -> Value {
    Arc::from([1; 64])
}
