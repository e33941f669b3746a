use super::{Contestant, Key, Value};

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
