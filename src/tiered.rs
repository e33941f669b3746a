//! The tiered cache: a local tier in front of a remote one that several processes share.

mod builder;
mod claim;
mod consult;
mod fetch;
mod futures;
mod inbox;
mod index;
mod load;
mod loading;
mod read;
mod remove;
mod sightings;
mod touch;
mod view;
mod warm_up;
mod write;

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;

use equivalent::Equivalent;

pub use self::builder::TieredCacheBuilder;
pub use self::claim::TieredClaim;
use self::inbox::Inbox;
use self::sightings::Sightings;
pub use self::view::LocalView;
pub use self::write::{Added, Write};
use crate::batch::Batch;
use crate::cache::Cache;
use crate::call::CallOptions;
use crate::clock::real;
use crate::error::LoadError;
use crate::key::ToKey;
use crate::load::Step;
use crate::namespace::core::Core;
use crate::namespace::{Bump, Namespace};
use crate::options::{EntryOptions, Load};
use crate::remote::batch::Caller;
use crate::remote::codec::Codec;
use crate::remote::key::RemoteKey;
use crate::remote::keyspace::CacheKeyspace;
use crate::remote::packing::Packing;
use crate::stats::Stats;
#[cfg(feature = "metrics")]
use crate::store::Store;
use crate::sync::{Arc, AtomicU64, Ordering};

/// A cache in two tiers: a local one, and one in a store that several processes share.
///
/// Reads look into the local tier first, then into the remote one, whose values are copied into the local tier; writes go
/// through to the remote tier. Where the remote tier cannot be reached, a read is a miss, counted in [`RemoteStats`], and a
/// write says so; the local tier goes on by itself.
///
/// Several caches share one [`Namespace`], each by a name of its own. Cloning gives another handle to the same cache.
///
/// # Across processes
/// - **One loader.** Of all processes that miss one key at once, one loads it, and the others wait for its value. It holds a
///   *lease* in the remote tier, which is renewed while it loads; should it vanish, another takes its place once the lease is
///   over. A stale value is refreshed by one process, and served by the others meanwhile.
/// - **No stale fill.** A load that another process's `remove`, `insert` or `expire` of the key overtakes is not stored, nor
///   is one whose group was invalidated since it began, whenever it names the group.
/// - **Bounded staleness.** What one process invalidates or replaces, others learn from a journal in the remote tier, within
///   the namespace's [`poll_interval`](crate::NamespaceBuilder::poll_interval). A process that cannot reach it stops serving
///   its local tier after [`trust`](crate::NamespaceBuilder::trust).
///
/// Where the remote tier cannot be asked, each process loads for itself.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::{InMemoryRemote, Namespace, RawBytes, TieredCache};
///
/// let namespace = Namespace::builder("shop", InMemoryRemote::new()).version("1").build()?;
/// let pages: TieredCache<String, String> = TieredCache::builder(&namespace, "pages")
///     .capacity(10_000)
///     .soft_ttl(Duration::from_secs(60))
///     .codec(RawBytes)
///     .build()?;
///
/// let page = pages.get_or_load("/user/7", |load| {
///     load.groups(["user:7"]);
///     Ok::<_, std::io::Error>("Ann's page".to_owned())
/// })?;
/// assert_eq!(page, "Ann's page");
/// assert!(namespace.invalidate_group("user:7").is_acknowledged());
/// assert_eq!(pages.get("/user/7"), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TieredCache<K, V, S = ahash::RandomState> {
    local: Cache<K, V, S>,
    remote: Arc<Remote<K, V>>,
}

/// What one cache has in the remote tier.
struct Remote<K, V> {
    namespace: Namespace,
    keys: CacheKeyspace,
    codec: Box<dyn Codec<V>>,
    packing: Packing,
    counters: Arc<Counters>,
    inbox: Arc<Inbox<K, V>>,
    sightings: Sightings,
}

