//! How callers look for a value that they would fill, and claim its key.

use std::time::Duration;

use super::Store;
use crate::ToKey;
use crate::claim::Claim;
use crate::entry::{Freshness, Handle, Meta};
use crate::flight::{Flight, Joined, Outcome};
use crate::group::{Generation, GroupSet};
use crate::index::Resident;
use crate::options::{Draft, RefreshAhead};
use crate::sync::Arc;

/// What a caller that would fill a key finds.
pub(crate) enum Look<K, V> {
    Fresh(V),
    Stale {
        value: V,
        claim: Option<Claim<K, V>>,
    },
    Vacant(Claim<K, V>),
    /// Another caller fills the key; `None` if too many wait for it already.
    Busy(Option<Joined<K, V>>),
}

impl<K, V> Store<K, V> {
    /// Returns whether `flight` still keeps others from filling its key.
    pub(super) fn is_active(&self, flight: &Flight<K, V>) -> bool {
        let until = flight.held_until.get();
        !self.settings.clock.has_passed(until)
            && !flight.is_fenced(&self.root)
            && flight.overdue(&self.settings.clock).is_none()
    }

    /// Returns whether `flight` was overtaken by a bump of its groups or of the cache.
    pub(crate) fn is_fenced(&self, flight: &Flight<K, V>) -> bool {
        flight.is_fenced(&self.root)
    }

    /// Returns whether a fresh entry should be refreshed ahead of its soft deadline: past a part of its time; or at random, the
    /// sooner the longer its load took, which is XFetch ("Optimal probabilistic cache stampede prevention", Vattani,
    /// Chierichetti and Lowenstein, VLDB 2015).
    fn is_due_early(&self, meta: &Meta) -> bool {
        let Some(ahead) = self.settings.refresh_ahead else { return false };
        let soft = meta.soft.get();
        let before = match ahead {
            RefreshAhead::After(part) => meta.ahead(part),
            // The logarithm of a number from (0, 1]: that of 0 would make every entry due.
            RefreshAhead::AtRandom(beta) => {
                let luck = -(1.0 - fastrand::f64()).ln();
                // What cannot be said in a `Duration` is due.
                Duration::try_from_secs_f64(meta.lead.get().as_secs_f64() * beta * luck).unwrap_or(Duration::MAX)
            }
        };
        !before.is_zero() && soft.remaining(self.settings.clock.near(soft)).is_some_and(|left| left <= before)
    }

    /// Takes a flight out of its shard, if it still stands. From then on nobody joins it.
    pub(crate) fn retract(&self, flight: &Arc<Flight<K, V>>) {
        self.shard(flight.hash).write().end_flight(flight);
    }

    /// Returns whether `flight` still stands: nobody has invalidated its key or taken it over.
    pub(crate) fn stands(&self, flight: &Arc<Flight<K, V>>) -> bool {
        self.shard(flight.hash).read().has_flight(flight)
    }
}

