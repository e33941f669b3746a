//! Warming a cache up: what is known beforehand is stored while there is room, and gets in nobody's way.

use std::hash::{BuildHasher, Hash};

use crate::cache::Cache;
use crate::entry::Handle;
use crate::options::EntryOptions;
use crate::store::{Refusal, Terms};

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Stores values that are known beforehand, from a file or a database say, and returns how many it has stored.
    ///
    /// Nothing gives way to them: a key that has a value, fresh or stale, or that a caller is filling, keeps that; and once a
    /// value finds no room, the call ends, since what is in the cache was asked for, and what is offered may never be. So hand
    /// in first what matters most. A value that alone is heavier than the cache is passed over.
    ///
    /// A bump that comes while the iterator makes a value takes that along, as does [`clear`](Self::clear). But nobody knows
    /// its key before it is there: what is removed or expired by its key has to be so before the iterator reads it, or after it
    /// is stored. Where that cannot be had, load the keys with [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// # Blocking
    /// On the iterator; otherwise as [`insert`](Self::insert), and once, where room runs out, as
    /// [`run_maintenance`](Self::run_maintenance).
    ///
    /// # Examples
    /// ```
    /// use larder::Cache;
    ///
    /// let cache: Cache<u32, &str> = Cache::new(2);
    /// cache.insert(1, "newer").unwrap();
    /// assert_eq!(cache.warm_up([(1, "older"), (2, "two"), (3, "no room")]), 1);
    /// assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some("newer"), Some("two"), None));
    /// ```
    pub fn warm_up(&self, pairs: impl IntoIterator<Item = (K, V)>) -> usize {
        self.warm_up_with(pairs.into_iter().map(|(key, value)| (key, value, EntryOptions::new())))
    }

    /// Stores values that are known beforehand, each with its options; otherwise as [`warm_up`](Self::warm_up).
    ///
    /// # Blocking
    /// As [`warm_up`](Self::warm_up).
    pub fn warm_up_with(&self, entries: impl IntoIterator<Item = (K, V, EntryOptions)>) -> usize {
        self.warm_up_by(entries, |entry, reclaimed| self.store.warm(entry, &Terms::ToWarm, reclaimed))
    }

    /// Warms up as [`warm_up_with`](Self::warm_up_with) does, with entries that `place` stores, as [`Store::warm`] does.
    ///
    /// [`Store::warm`]: crate::store::Store::warm
    pub(crate) fn warm_up_by(
        &self,
        entries: impl IntoIterator<Item = (K, V, EntryOptions)>,
        place: impl Fn(&Handle<K, V>, &mut bool) -> Result<(), Refusal>,
    ) -> usize {
        let mut entries = entries.into_iter();
        let (mut stored, mut reclaimed) = (0, false);
        loop {
            // From before the value is made, as that of a load.
            let born = self.store.settings.groups.generation();
            let Some((key, value, options)) = entries.next() else { return stored };
            #[cfg_attr(not(feature = "tiered"), expect(unused_mut))]
            let mut entry = self.entry(key, value, born, options);
            #[cfg(feature = "tiered")]
            if let Some(entry) = entry.get_mut() {
                // Nobody knows when the value was read: once the trust lease has lapsed, it does not count.
                entry.meta.is_own = false;
            }
            let admitted = place(&entry, &mut reclaimed);
            self.store.count_admitted(&admitted);
            match admitted {
                Ok(()) => stored += 1,
                Err(Refusal::Unmet | Refusal::Rejected(_)) => {}
                Err(Refusal::Full) => return stored,
            }
        }
    }
}
