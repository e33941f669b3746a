//! Reading the remote tier: which of what it holds may be used, and copying that into the local tier.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::{Consulted, Remote, Ticket, TieredCache};
use crate::claim::{Claim, Fill};
use crate::clock::{Deadline, real};
use crate::key::ToKey;
use crate::options::{Lifetime, Spec};
use crate::remote::envelope::{GroupTokens, Header, View};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::{RemoteKey, WireKey};
use crate::remote::keyspace::ROOT_GROUP;
use crate::remote::link::{Tokens, unexpected};
use crate::remote::tier::{Action, Cas, Command, Item, Reply, Route};
use crate::stats::bump;
use crate::store::Look;

/// How long a process that found a key vacant keeps others from writing it, while it loads.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// One whole second: what the store's clock counts, and so how far off its remaining times may be.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// What the remote tier holds under a key.
pub(super) enum Found<V> {
    /// A value that may be used; under the cas, its successor may be written.
    Fresh(Arrived<V>, Cas),
    /// A value that may be used, and should be refreshed; under the cas, its successor may be written.
    Stale(Arrived<V>, Cas),
    /// Nothing that may be used.
    Vacant(Vacancy),
    /// Nothing yet: another process holds the lease. Under the cas, a value may be written all the same.
    Leased(Cas),
    /// Nobody knows: it could not be asked, or what it holds is still to be deleted.
    Unknown(RemoteError),
}

/// A key without a value that may be used.
#[derive(Default)]
pub(super) struct Vacancy {
    /// Under what a value may be written, if anything.
    pub(super) cas: Option<Cas>,
    /// Whether the item is a lease that was taken for this caller.
    pub(super) leased: bool,
    /// The groups of the value that was there. Its successor is likely to be in them too.
    pub(super) groups: Vec<u64>,
}

/// A value from the remote tier, with what is left of its deadlines.
pub(super) struct Arrived<V> {
    value: V,
    groups: Vec<u64>,
    soft: Option<Duration>,
    hard: Option<Duration>,
    load_cost: Duration,
}

impl<V> Arrived<V> {
    /// Returns whether this is fresh for longer than a value that is for `left` yet, and so another one. What is left of one
    /// value's time is found to be shorter here, or longer by less than a second.
    fn outlasts(&self, left: Duration) -> bool {
        self.soft.is_none_or(|soft| soft > left.saturating_add(TICK))
    }
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the remote tier's value for each key, and copies those into the local tier that may be.
    pub(super) fn get_remote<Q>(&self, keys: &[&Q]) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let mut values: Vec<Option<V>> = vec![None; keys.len()];
        let mut claims = Vec::with_capacity(keys.len());
        let mut wanted = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            // A claim is the ticket of the copy, taken before anything is sent: an invalidation of the key meanwhile voids it,
            // one of a group is found by the claim's generation. Where another caller is at the key, the value is returned
            // and not copied.
            let claim = match self.local.store.look(self.local.hash(*key), *key) {
                Look::Fresh(value) | Look::Stale { value, .. } => {
                    values[at] = Some(value);
                    continue;
                }
                Look::Vacant(claim) => Some(claim),
                Look::Busy(_) => None,
            };
            claims.push((at, claim));
            wanted.push(self.remote.locate(*key));
        }
        for ((at, claim), found) in claims.into_iter().zip(self.remote.fetch(&wanted, false)) {
            if let Found::Fresh(arrived, _) | Found::Stale(arrived, _) = found {
                values[at] = Some(match claim {
                    Some(claim) => self.adopt(claim, arrived),
                    None => arrived.value,
                });
            }
        }
        values
    }

    /// Asks the remote tier on behalf of a caller that is about to load.
    pub(super) fn consult<Q>(&self, key: &Q, claim: Claim<K, V>) -> Consulted<K, V>
    where
        Q: RemoteKey + ?Sized,
    {
        // The holder is here, on this stack: it cannot vanish. The exchanges may take longer than the grace.
        claim.flight().held_until.set(Deadline::NEVER);
        let (wire_key, fingerprint) = self.remote.locate(key);
        let mut groups: Vec<u64> = self.remote.roots().into_iter().chain(claim.flight().suspects.hashes()).collect();
        let (stale, cas, leased) = match self.remote.fetch_one(&wire_key, fingerprint, true) {
            // Of a refresh ahead of time, the remote tier still has what is to be replaced, unless another process was faster.
            Found::Fresh(arrived, cas) if claim.fresh_for().is_some_and(|left| !arrived.outlasts(left)) => {
                groups.extend(&arrived.groups);
                (None, Some(cas), false)
            }
            Found::Fresh(arrived, _) => return Consulted::Answer(self.adopt(claim, arrived)),
            Found::Stale(arrived, cas) => {
                groups.extend(&arrived.groups);
                (Some(arrived), Some(cas), false)
            }
            Found::Vacant(vacancy) => {
                groups.extend(&vacancy.groups);
                (None, vacancy.cas, vacancy.leased)
            }
            Found::Leased(_) | Found::Unknown(_) => (None, None, false),
        };
        groups.sort_unstable();
        groups.dedup();
        let mut ticket = Ticket { key: wire_key, fingerprint, cas, leased, tokens: Vec::new() };
        if cas.is_some() {
            // Before the load: a value is judged by the tokens that its groups had then.
            match self.remote.namespace.link().tokens_for_store(&groups) {
                Ok(tokens) => ticket.tokens = tokens,
                Err(_) => {
                    bump(&self.remote.counters.errors);
                    drop(self.remote.hold(&ticket.key, ticket.lease()));
                    ticket.cas = None;
                }
            }
        }
        match stale {
            // For the others to be served from, while this caller refreshes it.
            Some(arrived) if claim.stale().is_none() => {
                let _ = self.adopt(claim, arrived);
                Consulted::Stale(ticket)
            }
            _ => Consulted::Load(claim, ticket),
        }
    }

    /// Copies a value into the local tier, if the claim still holds, and returns it.
    fn adopt(&self, mut claim: Claim<K, V>, arrived: Arrived<V>) -> V {
        let groups = self.remote.namespace.groups();
        let spec = Spec {
            lifetime: Lifetime::Left { soft: arrived.soft, hard: arrived.hard },
            grace: None,
            weight: None,
            groups: arrived.groups.iter().map(|&hash| groups.intern_hash(hash)).collect(),
        };
        let entry = claim.entry(arrived.value.clone(), spec, arrived.load_cost);
        match claim.commit(entry) {
            Fill::Stored => arrived.value,
            Fill::Fenced(value) | Fill::Rejected(value) => value,
        }
    }
}

