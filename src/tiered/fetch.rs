//! Reading the remote tier: which of what it holds may be used.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::touch::{LONGEST_INTERVAL, Record};
use super::{Counters, Remote};
use crate::clock::real;
use crate::namespace::leases::Lease;
use crate::remote::batch::Caller;
use crate::remote::envelope::{GroupTokens, Header, View};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::{RemoteKey, WireKey};
use crate::remote::keyspace::ROOT_GROUP;
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Action, Cas, Item, Reply, Route};
use crate::remote::tokens::{TokenTable, Tokens, USUAL_GROUPS};
use crate::remote::unexpected;
use crate::stats::bump;
use crate::sync::AtomicU64;

/// One whole second: what the store's clock counts, and so how far off its remaining times may be.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// One of something for each key; for a single one without an allocation.
pub(super) type PerKey<T> = SmallVec<[T; 1]>;

/// Where a key is in the remote tier.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) key: WireKey,
    /// What stands for the key in its value and in the journal.
    pub(super) fingerprint: u64,
}

/// What the remote tier holds under a key.
pub(super) enum Found<V> {
    /// A value that may be used; under the cas, its successor may be written.
    Fresh(Arrived<V>, Cas),
    /// A value that may be used, and should be refreshed; under the cas, its successor may be written.
    Stale(Arrived<V>, Cas),
    /// Nothing. With the lease, if there is one, a value may be written.
    Vacant(Option<Lease>),
    /// An item that may not be used, dead or unreadable: under the cas, it may be replaced.
    Spent(Cas),
    /// Nothing yet: another caller holds the lease. Under the cas, a value may be written all the same.
    Leased(Cas),
    /// Nobody knows: it could not be asked, or what it holds is still to be deleted.
    Unknown(RemoteError),
}

/// A value from the remote tier, with what is left of its deadlines.
pub(super) struct Arrived<V> {
    pub(super) value: V,
    /// Without the roots.
    pub(super) groups: SmallVec<[u64; USUAL_GROUPS]>,
    pub(super) soft: Option<Duration>,
    pub(super) hard: Option<Duration>,
    /// How long it was to be fresh in all.
    pub(super) soft_ttl: Option<Duration>,
    pub(super) load_cost: Duration,
    /// What it takes to renew the item instead of replacing it. Of reads before a load alone.
    pub(super) record: Option<Record>,
}

impl<V> Arrived<V> {
    /// Returns whether this is fresh for longer than a value that is for `left` yet, and so another one. What is left of one
    /// value's time is found to be shorter here, or longer by less than a second.
    pub(super) fn outlasts(&self, left: Duration) -> bool {
        // Of values that are fresh for ever, none is known to be another.
        left != Duration::MAX && self.soft.is_none_or(|soft| soft > left.saturating_add(TICK))
    }
}

/// One read of the remote tier.
#[derive(Clone, Copy)]
struct Reading<'a> {
    /// Where it is counted, if it is one of the user's.
    counters: &'a Counters,
    is_read: bool,
    /// When it was sent, if it is for a load.
    asked: Option<Instant>,
}

impl Reading<'_> {
    fn count(self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        if self.is_read {
            bump(counter(self.counters));
        }
    }
}