impl<K, V> Remote<K, V> {
    #[inline]
    fn core(&self) -> &Arc<Core> {
        self.namespace.core()
    }
}

impl<K, V> TieredCache<K, V>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns a builder for the cache called `name` in `namespace`: 1 to 64 bytes of printable ASCII without `:`.
    ///
    /// Two caches of one namespace must not share a name, unless they have the same keys and values. Those that do share the
    /// remote tier alone, as if they were in two processes; clone a cache instead.
    pub fn builder(namespace: &Namespace, name: &str) -> TieredCacheBuilder<K, V> {
        TieredCacheBuilder::new(namespace, name)
    }
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for `key`, fresh or stale, from the local tier or from the remote one; `None` if neither has it.
    ///
    /// A value from the remote tier is copied into the local one, unless its key or a group of it is invalidated meanwhile.
    ///
    /// # Blocking
    /// A local hit never waits. Otherwise on one exchange with the remote tier as a rule, and on two where tokens of groups
    /// have to be read, for at most the namespace's timeout each; on one more once the trust lease has lapsed.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.get_local(key).or_else(|| real::block_on(pin!(self.read_one(Caller::Thread, key))))
    }

    /// Calls `f` with a reference to the value for `key`, and returns what it returns; otherwise as [`get`](Self::get).
    ///
    /// # Blocking
    /// As [`get`](Self::get).
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        match self.with_local(key, f) {
            Ok(answer) => Some(answer),
            Err(f) => real::block_on(pin!(self.read_one(Caller::Thread, key))).map(|value| f(&value)),
        }
    }

    /// Returns the value for each key, in order, as [`get`](Self::get) would.
    ///
    /// # Blocking
    /// As [`get`](Self::get), for all keys together.
    pub fn get_many<'q, Q, I>(&self, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        real::block_on(self.read_many(Caller::Thread, keys, CallOptions::new()))
    }

    /// Returns the value for `key` as [`get`](Self::get) does, with these options.
    ///
    /// With [`skip_local`](CallOptions::skip_local), what the remote tier has, and nothing is copied. With
    /// [`skip_remote`](CallOptions::skip_remote), what the local one has, as far as it counts. With
    /// [`read_only`](CallOptions::read_only), nothing is copied either. [`hard_timeout`](CallOptions::hard_timeout) is how long
    /// the remote tier may take, if less than the namespace's timeout allows: past it, what it has counts as missing. The other
    /// options are about loads, and say nothing to a call that never loads.
    ///
    /// # Blocking
    /// As [`get`](Self::get), for at most the hard timeout in all, if there is one.
    pub fn get_with<Q>(&self, key: &Q, options: CallOptions) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        real::block_on(self.read_as(Caller::Thread, key, options))
    }

    /// Returns the value for each key, in order, as [`get_with`](Self::get_with) would.
    ///
    /// # Blocking
    /// As [`get_with`](Self::get_with), for all keys together.
    pub fn get_many_with<'q, Q, I>(&self, keys: I, options: CallOptions) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        real::block_on(self.read_many(Caller::Thread, keys, options))
    }

    /// Returns whether either tier has a value for `key`, fresh or stale; otherwise as [`get`](Self::get).
    ///
    /// # Blocking
    /// As [`get`](Self::get).
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.local().contains(key) || self.get(key).is_some()
    }

    /// Returns the value for `key`, or loads it and stores it in both tiers.
    ///
    /// As [`Cache::get_or_load`], with the remote tier between the local one and the loader: a caller that may load asks it
    /// first, and a fresh value there is taken instead, unless it is what is to be refreshed ahead of its time. The result is
    /// written through, unless the key or a group of the value was invalidated since the load began: then it is returned, and
    /// stored nowhere.
    ///
    /// One load of a key runs at a time among all processes. Whoever finds that another process is at it is served the stale
    /// value, if there is one, and otherwise asks again for up to half of the cache's
    /// [`load_wait`](TieredCacheBuilder::load_wait); then it runs `loader`, whose result stays in its local tier. From
    /// then on no load by this cache waits for that other one: callers that find it still at it run their loaders at once.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`]; and [`Untrusted`](crate::LoadErrorKind::Untrusted) once the trust lease has lapsed, with
    /// [`LostTrust::Refuse`](crate::LostTrust::Refuse). A failure of the remote tier is none: it is counted in
    /// [`RemoteStats`].
    ///
    /// # Panics
    /// A panic of `loader` passes through.
    ///
    /// # Blocking
    /// On the remote tier for at most the namespace's timeout an exchange: one before the loader and one after as a rule, up
    /// to four before and two after, or four where the value is [not modified](crate::Load::not_modified); on `loader`; on the loads of other processes as above; or on another caller for at most
    /// the cache's `load_wait`.
    pub fn get_or_load<Q, E, F>(&self, key: &Q, loader: F) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        self.get_or_load_with(key, CallOptions::new(), loader)
    }

    /// Returns the value for `key`, or loads it and stores it in both tiers, as `options` say; otherwise as
    /// [`get_or_load`](Self::get_or_load).
    ///
    /// - [`skip_local`](CallOptions::skip_local): the remote tier is asked whatever the local one holds, and a value that is
    ///   loaded is stored there alone.
    /// - [`skip_remote`](CallOptions::skip_remote): all is as if the remote tier could not be reached. What is loaded stays in
    ///   the local tier, and other processes may load it too.
    /// - [`read_only`](CallOptions::read_only): what either tier has is returned, and nothing is loaded or copied.
    /// - [`no_refresh`](CallOptions::no_refresh): a stale value is returned as it is.
    /// - [`hard_timeout`](CallOptions::hard_timeout): bounds the wait for the loads of other callers, of this process and of
    ///   others, where it is shorter than they would be waited for. It cannot end `loader`, which runs on this thread.
    /// - [`soft_timeout`](CallOptions::soft_timeout) changes nothing: the caller that refreshes runs `loader` itself. A
    ///   [`Loading`](crate::Loading) cache refreshes in the background.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load), and [`Absent`](crate::LoadErrorKind::Absent) from a read-only call that finds no
    /// value.
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Blocking
    /// As [`get_or_load`](Self::get_or_load).
    pub fn get_or_load_with<Q, E, F>(&self, key: &Q, options: CallOptions, loader: F) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        if options.read_only {
            return real::block_on(self.read_as(Caller::Thread, key, options)).ok_or_else(LoadError::absent);
        }
        let first = match self.look_first(key, options)? {
            Some(Step::Done(value)) => return Ok(value),
            other => other,
        };
        real::block_on(self.load_one(Caller::Thread, key, first, options, |load| ready(loader(load))))
    }

    /// Returns the value for `key`, or what `make` returns, which is stored in both tiers; otherwise as
    /// [`get_or_load`](Self::get_or_load).
    ///
    /// A caller that waits too long for another, or whose `make` asks for the key that it makes, runs its own and returns it
    /// unstored.
    ///
    /// # Panics
    /// A panic of `make` passes through.
    ///
    /// # Blocking
    /// As [`get_or_load`](Self::get_or_load).
    pub fn get_or_insert_with<Q>(&self, key: &Q, make: impl FnOnce() -> V) -> V
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let mut make = Some(make);
        let mut run = || make.take().map(|make| make());
        let loaded = self.get_or_load(key, |_| Ok::<_, Infallible>(run()).map(|value| value.expect(ONCE)));
        loaded.unwrap_or_else(|_| run().expect(ONCE))
    }

    /// Returns the value for each key, in order, and loads all that neither tier has at once.
    ///
    /// `loader` runs once, with the keys that nobody else is loading, or not at all; as [`Cache::get_many_or_load`]. Keys that
    /// other processes load are waited for afterwards, as [`get_or_load`](Self::get_or_load) does.
    ///
    /// # Errors
    /// As [`Cache::get_many_or_load`] and [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// A panic of `loader` passes through, and those who wait get an error.
    ///
    /// # Blocking
    /// As [`get_or_load`](Self::get_or_load), with as many exchanges for all keys together.
    pub fn get_many_or_load<'q, Q, I, E, F>(&self, keys: I, loader: F) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Result<Vec<(K, V)>, E>,
    {
        real::block_on(self.load_many(Caller::Thread, keys, |batch| ready(loader(batch))))
    }

    /// Stores `value` under `key` in both tiers, in the place of whatever was there, and tells other processes.
    ///
    /// # Blocking
    /// On three exchanges with the remote tier (the version that is there, the value, the journal), for at most the
    /// namespace's timeout each; on one more for tokens that are not known, and more if other processes write the same key at
    /// the same moment.
    pub fn insert(&self, key: K, value: V) -> Write {
        self.insert_with(key, value, EntryOptions::new())
    }

    /// Stores `value` under `key` in both tiers with these options; otherwise as [`insert`](Self::insert).
    ///
    /// An entry's own weight counts in the local tier of this process alone. With more than 253 groups it stays in that tier:
    /// the remote one records 255, the cache and the namespace among them.
    ///
    /// # Blocking
    /// As [`insert`](Self::insert).
    pub fn insert_with(&self, key: K, value: V, options: EntryOptions) -> Write {
        let written = real::block_on(self.write_all(Caller::Thread, [(key, value)], options));
        written.into_iter().next().unwrap_or(Write::Through)
    }

    /// Stores every pair, as [`insert`](Self::insert) would, and returns how far each has come, in order. Of several pairs with
    /// one key the last one is stored, and the others are said to have come as far.
    ///
    /// # Blocking
    /// As [`insert`](Self::insert), for all pairs together.
    pub fn insert_many(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Vec<Write> {
        real::block_on(self.write_all(Caller::Thread, pairs, EntryOptions::new()))
    }

    /// Stores `value` under `key` in both tiers unless either has a value, fresh or stale.
    ///
    /// Of several processes that add the same key at once, one succeeds. Where the remote tier cannot be reached, the local
    /// one decides, and the answer says so.
    ///
    /// A value that is invalidated at the same moment, by a group of it or with the cache, was added before that and is gone
    /// with it. It ends what came before it all the same: a load that began earlier, in whichever process, stores nothing.
    ///
    /// # Blocking
    /// On three exchanges with the remote tier, for at most the namespace's timeout each; more as for [`insert`](Self::insert).
    pub fn add(&self, key: K, value: V) -> Added {
        self.add_with(key, value, EntryOptions::new())
    }

    /// Stores `value` under `key` in both tiers with these options unless either has a value; otherwise as
    /// [`add`](Self::add).
    ///
    /// # Blocking
    /// As [`add`](Self::add).
    pub fn add_with(&self, key: K, value: V, options: EntryOptions) -> Added {
        real::block_on(self.add_one(Caller::Thread, key, value, options))
    }

    /// Replaces the value for `key` in both tiers by what `f` makes of it, and returns the new value; `None` if neither tier
    /// has one.
    ///
    /// No update is lost: `f` runs again on the value that another caller, of any process, has stored meanwhile. Groups and
    /// deadlines stay as they are; but the remote tier counts whole seconds, so that each update brings the deadlines forward
    /// by up to two. Where the remote tier cannot be reached, the value of the local tier is replaced, if it counts
    /// yet, and what the remote one holds is to be deleted.
    ///
    /// # Blocking
    /// On three exchanges with the remote tier for each attempt, for at most the namespace's timeout each.
    pub fn update<Q>(&self, key: &Q, f: impl Fn(&V) -> V) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        real::block_on(self.update_one(Caller::Thread, key, f))
    }

    /// Removes the value for `key` from both tiers, and tells other processes.
    ///
    /// Loads of the key that are under way are fenced, in whatever process they run.
    ///
    /// # Blocking
    /// On two exchanges with the remote tier (the item, the journal), for at most the namespace's timeout each.
    pub fn remove<Q>(&self, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        self.remove_many([key])
    }

    /// Removes the value for each key, as [`remove`](Self::remove) would.
    ///
    /// # Blocking
    /// As [`remove`](Self::remove), for all keys together.
    pub fn remove_many<'q, Q, I>(&self, keys: I) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        real::block_on(self.remove_all(Caller::Thread, keys))
    }

    /// Removes every value of the local tier for which `keep` returns `false`, from both tiers, and tells other processes.
    ///
    /// What the remote tier alone has is not looked at: nobody can list it. Otherwise as [`Cache::retain`], but that a value
    /// which takes the place of one that is to go goes with it.
    ///
    /// # Blocking
    /// As [`remove`](Self::remove), for each 256 values that go.
    pub fn retain(&self, keep: impl Fn(&K, &V) -> bool) -> Bump {
        real::block_on(self.retain_all(Caller::Thread, keep))
    }

    /// Makes the value for `key` stale in both tiers: still served, while one caller refreshes it.
    ///
    /// Loads of the key that are under way are fenced, in whatever process they run. Where the remote tier does not
    /// acknowledge it, its value is to be deleted there, and counts as a miss in this process until it is.
    ///
    /// # Blocking
    /// As [`remove`](Self::remove).
    pub fn expire<Q>(&self, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        real::block_on(self.expire_one(Caller::Thread, key))
    }

    /// Makes every entry of this cache dead, in both tiers, in constant time.
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn clear(&self) -> Bump {
        real::block_on(self.clear_all(Caller::Thread))
    }

    /// Makes every entry of `group` dead, in all caches of the namespace; see [`Namespace::invalidate_group`].
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn invalidate_group(&self, group: &str) -> Bump {
        self.remote.namespace.invalidate_group(group)
    }

    /// Makes every entry of `group` stale, in all caches of the namespace; see [`Namespace::expire_group`].
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn expire_group(&self, group: &str) -> Bump {
        self.remote.namespace.expire_group(group)
    }

    /// Makes every entry of each group dead; see [`Namespace::invalidate_groups`].
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn invalidate_groups<I>(&self, groups: I) -> Bump
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.remote.namespace.invalidate_groups(groups)
    }

    /// Returns a view of the local tier alone, which never waits.
    pub fn local(&self) -> LocalView<'_, K, V, S> {
        LocalView::new(self)
    }

    /// Returns the namespace that the cache belongs to.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.remote.namespace
    }

    /// Returns what the local tier has done so far.
    ///
    /// Each read counts once, with what the local tier had for it at first; where the trust lease had lapsed, that is a miss.
    /// What larder reads for itself does not count: in a refresh, an update, or while it waits for another process.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.local.stats()
    }

    /// Returns what the remote tier has done for this cache, in this process, so far.
    #[must_use]
    pub fn remote_stats(&self) -> RemoteStats {
        self.remote.counters.snapshot()
    }

    #[inline]
    fn core(&self) -> &Arc<Core> {
        self.remote.core()
    }

    /// Returns the store of the local tier.
    #[cfg(feature = "metrics")]
    pub(crate) fn local_store(&self) -> &Store<K, V> {
        &self.local.store
    }

    /// Returns the name that the cache was built with.
    pub(crate) fn name(&self) -> &str {
        &self.local.store.settings.name
    }

    /// Returns what the local tier answers, as far as it counts now.
    #[inline]
    fn get_local<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        // Trust first: who sees it hold sees what it was extended for, in the entry as well.
        if self.core().may_serve() { self.local.get(key) } else { self.distrusted() }
    }

    /// Counts a read that the local tier must not answer at once.
    #[cold]
    fn distrusted<R>(&self) -> Option<R> {
        self.local.store.tally().count(|counters| &counters.misses);
        None
    }

    /// Calls `f` with what the local tier answers, as far as it counts now; gives `f` back where there is nothing.
    #[inline]
    fn with_local<Q, R, F: FnOnce(&V) -> R>(&self, key: &Q, f: F) -> Result<R, F>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        if !self.core().may_serve() {
            return self.distrusted().ok_or(f);
        }
        let mut f = Some(f);
        let answer = self.local.with(key, |value| f.take().map(|f| f(value)));
        answer.flatten().ok_or(f).map_err(|f| f.expect("it was not called"))
    }

    /// Returns what a caller does about what the local tier has, if that counts now.
    fn look_first<Q, E>(&self, key: &Q, options: CallOptions) -> Result<Option<Step<K, V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        if !self.core().may_serve() {
            return Ok(self.distrusted());
        }
        let look = self.local.look_as(options, self.local.hash(key), key, |_| true);
        if !options.skip_local {
            self.local.count(&look);
        }
        self.local.step(look).map(Some)
    }
}

