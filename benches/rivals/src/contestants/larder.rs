//! larder, with what its users come for switched on: every entry has a soft and a hard deadline and belongs to a group.
//! The rivals' entries have none of them.

use std::time::Duration;

use larder::{Cache, EntryOptions};

use super::{Contestant, Key, Value};

/// Far enough that no entry turns stale during a run.
const SOFT_TTL: Duration = Duration::from_secs(3_600);
const HARD_TTL: Duration = Duration::from_secs(8 * 3_600);
const GROUP: &str = "rivals";

/// Looks up with `get`, which clones the value.
pub(crate) struct Larder(Cache<Key, Value>);

/// Looks up with `with`, which lends the value.
pub(crate) struct LarderWith(Cache<Key, Value>);

impl Contestant for Larder {
    const NAME: &'static str = "larder";

    fn new(capacity: usize) -> Self {
        Self(build(capacity))
    }

    fn get(&self, key: Key) -> Option<u8> {
        self.0.get(&key).map(|value| value[0])
    }

    fn insert(&self, key: Key, value: Value) {
        insert(&self.0, key, value);
    }

    fn resident(&self) -> usize {
        self.0.len()
    }
}

impl Contestant for LarderWith {
    const NAME: &'static str = "larder with";

    fn new(capacity: usize) -> Self {
        Self(build(capacity))
    }

    fn get(&self, key: Key) -> Option<u8> {
        self.0.with(&key, |value| value[0])
    }

    fn insert(&self, key: Key, value: Value) {
        insert(&self.0, key, value);
    }

    fn resident(&self) -> usize {
        self.0.len()
    }
}

fn build(capacity: usize) -> Cache<Key, Value> {
    Cache::builder()
        .capacity(capacity as u64)
        .soft_ttl(SOFT_TTL)
        .hard_ttl(HARD_TTL)
        .build()
        .expect("these settings agree with each other")
}

fn insert(cache: &Cache<Key, Value>, key: Key, value: Value) {
    cache
        .insert_with(key, value, EntryOptions::new().groups([GROUP]))
        .expect("an entry of weight 1 fits into every cache");
}
