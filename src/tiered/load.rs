//! Loading through both tiers: what happens around a loader.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash};
use std::pin::pin;
use std::time::Duration;

use super::TieredCache;
use super::consult::{Consulted, Ticket, Wanted};
use super::write::Sent;
use crate::batch::Batch;
use crate::call::CallOptions;
use crate::claim::{Claim, Fill, into_value};
use crate::clock::{AtomicDeadline, Deadline, real};
use crate::entry::Handle;
use crate::error::{LoadError, LoadErrorKind};
use crate::flight::{Flight, Joined, Leading};
use crate::key::ToKey;
use crate::limit::{Limit, Stake, within};
use crate::load::{Patience, Step};
use crate::namespace::core::Standing;
use crate::options::Load;
use crate::remote::batch::Caller;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::RemoteKey;
use crate::remote::tier::Cas;
use crate::stats::bump;
use crate::store::Look;
use crate::sync::{Arc, Mutex};

/// How long a caller pauses before it asks again for what another process loads: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Who runs a load.
#[derive(Clone, Copy)]
pub(super) struct Leader<'l> {
    /// Who asks the remote tier for it.
    pub(super) caller: Caller,
    /// Whether the loader keeps the thread that polls it, and so cannot vanish.
    pub(super) blocks: bool,
    /// How long the load may take. Leases are given back in the background then: by whoever gives it up.
    pub(super) limit: Option<&'l Arc<Limit>>,
}

impl From<Caller> for Leader<'_> {
    fn from(caller: Caller) -> Self {
        Leader { caller, blocks: matches!(caller, Caller::Thread), limit: None }
    }
}

/// What the remote tier had to say before a load, in the end.
#[expect(clippy::large_enum_variant, reason = "it is taken apart as soon as it is returned")]
pub(super) enum Prepared<K, V> {
    Answer(V),
    Load(Claim<K, V>, Ticket),
}

/// The tickets of a load under way, within the reach of who gives it up.
struct Tickets(Mutex<Option<Vec<Ticket>>>);

impl Tickets {
    /// Puts the claims and the tickets of a load under its limit, if it has one.
    fn under<'c, K, V>(
        leader: Leader<'_>,
        claims: impl IntoIterator<Item = &'c Claim<K, V>>,
        mut tickets: Vec<Ticket>,
    ) -> Arc<Tickets>
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let Some(limit) = leader.limit else { return Arc::new(Tickets(Mutex::new(Some(tickets)))) };
        tickets.iter_mut().for_each(|ticket| ticket.pass_to(Caller::Task, limit.at()));
        let tickets = Arc::new(Tickets(Mutex::new(Some(tickets))));
        limit.cover(tickets.clone());
        claims.into_iter().for_each(|claim| claim.submit_to(limit));
        tickets
    }

    /// Returns the tickets, with which the load goes on; `None` if it was given up.
    fn take(&self) -> Option<Vec<Ticket>> {
        self.0.lock().take()
    }
}