impl<V: 'static> Remote<V> {
    /// Returns the key and the fingerprint of `key` in the remote tier.
    pub(super) fn locate<Q: RemoteKey + ?Sized>(&self, key: &Q) -> (WireKey, u64) {
        let mut bytes = Vec::with_capacity(64);
        key.encode(&mut bytes);
        (self.keys.value(&bytes), self.keys.fingerprint(&bytes))
    }

    /// Returns the groups that every value of this cache belongs to.
    pub(super) fn roots(&self) -> [u64; 2] {
        [ROOT_GROUP, self.keys.root_group()]
    }

    pub(super) fn fetch_one(&self, key: &WireKey, fingerprint: u64, lease: bool) -> Found<V> {
        let found = self.fetch(&[(key.clone(), fingerprint)], lease).pop();
        found.unwrap_or_else(|| Found::Unknown(unexpected("to a read")))
    }

    /// Returns what the remote tier holds under each key; with `lease`, vacant ones are claimed for this process.
    pub(super) fn fetch(&self, keys: &[(WireKey, u64)], lease: bool) -> Vec<Found<V>> {
        let lease = lease.then_some(LEASE);
        let action = Action::Get { value: true, lease, touch: None };
        let commands: Vec<_> = keys.iter().map(|(key, _)| Command { key, route: Route::ByKey, action }).collect();
        let link = self.namespace.link();
        // Before the read: what is owed now may be paid, by another caller, between the read and the look at its answer.
        let owed: Vec<bool> = keys.iter().map(|(key, _)| link.owes_item(key)).collect();
        let replies = if keys.is_empty() { Vec::new() } else { link.run(&commands) };

        let mut views = Vec::with_capacity(keys.len());
        let mut groups = Vec::new();
        for (((_, fingerprint), reply), owed) in keys.iter().zip(&replies).zip(&owed) {
            let view = match reply {
                Ok(Reply::Hit(item)) if !owed => View::decode(&item.value, *fingerprint).ok(),
                _ => None,
            };
            groups.extend(view.iter().flat_map(View::groups).map(|tokens| tokens.group_hash));
            views.push(view);
        }
        groups.sort_unstable();
        groups.dedup();
        // Always after the values: a token that is younger than the value it judges can only find it dead.
        let tokens: Result<HashMap<u64, Tokens>, RemoteError> = match groups.as_slice() {
            [] => Ok(HashMap::new()),
            groups => link.tokens(groups).map(|tokens| groups.iter().copied().zip(tokens).collect()),
        };
        let judged = replies.iter().zip(owed).zip(&views);
        judged.map(|((reply, owed), view)| self.judge(reply, owed, view.as_ref(), tokens.as_ref())).collect()
    }

    /// Decides what a reply is worth, and counts it.
    fn judge(
        &self,
        reply: &Result<Reply, RemoteError>,
        owed: bool,
        view: Option<&View<'_>>,
        tokens: Result<&HashMap<u64, Tokens>, &RemoteError>,
    ) -> Found<V> {
        let counters = &self.counters;
        let failed = |error| {
            bump(&counters.errors);
            Found::Unknown(error)
        };
        let found = match reply {
            Ok(Reply::Hit(_)) if owed => {
                let message = "what the store holds is still to be deleted";
                Found::Unknown(RemoteError::new(RemoteErrorKind::Unavailable, message))
            }
            Ok(Reply::Hit(item)) => match (view, tokens) {
                (Some(view), Ok(tokens)) => self.judge_value(item, view, tokens),
                (Some(_), Err(error)) => failed(error.clone()),
                (None, _) => {
                    bump(&counters.unreadable);
                    Found::Vacant(Vacancy { cas: Some(item.cas), ..Vacancy::default() })
                }
            },
            Ok(Reply::Miss) => Found::Vacant(Vacancy::default()),
            Ok(Reply::Won(cas)) => Found::Vacant(Vacancy { cas: Some(*cas), leased: true, groups: Vec::new() }),
            Ok(Reply::Busy(cas)) => Found::Leased(*cas),
            Ok(_) => failed(unexpected("to a read")),
            Err(error) => failed(error.clone()),
        };
        bump(match found {
            Found::Fresh(..) => &counters.hits_fresh,
            Found::Stale(..) => &counters.hits_stale,
            _ => &counters.misses,
        });
        found
    }

    fn judge_value(&self, item: &Item, view: &View<'_>, tokens: &HashMap<u64, Tokens>) -> Found<V> {
        let none = Tokens { hard: None, soft: None };
        let of = |group: &GroupTokens| tokens.get(&group.group_hash).copied().unwrap_or(none);
        let roots = self.roots();
        // A value without the roots would outlive every `clear`: no cache writes one.
        let rooted = roots.iter().all(|root| view.groups().any(|group| group.group_hash == *root));
        let alive = rooted && view.groups().all(|group| of(&group).hard == Some(group.hard));
        let groups = view.groups().map(|group| group.group_hash).filter(|hash| !roots.contains(hash)).collect();
        let (true, Some((soft, hard))) = (alive, left(&view.header, item.expires_in)) else {
            bump(&self.counters.dead);
            return Found::Vacant(Vacancy { cas: Some(item.cas), leased: false, groups });
        };
        let Ok(value) = view.value(&*self.codec) else {
            bump(&self.counters.unreadable);
            return Found::Vacant(Vacancy { cas: Some(item.cas), ..Vacancy::default() });
        };
        let expired = view.groups().any(|group| of(&group).soft != Some(group.soft));
        let stale = item.stale || expired || soft == Some(Duration::ZERO);
        let arrived = Arrived {
            value,
            groups,
            soft: if stale { Some(Duration::ZERO) } else { soft },
            hard,
            load_cost: Duration::from_micros(view.header.load_cost_us.into()),
        };
        if stale { Found::Stale(arrived, item.cas) } else { Found::Fresh(arrived, item.cas) }
    }

    /// Returns a guard of the lease under `cas`, where there is one.
    pub(super) fn hold<'a>(&'a self, key: &'a WireKey, cas: Option<Cas>) -> Lease<'a, V> {
        Lease { remote: self, key, cas }
    }

    /// Deletes the item that was read under `cas`, if it is still that.
    pub(super) fn abandon(&self, key: &WireKey, cas: Cas) {
        if self.namespace.link().run_one(key, Route::ByKey, Action::Delete { cas: Some(cas) }).is_err() {
            bump(&self.counters.errors);
        }
    }
}

