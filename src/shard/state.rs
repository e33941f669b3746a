//! What a shard holds: entries, flights, and the order of eviction.

use equivalent::Equivalent;
use hashbrown::HashTable;
#[cfg(feature = "tiered")]
use smallvec::SmallVec;

use super::leaving::Leaving;
use super::pauses::Pauses;
use super::sweep::Sweep;
use crate::clock::Deadline;
use crate::entry::{Entry, Handle, Judge};
use crate::flight::Flight;
use crate::group::{Generation, Group};
use crate::index::{Resident, Seat, Table, Unlinked};
use crate::policy::{AdaptiveFifo, Arrival, EvictionPolicy, Profile, Residents};
use crate::stats::RemovalCause;
use crate::sync::Arc;

/// How many entries an operation that needs room looks at in search of a dead one, before it evicts a live one: all of a
/// small shard.
const SWEEP_FOR_ROOM: usize = 64;

/// How many entries any other insert looks at in search of dead ones, while there can be any.
const SWEEP_IN_PASSING: usize = 4;

/// One shard's entries and flights.
#[derive(Debug)]
pub(crate) struct Shard<K, V> {
    table: Table<Entry<K, V>>,
    policy: AdaptiveFifo,
    flights: HashTable<Arc<Flight<K, V>>>,
    pauses: Pauses,
    sweep: Sweep,
    clears: Clears,
}

/// Which entries came before the last `clear`, so that they need not be counted one by one: those that were born before it.
#[derive(Debug)]
struct Clears {
    /// The clear that this shard has noticed.
    last: Generation,
    /// How many entries from before it are still here, and what they weigh.
    doomed: usize,
    doomed_weight: u64,
}

impl<K, V> Shard<K, V> {
    pub(crate) fn new(table: Table<Entry<K, V>>) -> Self {
        Shard {
            table,
            policy: AdaptiveFifo::default(),
            flights: HashTable::new(),
            pauses: Pauses::default(),
            sweep: Sweep::default(),
            clears: Clears { last: Generation::ZERO, doomed: 0, doomed_weight: 0 },
        }
    }

