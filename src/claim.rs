//! Claims: the right, and the ticket, to fill one key.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use crate::call::CallOptions;
use crate::clock::Deadline;
use crate::entry::{Entry, Freshness, Handle};
use crate::error::LoadError;
use crate::flight::{Flight, Joined, Leading, Outcome};
use crate::limit::{Limit, Limited, Stake};
#[cfg(feature = "tiered")]
use crate::options::Lifetime;
use crate::options::{EntryOptions, Load, Spec};
use crate::store::{Refusal, Store, Terms};
use crate::sync::Arc;

/// The right to fill one key. One holder at a time; dropping it frees the key at once.
///
/// A claim is taken by [`Cache::lookup`](crate::Cache::lookup), and gives way in two cases: when its key or a group of its
/// value is invalidated, and when the key's grace has passed, so that a holder that vanished blocks nobody for long. Its
/// fill is then refused.
#[must_use = "a dropped claim frees the key for the next caller"]
pub struct Claim<K, V> {
    store: Arc<Store<K, V>>,
    flight: Arc<Flight<K, V>>,
    /// The key of the entry to come; taken by the fill.
    key: Option<K>,
    stale: Option<Handle<K, V>>,
    /// Whether the claim is over, in whatever way, and its drop has nothing to do.
    landed: bool,
    /// Whether a loader runs under this claim, so that a panic is its panic.
    loading: bool,
    /// Whether the remote tier has been asked under this claim.
    #[cfg(feature = "tiered")]
    asked: bool,
    /// Which deadlines a load wanted that has found the stale value unchanged.
    #[cfg(feature = "tiered")]
    unchanged: Option<Lifetime>,
    /// Whether what fills the claim is kept in the cache, or only handed to those who wait.
    kept: bool,
    /// How long the claim lasts, where its caller says so.
    grace: Option<Duration>,
}

/// Returns the value of an entry that was not stored.
pub(crate) fn into_value<K, V>(entry: Handle<K, V>) -> V {
    entry.into_inner().expect("an entry that was not stored is nobody else's").value
}

/// What became of a fill.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a fill may be refused, and then hands the value back"]
pub enum Fill<V> {
    /// The value is in the cache.
    Stored,
    /// The key or a group of the value was invalidated after the claim was taken, or the claim outlived its grace and
    /// another caller took it: the value may be out of date and was not stored.
    Fenced(V),
    /// The value weighs more than the whole cache may hold, or the call that took the claim passes it by
    /// ([`CallOptions::skip_local`]).
    Rejected(V),
}

impl<V> Fill<V> {
    /// Returns whether the value is in the cache.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Fill::Stored)
    }
}

impl<K, V> Claim<K, V> {
    pub(crate) fn new(store: Arc<Store<K, V>>, flight: Arc<Flight<K, V>>, key: K, stale: Option<Handle<K, V>>) -> Self {
        Claim {
            store,
            flight,
            key: Some(key),
            stale,
            landed: false,
            loading: false,
            kept: true,
            grace: None,
            #[cfg(feature = "tiered")]
            asked: false,
            #[cfg(feature = "tiered")]
            unchanged: None,
        }
    }

    /// Returns the key to fill.
    #[must_use]
    pub fn key(&self) -> &K {
        &self.flight.key
    }

    /// Returns the stale value to replace; `None` where there is none.
    #[must_use]
    pub fn stale(&self) -> Option<&V> {
        self.stale.as_ref().map(|entry| &entry.value)
    }

    /// Returns how long the value to replace is fresh yet: where it is refreshed ahead of its time. `None` where it is stale, or
    /// there is none; `Duration::MAX` where it never is.
    #[cfg(feature = "tiered")]
    pub(crate) fn fresh_for(&self) -> Option<Duration> {
        let entry = self.stale.as_ref().filter(|entry| self.store.freshness(&entry.meta) == Freshness::Fresh)?;
        Some(entry.meta.soft.get().remaining(self.store.settings.clock.now()).unwrap_or(Duration::MAX))
    }

