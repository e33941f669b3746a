//! What a cache was built with.

use std::time::Duration;

use crate::clock::Clock;
use crate::compact::Micros;
#[cfg(feature = "tiered")]
use crate::compact::Millis;
use crate::group::Groups;
use crate::options::{Absence, DefaultLifetime, Lifetime, RefreshAhead, Validator};
use crate::stats::RemovalCause;

/// Says what an entry weighs.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Is told of every entry that leaves.
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, RemovalCause) + Send + Sync>;

/// What a cache was built with.
pub(crate) struct Settings<K, V> {
    pub(crate) name: Box<str>,
    pub(crate) groups: Groups,
    pub(crate) clock: Clock,
    pub(crate) lifetime: DefaultLifetime,
    pub(crate) grace: Duration,
    pub(crate) load_wait: Duration,
    /// `None` refreshes at the soft deadline alone.
    pub(crate) refresh_ahead: Option<RefreshAhead>,
    /// What is known of values that stand for none.
    pub(crate) absence: Option<Absence<V>>,
    pub(crate) validator: Option<Validator<V>>,
    /// Whether a stale value answers for a failed refresh, and how long no other is tried then.
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) listener: Option<Listener<K, V>>,
}

impl<K, V> Settings<K, V> {
    /// Returns whether the cache's own deadlines hold for `value`, which was stored with `own`.
    #[inline]
    pub(super) fn is_usual(&self, own: Lifetime, value: &V) -> bool {
        own.is_default() && self.absence.as_ref().is_none_or(|absence| !(absence.is)(value))
    }

    /// Returns what is said of the deadlines of `value`, which was stored with `own`.
    pub(crate) fn lifetime_of(&self, own: Lifetime, value: &V) -> Lifetime {
        match &self.absence {
            Some(absence) if own.is_default() && (absence.is)(value) => Lifetime::HardOnly(absence.ttl),
            _ => own,
        }
    }

    /// Returns what is to be remembered of a load that took `cost`, for the refresh ahead of the soft deadline: see [`Meta::lead`].
    pub(super) fn lead_of(&self, lifetime: Lifetime, cost: Duration) -> Micros {
        match (self.refresh_ahead, lifetime) {
            #[cfg(feature = "tiered")]
            (Some(RefreshAhead::After(part)), Lifetime::Left { soft_ttl, .. }) => {
                soft_ttl.map_or(Micros::ZERO, |whole| Millis::new(whole.mul_f64(1.0 - part)).in_units())
            }
            _ if cost.is_zero() => Micros::ZERO,
            _ => Micros::new(cost),
        }
    }
}