    pub(crate) fn find<Q>(&self, hash: u64, key: &Q) -> Option<Resident<'_, Entry<K, V>>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.table.find(hash, |entry| key.equivalent(&entry.key))
    }

    /// Notes that an entry is about to come whose key has none.
    #[inline]
    pub(crate) fn arrive(&mut self, hash: u64) -> Arrival {
        self.policy.arrive(hash)
    }

    /// Adds an entry whose key has none, and for which there is room. The shard may come to weigh `share`.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        entry: Handle<K, V>,
        arrival: Arrival,
        judge: &Judge<'_>,
        share: impl FnOnce() -> u64,
    ) {
        let weight = entry.meta.weight;
        self.clears.notice(judge.root, self.table.len(), self.policy.weight());
        self.sweep.note_insert(entry.meta.hard());
        // A bump from here on is another that the sweep hears of.
        if judge.is_killed(&entry.meta) {
            self.sweep.note_dead();
        }
        if entry.meta.born.get() < self.clears.last {
            self.clears.doomed += 1;
            self.clears.doomed_weight += weight;
        }
        self.policy.insert(entry.seat(), profile(&entry), arrival, &self.table);
        let policy = &self.policy;
        self.table.insert(entry, || expected(share(), policy.len() as u64, policy.weight()));
    }

    pub(crate) fn remove<Q>(&mut self, hash: u64, key: &Q) -> Option<Unlinked<Entry<K, V>>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let seat = self.find(hash, key)?.seat();
        Some(self.take(seat))
    }

    /// Removes the entry of a key to which another is about to come, in its place.
    #[inline]
    pub(crate) fn succeed<Q>(&mut self, hash: u64, key: &Q) -> Option<(Unlinked<Entry<K, V>>, Arrival)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let seat = self.find(hash, key)?.seat();
        let arrival = self.policy.succeed(seat, &self.table);
        self.table.expect_successor();
        Some((self.unlink(seat), arrival))
    }

    /// Notes that what was taken out for another has left for good.
    pub(crate) fn leave_vacant(&mut self) {
        self.table.expect_none();
    }

    /// Removes exactly this entry, if it is there.
    pub(crate) fn remove_entry(&mut self, entry: &Handle<K, V>) -> Option<Unlinked<Entry<K, V>>> {
        let seat = self.table.seat_of(entry)?;
        Some(self.take(seat))
    }

    /// Removes the entry at a seat.
    fn take(&mut self, seat: Seat) -> Unlinked<Entry<K, V>> {
        self.policy.remove(seat, &self.table);
        self.unlink(seat)
    }

    /// Removes the entry at a seat that the policy has let go of, and keeps the sums right.
    #[inline]
    fn unlink(&mut self, seat: Seat) -> Unlinked<Entry<K, V>> {
        let entry = self.table.unlink(seat);
        if entry.meta.born.get() < self.clears.last {
            self.clears.doomed -= 1;
            self.clears.doomed_weight -= entry.meta.weight;
        }
        self.pauses.end(entry.hash);
        entry
    }

    /// Frees `amount` of weight as far as that is possible, dead entries first, and returns how much it was. For a newcomer
    /// to this shard, or for something elsewhere.
    #[inline(always)]
    pub(crate) fn make_room(
        &mut self,
        amount: u64,
        mut newcomer: Option<&mut Arrival>,
        judge: &Judge<'_>,
        leaving: &mut Leaving<K, V>,
    ) -> u64 {
        let mut freed = 0;
        while freed < amount {
            let swept = self.sweep_for_room(amount - freed, judge, leaving);
            freed += swept;
            if swept == 0 {
                let Some(seat) = self.policy.evict(newcomer.as_deref_mut(), &self.table) else { break };
                let victim = self.unlink(seat);
                freed += victim.meta.weight;
                let cause = judge.cause_of_death(&victim.meta).unwrap_or(RemovalCause::Evicted);
                leaving.push(victim, cause);
            }
        }
        freed
    }

    /// Reclaims some of the dead, if any are met soon, and returns what they weighed.
    #[inline]
    fn sweep_for_room(&mut self, enough: u64, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        if self.sweep.is_due(judge) { self.search_for_room(enough, judge, leaving) } else { 0 }
    }

    /// Sweeps for room where there may be something to find.
    #[inline(never)]
    fn search_for_room(&mut self, enough: u64, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        let small = self.table.seats() < SWEEP_FOR_ROOM;
        let steps = if small { SWEEP_FOR_ROOM } else { self.sweep.hope.min(SWEEP_FOR_ROOM) };
        let freed = self.sweep(steps, enough, judge, leaving);
        // Under a storm of bumps that kill next to nothing, searches that find nothing would cost more than all else: they
        // look at fewer and fewer entries, until one is found.
        if freed > 0 {
            self.sweep.hope = SWEEP_FOR_ROOM;
        } else if self.sweep.cursor > 0 {
            self.sweep.hope = (steps / 2).max(SWEEP_IN_PASSING);
        }
        freed
    }

    /// Reclaims the dead among the next few entries, and returns what they weighed.
    #[inline]
    pub(crate) fn sweep_in_passing(&mut self, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        if self.sweep.is_due(judge) { self.sweep(SWEEP_IN_PASSING, u64::MAX, judge, leaving) } else { 0 }
    }

    /// Reclaims all dead entries, and returns what they weighed.
    pub(crate) fn sweep_all(&mut self, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        self.sweep.cursor = 0;
        let freed = self.sweep(usize::MAX, u64::MAX, judge, leaving);
        self.table.shrink();
        freed
    }

    /// Looks at up to `steps` entries, and reclaims the dead among them until they weigh `enough`.
    #[inline(never)]
    fn sweep(&mut self, steps: usize, enough: u64, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        let mut freed = 0;
        if !self.sweep.is_due(judge) {
            return 0;
        }
        // A round that began in an earlier call may have passed who has died since: another goes over all there are.
        let mut ended_one = false;
        for _ in 0..steps {
            if self.sweep.cursor == 0 {
                self.sweep.begin_round(judge.groups.effective_bumps());
            }
            if self.sweep.cursor >= self.table.seats() {
                self.sweep.end_round();
                if ended_one || !self.sweep.is_due(judge) {
                    break;
                }
                ended_one = true;
                continue;
            }
            let seat = Seat::from_index(self.sweep.cursor);
            if let Some(entry) = self.table.at(seat) {
                match judge.cause_of_death(&entry.meta) {
                    None => self.sweep.note_alive(entry.meta.hard()),
                    Some(cause) => {
                        let entry = self.take(seat);
                        freed += entry.meta.weight;
                        leaving.push(entry, cause);
                    }
                }
            }
            self.sweep.cursor += 1;
            if freed >= enough {
                break;
            }
        }
        freed
    }

    pub(crate) fn has_entry(&self, entry: &Handle<K, V>) -> bool {
        self.table.seat_of(entry).is_some()
    }

    /// Has no refresh of the key with this hash begin until then.
    pub(crate) fn pause(&mut self, hash: u64, until: Deadline) {
        self.pauses.begin(hash, until);
    }

    /// Lets a refresh of the key with this hash begin at once.
    pub(crate) fn end_pause(&mut self, hash: u64) {
        self.pauses.end(hash);
    }

    /// Returns until when no refresh of the key with this hash is to begin.
    pub(crate) fn paused_until(&self, hash: u64) -> Deadline {
        self.pauses.until(hash)
    }

    pub(crate) fn flight<Q: Equivalent<K> + ?Sized>(&self, hash: u64, key: &Q) -> Option<&Arc<Flight<K, V>>> {
        // Nearly always there is none at all.
        if self.flights.is_empty() {
            return None;
        }
        self.flights.find(hash, |flight| flight.hash == hash && key.equivalent(&flight.key))
    }

    /// Adds the flight of a key that has none.
    pub(crate) fn start_flight(&mut self, flight: Arc<Flight<K, V>>) {
        self.flights.insert_unique(flight.hash, flight, |flight| flight.hash);
    }

    /// Returns whether this very flight still stands.
    pub(crate) fn has_flight(&self, flight: &Arc<Flight<K, V>>) -> bool {
        self.flights.find(flight.hash, |known| Arc::ptr_eq(known, flight)).is_some()
    }

    /// Takes out this very flight; returns whether it still stood.
    pub(crate) fn end_flight(&mut self, flight: &Arc<Flight<K, V>>) -> bool {
        match self.flights.find_entry(flight.hash, |known| Arc::ptr_eq(known, flight)) {
            Ok(known) => {
                // The caller holds another reference, so that nothing is dropped under the lock.
                known.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Takes out the flight of a key: what it brings will be refused.
    #[inline]
    pub(crate) fn fence<Q: Equivalent<K> + ?Sized>(&mut self, hash: u64, key: &Q) -> Option<Arc<Flight<K, V>>> {
        if self.flights.is_empty() {
            return None;
        }
        let flight = self.flights.find_entry(hash, |flight| flight.hash == hash && key.equivalent(&flight.key)).ok()?;
        Some(flight.remove().0)
    }

    /// Takes out every entry and every flight with this hash, and returns what the entries weighed.
    #[cfg(feature = "tiered")]
    pub(crate) fn remove_hash(&mut self, hash: u64, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        let mut freed = 0;
        let seats: SmallVec<[Seat; 2]> = self.table.with_hash(hash).map(Resident::seat).collect();
        for seat in seats {
            let entry = self.take(seat);
            freed += entry.meta.weight;
            let cause = judge.cause_of_death(&entry.meta).unwrap_or(RemovalCause::Removed);
            leaving.push(entry, cause);
        }
        self.fence_hash(hash, leaving);
        freed
    }

    /// Makes every entry with this hash stale, and takes out every flight with it.
    #[cfg(feature = "tiered")]
    pub(crate) fn expire_hash(&mut self, hash: u64, leaving: &mut Leaving<K, V>) {
        self.table.with_hash(hash).for_each(|entry| entry.meta.expire());
        self.pauses.end(hash);
        self.fence_hash(hash, leaving);
    }

    /// Takes out every flight with this hash.
    #[cfg(feature = "tiered")]
    pub(crate) fn fence_hash(&mut self, hash: u64, leaving: &mut Leaving<K, V>) {
        while let Ok(flight) = self.flights.find_entry(hash, |flight| flight.hash == hash) {
            leaving.push_flight(flight.remove().0);
        }
    }

    /// Returns whether there is an entry or a flight with this hash.
    #[cfg(feature = "tiered")]
    pub(crate) fn knows_hash(&self, hash: u64) -> bool {
        self.table.with_hash(hash).next().is_some() || self.flights.find(hash, |flight| flight.hash == hash).is_some()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Handle<K, V>> {
        self.table.iter().map(Resident::handle)
    }

    /// Returns what all entries weigh, dead ones among them.
    pub(crate) fn weight(&self) -> u64 {
        self.policy.weight()
    }

    /// Returns how many entries there are and what they weigh, without those from before the last `clear`.
    pub(crate) fn census(&self, root: &Group) -> (usize, u64) {
        if root.last_kill() > self.clears.last {
            return (0, 0);
        }
        (self.table.len() - self.clears.doomed, self.policy.weight() - self.clears.doomed_weight)
    }

    /// Panics unless table, policy and sums agree.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        self.policy.validate(&self.table);
        self.table.validate();
        assert_eq!(self.policy.len(), self.table.len());
        let (mut weight, mut doomed, mut doomed_weight) = (0, 0, 0);
        for entry in self.table.iter() {
            weight += entry.meta.weight;
            if entry.meta.born.get() < self.clears.last {
                doomed += 1;
                doomed_weight += entry.meta.weight;
            }
        }
        assert_eq!(self.policy.weight(), weight);
        assert_eq!((self.clears.doomed, self.clears.doomed_weight), (doomed, doomed_weight));
        assert!(self.pauses.iter().all(|hash| self.table.with_hash(hash).next().is_some()));
    }
}

impl<K, V> Residents for Table<Entry<K, V>> {
    #[inline]
    fn profile(&self, seat: Seat) -> Profile<'_> {
        profile(self.resident(seat).get())
    }
}

#[inline]
fn profile<K, V>(entry: &Entry<K, V>) -> Profile<'_> {
    Profile { hash: entry.hash, weight: entry.meta.weight, recency: &entry.meta.recency }
}

/// Returns how many entries a shard will hold once it weighs `share`, if they weigh what those do that it holds.
fn expected(share: u64, len: u64, held: u64) -> usize {
    let expected = u128::from(share) * u128::from(len) / u128::from(held.max(1));
    usize::try_from(expected).unwrap_or(usize::MAX)
}

impl Clears {
    /// Notices a clear since the last look: all that is here now came before it.
    #[inline]
    fn notice(&mut self, root: &Group, len: usize, weight: u64) {
        let last = root.last_kill();
        if last > self.last {
            *self = Clears { last, doomed: len, doomed_weight: weight };
        }
    }
}
