//! The local tier of a tiered cache, by itself.

use std::fmt;
use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use crate::cache::Cache;
use crate::stats::Stats;

/// A view of the local tier alone: hits only, and no call in it ever waits for I/O or a loader.
pub struct LocalView<'a, K, V, S = ahash::RandomState> {
    cache: &'a Cache<K, V, S>,
}

impl<'a, K, V, S> LocalView<'a, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    pub(super) fn new(cache: &'a Cache<K, V, S>) -> Self {
        LocalView { cache }
    }

    /// Returns the value for `key`, fresh or stale, if the local tier has it; as [`Cache::get`].
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.cache.get(key)
    }

    /// Calls `f` with a reference to the value for `key`, if the local tier has it; as [`Cache::with`].
    #[inline]
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.cache.with(key, f)
    }

    /// Returns the value for `key` without a trace, if the local tier has it; as [`Cache::peek`].
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.cache.peek(key)
    }

    /// Returns the value for each key, in order, where the local tier has it; as [`Cache::get_many`].
    pub fn get_many<'q, Q, I>(&self, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.cache.get_many(keys)
    }

    /// Returns what the local tier has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.cache.stats()
    }

    /// Returns how many entries the local tier has; as [`Cache::len`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Returns whether the local tier has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Returns what the entries of the local tier weigh; as [`Cache::weight`].
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.cache.weight()
    }

    /// Returns how much weight the local tier may hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.cache.capacity()
    }

    /// Reclaims every dead entry of the local tier; as [`Cache::run_maintenance`].
    pub fn run_maintenance(&self) {
        self.cache.run_maintenance();
    }
}

impl<K, V, S> fmt::Debug for LocalView<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalView").field(self.cache).finish()
    }
}
