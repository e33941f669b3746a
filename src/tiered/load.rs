//! Loading through both tiers: what happens around a loader.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash};
use std::pin::pin;
use std::time::Duration;

use super::TieredCache;
use super::consult::{Consulted, Ticket, Wanted};
use super::write::Sent;
use crate::batch::Batch;
use crate::claim::Claim;
use crate::clock::{AtomicDeadline, Deadline, real};
use crate::entry::Entry;
use crate::error::LoadError;
use crate::flight::{Flight, Joined, Leading};
use crate::key::ToKey;
use crate::load::Step;
use crate::namespace::core::Standing;
use crate::options::Load;
use crate::remote::batch::Caller;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::RemoteKey;
use crate::stats::bump;
use crate::store::Look;
use crate::sync::Arc;

/// How long a caller pauses before it asks again for what another process loads: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A load that has ended, with a value or without.
struct Loaded<K, V> {
    claim: Claim<K, V>,
    ticket: Ticket,
    value: Option<V>,
}

/// A load whose value is to be written to the remote tier.
pub(super) struct Outgoing<K, V> {
    pub(super) claim: Claim<K, V>,
    pub(super) ticket: Ticket,
    pub(super) entry: Arc<Entry<K, V>>,
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for `key`, from whichever tier has it or from `loader`. `first` is what a look at the local tier has
    /// found already, if there was one.
    pub(super) async fn load_one<Q, E, F, Fut>(
        &self,
        caller: Caller,
        key: &Q,
        first: Option<Step<K, V>>,
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let hash = self.local.hash(key);
        let mut patience = None;
        let mut standing = Standing::Trusted;
        let mut step = first;
        loop {
            let next = match step.take() {
                Some(step) => step,
                None => {
                    standing = self.core().standing(caller).await;
                    if standing == Standing::Refused {
                        return Err(LoadError::untrusted());
                    }
                    self.local.step(self.glance_to_load(standing, hash, key))?
                }
            };
            match next {
                Step::Done(value) => return Ok(value),
                Step::Wait(joined) => {
                    if let Some(value) = self.wait(caller, &joined, &mut patience).await? {
                        return Ok(value);
                    }
                }
                Step::Run(claim) => {
                    let wanted = Wanted { key, claim, at: self.remote.locate(key) };
                    if standing == Standing::CutOff {
                        let (claim, ticket) = self.without_remote(caller, wanted);
                        return self.run_one(caller, claim, ticket, loader).await;
                    }
                    let mut wanted = vec![wanted];
                    let mut pauses = self.pauses();
                    loop {
                        match self.consult(caller, standing, wanted).await.pop() {
                            Some(Consulted::Answer(value)) => return Ok(value),
                            Some(Consulted::Load(claim, ticket)) => {
                                return self.run_one(caller, claim, ticket, loader).await;
                            }
                            Some(Consulted::Busy(busy)) if pauses.pause().await => wanted = vec![busy],
                            // The other process has had its time: this one loads for itself alone.
                            Some(Consulted::Busy(busy)) => {
                                let (claim, ticket) = self.without_remote(caller, busy);
                                return self.run_one(caller, claim, ticket, loader).await;
                            }
                            None => unreachable!("each key that is asked about has an answer"),
                        }
                    }
                }
            }
        }
    }

