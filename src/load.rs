//! Loading through the cache: the verbs that fill a key on a miss, one caller at a time.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::time::Duration;

use crate::cache::Cache;
use crate::call::CallOptions;
use crate::claim::Claim;
use crate::clock::{Clock, Deadline};
use crate::error::LoadError;
use crate::flight::{Joined, Outcome, is_led_here};
use crate::key::ToKey;
use crate::options::Load;
use crate::store::Look;
use crate::sync::Arc;
use crate::watch::Background;

/// A future that owns what it needs, for a runtime to run.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// What a caller does next.
pub(crate) enum Step<K, V> {
    Done(V),
    Run(Claim<K, V>),
    Wait(Joined<K, V>),
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for `key`, or what `make` returns, which is stored.
    ///
    /// Of several callers that miss at once, one runs `make` and the others wait for it. A caller that waits longer than the
    /// cache's [`load_wait`](crate::CacheBuilder::load_wait), or whose `make` asks for the key that it makes, runs its own and
    /// returns it unstored.
    ///
    /// # Panics
    /// A panic of `make` passes through.
    ///
    /// # Blocking
    /// On `make`, or on that of another caller.
    pub fn get_or_insert_with<Q>(&self, key: &Q, make: impl FnOnce() -> V) -> V
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let mut make = Some(make);
        let mut run = || make.take().map(|make| make());
        let loaded = self.get_or_load(key, |_| Ok::<_, Infallible>(run()).map(|value| value.expect(ONCE)));
        loaded.unwrap_or_else(|_| run().expect(ONCE))
    }

    /// Returns the value for `key`, or loads and stores it.
    ///
    /// A fresh value is returned at once. A stale one is returned at once as well, but to the caller that may refresh it, who
    /// runs `loader`. Of several callers that find no value, one runs `loader` and the others wait for its result, value or
    /// error. A caller that comes after an invalidation never gets the result of a load that began before it.
    ///
    /// # Errors
    /// [`LoadErrorKind`](crate::LoadErrorKind) says why there is no value: the loader failed; it panicked in another caller;
    /// another caller's load took longer than [`load_wait`](crate::CacheBuilder::load_wait); `loader` asked for its own key; or
    /// too many callers wait already.
    ///
    /// # Panics
    /// A panic of `loader` passes through, and those who wait get an error.
    ///
    /// # Blocking
    /// On `loader`, or on that of another caller for at most `load_wait`.
    pub fn get_or_load<Q, E, F>(&self, key: &Q, loader: F) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        self.get_or_load_with(key, CallOptions::new(), loader)
    }

    /// Returns the value for `key`, or loads and stores it, as `options` say; otherwise as [`get_or_load`](Self::get_or_load).
    ///
    /// - [`skip_local`](CallOptions::skip_local): the value is loaded whatever the cache holds, by one caller at a time, handed
    ///   to those who wait for it, and stored nowhere.
    /// - [`read_only`](CallOptions::read_only): what is there is returned, and nothing is loaded.
    /// - [`no_refresh`](CallOptions::no_refresh): a stale value is returned as it is.
    /// - [`hard_timeout`](CallOptions::hard_timeout): bounds the wait for another caller's load, where it is shorter than
    ///   [`load_wait`](crate::CacheBuilder::load_wait). It cannot end `loader`, which runs on this thread.
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
        Q: Hash + ToKey<K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        if options.read_only {
            return self.read_only(key, options);
        }
        let hash = self.hash(key);
        let mut patience = self.patience(options.hard_timeout);
        let mut look = self.look_as(options, hash, key, |_| true);
        self.count(&look);
        loop {
            match self.step(look)? {
                Step::Done(value) => return Ok(value),
                Step::Run(claim) => return claim.load(loader),
                Step::Wait(joined) => {
                    if let Some(value) = self.wait(&joined, &mut patience)? {
                        return Ok(value);
                    }
                }
            }
            look = self.look_as(options, hash, key, |_| true);
        }
    }

    /// Returns the value for `key`, or loads and stores it: [`get_or_load`](Self::get_or_load) for futures, on any runtime.
    ///
    /// The load runs as part of the returned future. Dropping that half-way drops the load and frees the key at once; one of
    /// those who wait then loads in its stead.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    pub fn get_or_load_async<Q, E, F, Fut>(&self, key: &Q, loader: F) -> impl Future<Output = Result<V, LoadError<E>>>
    where
        Q: Hash + ToKey<K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.get_or_load_async_with(key, CallOptions::new(), loader)
    }

    /// Returns the value for `key`, or loads and stores it, as `options` say: [`get_or_load_with`](Self::get_or_load_with) for
    /// futures.
    ///
    /// A load of this caller's own that takes longer than [`hard_timeout`](CallOptions::hard_timeout) is given up: dropped, and
    /// an error for this caller and for all who wait for it, unless a stale value answers
    /// ([`stale_if_error`](crate::CacheBuilder::stale_if_error)).
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
        Q: Hash + ToKey<K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        if options.read_only {
            return self.read_only(key, options);
        }
        let hash = self.hash(key);
        let mut patience = self.patience(options.hard_timeout);
        let mut look = self.look_as(options, hash, key, |_| true);
        self.count(&look);
        loop {
            match self.step(look)? {
                Step::Done(value) => return Ok(value),
                // Boxed, so that the futures of callers, of whom most find a value, are not of the size of a load.
                Step::Run(claim) => return Box::pin(self.load_within(options.hard_timeout, claim, loader)).await,
                Step::Wait(joined) => {
                    if let Some(value) = self.wait_async(&joined, &mut patience).await? {
                        return Ok(value);
                    }
                }
            }
            look = self.look_as(options, hash, key, |_| true);
        }
    }

    /// Runs a load as part of this future, for at most so long.
    async fn load_within<E, F, Fut>(
        &self,
        hard_timeout: Option<Duration>,
        claim: Claim<K, V>,
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let Some(allowed) = hard_timeout else { return claim.load_async(loader).await };
        let fallback = claim.fallback();
        let limited = claim.limit(allowed);
        match limited.run(claim.load_async(loader)).await {
            Some(loaded) => loaded,
            None => fallback.answer(&self.store).ok_or_else(|| LoadError::timed_out(allowed)),
        }
    }

    /// Returns the value for `key`, stale or not, and loads and stores it in the background if need be.
    ///
    /// The load is handed to `spawn`, for the caller's runtime to run, and outlives this caller. A stale value is returned at
    /// once while its load runs; without a value, the caller waits for the load as long as for that of another.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load), with [`Panicked`](crate::LoadErrorKind::Panicked) also for this caller's own
    /// loader, and [`Cancelled`](crate::LoadErrorKind::Cancelled) if the runtime dropped it.
    ///
    /// # Panics
    /// A panic of `spawn` passes through.
    ///
    /// # Examples
    /// ```
    /// use larder::Cache;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let cache: Cache<u32, String> = Cache::new(100);
    /// let spawn = |load| drop(tokio::spawn(load));
    /// let name = cache.get_or_load_detached(&7, spawn, |_| async { Ok::<_, std::io::Error>("Ann".to_owned()) }).await;
    /// assert_eq!(name.unwrap(), "Ann");
    /// # });
    /// ```
    pub async fn get_or_load_detached<Q, E, F, Fut>(
        &self,
        key: &Q,
        spawn: impl FnOnce(BoxFuture),
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let hash = self.hash(key);
        let mut patience = self.patience(None);
        let mut job = Some((spawn, loader));
        let mut look = self.look(hash, key);
        loop {
            // A stale value is the answer, whoever refreshes it.
            let (value, claim) = match look {
                Look::Stale { value, claim } => (Some(value), claim),
                Look::Vacant(claim) => (None, Some(claim)),
                other => match self.step(other)? {
                    Step::Done(value) => return Ok(value),
                    Step::Run(claim) => (None, Some(claim)),
                    Step::Wait(joined) => {
                        if let Some(value) = self.wait_async(&joined, &mut patience).await? {
                            return Ok(value);
                        }
                        look = self.store.look(hash, key);
                        continue;
                    }
                },
            };
            let joined = match (&value, &claim) {
                // Before the load starts: nobody joins a flight that has landed.
                (None, Some(claim)) => Some(claim.join().ok_or_else(LoadError::overloaded)?),
                _ => None,
            };
            if let Some(claim) = claim {
                match job.take() {
                    Some((spawn, loader)) => {
                        let load = async move { drop(claim.load_async(loader).await) };
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
                && let Some(value) = self.wait_async(&joined, &mut patience).await?
            {
                return Ok(value);
            }
            look = self.store.look(hash, key);
        }
    }

    /// Returns what is there for a call that changes nothing.
    pub(crate) fn read_only<Q, E>(&self, key: &Q, options: CallOptions) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let found = if options.skip_local { None } else { self.get(key) };
        found.ok_or_else(LoadError::absent)
    }

    /// Returns what a caller does about what it found.
    pub(crate) fn step<E>(&self, look: Look<K, V>) -> Result<Step<K, V>, LoadError<E>> {
        match look {
            Look::Fresh(value) | Look::Stale { value, claim: None } => Ok(Step::Done(value)),
            Look::Stale { claim: Some(claim), .. } | Look::Vacant(claim) => Ok(Step::Run(claim)),
            Look::Busy(joined) => self.may_wait(joined).map(Step::Wait),
        }
    }

    /// Returns `joined` if this caller may wait for it: nobody waits for a loader that it runs itself.
    pub(crate) fn may_wait<E>(&self, joined: Option<Joined<K, V>>) -> Result<Joined<K, V>, LoadError<E>> {
        let joined = joined.ok_or_else(LoadError::overloaded)?;
        if is_led_here(&joined.flight) {
            return Err(LoadError::reentrant());
        }
        self.store.tally().count(|counters| &counters.load_waits);
        Ok(joined)
    }

    /// Returns how long a caller waits for others, whose call may say so too.
    pub(crate) fn patience(&self, hard_timeout: Option<Duration>) -> Patience {
        let wait = self.store.settings.load_wait;
        Patience { wait: hard_timeout.map_or(wait, |timeout| timeout.min(wait)), until: None }
    }

    /// Waits on this thread for the load of another caller.
    ///
    /// Returns `Ok(None)` if the caller has to look again.
    pub(crate) fn wait<E>(&self, joined: &Joined<K, V>, patience: &mut Patience) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        let clock = &self.store.settings.clock;
        let until = patience.begin(clock).min(joined.flight.awaited_until());
        let outcome = clock.block_on(joined.landed(), until);
        self.settle(joined, outcome, patience)
    }

    /// Waits on any runtime for the load of another caller, as [`wait`](Self::wait) does.
    pub(crate) async fn wait_async<E>(
        &self,
        joined: &Joined<K, V>,
        patience: &mut Patience,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        let clock = &self.store.settings.clock;
        let until = patience.begin(clock).min(joined.flight.awaited_until());
        let outcome = clock.timeout(joined.landed(), until).await;
        self.settle(joined, outcome, patience)
    }

    /// Returns what a wait has brought: `Ok(None)` if the caller has to look again.
    fn settle<E>(
        &self,
        joined: &Joined<K, V>,
        outcome: Option<Arc<Outcome<V>>>,
        patience: &mut Patience,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        let clock = &self.store.settings.clock;
        let outcome = outcome.or_else(|| {
            // A moment before the timer: the load is given up, and that is its outcome.
            joined.flight.overdue(clock)?.give_up();
            joined.flight.outcome()
        });
        match outcome {
            Some(outcome) => joined.settle(&outcome),
            None if patience.begin(clock).has_passed(clock.now()) => {
                self.store.tally().count(|counters| &counters.load_timeouts);
                Err(LoadError::timed_out(patience.wait))
            }
            // The claim that this caller waited for has run out: it may take it over.
            None => Ok(None),
        }
    }
}

/// How long a caller waits for the loads of others, all together.
pub(crate) struct Patience {
    wait: Duration,
    /// Set by the first wait.
    until: Option<Deadline>,
}

impl Patience {
    /// Returns until when the caller waits, from its first wait on.
    fn begin(&mut self, clock: &Clock) -> Deadline {
        *self.until.get_or_insert_with(|| Deadline::after(clock.now(), self.wait))
    }
}

const ONCE: &str = "the closure runs once: in the load, or because there was none";
