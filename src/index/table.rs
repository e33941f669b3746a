//! The writer's side: a table that grows, and shrinks, a few entries at a time.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use super::handle::Handle;
use super::limbo::{Shared, Unlinked};
use super::lines::{LOAD, Lines, Place, View};
use super::pool::{Numbering, Pool, Slot};
use super::{Indexed, Seat};
use crate::sync::{Arc, Ordering};

/// How many buckets an insert moves to a table that has just been made: so that readers, who meanwhile look into both, do so
/// for few inserts, and none of those moves more than 28 entries.
const MOVES: usize = 4;

/// Tables that take no more entries than this never shrink.
const KEPT: usize = 64;

/// How much larger a table is made than for the entries expected: one part in this many. Shards are never quite equal; and the
/// fuller a table, the more entries are in another bucket than their own once many have come and gone: three in ten with this.
const SPARE: usize = 8;

/// The writer's side of one shard: behind the shard's lock.
///
/// Maps keys to entries, for one writer at a time and, through [`Index`](super::Index), readers without a lock.
pub(crate) struct Table<T> {
    shared: Arc<Shared<T>>,
    /// Which of the roots is this table's: nobody else writes to it.
    index: usize,
    /// Where its entries are made. Stays while `shared` does.
    pool: NonNull<Pool<T>>,
    len: usize,
    current: Option<Lines<T>>,
    moving: Option<Moving<T>>,
    numbering: Numbering,
    /// The first slot of each chunk of the pool, as far as its entries have come here; null before the first has.
    chunks: Vec<*mut Slot<T>>,
    /// One past the largest seat that was ever taken here.
    seats: usize,
}

/// A table whose entries are being moved to the present one, which leads to it.
struct Moving<T> {
    from: Lines<T>,
    /// Buckets below this are empty.
    next: usize,
}

// SAFETY: `Lines` are memory that this table alone frees and writes to; slots hold entries that under these bounds may be sent
// and shared. What else there is may be.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: shared references only read, atomically, and hand out references and handles to entries, which are `Sync`.
unsafe impl<T: Send + Sync> Sync for Table<T> {}

/// An entry in a table, for as long as the table is borrowed.
pub(crate) struct Resident<'a, T> {
    slot: NonNull<Slot<T>>,
    table: PhantomData<&'a T>,
}

/// A table, a place in it, and the entry that is there.
type Located<'a, T> = (View<'a, T>, Place<'a, T>, NonNull<Slot<T>>);

impl<T> Table<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, index: usize) -> Table<T> {
        let pool = shared.pools[index];
        // SAFETY: the pools stay while `shared` does.
        let numbering = unsafe { pool.as_ref() }.numbering();
        Table { shared, index, pool, len: 0, current: None, moving: None, numbering, chunks: Vec::new(), seats: 0 }
    }

    fn pool(&self) -> &Pool<T> {
        // SAFETY: the pools stay while `shared` does.
        unsafe { self.pool.as_ref() }
    }
}

