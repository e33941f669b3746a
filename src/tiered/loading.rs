//! Loading into both tiers by a registered loader.

use std::future::Future;
use std::hash::{BuildHasher, Hash};

use super::TieredCache;
use super::consult::{Ticket, Wanted};
use super::load::{Leader, Prepared};
use crate::call::CallOptions;
use crate::claim::Claim;
use crate::clock::{Clock, real};
use crate::error::LoadError;
use crate::flight::Joined;
use crate::key::ToKey;
use crate::limit::{Limit, Limited, within};
use crate::loading::answer::Answer;
use crate::loading::claimed::{Claimed, Values, put};
use crate::loading::pool::Permit;
use crate::loading::{By, Call, LoadingTieredCache, Outcome, Source, WARM_UP_BATCH};
use crate::namespace::core::Standing;
use crate::remote::batch::Caller;
use crate::remote::key::RemoteKey;
use crate::store::Look;
use crate::sync::Arc;

impl<K, V, E, S> LoadingTieredCache<K, V, E, S>
where
    K: Hash + Eq + RemoteKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Returns the value for `key`, from whichever tier has it, or loads it and stores it in both.
    ///
    /// What is waited for, and for how long, is told at [`Loading`](crate::Loading). The remote tier is asked before a load, as
    /// [`get_or_load`](TieredCache::get_or_load) does: in the background for a value that is stale in the local tier. One that
    /// is stale in the remote tier alone is copied and returned, and refreshed in the background by one process.
    ///
    /// # Errors
    /// As [`LoadingCache::load`](crate::LoadingCache::load), and [`Untrusted`](crate::LoadErrorKind::Untrusted) once the trust
    /// lease has lapsed, with [`LostTrust::Refuse`](crate::LostTrust::Refuse).
    ///
    /// # Panics
    /// A panic of the loader passes through where the loader runs on this thread.
    ///
    /// # Blocking
    /// On the load of a key without value, and on the exchanges with the remote tier around it, for at most the hard timeout
    /// together; on the refresh of a stale one, for at most the soft timeout.
    pub fn load<Q>(&self, key: &Q) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.load_with(key, CallOptions::new())
    }

    /// Returns the value for `key`, or loads it and stores it, as `options` say; otherwise as [`load`](Self::load).
    ///
    /// [`soft_timeout`](CallOptions::soft_timeout) and [`hard_timeout`](CallOptions::hard_timeout) take the place of the
    /// cache's; the others are as for [`get_or_load_with`](TieredCache::get_or_load_with).
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
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        match self.first_look(key, options) {
            Ok(value) => Ok(value),
            Err(look) => real::block_on(self.load_key(By::Thread, options, key, look)),
        }
    }

    /// Returns the value for `key`, or loads it and stores it in both tiers: [`load`](Self::load) for futures, on any runtime.
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
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.load_with_async(key, CallOptions::new()).await
    }

    /// Returns the value for `key`, or loads it and stores it, as `options` say: [`load_with`](Self::load_with) for futures, as
    /// [`load_async`](Self::load_async).
    ///
    /// # Errors
    /// As [`load_async`](Self::load_async) and [`load_with`](Self::load_with).
    ///
    /// # Panics
    /// As [`load_async`](Self::load_async).
    pub async fn load_with_async<Q>(&self, key: &Q, options: CallOptions) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        match self.first_look(key, options) {
            Ok(value) => Ok(value),
            Err(look) => self.load_key(By::Task, options, key, look).await,
        }
    }

    /// Returns the value for each key, in order, and loads all that neither tier has at once; `None` for a key that the loader
    /// has no value for.
    ///
    /// As [`LoadingCache::load_many`](crate::LoadingCache::load_many), with the remote tier asked before. A value that is stale
    /// in the remote tier alone is refreshed with the batch, and waited for.
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
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        real::block_on(self.load_keys(By::Thread, CallOptions::new(), &keys, true)).map(|(values, _)| values)
    }

    /// Returns the value for each key, in order, and loads all that neither tier has at once: [`load_many`](Self::load_many)
    /// for futures, as [`load_async`](Self::load_async).
    ///
    /// # Errors
    /// As [`load_many`](Self::load_many) and [`load_async`](Self::load_async).
    ///
    /// # Panics
    /// As [`load_async`](Self::load_async).
    pub async fn load_many_async<'q, Q, I>(&self, keys: I) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        self.load_keys(By::Task, CallOptions::new(), &keys, true).await.map(|(values, _)| values)
    }

    /// Begins to load the value for `key` anew in the background, whether it is stale yet or not. Returns whether it did:
    /// `false` where another caller of this process loads the key already, or too many loads are under way.
    ///
    /// The value that is there is served until the new one takes its place. If the load fails, it stays as it is. If another
    /// process has refreshed it meanwhile, or is about to, nothing is loaded.
    ///
    /// # Blocking
    /// Takes one shard's lock. Never waits for a load, nor for the remote tier.
    pub fn refresh<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let Some(claim) = self.local.store.claim_anyway(self.local.hash(key), key) else { return false };
        let call = self.call(By::Task, CallOptions::new());
        self.refresh_key(&call, None, claim, key.to_key()).is_some()
    }

    /// Brings what the local tier lacks of `keys` into it, from the remote tier or by loads, 100 at a time, and returns how many
    /// it brought. Counts neither hits nor misses of the local tier, since nobody reads.
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
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        real::block_on(self.warm(By::Thread, keys))
    }

    /// Brings what the local tier lacks of `keys` into it, 100 at a time, and returns how many it brought:
    /// [`warm_up`](Self::warm_up) for futures.
    ///
    /// # Errors
    /// As [`warm_up`](Self::warm_up).
    ///
    /// # Panics
    /// As [`load_async`](Self::load_async).
    pub async fn warm_up_async<'q, Q, I>(&self, keys: I) -> Result<usize, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.warm(By::Task, keys).await
    }

    async fn warm<'q, Q, I>(&self, by: By, keys: I) -> Result<usize, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let mut keys = keys.into_iter();
        let mut brought = 0;
        loop {
            let batch: Vec<&Q> = keys.by_ref().take(WARM_UP_BATCH).collect();
            if batch.is_empty() {
                return Ok(brought);
            }
            brought += self.load_keys(by, CallOptions::new().no_refresh(), &batch, false).await?.1;
        }
    }

    fn clock(&self) -> &Clock {
        &self.core().clock
    }

    fn call(&self, by: By, options: CallOptions) -> Call {
        self.registered.call(by, options, self.clock())
    }

    /// Returns who asks the remote tier for a call.
    fn caller(&self, call: &Call) -> Caller {
        match call.by {
            // It asks as it loads, on its own stack. With a time limit it has to be able to leave an exchange.
            By::Thread if call.hard_timeout.is_none() && self.registered.runs_here(call) => Caller::Thread,
            By::Thread | By::Task => Caller::Task,
        }
    }

    /// Returns what the local tier has for a call, or has it go on with what was found, if that counts now.
    fn first_look<Q>(&self, key: &Q, options: CallOptions) -> Result<V, Option<Look<K, V>>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        if !self.core().may_serve() || options.read_only {
            return Err(None);
        }
        let look = self.local.look_as(options, self.local.hash(key), key, |_| true);
        if !options.skip_local {
            self.local.count(&look);
        }
        match look {
            Look::Fresh(value) | Look::Stale { value, claim: None } => Ok(value),
            other => Err(Some(other)),
        }
    }

    /// Returns the value for a key that the local tier had no fresh one for, within the time of the call.
    async fn load_key<Q>(&self, by: By, options: CallOptions, key: &Q, look: Option<Look<K, V>>) -> Outcome<V, E>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let call = self.call(by, options);
        if options.read_only {
            let options = CallOptions { hard_timeout: call.hard_timeout, ..options };
            return self.read_as(self.caller(&call), key, options).await.ok_or_else(LoadError::absent);
        }
        self.in_time(&call, self.load_key_for(&call, key, look)).await
    }

    /// Runs what a call does for as long as it may. What it has claimed until then is free afterwards.
    async fn in_time<T>(&self, call: &Call, work: impl Future<Output = Outcome<T, E>>) -> Outcome<T, E> {
        let Some(allowed) = call.hard_timeout else { return work.await };
        self.clock().timeout(work, call.until).await.unwrap_or_else(|| Err(LoadError::timed_out(allowed)))
    }

    async fn load_key_for<Q>(&self, call: &Call, key: &Q, mut found: Option<Look<K, V>>) -> Outcome<V, E>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let caller = self.caller(call);
        let mut patience = self.local.patience(call.hard_timeout);
        let mut standing = if call.options.skip_remote { Standing::CutOff } else { Standing::Trusted };
        loop {
            let look = match found.take() {
                Some(look) => look,
                None => {
                    standing = self.standing_for(caller, call.options).await;
                    if standing == Standing::Refused {
                        return Err(LoadError::untrusted());
                    }
                    self.glance_to_load(standing, self.local.hash(key), key, call.options)
                }
            };
            match look {
                Look::Fresh(value) | Look::Stale { value, claim: None } => return Ok(value),
                Look::Stale { value, claim: Some(claim) } => {
                    let fallback = claim.fallback();
                    let answer = self.refresh_key(call, Some(standing), claim, key.to_key());
                    if let Some(value) = call.refreshed(&self.local.store, answer, fallback, value).await? {
                        return Ok(value);
                    }
                }
                Look::Vacant(claim) => {
                    if let Some(value) = self.fill_key(call, caller, standing, key, claim).await? {
                        return Ok(value);
                    }
                }
                Look::Busy(joined) => {
                    let joined = self.local.may_wait(joined)?;
                    if let Some(value) = self.local.wait_async(&joined, &mut patience).await? {
                        return Ok(value);
                    }
                    if joined.found_absent() {
                        return Err(LoadError::absent());
                    }
                }
            }
        }
    }

    /// Begins to refresh a value of the local tier in the background, if there is room for that: asks the remote tier, then the
    /// loader. Where nobody knows what counts now, that is found out first.
    fn refresh_key(
        &self,
        call: &Call,
        standing: Option<Standing>,
        claim: Claim<K, V>,
        key: K,
    ) -> Option<Answer<Outcome<V, E>>> {
        let permit = self.registered.refresh_permit(self.local.store.tally())?;
        let limited = call.hard_timeout.map(|allowed| claim.limit(allowed));
        let load = self.background(limited.as_ref());
        let options = call.options;
        Some(self.registered.begin(permit, limited, async move {
            let cache = &load.cache;
            let standing = match standing {
                Some(standing) => standing,
                None => cache.standing_for(Caller::Task, options).await,
            };
            if standing == Standing::Refused {
                return Err(LoadError::untrusted());
            }
            let wanted = Wanted { key: &key, claim, at: cache.remote.locate(&key) };
            match cache.consult_claimed(Caller::Task, standing, wanted, options).await {
                Prepared::Answer(value) => Ok(value),
                Prepared::Load(claim, ticket) => load.run(&key, claim, ticket).await,
            }
        }))
    }

    /// Asks the remote tier for a key that the local one has no value for, and loads it if need be. `None` says to look again.
    async fn fill_key<Q>(
        &self,
        call: &Call,
        caller: Caller,
        standing: Standing,
        key: &Q,
        claim: Claim<K, V>,
    ) -> Outcome<Option<V>, E>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let wanted = Wanted { key, claim, at: self.remote.locate(key) };
        let (claim, ticket) = match self.consult_claimed(caller, standing, wanted, call.options).await {
            Prepared::Answer(value) => return Ok(Some(value)),
            Prepared::Load(claim, ticket) => (claim, ticket),
        };
        let key = key.to_key();
        // A value that was stale in the remote tier alone, and is to be refreshed by this process.
        if let Some(value) = claim.stale().cloned() {
            let fallback = claim.fallback();
            let permit = self.registered.refresh_permit(self.local.store.tally());
            let answer = permit.map(|permit| self.begin_key(call, permit, key, claim, ticket));
            return call.refreshed(&self.local.store, answer, fallback, value).await;
        }
        if self.registered.runs_here(call) {
            let limited = call.hard_timeout.map(|allowed| claim.limit(allowed));
            let load = Background { caller, ..self.background(limited.as_ref()) };
            return within(limited, load.run(&key, claim, ticket)).await.map(Some);
        }
        let Some(permit) = self.registered.pool.permit() else {
            claim.turn_away();
            return Err(LoadError::overloaded());
        };
        let answer = self.begin_key(call, permit, key, claim, ticket);
        call.await_load(self.clock(), answer).await.map(Some)
    }

    /// Begins to load a key in the background that the remote tier leaves to this process.
    fn begin_key(
        &self,
        call: &Call,
        permit: Permit,
        key: K,
        claim: Claim<K, V>,
        ticket: Ticket,
    ) -> Answer<Outcome<V, E>> {
        let limited = call.hard_timeout.map(|allowed| claim.limit(allowed));
        let load = self.background(limited.as_ref());
        self.registered.begin(permit, limited, async move { load.run(&key, claim, ticket).await })
    }

    /// Returns the value for each key, and how many came into the local tier for this call. Hits and misses count if somebody
    /// reads.
    async fn load_keys<Q>(
        &self,
        by: By,
        options: CallOptions,
        keys: &[&Q],
        is_read: bool,
    ) -> Outcome<(Vec<Option<V>>, usize), E>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let call = self.call(by, options);
        self.in_time(&call, self.load_keys_for(&call, keys, is_read)).await
    }

    async fn load_keys_for<Q>(&self, call: &Call, keys: &[&Q], is_read: bool) -> Outcome<(Vec<Option<V>>, usize), E>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let mut answers: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        let mut patience = self.local.patience(call.hard_timeout);
        let mut brought = 0;
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let mut counts = is_read;
        while !open.is_empty() {
            let standing = self.standing_for(self.caller(call), call.options).await;
            if standing == Standing::Refused {
                return Err(LoadError::untrusted());
            }
            let (mut fills, mut refreshes) = (Claimed::default(), Claimed::default());
            let mut awaited: Vec<(usize, Joined<K, V>)> = Vec::new();
            for at in std::mem::take(&mut open) {
                let key = keys[at];
                let look = self.glance_to_load(standing, self.local.hash(key), key, call.options);
                if counts {
                    // What a key is found to be counts once.
                    self.local.count(&look);
                }
                match look {
                    Look::Fresh(value) | Look::Stale { value, claim: None } => answers[at] = Some(value),
                    Look::Stale { value, claim: Some(claim) } => {
                        answers[at] = Some(value);
                        refreshes.push(at, key.to_key(), claim);
                    }
                    Look::Vacant(claim) => fills.push(at, key.to_key(), claim),
                    // A key that was asked for twice: this batch is at it already.
                    Look::Busy(joined) if fills.is_joined(joined.as_ref(), at) => {}
                    Look::Busy(joined) => awaited.push((at, self.local.may_wait(joined)?)),
                }
            }
            counts = false;
            let fallbacks = refreshes.fallbacks();
            let refreshed = self.refresh_batch(call, standing, refreshes);
            if !fills.claims.is_empty() {
                let values = self.fill_batch(call, standing, fills).await?;
                brought += values.iter().filter(|(_, value)| value.is_some()).count();
                put(&mut answers, values);
            }
            open.extend(call.refreshed_batch(&self.local.store, refreshed, fallbacks, &mut answers).await?);
            for (at, joined) in awaited {
                let landed = self.local.wait_async(&joined, &mut patience).await?;
                if landed.is_some() || joined.found_absent() {
                    answers[at] = landed;
                } else {
                    open.push(at);
                }
            }
        }
        Ok((answers, brought))
    }

    /// Begins to refresh several values of the local tier in the background, if there is room for that.
    fn refresh_batch(
        &self,
        call: &Call,
        standing: Standing,
        refreshes: Claimed<K, V>,
    ) -> Option<Answer<Outcome<Values<V>, E>>> {
        if refreshes.claims.is_empty() {
            return None;
        }
        let permit = self.registered.refresh_permit(self.local.store.tally())?;
        Some(self.begin_batch(call, permit, standing, refreshes))
    }

    /// Asks the remote tier for several keys that the local one has no value for, and loads what it has not.
    async fn fill_batch(&self, call: &Call, standing: Standing, fills: Claimed<K, V>) -> Outcome<Values<V>, E> {
        if self.registered.runs_here(call) {
            let limited = call.limit(&self.local.store, &fills);
            let load = Background { caller: self.caller(call), ..self.background(limited.as_ref()) };
            return within(limited, load.run_batch(standing, fills)).await;
        }
        let Some(permit) = self.registered.pool.permit() else {
            fills.claims.into_iter().for_each(|(_, claim)| claim.turn_away());
            return Err(LoadError::overloaded());
        };
        let answer = self.begin_batch(call, permit, standing, fills);
        call.await_load(self.clock(), answer).await
    }

    fn begin_batch(
        &self,
        call: &Call,
        permit: Permit,
        standing: Standing,
        claimed: Claimed<K, V>,
    ) -> Answer<Outcome<Values<V>, E>> {
        let limited = call.limit(&self.local.store, &claimed);
        let load = self.background(limited.as_ref());
        self.registered.begin(permit, limited, async move { load.run_batch(standing, claimed).await })
    }

    /// Returns what a load in the background needs, which owns all of it.
    fn background(&self, limited: Option<&Limited>) -> Background<K, V, E, S> {
        Background {
            cache: self.cache.clone(),
            source: self.registered.source.clone(),
            caller: Caller::Task,
            limit: limited.map(|limited| limited.limit().clone()),
        }
    }
}

