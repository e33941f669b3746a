//! Loading through the cache: the verbs that fill a key on a miss, one caller at a time.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;

use crate::cache::Cache;
use crate::claim::Claim;
use crate::clock::Deadline;
use crate::error::LoadError;
use crate::flight::{Joined, Outcome, is_led_here};
use crate::key::ToKey;
use crate::options::Load;
use crate::store::Look;
use crate::sync::Arc;

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
        let hash = self.hash(key);
        let mut patience = None;
        let mut look = self.look(hash, key);
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
            look = self.store.look(hash, key);
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
    pub async fn get_or_load_async<Q, E, F, Fut>(&self, key: &Q, loader: F) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let hash = self.hash(key);
        let mut patience = None;
        let mut look = self.look(hash, key);
        loop {
            match self.step(look)? {
                Step::Done(value) => return Ok(value),
                Step::Run(claim) => return claim.load_async(loader).await,
                Step::Wait(joined) => {
                    if let Some(value) = self.wait_async(&joined, &mut patience).await? {
                        return Ok(value);
                    }
                }
            }
            look = self.store.look(hash, key);
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
        let mut patience = None;
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
                    Some((spawn, loader)) => spawn(Box::pin(async move { drop(claim.load_async(loader).await) })),
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

    /// Waits on this thread for the load of another caller. `patience` is until when, set by a caller's first wait.
    ///
    /// Returns `Ok(None)` if the caller has to look again.
    pub(crate) fn wait<E>(
        &self,
        joined: &Joined<K, V>,
        patience: &mut Option<Deadline>,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        let (deadline, until) = self.wait_limits(joined, patience);
        let outcome = self.store.settings.clock.block_on(joined.landed(), until);
        self.settle(joined, outcome, deadline)
    }

    /// Waits on any runtime for the load of another caller, as [`wait`](Self::wait) does.
    pub(crate) async fn wait_async<E>(
        &self,
        joined: &Joined<K, V>,
        patience: &mut Option<Deadline>,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        let (deadline, until) = self.wait_limits(joined, patience);
        let outcome = self.store.settings.clock.timeout(joined.landed(), until).await;
        self.settle(joined, outcome, deadline)
    }

    /// Returns until when a caller waits in all, and for this claim: it may take over one that has run out.
    fn wait_limits(&self, joined: &Joined<K, V>, patience: &mut Option<Deadline>) -> (Deadline, Deadline) {
        let settings = &self.store.settings;
        let deadline = *patience.get_or_insert_with(|| Deadline::after(settings.clock.now(), settings.load_wait));
        (deadline, deadline.min(joined.flight.held_until.get()))
    }

    /// Returns what a wait has brought: `Ok(None)` if the caller has to look again.
    fn settle<E>(
        &self,
        joined: &Joined<K, V>,
        outcome: Option<Arc<Outcome<V>>>,
        deadline: Deadline,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        match outcome {
            Some(outcome) => joined.settle(&outcome),
            None if deadline.has_passed(self.store.settings.clock.now()) => {
                self.store.tally().count(|counters| &counters.load_timeouts);
                Err(LoadError::timed_out(self.store.settings.load_wait))
            }
            // The claim that this caller waited for has run out: it may take it over.
            None => Ok(None),
        }
    }
}

const ONCE: &str = "the closure runs once: in the load, or because there was none";