impl<K, V: 'static> Remote<K, V> {
    /// Returns where `key` is in the remote tier.
    pub(super) fn locate<Q: RemoteKey + ?Sized>(&self, key: &Q) -> Located {
        let (key, fingerprint) = self.keys.locate(key);
        Located { key, fingerprint }
    }

    /// Returns the groups that every value of this cache belongs to.
    pub(super) fn roots(&self) -> [u64; 2] {
        [ROOT_GROUP, self.keys.root_group()]
    }

    /// Returns what the remote tier holds under each key. With `lease`, keys that it has nothing for are claimed for this
    /// process for so long.
    pub(super) fn fetch(
        &self,
        caller: Caller,
        keys: &[Located],
        lease: Option<Duration>,
    ) -> impl Future<Output = PerKey<Found<V>>> {
        self.fetch_for(caller, keys, lease, |_| true)
    }

    /// Fetches as [`fetch`](Self::fetch) does, and counts as reads of the user's those alone of which `is_read` says so, by their
    /// place. A failure counts in any case.
    pub(super) async fn fetch_for(
        &self,
        caller: Caller,
        keys: &[Located],
        lease: Option<Duration>,
        is_read: impl Fn(usize) -> bool,
    ) -> PerKey<Found<V>> {
        if keys.is_empty() {
            return PerKey::new();
        }
        let core = self.core();
        let action = Action::Get { value: true, lease, touch: None };
        let requests: Requests = keys.iter().map(|at| Request::new(at.key.clone(), Route::ByKey, action)).collect();
        // Before the read: what is owed now may be paid, by another caller, between the read and the look at its answer.
        let asked = lease.map(|_| real::now());
        let owed: PerKey<bool> = keys.iter().map(|at| core.owes_item(&at.key)).collect();
        let replies = core.run(caller, requests).await;
        // At once, so that what follows gives them back if it comes to nothing. Also those that nobody has asked for: where an
        // expiration has freed the lease of a load, the first read takes it, and all others would wait for that.
        let term = lease.unwrap_or(core.settings.lease);
        let mut leases: PerKey<Option<Lease>> =
            keys.iter().zip(&replies).map(|(at, reply)| self.hold(caller, &at.key, reply, term)).collect();
        let views: PerKey<Option<View<'_>>> = keys
            .iter()
            .zip(&replies)
            .zip(&owed)
            .map(|((at, reply), owed)| match reply {
                Ok(Reply::Hit(item)) if !owed => View::decode(&item.value, at.fingerprint).ok(),
                _ => None,
            })
            .collect();
        let tokens = self.tokens_for(caller, &views).await;
        let judged = replies.iter().zip(owed).zip(&views).zip(&mut leases).enumerate();
        judged
            .map(|(at, (((reply, owed), view), lease))| {
                let reading = Reading { counters: &self.counters, is_read: is_read(at), asked };
                self.judge(reading, reply, owed, view.as_ref(), tokens.as_ref(), lease.take())
            })
            .collect()
    }

    /// Returns the lease that a read has won.
    pub(super) fn hold(
        &self,
        caller: Caller,
        key: &WireKey,
        reply: &Result<Reply, RemoteError>,
        term: Duration,
    ) -> Option<Lease> {
        match reply {
            Ok(Reply::Won(cas)) => Some(self.core().leases.hold(caller, key.clone(), *cas, term)),
            _ => None,
        }
    }

    /// Returns the tokens by which values are judged that have just been read: **always after the values**, so that a token can
    /// only be younger than the value it judges.
    ///
    /// Those at hand do for a value that they find alive and fresh. Of any other, the tokens are read: what is at hand may
    /// be out of date, and a value must not be taken for dead because of that.
    async fn tokens_for(&self, caller: Caller, views: &[Option<View<'_>>]) -> Result<TokenTable, RemoteError> {
        let tokens = self.core().tokens_at_hand(&groups_of(views.iter().flatten()));
        let agrees = |group: GroupTokens| tokens.get(group.group_hash) == Tokens::from(group);
        let doubtful = groups_of(views.iter().flatten().filter(|view| !view.groups().all(agrees)));
        if doubtful.is_empty() {
            return Ok(tokens);
        }
        // Apart, so that the futures of all other reads are not as large as those of the few that come here.
        Ok(tokens.updated(Box::pin(self.core().read_tokens(caller, &doubtful)).await?))
    }

    /// Decides what a reply is worth, and counts it.
    fn judge(
        &self,
        reading: Reading<'_>,
        reply: &Result<Reply, RemoteError>,
        owed: bool,
        view: Option<&View<'_>>,
        tokens: Result<&TokenTable, &RemoteError>,
        lease: Option<Lease>,
    ) -> Found<V> {
        let failed = |error| {
            bump(&reading.counters.errors);
            Found::Unknown(error)
        };
        let found = match reply {
            Ok(Reply::Hit(_)) if owed => {
                let message = "what the store holds is still to be deleted";
                Found::Unknown(RemoteError::new(RemoteErrorKind::Unavailable, message))
            }
            Ok(Reply::Hit(item)) => match (view, tokens) {
                (Some(view), Ok(tokens)) => self.judge_value(reading, item, view, tokens),
                (Some(_), Err(error)) => failed(error.clone()),
                (None, _) => {
                    reading.count(|counters| &counters.unreadable);
                    Found::Spent(item.cas)
                }
            },
            Ok(Reply::Miss | Reply::Won(_)) => Found::Vacant(lease),
            Ok(Reply::Busy(cas)) => Found::Leased(*cas),
            Ok(_) => failed(unexpected("to a read")),
            Err(error) => failed(error.clone()),
        };
        reading.count(|counters| match found {
            Found::Fresh(..) => &counters.hits_fresh,
            Found::Stale(..) => &counters.hits_stale,
            _ => &counters.misses,
        });
        found
    }

    fn judge_value(&self, reading: Reading<'_>, item: &Item, view: &View<'_>, tokens: &TokenTable) -> Found<V> {
        let roots = self.roots();
        // A value without the roots would outlive every `clear`: no cache writes one.
        let rooted = roots.iter().all(|root| view.groups().any(|group| group.group_hash == *root));
        let alive = rooted && view.groups().all(|group| tokens.get(group.group_hash).hard == Some(group.hard));
        let groups = view.groups().map(|group| group.group_hash).filter(|hash| !roots.contains(hash)).collect();
        let (true, Some((soft, hard))) = (alive, left(&view.header, item.expires_in)) else {
            reading.count(|counters| &counters.dead);
            return Found::Spent(item.cas);
        };
        let Ok(value) = view.value(&*self.codec, self.packing, &item.value) else {
            reading.count(|counters| &counters.unreadable);
            return Found::Spent(item.cas);
        };
        let expired = view.groups().any(|group| tokens.get(group.group_hash).soft != Some(group.soft));
        let stale = item.stale || expired || soft == Some(Duration::ZERO);
        let arrived = Arrived {
            value,
            groups,
            soft: if stale { Some(Duration::ZERO) } else { soft },
            hard,
            soft_ttl: view.header.soft_ttl.get(),
            load_cost: Duration::from_micros(view.header.load_cost_us.into()),
            record: reading.asked.and_then(|asked| Record::of(item, &view.header, asked)),
        };
        if stale { Found::Stale(arrived, item.cas) } else { Found::Fresh(arrived, item.cas) }
    }
}