impl<K: Eq, V: Clone> Store<K, V> {
    /// Looks for the value of `key`, and claims the key if it is vacant or stale and nobody else fills it.
    pub(crate) fn look<Q>(self: &Arc<Self>, hash: u64, key: &Q) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        self.look_if(hash, key, |_| true)
    }

    /// Looks as [`look`](Self::look) does, and takes an entry that is not `usable` for a dead one.
    ///
    /// So it is vacant, or busy while another caller fills it: whoever claimed it, and for whatever reason. The claim has no
    /// stale value, its fill takes the entry's place, and a bump of the entry's groups fences it all the same. Callers to
    /// whom the entry is usable are served from it meanwhile.
    ///
    /// `usable` may run several times, also under the shard's read lock. What it says may change with the time: an entry that is
    /// usable again by the time it is claimed is refreshed early, that is all.
    pub(crate) fn look_if<Q>(self: &Arc<Self>, hash: u64, key: &Q, usable: impl Fn(&Meta) -> bool) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        // Before anything is looked at: a load that starts from what is found here is judged by this moment.
        let arrived = self.settings.groups.generation();
        let found = self.find_unlocked(hash, key).ok();
        let fresh = found.filter(|entry| usable(&entry.meta) && self.is_fresh(&entry.meta));
        // Chance is asked once for an entry: who is to refresh it does not ask again under the lock.
        let mut due = None;
        if let Some(entry) = fresh {
            if !self.is_due_early(&entry.meta) {
                entry.meta.recency.touch();
                return Look::Fresh(entry.value.clone());
            }
            due = Some(entry.handle());
        }
        self.look_closely(arrived, hash, key, usable, due.as_ref())
    }

    /// Looks as [`look_if`](Self::look_if) does, under the shard's lock, where flights and pauses are. Does not ask
    /// chance again whether the entry is due that was found to be; another one may have come in its place.
    #[cold]
    fn look_closely<Q>(
        self: &Arc<Self>,
        arrived: Generation,
        hash: u64,
        key: &Q,
        usable: impl Fn(&Meta) -> bool,
        due: Option<&Handle<K, V>>,
    ) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        loop {
            let shard = self.shard(hash).read();
            let found = shard.find(hash, key).map(Resident::handle);
            let alive = found.as_ref().filter(|entry| usable(&entry.meta));
            let freshness = alive.map_or(Freshness::Dead, |entry| self.freshness(&entry.meta));
            if let (Some(entry), Freshness::Fresh | Freshness::Stale) = (&found, freshness) {
                entry.meta.recency.touch();
            }
            if let (Some(entry), Freshness::Fresh) = (&found, freshness)
                && !due.is_some_and(|due| due.ptr_eq(entry))
                && !self.is_due_early(&entry.meta)
            {
                drop(shard);
                return Look::Fresh(entry.value.clone());
            }
            let flight = shard.flight(hash, key);
            if let Some(limit) = flight.and_then(|flight| flight.overdue(&self.settings.clock)) {
                // A moment before the timer: the load is given up before anybody else is let at the key.
                let limit = limit.clone();
                drop(shard);
                limit.give_up();
                continue;
            }
            let busy = flight.filter(|flight| self.is_active(flight));
            if freshness == Freshness::Dead {
                if let Some(flight) = busy {
                    return Look::Busy(flight.join(arrived));
                }
            } else if let Some(entry) = &found {
                let paused_until = shard.paused_until(hash);
                if busy.is_some() || !self.settings.clock.has_passed(paused_until) {
                    drop(shard);
                    return Self::seen(freshness, entry.value.clone(), None);
                }
            }
            drop(shard);
            if let Some(claim) = self.claim(hash, key, arrived, found.as_ref(), freshness) {
                return match found {
                    Some(entry) if freshness != Freshness::Dead => {
                        Look::Stale { value: entry.value.clone(), claim: Some(claim) }
                    }
                    _ => Look::Vacant(claim),
                };
            }
            // Another caller was faster. Every round of this loop is somebody's progress.
        }
    }

    /// Claims `key` for a load that nobody has waited for, whether its value is stale yet or not; `None` while another caller
    /// fills it.
    pub(crate) fn claim_anyway<Q>(self: &Arc<Self>, hash: u64, key: &Q) -> Option<Claim<K, V>>
    where
        Q: ToKey<K> + ?Sized,
    {
        // As in `look_if`.
        let born = self.settings.groups.generation();
        loop {
            let shard = self.shard(hash).read();
            let found = shard.find(hash, key).map(Resident::handle);
            let flight = shard.flight(hash, key).cloned();
            drop(shard);
            match flight {
                Some(flight) if self.is_active(&flight) => return None,
                Some(flight) => {
                    if let Some(limit) = flight.overdue(&self.settings.clock) {
                        limit.give_up();
                    }
                }
                None => {}
            }
            let freshness = found.as_ref().map_or(Freshness::Dead, |entry| self.freshness(&entry.meta));
            if let Some(claim) = self.claim(hash, key, born, found.as_ref(), freshness) {
                return Some(claim);
            }
        }
    }

    fn seen(freshness: Freshness, value: V, claim: Option<Claim<K, V>>) -> Look<K, V> {
        if freshness == Freshness::Fresh { Look::Fresh(value) } else { Look::Stale { value, claim } }
    }

    /// Claims `key`, unless what was `found` there has changed or another caller has claimed it meanwhile.
    fn claim<Q>(
        self: &Arc<Self>,
        hash: u64,
        key: &Q,
        born: Generation,
        found: Option<&Handle<K, V>>,
        freshness: Freshness,
    ) -> Option<Claim<K, V>>
    where
        Q: ToKey<K> + ?Sized,
    {
        let settings = &self.settings;
        let grace = found.map_or(settings.grace, |entry| entry.meta.grace.get());
        let suspects = found.map_or(GroupSet::EMPTY, |entry| entry.meta.groups.clone());
        let draft = Draft::new(settings.groups.clone());
        let begun = settings.clock.now();
        let flight = Arc::new(Flight::new(hash, key.to_key(), born, begun, grace, draft, suspects));
        let stale = found.filter(|_| freshness != Freshness::Dead).cloned();
        let entry_key = key.to_key();

        let mut shard = self.shard(hash).write();
        let unchanged = match found {
            Some(then) => shard.has_entry(then),
            None => shard.find(hash, key).is_none(),
        };
        // One that is overdue is given up before its key is claimed anew, or two loads would run: whoever looks again does it.
        let is_taken =
            |flight: &Arc<Flight<K, V>>| self.is_active(flight) || flight.overdue(&self.settings.clock).is_some();
        if !unchanged || shard.flight(hash, key).is_some_and(is_taken) {
            return None;
        }
        // A holder that seems to have vanished, or whose load was overtaken by a bump: its ticket is void from here on.
        let superseded = shard.fence(hash, key);
        shard.start_flight(flight.clone());
        drop(shard);
        if let Some(flight) = superseded {
            flight.land(Outcome::Abandoned);
        }
        Some(Claim::new(self.clone(), flight, entry_key, stale))
    }
}
