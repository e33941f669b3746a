use super::{Contestant, Group, Grouped, Key, Value, is_member, member_value};

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

impl Grouped for Moka {
    fn new_grouped(capacity: usize) -> Self {
        Self(moka::sync::Cache::builder().max_capacity(capacity as u64).support_invalidation_closures().build())
    }

    fn insert_into(&self, group: Group, key: Key) {
        self.insert(key, member_value(group));
    }

    /// Leaves a predicate behind that every read evaluates, until maintenance has applied it to all entries.
    fn invalidate(&self, group: Group) {
        let predicate = move |_: &Key, value: &Value| is_member(value, group);
        self.0.invalidate_entries_if(predicate).expect("closures are supported");
    }
}