impl<T: Indexed> Table<T> {
    /// Returns the entry with this hash that `is_it` takes.
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<Resident<'_, T>> {
        let (_, _, slot) = self.locate(hash, |slot| is_it(Resident::new(slot).get()))?;
        Some(Resident::new(slot))
    }

    /// Returns the entries with this hash: as a rule none or one.
    #[cfg(any(test, feature = "tiered"))]
    pub(crate) fn with_hash(&self, hash: u64) -> impl Iterator<Item = Resident<'_, T>> {
        let mut found = smallvec::SmallVec::<[Resident<'_, T>; 2]>::new();
        self.locate(hash, |slot| {
            let resident = Resident::new(slot);
            if resident.hash() == hash {
                found.push(resident);
            }
            false
        });
        found.into_iter()
    }

    /// Returns the entry at a seat of this table; `None` where there is none at present.
    #[inline]
    pub(crate) fn at(&self, seat: Seat) -> Option<Resident<'_, T>> {
        if seat.index() >= self.seats {
            return None;
        }
        let (chunk, position) = self.numbering.split(seat);
        let first = NonNull::new(self.chunks[chunk])?;
        // SAFETY: the chunk has that many slots, and stays while the pool is held, as it is by `shared`.
        let slot = unsafe { first.add(position) };
        // SAFETY: it has been taken before: slots are taken for the first time in the order of their seats, under the pool's
        // lock, and the last of those below `seats` is here. Relaxed: written under the lock of this table.
        let linked = unsafe { Slot::linked(slot) }.load(Ordering::Relaxed);
        linked.then(|| Resident::new(slot))
    }

    /// Returns the entry at a seat, which must be taken.
    #[inline]
    pub(crate) fn resident(&self, seat: Seat) -> Resident<'_, T> {
        let Some(resident) = self.at(seat) else { panic!("there is no entry at {seat:?}") };
        resident
    }

    /// Returns one past the largest seat that was ever taken.
    pub(crate) fn seats(&self) -> usize {
        self.seats
    }

    /// Adds an entry made for this table whose key has none, and returns its seat. `expected` is how many entries the table
    /// will hold as far as is known: it is not made much larger than for them, nor much smaller once that many are near.
    ///
    /// Moves a few entries while the table grows, and allocates where it begins to.
    ///
    /// # Panics
    /// If the entry was made for another table, or is in this one.
    pub(crate) fn insert(&mut self, entry: Handle<T>, expected: impl FnOnce() -> usize) -> Seat {
        let hash = entry.hash();
        let slot = entry.slot();
        // SAFETY: there is a handle.
        let (pool, linked) = unsafe { (Slot::pool(slot), Slot::linked(slot)) };
        // What follows leaves a reader or writer with an address of nothing if it is not so.
        assert!(pool == self.pool, "an entry goes into the table that it was made for");
        assert!(!linked.load(Ordering::Relaxed), "an entry goes into a table once");
        if self.len >= self.current.map_or(0, |lines| self.room(lines)) {
            self.resize(self.grown(expected()));
        }
        let seat = self.seat(entry.slot());
        let Some(lines) = self.current else { unreachable!("a table that has grown is there") };
        linked.store(true, Ordering::Relaxed);
        self.view_of(lines).put(hash, entry.into_slot());
        self.shared.roots.of(self.index).end_succession();
        self.len += 1;
        if self.moving.is_some() {
            self.move_on(MOVES);
        }
        seat
    }

    /// Says that the next entry to be [unlinked](Self::unlink) has a successor, which will be [inserted](Self::insert) before
    /// the table's lock is free, unless it is [said](Self::expect_none) that there is none. Until it is, readers who miss any entry are told to look under the lock.
    pub(crate) fn expect_successor(&mut self) {
        self.shared.roots.of(self.index).begin_succession();
    }

    /// Says that what was unlinked has no successor after all.
    pub(crate) fn expect_none(&mut self) {
        self.shared.roots.of(self.index).end_succession();
    }

    /// Takes out the entry at a seat, which must be taken.
    pub(crate) fn unlink(&mut self, seat: Seat) -> Unlinked<T> {
        let resident = self.resident(seat);
        let slot = resident.slot;
        let (hash, weight) = (resident.hash(), resident.weight());
        // Nearly all are in the bucket where the search begins.
        match self.current.and_then(|lines| self.view_of(lines).first_place_of(hash, slot)) {
            Some(place) => place.empty(),
            None => self.take_further(hash, slot),
        }
        // SAFETY: it is taken. Relaxed: read under the lock of this table.
        unsafe { Slot::linked(slot) }.store(false, Ordering::Relaxed);
        self.len -= 1;
        // SAFETY: the entry came with a count, which nobody else has given away, and is in no place any more.
        unsafe { Unlinked::new(slot, weight) }
    }

    /// Empties the place of an entry that is not in the bucket where the search for it begins.
    #[inline(never)]
    fn take_further(&self, hash: u64, slot: NonNull<Slot<T>>) {
        let Some((table, place, _)) = self.locate(hash, |other| other == slot) else {
            unreachable!("an entry whose hash has changed")
        };
        table.take(hash, &place);
    }

    /// Returns the seat of this very entry, if it is in this table.
    pub(crate) fn seat_of(&self, entry: &Handle<T>) -> Option<Seat> {
        let slot = entry.slot();
        // SAFETY: there is a handle. Relaxed: written under the lock of this table, if the entry was made for it.
        unsafe {
            let is_here = Slot::pool(slot) == self.pool && Slot::linked(slot).load(Ordering::Relaxed);
            is_here.then(|| Slot::seat(slot))
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns all entries, by their seats.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Resident<'_, T>> {
        (0..self.seats).filter_map(|seat| self.at(Seat::from_index(seat)))
    }

    /// Gives memory back once the table is mostly empty. Takes time in proportion to what is left.
    pub(crate) fn shrink(&mut self) {
        let Some(lines) = self.current else { return };
        if self.room(lines) > KEPT && self.len < self.room(lines) / 8 {
            self.resize((2 * self.len).div_ceil(LOAD).max(1));
            self.move_on(usize::MAX);
        }
    }

    /// Asserts that each entry is in one place, can be found there, and knows that it is.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        // SAFETY: what is in a place is freed after it has been removed from there, for which this table is borrowed.
        let hash = |slot: NonNull<Slot<T>>| unsafe {
            assert!(Slot::linked(slot).load(Ordering::Relaxed));
            Slot::entry(slot).as_ref().hash()
        };
        let current = self.current.map_or(0, |lines| self.view_of(lines).validate(hash, false));
        let moving = self.moving.as_ref().map_or(0, |moving| self.view_of(moving.from).validate(hash, true));
        assert_eq!(current + moving, self.len);
        assert_eq!(self.iter().count(), self.len);
    }

    /// Returns whether a table that was replaced waits to be freed.
    #[cfg(all(test, not(larder_loom)))]
    pub(super) fn has_replaced(&self) -> bool {
        self.pool().state().lock().waiting.has_table()
    }

    /// Returns how many entries the table takes as it is.
    #[cfg(all(test, not(larder_loom)))]
    pub(super) fn room_now(&self) -> usize {
        self.current.map_or(0, |lines| self.room(lines))
    }

    /// Returns how many buckets a table that is full is to have.
    fn grown(&self, expected: usize) -> usize {
        let Some(lines) = self.current else { return 1 };
        let buckets = self.view_of(lines).buckets();
        let enough = expected.saturating_add(expected / SPARE).div_ceil(LOAD);
        if buckets >= enough {
            return buckets + buckets / 4 + 1;
        }
        // Each step doubles, and the last comes to what is enough: so a table is never much larger than it has to be, and a
        // cache that stays half full has one of half the size, instead of one into which half of its entries were not moved.
        let mut next = enough;
        while next.div_ceil(2) > buckets {
            next = next.div_ceil(2);
        }
        next
    }

    /// Notes where an entry that has come is, and returns its seat.
    #[inline]
    fn seat(&mut self, slot: NonNull<Slot<T>>) -> Seat {
        // SAFETY: it is taken: the entry is here.
        let (seat, first) = unsafe { (Slot::seat(slot), Slot::first(slot)) };
        let (chunk, _) = self.numbering.split(seat);
        match self.chunks.get_mut(chunk) {
            Some(known) => *known = first.as_ptr(),
            None => {
                self.chunks.resize(chunk, std::ptr::null_mut());
                self.chunks.push(first.as_ptr());
            }
        }
        self.seats = self.seats.max(seat.index() + 1);
        seat
    }

    /// Puts an empty table in the place of the present one, whose entries are moved to it from now on.
    fn resize(&mut self, buckets: usize) {
        // By the choice of `MOVES` long done, unless the table was shrunk.
        self.move_on(usize::MAX);
        let lines = Lines::allocate(buckets);
        self.view_of(lines).set_previous(self.current);
        self.shared.roots.set_current(self.index, lines);
        self.moving = self.current.map(|from| Moving { from, next: 0 });
        self.current = Some(lines);
    }

    /// Moves the entries of the next few buckets, if there is a table to be moved.
    fn move_on(&mut self, buckets: usize) {
        let (Some(moving), Some(to)) = (&mut self.moving, self.current) else { return };
        // SAFETY: its pool gets it below, when all is done.
        let from = unsafe { moving.from.view() };
        // SAFETY: this table alone retires it, once another has taken its place.
        let to = unsafe { to.view() };
        for _ in 0..buckets.min(from.buckets() - moving.next) {
            for (_, slot) in from.entries_of(moving.next) {
                // SAFETY: the entry of a place is freed after it has been removed from there, for which this table is borrowed.
                let hash = unsafe { Slot::entry(slot).as_ref() }.hash();
                to.put(hash, slot);
            }
            // There before they are gone here: a reader that looks there first and here after may miss them all the same, but
            // it notices.
            self.shared.roots.of(self.index).move_version();
            from.entries_of(moving.next).for_each(|(place, _)| place.empty());
            moving.next += 1;
        }
        if moving.next == from.buckets() {
            to.set_previous(None);
            let from = moving.from;
            self.moving = None;
            self.pool().state().lock().waiting.add_table(from);
        }
    }

    /// Returns the place with this hash whose entry `is_it` takes, where it is, and the entry.
    #[inline]
    fn locate(&self, hash: u64, mut is_it: impl FnMut(NonNull<Slot<T>>) -> bool) -> Option<Located<'_, T>> {
        let mut table = self.view_of(self.current?);
        let mut moving = self.moving.as_ref();
        loop {
            if let Some((place, slot)) = table.find(hash, |_, slot| is_it(slot)) {
                return Some((table, place, slot));
            }
            table = self.view_of(moving.take()?.from);
        }
    }

    /// Returns a look at the present table, or at the one that is moved to it.
    fn view_of(&self, lines: Lines<T>) -> View<'_, T> {
        // SAFETY: the pool gets it after another has taken its place, or all its entries were moved, for which this table is
        // borrowed.
        unsafe { lines.view() }
    }

    /// Returns how many entries a table takes.
    fn room(&self, lines: Lines<T>) -> usize {
        LOAD * self.view_of(lines).buckets()
    }
}

impl<T> Clone for Resident<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Resident<'_, T> {}

impl<'a, T> Resident<'a, T> {
    /// Of an entry that stands in a table for which `'a` is borrowed.
    #[inline]
    fn new(slot: NonNull<Slot<T>>) -> Resident<'a, T> {
        Resident { slot, table: PhantomData }
    }

    #[inline]
    pub(crate) fn seat(self) -> Seat {
        // SAFETY: the table has a count of it.
        unsafe { Slot::seat(self.slot) }
    }

    pub(crate) fn handle(self) -> Handle<T> {
        // SAFETY: the table has a count of it, which is given up after the entry has left it.
        unsafe { Handle::another(self.slot) }
    }

    /// Returns the entry for as long as the table is borrowed.
    #[inline]
    pub(crate) fn get(self) -> &'a T {
        // SAFETY: the entry is dropped after it has left the table.
        unsafe { Slot::entry(self.slot).as_ref() }
    }
}

impl<T> Deref for Resident<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.get()
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len).field("seats", &self.seats).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Resident<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident").field("slot", &self.slot).finish_non_exhaustive()
    }
}
