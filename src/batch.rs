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
    pub(crate) fn new(loads: Vec<(K, Load<V>)>) -> Batch<K, V> {
        Batch { loads }
    }

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

impl<K, V> IntoIterator for Batch<K, V> {
    type Item = (K, Load<V>);
    type IntoIter = std::vec::IntoIter<(K, Load<V>)>;

    /// Returns the keys to load with their loads, in the order they were asked for.
    fn into_iter(self) -> Self::IntoIter {
        self.loads.into_iter()
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
}

/// A key that was asked for, and its place among the answers.
type Asked<'q, Q> = (usize, &'q Q);

/// What a batch has and what it has not. Another round looks for the keys whose loads, by others, brought no answer.
struct Round<'q, Q: ?Sized, V> {
    open: Vec<Asked<'q, Q>>,
    is_first: bool,
    answers: Vec<Option<V>>,
}

impl<'q, Q: ?Sized, V> Round<'q, Q, V> {
    fn first(keys: impl IntoIterator<Item = &'q Q>) -> Self {
        let open: Vec<_> = keys.into_iter().enumerate().collect();
        let answers = open.iter().map(|_| None).collect();
        Round { open, is_first: true, answers }
    }

    /// Begins the next round, without any key so far, and returns those of this one.
    fn start_next(&mut self) -> Vec<Asked<'q, Q>> {
        self.is_first = false;
        std::mem::take(&mut self.open)
    }

    fn answer(&mut self, asked: &Asked<'q, Q>, answer: Option<V>) {
        self.answers[asked.0] = answer;
    }

    /// Takes what the load of another has brought, or leaves the key to the next round.
    fn settle<K>(&mut self, asked: Asked<'q, Q>, joined: &Joined<K, V>, landed: Option<V>) {
        if landed.is_some() || joined.found_absent() {
            self.answer(&asked, landed);
        } else {
            self.open.push(asked);
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
    /// it leaves out has no value, which is remembered with [`negative_ttl`](crate::CacheBuilder::negative_ttl), and a pair that
    /// was not asked for is dropped. Keys that others load are waited for
    /// afterwards, so that two batches that overlap never wait for each other; `loader` runs then if it has not before and
    /// a load of another was dropped or invalidated. Stale values are treated as by [`get_or_load`](Self::get_or_load).
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load), and [`Cancelled`](crate::LoadErrorKind::Cancelled) where the load of another was
    /// dropped or invalidated and `loader` has run already: nobody knows whether that key has a value. What `loader` brought
    /// is stored all the same. Where the loader fails, stale values that may answer for it do
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
        let mut loader = Some(loader);
        let mut patience = self.patience(None);
        let mut round = Round::first(keys);
        while !round.open.is_empty() {
            let mut plan = self.plan(&round, loader.is_some())?;
            let mut loaded = Vec::new();
            if !plan.claims.is_empty() {
                let loader = loader.take().expect("a plan without a loader claims nothing");
                let batch = plan.begin(&round.open);
                plan.claims.iter().for_each(Claim::stay);
                let stopwatch = self.store.settings.clock.stopwatch();
                let result = {
                    let _leading = Leading::enter(plan.claims.iter().map(Claim::flight));
                    loader(batch)
                };
                loaded = self.finish(plan.claims, result, stopwatch.elapsed())?;
            }
            for (asked, source) in round.start_next().into_iter().zip(plan.sources) {
                match source {
                    Source::Known(value) => round.answer(&asked, Some(value)),
                    Source::Claimed(index) => round.answer(&asked, loaded[index].clone()),
                    Source::Awaited(joined) => {
                        let landed = self.wait(&joined, &mut patience)?;
                        round.settle(asked, &joined, landed);
                    }
                }
            }
        }
        Ok(round.answers)
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
        let mut loader = Some(loader);
        let mut patience = self.patience(None);
        let mut round = Round::first(keys);
        while !round.open.is_empty() {
            let mut plan = self.plan(&round, loader.is_some())?;
            let mut loaded = Vec::new();
            if !plan.claims.is_empty() {
                let loader = loader.take().expect("a plan without a loader claims nothing");
                let batch = plan.begin(&round.open);
                loaded = self.load_batch(plan.claims, batch, loader).await?;
            }
            for (asked, source) in round.start_next().into_iter().zip(plan.sources) {
                match source {
                    Source::Known(value) => round.answer(&asked, Some(value)),
                    Source::Claimed(index) => round.answer(&asked, loaded[index].clone()),
                    Source::Awaited(joined) => {
                        let landed = self.wait_async(&joined, &mut patience).await?;
                        round.settle(asked, &joined, landed);
                    }
                }
            }
        }
        Ok(round.answers)
    }

    /// Looks for every open key, and claims those that it may, if there is a loader to fill them.
    fn plan<Q, E>(&self, round: &Round<'_, Q, V>, may_load: bool) -> Result<Plan<K, V>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        let mut plan = Plan { sources: Vec::with_capacity(round.open.len()), claims: Vec::new() };
        let mut claimed: HashMap<usize, usize, ahash::RandomState> = HashMap::default();
        for (_, key) in &round.open {
            let hash = self.hash(*key);
            // What a key is found to be counts once.
            let look = if round.is_first { self.look(hash, *key) } else { self.store.look(hash, *key) };
            let source = match look {
                Look::Fresh(value) | Look::Stale { value, claim: None } => Source::Known(value),
                Look::Stale { value, .. } if !may_load => Source::Known(value),
                Look::Vacant(_) if !may_load => return Err(LoadError::cancelled()),
                Look::Stale { claim: Some(claim), .. } | Look::Vacant(claim) => {
                    claimed.insert(address(claim.flight()), plan.claims.len());
                    plan.claims.push(claim);
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

    /// Runs the loader of a batch as part of this future; the values are in the order of the claims.
    pub(crate) async fn load_batch<E, F, Fut>(
        &self,
        claims: Vec<Claim<K, V>>,
        batch: Batch<K, V>,
        loader: F,
    ) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        let clock = &self.store.settings.clock;
        let stopwatch = clock.stopwatch();
        let result = {
            let flights = || claims.iter().map(Claim::flight);
            let mut future = pin!({
                let _leading = Leading::enter(flights());
                loader(batch)
            });
            poll_fn(|context| {
                claims.iter().for_each(Claim::renew);
                let _leading = Leading::enter(flights());
                future.as_mut().poll(context)
            })
            .await
        };
        self.finish(claims, result, stopwatch.elapsed())
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
                // Each value until it is handed out, then whose answer it is: a key that was asked for twice is claimed
                // twice if it was invalidated in between.
                let values = pairs.into_iter().map(|(key, value)| (key, Ok(value)));
                let mut values: HashMap<K, Result<V, usize>, ahash::RandomState> = values.collect();
                // The batch counts as one load, whose time is that of all its keys.
                if !claims.iter().any(|claim| claim.flight().is_given_up()) {
                    self.store.tally().loaded(took, true);
                }
                let mut answers: Vec<Option<V>> = Vec::with_capacity(claims.len());
                for claim in claims {
                    let found = values.get_mut(claim.key()).map(|value| std::mem::replace(value, Err(answers.len())));
                    let value = match found {
                        Some(Ok(value)) => Some(value),
                        Some(Err(earlier)) => answers[earlier].clone(),
                        None => self.store.settings.absence.as_ref().map(|absence| (absence.make)()),
                    };
                    answers.push(match value {
                        Some(value) => Some(claim.succeed(value, took)),
                        None => {
                            claim.give_up();
                            None
                        }
                    });
                }
                Ok(answers)
            }
            Err(error) => {
                let error = Arc::new(error);
                if !claims.iter().any(|claim| claim.flight().is_given_up()) {
                    self.store.tally().loaded(took, false);
                }
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
    fn begin<Q: ToKey<K> + ?Sized>(&mut self, open: &[Asked<'_, Q>]) -> Batch<K, V> {
        let mut first_asked = vec![None; self.claims.len()];
        for ((_, key), source) in open.iter().zip(&self.sources) {
            if let Source::Claimed(index) = source {
                first_asked[*index].get_or_insert(*key);
            }
        }
        let keys = first_asked.into_iter().flatten().map(ToKey::to_key);
        Batch { loads: keys.zip(self.claims.iter_mut().map(Claim::begin)).collect() }
    }
}

fn address<K, V>(flight: &Arc<Flight<K, V>>) -> usize {
    Arc::as_ptr(flight).addr()
}