impl<K, V, S> TieredCache<K, V, S> {
    /// Returns the namespace, and the hash of the group in it that all entries of this cache belong to.
    pub(crate) fn root(&self) -> (&Namespace, u64) {
        (&self.remote.namespace, self.remote.keys.root_group())
    }
}

impl<K, V, S: Clone> Clone for TieredCache<K, V, S> {
    /// Returns another handle to the same cache.
    fn clone(&self) -> Self {
        TieredCache { local: self.local.clone(), remote: self.remote.clone() }
    }
}

impl<K, V, S> fmt::Debug for TieredCache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCache")
            .field("local", &self.local)
            .field("namespace", &self.remote.namespace)
            .field("remote_stats", &self.remote.counters.snapshot())
            .finish()
    }
}

const ONCE: &str = "the closure runs once: in the load, or because there was none";

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What the remote tier has done for one cache in this process: a snapshot.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct RemoteStats {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl std::ops::Sub for RemoteStats {
            type Output = RemoteStats;

            /// Returns what happened since `earlier`, figure by figure.
            fn sub(self, earlier: RemoteStats) -> RemoteStats {
                RemoteStats { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }

        #[cfg(feature = "metrics")]
        impl RemoteStats {
            /// Calls `f` with every counter, named as a metric.
            pub(crate) fn each(&self, mut f: impl FnMut(crate::watch::Figure)) {
                $(f(crate::watch::Figure {
                    field: stringify!($name),
                    name: concat!("larder_", stringify!($name), "_total"),
                    help: concat!($($doc),*),
                    value: self.$name,
                });)*
            }
        }

        /// A remote exchange costs a thousand times what counting it does: one copy is enough.
        #[derive(Debug, Default)]
        struct Counters {
            $($name: AtomicU64,)*
        }

        impl Counters {
            fn snapshot(&self) -> RemoteStats {
                RemoteStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Reads that found a fresh value. A read is one of the user's that the local tier could not answer; what larder reads for
    /// itself, to refresh, add or update a value, or once more for another process to finish, does not count.
    hits_fresh,
    /// Reads that found a stale value.
    hits_stale,
    /// Reads that found no value that may be used.
    misses,
    /// Of the misses, those whose value was dead: by a group, by the cache, or by its deadline.
    dead,
    /// Of the misses, those whose bytes were no value: damaged, of another format, or of another key.
    unreadable,
    /// Reads and writes that failed, or that the remote tier did not answer in time.
    errors,
    /// Values stored.
    stores,
    /// Values whose time began anew, because a load had found them unchanged.
    touches,
    /// Values not stored because of an invalidation since their load began.
    fences,
    /// Values copied into the local tier. They are not among the values that it has [stored](Stats::stores).
    copies,
}
