//! The table of a shard: which entry a key leads to.

use equivalent::Equivalent;
use hashbrown::HashTable;

use crate::entry::Entry;
use crate::sync::Arc;

/// Maps keys to entries.
#[derive(Debug)]
pub(super) struct Table<K, V>(HashTable<Arc<Entry<K, V>>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table(HashTable::new())
    }
}

impl<K, V> Table<K, V> {
    #[inline]
    pub(super) fn find<Q: Equivalent<K> + ?Sized>(&self, hash: u64, key: &Q) -> Option<&Arc<Entry<K, V>>> {
        self.0.find(hash, |entry| key.equivalent(&entry.key))
    }

    /// Adds an entry whose key has none.
    pub(super) fn insert(&mut self, entry: Arc<Entry<K, V>>) {
        self.0.insert_unique(entry.hash, entry, |entry| entry.hash);
    }

    pub(super) fn remove<Q: Equivalent<K> + ?Sized>(&mut self, hash: u64, key: &Q) -> Option<Arc<Entry<K, V>>> {
        let entry = self.0.find_entry(hash, |entry| key.equivalent(&entry.key)).ok()?;
        Some(entry.remove().0)
    }

    /// Removes exactly this entry.
    pub(super) fn remove_entry(&mut self, entry: &Arc<Entry<K, V>>) -> Option<Arc<Entry<K, V>>> {
        let entry = self.0.find_entry(entry.hash, |known| Arc::ptr_eq(known, entry)).ok()?;
        Some(entry.remove().0)
    }

    /// Removes an entry with this hash, whatever its key.
    #[cfg(feature = "tiered")]
    pub(super) fn remove_hash(&mut self, hash: u64) -> Option<Arc<Entry<K, V>>> {
        let entry = self.0.find_entry(hash, |entry| entry.hash == hash).ok()?;
        Some(entry.remove().0)
    }

    /// Returns the entries with this hash: as a rule none or one.
    #[cfg(feature = "tiered")]
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = &Arc<Entry<K, V>>> {
        self.0.iter_hash(hash).filter(move |entry| entry.hash == hash)
    }

    #[cfg(feature = "tiered")]
    pub(super) fn has(&self, entry: &Arc<Entry<K, V>>) -> bool {
        self.0.find(entry.hash, |known| Arc::ptr_eq(known, entry)).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry<K, V>>> {
        self.0.iter()
    }

    /// Gives memory back once the table is mostly empty.
    pub(super) fn shrink(&mut self) {
        if self.0.capacity() > 64 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2, |entry| entry.hash);
        }
    }
}
