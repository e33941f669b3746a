//! What a shard holds: entries, flights, and the order of eviction.

use equivalent::Equivalent;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::sweep::Sweep;
use super::table::Table;
use crate::entry::{Entry, Judge};
use crate::flight::Flight;
use crate::group::{Generation, Group};
use crate::policy::{AdaptiveFifo, Arrival, EvictionPolicy, NodeId};
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
    table: Table<K, V>,
    policy: AdaptiveFifo<Arc<Entry<K, V>>>,
    flights: HashTable<Arc<Flight<K, V>>>,
    sweep: Sweep,
    clears: Clears,
}

/// Which entries came before the last `clear`, so that they need not be counted one by one.
#[derive(Debug)]
struct Clears {
    /// The clear that this shard has noticed.
    last: Generation,
    /// How many it has noticed.
    epoch: u32,
    /// How many entries from before it are still here, and what they weigh.
    doomed: usize,
    doomed_weight: u64,
}

/// An entry that left, and why.
pub(crate) type Left<K, V> = (Arc<Entry<K, V>>, RemovalCause);

/// What an operation took out of a shard, to be told of and dropped once the lock is free.
#[derive(Debug)]
pub(crate) struct Leaving<K, V> {
    pub(crate) entries: SmallVec<[Left<K, V>; 2]>,
    pub(crate) flights: SmallVec<[Arc<Flight<K, V>>; 1]>,
}

impl<K, V> Default for Leaving<K, V> {
    fn default() -> Self {
        Leaving { entries: SmallVec::new(), flights: SmallVec::new() }
    }
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Shard {
            table: Table::default(),
            policy: AdaptiveFifo::default(),
            flights: HashTable::new(),
            sweep: Sweep::default(),
            clears: Clears { last: Generation::ZERO, epoch: 0, doomed: 0, doomed_weight: 0 },
        }
    }
}

impl<K, V> Shard<K, V> {
    #[inline]
    pub(crate) fn find<Q: Equivalent<K> + ?Sized>(&self, hash: u64, key: &Q) -> Option<&Arc<Entry<K, V>>> {
        self.table.find(hash, key)
    }

    /// Notes that an entry is about to come whose key has none.
    pub(crate) fn arrive(&mut self, hash: u64) -> Arrival {
        self.policy.arrive(hash)
    }

    /// Adds an entry whose key has none, and for which there is room.
    pub(crate) fn insert(&mut self, entry: Arc<Entry<K, V>>, arrival: Arrival, root: &Group) {
        self.clears.notice(root, self.table.len(), self.policy.weight());
        self.sweep.note_insert(entry.meta.hard);
        // A bump from here on is another that the sweep hears of.
        if entry.meta.killed(root) {
            self.sweep.note_dead();
        }
        let node = self.policy.insert(entry.clone(), arrival);
        entry.seat.take(node, self.clears.epoch);
        self.table.insert(entry);
    }

    pub(crate) fn remove<Q: Equivalent<K> + ?Sized>(&mut self, hash: u64, key: &Q) -> Option<Arc<Entry<K, V>>> {
        let entry = self.table.remove(hash, key)?;
        self.policy.remove(entry.seat.node());
        self.left(&entry);
        Some(entry)
    }

