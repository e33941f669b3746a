//! Loading many keys at once: one loader for all that are missing.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash};
use std::pin::pin;
use std::time::Duration;

use equivalent::Equivalent;

use crate::cache::Cache;
use crate::claim::Claim;
use crate::clock::Deadline;
use crate::error::LoadError;
use crate::flight::{Flight, Joined, Leading};
use crate::key::ToKey;
use crate::options::Load;
use crate::store::Look;
use crate::sync::Arc;

/// What a batch loader is handed: the keys that are missing, each with its own [`Load`].
pub struct Batch<K, V> {
    loads: Vec<(K, Load<V>)>,
}

impl<K, V> Batch<K, V> {
    /// Returns the keys to load, each once, in the order they were asked for.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.loads.iter().map(|(key, _)| key)
    }

    /// Returns the keys to load with their loads.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &Load<V>)> {
        self.loads.iter().map(|(key, load)| (key, load))
    }

    /// Returns the load of `key`, to say how its value is kept; `None` if the key is not in the batch. Linear in the number
    /// of keys.
    pub fn load<Q: Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&Load<V>> {
        self.loads.iter().find(|(known, _)| key.equivalent(known)).map(|(_, load)| load)
    }

    /// Adds the values of all keys to these groups.
    pub fn groups<I>(&self, groups: I)
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let groups: Vec<_> = groups.into_iter().collect();
        self.loads.iter().for_each(|(_, load)| load.groups(&groups));
    }

    /// Returns how many keys there are to load; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a loader without a key to load is not run")]
    pub fn len(&self) -> usize {
        self.loads.len()
    }
}

impl<K: fmt::Debug, V> fmt::Debug for Batch<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

/// Where the answer for one of the keys comes from.
enum Source<K, V> {
    Known(V),
    /// The claim at this index of [`Plan::claims`].
    Claimed(usize),
    /// The load of another caller.
    Awaited(Joined<K, V>),
}

/// What a batch of keys comes down to: which are known, which this caller loads, and which others load.
struct Plan<K, V> {
    sources: Vec<Source<K, V>>,
    claims: Vec<Claim<K, V>>,
    /// The keys of the claims, for the loader.
    keys: Vec<K>,
}

/// What a batch was asked for, and its answers so far.
struct Answers<'q, Q: ?Sized, V> {
    keys: Vec<&'q Q>,
    values: Vec<Option<V>>,
    /// The keys without an answer, by their places.
    open: Vec<usize>,
}

impl<'q, Q: ?Sized, V: Clone> Answers<'q, Q, V> {
    fn new(keys: impl IntoIterator<Item = &'q Q>) -> Self {
        let keys: Vec<&Q> = keys.into_iter().collect();
        Answers { values: vec![None; keys.len()], open: (0..keys.len()).collect(), keys }
    }

