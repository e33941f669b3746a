//! foyer's memory tier, with its default policy (LRU with a pool for high priority) and with S3-FIFO, which does not lock
//! a shard exclusively on a hit.

use foyer_memory::{Cache, CacheBuilder, EvictionConfig, LruConfig, S3FifoConfig};

use super::{Contestant, Key, Value};

pub(crate) struct Foyer(Cache<Key, Value>);

pub(crate) struct FoyerS3Fifo(Cache<Key, Value>);

impl Contestant for Foyer {
    const NAME: &'static str = "foyer";

    fn new(capacity: usize) -> Self {
        Self(build(capacity, LruConfig::default()))
    }

    fn get(&self, key: Key) -> Option<u8> {
        self.0.get(&key).map(|entry| entry.value()[0])
    }

    fn insert(&self, key: Key, value: Value) {
        self.0.insert(key, value);
    }

    fn resident(&self) -> usize {
        self.0.entries()
    }
}

impl Contestant for FoyerS3Fifo {
    const NAME: &'static str = "foyer s3-fifo";

    fn new(capacity: usize) -> Self {
        Self(build(capacity, S3FifoConfig::default()))
    }

    fn get(&self, key: Key) -> Option<u8> {
        self.0.get(&key).map(|entry| entry.value()[0])
    }

    fn insert(&self, key: Key, value: Value) {
        self.0.insert(key, value);
    }

    fn resident(&self) -> usize {
        self.0.entries()
    }
}

/// foyer's default is 8 shards. It does not reduce them for a small cache, as others do, so that is done for it: a policy
/// cannot show itself within a handful of entries.
fn build(capacity: usize, policy: impl Into<EvictionConfig>) -> Cache<Key, Value> {
    const SHARDS: usize = 8;
    const ENTRIES_IN_A_SHARD: usize = 64;
    let shards = (capacity / ENTRIES_IN_A_SHARD).clamp(1, SHARDS);
    CacheBuilder::new(capacity).with_shards(shards).with_eviction_config(policy).build()
}
