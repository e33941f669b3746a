//! The cache: reads, writes and invalidations of the local tier. What loads is in [`load`](crate::load).

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use equivalent::Equivalent;

use crate::builder::CacheBuilder;
use crate::call::CallOptions;
use crate::claim::Claim;
use crate::clock::Deadline;
use crate::entry::{Entry, EntryInfo, Freshness, Handle, Meta};
use crate::error::Rejected;
use crate::group::Generation;
use crate::key::ToKey;
use crate::options::{EntryOptions, Spec};
use crate::stats::Stats;
use crate::store::{Look, Refusal, Store, Terms};
use crate::sync::Arc;

/// A sharded in-process cache, shared by cloning.
///
/// Keys are looked up by any [`Equivalent`] form. Values are cloned out, so make them cheap to clone: `Arc<T>`, or small.
/// An entry is *fresh* until its soft deadline, *stale* until its hard one, then *dead*; groups make it stale or dead at once.
/// The cache does no I/O and starts no thread.
///
/// Hits take no lock: [`get`](Self::get), [`with`](Self::with), `peek` and the loading verbs that find a fresh value wait for
/// nobody, and nobody waits for them, however long a `Clone` or a closure takes.
///
/// `Eq` of keys runs under a shard's lock where a key is stored, removed, expired, missed, or looked up to be loaded and found
/// stale: keep it short, and do not call the cache from it. All other code of yours (loaders, weigher, listener, `Clone`, `Drop`,
/// closures) runs outside locks and may call the cache as it likes. A value that has left is dropped a little later: see [the guide](crate#when-values-are-dropped).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::Cache;
///
/// let cache: Cache<String, u64> = Cache::builder()
///     .capacity(10_000)
///     .soft_ttl(Duration::from_secs(60))
///     .build()?;
/// cache.insert("answer".to_owned(), 42).unwrap();
/// assert_eq!(cache.get("answer"), Some(42));
/// # Ok::<(), larder::BuildError>(())
/// ```
pub struct Cache<K, V, S = ahash::RandomState> {
    pub(crate) store: Arc<Store<K, V>>,
    hasher: S,
}

/// What a caller that would fill a key finds; `C` is the claim it gets where it may.
#[derive(Debug)]
#[must_use]
pub enum Lookup<V, C> {
    /// A fresh value.
    Fresh(V),
    /// A stale value, and the claim to refresh it unless another caller holds it.
    Stale {
        /// The value, which may still be served.
        value: V,
        /// The right to refresh it; `None` while another caller has it, or a refresh failed of late.
        claim: Option<C>,
    },
    /// No value, and the claim to fill the key.
    Vacant(C),
    /// No value, and another caller fills the key.
    Busy,
}

impl<V, C> Lookup<V, C> {
    /// Returns the value unless this caller should fill the key: the get that prevents dog-piling.
    ///
    /// # Errors
    /// `Some(claim)` for the caller that should fill the key, the first of each grace, whether it is stale or vacant;
    /// `None` where there is no value and another caller fills the key. Everyone else gets the value, stale or not.
    pub fn or_claim(self) -> Result<V, Option<C>> {
        match self {
            Lookup::Fresh(value) | Lookup::Stale { value, claim: None } => Ok(value),
            Lookup::Stale { claim: Some(claim), .. } | Lookup::Vacant(claim) => Err(Some(claim)),
            Lookup::Busy => Err(None),
        }
    }

    /// Returns the value, fresh or stale, and gives up the claim, if there is one.
    #[must_use]
    pub fn value(self) -> Option<V> {
        match self {
            Lookup::Fresh(value) | Lookup::Stale { value, .. } => Some(value),
            Lookup::Vacant(_) | Lookup::Busy => None,
        }
    }
}

impl<K, V> Lookup<V, Claim<K, V>> {
    fn from_look(look: Look<K, V>) -> Self {
        match look {
            Look::Fresh(value) => Lookup::Fresh(value),
            Look::Stale { value, claim } => Lookup::Stale { value, claim },
            Look::Vacant(claim) => Lookup::Vacant(claim),
            Look::Busy(_) => Lookup::Busy,
        }
    }
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns a cache of `capacity` entries that never expire. A capacity of 0 stores nothing.
    #[must_use]
    pub fn new(capacity: u64) -> Cache<K, V> {
        Cache::builder().capacity(capacity).build().expect("a capacity alone is always valid")
    }

    /// Returns a builder for everything else.
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new()
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    pub(crate) fn from_parts(store: Store<K, V>, hasher: S) -> Self {
        Cache { store: Arc::new(store), hasher }
    }

