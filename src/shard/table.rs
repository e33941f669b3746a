//! The table of a shard: which entry a key leads to.

use equivalent::Equivalent;
use hashbrown::HashTable;

use crate::entry::Entry;
use crate::policy::NodeId;
use crate::sync::Arc;

/// Maps keys to entries, and knows where the eviction policy keeps each.
#[derive(Debug)]
pub(super) struct Table<K, V>(HashTable<Slot<K, V>>);

#[derive(Debug)]
pub(super) struct Slot<K, V> {
    pub(super) entry: Arc<Entry<K, V>>,
    pub(super) node: NodeId,
    /// How many times the shard had been cleared when the entry came.
    pub(super) epoch: u32,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table(HashTable::new())
    }
}

impl<K, V> Table<K, V> {
    #[inline]
    pub(super) fn find<Q: Equivalent<K> + ?Sized>(&self, hash: u64, key: &Q) -> Option<&Arc<Entry<K, V>>> {
        self.0.find(hash, |slot| key.equivalent(&slot.entry.key)).map(|slot| &slot.entry)
    }

    /// Adds a slot for a key that has none.
    pub(super) fn insert(&mut self, slot: Slot<K, V>) {
        self.0.insert_unique(slot.entry.hash, slot, |slot| slot.entry.hash);
    }

    pub(super) fn remove<Q: Equivalent<K> + ?Sized>(&mut self, hash: u64, key: &Q) -> Option<Slot<K, V>> {
        let slot = self.0.find_entry(hash, |slot| key.equivalent(&slot.entry.key)).ok()?;
        Some(slot.remove().0)
    }

    /// Removes the slot of exactly this entry.
    pub(super) fn remove_entry(&mut self, entry: &Arc<Entry<K, V>>) -> Option<Slot<K, V>> {
        let slot = self.0.find_entry(entry.hash, |slot| Arc::ptr_eq(&slot.entry, entry)).ok()?;
        Some(slot.remove().0)
    }

    #[cfg(feature = "tiered")]
    pub(super) fn has(&self, entry: &Arc<Entry<K, V>>) -> bool {
        self.0.find(entry.hash, |slot| Arc::ptr_eq(&slot.entry, entry)).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<K, V>> {
        self.0.iter()
    }

    /// Gives memory back once the table is mostly empty.
    pub(super) fn shrink(&mut self) {
        if self.0.capacity() > 64 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2, |slot| slot.entry.hash);
        }
    }
}
