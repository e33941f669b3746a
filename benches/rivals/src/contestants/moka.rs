use super::{Contestant, Key, Value};

/// moka as its users run it: reads and inserts wait in bounded logs until some caller finds 64 of them and applies them
/// all. Until then inserted entries count towards no capacity, and newcomers live a little longer than its policy, an
/// LRU behind TinyLFU, would let them.
pub(crate) struct Moka(moka::sync::Cache<Key, Value>);

/// moka that applies every insert at once and so keeps its capacity to the entry, at a price no timed loop should pay.
pub(crate) struct MokaSettled(Moka);

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
        // `entry_count` leaves out what waits in the log.
        self.0.iter().count()
    }
}

impl Contestant for MokaSettled {
    const NAME: &'static str = "moka settled";

    fn new(capacity: usize) -> Self {
        Self(Moka::new(capacity))
    }

    fn get(&self, key: Key) -> Option<u8> {
        self.0.get(key)
    }

    fn insert(&self, key: Key, value: Value) {
        self.0.insert(key, value);
        self.0.settle();
    }

    fn resident(&self) -> usize {
        self.0.resident()
    }
}
