//! What the benchmarks share: a cache with its features in use, and keys drawn ahead of time.

#![allow(dead_code, reason = "each benchmark is a crate of its own and uses a part of this")]

use std::{sync::Arc, time::Duration};

use larder::{Cache, EntryOptions};

pub(crate) type Value = Arc<[u8]>;

pub(crate) const GROUP: &str = "benchmark";

/// A cache whose entries have a soft and a hard deadline, which no benchmark lives to see.
pub(crate) fn cache(capacity: u64) -> Cache<u64, Value> {
    Cache::builder()
        .capacity(capacity)
        .soft_ttl(Duration::from_secs(3_600))
        .hard_ttl(Duration::from_secs(8 * 3_600))
        .build()
        .expect("these settings agree with each other")
}

/// Inserts `key` as a member of [`GROUP`].
pub(crate) fn insert(cache: &Cache<u64, Value>, key: u64, value: Value) {
    cache
        .insert_with(key, value, EntryOptions::new().groups([GROUP]))
        .expect("an entry of weight 1 fits into every cache");
}

/// A cache of twice the `population`, which holds the keys of all its ranks.
pub(crate) fn filled(population: u64) -> Cache<u64, Value> {
    let cache = cache(2 * population);
    for rank in 0..population {
        insert(&cache, key(rank), value());
    }
    cache
}

pub(crate) fn value() -> Value {
    Arc::from([1; 64])
}

/// Spreads ranks over all of `u64`. A bijection: keys are distinct where ranks are.
pub(crate) fn key(rank: u64) -> u64 {
    let key = rank.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    key ^ (key >> 31)
}

/// Keys of ranks below `population`, drawn by Zipf's law; the same in every run.
pub(crate) fn zipf(population: u64, exponent: f64, count: u64) -> Vec<u64> {
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=population)
        .map(|rank| {
            total += (rank as f64).powf(-exponent);
            total
        })
        .collect();
    let draw = |number| {
        let point = key(number) as f64 / u64::MAX as f64 * total;
        let rank = cumulative.partition_point(|&reached| reached < point) as u64;
        key(rank.min(population - 1))
    };
    (0..count).map(draw).collect()
}
