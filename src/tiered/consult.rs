//! Asking the remote tier before a load: is there a value, and who of all processes loads it?

use std::hash::{BuildHasher, Hash};
use std::mem;
use std::time::Duration;

use super::fetch::{Arrived, Found, Located, PerKey};
use super::touch::{Record, Renewal};
use super::{Remote, TieredCache};
use crate::call::CallOptions;
use crate::claim::Claim;
use crate::clock::{AtomicDeadline, Deadline};
use crate::entry::Freshness;
use crate::key::ToKey;
use crate::namespace::core::Standing;
use crate::namespace::leases::Lease;
use crate::namespace::settings::{MAX_LEASE, MIN_LEASE};
use crate::remote::batch::Caller;
use crate::remote::key::{RemoteKey, WireKey};
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Action, Cas, Reply, Route};
use crate::remote::tokens::Moment;
use crate::remote::unexpected;
use crate::stats::bump;
use crate::store::Look;
use crate::sync::Arc;
use crate::watch::event;

/// How long a stale value is served without another look at the remote tier, while another process refreshes it.
const REFRESHED_ELSEWHERE: Duration = Duration::from_millis(100);

/// A key that this caller may fill locally, and where it is remotely.
pub(super) struct Wanted<'q, Q: ?Sized, K, V> {
    pub(super) key: &'q Q,
    pub(super) claim: Claim<K, V>,
    pub(super) at: Located,
}

/// What the remote tier has to say before a load.
pub(super) enum Consulted<'q, Q: ?Sized, K, V> {
    /// There is a value that will do, fresh or stale. What is to be copied is in the local tier now.
    Answer(V, Freshness),
    /// There is none, or one that this caller is to refresh.
    Load(Claim<K, V>, Ticket),
    /// Another process is about to fill the key: the one whose lease this is, as far as it was seen.
    Busy(Wanted<'q, Q, K, V>, Option<Cas>),
}

/// What a load found in the remote tier, for its result to be written there.
///
/// Dropping it gives back the leases that were taken for the load.
pub(super) struct Ticket {
    at: Located,
    target: Target,
    /// What says to other processes that this one refreshes the value.
    refresh: Option<Lease>,
    /// When the load began, by what tokens were known: those of other groups may be younger than what it brings.
    moment: Moment,
}

/// What the result of a load may replace.
enum Target {
    /// Nothing: the remote tier cannot be reached, or another process has been at the key for too long.
    None,
    /// The lease that this load holds.
    Lease(Lease),
    /// The value that was there before, and what it takes to renew it instead.
    Value(Cas, Option<Record>),
}

impl Ticket {
    pub(super) fn key(&self) -> &WireKey {
        &self.at.key
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.at.fingerprint
    }

    /// Returns the version of the item that the result may replace; `None` where it must not be written.
    pub(super) fn cas(&self) -> Option<Cas> {
        match &self.target {
            Target::None => None,
            Target::Lease(lease) => lease.cas(),
            Target::Value(cas, _) => Some(*cas),
        }
    }

    /// Returns the version of the value that the result replaces, if it is one.
    pub(super) fn replaces(&self) -> Option<Cas> {
        match self.target {
            Target::Value(cas, _) => Some(cas),
            Target::None | Target::Lease(_) => None,
        }
    }

