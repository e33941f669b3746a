//! Bytes for an entry, a cache and a group: the formula of the guide's section on memory, one constant for each part of it.
//!
//! What is counted is requested from the allocator, and leaves out what that adds by rounding up.

#![allow(clippy::print_stdout, reason = "the figures, for who asks with `--nocapture`")]

use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use crate::heap::account_of;
use crate::{Local, SHARDS, Value, cache, insert};

/// An entry beyond key and value: 48 for what is known of it, 8 for its hash, 8 for what its slot adds.
const ENTRY: u64 = 64;

/// Its part of the table that leads from keys to entries: of the 64 bytes for six entries, and of one part in eight to spare.
const INDEX: u64 = 12;

/// Its place in the order of eviction.
const ORDER: u64 = 12;

/// Its part of what is remembered of those that were evicted. Nothing before the first eviction.
const GHOST: u64 = 6;

/// What a chunk of entries needs beside them: its head, and its places in two lists, which may be half empty.
const CHUNK: u64 = 56;

/// How many entries a chunk has at least and at most, and how many the order has room for at a time.
const CHUNKS: (u64, u64) = (8, 64);

/// What an entry of two or more groups needs for their list, and from three on for each that the list has room for.
const GROUPS: u64 = 80;
const EACH_GROUP: u64 = 8;

/// How many entries wait to be dropped at most, which part of the capacity, and what each of them needs for its place in one of
/// three lists, which may be half empty.
const WAITING: u64 = 1_280;
const WAITING_PARTS: (u64, u64) = (5, 32);
const WAITS: u64 = 48;

/// What a cache needs that holds nothing, and each of its shards, and what else each of these needs to begin with: the head of
/// its table and a bucket, and a quarter of a small table where more keys than expected are its own.
const CACHE: u64 = 12_000;
const SHARD: u64 = 800;
const BEGUN: u64 = 512;

/// A group that an entry belongs to, beyond its name.
const GROUP: u64 = 160;

/// What a registry of groups keeps for names to come, and for good from the first bump of a group on, however many follow.
const NAMES: u64 = 48 << 10;
const FLOORS: u64 = 64 << 10;

/// How many times over a cache is filled until all of it has been used.
const CHURN: u64 = 3;

#[test]
fn a_small_cache_of_integers() {
    check(1_000, &[], |number| number, 0);
    check(1_000, &["one"], |number| number, 0);
    check(1_000, &["one", "two"], |number| number, 0);
    check(1_000, &["one", "two", "three"], |number| number, 0);
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
    assert!(
        left as u64 <= Formula::new::<u64>(ENTRIES, 0, 1).emptied() + NAMES + FLOORS,
        "{left} bytes left of {ENTRIES} groups that are gone"
    );
}

/// Holds a cache of `entries` keys, each of which has `heap` bytes of its own, to the formula: when it has just become full,
/// when it has been used for long, and when it has been emptied in either way.
fn check<K>(entries: u64, groups: &[&str], key: impl Fn(u64) -> K, heap: u64)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let value = value();
    let formula = Formula::new::<K>(entries, heap, groups.len() as u64);
    let payload = formula.payload();
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

    hold("full", fill(&cache, 0..entries, groups, &value, &key), formula.full());
    hold("used", fill(&cache, entries..CHURN * entries, groups, &value, &key), formula.used());
    assert_eq!(cache.len() as u64, entries, "the bytes are those of another number of entries");

    let ((), cleared) = account_of(|| {
        cache.clear();
        cache.run_maintenance();
    });
    hold("cleared", cleared.bytes, formula.emptied());
    assert_eq!(Arc::strong_count(&value), 1, "values outlive the cache's clearing");

    hold("full again", fill(&cache, 0..entries, groups, &value, &key), formula.used() + formula.lists());
    let ((), removed) = account_of(|| empty(&cache, (0..entries).map(&key)));
    hold("removed", removed.bytes, formula.emptied());
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

/// What a cache of so many entries takes at most.
struct Formula {
    entries: u64,
    /// Key and value.
    inline: u64,
    /// What the key owns.
    heap: u64,
    groups: u64,
}

impl Formula {
    fn new<K>(entries: u64, heap: u64, groups: u64) -> Formula {
        Formula { entries, inline: (size_of::<K>() + size_of::<Value>()) as u64, heap, groups }
    }

    /// Returns what key and value take, of which all values share one allocation.
    fn payload(&self) -> u64 {
        self.inline + self.heap
    }

    /// When it has just become full.
    fn full(&self) -> u64 {
        let each = self.payload() + ENTRY + ORDER + INDEX + self.lists_of_groups();
        self.shards() + self.entries * each + self.entries / self.chunk() * CHUNK
    }

    /// When others have been evicted for long.
    fn used(&self) -> u64 {
        let waits = self.payload() + ENTRY + ORDER + self.lists_of_groups() + WAITS;
        self.full() + self.entries * GHOST + self.waiting() * waits
    }

    /// When it has become empty, after that.
    fn emptied(&self) -> u64 {
        let places = self.entries + self.waiting();
        let kept = places * (self.inline + ENTRY + ORDER) + places / self.chunk() * CHUNK;
        self.shards() + kept + self.entries * GHOST + self.lists()
    }

    /// What the shards take, with room that was begun and is vacant yet, and the cache.
    fn shards(&self) -> u64 {
        let vacant = self.chunk() * (self.inline + ENTRY) + CHUNKS.1 * ORDER;
        CACHE + SHARDS * (SHARD + BEGUN + vacant)
    }

    /// What the lists of a shard take once many of its entries, and of no other shard's, have left one after the other.
    fn lists(&self) -> u64 {
        SHARDS * self.waiting().div_ceil(2).next_power_of_two() * WAITS / 2
    }

    fn waiting(&self) -> u64 {
        WAITING.min(self.entries * WAITING_PARTS.0 / WAITING_PARTS.1)
    }

    fn chunk(&self) -> u64 {
        (self.entries / SHARDS).isqrt().next_power_of_two().clamp(CHUNKS.0, CHUNKS.1)
    }

    fn lists_of_groups(&self) -> u64 {
        match self.groups {
            0 | 1 => 0,
            2 => GROUPS,
            more => GROUPS + EACH_GROUP * more.next_power_of_two(),
        }
    }
}

fn value() -> Value {
    Arc::from([1; 64])
}
