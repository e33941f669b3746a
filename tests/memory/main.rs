//! What the local tier takes from the heap: bytes for an entry beyond its key and value, held to the formula of the guide,
//! and allocations for an operation.

mod allocations;
mod bytes;
mod heap;

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use larder::{Cache, EntryOptions};

type Value = Arc<[u8]>;
type Local<K> = Cache<K, Value, RandomState>;

/// The default follows the machine.
const SHARDS: u64 = 8;

/// A cache whose entries have two deadlines. Its seeds do not change, so that shards are as uneven in every run.
fn cache<K: Hash + Eq + Send + Sync + 'static>(capacity: u64) -> Local<K> {
    Cache::builder()
        .capacity(capacity)
        .shards(SHARDS as usize)
        .hasher(RandomState::with_seeds(1, 2, 3, 4))
        .soft_ttl(Duration::from_secs(3_600))
        .build()
        .expect("these settings agree with each other")
}

/// Inserts a key as a member of these groups.
fn insert<K: Hash + Eq + Send + Sync + 'static>(cache: &Local<K>, key: K, value: Value, groups: &[&str]) {
    cache
        .insert_with(key, value, EntryOptions::new().groups(groups))
        .expect("an entry of weight 1 fits into every cache");
}