/// Returns the groups of values, in order, each once.
fn groups_of<'v>(views: impl Iterator<Item = &'v View<'v>>) -> SmallVec<[u64; USUAL_GROUPS]> {
    let mut groups = SmallVec::new();
    for view in views {
        groups.extend(view.groups().map(|group| group.group_hash));
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Returns how long the store is asked to keep a value that is dead after `hard`: no less, in its whole seconds.
pub(super) fn kept_for(hard: Duration) -> Duration {
    Duration::from_secs(hard.as_secs().saturating_add(2))
}

/// Returns the time that a value's header is dated by.
pub(super) fn unix_ms() -> u64 {
    u64::try_from(real::since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Returns how long a value is from its soft and its hard deadline; `None` if it is past the latter, or nobody knows.
///
/// The store counts down from [`kept_for`] in whole seconds, by a clock that all readers share. A value is taken for as old as
/// it can be. Only what never expires has to be dated by the writer's clock.
pub(super) fn left(header: &Header, expires_in: Option<Duration>) -> Option<(Option<Duration>, Option<Duration>)> {
    let (soft, hard) = (header.soft_ttl.get(), header.hard_ttl.get());
    let age = match (hard, expires_in) {
        (Some(hard), Some(expires_in)) => {
            let kept_for = kept_for(hard);
            // Whoever wrote it asked for less. A touch was meant for another item, and nobody knows how old this one is. What is
            // to be kept for longer than the limit was reckoned by the writer's clock.
            if expires_in > kept_for + TICK && kept_for <= LONGEST_INTERVAL {
                return None;
            }
            kept_for.saturating_sub(expires_in) + TICK
        }
        _ => Duration::from_millis(unix_ms().saturating_sub(header.created_ms)),
    };
    let soft = soft.map(|soft| soft.saturating_sub(age));
    match hard.map(|hard| hard.saturating_sub(age)) {
        Some(Duration::ZERO) => None,
        hard => Some((soft, hard)),
    }
}