    /// Returns the value for each key, from whichever tier has it or from `loader`, which runs once for all that are missing.
    pub(super) async fn load_many<'q, Q, I, E, F, Fut>(
        &self,
        caller: Caller,
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
        let keys: Vec<&Q> = keys.into_iter().collect();
        let mut answers: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        let mut loader = Some(loader);
        let mut patience = None;
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let mut is_first = true;
        while !open.is_empty() {
            let standing = self.core().standing(caller).await;
            if standing == Standing::Refused {
                return Err(LoadError::untrusted());
            }
            let mut wanted: Vec<Wanted<'_, Q, K, V>> = Vec::new();
            let mut places: Vec<Vec<usize>> = Vec::new();
            let mut awaited: Vec<(usize, Joined<K, V>)> = Vec::new();
            for at in std::mem::take(&mut open) {
                let key = keys[at];
                let look = self.glance_to_load(standing, self.local.hash(key), key);
                if is_first {
                    self.local.count(&look);
                }
                match look {
                    Look::Fresh(value) | Look::Stale { value, claim: None } => answers[at] = Some(value),
                    Look::Stale { value, .. } if loader.is_none() => answers[at] = Some(value),
                    Look::Vacant(_) if loader.is_none() => return Err(LoadError::cancelled()),
                    Look::Stale { claim: Some(claim), .. } | Look::Vacant(claim) => {
                        wanted.push(Wanted { key, claim, at: self.remote.locate(key) });
                        places.push(vec![at]);
                    }
                    Look::Busy(joined) => {
                        // A key that was asked for twice: this batch is at it already.
                        let mine = joined.as_ref().and_then(|joined| {
                            wanted.iter().position(|wanted| Arc::ptr_eq(wanted.claim.flight(), &joined.flight))
                        });
                        match mine {
                            Some(mine) => places[mine].push(at),
                            None => awaited.push((at, self.local.may_wait(joined)?)),
                        }
                    }
                }
            }
            is_first = false;
            for (places, answer) in self.load_wanted(caller, standing, wanted, places, &mut loader).await? {
                places.into_iter().for_each(|at| answers[at] = answer.clone());
            }
            for (at, joined) in awaited {
                let landed = self.wait(caller, &joined, &mut patience).await?;
                if landed.is_some() || joined.found_absent() {
                    answers[at] = landed;
                } else {
                    open.push(at);
                }
            }
        }
        Ok(answers)
    }

    /// Sees to keys that this caller has claimed, until each has an answer. What no other process is at is loaded first: two
    /// that wait for each other's keys would otherwise do so until one gives up.
    async fn load_wanted<Q, P, E, F, Fut>(
        &self,
        caller: Caller,
        standing: Standing,
        mut wanted: Vec<Wanted<'_, Q, K, V>>,
        mut places: Vec<P>,
        loader: &mut Option<F>,
    ) -> Result<Vec<(P, Option<V>)>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        let mut answers = Vec::with_capacity(wanted.len());
        let mut pauses = if standing == Standing::CutOff { Pauses::none() } else { self.pauses() };
        let mut cancelled = false;
        while !wanted.is_empty() {
            let keys: Vec<&Q> = wanted.iter().map(|wanted| wanted.key).collect();
            let wanted_now = std::mem::take(&mut wanted);
            let consulted = match standing {
                Standing::CutOff => wanted_now.into_iter().map(Consulted::Busy).collect(),
                Standing::Trusted | Standing::Lapsed | Standing::Refused => {
                    self.consult(caller, standing, wanted_now).await
                }
            };
            let (mut loads, mut loaded_places, mut busy_places) = (Vec::new(), Vec::new(), Vec::new());
            for ((consulted, place), key) in consulted.into_iter().zip(std::mem::take(&mut places)).zip(keys) {
                match consulted {
                    Consulted::Answer(value) => answers.push((place, Some(value))),
                    Consulted::Load(claim, ticket) => {
                        loads.push((key, claim, ticket));
                        loaded_places.push(place);
                    }
                    Consulted::Busy(busy) => {
                        wanted.push(busy);
                        busy_places.push(place);
                    }
                }
            }
            places = busy_places;
            if loads.is_empty() && !wanted.is_empty() && !pauses.pause().await {
                // The other processes have had their time: this one loads for itself alone.
                for (busy, place) in wanted.drain(..).zip(places.drain(..)) {
                    let key = busy.key;
                    let (claim, ticket) = self.without_remote(caller, busy);
                    loads.push((key, claim, ticket));
                    loaded_places.push(place);
                }
            }
            if !loads.is_empty() {
                match loader.take() {
                    Some(loader) => {
                        let loaded = self.run_many(caller, loads, loader).await?;
                        answers.extend(loaded_places.into_iter().zip(loaded));
                    }
                    // The load of another process was given up, and the loader has run already.
                    None => cancelled = true,
                }
            }
        }
        if cancelled { Err(LoadError::cancelled()) } else { Ok(answers) }
    }

    /// Runs a loader for one key, and writes its result through.
    async fn run_one<E, F, Fut>(
        &self,
        caller: Caller,
        mut claim: Claim<K, V>,
        ticket: Ticket,
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let load = claim.begin();
        let stopwatch = self.core().clock.stopwatch();
        let result = self.lead(caller, &[claim.flight().clone()], ticket.held_until().collect(), || loader(load)).await;
        let took = stopwatch.elapsed();
        self.local.store.tally().loaded(took, result.is_ok());
        match result {
            Ok(value) => {
                self.finish(caller, vec![Loaded { claim, ticket, value: Some(value.clone()) }], took).await;
                Ok(value)
            }
            Err(error) => claim.fail(Arc::new(error)),
        }
    }

    /// Runs a loader for several keys, and writes its results through; returns them in the order of the keys.
    async fn run_many<Q, E, F, Fut>(
        &self,
        caller: Caller,
        mut loads: Vec<(&Q, Claim<K, V>, Ticket)>,
        loader: F,
    ) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        let batch = Batch::new(loads.iter_mut().map(|(key, claim, _)| (key.to_key(), claim.begin())).collect());
        let flights: Vec<_> = loads.iter().map(|(_, claim, _)| claim.flight().clone()).collect();
        let stopwatch = self.core().clock.stopwatch();
        let leases = loads.iter().flat_map(|(_, _, ticket)| ticket.held_until()).collect();
        let result = self.lead(caller, &flights, leases, || loader(batch)).await;
        let took = stopwatch.elapsed();
        // The batch counts as one load, whose time is that of all its keys.
        self.local.store.tally().loaded(took, result.is_ok());
        match result {
            Ok(pairs) => {
                let mut values: std::collections::HashMap<K, V, ahash::RandomState> = pairs.into_iter().collect();
                let values: Vec<Option<V>> = loads.iter().map(|(_, claim, _)| values.remove(claim.key())).collect();
                let loaded = loads.into_iter().zip(values.clone());
                let loaded = loaded.map(|((_, claim, ticket), value)| Loaded { claim, ticket, value }).collect();
                self.finish(caller, loaded, took).await;
                Ok(values)
            }
            Err(error) => {
                let error = Arc::new(error);
                // Every claim fails before the first error is returned.
                let (claims, tickets): (Vec<_>, Vec<_>) =
                    loads.into_iter().map(|(_, claim, ticket)| (claim, ticket)).unzip();
                let answers: Vec<_> = claims.into_iter().map(|claim| claim.fail(error.clone()).map(Some)).collect();
                Ticket::give_back(tickets);
                answers.into_iter().collect()
            }
        }
    }

    /// Polls a load as the one that leads these flights: nobody takes them over meanwhile, its leases are renewed, and whoever
    /// asks for their keys from within would wait for itself.
    async fn lead<Fut: Future>(
        &self,
        caller: Caller,
        flights: &[Arc<Flight<K, V>>],
        leases: Vec<Arc<AtomicDeadline>>,
        start: impl FnOnce() -> Fut,
    ) -> Fut::Output {
        let settings = &self.local.store.settings;
        let hold = || {
            let until = match caller {
                // The holder is here, on this stack: it cannot vanish.
                Caller::Thread => Deadline::NEVER,
                Caller::Task => Deadline::after(settings.clock.now(), settings.grace),
            };
            flights.iter().for_each(|flight| flight.held_until.set(until));
            leases.iter().for_each(|held_until| held_until.set(until));
        };
        hold();
        let mut load = pin!({
            let _leading = Leading::enter(flights);
            start()
        });
        poll_fn(|context| {
            hold();
            let _leading = Leading::enter(flights);
            load.as_mut().poll(context)
        })
        .await
    }

    /// Ends loads of which some have brought a value: stores those in both tiers, as far as no invalidation has overtaken
    /// them.
    async fn finish(&self, caller: Caller, loaded: Vec<Loaded<K, V>>, took: Duration) {
        let mut outgoing = Vec::with_capacity(loaded.len());
        let mut over = Vec::new();
        for Loaded { mut claim, ticket, value } in loaded {
            let Some(value) = value else {
                claim.give_up();
                over.push(ticket);
                continue;
            };
            let (entry, wanted) = claim.prepare(value, took);
            if !wanted {
                claim.refuse(&entry);
            } else if ticket.cas().is_none() {
                let _ = claim.commit(entry);
            } else if claim.stands() {
                outgoing.push(Outgoing { claim, ticket, entry });
                continue;
            } else {
                // Overtaken by an invalidation in this process: it is not sent at all.
                self.fenced(claim, &entry);
            }
            over.push(ticket);
        }
        let sent = if outgoing.is_empty() { Vec::new() } else { self.send_loads(caller, &outgoing).await };
        for (Outgoing { claim, mut ticket, entry }, sent) in outgoing.into_iter().zip(sent) {
            match sent {
                Sent::Stored => {
                    bump(&self.remote.counters.stores);
                    ticket.filled();
                    let _ = claim.commit(entry);
                }
                // By another process the item has changed, or a token has.
                Sent::Fenced | Sent::Overtaken => {
                    bump(&self.remote.counters.fences);
                    self.fenced(claim, &entry);
                }
                // Not written there, perhaps, but nothing says that the value is out of date.
                Sent::Failed(error) => {
                    bump(&self.remote.counters.errors);
                    if let Some(cas) = ticket.replaces().filter(|_| is_hopeless(&error)) {
                        // What the remote tier will never take is older there than here.
                        self.remote.abandon(caller, ticket.key(), cas).await;
                    }
                    let _ = claim.commit(entry);
                }
            }
            over.push(ticket);
        }
        Ticket::give_back(over);
    }

    fn fenced(&self, claim: Claim<K, V>, entry: &Entry<K, V>) {
        self.local.store.tally().count(|counters| &counters.fences);
        claim.refuse(entry);
    }

    /// Looks at the local tier as far as it counts now, and joins no load that is outdated.
    fn glance_to_load<Q>(&self, standing: Standing, hash: u64, key: &Q) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        loop {
            match self.glance(standing, hash, key) {
                Look::Busy(Some(joined)) if standing != Standing::Trusted && self.is_outdated(&joined) => {
                    self.local.store.retract(&joined.flight);
                }
                look => return look,
            }
        }
    }

    /// Returns whether a load began so long ago that what it will bring would not be served any more: nothing is known of what
    /// other processes have invalidated since. Whoever comes now begins another one.
    fn is_outdated(&self, joined: &Joined<K, V>) -> bool {
        let core = self.core();
        Deadline::within(joined.flight.begun, core.settings.trust).has_passed(core.clock.now())
    }

    /// Waits for the load of another caller of this process.
    async fn wait<E>(
        &self,
        caller: Caller,
        joined: &Joined<K, V>,
        patience: &mut Option<Deadline>,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
    {
        match caller {
            Caller::Thread => self.local.wait(joined, patience),
            Caller::Task => self.local.wait_async(joined, patience).await,
        }
    }

    /// Returns the pauses between two questions for what another process loads.
    ///
    /// They end after half of the time that callers of this process wait for each other, so that those who wait for this one
    /// still have as long for its own load then.
    fn pauses(&self) -> Pauses {
        Pauses { next: PAUSES.0, left: self.local.store.settings.load_wait / 2 }
    }
}

/// Returns whether the remote tier will never take a value.
fn is_hopeless(error: &RemoteError) -> bool {
    matches!(error.kind(), RemoteErrorKind::TooLarge | RemoteErrorKind::Codec)
}

/// Pauses that become longer, up to a limit for all together. They count real time, as leases do.
struct Pauses {
    next: Duration,
    left: Duration,
}

impl Pauses {
    /// Returns no pause at all, for a caller that has nobody to ask.
    fn none() -> Pauses {
        Pauses { next: Duration::ZERO, left: Duration::ZERO }
    }

    /// Pauses, or returns `false` at once if there is no time left.
    async fn pause(&mut self) -> bool {
        if self.left.is_zero() {
            return false;
        }
        // From half of it to all of it, so that processes which wait for one key do not ask in step.
        let pause = self.next.mul_f64(1.0 - 0.5 * fastrand::f64()).min(self.left);
        self.left -= pause;
        self.next = (self.next * 2).min(PAUSES.1);
        real::sleep(pause).await;
        true
    }
}