    #[inline]
    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Returns the value for `key`, fresh or stale, or `None` if it is absent or dead.
    ///
    /// Never claims a stale value: use [`lookup`](Self::lookup) or [`get_or_load`](Self::get_or_load) to have it refreshed.
    ///
    /// # Blocking
    /// A hit takes no lock. A miss takes one shard's read lock for a moment, to make sure. Never waits for I/O, a loader or another
    /// caller's closure.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.hit(key, |entry| entry.value.clone())
    }

    /// Calls `f` with a reference to the value for `key`, fresh or stale, and returns what it returns; `None` if the value is
    /// absent or dead.
    ///
    /// `f` runs outside all locks and may call the cache. The value stays alive while it runs, even if it is removed.
    ///
    /// # Blocking
    /// As [`get`](Self::get), and on `f`.
    #[inline]
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.hit(key, |entry| f(&entry.value))
    }

    /// Returns what `f` makes of the entry for `key`, and counts the hit or the miss.
    #[inline]
    fn hit<Q, R>(&self, key: &Q, f: impl FnOnce(&Entry<K, V>) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.store.hit(self.hash(key), key, f)
    }

    /// Returns the value for `key` as [`get`](Self::get) does, but leaves no trace: neither in the order of eviction nor in
    /// the statistics.
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.store.read(self.hash(key), key, |entry, _| entry.value.clone())
    }

    /// Returns whether there is a value for `key`, fresh or stale, and leaves no trace.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.store.read(self.hash(key), key, |_, _| ()).is_some()
    }

    /// Returns age, deadlines, weight and groups of the entry for `key`, unless it is absent or dead, and leaves no trace.
    pub fn inspect<Q>(&self, key: &Q) -> Option<EntryInfo>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.store.read(self.hash(key), key, |entry, freshness| {
            EntryInfo::new(&entry.meta, freshness, self.store.settings.clock.now())
        })
    }

    /// Looks for the value of `key`, and claims the key if it is vacant or stale and nobody else fills it.
    ///
    /// At most one caller holds the claim of a key at a time. It gives way to another after the key's grace, and when the key
    /// or a group of the value is invalidated.
    ///
    /// # Blocking
    /// Finds a fresh value without a lock, else takes one shard's for a moment. Never waits for another caller's claim: see
    /// [`lookup_wait`](Self::lookup_wait).
    ///
    /// # Examples
    /// ```
    /// use larder::{Cache, Lookup};
    ///
    /// let cache: Cache<String, String> = Cache::new(100);
    /// let page = match cache.lookup("/").or_claim() {
    ///     Ok(page) => page,
    ///     Err(None) => "come back in a moment".to_owned(),
    ///     Err(Some(claim)) => {
    ///         let page = "rendered at great cost".to_owned();
    ///         let _ = claim.fill(page.clone());
    ///         page
    ///     }
    /// };
    /// assert_eq!(cache.get("/"), Some(page));
    /// ```
    pub fn lookup<Q>(&self, key: &Q) -> Lookup<V, Claim<K, V>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        Lookup::from_look(self.look(self.hash(key), key))
    }

    /// Looks for the value of `key` as [`lookup`](Self::lookup) does, with these options.
    ///
    /// With [`skip_local`](CallOptions::skip_local), whatever value there is counts for nothing, and a fill of the claim is
    /// handed back ([`Fill::Rejected`](crate::Fill::Rejected)) once those who wait have it. With
    /// [`read_only`](CallOptions::read_only) no claim is taken: `Busy` says then that there is no value. With
    /// [`no_refresh`](CallOptions::no_refresh) none is taken of a stale value. Timeouts say nothing to a call that never waits.
    ///
    /// # Blocking
    /// As [`lookup`](Self::lookup).
    pub fn lookup_with<Q>(&self, key: &Q, options: CallOptions) -> Lookup<V, Claim<K, V>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let hash = self.hash(key);
        let look = self.look_as(options, hash, key, |_| true);
        self.count(&look);
        Lookup::from_look(look)
    }

    /// Looks for the value of `key` as [`lookup`](Self::lookup) does, and where another caller fills it, waits for that.
    ///
    /// Returns `Busy` if the key is still being filled after `wait`.
    ///
    /// # Blocking
    /// Up to `wait`, while another caller fills the key. A caller that holds the claim itself waits in vain.
    pub fn lookup_wait<Q>(&self, key: &Q, wait: Duration) -> Lookup<V, Claim<K, V>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let hash = self.hash(key);
        let clock = &self.store.settings.clock;
        let deadline = Deadline::after(clock.now(), wait);
        let mut look = self.look(hash, key);
        // Before a wait, not after it: what landed in the last moment is there.
        while let Look::Busy(Some(joined)) = &look
            && !deadline.has_passed(clock.now())
        {
            let until = deadline.min(joined.flight.awaited_until());
            let _ = clock.block_on(joined.landed(), until);
            look = self.store.look(hash, key);
        }
        Lookup::from_look(look)
    }

    /// Looks for the value of `key`, and where another caller fills it, waits for that: [`lookup_wait`](Self::lookup_wait) for
    /// futures, on any runtime. Dropping the future half-way leaves nothing behind.
    pub async fn lookup_wait_async<Q>(&self, key: &Q, wait: Duration) -> Lookup<V, Claim<K, V>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let hash = self.hash(key);
        let clock = &self.store.settings.clock;
        let deadline = Deadline::after(clock.now(), wait);
        let mut look = self.look(hash, key);
        // As in `lookup_wait`.
        while let Look::Busy(Some(joined)) = &look
            && !deadline.has_passed(clock.now())
        {
            let until = deadline.min(joined.flight.awaited_until());
            let _ = clock.timeout(joined.landed(), until).await;
            look = self.store.look(hash, key);
        }
        Lookup::from_look(look)
    }

    /// Looks for a value as a call with options does that would fill the key; takes an entry that is not `usable` for a dead
    /// one. Where the call takes no claim, and there is no value, it is as if too many waited already.
    pub(crate) fn look_as<Q>(
        &self,
        options: CallOptions,
        hash: u64,
        key: &Q,
        usable: impl Fn(&Meta) -> bool,
    ) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        let usable = |meta: &Meta| !options.skip_local && usable(meta);
        if options.read_only || options.no_refresh {
            let seen = self.store.read_if(hash, key, usable, |entry, freshness| {
                entry.meta.recency.touch();
                (entry.value.clone(), freshness)
            });
            match seen {
                Some((value, Freshness::Fresh)) => return Look::Fresh(value),
                Some((value, _)) => return Look::Stale { value, claim: None },
                None if options.read_only => return Look::Busy(None),
                None => {}
            }
        }
        match self.store.look_if(hash, key, usable) {
            // It has come since, and is left to whoever refreshes.
            Look::Stale { value, .. } if options.no_refresh => Look::Stale { value, claim: None },
            Look::Stale { value, claim } => {
                Look::Stale { value, claim: claim.map(|claim| claim.with_options(&options)) }
            }
            Look::Vacant(claim) => Look::Vacant(claim.with_options(&options)),
            look => look,
        }
    }

    /// Looks for a value for a caller, and counts what it found.
    pub(crate) fn look<Q>(&self, hash: u64, key: &Q) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        let look = self.store.look(hash, key);
        self.count(&look);
        look
    }

    /// Counts what a caller has found.
    pub(crate) fn count(&self, look: &Look<K, V>) {
        self.store.tally().count(|counters| match look {
            Look::Fresh(_) => &counters.hits_fresh,
            Look::Stale { .. } => &counters.hits_stale,
            Look::Vacant(_) | Look::Busy(_) => &counters.misses,
        });
    }

    /// Stores `value` under `key` with the cache's defaults, in the place of whatever was there.
    ///
    /// A load of the key that is under way is fenced: its result will not take the place of this value.
    ///
    /// # Errors
    /// [`Rejected`] if the entry weighs more than the cache's capacity; the key is vacant then.
    ///
    /// # Blocking
    /// Takes one shard's lock. An entry that needs more room than its shard holds takes the others', one after the other.
    pub fn insert(&self, key: K, value: V) -> Result<(), Rejected> {
        let born = self.store.settings.groups.generation();
        self.put(key, value, born, Spec::default(), &Terms::Always).or_else(Refusal::into_rejection)
    }

    /// Stores `value` under `key` with these options; otherwise as [`insert`](Self::insert).
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_with(&self, key: K, value: V, options: EntryOptions) -> Result<(), Rejected> {
        let groups = &self.store.settings.groups;
        self.put(key, value, groups.generation(), options.resolve(groups), &Terms::Always)
            .or_else(Refusal::into_rejection)
    }

    /// Stores `value` under `key` unless there is a value already, fresh or stale. Returns whether it did.
    ///
    /// Of several callers that add the same key at once, one succeeds.
    ///
    /// # Errors
    /// [`Rejected`] if the entry weighs more than the cache's capacity.
    pub fn add(&self, key: K, value: V) -> Result<bool, Rejected> {
        self.add_with(key, value, EntryOptions::new())
    }

    /// Stores `value` under `key` with these options unless there is a value already; otherwise as [`add`](Self::add).
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_with(&self, key: K, value: V, options: EntryOptions) -> Result<bool, Rejected> {
        let groups = &self.store.settings.groups;
        match self.put(key, value, groups.generation(), options.resolve(groups), &Terms::IfAbsent) {
            Ok(()) => Ok(true),
            Err(refusal) => refusal.into_rejection().map(|()| false),
        }
    }

    /// Stores a value that was given, not loaded: it counts as loaded when it was `born`, before its groups were looked up, so
    /// that a bump while it is being stored takes it along.
    // Always: a caller that says nothing of the value's deadlines and weight pays nothing for what it might have said.
    #[inline(always)]
    fn put(&self, key: K, value: V, born: Generation, spec: Spec, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        let entry = self.store.entry::<false>(self.hash(&key), key, value, born, spec, Duration::ZERO);
        self.store.admit(entry, terms)
    }

    /// Makes an entry of a value that was given, not loaded.
    pub(crate) fn entry(&self, key: K, value: V, born: Generation, options: EntryOptions) -> Handle<K, V> {
        let spec = options.resolve(&self.store.settings.groups);
        self.store.entry::<false>(self.hash(&key), key, value, born, spec, Duration::ZERO)
    }

    /// Replaces the value for `key` by what `f` makes of it, and returns the new value; `None` if it is absent or dead.
    ///
    /// The entry keeps its deadlines and its groups: a value made from a stale one is as stale. `f` runs outside all locks,
    /// and again if the value was replaced while it ran; no update is lost. Where the new value is too heavy for the cache it
    /// is returned all the same, counted in [`Stats::rejections`], and the key is vacant.
    pub fn update<Q>(&self, key: &Q, f: impl Fn(&V) -> V) -> Option<V>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        self.update_if(key, |_| true, f)
    }

    /// Updates as [`update`](Self::update) does, and takes an entry that is not `usable` for a dead one.
    pub(crate) fn update_if<Q>(&self, key: &Q, usable: impl Fn(&Meta) -> bool, f: impl Fn(&V) -> V) -> Option<V>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let hash = self.hash(key);
        loop {
            let (old, _) = self.store.find_if(hash, key, &usable)?;
            let value = f(&old.value);
            let successor = self.store.successor(&old.meta, hash, key.to_key(), value.clone());
            if self.store.admit(successor, &Terms::IfCurrent(&old)) != Err(Refusal::Unmet) {
                return Some(value);
            }
        }
    }

    /// Removes the value for `key` and returns a clone of it; `None` if it was absent or dead. The cache's own is dropped
    /// [later](crate#when-values-are-dropped), once nobody can be looking at it.
    ///
    /// A load of the key that is under way is fenced, and callers who come from now on do not join it.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.store.remove(self.hash(key), key).map(|entry| entry.value.clone())
    }

    /// Makes the value for `key` stale: still served, while one caller refreshes it. Returns whether there is a value.
    ///
    /// A load of the key that is under way is fenced, as by [`remove`](Self::remove).
    pub fn expire<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.store.expire(self.hash(key), key)
    }

    /// Makes every entry dead, whatever their number, in constant time. Loads under way are fenced.
    ///
    /// Other caches that share the registry of groups are not affected. The entries' memory is reclaimed by later inserts, or
    /// at once by [`run_maintenance`](Self::run_maintenance); until then `Drop` and the removal listener wait as well.
    pub fn clear(&self) {
        self.store.clear();
    }

    /// Removes every value for which `keep` returns `false`.
    ///
    /// `keep` runs outside all locks, on the entries of one shard after another; a value that is stored meanwhile may be
    /// missed, and one that is replaced meanwhile is kept. Costs time and, for one shard at a time, memory in proportion to
    /// the number of entries.
    pub fn retain(&self, keep: impl Fn(&K, &V) -> bool) {
        for shard in 0..self.store.shards() {
            let mut entries = self.store.snapshot(shard);
            entries.retain(|entry| !keep(&entry.key, &entry.value));
            self.store.remove_entries(shard, entries);
        }
    }

    /// Changes the capacity, and evicts until what is stored fits.
    ///
    /// # Blocking
    /// Takes the shards' locks, one after the other.
    pub fn set_capacity(&self, capacity: u64) {
        self.store.set_capacity(capacity);
    }

    /// Returns the value for each key, in order, as [`get`](Self::get) would.
    pub fn get_many<'q, Q, I>(&self, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// Stores every pair, as [`insert`](Self::insert) would.
    ///
    /// # Errors
    /// The first [`Rejected`]; the pairs after it are stored all the same.
    pub fn insert_many(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<(), Rejected> {
        pairs.into_iter().map(|(key, value)| self.insert(key, value)).fold(Ok(()), Result::and)
    }

    /// Removes the value for each key, as [`remove`](Self::remove) would.
    pub fn remove_many<'q, Q, I>(&self, keys: I)
    where
        Q: Hash + Equivalent<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        for key in keys {
            drop(self.store.remove(self.hash(key), key));
        }
    }

    /// Makes every entry of `group` dead: in this cache, and in all that share its registry of groups.
    ///
    /// Costs the same whatever the group holds. Loads under way that name the group, before or after, are fenced.
    pub fn invalidate_group(&self, group: &str) {
        self.store.settings.groups.invalidate(group);
    }

    /// Makes every entry of `group` stale: in this cache, and in all that share its registry of groups.
    ///
    /// Costs and fences as [`invalidate_group`](Self::invalidate_group) does.
    pub fn expire_group(&self, group: &str) {
        self.store.settings.groups.expire(group);
    }

    /// Makes every entry of each group dead, as [`invalidate_group`](Self::invalidate_group) would.
    pub fn invalidate_groups<I>(&self, groups: I)
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        groups.into_iter().for_each(|group| self.invalidate_group(group.as_ref()));
    }

    /// Returns what the cache has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.store.stats()
    }

    /// Returns how many entries there are. A snapshot, shard by shard.
    ///
    /// Counts entries that died by a deadline or a group until they are reclaimed, but none from before a
    /// [`clear`](Self::clear).
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.census().0
    }

    /// Returns whether [`len`](Self::len) is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what all entries weigh, counted as [`len`](Self::len) counts them. Never more than the capacity, unless
    /// [`set_capacity`](Self::set_capacity) is just lowering that.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.store.census().1
    }

    /// Returns how much weight the cache may hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.store.capacity()
    }

    /// Returns the keys and values of all entries that are alive, in no particular order.
    ///
    /// Each shard is copied when the iteration reaches it: an entry that is there throughout is met once, one that comes or
    /// goes meanwhile perhaps. Holds no lock between steps, and leaves no trace.
    pub fn iter(&self) -> Iter<K, V>
    where
        K: Clone,
    {
        Iter { store: self.store.clone(), shard: 0, entries: Vec::new().into_iter() }
    }

    /// Reclaims every dead entry, and drops every value that has left and that nobody is looking at.
    ///
    /// Never needed for correctness: inserts reclaim a few entries each. Call it now and then, from a thread of your own, to
    /// give memory back while little is stored.
    ///
    /// # Blocking
    /// Takes one shard's lock after another, each for a time in proportion to its number of entries.
    pub fn run_maintenance(&self) {
        self.store.run_maintenance();
    }
}

