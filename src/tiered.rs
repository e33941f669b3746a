//! The tiered cache: a local tier in front of a remote one that several processes share.

mod builder;
mod fetch;
#[cfg_attr(not(test), expect(dead_code, reason = "for news from other processes"))]
mod index;
mod view;
mod write;

use std::fmt;
use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

pub use self::builder::TieredCacheBuilder;
use self::fetch::{Found, LEASE, TICK};
pub use self::view::LocalView;
use self::write::{ATTEMPTS, Sent, Unsettled};
pub use self::write::{Added, Write};
use crate::cache::Cache;
use crate::claim::Claim;
use crate::clock::Deadline;
use crate::error::LoadError;
use crate::flight::Leading;
use crate::group::Bump as Kind;
use crate::key::ToKey;
use crate::load::Step;
use crate::namespace::{Bump, Namespace};
use crate::options::{EntryOptions, Load};
use crate::remote::codec::Codec;
use crate::remote::envelope::GroupTokens;
use crate::remote::error::RemoteErrorKind;
use crate::remote::key::{RemoteKey, WireKey};
use crate::remote::keyspace::CacheKeyspace;
use crate::remote::link::unexpected;
use crate::remote::tier::Cas;
use crate::stats::Stats;
use crate::store::{Refusal, Terms};
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
/// A value is taken from the remote tier only if none of its groups was invalidated since its load began, in whatever
/// process: the tokens of its groups are read with every value. A load that another process's `remove`, `insert` or `expire`
/// of the key overtakes is not stored, nor is one whose lease the store has lost. Two things do not reach across processes:
///
/// - What is in the *local* tier of another process is served there until its deadlines.
/// - A load whose groups nothing told of before, because neither tier held an older value of the key, learns their tokens
///   when it ends. A bump of such a group by *another* process while the load ran is missed. The cache and the namespace as
///   groups are known from the start.
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
    remote: Arc<Remote<V>>,
}

/// What one cache has in the remote tier.
struct Remote<V> {
    namespace: Namespace,
    keys: CacheKeyspace,
    codec: Box<dyn Codec<V>>,
    counters: Counters,
}

/// What a load found in the remote tier, for its result to be written there.
struct Ticket {
    key: WireKey,
    fingerprint: u64,
    /// The version of the item that the result may replace; `None` where it must not be written: another process is at it, or
    /// the remote tier cannot be reached.
    cas: Option<Cas>,
    /// Whether the item is a lease that this load holds, to be given back if it brings nothing.
    leased: bool,
    /// The tokens of groups as they were before the load.
    tokens: Vec<GroupTokens>,
}

impl Ticket {
    /// Returns the version of the lease that this load holds, if it holds one.
    fn lease(&self) -> Option<Cas> {
        self.cas.filter(|_| self.leased)
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
    /// remote tier alone, as if they were in two processes: what one removes or clears stays in the local tier of the other.
    /// Clone a cache instead.
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
    /// A local hit never waits. Otherwise on two exchanges with the remote tier, for at most the namespace's timeout each.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.local.get(key).or_else(|| self.get_remote(&[key]).pop().flatten())
    }

