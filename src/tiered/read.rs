//! Reading through both tiers without loading.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::TieredCache;
use super::fetch::{Arrived, Found, Located, PerKey};
use crate::call::CallOptions;
use crate::claim::{Claim, Fill};
use crate::clock::{Deadline, real};
use crate::entry::{Freshness, Meta};
use crate::key::ToKey;
use crate::namespace::LostTrust;
use crate::namespace::core::Standing;
use crate::options::{Lifetime, Spec};
use crate::remote::batch::Caller;
use crate::remote::key::RemoteKey;
use crate::stats::bump;
use crate::store::Look;

/// A value that a read has found, in whichever tier.
pub(super) struct Seen<V> {
    pub(super) value: V,
    pub(super) freshness: Freshness,
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for each key from whichever tier has it, and copies what is from the remote one into the local one.
    pub(super) async fn read<Q>(&self, caller: Caller, keys: &[&Q], options: CallOptions) -> PerKey<Option<Seen<V>>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let standing = self.standing_for(caller, options).await;
        // What is not asked for needs no ticket to be copied.
        let options = if options.skip_remote { options.read_only() } else { options };
        let mut seen: PerKey<Option<Seen<V>>> = keys.iter().map(|_| None).collect();
        if standing == Standing::Refused {
            return seen;
        }
        let mut claims = PerKey::with_capacity(keys.len());
        let mut wanted: PerKey<Located> = PerKey::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            // A claim is the ticket of the copy, taken before anything is sent: an invalidation of the key meanwhile voids it,
            // one of a group is found by the claim's generation. Where another caller is at the key, the value is returned
            // and not copied.
            let claim = match self.glance_to_read(standing, *key, options) {
                Look::Fresh(value) => {
                    seen[at] = Some(Seen { value, freshness: Freshness::Fresh });
                    continue;
                }
                Look::Stale { value, .. } => {
                    seen[at] = Some(Seen { value, freshness: Freshness::Stale });
                    continue;
                }
                Look::Vacant(claim) => Some(claim),
                Look::Busy(_) => None,
            };
            let located = self.remote.locate(*key);
            if let Some(claim) = &claim {
                self.hold(caller, claim, &located);
            }
            claims.push((at, claim));
            wanted.push(located);
        }
        if standing == Standing::CutOff {
            return seen;
        }
        let found = self.remote.fetch(caller, &wanted, None).await;
        for ((at, claim), found) in claims.into_iter().zip(found) {
            let (arrived, freshness) = match found {
                Found::Fresh(arrived, _) => (arrived, Freshness::Fresh),
                Found::Stale(arrived, _) => (arrived, Freshness::Stale),
                Found::Vacant(_) | Found::Spent(_) | Found::Leased(_) | Found::Unknown(_) => continue,
            };
            let value = match claim {
                Some(claim) => self.adopt_if_trusted(standing, claim, arrived, None),
                None => arrived.value,
            };
            seen[at] = Some(Seen { value, freshness });
        }
        seen
    }

    /// Returns the value for `key`, for a call with options.
    pub(super) async fn read_as<Q>(&self, caller: Caller, key: &Q, options: CallOptions) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let local = if options.skip_local { None } else { self.get_local(key) };
        match local {
            Some(value) => Some(value),
            None => self.read_in_time(caller, &[key], options).await.pop().flatten().map(|seen| seen.value),
        }
    }

    /// Reads as [`read`](Self::read) does, and for as long as the call waits at most: what has not been found by then counts as
    /// missing there.
    async fn read_in_time<Q>(&self, caller: Caller, keys: &[&Q], options: CallOptions) -> PerKey<Option<Seen<V>>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let Some(limit) = options.hard_timeout.filter(|_| !options.skip_remote) else {
            return self.read(caller, keys, options).await;
        };
        // The exchange of a thread of its own could not be left before the store's time is over.
        match real::timeout(limit, self.read(Caller::Task, keys, options)).await {
            Some(seen) => seen,
            None => {
                bump(&self.remote.counters.errors);
                keys.iter().for_each(|_| bump(&self.remote.counters.misses));
                self.read(caller, keys, options.skip_remote()).await
            }
        }
    }

    /// Returns the value for `key`, which the local tier has not.
    pub(super) async fn read_one<Q>(&self, caller: Caller, key: &Q) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.read(caller, &[key], CallOptions::new()).await.pop().flatten().map(|seen| seen.value)
    }

    /// Returns the value for each key, with as few questions to the remote tier as can be.
    pub(super) async fn read_many<'q, Q, I>(&self, caller: Caller, keys: I, options: CallOptions) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        let local = |key: &&Q| if options.skip_local { None } else { self.get_local(*key) };
        let mut values: Vec<Option<V>> = keys.iter().map(local).collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|&at| values[at].is_none()).collect();
        if missing.is_empty() {
            return values;
        }
        let missed: Vec<&Q> = missing.iter().map(|&at| keys[at]).collect();
        for (at, seen) in missing.into_iter().zip(self.read_in_time(caller, &missed, options).await) {
            values[at] = seen.map(|seen| seen.value);
        }
        values
    }

    /// Returns what counts as an answer to a call with options: where that passes the remote tier by, without a question to it.
    pub(super) async fn standing_for(&self, caller: Caller, options: CallOptions) -> Standing {
        let core = self.core();
        match core.settings.on_lost_trust {
            _ if !options.skip_remote && core.may_serve() => Standing::Trusted,
            // Apart, so that the futures of calls that are trusted, nearly all, are not as large as this one.
            _ if !options.skip_remote => Box::pin(core.standing(caller)).await,
            LostTrust::Refuse if !core.may_serve() => Standing::Refused,
            _ => Standing::CutOff,
        }
    }

    /// Looks at the local tier for a call that only reads. A claim is for the copy of what the remote tier has; without one,
    /// nothing is copied.
    fn glance_to_read<Q>(&self, standing: Standing, key: &Q, options: CallOptions) -> Look<K, V>
    where
        Q: Hash + ToKey<K> + ?Sized,
    {
        if options.skip_local {
            return Look::Busy(None);
        }
        self.glance_with(standing, self.local.hash(key), key, options)
    }

    /// Looks at the local tier as far as it counts now, for a call with options.
    pub(super) fn glance_with<Q>(&self, standing: Standing, hash: u64, key: &Q, options: CallOptions) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        self.local.look_as(options, hash, key, |meta| self.counts(standing, meta))
    }

    /// Returns whether an entry of the local tier counts now, where trust was found to be over.
    pub(super) fn counts_lapsed(&self, meta: &Meta) -> bool {
        self.core().settings.on_lost_trust != LostTrust::Refuse && self.vouches(meta)
    }

    /// Returns whether an entry of the local tier counts now.
    fn counts(&self, standing: Standing, meta: &Meta) -> bool {
        match standing {
            Standing::Trusted => true,
            Standing::Lapsed | Standing::CutOff => self.core().may_serve() || self.vouches(meta),
            Standing::Refused => false,
        }
    }

    /// Looks at the local tier as far as it counts now.
    pub(super) fn glance<Q>(&self, standing: Standing, hash: u64, key: &Q) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        self.local.store.look_if(hash, key, |meta| self.counts(standing, meta))
    }

    /// Returns whether an entry counts although the trust lease is over: because what brought it began within its time.
    pub(super) fn vouches(&self, meta: &Meta) -> bool {
        let core = self.core();
        !meta.vouched_until(core.settings.trust).has_passed(core.clock.now())
    }

    /// Makes a claim known to the journal, and keeps others from taking it over, before anything is sent under it.
    pub(super) fn hold(&self, caller: Caller, claim: &Claim<K, V>, located: &Located) {
        self.remote.inbox.note(located.fingerprint, claim.flight().hash);
        let until = match caller {
            // The holder is here, on this stack: it cannot vanish. The exchanges may take longer than the grace.
            Caller::Thread => Deadline::NEVER,
            // A future may be kept without ever being polled again.
            Caller::Task => Deadline::after(self.core().clock.now(), claim.grace()),
        };
        claim.flight().held_until.set(until);
    }

    /// Copies a value into the local tier, if the claim still holds, and returns it.
    ///
    /// With `retry_after`, it is served for so long without another look at the remote tier, stale or not.
    pub(super) fn adopt(&self, mut claim: Claim<K, V>, arrived: Arrived<V>, retry_after: Option<Duration>) -> V {
        let entry = claim.entry(arrived.value.clone(), self.spec_of(&arrived), arrived.load_cost);
        match claim.copy(entry, retry_after) {
            Fill::Stored => {
                bump(&self.remote.counters.copies);
                arrived.value
            }
            Fill::Fenced(value) | Fill::Rejected(value) => value,
        }
    }

    /// Copies a value into the local tier as [`adopt`](Self::adopt) does, where a copy would be served; otherwise it goes to
    /// those who wait for the claim, and no further.
    pub(super) fn adopt_if_trusted(
        &self,
        standing: Standing,
        mut claim: Claim<K, V>,
        arrived: Arrived<V>,
        retry_after: Option<Duration>,
    ) -> V {
        if standing == Standing::Trusted {
            return self.adopt(claim, arrived, retry_after);
        }
        let entry = claim.entry(arrived.value.clone(), self.spec_of(&arrived), arrived.load_cost);
        claim.refuse(&entry);
        arrived.value
    }

    /// Returns what an entry is to be like that has come from the remote tier.
    pub(super) fn spec_of(&self, arrived: &Arrived<V>) -> Spec {
        let groups = &self.core().groups;
        Spec {
            lifetime: Lifetime::Left { soft: arrived.soft, hard: arrived.hard, soft_ttl: arrived.soft_ttl },
            grace: None,
            weight: None,
            groups: arrived.groups.iter().map(|&hash| groups.intern_hash(hash)).collect(),
        }
    }
}