impl<K, V, S: Clone> Clone for Cache<K, V, S> {
    /// Returns another handle to the same cache.
    fn clone(&self) -> Self {
        Cache { store: self.store.clone(), hasher: self.hasher.clone() }
    }
}

impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, weight) = self.store.census();
        f.debug_struct("Cache")
            .field("name", &self.store.settings.name)
            .field("len", &len)
            .field("weight", &weight)
            .field("capacity", &self.store.capacity())
            .field("shards", &self.store.shards())
            .finish()
    }
}

impl<K, V, S> IntoIterator for &Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    type Item = (K, V);
    type IntoIter = Iter<K, V>;

    fn into_iter(self) -> Iter<K, V> {
        self.iter()
    }
}

/// The entries of a cache, as [`Cache::iter`] returns them.
pub struct Iter<K, V> {
    store: Arc<Store<K, V>>,
    shard: usize,
    entries: std::vec::IntoIter<Handle<K, V>>,
}

impl<K: Clone, V: Clone> Iterator for Iter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some((entry.key.clone(), entry.value.clone()));
            }
            if self.shard == self.store.shards() {
                return None;
            }
            self.entries = self.store.snapshot(self.shard).into_iter();
            self.shard += 1;
        }
    }
}

impl<K, V> fmt::Debug for Iter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("shard", &self.shard).finish_non_exhaustive()
    }
}
