//! Reading through both tiers without loading.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::TieredCache;
use super::fetch::{Arrived, Found, Located, PerKey};
use crate::claim::{Claim, Fill};
use crate::clock::Deadline;
use crate::entry::Meta;
use crate::key::ToKey;
use crate::namespace::core::Standing;
use crate::options::{Lifetime, Spec};
use crate::remote::batch::Caller;
use crate::remote::key::RemoteKey;
use crate::store::Look;

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for each key from whichever tier has it, and copies what is from the remote one into the local one.
    pub(super) async fn read<Q>(&self, caller: Caller, keys: &[&Q]) -> PerKey<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let standing = self.core().standing(caller).await;
        let mut values: PerKey<Option<V>> = keys.iter().map(|_| None).collect();
        if standing == Standing::Refused {
            return values;
        }
        let mut claims = PerKey::with_capacity(keys.len());
        let mut wanted: PerKey<Located> = PerKey::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            // A claim is the ticket of the copy, taken before anything is sent: an invalidation of the key meanwhile voids it,
            // one of a group is found by the claim's generation. Where another caller is at the key, the value is returned
            // and not copied.
            let hash = self.local.hash(*key);
            let claim = match self.glance(standing, hash, *key) {
                Look::Fresh(value) | Look::Stale { value, .. } => {
                    values[at] = Some(value);
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
            return values;
        }
        let found = self.remote.fetch(caller, &wanted, None).await;
        for ((at, claim), found) in claims.into_iter().zip(found) {
            if let Found::Fresh(arrived, _) | Found::Stale(arrived, _) = found {
                values[at] = Some(match claim {
                    // What is copied while trust has lapsed would not be served.
                    Some(claim) if standing == Standing::Trusted => self.adopt(claim, arrived, None),
                    _ => arrived.value,
                });
            }
        }
        values
    }

    /// Returns the value for each key, with as few questions to the remote tier as can be.
    pub(super) async fn read_many<'q, Q, I>(&self, caller: Caller, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        let mut values: Vec<Option<V>> = keys.iter().map(|key| self.get_local(*key)).collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|&at| values[at].is_none()).collect();
        if missing.is_empty() {
            return values;
        }
        let missed: Vec<&Q> = missing.iter().map(|&at| keys[at]).collect();
        for (at, value) in missing.into_iter().zip(self.read(caller, &missed).await) {
            values[at] = value;
        }
        values
    }

    /// Looks at the local tier as far as it counts now.
    pub(super) fn glance<Q>(&self, standing: Standing, hash: u64, key: &Q) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        match standing {
            Standing::Trusted => self.local.store.look(hash, key),
            Standing::Lapsed | Standing::CutOff | Standing::Refused => {
                self.local.store.look_if(hash, key, |meta| standing != Standing::Refused && self.vouches(meta))
            }
        }
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
        if let Some(retry_after) = retry_after {
            entry.meta.retry_at.set(Deadline::after(self.core().clock.now(), retry_after));
        }
        match claim.commit(entry) {
            Fill::Stored => arrived.value,
            Fill::Fenced(value) | Fill::Rejected(value) => value,
        }
    }

    /// Returns what an entry is to be like that has come from the remote tier.
    pub(super) fn spec_of(&self, arrived: &Arrived<V>) -> Spec {
        let groups = &self.core().groups;
        Spec {
            lifetime: Lifetime::Left { soft: arrived.soft, hard: arrived.hard },
            grace: None,
            weight: None,
            groups: arrived.groups.iter().map(|&hash| groups.intern_hash(hash)).collect(),
        }
    }
}
