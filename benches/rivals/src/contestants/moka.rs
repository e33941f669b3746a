use super::{Contestant, Key, Value};

/// moka logs reads and inserts in bounded channels, and whichever caller finds 64 of them waiting applies them all. Timed
/// loops pay for that as any user does.
pub(crate) struct Moka(moka::sync::Cache<Key, Value>);

impl Contestant for Moka {
    const NAME: &'static str = "moka";

    fn new(capacity: usize) -> Self {
        Self(moka::sync::Cache::new(capacity as u64))
    }

    fn get(&self, key: Key) -> Option<u8> {
        self.0.get(&key).map(|value| value[0])
    }

    fn insert(&self, key: Key, value: Value) {
        self.0.insert(key, value);
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }

    fn resident(&self) -> usize {
        self.0.entry_count() as usize
    }
}