    /// Removes the entry of a key to which another is about to come, in its place.
    pub(crate) fn succeed<Q>(&mut self, hash: u64, key: &Q) -> Option<(Arc<Entry<K, V>>, Arrival)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let entry = self.table.remove(hash, key)?;
        let (_, arrival) = self.policy.succeed(entry.seat.node());
        self.left(&entry);
        Some((entry, arrival))
    }

    /// Removes exactly this entry; returns whether it was there.
    pub(crate) fn remove_entry(&mut self, entry: &Arc<Entry<K, V>>) -> bool {
        if self.table.remove_entry(entry).is_none() {
            return false;
        }
        self.policy.remove(entry.seat.node());
        self.left(entry);
        true
    }

    /// Frees `amount` of weight as far as that is possible, dead entries first, and returns how much it was. For a newcomer
    /// to this shard, or for something elsewhere.
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
                let Some(victim) = self.policy.evict(newcomer.as_deref_mut()) else { break };
                freed += victim.meta.weight;
                let cause = judge.cause_of_death(&victim.meta).unwrap_or(RemovalCause::Evicted);
                if self.table.remove_entry(&victim).is_some() {
                    self.left(&victim);
                }
                leaving.entries.push((victim, cause));
            }
        }
        freed
    }

    /// Reclaims some of the dead, if any are met soon, and returns what they weighed.
    fn sweep_for_room(&mut self, enough: u64, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        if !self.sweep.is_due(judge) {
            return 0;
        }
        let small = self.policy.nodes() < SWEEP_FOR_ROOM;
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
    pub(crate) fn sweep_in_passing(&mut self, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        self.sweep(SWEEP_IN_PASSING, u64::MAX, judge, leaving)
    }

    /// Reclaims all dead entries, and returns what they weighed.
    pub(crate) fn sweep_all(&mut self, judge: &Judge<'_>, leaving: &mut Leaving<K, V>) -> u64 {
        self.sweep.cursor = 0;
        let freed = self.sweep(usize::MAX, u64::MAX, judge, leaving);
        self.table.shrink();
        freed
    }

    /// Looks at up to `steps` entries, and reclaims the dead among them until they weigh `enough`.
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
            if self.sweep.cursor >= self.policy.nodes() {
                self.sweep.end_round();
                if ended_one || !self.sweep.is_due(judge) {
                    break;
                }
                ended_one = true;
                continue;
            }
            if let Some(entry) = self.policy.resident(NodeId::from_index(self.sweep.cursor)) {
                match judge.cause_of_death(&entry.meta) {
                    None => self.sweep.note_alive(entry.meta.hard),
                    Some(cause) => {
                        let entry = entry.clone();
                        freed += entry.meta.weight;
                        self.remove_entry(&entry);
                        leaving.entries.push((entry, cause));
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

    #[cfg(feature = "tiered")]
    pub(crate) fn has_entry(&self, entry: &Arc<Entry<K, V>>) -> bool {
        self.table.has(entry)
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
        while let Some(entry) = self.table.remove_hash(hash) {
            self.policy.remove(entry.seat.node());
            self.left(&entry);
            freed += entry.meta.weight;
            let cause = judge.cause_of_death(&entry.meta).unwrap_or(RemovalCause::Removed);
            leaving.entries.push((entry, cause));
        }
        self.fence_hash(hash, leaving);
        freed
    }

    /// Makes every entry with this hash stale, and takes out every flight with it.
    #[cfg(feature = "tiered")]
    pub(crate) fn expire_hash(&mut self, hash: u64, leaving: &mut Leaving<K, V>) {
        self.table.with_hash(hash).for_each(|entry| entry.meta.expire());
        self.fence_hash(hash, leaving);
    }

    #[cfg(feature = "tiered")]
    fn fence_hash(&mut self, hash: u64, leaving: &mut Leaving<K, V>) {
        while let Ok(flight) = self.flights.find_entry(hash, |flight| flight.hash == hash) {
            leaving.flights.push(flight.remove().0);
        }
    }

    /// Returns whether there is an entry or a flight with this hash.
    #[cfg(feature = "tiered")]
    pub(crate) fn knows_hash(&self, hash: u64) -> bool {
        self.table.with_hash(hash).next().is_some() || self.flights.find(hash, |flight| flight.hash == hash).is_some()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry<K, V>>> {
        self.table.iter()
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

    /// Keeps the sums right once an entry has left the table and the policy.
    fn left(&mut self, entry: &Entry<K, V>) {
        if entry.seat.epoch() != self.clears.epoch {
            self.clears.doomed -= 1;
            self.clears.doomed_weight -= entry.meta.weight;
        }
    }

    /// Panics unless table, policy and sums agree.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        self.policy.validate();
        let (mut weight, mut doomed, mut doomed_weight) = (0, 0, 0);
        for entry in self.table.iter() {
            weight += entry.meta.weight;
            let resident = self.policy.resident(entry.seat.node()).expect("every entry has a node");
            assert!(Arc::ptr_eq(resident, entry));
            if entry.seat.epoch() != self.clears.epoch {
                doomed += 1;
                doomed_weight += entry.meta.weight;
            }
        }
        assert_eq!(self.policy.weight(), weight);
        assert_eq!((self.clears.doomed, self.clears.doomed_weight), (doomed, doomed_weight));
    }
}

impl Clears {
    /// Notices a clear since the last look: all that is here now came before it.
    fn notice(&mut self, root: &Group, len: usize, weight: u64) {
        let last = root.last_kill();
        if last > self.last {
            *self = Clears { last, epoch: self.epoch.wrapping_add(1), doomed: len, doomed_weight: weight };
        }
    }
}