impl Stake for Tickets {
    fn give_up(&self, _allowed: Duration) {
        let tickets = self.take();
        Ticket::give_back(tickets.into_iter().flatten());
    }
}

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
    pub(super) entry: Handle<K, V>,
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
        options: CallOptions,
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let hash = self.local.hash(key);
        let mut patience = self.local.patience(options.hard_timeout);
        let mut standing = if options.skip_remote { Standing::CutOff } else { Standing::Trusted };
        let mut step = first;
        loop {
            let next = match step.take() {
                Some(step) => step,
                None => {
                    standing = self.standing_for(caller, options).await;
                    if standing == Standing::Refused {
                        return Err(LoadError::untrusted());
                    }
                    self.local.step(self.glance_to_load(standing, hash, key, options))?
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
                    // What a thread runs on its stack cannot be ended.
                    let allowed = options.hard_timeout.filter(|_| matches!(caller, Caller::Task));
                    let limited = allowed.map(|allowed| claim.limit(allowed));
                    let mut fallback = claim.fallback();
                    let wanted = Wanted { key, claim, at: self.remote.locate(key) };
                    let limit = limited.as_ref().map(|limited| limited.limit().clone());
                    let leader = Leader { limit: limit.as_ref(), ..caller.into() };
                    let load = async {
                        match self.consult_claimed(caller, standing, wanted, options).await {
                            Prepared::Answer(value) => Ok(value),
                            Prepared::Load(claim, ticket) => {
                                // What was stale in the remote tier alone is here by now.
                                fallback = claim.fallback();
                                self.run_one(leader, claim, ticket, loader).await
                            }
                        }
                    };
                    return match within(limited, load).await {
                        Err(error) if matches!(error.kind(), LoadErrorKind::TimedOut) => {
                            fallback.answer(&self.local.store).ok_or(error)
                        }
                        loaded => loaded,
                    };
                }
            }
        }
    }

    /// Returns the value for a key that this caller has claimed, from the remote tier or from `loader`.
    pub(super) async fn load_claimed<Q, E, F, Fut>(
        &self,
        leader: impl Into<Leader<'_>>,
        standing: Standing,
        wanted: Wanted<'_, Q, K, V>,
        options: CallOptions,
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let leader = leader.into();
        match self.consult_claimed(leader.caller, standing, wanted, options).await {
            Prepared::Answer(value) => Ok(value),
            Prepared::Load(claim, ticket) => self.run_one(leader, claim, ticket, loader).await,
        }
    }

    /// Asks the remote tier for a key that this caller has claimed, until that has an answer or leaves the load to the caller.
    pub(super) async fn consult_claimed<Q>(
        &self,
        caller: Caller,
        standing: Standing,
        mut wanted: Wanted<'_, Q, K, V>,
        options: CallOptions,
    ) -> Prepared<K, V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        // What passes the local tier by is not copied, as where a copy would not be served.
        let standing = if options.skip_local && standing == Standing::Trusted { Standing::Lapsed } else { standing };
        let mut pauses = match standing {
            Standing::CutOff => Pauses::none(),
            Standing::Trusted | Standing::Lapsed | Standing::Refused => self.pauses(options.hard_timeout),
        };
        loop {
            let consulted = match standing {
                Standing::CutOff => Some(Consulted::Busy(wanted, None)),
                Standing::Trusted | Standing::Lapsed | Standing::Refused => {
                    self.consult(caller, standing, vec![wanted], options.no_refresh).await.pop()
                }
            };
            match consulted {
                Some(Consulted::Answer(value, _)) => return Prepared::Answer(value),
                Some(Consulted::Load(claim, ticket)) => return Prepared::Load(claim, ticket),
                Some(Consulted::Busy(busy, lease)) if !self.has_outwaited(&busy, lease) && pauses.pause().await => {
                    wanted = busy;
                }
                // The other process has had its time: this one loads for itself alone.
                Some(Consulted::Busy(busy, lease)) => {
                    self.give_up_on(&busy, lease);
                    let (claim, ticket) = self.without_remote(caller, busy);
                    return Prepared::Load(claim, ticket);
                }
                None => unreachable!("each key that is asked about has an answer"),
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
        let mut patience = self.local.patience(None);
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let mut is_first = true;
        while !open.is_empty() {
            let standing = self.core().standing(caller).await;
            if standing == Standing::Refused {
                if is_first {
                    open.iter().for_each(|_| self.local.count(&Look::Busy(None)));
                }
                return Err(LoadError::untrusted());
            }
            let mut wanted: Vec<Wanted<'_, Q, K, V>> = Vec::new();
            let mut places: Vec<Vec<usize>> = Vec::new();
            let mut awaited: Vec<(usize, Joined<K, V>)> = Vec::new();
            for at in std::mem::take(&mut open) {
                let key = keys[at];
                let look = self.glance_to_load(standing, self.local.hash(key), key, CallOptions::new());
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
            let next = &mut || loader.take();
            for (places, answer) in self.load_wanted(caller, standing, wanted, places, next).await? {
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
    ///
    /// `next` returns the loader for as often as that may run.
    pub(super) async fn load_wanted<Q, P, E, F, Fut>(
        &self,
        leader: impl Into<Leader<'_>>,
        standing: Standing,
        mut wanted: Vec<Wanted<'_, Q, K, V>>,
        mut places: Vec<P>,
        next: &mut impl FnMut() -> Option<F>,
    ) -> Result<Vec<(P, Option<V>)>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        let leader = leader.into();
        let caller = leader.caller;
        let mut answers = Vec::with_capacity(wanted.len());
        let mut pauses = if standing == Standing::CutOff { Pauses::none() } else { self.pauses(None) };
        let mut cancelled = false;
        while !wanted.is_empty() {
            let keys: Vec<&Q> = wanted.iter().map(|wanted| wanted.key).collect();
            let wanted_now = std::mem::take(&mut wanted);
            let consulted = match standing {
                Standing::CutOff => wanted_now.into_iter().map(|wanted| Consulted::Busy(wanted, None)).collect(),
                Standing::Trusted | Standing::Lapsed | Standing::Refused => {
                    self.consult(caller, standing, wanted_now, false).await
                }
            };
            let (mut loads, mut loaded_places) = (Vec::new(), Vec::new());
            let (mut leases, mut busy_places) = (Vec::new(), Vec::new());
            for ((consulted, place), key) in consulted.into_iter().zip(std::mem::take(&mut places)).zip(keys) {
                match consulted {
                    Consulted::Answer(value, _) => answers.push((place, Some(value))),
                    Consulted::Load(claim, ticket) => {
                        loads.push((key, claim, ticket));
                        loaded_places.push(place);
                    }
                    // The other process has had its time: this one loads for itself alone.
                    Consulted::Busy(busy, lease) if self.has_outwaited(&busy, lease) => {
                        let (claim, ticket) = self.without_remote(caller, busy);
                        loads.push((key, claim, ticket));
                        loaded_places.push(place);
                    }
                    Consulted::Busy(busy, lease) => {
                        leases.push(lease);
                        wanted.push(busy);
                        busy_places.push(place);
                    }
                }
            }
            places = busy_places;
            if loads.is_empty() && !wanted.is_empty() && !pauses.pause().await {
                // As above.
                for ((busy, lease), place) in wanted.drain(..).zip(leases).zip(places.drain(..)) {
                    self.give_up_on(&busy, lease);
                    let key = busy.key;
                    let (claim, ticket) = self.without_remote(caller, busy);
                    loads.push((key, claim, ticket));
                    loaded_places.push(place);
                }
            }
            if !loads.is_empty() {
                match next() {
                    Some(loader) => {
                        let loaded = self.run_many(leader, loads, loader).await?;
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
    pub(super) async fn run_one<E, F, Fut>(
        &self,
        leader: impl Into<Leader<'_>>,
        mut claim: Claim<K, V>,
        ticket: Ticket,
        loader: F,
    ) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let leader = leader.into();
        let leases = ticket.held_until().collect();
        let tickets = Tickets::under(leader, [&claim], vec![ticket]);
        let load = claim.begin();
        let stopwatch = self.core().clock.stopwatch();
        let result = self.lead(leader, &[(claim.flight().clone(), claim.grace())], leases, || loader(load)).await;
        let took = stopwatch.elapsed();
        let Some(ticket) = tickets.take().and_then(|mut tickets| tickets.pop()) else { return Err(given_up(leader)) };
        self.local.store.tally().loaded(took, result.is_ok());
        match result {
            Ok(value) => {
                self.finish(leader.caller, vec![Loaded { claim, ticket, value: Some(value.clone()) }], took).await;
                Ok(value)
            }
            Err(error) => claim.fail(Arc::new(error)),
        }
    }

    /// Runs a loader for several keys, and writes its results through; returns them in the order of the keys.
    pub(super) async fn run_many<Q, E, F, Fut>(
        &self,
        leader: impl Into<Leader<'_>>,
        loads: Vec<(&Q, Claim<K, V>, Ticket)>,
        loader: F,
    ) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        let leader = leader.into();
        let (mut claims, tickets): (Vec<_>, Vec<_>) =
            loads.into_iter().map(|(key, claim, ticket)| ((key, claim), ticket)).unzip();
        let leases = tickets.iter().flat_map(Ticket::held_until).collect();
        let tickets = Tickets::under(leader, claims.iter().map(|(_, claim)| claim), tickets);
        let batch = Batch::new(claims.iter_mut().map(|(key, claim)| (key.to_key(), claim.begin())).collect());
        let flights: Vec<_> = claims.iter().map(|(_, claim)| (claim.flight().clone(), claim.grace())).collect();
        let stopwatch = self.core().clock.stopwatch();
        let result = self.lead(leader, &flights, leases, || loader(batch)).await;
        let took = stopwatch.elapsed();
        let Some(tickets) = tickets.take() else { return Err(given_up(leader)) };
        let claims = claims.into_iter().map(|(_, claim)| claim);
        // The batch counts as one load, whose time is that of all its keys.
        self.local.store.tally().loaded(took, result.is_ok());
        match result {
            Ok(pairs) => {
                // As in a cache of one tier: a key that was asked for twice is claimed twice if it was invalidated in between.
                let values = pairs.into_iter().map(|(key, value)| (key, Ok(value)));
                let mut values: HashMap<K, Result<V, usize>, ahash::RandomState> = values.collect();
                let mut answers: Vec<Option<V>> = Vec::with_capacity(tickets.len());
                let loaded = claims.zip(tickets).map(|(claim, ticket)| {
                    let found = values.get_mut(claim.key()).map(|value| std::mem::replace(value, Err(answers.len())));
                    let value = match found {
                        Some(Ok(value)) => Some(value),
                        Some(Err(earlier)) => answers[earlier].clone(),
                        None => self.local.store.settings.absence.as_ref().map(|absence| (absence.make)()),
                    };
                    answers.push(value.clone());
                    Loaded { claim, ticket, value }
                });
                let loaded = loaded.collect();
                self.finish(leader.caller, loaded, took).await;
                Ok(answers)
            }
            Err(error) => {
                let error = Arc::new(error);
                // Every claim fails before the first error is returned.
                let answers: Vec<_> = claims.map(|claim| claim.fail(error.clone()).map(Some)).collect();
                Ticket::give_back(tickets);
                answers.into_iter().collect()
            }
        }
    }

    /// Polls a load as the one that leads these flights, each with the grace of its claim: nobody takes them over meanwhile, its
    /// leases are renewed, and whoever asks for their keys from within would wait for itself.
    async fn lead<Fut: Future>(
        &self,
        leader: Leader<'_>,
        flights: &[(Arc<Flight<K, V>>, Duration)],
        leases: Vec<Arc<AtomicDeadline>>,
        start: impl FnOnce() -> Fut,
    ) -> Fut::Output {
        let clock = &self.local.store.settings.clock;
        let longest = flights.iter().map(|(_, grace)| *grace).max().unwrap_or_default();
        let hold = || {
            let now = clock.now();
            // On a stack the holder cannot vanish. A load that outlives its limit loses what it holds all the same.
            let until = |grace| {
                let until = if leader.blocks { Deadline::NEVER } else { Deadline::after(now, grace) };
                leader.limit.map_or(until, |limit| until.min(limit.at()))
            };
            flights.iter().for_each(|(flight, grace)| flight.held_until.set(until(*grace)));
            leases.iter().for_each(|held_until| held_until.set(until(longest)));
        };
        hold();
        let mut load = pin!({
            let _leading = Leading::enter(flights.iter().map(|(flight, _)| flight));
            start()
        });
        poll_fn(|context| {
            hold();
            let _leading = Leading::enter(flights.iter().map(|(flight, _)| flight));
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
                let _ = self.fenced(claim, entry);
            }
            over.push(ticket);
        }
        let sent = if outgoing.is_empty() { Vec::new() } else { self.send_loads(caller, &outgoing).await };
        for (outgoing, sent) in outgoing.into_iter().zip(sent) {
            let (ticket, _) = self.conclude_load(caller, outgoing, sent).await;
            over.push(ticket);
        }
        Ticket::give_back(over);
    }

    /// Stores in the local tier what was sent to the remote one, as far as that has taken it. Returns the ticket, to be given
    /// back, and what has become of the value in both tiers.
    pub(super) async fn conclude_load(
        &self,
        caller: Caller,
        Outgoing { claim, mut ticket, entry }: Outgoing<K, V>,
        sent: Sent,
    ) -> (Ticket, Fill<V>) {
        let counters = &self.remote.counters;
        let fill = match sent {
            Sent::Stored => {
                ticket.filled();
                match claim.commit(entry) {
                    // The local tier takes nothing of its size, or of this call; the remote one has it.
                    Fill::Rejected(_) => Fill::Stored,
                    fill => fill,
                }
            }
            // By another process the item has changed, or a token has.
            Sent::Fenced | Sent::Overtaken => {
                bump(&counters.fences);
                self.fenced(claim, entry)
            }
            // Not written there, perhaps, but nothing says that the value is out of date.
            Sent::Failed(error) => {
                bump(&counters.errors);
                if let Some(cas) = ticket.replaces().filter(|_| is_hopeless(&error)) {
                    // What the remote tier will never take is older there than here.
                    self.remote.abandon(caller, ticket.key(), cas).await;
                }
                claim.commit(entry)
            }
        };
        (ticket, fill)
    }

    /// Ends a claim whose value an invalidation has overtaken, and hands that back.
    pub(super) fn fenced(&self, claim: Claim<K, V>, entry: Handle<K, V>) -> Fill<V> {
        if !claim.flight().is_given_up() {
            self.local.store.tally().count(|counters| &counters.fences);
        }
        claim.refuse(&entry);
        Fill::Fenced(into_value(entry))
    }

    /// Looks at the local tier as far as it counts now, and joins no load that is outdated.
    pub(super) fn glance_to_load<Q>(&self, standing: Standing, hash: u64, key: &Q, options: CallOptions) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        loop {
            match self.glance_with(standing, hash, key, options) {
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
    pub(super) async fn wait<E>(
        &self,
        caller: Caller,
        joined: &Joined<K, V>,
        patience: &mut Patience,
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
    fn pauses(&self, hard_timeout: Option<Duration>) -> Pauses {
        let half = self.patience_for_others();
        Pauses::within(hard_timeout.map_or(half, |timeout| timeout.min(half)))
    }

    fn patience_for_others(&self) -> Duration {
        self.local.store.settings.load_wait / 2
    }

    /// Returns whether a caller of this process has waited in vain for the load of another, which holds this lease: then nobody
    /// waits for it any more.
    fn has_outwaited<Q: ?Sized>(&self, busy: &Wanted<'_, Q, K, V>, lease: Option<Cas>) -> bool {
        lease.is_some_and(|cas| self.remote.sightings.is_given_up(busy.at.fingerprint, cas))
    }

    /// Notes that a caller has waited in vain for whoever holds this lease, if it was the same one all the time.
    fn give_up_on<Q: ?Sized>(&self, busy: &Wanted<'_, Q, K, V>, lease: Option<Cas>) {
        if let Some(cas) = lease {
            self.remote.sightings.give_up(busy.at.fingerprint, cas, self.patience_for_others());
        }
    }
}

/// Returns the error of a load that was given up while its loader ran.
fn given_up<E>(leader: Leader<'_>) -> LoadError<E> {
    LoadError::timed_out(leader.limit.map_or(Duration::ZERO, |limit| limit.allowed()))
}

/// Returns whether the remote tier will never take a value.
fn is_hopeless(error: &RemoteError) -> bool {
    matches!(error.kind(), RemoteErrorKind::TooLarge | RemoteErrorKind::Codec)
}

/// Pauses that become longer, up to a limit for all together. They count real time, as leases do.
pub(super) struct Pauses {
    next: Duration,
    left: Duration,
}

impl Pauses {
    /// Returns pauses that end after `limit`.
    pub(super) fn within(limit: Duration) -> Pauses {
        Pauses { next: PAUSES.0, left: limit }
    }

    /// Returns no pause at all, for a caller that has nobody to ask.
    fn none() -> Pauses {
        Pauses { next: Duration::ZERO, left: Duration::ZERO }
    }

    /// Pauses, or returns `false` at once if there is no time left.
    pub(super) async fn pause(&mut self) -> bool {
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