/// What a load by a registered loader needs.
struct Background<K, V, E, S> {
    cache: TieredCache<K, V, S>,
    source: Arc<Source<K, V, E>>,
    caller: Caller,
    limit: Option<Arc<Limit>>,
}

impl<K, V, E, S> Background<K, V, E, S>
where
    K: Hash + Eq + RemoteKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn leader(&self) -> Leader<'_> {
        Leader { caller: self.caller, blocks: self.source.blocks(), limit: self.limit.as_ref() }
    }

    /// Loads one key, and writes what that brings through.
    async fn run(&self, key: &K, claim: Claim<K, V>, ticket: Ticket) -> Outcome<V, E> {
        if self.source.is_by_batches() {
            let loads = vec![(key, claim, ticket)];
            let loaded = self.cache.run_many(self.leader(), loads, |batch| self.source.load_many(batch)).await?;
            return loaded.into_iter().next().flatten().ok_or_else(LoadError::absent);
        }
        self.cache.run_one(self.leader(), claim, ticket, |load| self.source.load(key.clone(), load)).await
    }

    /// Sees to several keys: asks the remote tier, loads what it has not, and writes what that brings through.
    async fn run_batch(&self, standing: Standing, claimed: Claimed<K, V>) -> Outcome<Values<V>, E> {
        let (keys, claims): (Vec<K>, Vec<_>) = claimed.claims.into_iter().unzip();
        let wanted =
            keys.iter().zip(claims).map(|(key, claim)| Wanted { key, claim, at: self.cache.remote.locate(key) });
        let mut next = || Some(|batch| self.source.load_many(batch));
        self.cache.load_wanted(self.leader(), standing, wanted.collect(), claimed.places, &mut next).await
    }
}
