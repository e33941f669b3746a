//! How entries are stored: on which terms, in whose place, and what makes room for them.

use super::Store;
#[cfg(feature = "tiered")]
use crate::clock::Deadline;
use crate::entry::{Entry, Freshness, Handle, Judge};
use crate::error::Rejected;
use crate::flight::{Flight, Outcome};
use crate::policy::Arrival;
use crate::shard::{Leaving, Shard};
use crate::stats::RemovalCause;
use crate::sync::{Arc, RwLockWriteGuard};

/// Under which condition an entry is stored.
pub(crate) enum Terms<'a, K, V> {
    /// Whatever is there.
    Always,
    /// If nothing alive is there.
    IfAbsent,
    /// If this entry is still there.
    IfCurrent(&'a Handle<K, V>),
    /// If this flight still stands, and no group of the entry was bumped after it began.
    IfStands(&'a Arc<Flight<K, V>>),
    /// If this flight still stands, as above; and no refresh begins until then.
    #[cfg(feature = "tiered")]
    ToPause(&'a Arc<Flight<K, V>>, Deadline),
    /// If nothing alive is there, nobody fills the key, and there is room without another's leaving.
    ToWarm,
    /// If this flight still stands, as above, and there is room without another's leaving.
    #[cfg(feature = "tiered")]
    ToWarmUnder(&'a Arc<Flight<K, V>>),
}

impl<'a, K, V> Terms<'a, K, V> {
    /// Returns the flight under which the entry is to be stored.
    fn flight(&self) -> Option<&'a Arc<Flight<K, V>>> {
        match self {
            Terms::IfStands(flight) => Some(flight),
            #[cfg(feature = "tiered")]
            Terms::ToPause(flight, _) | Terms::ToWarmUnder(flight) => Some(flight),
            Terms::Always | Terms::IfAbsent | Terms::IfCurrent(_) | Terms::ToWarm => None,
        }
    }

    /// Returns whether no other entry may be evicted for this one.
    fn is_to_warm(&self) -> bool {
        match self {
            Terms::ToWarm => true,
            #[cfg(feature = "tiered")]
            Terms::ToWarmUnder(_) => true,
            #[cfg(feature = "tiered")]
            Terms::ToPause(..) => false,
            Terms::Always | Terms::IfAbsent | Terms::IfCurrent(_) | Terms::IfStands(_) => false,
        }
    }
}

/// Why an entry was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The terms did not hold.
    Unmet,
    /// It is too heavy.
    Rejected(Rejected),
    /// There is no room, and its terms are that nobody makes any.
    Full,
}

impl<K: Eq, V> Store<K, V> {
    /// Stores an entry on these terms, or says why not, and counts it. Where it was not stored, the caller's is the only handle.
    pub(crate) fn admit(&self, entry: &Handle<K, V>, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        let admitted = self.place(entry, terms);
        self.count_admitted(&admitted);
        admitted
    }

    /// Counts what came of storing an entry.
    pub(crate) fn count_admitted(&self, admitted: &Result<(), Refusal>) {
        match admitted {
            Ok(()) => self.tally().count(|counters| &counters.stores),
            Err(Refusal::Rejected(_)) => self.tally().count(|counters| &counters.rejections),
            Err(Refusal::Unmet | Refusal::Full) => {}
        }
    }

    /// Stores an entry as [`admit`](Self::admit) does, without counting it: a copy, or an attempt that others may follow.
    pub(crate) fn place(&self, entry: &Handle<K, V>, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        let mut leaving = Leaving::default();
        let admitted = self.try_admit(entry, terms, &mut leaving);
        // Whoever waits for a load that was overtaken by a value stored meanwhile finds that value.
        leaving.flights.iter().for_each(|flight| flight.land(Outcome::Abandoned));
        self.dispose(leaving);
        admitted
    }

    /// Stores an entry on terms that make no room for it, without counting it. Where there is none, reclaims the dead first, unless the caller has
    /// had that done before.
    pub(crate) fn warm(
        &self,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        reclaimed: &mut bool,
    ) -> Result<(), Refusal> {
        match self.place(entry, terms) {
            Err(Refusal::Full) if !std::mem::replace(reclaimed, true) => {
                self.run_maintenance();
                self.place(entry, terms)
            }
            admitted => admitted,
        }
    }

    fn try_admit(
        &self,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        leaving: &mut Leaving<K, V>,
    ) -> Result<(), Refusal> {
        let weight = entry.meta.weight;
        let capacity = self.budget.capacity();
        if weight > capacity {
            self.displace(entry, terms, leaving)?;
            return Err(Refusal::Rejected(Rejected { weight, capacity }));
        }
        // Dead on arrival, by a deadline of zero: it takes the place of what was there, and nothing makes room for it.
        if entry.meta.hard().has_passed(entry.meta.created()) {
            self.displace(entry, terms, leaving)?;
            // Told of after what it displaced.
            leaving.hand_over(|entry, cause| self.announce(&entry, cause));
            self.announce(entry, RemovalCause::Expired);
            return Ok(());
        }
        let mut grant = self.budget.take(weight);
        loop {
            let mut shard = self.shard(entry.hash).write();
            if !self.hold(terms, &shard, entry) {
                return Err(Refusal::Unmet);
            }
            if terms.is_to_warm() && grant.weight() < weight {
                return Err(Refusal::Full);
            }
            // Nothing is touched before it is sure that there will be room.
            if grant.weight() + shard.weight() < weight {
                drop(shard);
                if let Err(refusal) = self.gather(&mut grant, weight, leaving) {
                    self.displace(entry, terms, leaving)?;
                    return Err(refusal);
                }
                continue;
            }
            let judge = self.judge();
            let (freed, arrival) = Self::take_out(&mut shard, entry, terms, &judge, leaving);
            grant.add(freed);
            let mut arrival = arrival.unwrap_or_else(|| shard.arrive(entry.hash));
            let missing = weight.saturating_sub(grant.weight());
            grant.add(shard.make_room(missing, Some(&mut arrival), &judge, leaving));
            grant.spend(weight);
            shard.insert(entry, arrival, &judge, || capacity / self.shards.len() as u64);
            #[cfg(feature = "tiered")]
            if let Terms::ToPause(_, until) = terms {
                shard.pause(entry.hash, *until);
            }
            grant.add(shard.sweep_in_passing(&judge, leaving));
            return Ok(());
        }
    }

    /// Removes what an entry was to replace that cannot be stored itself.
    fn displace(
        &self,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        leaving: &mut Leaving<K, V>,
    ) -> Result<(), Refusal> {
        let mut shard = self.shard(entry.hash).write();
        if !self.hold(terms, &shard, entry) {
            return Err(Refusal::Unmet);
        }
        let (freed, _) = Self::take_out(&mut shard, entry, terms, &self.judge(), leaving);
        self.budget.release(freed);
        Ok(())
    }

    /// Takes out the entry and the flight of `entry`'s key; returns what the former weighed, and how `entry` will take its
    /// place if there was one.
    fn take_out(
        shard: &mut RwLockWriteGuard<'_, Shard<K, V>>,
        entry: &Entry<K, V>,
        terms: &Terms<'_, K, V>,
        judge: &Judge<'_>,
        leaving: &mut Leaving<K, V>,
    ) -> (u64, Option<Arrival>) {
        match terms.flight() {
            // The flight is the caller's own, who lets it land.
            Some(flight) => {
                shard.end_flight(flight);
            }
            None => {
                if let Some(flight) = shard.fence(entry.hash, &entry.key) {
                    leaving.flights.push(flight);
                }
            }
        }
        if let Terms::IfCurrent(old) = terms {
            // Again, now that nobody can move it any more: it may have been expired while its successor was made.
            entry.meta.soft.set(old.meta.soft.get());
        }
        let Some((old, arrival)) = shard.succeed(entry.hash, &entry.key) else { return (0, None) };
        let weight = old.meta.weight;
        let cause = judge.cause_of_death(&old.meta).unwrap_or(RemovalCause::Replaced);
        leaving.push(old, cause);
        (weight, Some(arrival))
    }

    fn hold(&self, terms: &Terms<'_, K, V>, shard: &Shard<K, V>, entry: &Entry<K, V>) -> bool {
        let current = || shard.find(entry.hash, &entry.key);
        let is_absent = || current().is_none_or(|known| self.freshness(&known.meta) == Freshness::Dead);
        // The groups are looked at again on every hit: a bump after this look finds the entry by its generation.
        let stands = |flight| {
            shard.has_flight(flight)
                && !self.root.moved_since(flight.born)
                && !entry.meta.groups.moved_since(flight.born)
        };
        match terms {
            Terms::Always => true,
            Terms::IfAbsent => is_absent(),
            Terms::IfCurrent(old) => shard.has_entry(old),
            Terms::IfStands(flight) => stands(flight),
            #[cfg(feature = "tiered")]
            Terms::ToPause(flight, _) | Terms::ToWarmUnder(flight) => stands(flight),
            // A load that is under way will bring what is newer.
            Terms::ToWarm => {
                let flight = shard.flight(entry.hash, &entry.key);
                is_absent() && !flight.is_some_and(|flight| self.is_active(flight))
            }
        }
    }
}