    /// Returns what it takes to renew the value that the load has found; `None` where it would have to be written.
    pub(super) fn renewal(&self) -> Option<Renewal<'_>> {
        match self.target {
            Target::Value(cas, Some(record)) => Some(Renewal { at: &self.at, cas, record }),
            Target::None | Target::Lease(_) | Target::Value(..) => None,
        }
    }

    /// Returns until when each lease of the load is renewed, for the load to put off while it runs.
    pub(super) fn held_until(&self) -> impl Iterator<Item = Arc<AtomicDeadline>> {
        self.leases().map(|lease| lease.held_until().clone())
    }

    /// Keeps the leases until `until`, for a claim that is held by hand: they are given back then. Returns whether all of them
    /// are held yet.
    pub(super) fn keep(&self, until: Deadline) -> bool {
        self.leases().filter(|lease| !lease.keep(until)).count() == 0
    }

    /// Passes leases that were kept by hand to what `caller` does now.
    pub(super) fn pass_to(&mut self, caller: Caller, until: Deadline) {
        let target = match &mut self.target {
            Target::Lease(lease) => Some(lease),
            Target::None | Target::Value(..) => None,
        };
        target.into_iter().chain(&mut self.refresh).for_each(|lease| lease.pass_to(caller, until));
    }

    fn leases(&self) -> impl Iterator<Item = &Lease> {
        let target = match &self.target {
            Target::Lease(lease) => Some(lease),
            Target::None | Target::Value(..) => None,
        };
        target.into_iter().chain(&self.refresh)
    }

    pub(super) fn moment(&self) -> Moment {
        self.moment
    }

    /// Says that the item is a value now, which the load has stored.
    pub(super) fn filled(&mut self) {
        if let Target::Lease(lease) = mem::replace(&mut self.target, Target::None) {
            lease.forget();
        }
    }

    /// Gives back what several loads hold yet, with one exchange for all, however many they are.
    pub(super) fn give_back(tickets: impl IntoIterator<Item = Ticket>) {
        let held = |Ticket { target, refresh, .. }| match target {
            Target::Lease(lease) => [Some(lease), refresh],
            Target::None | Target::Value(..) => [None, refresh],
        };
        Lease::give_back(tickets.into_iter().flat_map(held).flatten().collect());
    }
}

/// What becomes of one key, as far as can be said before tokens are read.
enum Verdict<V> {
    Answer(Arrived<V>),
    /// A value to refresh: the one under the cas. `arrived` is to be copied, for others to be served from.
    Refresh {
        cas: Cas,
        record: Option<Record>,
        arrived: Option<Arrived<V>>,
        elected: Election,
    },
    Vacant(Option<Lease>),
    Busy(Option<Cas>),
}