    /// Notes that the remote tier is asked now, and returns whether that is a read of the user's: the first time, and where there
    /// is no value that is only to be refreshed.
    #[cfg(feature = "tiered")]
    pub(crate) fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true) && self.stale.is_none()
    }

    /// Returns the claim as one call asks for it: its own grace, and nothing kept of what passes the local tier by.
    pub(crate) fn with_options(mut self, options: &CallOptions) -> Self {
        self.kept = !options.skip_local;
        if let Some(grace) = options.grace {
            self.grace = Some(grace);
            self.flight.held_until.set(Deadline::after(self.store.settings.clock.now(), grace));
        }
        self
    }

    /// Returns which deadlines the load wanted that has ended, if it has found the stale value unchanged.
    #[cfg(feature = "tiered")]
    pub(crate) fn unchanged(&self) -> Option<Lifetime> {
        self.unchanged
    }

    /// Returns how long the claim lasts by itself.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
            .or_else(|| self.stale.as_ref().map(|entry| entry.meta.grace.get()))
            .unwrap_or(self.store.settings.grace)
    }

    /// Returns how long the claim lasts by the word of the call that took it, if that said so.
    #[cfg(feature = "tiered")]
    pub(crate) fn own_grace(&self) -> Option<Duration> {
        self.grace
    }

    /// Keeps the claim for `grace` from now on, for fills that take longer than the key's grace.
    ///
    /// Returns whether the claim still holds: `false` says that its fill would be refused.
    pub fn extend(&self, grace: Duration) -> bool {
        self.flight.held_until.set(Deadline::after(self.store.settings.clock.now(), grace));
        // After the deadline has moved: another caller either took the claim before, which shows now, or leaves it.
        self.stands()
    }

    /// Keeps the claim for as long as it takes: its holder is on a stack, and cannot vanish.
    pub(crate) fn stay(&self) {
        self.flight.held_until.set(Deadline::NEVER);
    }

    /// Keeps the claim for its grace from now on: its holder is a future, which may be kept without being polled again.
    pub(crate) fn renew(&self) {
        self.flight.held_until.set(Deadline::after(self.store.settings.clock.now(), self.grace()));
    }

    /// Returns whether a fill would be taken, as far as can be known before it.
    pub(crate) fn stands(&self) -> bool {
        self.store.stands(&self.flight) && !self.store.is_fenced(&self.flight)
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<K, V>> {
        &self.flight
    }

    /// Frees the key without a load, for which there is no room: nobody who waits for it tries in its stead.
    pub(crate) fn turn_away(mut self) {
        self.land(Outcome::Overloaded);
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Claim<K, V> {
    /// Allows the load under this claim so much time.
    pub(crate) fn limit(&self, allowed: Duration) -> Limited {
        let limited = Limited::start(&self.store.settings.clock, allowed, self.store.clone());
        self.submit_to(limited.limit());
        limited
    }

    /// Makes the load under this claim subject to a limit, as one of several perhaps.
    pub(crate) fn submit_to(&self, limit: &Arc<Limit>) {
        let (store, flight, stale) = (self.store.clone(), self.flight.clone(), self.stale.clone());
        // Before the flight knows of the limit: whoever gives that up gives the flight up too.
        limit.cover(Arc::new(Flying { store, flight, stale }));
        self.flight.set_limit(limit);
    }
}

/// The stale value of a load, to answer for it if it fails.
pub(crate) struct Fallback<K, V>(Option<Handle<K, V>>);

impl<K, V: Clone> Fallback<K, V> {
    /// Returns the stale value where the cache was built so, and tries no other refresh for a while.
    pub(crate) fn answer(&self, store: &Store<K, V>) -> Option<V> {
        let stale = self.0.as_ref()?;
        store.put_off(stale).then(|| stale.value.clone())
    }

    /// Returns whether there is a stale value that may be served yet.
    pub(crate) fn is_alive(&self, store: &Store<K, V>) -> bool {
        self.0.as_ref().is_some_and(|stale| store.freshness(&stale.meta) != Freshness::Dead)
    }
}

/// A claim, as those see it who give its load up.
struct Flying<K, V> {
    store: Arc<Store<K, V>>,
    flight: Arc<Flight<K, V>>,
    stale: Option<Handle<K, V>>,
}

impl<K: Send + Sync, V: Send + Sync> Stake for Flying<K, V> {
    fn give_up(&self, allowed: Duration) {
        if let Some(stale) = &self.stale {
            // First: whoever finds the key free serves the stale value, and leaves it alone for a while.
            self.store.put_off(stale);
        }
        self.store.retract(&self.flight);
        self.flight.land(Outcome::TimedOut(allowed));
    }
}

impl<K: Eq, V: Clone> Claim<K, V> {
    /// Stores `value` under the claim's key, with the cache's defaults.
    ///
    /// The fill is judged by the moment the claim was taken: an invalidation since then refuses it.
    pub fn fill(self, value: V) -> Fill<V> {
        self.fill_with(value, EntryOptions::new())
    }

    /// Stores `value` under the claim's key, with these options.
    ///
    /// The fill is judged by the moment the claim was taken, also for groups that are named only here.
    pub fn fill_with(mut self, value: V, options: EntryOptions) -> Fill<V> {
        let spec = options.resolve(&self.store.settings.groups);
        let entry = self.entry(value, spec, Duration::ZERO);
        self.commit(entry)
    }

    /// Runs `loader` on this thread, stores what it returns, and returns it.
    ///
    /// The claim does not run out while the loader runs. The value is returned even where it may not be stored.
    ///
    /// # Errors
    /// [`LoadErrorKind::Loader`](crate::LoadErrorKind::Loader) with the loader's error, unless the cache was built with
    /// [`stale_if_error`](crate::CacheBuilder::stale_if_error) and a stale value answers for it.
    ///
    /// # Panics
    /// A panic of the loader passes through; the key is free by then.
    ///
    /// # Blocking
    /// On the loader alone.
    pub fn load<E, F>(mut self, loader: F) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        let load = self.begin();
        self.stay();
        let stopwatch = self.store.settings.clock.stopwatch();
        let result = {
            let _leading = Leading::enter([&self.flight]);
            loader(load)
        };
        self.finish(result, stopwatch.elapsed())
    }

    /// Runs the future that `loader` returns, stores what it resolves to, and returns it. Runs on any runtime.
    ///
    /// Dropping the future half-way frees the key at once. The claim is extended by its grace whenever the future is
    /// polled, so that one that is kept but never polled again blocks nobody for longer.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    ///
    /// # Panics
    /// As [`load`](Self::load).
    pub async fn load_async<E, F, Fut>(mut self, loader: F) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let load = self.begin();
        let stopwatch = self.store.settings.clock.stopwatch();
        let result = {
            let mut future = pin!({
                let _leading = Leading::enter([&self.flight]);
                loader(load)
            });
            poll_fn(|context| {
                self.renew();
                let _leading = Leading::enter([&self.flight]);
                future.as_mut().poll(context)
            })
            .await
        };
        self.finish(result, stopwatch.elapsed())
    }

    /// Prepares a load: what its loader is handed.
    pub(crate) fn begin(&mut self) -> Load<V> {
        self.loading = true;
        self.flight.span.begin(self.store.watch(), &self.store.settings.clock);
        let load = Load::new(self.stale().cloned(), self.flight.draft.clone(), self.flight.limit().cloned());
        load.validated_by(self.store.settings.validator.clone())
    }

    /// Ends a load with what its loader returned.
    pub(crate) fn finish<E>(self, result: Result<V, E>, took: Duration) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        if !self.flight.is_given_up() {
            self.store.tally().loaded(took, result.is_ok());
        }
        match result {
            Ok(value) => Ok(self.succeed(value, took)),
            Err(error) => self.fail(Arc::new(error)),
        }
    }

    /// Ends a load that brought a value: stores it as the loader said, and returns it.
    pub(crate) fn succeed(mut self, value: V, took: Duration) -> V {
        let (entry, store) = self.prepare(value.clone(), took);
        if store {
            let _ = self.commit(entry);
        } else {
            self.refuse(&entry);
        }
        value
    }

    /// Makes the entry that a load has brought, as the loader said, and returns it with whether it is to be stored.
    pub(crate) fn prepare(&mut self, value: V, took: Duration) -> (Handle<K, V>, bool) {
        self.loading = false;
        self.flight.span.end("ok");
        let verdict = self.flight.draft.close();
        let mut spec = verdict.spec;
        if let (true, Some(stale)) = (verdict.not_modified, &self.stale) {
            if spec.groups.is_empty() {
                spec.groups = stale.meta.groups.clone();
            }
            spec.weight = spec.weight.or(Some(stale.meta.weight));
            spec.grace = spec.grace.or(Some(stale.meta.grace.get()));
            #[cfg(feature = "tiered")]
            {
                self.unchanged = Some(self.store.settings.lifetime_of(spec.lifetime, &value));
            }
        }
        (self.entry(value, spec, took), verdict.store)
    }

    /// Ends a load that failed. A stale value answers for it where the cache was built so, and one that is fresh yet in any case:
    /// it was refreshed ahead of its time.
    pub(crate) fn fail<E>(mut self, error: Arc<E>) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        self.loading = false;
        let fallback = self.fallback().answer(&self.store);
        self.land(Outcome::Failed(error.clone()));
        fallback.ok_or_else(|| LoadError::shared(error))
    }

    /// Returns what may answer for this claim's load if that fails.
    pub(crate) fn fallback(&self) -> Fallback<K, V> {
        Fallback(self.stale.clone())
    }

    /// Makes an entry of a value for this claim's key, which is used up.
    pub(crate) fn entry(&mut self, value: V, spec: Spec, cost: Duration) -> Handle<K, V> {
        let key = self.key.take().expect("a claim is filled once");
        self.store.entry::<true>(self.flight.hash, key, value, self.flight.born, spec, cost)
    }

    /// Stores an entry under this claim, and lets it land.
    pub(crate) fn commit(self, entry: Handle<K, V>) -> Fill<V> {
        if !self.kept {
            return self.pass_on(entry);
        }
        let admitted = self.store.admit(entry.clone(), &Terms::IfStands(&self.flight));
        if admitted == Err(Refusal::Unmet) && !self.flight.is_given_up() {
            self.store.tally().count(|counters| &counters.fences);
        }
        self.settle(entry, admitted)
    }

    /// Stores an entry under this claim as [`commit`](Self::commit) does, which is a copy and counts as nothing of the user's. No
    /// refresh of it begins for `pause`.
    #[cfg(feature = "tiered")]
    pub(crate) fn copy(self, entry: Handle<K, V>, pause: Option<Duration>) -> Fill<V> {
        if !self.kept {
            return self.pass_on(entry);
        }
        let terms = match pause {
            Some(pause) => Terms::ToPause(&self.flight, Deadline::after(self.store.settings.clock.now(), pause)),
            None => Terms::IfStands(&self.flight),
        };
        let admitted = self.store.place(entry.clone(), &terms);
        self.settle(entry, admitted)
    }

    /// Hands an entry that is not kept to those who wait.
    fn pass_on(self, entry: Handle<K, V>) -> Fill<V> {
        self.refuse(&entry);
        Fill::Rejected(into_value(entry))
    }

    fn settle(mut self, entry: Handle<K, V>, admitted: Result<(), Refusal>) -> Fill<V> {
        self.land_with(&entry, admitted == Err(Refusal::Unmet));
        let Err(refusal) = admitted else { return Fill::Stored };
        let value = into_value(entry);
        match refusal {
            Refusal::Unmet => Fill::Fenced(value),
            Refusal::Rejected(_) | Refusal::Full => Fill::Rejected(value),
        }
    }

    /// Stores an entry under this claim as far as there is room for it, as [`Store::warm`] does, and lets it land.
    #[cfg(feature = "tiered")]
    pub(crate) fn warm(mut self, entry: &Handle<K, V>, reclaimed: &mut bool) -> Result<(), Refusal> {
        let admitted = self.store.warm(entry, &Terms::ToWarmUnder(&self.flight), reclaimed);
        self.land_with(entry, admitted == Err(Refusal::Unmet));
        admitted
    }

    /// Ends the claim without storing the entry that was made for it: those who wait get its value all the same, unless it
    /// was invalidated before they came.
    pub(crate) fn refuse(mut self, entry: &Entry<K, V>) {
        // Before the judgement, which has to hold for everybody who has joined: from here on nobody does.
        self.store.retract(&self.flight);
        let fenced = self.store.is_fenced(&self.flight) || entry.meta.groups.moved_since(self.flight.born);
        self.land_with(entry, fenced);
    }

    fn land_with(&mut self, entry: &Entry<K, V>, fenced: bool) {
        self.store.retract(&self.flight);
        // Nobody joins any more, so that the copy for those who did is made only if there are any. If it panics, the claim's
        // drop tells them to look again.
        let awaited = self.flight.is_awaited();
        let outcome = if awaited { Outcome::Loaded { value: entry.value.clone(), fenced } } else { Outcome::Abandoned };
        self.landed = true;
        self.flight.land(outcome);
    }
}

