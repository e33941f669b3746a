//! The local tier of a tiered cache, by itself.

use std::fmt;
use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::TieredCache;
use crate::entry::{EntryInfo, Freshness, Handle};
use crate::remote::key::RemoteKey;
use crate::stats::Stats;

/// A view of the local tier alone: hits only, and no call in it ever waits for I/O or a loader.
///
/// Where the trust lease has lapsed, it answers as [`LostTrust`](crate::LostTrust) says: with `Revalidate`, what this process
/// has loaded or inserted within the time of the lease, and nothing else.
pub struct LocalView<'a, K, V, S = ahash::RandomState> {
    tiered: &'a TieredCache<K, V, S>,
}

impl<'a, K, V, S> LocalView<'a, K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    pub(super) fn new(tiered: &'a TieredCache<K, V, S>) -> Self {
        LocalView { tiered }
    }

    /// Returns the value for `key`, fresh or stale, if the local tier has it; as [`Cache::get`](crate::Cache::get).
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        if self.tiered.core().may_serve() { self.tiered.local.get(key) } else { self.read_vouched(key) }
    }

    /// Calls `f` with a reference to the value for `key`, if the local tier has it; as [`Cache::with`](crate::Cache::with).
    #[inline]
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        if self.tiered.core().may_serve() {
            self.tiered.local.with(key, f)
        } else {
            self.read_vouched(key).map(|value| f(&value))
        }
    }

    /// Returns the value for `key` without a trace, if the local tier has it; as [`Cache::peek`](crate::Cache::peek).
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        if self.tiered.core().may_serve() { self.tiered.local.peek(key) } else { self.vouched(key) }
    }

    /// Returns whether the local tier has a value for `key`, without a trace.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        if self.tiered.core().may_serve() { self.tiered.local.contains(key) } else { self.vouched(key).is_some() }
    }

    /// Returns what is known of the entry of `key`, if the local tier has it; as [`Cache::inspect`](crate::Cache::inspect).
    pub fn inspect<Q>(&self, key: &Q) -> Option<EntryInfo>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        if self.contains(key) { self.tiered.local.inspect(key) } else { None }
    }

    /// Returns the value for each key, in order, where the local tier has it; as [`Cache::get_many`](crate::Cache::get_many).
    pub fn get_many<'q, Q, I>(&self, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// Returns what counts although the trust lease has lapsed, and counts the read.
    #[cold]
    fn read_vouched<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let found = self.find_vouched(key);
        self.tiered.local.store.tally().count(|counters| match &found {
            Some((_, Freshness::Fresh)) => &counters.hits_fresh,
            Some(_) => &counters.hits_stale,
            None => &counters.misses,
        });
        found.map(|(entry, _)| entry.value.clone())
    }

    /// Returns what counts although the trust lease has lapsed.
    #[cold]
    fn vouched<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.find_vouched(key).map(|(entry, _)| entry.value.clone())
    }

    fn find_vouched<Q>(&self, key: &Q) -> Option<(Handle<K, V>, Freshness)>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let local = &self.tiered.local;
        let vouched = |meta: &_| self.tiered.counts_lapsed(meta);
        local.store.find_if(local.hash(key), key, vouched)
    }

    /// Returns the keys and values that the local tier has, in no particular order; as [`Cache::iter`](crate::Cache::iter).
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> + use<'a, K, V, S>
    where
        K: Clone,
    {
        let TieredCache { local, .. } = self.tiered;
        let (tiered, store) = (self.tiered, &local.store);
        (0..store.shards()).flat_map(move |shard| {
            // Before the entries are looked at: who sees it hold sees what it was extended for, in the shard as well.
            let trusted = tiered.core().may_serve();
            let mut entries = store.snapshot(shard);
            entries.retain(|entry| trusted || tiered.counts_lapsed(&entry.meta));
            entries.into_iter().map(|entry| (entry.key.clone(), entry.value.clone()))
        })
    }

    /// Returns what the local tier has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.tiered.local.stats()
    }

    /// Returns how many entries the local tier has; as [`Cache::len`](crate::Cache::len).
    #[must_use]
    pub fn len(&self) -> usize {
        self.tiered.local.len()
    }

    /// Returns whether the local tier has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tiered.local.is_empty()
    }

    /// Returns what the entries of the local tier weigh; as [`Cache::weight`](crate::Cache::weight).
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.tiered.local.weight()
    }

    /// Returns how much weight the local tier may hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.tiered.local.capacity()
    }

    /// Reclaims every dead entry of the local tier; as [`Cache::run_maintenance`](crate::Cache::run_maintenance).
    pub fn run_maintenance(&self) {
        self.tiered.local.run_maintenance();
    }
}

/// What the local tier alone has to say. None of these verbs waits for I/O or a loader.
impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for `key` without a trace, if the local tier has it; as [`LocalView::peek`].
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.local().peek(key)
    }

    /// Returns what is known of the entry of `key`, if the local tier has it; as [`LocalView::inspect`].
    pub fn inspect<Q>(&self, key: &Q) -> Option<EntryInfo>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.local().inspect(key)
    }

    /// Returns the keys and values that the local tier has, in no particular order; as [`LocalView::iter`].
    pub fn iter(&self) -> impl Iterator<Item = (K, V)>
    where
        K: Clone,
    {
        self.local().iter()
    }

    /// Returns how many entries the local tier has; as [`Cache::len`](crate::Cache::len).
    #[must_use]
    pub fn len(&self) -> usize {
        self.local.len()
    }

    /// Returns whether the local tier has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local.is_empty()
    }

    /// Returns what the entries of the local tier weigh; as [`Cache::weight`](crate::Cache::weight).
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.local.weight()
    }

    /// Returns how much weight the local tier may hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.local.capacity()
    }

    /// Changes how much weight the local tier may hold; as [`Cache::set_capacity`](crate::Cache::set_capacity). What is evicted
    /// stays in the remote tier.
    pub fn set_capacity(&self, capacity: u64) {
        self.local.set_capacity(capacity);
    }

    /// Reclaims every dead entry of the local tier; as [`Cache::run_maintenance`](crate::Cache::run_maintenance).
    pub fn run_maintenance(&self) {
        self.local.run_maintenance();
    }
}

impl<K, V, S> fmt::Debug for LocalView<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalView").field(&self.tiered.local).finish()
    }
}
