use super::{Contestant, Group, Grouped, Key, Value, is_member, member_value};

pub(crate) struct QuickCache(quick_cache::sync::Cache<Key, Value>);

impl Contestant for QuickCache {
    const NAME: &'static str = "quick_cache";

    fn new(capacity: usize) -> Self {
        Self(quick_cache::sync::Cache::new(capacity))
    }

    fn get(&self, key: Key) -> Option<u8> {
        self.0.get(&key).map(|value| value[0])
    }

    fn insert(&self, key: Key, value: Value) {
        self.0.insert(key, value);
    }

    fn resident(&self) -> usize {
        self.0.len()
    }
}

impl Grouped for QuickCache {
    fn insert_into(&self, group: Group, key: Key) {
        self.insert(key, member_value(group));
    }

    /// Visits every entry.
    fn invalidate(&self, group: Group) {
        self.0.retain(|_, value| !is_member(value, group));
    }
}
