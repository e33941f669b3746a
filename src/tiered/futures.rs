//! The verbs of a tiered cache that wait, for futures: on any runtime, and without blocking whoever polls them.
//!
//! Exchanges with the remote tier run on the namespace's own threads. Dropping a future half-way frees what it has claimed; a
//! change that it had begun is carried out all the same, or its undoing is.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use equivalent::Equivalent;

use super::consult::Wanted;
use super::{Added, ONCE, TieredCache, TieredClaim, Write};
use crate::batch::Batch;
use crate::cache::Lookup;
use crate::call::CallOptions;
use crate::error::LoadError;
use crate::key::ToKey;
use crate::load::{BoxFuture, Step};
use crate::namespace::Bump;
use crate::namespace::core::Standing;
use crate::options::{EntryOptions, Load};
use crate::remote::batch::Caller;
use crate::remote::key::RemoteKey;
use crate::store::Look;
use crate::watch::Background;

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for `key`: [`get`](Self::get) for futures. A local hit is ready at once.
    pub async fn get_async<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        match self.get_local(key) {
            Some(value) => Some(value),
            None => self.read_one(Caller::Task, key).await,
        }
    }

    /// Calls `f` with a reference to the value for `key`: [`with`](Self::with) for futures.
    pub async fn with_async<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        match self.with_local(key, f) {
            Ok(answer) => Some(answer),
            Err(f) => self.read_one(Caller::Task, key).await.map(|value| f(&value)),
        }
    }

    /// Returns the value for each key, in order: [`get_many`](Self::get_many) for futures.
    pub async fn get_many_async<'q, Q, I>(&self, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.read_many(Caller::Task, keys, CallOptions::new()).await
    }

    /// Returns the value for `key` with these options: [`get_with`](Self::get_with) for futures.
    pub async fn get_with_async<Q>(&self, key: &Q, options: CallOptions) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.read_as(Caller::Task, key, options).await
    }

    /// Returns the value for each key with these options, in order: [`get_many_with`](Self::get_many_with) for futures.
    pub async fn get_many_with_async<'q, Q, I>(&self, keys: I, options: CallOptions) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.read_many(Caller::Task, keys, options).await
    }

    /// Returns whether either tier has a value for `key`: [`contains`](Self::contains) for futures.
    pub async fn contains_async<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.local().contains(key) || self.get_async(key).await.is_some()
    }

    /// Looks for the value of `key` in both tiers, and claims the key if nobody else fills it: [`lookup`](Self::lookup) for
    /// futures. Dropping the future half-way leaves the key free, here and in the remote tier.
    pub async fn lookup_async<Q>(&self, key: &Q) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.look_up(Caller::Task, key, None, CallOptions::new()).await
    }

    /// Looks for the value of `key` with these options: [`lookup_with`](Self::lookup_with) for futures, as
    /// [`lookup_async`](Self::lookup_async).
    pub async fn lookup_with_async<Q>(&self, key: &Q, options: CallOptions) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.look_up(Caller::Task, key, None, options).await
    }

    /// Looks for the value of `key`, and where another caller fills it, waits for that: [`lookup_wait`](Self::lookup_wait) for
    /// futures, as [`lookup_async`](Self::lookup_async).
    pub async fn lookup_wait_async<Q>(&self, key: &Q, wait: Duration) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.look_up(Caller::Task, key, Some(wait), CallOptions::new()).await
    }

    /// Returns the value for `key`, or loads it and stores it in both tiers: [`get_or_load`](Self::get_or_load) for futures.
    ///
    /// The load runs as part of the returned future. Dropping that half-way drops the load and frees the key, here and in the
    /// remote tier.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    pub fn get_or_load_async<Q, E, F, Fut>(&self, key: &Q, loader: F) -> impl Future<Output = Result<V, LoadError<E>>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.get_or_load_async_with(key, CallOptions::new(), loader)
    }

    /// Returns the value for `key`, or loads it and stores it in both tiers, as `options` say:
    /// [`get_or_load_with`](Self::get_or_load_with) for futures.
    ///
    /// A load of this caller's own that takes longer than [`hard_timeout`](CallOptions::hard_timeout) is given up: dropped, and
    /// an error for this caller and for all who wait for it, unless a stale value answers
    /// ([`stale_if_error`](super::TieredCacheBuilder::stale_if_error)).
    ///
    /// # Errors
    /// As [`get_or_load_with`](Self::get_or_load_with), with [`TimedOut`](crate::LoadErrorKind::TimedOut) also for this
    /// caller's own load.
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_async_with<Q, E, F, Fut>(
        &self,
        key: &Q,
        options: CallOptions,
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        if options.read_only {
            return self.read_as(Caller::Task, key, options).await.ok_or_else(LoadError::absent);
        }
        let first = match self.look_first(key, options)? {
            Some(Step::Done(value)) => return Ok(value),
            other => other,
        };
        // Boxed, so that the futures of callers, of whom most find a value, are not of the size of a load.
        Box::pin(self.load_one(Caller::Task, key, first, options, loader)).await
    }

    /// Returns the value for `key`, stale or not, and loads and stores it in the background if need be; as
    /// [`Cache::get_or_load_detached`](crate::Cache::get_or_load_detached).
    ///
    /// What is handed to `spawn` asks the remote tier first, as every load does, and writes through; a stale value that the
    /// local tier has is returned without a question to anybody.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load), with [`Panicked`](crate::LoadErrorKind::Panicked) also for this caller's own
    /// loader, and [`Cancelled`](crate::LoadErrorKind::Cancelled) if the runtime dropped it.
    ///
    /// # Panics
    /// A panic of `spawn` passes through.
    pub async fn get_or_load_detached<Q, E, F, Fut>(
        &self,
        key: &Q,
        spawn: impl FnOnce(BoxFuture),
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let hash = self.local.hash(key);
        let mut patience = self.local.patience(None);
        let mut job = Some((spawn, loader));
        let mut standing = Standing::Trusted;
        let mut first = self.core().may_serve().then(|| self.local.look(hash, key));
        loop {
            let look = match first.take() {
                Some(look) => look,
                None => {
                    standing = self.core().standing(Caller::Task).await;
                    if standing == Standing::Refused {
                        return Err(LoadError::untrusted());
                    }
                    self.glance_to_load(standing, hash, key, CallOptions::new())
                }
            };
            // A stale value is the answer, whoever refreshes it.
            let (value, claim) = match look {
                Look::Fresh(value) => return Ok(value),
                Look::Stale { value, claim } => (Some(value), claim),
                Look::Vacant(claim) => (None, Some(claim)),
                Look::Busy(joined) => {
                    let joined = self.local.may_wait(joined)?;
                    match self.wait(Caller::Task, &joined, &mut patience).await? {
                        Some(value) => return Ok(value),
                        None => continue,
                    }
                }
            };
            let joined = match (&value, &claim) {
                // Before the load starts: nobody joins a flight that has landed.
                (None, Some(claim)) => Some(claim.join().ok_or_else(LoadError::overloaded)?),
                _ => None,
            };
            if let Some(claim) = claim {
                match job.take() {
                    Some((spawn, loader)) => {
                        let (cache, key) = (self.clone(), claim.key().clone());
                        let load = async move {
                            let at = cache.remote.locate(&key);
                            let wanted = Wanted { key: &key, claim, at };
                            drop(cache.load_claimed(Caller::Task, standing, wanted, CallOptions::new(), loader).await);
                        };
                        spawn(Box::pin(Background::new().follow(load)));
                    }
                    // A second round: the load was dropped before it ended, and nobody else has begun another.
                    None if value.is_none() => return Err(LoadError::cancelled()),
                    None => drop(claim),
                }
            }
            if let Some(value) = value {
                return Ok(value);
            }
            if let Some(joined) = joined
                && let Some(value) = self.wait(Caller::Task, &joined, &mut patience).await?
            {
                return Ok(value);
            }
        }
    }

    /// Returns the value for `key`, or what the future that `make` returns resolves to, which is stored in both tiers:
    /// [`get_or_insert_with`](Self::get_or_insert_with) for futures.
    ///
    /// # Panics
    /// A panic of `make` passes through.
    pub async fn get_or_insert_with_async<Q, F, Fut>(&self, key: &Q, make: F) -> V
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        F: FnOnce() -> Fut,
        Fut: Future<Output = V>,
    {
        let mut make = Some(make);
        let loaded = self.get_or_load_async(key, |_| {
            let made = make.take().map(|make| make());
            async move { Ok::<_, Infallible>(made.expect(ONCE).await) }
        });
        match loaded.await {
            Ok(value) => value,
            Err(_) => make.take().expect(ONCE)().await,
        }
    }

    /// Returns the value for each key, in order, and loads all that neither tier has at once:
    /// [`get_many_or_load`](Self::get_many_or_load) for futures.
    ///
    /// # Errors
    /// As [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// # Panics
    /// As [`get_many_or_load`](Self::get_many_or_load).
    pub async fn get_many_or_load_async<'q, Q, I, E, F, Fut>(
        &self,
        keys: I,
        loader: F,
    ) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        self.load_many(Caller::Task, keys, loader).await
    }

    /// Stores `value` under `key` in both tiers: [`insert`](Self::insert) for futures. In the local tier from the first poll
    /// on. If the future is dropped half-way, what the remote tier holds under the key is to be deleted.
    pub async fn insert_async(&self, key: K, value: V) -> Write {
        self.insert_with_async(key, value, EntryOptions::new()).await
    }

    /// Stores `value` under `key` in both tiers with these options: [`insert_with`](Self::insert_with) for futures, as
    /// [`insert_async`](Self::insert_async).
    pub async fn insert_with_async(&self, key: K, value: V, options: EntryOptions) -> Write {
        let written = self.write_all(Caller::Task, [(key, value)], options).await;
        written.into_iter().next().unwrap_or(Write::Through)
    }

    /// Stores every pair: [`insert_many`](Self::insert_many) for futures, as [`insert_async`](Self::insert_async).
    pub async fn insert_many_async(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Vec<Write> {
        self.write_all(Caller::Task, pairs, EntryOptions::new()).await
    }

    /// Stores `value` under `key` in both tiers unless either has a value: [`add`](Self::add) for futures. If the future is
    /// dropped half-way, neither tier keeps the value for long.
    pub async fn add_async(&self, key: K, value: V) -> Added {
        self.add_with_async(key, value, EntryOptions::new()).await
    }

    /// Stores `value` under `key` in both tiers with these options unless either has a value: [`add_with`](Self::add_with) for
    /// futures, as [`add_async`](Self::add_async).
    pub async fn add_with_async(&self, key: K, value: V, options: EntryOptions) -> Added {
        self.add_one(Caller::Task, key, value, options).await
    }

    /// Replaces the value for `key` in both tiers: [`update`](Self::update) for futures. If the future is dropped half-way,
    /// the value is in both tiers or in neither.
    pub async fn update_async<Q>(&self, key: &Q, f: impl Fn(&V) -> V) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.update_one(Caller::Task, key, f).await
    }

    /// Removes the value for `key` from both tiers: [`remove`](Self::remove) for futures. In the local tier from the first
    /// poll on; if the future is dropped half-way, the removal is carried out all the same.
    pub async fn remove_async<Q>(&self, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        self.remove_all(Caller::Task, [key]).await
    }

    /// Removes the value for each key: [`remove_many`](Self::remove_many) for futures, as
    /// [`remove_async`](Self::remove_async).
    pub async fn remove_many_async<'q, Q, I>(&self, keys: I) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.remove_all(Caller::Task, keys).await
    }

    /// Removes every value of the local tier for which `keep` returns `false`, from both tiers: [`retain`](Self::retain) for
    /// futures. If it is dropped half-way, some of them are removed.
    pub async fn retain_async(&self, keep: impl Fn(&K, &V) -> bool) -> Bump {
        self.retain_all(Caller::Task, keep).await
    }

    /// Makes the value for `key` stale in both tiers: [`expire`](Self::expire) for futures. In the local tier from the first
    /// poll on; if the future is dropped half-way, what the remote tier holds under the key is to be deleted.
    pub async fn expire_async<Q>(&self, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        self.expire_one(Caller::Task, key).await
    }

    /// Makes every entry of this cache dead: [`clear`](Self::clear) for futures.
    pub async fn clear_async(&self) -> Bump {
        self.clear_all(Caller::Task).await
    }

    /// Makes every entry of `group` dead; see [`Namespace::invalidate_group_async`](crate::Namespace::invalidate_group_async).
    pub async fn invalidate_group_async(&self, group: &str) -> Bump {
        self.namespace().invalidate_group_async(group).await
    }

    /// Makes every entry of `group` stale; see [`Namespace::expire_group_async`](crate::Namespace::expire_group_async).
    pub async fn expire_group_async(&self, group: &str) -> Bump {
        self.namespace().expire_group_async(group).await
    }

    /// Makes every entry of each group dead; see
    /// [`Namespace::invalidate_groups_async`](crate::Namespace::invalidate_groups_async).
    pub async fn invalidate_groups_async<I>(&self, groups: I) -> Bump
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.namespace().invalidate_groups_async(groups).await
    }
}
