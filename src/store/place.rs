//! How entries are stored: on which terms, in whose place, and what makes room for them.

use super::Store;
#[cfg(feature = "tiered")]
use crate::clock::Deadline;
use crate::entry::{Entry, Freshness, Handle, Judge};
use crate::error::Rejected;
use crate::flight::{Flight, Outcome};
use crate::policy::Arrival;
use crate::shard::{Leaving, Shard};
use crate::stats::{RemovalCause, Tally};
use crate::sync::Arc;

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

impl Refusal {
    /// Returns the error that a caller is told, to whom nothing but a weight is one.
    pub(crate) fn into_rejection(self) -> Result<(), Rejected> {
        match self {
            Refusal::Rejected(rejected) => Err(rejected),
            Refusal::Unmet | Refusal::Full => Ok(()),
        }
    }
}

impl<K: Eq, V> Store<K, V> {
    /// Stores an entry on these terms, or says why not, and counts it.
    pub(crate) fn admit(&self, entry: Handle<K, V>, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        let tally = self.tally();
        let admitted = self.place_by(tally, entry, terms);
        count(tally, &admitted);
        admitted
    }

    /// Counts what came of storing an entry.
    pub(crate) fn count_admitted(&self, admitted: &Result<(), Refusal>) {
        count(self.tally(), admitted);
    }

    /// Stores an entry as [`admit`](Self::admit) does, without counting it: a copy, or an attempt that others may follow.
    pub(crate) fn place(&self, entry: Handle<K, V>, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        self.place_by(self.tally(), entry, terms)
    }

    /// Stores an entry on terms that make no room for it, without counting it. Where there is none, reclaims the dead first, unless the caller has
    /// had that done before.
    pub(crate) fn warm(
        &self,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        reclaimed: &mut bool,
    ) -> Result<(), Refusal> {
        match self.place(entry.clone(), terms) {
            Err(Refusal::Full) if !std::mem::replace(reclaimed, true) => {
                self.run_maintenance();
                self.place(entry.clone(), terms)
            }
            admitted => admitted,
        }
    }

    fn place_by(&self, tally: Tally<'_>, entry: Handle<K, V>, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        let mut leaving = Leaving::default();
        let placed = self.try_place(entry, terms, &mut leaving);
        self.let_go(tally, &mut leaving);
        placed
    }

    /// Lets go of what an entry has overtaken or displaced.
    // Always, as `take_out`: both are a part of every insert, and calls of their own for those that are in vain.
    #[inline(always)]
    fn let_go(&self, tally: Tally<'_>, leaving: &mut Leaving<K, V>) {
        // Whoever waits for a load that was overtaken by a value stored meanwhile finds that value.
        leaving.flights().iter().for_each(|flight| flight.land(Outcome::Abandoned));
        self.dispose_by(tally, leaving);
    }

    #[inline]
    fn try_place(
        &self,
        entry: Handle<K, V>,
        terms: &Terms<'_, K, V>,
        leaving: &mut Leaving<K, V>,
    ) -> Result<(), Refusal> {
        let (hash, weight) = (entry.hash, entry.meta.weight);
        let capacity = self.budget.capacity();
        if weight > capacity || entry.meta.is_stillborn() {
            return self.place_in_vain(capacity, &entry, terms, leaving);
        }
        let mut grant = self.budget.take(weight);
        let mut shard = self.shard(hash).write();
        loop {
            if !self.hold(terms, &shard, &entry) {
                return Err(Refusal::Unmet);
            }
            if grant.weight() >= weight {
                break;
            }
            if terms.is_to_warm() {
                return Err(Refusal::Full);
            }
            // Nothing is touched before it is sure that there will be room.
            if grant.weight() + shard.weight() >= weight {
                break;
            }
            drop(shard);
            if let Err(refusal) = self.gather(&mut grant, weight, leaving) {
                self.displace(&entry, terms, leaving)?;
                return Err(refusal);
            }
            shard = self.shard(hash).write();
        }
        let judge = match terms {
            // The entry was made a moment ago: its own time saves another look at the clock.
            Terms::Always => self.judge_at(entry.meta.created()),
            // It may have waited for its store, or be as old as the one that it succeeds.
            _ => self.judge(),
        };
        let (freed, arrival) = take_out(&mut shard, &entry, terms, &judge, leaving);
        grant.add(freed);
        let mut arrival = arrival.unwrap_or_else(|| shard.arrive(hash));
        let missing = weight.saturating_sub(grant.weight());
        grant.add(shard.make_room(missing, Some(&mut arrival), &judge, leaving));
        grant.spend(weight);
        shard.insert(entry, arrival, &judge, || capacity / self.shards.len() as u64);
        #[cfg(feature = "tiered")]
        if let Terms::ToPause(_, until) = terms {
            shard.pause(hash, *until);
        }
        grant.add(shard.sweep_in_passing(&judge, leaving));
        Ok(())
    }

    /// Refuses an entry that is too heavy; tells of one that is dead on arrival, by a deadline of zero. It takes the place of what
    /// was there, and nothing makes room for it.
    #[cold]
    fn place_in_vain(
        &self,
        capacity: u64,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        leaving: &mut Leaving<K, V>,
    ) -> Result<(), Refusal> {
        self.displace(entry, terms, leaving)?;
        let weight = entry.meta.weight;
        if weight > capacity {
            return Err(Refusal::Rejected(Rejected { weight, capacity }));
        }
        // Told of after what it displaced.
        self.let_go(self.tally(), leaving);
        self.announce(entry, RemovalCause::Expired);
        Ok(())
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
        let (freed, _) = take_out(&mut shard, entry, terms, &self.judge(), leaving);
        // Or whoever misses a key of this shard would look under its lock until the next insert.
        shard.leave_vacant();
        self.budget.release(freed);
        Ok(())
    }

    /// Returns whether the terms hold of what there is of the entry's key.
    #[inline]
    fn hold(&self, terms: &Terms<'_, K, V>, shard: &Shard<K, V>, entry: &Entry<K, V>) -> bool {
        matches!(terms, Terms::Always) || self.conditions_hold(terms, shard, entry)
    }

    #[inline(never)]
    fn conditions_hold(&self, terms: &Terms<'_, K, V>, shard: &Shard<K, V>, entry: &Entry<K, V>) -> bool {
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

/// Takes out the entry and the flight of `entry`'s key; returns what the former weighed, and how `entry` will take its
/// place if there was one.
#[inline(always)]
fn take_out<K: Eq, V>(
    shard: &mut Shard<K, V>,
    entry: &Entry<K, V>,
    terms: &Terms<'_, K, V>,
    judge: &Judge<'_>,
    leaving: &mut Leaving<K, V>,
) -> (u64, Option<Arrival>) {
    if let Some(flight) = terms.flight() {
        // It is the caller's own, who lets it land.
        shard.end_flight(flight);
    } else if let Some(flight) = shard.fence(entry.hash, &entry.key) {
        leaving.push_flight(flight);
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

/// Counts what came of storing an entry.
#[inline]
fn count(tally: Tally<'_>, admitted: &Result<(), Refusal>) {
    if admitted.is_ok() {
        tally.count(|counters| &counters.stores);
    } else if matches!(admitted, Err(Refusal::Rejected(_))) {
        tally.count(|counters| &counters.rejections);
    }
}