/// Which process refreshes a value.
enum Election {
    Won(Lease),
    Lost,
    /// The store could not be asked.
    Unknown,
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Asks the remote tier on behalf of a caller that is about to load these keys. Answers are in their order. With
    /// `no_refresh`, a stale value will do.
    pub(super) async fn consult<'q, Q>(
        &self,
        caller: Caller,
        standing: Standing,
        mut wanted: Vec<Wanted<'q, Q, K, V>>,
        no_refresh: bool,
    ) -> Vec<Consulted<'q, Q, K, V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        wanted.iter().for_each(|wanted| self.hold(caller, &wanted.claim, &wanted.at));
        let at: Vec<Located> = wanted.iter().map(|wanted| wanted.at.clone()).collect();
        // One for all: whoever consults does so for one call.
        let own_term = wanted.iter().find_map(|wanted| wanted.claim.own_grace()).map(|grace| grace.max(MIN_LEASE));
        let lease = self.core().settings.lease;
        let term = own_term.map_or(lease, |own| own.min(lease));
        let is_read: Vec<bool> = wanted.iter_mut().map(|wanted| wanted.claim.ask()).collect();
        let found = self.remote.fetch_for(caller, &at, Some(term), |at| is_read[at]).await;
        let fresh_for: Vec<Option<Duration>> = wanted.iter().map(|wanted| wanted.claim.fresh_for()).collect();
        let grace: Vec<Duration> =
            wanted.iter().map(|wanted| wanted.claim.grace().clamp(MIN_LEASE, MAX_LEASE)).collect();
        let verdicts = self.remote.settle(caller, &at, found, &fresh_for, term, &grace).await;
        let moment = self.core().known.moment();
        let leave = |key, claim: Claim<K, V>, at, lease| {
            let freshness = claim.fresh_for().map_or(Freshness::Stale, |_| Freshness::Fresh);
            match claim.postpone(REFRESHED_ELSEWHERE) {
                Ok(value) => Consulted::Answer(value, freshness),
                Err(claim) => Consulted::Busy(Wanted { key, claim, at }, lease),
            }
        };
        let consulted = wanted.into_iter().zip(verdicts).map(|(Wanted { key, claim, at }, verdict)| {
            let ticket = |target, refresh| Ticket { at: at.clone(), target, refresh, moment };
            match verdict {
                Verdict::Answer(arrived) => {
                    Consulted::Answer(self.adopt_if_trusted(standing, claim, arrived, None), Freshness::Fresh)
                }
                Verdict::Vacant(lease) => {
                    Consulted::Load(claim, ticket(lease.map_or(Target::None, Target::Lease), None))
                }
                // What was taken to refresh it goes back.
                Verdict::Refresh { arrived: Some(arrived), .. } if no_refresh => {
                    Consulted::Answer(self.adopt_if_trusted(standing, claim, arrived, None), Freshness::Stale)
                }
                Verdict::Refresh { cas, record, arrived, elected: Election::Won(lease) } => {
                    self.refresh(caller, standing, key, claim, arrived, ticket(Target::Value(cas, record), Some(lease)))
                }
                Verdict::Refresh { cas, record, arrived, elected: Election::Unknown } => {
                    self.refresh(caller, standing, key, claim, arrived, ticket(Target::Value(cas, record), None))
                }
                Verdict::Refresh { arrived: Some(arrived), elected: Election::Lost, .. } => {
                    let pause = Some(REFRESHED_ELSEWHERE);
                    Consulted::Answer(self.adopt_if_trusted(standing, claim, arrived, pause), Freshness::Stale)
                }
                // Another process is at it: whoever has an old value is served that.
                Verdict::Refresh { arrived: None, elected: Election::Lost, .. } => leave(key, claim, at, None),
                Verdict::Busy(lease) => leave(key, claim, at, lease),
            }
        });
        consulted.collect()
    }

    /// Gives up on the remote tier for a load: its result stays in this process, where news of the key have to find it.
    pub(super) fn without_remote<Q: ?Sized>(
        &self,
        caller: Caller,
        wanted: Wanted<'_, Q, K, V>,
    ) -> (Claim<K, V>, Ticket) {
        self.hold(caller, &wanted.claim, &wanted.at);
        let moment = self.core().known.moment();
        let ticket = Ticket { at: wanted.at, target: Target::None, refresh: None, moment };
        (wanted.claim, ticket)
    }

    /// Copies a stale value for others to be served from, while this caller refreshes it.
    fn refresh<'q, Q>(
        &self,
        caller: Caller,
        standing: Standing,
        key: &'q Q,
        claim: Claim<K, V>,
        arrived: Option<Arrived<V>>,
        ticket: Ticket,
    ) -> Consulted<'q, Q, K, V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let Some(arrived) = arrived.filter(|_| claim.stale().is_none() && standing == Standing::Trusted) else {
            return Consulted::Load(claim, ticket);
        };
        let (hash, grace) = (claim.flight().hash, claim.own_grace());
        let value = self.adopt(claim, arrived, None);
        match self.glance(standing, hash, key) {
            Look::Stale { claim: Some(claim), .. } | Look::Vacant(claim) => {
                let claim = claim.with_options(&CallOptions { grace, ..CallOptions::new() });
                self.hold(caller, &claim, &ticket.at);
                Consulted::Load(claim, ticket)
            }
            // Overtaken by another caller of this process. The ticket gives back what was taken for it.
            Look::Fresh(value) => Consulted::Answer(value, Freshness::Fresh),
            Look::Stale { value, claim: None } => Consulted::Answer(value, Freshness::Stale),
            Look::Busy(_) => Consulted::Answer(value, Freshness::Stale),
        }
    }
}

