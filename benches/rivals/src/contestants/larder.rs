//! larder, with what its users come for switched on: every entry has a soft and a hard deadline and belongs to a group.
//! The rivals' entries have none of them.

use std::time::Duration;

use larder::{Cache, EntryOptions};

use super::{Contestant, Group, Grouped, Key, Value, member_value};

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

impl Grouped for Larder {
    fn insert_into(&self, group: Group, key: Key) {
        insert_into(&self.0, group, key);
    }

    fn invalidate(&self, group: Group) {
        self.0.invalidate_group(&group_name(group));
    }
}

impl Grouped for LarderWith {
    fn insert_into(&self, group: Group, key: Key) {
        insert_into(&self.0, group, key);
    }

    fn invalidate(&self, group: Group) {
        self.0.invalidate_group(&group_name(group));
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
    insert_as_member(cache, GROUP, key, value);
}

fn insert_into(cache: &Cache<Key, Value>, group: Group, key: Key) {
    insert_as_member(cache, &group_name(group), key, member_value(group));
}

fn insert_as_member(cache: &Cache<Key, Value>, group: &str, key: Key, value: Value) {
    cache
        .insert_with(key, value, EntryOptions::new().groups([group]))
        .expect("an entry of weight 1 fits into every cache");
}

/// Built for every use, as an application would.
fn group_name(group: Group) -> String {
    format!("group {group}")
}