/// A lease that this process holds. Dropping it gives it back, so that nobody waits for it to run out: also where a loader or
/// a codec panics.
#[must_use = "a dropped lease is given back at once"]
pub(super) struct Lease<'a, V: 'static> {
    remote: &'a Remote<V>,
    key: &'a WireKey,
    cas: Option<Cas>,
}

impl<V: 'static> Lease<'_, V> {
    /// Leaves the item alone: it is a value now, or somebody else's.
    pub(super) fn forget(mut self) {
        self.cas = None;
    }
}

impl<V: 'static> Drop for Lease<'_, V> {
    fn drop(&mut self) {
        if let Some(cas) = self.cas {
            self.remote.abandon(self.key, cas);
        }
    }
}

/// Returns how long the store is asked to keep a value that is dead after `hard`: no less, in its whole seconds.
pub(super) fn kept_for(hard: Duration) -> Duration {
    Duration::from_secs(hard.as_secs().saturating_add(2))
}

/// Returns the time that a value's header is dated by.
pub(super) fn unix_ms() -> u64 {
    u64::try_from(real::since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Returns how long a value is from its soft and its hard deadline; `None` if it is past the latter.
///
/// The store counts down from [`kept_for`] in whole seconds, by a clock that all readers share. A value is taken for as old as
/// it can be. Only what never expires has to be dated by the writer's clock.
fn left(header: &Header, expires_in: Option<Duration>) -> Option<(Option<Duration>, Option<Duration>)> {
    let (soft, hard) = (header.soft_ttl.get(), header.hard_ttl.get());
    let age = match (hard, expires_in) {
        (Some(hard), Some(expires_in)) => kept_for(hard).saturating_sub(expires_in) + TICK,
        _ => Duration::from_millis(unix_ms().saturating_sub(header.created_ms)),
    };
    let soft = soft.map(|soft| soft.saturating_sub(age));
    match hard.map(|hard| hard.saturating_sub(age)) {
        Some(Duration::ZERO) => None,
        hard => Some((soft, hard)),
    }
}