#[cfg(feature = "tiered")]
impl<K, V: Clone> Claim<K, V> {
    /// Leaves the refresh of a value to somebody else: the old one is returned, and served to all for `pause`. Gives the claim
    /// back where there is none.
    pub(crate) fn postpone(self, pause: Duration) -> Result<V, Self> {
        let Some(stale) = &self.stale else { return Err(self) };
        self.store.pause(stale, pause);
        Ok(stale.value.clone())
    }
}

impl<K, V> Claim<K, V> {
    /// Ends a load that brought nothing for this key.
    pub(crate) fn give_up(mut self) {
        self.loading = false;
        if let Some(stale) = &self.stale {
            self.store.put_off(stale);
        }
        // In this order for the reason that `refuse` has.
        self.store.retract(&self.flight);
        let fenced = self.store.is_fenced(&self.flight);
        self.land(Outcome::Absent { fenced });
    }

    /// Joins those who wait for this claim; `None` when they are too many.
    pub(crate) fn join(&self) -> Option<Joined<K, V>> {
        self.flight.join(self.flight.born)
    }

    fn land(&mut self, outcome: Outcome<V>) {
        self.landed = true;
        self.store.retract(&self.flight);
        self.flight.land(outcome);
    }
}

impl<K, V> Drop for Claim<K, V> {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        if self.loading {
            // The loader panicked, or its future was dropped half-way.
            if !self.flight.is_given_up() {
                self.store.tally().loaded(Duration::ZERO, false);
            }
            let panicked = std::thread::panicking();
            if let (true, Some(stale)) = (panicked, &self.stale) {
                self.store.put_off(stale);
            }
            self.land(if panicked { Outcome::Panicked } else { Outcome::Abandoned });
        } else {
            self.land(Outcome::Abandoned);
        }
    }
}

impl<K: fmt::Debug, V> fmt::Debug for Claim<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("key", self.key()).field("refreshes", &self.stale.is_some()).finish()
    }
}
