//! The paths that are counted.

mod local;
mod tiered;

use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use larder::{Cache, CacheBuilder, EntryOptions};

use crate::meter::Meter;

type Value = Arc<[u8]>;
type Local = Cache<u64, Value, RandomState>;

/// How many entries a cache holds whose entries are found or replaced.
const POPULATION: u64 = 1_000;

/// The number of shards follows the machine unless it is set, and the counts with it.
const SHARDS: usize = 4;

const GROUP: &str = "group";
const SECOND_GROUP: &str = "second group";
/// A group that no entry belongs to.
const ELSEWHERE: &str = "elsewhere";

const SOFT_TTL: Duration = Duration::from_secs(3_600);
const HARD_TTL: Duration = Duration::from_secs(8 * 3_600);

pub(crate) fn walk(meter: &mut Meter) {
    local::walk(meter);
    tiered::walk(meter);
}

/// A cache without deadlines.
fn ageless(capacity: u64) -> CacheBuilder<u64, Value, RandomState> {
    Cache::builder().capacity(capacity).shards(SHARDS).hasher(hasher())
}

/// A cache with a soft and a hard deadline, both far away.
fn ageing(capacity: u64) -> CacheBuilder<u64, Value, RandomState> {
    ageless(capacity).soft_ttl(SOFT_TTL).hard_ttl(HARD_TTL)
}

fn built(builder: CacheBuilder<u64, Value, RandomState>) -> Local {
    builder.build().expect("these settings agree with each other")
}

/// Seeds that do not change, so that keys meet the same others in every run.
fn hasher() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// Inserts a key as a member of these groups.
fn insert(cache: &Local, key: u64, value: Value, groups: &[&str]) {
    cache
        .insert_with(key, value, EntryOptions::new().groups(groups))
        .expect("an entry of weight 1 fits into every cache");
}

/// Fills a cache of twice as many with [`POPULATION`] entries of these groups.
fn filled(builder: fn(u64) -> CacheBuilder<u64, Value, RandomState>, groups: &[&str]) -> Local {
    let cache = built(builder(2 * POPULATION));
    for number in 0..POPULATION {
        insert(&cache, key(number), value(), groups);
    }
    cache
}

fn value() -> Value {
    Arc::from([1; 64])
}

/// A key that [`filled`] caches hold: all of them in turn.
fn resident(number: u64) -> u64 {
    key(number % POPULATION)
}

/// Spreads numbers over all of `u64`. A bijection: keys are distinct where numbers are.
fn key(number: u64) -> u64 {
    let key = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    key ^ (key >> 31)
}
