//! How entries are made: weighed, and dated.

use std::time::Duration;

use super::Store;
use crate::clock::AtomicDeadline;
use crate::compact::{Micros, Millis, U48};
use crate::entry::{Entry, Handle, Meta};
use crate::group::{AtomicGeneration, Generation};
#[cfg(feature = "tiered")]
use crate::options::Lifetime;
use crate::options::Spec;
use crate::policy::Recency;

impl<K: Eq, V> Store<K, V> {
    /// Makes an entry of `value`, weighed and dated now. Drops no other where it is `CLAIMED`: made by a thread that has a
    /// claim, for which a `Drop` that asks for the claimed key would wait.
    #[inline(always)]
    pub(crate) fn entry<const CLAIMED: bool>(
        &self,
        hash: u64,
        key: K,
        value: V,
        born: Generation,
        spec: Spec,
        cost: Duration,
    ) -> Handle<K, V> {
        let settings = &self.settings;
        // One by one, so that what needs no drop is not kept in memory for it.
        let Spec { lifetime: own, grace, weight, groups } = spec;
        let weight = weight.unwrap_or_else(|| settings.weigher.as_ref().map_or(1, |weigh| weigh(&key, &value)));
        let shard = self.index.shard_of(hash);
        // Before the entry is made: what may panic, or drop another, is done by then, and it is written where it is to stay.
        let vacancy = if CLAIMED { self.index.vacancy_without_drops(shard) } else { self.index.vacancy(shard) };
        let ((now, soft, hard), lead) = match &self.usual_deadlines {
            // Nearly always: nothing of it depends on the value.
            Some(usual) if settings.is_usual(own, &value) => (usual.deadlines(&settings.clock), Micros::new(cost)),
            _ => {
                let lifetime = settings.lifetime_of(own, &value);
                (settings.lifetime.deadlines(lifetime, &settings.clock), settings.lead_of(lifetime, cost))
            }
        };
        let meta = Meta {
            born: AtomicGeneration::new(born),
            soft: AtomicDeadline::new(soft),
            hard,
            groups,
            recency: Recency::default(),
            #[cfg(feature = "tiered")]
            is_own: !matches!(own, Lifetime::Left { .. }),
            weight: weight.max(1),
            created_ms: U48::new(now.as_ms()),
            grace: grace.map_or(self.usual_grace, Millis::new),
            lead,
        };
        vacancy.fill(Entry { key, value, meta, hash })
    }

    /// Makes the entry that takes the place of `old` with another value: in its groups, and as old as it.
    pub(crate) fn successor(&self, old: &Meta, hash: u64, key: K, value: V) -> Handle<K, V> {
        let weight = self.settings.weigher.as_ref().map_or(old.weight, |weigh| weigh(&key, &value));
        let meta = Meta {
            born: AtomicGeneration::new(old.born.get()),
            soft: AtomicDeadline::new(old.soft.get()),
            hard: old.hard,
            groups: old.groups.clone(),
            recency: Recency::default(),
            #[cfg(feature = "tiered")]
            is_own: old.is_own,
            weight: weight.max(1),
            created_ms: old.created_ms,
            grace: old.grace,
            lead: old.lead,
        };
        self.index.make(self.index.shard_of(hash), Entry { key, value, meta, hash })
    }
}
