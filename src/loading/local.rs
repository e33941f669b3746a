//! Loading into the local tier by a registered loader.

use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::answer::Answer;
use super::claimed::{Claimed, Values, put};
use super::{By, Call, LoadingCache, Outcome, Source, WARM_UP_BATCH};
use crate::batch::Batch;
use crate::cache::Cache;
use crate::call::CallOptions;
use crate::claim::Claim;
use crate::clock::{Clock, Deadline};
use crate::error::LoadError;
use crate::flight::Joined;
use crate::key::ToKey;
use crate::limit::within;
use crate::store::Look;

impl<K, V, E, S> LoadingCache<K, V, E, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Returns the value for `key`, or loads and stores it.
    ///
    /// What is waited for, and for how long, is told at [`Loading`](crate::Loading).
    ///
    /// # Errors
    /// [`LoadErrorKind`](crate::LoadErrorKind) says why there is no value: the loader failed, panicked, or took longer than the
    /// hard timeout; the load of another caller took longer than [`load_wait`](crate::CacheBuilder::load_wait); the loader
    /// asked for its own key; a batch loader left the key out; or too many loads are under way, or callers waiting.
    ///
    /// # Panics
    /// A panic of the loader passes through where the loader runs on this thread.
    ///
    /// # Blocking
    /// On the load of a key without value, for at most the hard timeout; on the refresh of a stale one, for at most the soft
    /// timeout.
    pub fn load<Q>(&self, key: &Q) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        self.load_with(key, CallOptions::new())
    }

    /// Returns the value for `key`, or loads and stores it, as `options` say; otherwise as [`load`](Self::load).
    ///
    /// - [`soft_timeout`](CallOptions::soft_timeout) and [`hard_timeout`](CallOptions::hard_timeout) take the place of the
    ///   cache's.
    /// - [`skip_local`](CallOptions::skip_local): the value is loaded whatever the cache holds, by one caller at a time, handed
    ///   to those who wait for it, and stored nowhere.
    /// - [`read_only`](CallOptions::read_only): what is there is returned, and nothing is loaded.
    /// - [`no_refresh`](CallOptions::no_refresh): a stale value is returned as it is.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`Absent`](crate::LoadErrorKind::Absent) from a read-only call that finds no value.
    ///
    /// # Panics
    /// As [`load`](Self::load).
    ///
    /// # Blocking
    /// As [`load`](Self::load).
    pub fn load_with<Q>(&self, key: &Q, options: CallOptions) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        match self.first_look(key, &options) {
            Ok(answer) => answer,
            Err(look) => block_on(self.clock(), self.load_key(By::Thread, options, key, look)),
        }
    }

    /// Returns the value for `key`, or loads and stores it: [`load`](Self::load) for futures, on any runtime.
    ///
    /// Dropping the future leaves a load in the background to itself, and drops one that runs as part of the future.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`Cancelled`](crate::LoadErrorKind::Cancelled) where the runtime that the spawner names
    /// dropped the load.
    ///
    /// # Panics
    /// A panic of the loader passes through where the loader runs as part of this future.
    pub async fn load_async<Q>(&self, key: &Q) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        self.load_with_async(key, CallOptions::new()).await
    }

    /// Returns the value for `key`, or loads and stores it, as `options` say: [`load_with`](Self::load_with) for futures, as
    /// [`load_async`](Self::load_async).
    ///
    /// # Errors
    /// As [`load_async`](Self::load_async) and [`load_with`](Self::load_with).
    ///
    /// # Panics
    /// As [`load_async`](Self::load_async).
    pub async fn load_with_async<Q>(&self, key: &Q, options: CallOptions) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        match self.first_look(key, &options) {
            Ok(answer) => answer,
            Err(look) => self.load_key(By::Task, options, key, look).await,
        }
    }

    /// Returns the value for each key, in order, and loads all that are missing at once; `None` for a key that the loader has
    /// no value for.
    ///
    /// The loader is handed one batch of the keys that nobody else is loading, and another of the stale ones, in the
    /// background; a loader of single keys loads those of a batch one after the other. Keys that others load are waited for
    /// afterwards. Otherwise as [`load`](Self::load).
    ///
    /// # Errors
    /// As [`load`](Self::load): the first error of any key. What else was loaded is stored all the same.
    ///
    /// # Panics
    /// As [`load`](Self::load).
    ///
    /// # Blocking
    /// As [`load`](Self::load), for all keys together.
    pub fn load_many<'q, Q, I>(&self, keys: I) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        let call = self.call(By::Thread, CallOptions::new());
        block_on(self.clock(), self.load_keys(&call, &keys, true)).map(|(values, _)| values)
    }

    /// Returns the value for each key, in order, and loads all that are missing at once: [`load_many`](Self::load_many) for
    /// futures, as [`load_async`](Self::load_async).
    ///
    /// # Errors
    /// As [`load_many`](Self::load_many) and [`load_async`](Self::load_async).
    ///
    /// # Panics
    /// As [`load_async`](Self::load_async).
    pub async fn load_many_async<'q, Q, I>(&self, keys: I) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        let call = self.call(By::Task, CallOptions::new());
        self.load_keys(&call, &keys, true).await.map(|(values, _)| values)
    }

    /// Begins to load the value for `key` anew in the background, whether it is stale yet or not. Returns whether it did:
    /// `false` where another caller loads the key already, or too many loads are under way.
    ///
    /// The value that is there is served until the new one takes its place. If the load fails, it stays as it is.
    ///
    /// # Blocking
    /// Takes one shard's lock. Never waits for a load.
    pub fn refresh<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let Some(claim) = self.store.claim_anyway(self.hash(key), key) else { return false };
        self.refresh_key(claim, key.to_key(), self.registered.hard_timeout).is_some()
    }

    /// Loads what is missing of `keys`, 100 at a time, and returns how many were loaded. Counts neither hits nor misses, since
    /// nobody reads.
    ///
    /// # Errors
    /// As [`load_many`](Self::load_many): the first error ends it. What was loaded before stays.
    ///
    /// # Panics
    /// As [`load_many`](Self::load_many).
    ///
    /// # Blocking
    /// As [`load_many`](Self::load_many), for each hundred.
    pub fn warm_up<'q, Q, I>(&self, keys: I) -> Result<usize, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        block_on(self.clock(), self.warm(By::Thread, keys))
    }

    /// Loads what is missing of `keys`, 100 at a time, and returns how many were loaded: [`warm_up`](Self::warm_up) for
    /// futures.
    ///
    /// # Errors
    /// As [`warm_up`](Self::warm_up).
    ///
    /// # Panics
    /// As [`load_async`](Self::load_async).
    pub async fn warm_up_async<'q, Q, I>(&self, keys: I) -> Result<usize, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.warm(By::Task, keys).await
    }

    async fn warm<'q, Q, I>(&self, by: By, keys: I) -> Result<usize, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let mut keys = keys.into_iter();
        let mut loaded = 0;
        loop {
            let batch: Vec<&Q> = keys.by_ref().take(WARM_UP_BATCH).collect();
            if batch.is_empty() {
                return Ok(loaded);
            }
            let call = self.call(by, CallOptions::new().no_refresh());
            loaded += self.load_keys(&call, &batch, false).await?.1;
        }
    }

    fn clock(&self) -> &Clock {
        &self.store.settings.clock
    }

    fn call(&self, by: By, options: CallOptions) -> Call {
        self.registered.call(by, options, self.clock())
    }

    /// Looks for the value of a call, which has its answer thereby, or has to go on with what it found.
    fn first_look<Q>(&self, key: &Q, options: &CallOptions) -> Result<Outcome<V, E>, Look<K, V>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        if options.read_only {
            return Ok(self.read_only(key, *options));
        }
        let look = self.look_as(*options, self.hash(key), key, |_| true);
        self.count(&look);
        match look {
            Look::Fresh(value) | Look::Stale { value, claim: None } => Ok(Ok(value)),
            other => Err(other),
        }
    }

    /// Returns the value for a key that the local tier had no fresh one for.
    async fn load_key<Q>(&self, by: By, options: CallOptions, key: &Q, mut look: Look<K, V>) -> Outcome<V, E>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let call = self.call(by, options);
        let mut patience = self.patience(call.hard_timeout);
        loop {
            match look {
                Look::Fresh(value) | Look::Stale { value, claim: None } => return Ok(value),
                Look::Stale { value, claim: Some(claim) } => {
                    let fallback = claim.fallback();
                    let answer = self.refresh_key(claim, key.to_key(), call.hard_timeout);
                    if let Some(value) = call.refreshed(&self.store, answer, fallback, value).await? {
                        return Ok(value);
                    }
                }
                Look::Vacant(claim) => return self.fill_key(&call, claim, key.to_key()).await,
                Look::Busy(joined) => {
                    let joined = self.may_wait(joined)?;
                    if let Some(value) = self.wait_async(&joined, &mut patience).await? {
                        return Ok(value);
                    }
                    if joined.found_absent() {
                        return Err(LoadError::absent());
                    }
                }
            }
            look = self.look_as(options, self.hash(key), key, |_| true);
        }
    }

    /// Begins a refresh in the background, if there is room for one.
    fn refresh_key(&self, claim: Claim<K, V>, key: K, hard_timeout: Option<Duration>) -> Option<Answer<Outcome<V, E>>> {
        let permit = self.registered.refresh_permit(self.store.tally())?;
        let limited = hard_timeout.map(|allowed| claim.limit(allowed));
        Some(self.registered.begin(permit, limited, self.load_of(claim, key)))
    }

    /// Loads a key that has no value.
    async fn fill_key(&self, call: &Call, claim: Claim<K, V>, key: K) -> Outcome<V, E> {
        if self.registered.runs_here(call) {
            let limited = call.hard_timeout.map(|allowed| claim.limit(allowed));
            return within(limited, self.load_of(claim, key)).await;
        }
        let Some(permit) = self.registered.pool.permit() else {
            claim.turn_away();
            return Err(LoadError::overloaded());
        };
        let limited = call.hard_timeout.map(|allowed| claim.limit(allowed));
        let answer = self.registered.begin(permit, limited, self.load_of(claim, key));
        call.await_load(self.clock(), answer).await
    }

    /// Returns the value for each key, and how many were loaded for this call. Hits and misses count if somebody reads.
    async fn load_keys<Q>(&self, call: &Call, keys: &[&Q], is_read: bool) -> Outcome<(Vec<Option<V>>, usize), E>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let mut answers: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        let mut patience = self.patience(call.hard_timeout);
        let mut loaded = 0;
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let mut counts = is_read;
        while !open.is_empty() {
            let (mut fills, mut refreshes) = (Claimed::default(), Claimed::default());
            let mut awaited: Vec<(usize, Joined<K, V>)> = Vec::new();
            for at in std::mem::take(&mut open) {
                let key = keys[at];
                let look = self.look_as(call.options, self.hash(key), key, |_| true);
                if counts {
                    // What a key is found to be counts once.
                    self.count(&look);
                }
                match look {
                    Look::Fresh(value) | Look::Stale { value, claim: None } => answers[at] = Some(value),
                    Look::Stale { value, claim: Some(claim) } => {
                        answers[at] = Some(value);
                        refreshes.push(at, key.to_key(), claim);
                    }
                    Look::Vacant(claim) => fills.push(at, key.to_key(), claim),
                    // A key that was asked for twice: this batch loads it already.
                    Look::Busy(joined) if fills.is_joined(joined.as_ref(), at) => {}
                    Look::Busy(joined) => awaited.push((at, self.may_wait(joined)?)),
                }
            }
            counts = false;
            let fallbacks = refreshes.fallbacks();
            let refreshed = self.refresh_batch(call, refreshes);
            if !fills.claims.is_empty() {
                let values = self.fill_batch(call, fills).await?;
                loaded += values.iter().filter(|(_, value)| value.is_some()).count();
                put(&mut answers, values);
            }
            open.extend(call.refreshed_batch(&self.store, refreshed, fallbacks, &mut answers).await?);
            for (at, joined) in awaited {
                let landed = self.wait_async(&joined, &mut patience).await?;
                if landed.is_some() || joined.found_absent() {
                    answers[at] = landed;
                } else {
                    open.push(at);
                }
            }
        }
        Ok((answers, loaded))
    }

    /// Begins to refresh several keys in the background, if there is room for that.
    fn refresh_batch(&self, call: &Call, refreshes: Claimed<K, V>) -> Option<Answer<Outcome<Values<V>, E>>> {
        if refreshes.claims.is_empty() {
            return None;
        }
        let permit = self.registered.refresh_permit(self.store.tally())?;
        let limited = call.limit(&self.store, &refreshes);
        Some(self.registered.begin(permit, limited, self.load_of_batch(refreshes)))
    }

    /// Loads several keys that have no value.
    async fn fill_batch(&self, call: &Call, fills: Claimed<K, V>) -> Outcome<Values<V>, E> {
        if self.registered.runs_here(call) {
            let limited = call.limit(&self.store, &fills);
            return within(limited, self.load_of_batch(fills)).await;
        }
        let Some(permit) = self.registered.pool.permit() else {
            fills.claims.into_iter().for_each(|(_, claim)| claim.turn_away());
            return Err(LoadError::overloaded());
        };
        let limited = call.limit(&self.store, &fills);
        let answer = self.registered.begin(permit, limited, self.load_of_batch(fills));
        call.await_load(self.clock(), answer).await
    }

    /// Returns the load of one key, which owns all that it needs.
    fn load_of(&self, claim: Claim<K, V>, key: K) -> impl Future<Output = Outcome<V, E>> + Send + use<K, V, E, S> {
        let cache = self.cache.clone();
        let source = self.registered.source.clone();
        async move {
            if source.is_by_batches() {
                let loaded = load_batch(&cache, &source, vec![(key, claim)]).await?;
                return loaded.into_iter().next().flatten().ok_or_else(LoadError::absent);
            }
            if source.blocks() {
                claim.stay();
            }
            claim.load_async(|load| source.load(key, load)).await
        }
    }

    /// Returns the load of several keys, which owns all that it needs.
    fn load_of_batch(
        &self,
        claimed: Claimed<K, V>,
    ) -> impl Future<Output = Outcome<Values<V>, E>> + Send + use<K, V, E, S> {
        let cache = self.cache.clone();
        let source = self.registered.source.clone();
        async move {
            let loaded = load_batch(&cache, &source, claimed.claims).await?;
            Ok(claimed.places.into_iter().zip(loaded).collect())
        }
    }
}

/// Loads several keys with one call of the loader; the values are in their order.
async fn load_batch<K, V, E, S>(
    cache: &Cache<K, V, S>,
    source: &Source<K, V, E>,
    mut claimed: Vec<(K, Claim<K, V>)>,
) -> Outcome<Vec<Option<V>>, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    let batch = Batch::new(claimed.iter_mut().map(|(key, claim)| (key.clone(), claim.begin())).collect());
    let claims: Vec<_> = claimed.into_iter().map(|(_, claim)| claim).collect();
    if source.blocks() {
        claims.iter().for_each(Claim::stay);
    }
    cache.load_batch(claims, batch, |batch| source.load_many(batch)).await
}

/// Runs a future of a call on the calling thread.
fn block_on<F: Future>(clock: &Clock, future: F) -> F::Output {
    clock.block_on(future, Deadline::NEVER).expect("a call ends by itself")
}