impl<K, V: 'static> Remote<K, V> {
    /// Decides, with the other processes, what becomes of each key that was asked about.
    async fn settle(
        &self,
        caller: Caller,
        at: &[Located],
        found: PerKey<Found<V>>,
        fresh_for: &[Option<Duration>],
        term: Duration,
        grace: &[Duration],
    ) -> Vec<Verdict<V>> {
        let mut verdicts = Vec::with_capacity(found.len());
        let mut spent: Vec<(usize, Cas)> = Vec::new();
        let mut stale: Vec<usize> = Vec::new();
        for (index, found) in found.into_iter().enumerate() {
            verdicts.push(match found {
                // Of a refresh ahead of time, the remote tier still has what is to be replaced, unless another process was
                // faster.
                Found::Fresh(arrived, cas) if fresh_for[index].is_some_and(|left| !arrived.outlasts(left)) => {
                    stale.push(index);
                    Verdict::Refresh { cas, record: arrived.record, arrived: None, elected: Election::Unknown }
                }
                Found::Fresh(arrived, _) => Verdict::Answer(arrived),
                Found::Stale(arrived, cas) => {
                    stale.push(index);
                    Verdict::Refresh { cas, record: arrived.record, arrived: Some(arrived), elected: Election::Unknown }
                }
                Found::Vacant(lease) => Verdict::Vacant(lease),
                Found::Spent(cas) => {
                    spent.push((index, cas));
                    Verdict::Vacant(None)
                }
                Found::Leased(cas) => Verdict::Busy(Some(cas)),
                Found::Unknown(_) => Verdict::Vacant(None),
            });
        }
        self.replace(caller, at, &spent, term, &mut verdicts).await;
        self.elect(caller, at, &stale, grace, &mut verdicts).await;
        verdicts
    }

    /// Takes leases in the place of items that may not be used: of several processes, one wins each.
    async fn replace(
        &self,
        caller: Caller,
        at: &[Located],
        spent: &[(usize, Cas)],
        term: Duration,
        verdicts: &mut [Verdict<V>],
    ) {
        if spent.is_empty() {
            return;
        }
        let take = Action::Get { value: false, lease: Some(term), touch: None };
        let replace = |&(index, cas): &(usize, Cas)| {
            let key = &at[index].key;
            [Request::delete(key.clone(), Some(cas)), Request::new(key.clone(), Route::ByKey, take)]
        };
        let replies = self.core().run(caller, spent.iter().flat_map(replace).collect::<Requests>()).await;
        for (&(index, _), pair) in spent.iter().zip(replies.chunks_exact(2)) {
            let verdict = &mut verdicts[index];
            match &pair[1] {
                won @ Ok(Reply::Won(_)) => {
                    *verdict = Verdict::Vacant(self.hold(caller, &at[index].key, won, term));
                }
                // Another process was faster, with its lease or with a value: to be asked for again.
                Ok(Reply::Busy(cas)) => *verdict = Verdict::Busy(Some(*cas)),
                Ok(Reply::Hit(_)) => *verdict = Verdict::Busy(None),
                // Nothing will be written.
                Ok(_) | Err(_) => bump(&self.counters.errors),
            }
        }
    }

    /// Elects, for stale values, the process that refreshes each.
    async fn elect(
        &self,
        caller: Caller,
        at: &[Located],
        stale: &[usize],
        grace: &[Duration],
        verdicts: &mut [Verdict<V>],
    ) {
        if stale.is_empty() {
            return;
        }
        let keys: Vec<WireKey> = stale.iter().map(|&index| self.keys.refresh_of(&at[index].key)).collect();
        let take = |(key, &index): (&WireKey, &usize)| {
            let action = Action::Get { value: false, lease: Some(grace[index]), touch: None };
            Request::new(key.clone(), Route::ByKey, action)
        };
        let replies = self.core().run(caller, keys.iter().zip(stale).map(take).collect::<Requests>()).await;
        for ((&index, key), reply) in stale.iter().zip(&keys).zip(&replies) {
            let Verdict::Refresh { elected, .. } = &mut verdicts[index] else { continue };
            *elected = match (self.hold(caller, key, reply, grace[index]), reply) {
                (Some(lease), _) => Election::Won(lease),
                (None, Ok(Reply::Busy(_) | Reply::Hit(_))) => Election::Lost,
                (None, Ok(_)) => {
                    let error = unexpected("to a claim to refresh a value");
                    event!(debug, "{error}");
                    Election::Unknown
                }
                (None, Err(_)) => {
                    bump(&self.counters.errors);
                    Election::Unknown
                }
            };
        }
    }
}