    fn take_open(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.open)
    }

    /// Notes what a wait for another caller's load has brought. Where that is nothing, the key has to be looked for again.
    fn put(&mut self, at: usize, value: Option<V>) {
        match value {
            Some(value) => self.values[at] = Some(value),
            None => self.open.push(at),
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for each key, in order, and loads all that are missing at once.
    ///
    /// `loader` runs once, with the keys that nobody else is loading, or not at all. It returns pairs in any order; a key that
    /// it leaves out has no value, and a pair that was not asked for is dropped. Keys that others load are waited for
    /// afterwards, so that two batches that overlap never wait for each other. Stale values are treated as by
    /// [`get_or_load`](Self::get_or_load).
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load), and [`Cancelled`](crate::LoadErrorKind::Cancelled) where another caller gave up
    /// the load of a key after `loader` had run for the rest: ask again. Where the loader fails, stale values that may answer for it do
    /// ([`stale_if_error`](crate::CacheBuilder::stale_if_error)), and the error is returned only if a key remains without.
    ///
    /// # Panics
    /// A panic of `loader` passes through, and those who wait get an error.
    ///
    /// # Blocking
    /// On `loader`, and on those of other callers for at most [`load_wait`](crate::CacheBuilder::load_wait) in all.
    pub fn get_many_or_load<'q, Q, I, E, F>(&self, keys: I, loader: F) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Result<Vec<(K, V)>, E>,
    {
        let mut answers = Answers::new(keys);
        let mut loader = Some(loader);
        let mut patience = None;
        while !answers.open.is_empty() {
            let mut plan = self.plan(&answers, loader.is_some())?;
            let mut loaded = Vec::new();
            if !plan.claims.is_empty() {
                let loader = loader.take().ok_or_else(LoadError::cancelled)?;
                let batch = plan.begin();
                plan.hold(Deadline::NEVER);
                let stopwatch = self.store.settings.clock.stopwatch();
                let result = {
                    let _leading = Leading::enter(plan.flights());
                    loader(batch)
                };
                loaded = self.finish(plan.claims, result, stopwatch.elapsed())?;
            }
            for (at, source) in answers.take_open().into_iter().zip(plan.sources) {
                match source {
                    Source::Known(value) => answers.values[at] = Some(value),
                    Source::Claimed(index) => answers.values[at] = loaded[index].clone(),
                    Source::Awaited(joined) => answers.put(at, self.wait(&joined, &mut patience)?),
                }
            }
        }
        Ok(answers.values)
    }

    /// Returns the value for each key, in order, and loads all that are missing at once: the form for futures of
    /// [`get_many_or_load`](Self::get_many_or_load), on any runtime.
    ///
    /// Dropping the future half-way drops the load and frees its keys at once.
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
        Q: Hash + ToKey<K> + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        let mut answers = Answers::new(keys);
        let mut loader = Some(loader);
        let mut patience = None;
        while !answers.open.is_empty() {
            let mut plan = self.plan(&answers, loader.is_some())?;
            let mut loaded = Vec::new();
            if !plan.claims.is_empty() {
                let loader = loader.take().ok_or_else(LoadError::cancelled)?;
                let batch = plan.begin();
                let settings = &self.store.settings;
                let stopwatch = settings.clock.stopwatch();
                let result = {
                    let mut future = pin!({
                        let _leading = Leading::enter(plan.flights());
                        loader(batch)
                    });
                    poll_fn(|context| {
                        plan.hold(Deadline::after(settings.clock.now(), settings.grace));
                        let _leading = Leading::enter(plan.flights());
                        future.as_mut().poll(context)
                    })
                    .await
                };
                loaded = self.finish(plan.claims, result, stopwatch.elapsed())?;
            }
            for (at, source) in answers.take_open().into_iter().zip(plan.sources) {
                match source {
                    Source::Known(value) => answers.values[at] = Some(value),
                    Source::Claimed(index) => answers.values[at] = loaded[index].clone(),
                    Source::Awaited(joined) => answers.put(at, self.wait_async(&joined, &mut patience).await?),
                }
            }
        }
        Ok(answers.values)
    }

    /// Looks for every key that is still open, and claims those that it may. Once the loader has run, stale values have to
    /// do.
    fn plan<Q, E>(&self, answers: &Answers<'_, Q, V>, may_load: bool) -> Result<Plan<K, V>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let mut plan = Plan { sources: Vec::with_capacity(answers.open.len()), claims: Vec::new(), keys: Vec::new() };
        let mut claimed: HashMap<usize, usize, ahash::RandomState> = HashMap::default();
        for &at in &answers.open {
            let key = answers.keys[at];
            let source = match self.look(self.hash(key), key) {
                Look::Fresh(value) | Look::Stale { value, claim: None } => Source::Known(value),
                Look::Stale { value, .. } if !may_load => Source::Known(value),
                Look::Stale { claim: Some(claim), .. } | Look::Vacant(claim) => {
                    claimed.insert(address(claim.flight()), plan.claims.len());
                    plan.claims.push(claim);
                    plan.keys.push(key.to_key());
                    Source::Claimed(plan.claims.len() - 1)
                }
                // A key that was asked for twice: this batch loads it already.
                Look::Busy(Some(joined)) if claimed.contains_key(&address(&joined.flight)) => {
                    Source::Claimed(claimed[&address(&joined.flight)])
                }
                Look::Busy(joined) => Source::Awaited(self.may_wait(joined)?),
            };
            plan.sources.push(source);
        }
        Ok(plan)
    }

    /// Ends a batch with what its loader returned; the values are in the order of the claims.
    fn finish<E>(
        &self,
        claims: Vec<Claim<K, V>>,
        result: Result<Vec<(K, V)>, E>,
        took: Duration,
    ) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        match result {
            Ok(pairs) => {
                let mut values: HashMap<K, V, ahash::RandomState> = pairs.into_iter().collect();
                // The batch counts as one load, whose time is that of all its keys.
                self.store.tally().loaded(took, true);
                let answer = |claim: Claim<K, V>| match values.remove(claim.key()) {
                    Some(value) => Some(claim.succeed(value, took)),
                    None => {
                        claim.give_up();
                        None
                    }
                };
                Ok(claims.into_iter().map(answer).collect())
            }
            Err(error) => {
                let error = Arc::new(error);
                self.store.tally().loaded(took, false);
                // Every claim fails before the first error is returned.
                let answers: Vec<_> = claims.into_iter().map(|claim| claim.fail(error.clone()).map(Some)).collect();
                answers.into_iter().collect()
            }
        }
    }
}

impl<K, V: Clone> Plan<K, V>
where
    K: Eq,
{
    fn begin(&mut self) -> Batch<K, V> {
        Batch { loads: self.keys.drain(..).zip(self.claims.iter_mut().map(Claim::begin)).collect() }
    }

    fn flights(&self) -> impl Iterator<Item = &Arc<Flight<K, V>>> {
        self.claims.iter().map(Claim::flight)
    }

    fn hold(&self, until: Deadline) {
        self.flights().for_each(|flight| flight.held_until.set(until));
    }
}

fn address<K, V>(flight: &Arc<Flight<K, V>>) -> usize {
    Arc::as_ptr(flight).addr()
}