    /// Calls `f` with a reference to the value for `key`, and returns what it returns; otherwise as [`get`](Self::get).
    ///
    /// # Blocking
    /// As [`get`](Self::get).
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let mut f = Some(f);
        let local = self.local.with(key, |value| f.take().map(|f| f(value)));
        match (local, f) {
            (Some(answer), _) => answer,
            (None, f) => self.get_remote(&[key]).pop().flatten().and_then(|value| f.map(|f| f(&value))),
        }
    }

    /// Returns the value for each key, in order, as [`get`](Self::get) would.
    ///
    /// # Blocking
    /// On two exchanges with the remote tier for all keys that the local tier does not have.
    pub fn get_many<'q, Q, I>(&self, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        let mut values = self.local.get_many(keys.iter().copied());
        let missing: Vec<usize> = (0..keys.len()).filter(|&at| values[at].is_none()).collect();
        let missed: Vec<&Q> = missing.iter().map(|&at| keys[at]).collect();
        for (at, value) in missing.into_iter().zip(self.get_remote(&missed)) {
            values[at] = value;
        }
        values
    }

    /// Returns the value for `key`, or loads it and stores it in both tiers.
    ///
    /// As [`Cache::get_or_load`], with the remote tier between the local one and the loader: a caller that may load asks it
    /// first, and a fresh value there is taken instead, unless it is what is to be refreshed ahead of its time. The result is written through, unless the key or a group of the value
    /// was invalidated since the load began: then it is returned, and stored nowhere.
    ///
    /// Within this process one load runs at a time. Processes that miss at the same moment may each run one; one of them
    /// stores its result in the remote tier. What took longer than 30 s to load is stored in the local tier alone, unless the
    /// remote tier had a value for it to replace.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`]. A failure of the remote tier is none: it is counted in [`RemoteStats`].
    ///
    /// # Panics
    /// A panic of `loader` passes through.
    ///
    /// # Blocking
    /// On the remote tier for at most the namespace's timeout an exchange: up to three before the loader and three after, and as
    /// a rule two more on either side if a group has no token there yet; on `loader`; or on another caller for at most the
    /// cache's `load_wait`.
    pub fn get_or_load<Q, E, F>(&self, key: &Q, loader: F) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        let local = &self.local;
        let hash = local.hash(key);
        let mut patience = None;
        let mut ticket = None;
        let mut look = local.look(hash, key);
        loop {
            match local.step(look)? {
                Step::Done(value) => return Ok(value),
                Step::Wait(joined) => {
                    if let Some(value) = local.wait(&joined, &mut patience)? {
                        return Ok(value);
                    }
                }
                Step::Run(claim) => match ticket.take() {
                    Some(ticket) => return self.run_loader(claim, &ticket, loader),
                    None => match self.consult(key, claim) {
                        Consulted::Answer(value) => return Ok(value),
                        Consulted::Load(claim, found) => return self.run_loader(claim, &found, loader),
                        // The value is in the local tier now: this caller refreshes it while the others are served.
                        Consulted::Stale(found) => ticket = Some(found),
                    },
                },
            }
            look = local.store.look(hash, key);
        }
    }

    /// Stores `value` under `key` in both tiers, in the place of whatever was there.
    ///
    /// # Blocking
    /// On three exchanges with the remote tier, for at most the namespace's timeout each; as a rule two more if a group has no
    /// token there yet, and more if other processes write the same key at the same moment.
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
        let written = self.write_all([(key, value)], options);
        written.into_iter().next().unwrap_or(Write::Through)
    }

    /// Stores every pair, as [`insert`](Self::insert) would, and returns how far each has come, in order. Of several pairs with
    /// one key the last one is stored, and the others are said to have come as far.
    ///
    /// # Blocking
    /// As [`insert`](Self::insert), for all pairs together.
    pub fn insert_many(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Vec<Write> {
        self.write_all(pairs, EntryOptions::new())
    }

    /// Stores `value` under `key` in both tiers unless either has a value, fresh or stale.
    ///
    /// Of several processes that add the same key at once, one succeeds. Where the remote tier cannot be reached, the local
    /// one decides, and the answer says so.
    ///
    /// # Blocking
    /// On three exchanges with the remote tier, for at most the namespace's timeout each; more as for [`insert`](Self::insert).
    pub fn add(&self, key: K, value: V) -> Added {
        if self.local.contains(&key) {
            return Added::Present;
        }
        let Remote { namespace, .. } = &*self.remote;
        let born = namespace.groups().generation();
        let (wire_key, fingerprint) = self.remote.locate(&key);
        let entry = self.local.entry(key, value, born, EntryOptions::new());
        for _ in 0..ATTEMPTS {
            let (cas, leased) = match self.remote.fetch_one(&wire_key, fingerprint, true) {
                Found::Fresh(..) | Found::Stale(..) => return Added::Present,
                Found::Vacant(vacancy) => {
                    (vacancy.cas.ok_or_else(|| unexpected("to a read that takes a lease")), vacancy.leased)
                }
                Found::Leased(cas) => (Ok(cas), false),
                Found::Unknown(error) => (Err(error), false),
            };
            let lease = self.remote.hold(&wire_key, cas.as_ref().ok().copied().filter(|_| leased));
            let admitted = self.local.store.admit(&entry, &Terms::IfAbsent);
            if admitted == Err(Refusal::Unmet) {
                return Added::Present;
            }
            let unsettled = Unsettled { store: &self.local.store, entry: &entry };
            let sent = match cas {
                Ok(cas) => self.remote.send(&wire_key, fingerprint, &entry, &self.local.store, &[], cas),
                Err(error) => Sent::Failed(error),
            };
            unsettled.forget();
            let sent = match sent {
                Sent::Stored => {
                    lease.forget();
                    Ok(())
                }
                // Added before the invalidation, and gone with it.
                Sent::Overtaken => Ok(()),
                Sent::Failed(error) => Err(error),
                Sent::Fenced => {
                    lease.forget();
                    if admitted.is_ok() && !self.local.store.withdraw(&entry) {
                        // It was there, until this process replaced or removed it.
                        return Added::Stored(Write::Through);
                    }
                    continue;
                }
            };
            return Added::Stored(self.conclude(&wire_key, &entry, admitted, sent));
        }
        // Others write the key all the time: one of them was first.
        Added::Present
    }

    /// Removes the value for `key` from both tiers.
    ///
    /// Loads of the key that are under way are fenced, in whatever process they run.
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
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
        let keys: Vec<&Q> = keys.into_iter().collect();
        if keys.is_empty() {
            return Bump::Acknowledged;
        }
        let wire_keys: Vec<WireKey> = keys.iter().map(|key| self.remote.locate(*key).0).collect();
        let locally = || keys.iter().for_each(|key| drop(self.local.remove(*key)));
        locally();
        let deleted = self.remote.namespace.link().delete(&wire_keys);
        // Again: the old values may have been read from the remote tier and copied meanwhile.
        locally();
        Bump::from_result(deleted, &self.remote.namespace)
    }

    /// Makes the value for `key` stale in both tiers: still served, while one caller refreshes it.
    ///
    /// Loads of the key that are under way are fenced, in whatever process they run. Where the remote tier does not
    /// acknowledge it, its value is to be deleted there, and counts as a miss in this process until it is.
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn expire<Q>(&self, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        let (wire_key, _) = self.remote.locate(key);
        self.local.expire(key);
        let marked = self.remote.namespace.link().mark_stale(&wire_key);
        // Again: the value may have been read from the remote tier and copied meanwhile.
        self.local.expire(key);
        Bump::from_result(marked, &self.remote.namespace)
    }

    /// Makes every entry of this cache dead, in both tiers, in constant time.
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn clear(&self) -> Bump {
        self.remote.namespace.bump_with(&[self.remote.keys.root_group()], Kind::Kill, || self.local.clear())
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
        LocalView::new(&self.local)
    }

    /// Returns the namespace that the cache belongs to.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.remote.namespace
    }

    /// Returns what the local tier has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.local.stats()
    }

    /// Returns what the remote tier has done for this cache, in this process, so far.
    #[must_use]
    pub fn remote_stats(&self) -> RemoteStats {
        self.remote.counters.snapshot()
    }

    /// Runs a loader under a claim, and writes its result through.
    fn run_loader<E, F>(&self, mut claim: Claim<K, V>, ticket: &Ticket, loader: F) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        let lease = self.remote.hold(&ticket.key, ticket.lease());
        let load = claim.begin();
        claim.flight().held_until.set(Deadline::NEVER);
        let stopwatch = self.local.store.settings.clock.stopwatch();
        let result = {
            let _leading = Leading::enter([claim.flight()]);
            loader(load)
        };
        let took = stopwatch.elapsed();
        self.local.store.tally().loaded(took, result.is_ok());
        let value = match result {
            Ok(value) => value,
            Err(error) => return claim.fail(Arc::new(error)),
        };
        let (entry, wanted) = claim.prepare(value.clone(), took);
        if !wanted {
            claim.refuse(&entry);
            return Ok(value);
        }
        // A load that was overtaken by an invalidation in this process is not sent at all; by one in another, the item has
        // changed, or a token has.
        let sent = match ticket.cas {
            Some(_) if !claim.stands() => Sent::Overtaken,
            Some(cas) => {
                self.remote.send(&ticket.key, ticket.fingerprint, &entry, &self.local.store, &ticket.tokens, cas)
            }
            None => Sent::Stored,
        };
        match sent {
            Sent::Stored => {
                lease.forget();
                let _ = claim.commit(entry);
            }
            // The lease was over before the load, so that who else has been at the key cannot be known any more: other processes
            // get nothing of this load, and this one goes by what it knows.
            Sent::Fenced if ticket.leased && took >= LEASE.saturating_sub(TICK) => {
                lease.forget();
                let _ = claim.commit(entry);
            }
            Sent::Fenced => {
                lease.forget();
                self.local.store.tally().count(|counters| &counters.fences);
                claim.refuse(&entry);
            }
            Sent::Overtaken => {
                self.local.store.tally().count(|counters| &counters.fences);
                claim.refuse(&entry);
            }
            // Not written there, perhaps, but nothing says that the value is out of date.
            Sent::Failed(error) => {
                // What the remote tier will never take is older there than here.
                let hopeless = matches!(error.kind(), RemoteErrorKind::TooLarge | RemoteErrorKind::Codec);
                if let (Some(cas), true, false) = (ticket.cas, hopeless, ticket.leased) {
                    self.remote.abandon(&ticket.key, cas);
                }
                let _ = claim.commit(entry);
            }
        }
        Ok(value)
    }
}

/// What the remote tier has to say before a load.
enum Consulted<K, V> {
    /// It has a fresh value, which is in the local tier now.
    Answer(V),
    /// It has a stale value, which is in the local tier now.
    Stale(Ticket),
    /// It has none.
    Load(Claim<K, V>, Ticket),
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

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the remote tier has done for one cache in this process: a snapshot.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct RemoteStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl std::ops::Sub for RemoteStats {
            type Output = RemoteStats;

            /// Returns what happened since `earlier`, figure by figure.
            fn sub(self, earlier: RemoteStats) -> RemoteStats {
                RemoteStats { $($name: self.$name.saturating_sub(earlier.$name),)* }
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
    /// Reads that found a fresh value.
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
    /// Values not stored because of an invalidation since their load began.
    fences,
}
