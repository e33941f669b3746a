//! Limbo: what can be reached no longer, and may still be looked at.
//!
//! What leaves a table waits with its pool until somebody *proves* that no reader looks at it: when enough has come together,
//! in all pools of an index, one thread takes it all, passes one heavy barrier and looks at the hazards once. What none of
//! them names is *proven*, and each entry that is made afterwards takes the slot of one of those, which is dropped there and
//! then; where more leave than are made, each takes one along. So entries are dropped one by one, at the pace at which others
//! come, as allocators like it.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use super::handle::Handle;
use super::hazard::Domain;
use super::lines::{Lines, View};
use super::pool::{Pool, Slot};
use super::read::Roots;
use crate::sync::model::Mutex;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Ordering, Padded, thread_local};

/// How many entries of an index may wait for a proof: so many that the heavy barrier, which takes ten microseconds where other
/// threads run, is little for each of them, and few enough to be nothing beside a cache of some size.
const MOST: usize = 512;

/// Which part of the capacity may wait for a proof, by weight, so that heavy values do not pile up.
const PART: u64 = 16;

/// How much may wait in a small cache all the same, so that it does not pay for a barrier with every insert...
const LITTLE: u64 = 64;

/// ...and which part of the capacity even then.
const SMALL_PART: u64 = 4;

/// In how many parts all pools together would report what may wait if each had as much of it: what they keep to themselves,
/// so that they need not write to the sums each time, is less than one in this many.
const REPORTS: usize = 4;

/// How many drops of proven entries may run within each other: one that takes out another entry has further ones dropped.
/// Deeper down, entries only join those that wait.
const DEPTH: u8 = 8;

/// How many proven entries are taken from a pool at a time, where all are.
const TAKEN: usize = 16;

/// What an index and its tables share.
pub(super) struct Shared<T> {
    pub(super) roots: Roots<T>,
    pub(super) pools: Box<[NonNull<Pool<T>>]>,
    ledger: Arc<Ledger>,
    /// Held by whoever proves: the tables that readers looked at last time. Nothing foreign runs under it, but the heavy
    /// barrier does.
    turn: Mutex<Vec<Lines<T>>>,
    /// Where readers publish their hazards.
    domain: &'static Domain,
}

/// What waits for a proof in all pools of an index, as far as they have reported, and how much may.
#[derive(Debug)]
pub(super) struct Ledger {
    sums: Padded<Sums>,
    /// How much may wait, by weight.
    heavy: AtomicU64,
    pools: usize,
    /// From how many entries, and what weight, a pool reports.
    quota: usize,
    heavy_quota: AtomicU64,
}

#[derive(Debug, Default)]
struct Sums {
    entries: AtomicUsize,
    weight: AtomicU64,
}

/// What has left the table of a pool. Each entry is here with the table's count of it.
pub(super) struct Waiting<T> {
    /// Not reachable since before it came here; of some, an earlier proof failed, because they were looked at.
    unproven: Vec<NonNull<Slot<T>>>,
    /// What whoever proves is at work on.
    checking: Vec<NonNull<Slot<T>>>,
    /// Looked at by nobody, now or later.
    proven: Vec<NonNull<Slot<T>>>,
    /// How many were proven after the last proof. While no more are here, all told, entries that are made are fast enough to
    /// take all proven ones before the next proof.
    usual: usize,
    tables: Vec<Lines<T>>,
    /// How many of `unproven` were not reported, and what they weigh.
    entries: usize,
    weight: u64,
}

/// A proven entry with the table's count of it: to be dropped outside of locks.
pub(super) struct Proven<T> {
    // Dropped in this order.
    entry: Handle<T>,
    _within: Within,
}

/// An entry that has left its table, and that readers may still look at. To be dropped outside of locks: the entry is
/// then put with those that wait until nobody looks at them, and one that has waited long enough may be dropped.
pub(crate) struct Unlinked<T> {
    slot: NonNull<Slot<T>>,
    weight: u64,
}

// SAFETY: as for the `Handle` that it holds a count like.
unsafe impl<T: Send + Sync> Send for Unlinked<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Unlinked<T> {}

impl<T> Unlinked<T> {
    /// # Safety
    /// The count of the table that held the entry is nobody else's, and neither place nor table leads to the entry any more.
    pub(super) unsafe fn new(slot: NonNull<Slot<T>>, weight: u64) -> Unlinked<T> {
        Unlinked { slot, weight }
    }

    #[cfg(test)]
    pub(crate) fn handle(&self) -> Handle<T> {
        // SAFETY: the table's count is not given up before this is dropped.
        unsafe { Handle::another(self.slot) }
    }
}

impl<T> Deref for Unlinked<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the table's count is not given up before this is dropped.
        unsafe { Slot::entry(self.slot).as_ref() }
    }
}

impl<T> Drop for Unlinked<T> {
    fn drop(&mut self) {
        // SAFETY: the slot is taken while there is a count, and the pool stays while a slot is taken.
        let pool = unsafe { Slot::pool(self.slot).as_ref() };
        let mut state = pool.state().lock();
        if !state.held {
            // Neither index nor table is left, and so no reader.
            drop(state);
            // SAFETY: the table's count is this one's.
            drop(unsafe { Handle::from_slot(self.slot) });
            return;
        }
        let is_due = state.waiting.add(self.slot, self.weight, &pool.ledger);
        // Dropped below, outside of all locks, even if what comes before panics.
        let _proven = if state.waiting.is_more_than_usual() { state.waiting.take_one() } else { None };
        let shared = if is_due { pool.shared.upgrade() } else { None };
        // From here on somebody else may prove, and drop, the entry, and the pool with it.
        drop(state);
        if let Some(shared) = shared {
            shared.prove_in_passing();
        }
    }
}

impl<T> fmt::Debug for Unlinked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unlinked").finish_non_exhaustive()
    }
}

impl Ledger {
    pub(super) fn new(pools: usize, capacity: u64) -> Ledger {
        let ledger = Ledger {
            sums: Padded::default(),
            heavy: AtomicU64::new(0),
            pools,
            quota: MOST / (REPORTS * pools.max(1)),
            heavy_quota: AtomicU64::new(0),
        };
        ledger.set_capacity(capacity);
        ledger
    }

    pub(super) fn set_capacity(&self, capacity: u64) {
        let heavy = (capacity / PART).max(LITTLE.min(capacity / SMALL_PART));
        self.heavy.store(heavy, Ordering::Relaxed);
        self.heavy_quota.store(heavy / (REPORTS * self.pools.max(1)) as u64, Ordering::Relaxed);
    }

    /// Returns whether what waits is `times` as much as may.
    fn is_due(&self, times: usize) -> bool {
        // Relaxed, here and below: the sums decide when to prove, and nothing about what is proven.
        self.is_too_much(self.sums.entries.load(Ordering::Relaxed), self.sums.weight.load(Ordering::Relaxed), times)
    }

    fn is_too_much(&self, entries: usize, weight: u64, times: usize) -> bool {
        entries >= times * MOST || weight >= self.heavy.load(Ordering::Relaxed).saturating_mul(times as u64)
    }

    /// Returns whether a pool need not report this yet.
    #[inline]
    fn is_little(&self, entries: usize, weight: u64) -> bool {
        entries < self.quota && weight < self.heavy_quota.load(Ordering::Relaxed)
    }

    /// Adds what a pool has to report. Returns whether a proof is due.
    fn report(&self, entries: usize, weight: u64) -> bool {
        let entries = self.sums.entries.fetch_add(entries, Ordering::Relaxed) + entries;
        // Wraps where weights are beyond all measure, for which a proof too early or too late is no harm.
        let weight = self.sums.weight.fetch_add(weight, Ordering::Relaxed).wrapping_add(weight);
        self.is_too_much(entries, weight, 1)
    }

    fn reset(&self) {
        self.sums.entries.store(0, Ordering::Relaxed);
        self.sums.weight.store(0, Ordering::Relaxed);
    }
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Waiting<T> {
        Waiting {
            unproven: Vec::new(),
            checking: Vec::new(),
            proven: Vec::new(),
            usual: 0,
            tables: Vec::new(),
            entries: 0,
            weight: 0,
        }
    }

    /// Adds an entry that no place holds any more. Returns whether a proof is due.
    fn add(&mut self, slot: NonNull<Slot<T>>, weight: u64, ledger: &Ledger) -> bool {
        self.unproven.push(slot);
        self.entries += 1;
        self.weight = self.weight.saturating_add(weight);
        if ledger.is_little(self.entries, self.weight) {
            return false;
        }
        ledger.report(std::mem::take(&mut self.entries), std::mem::take(&mut self.weight))
    }

    /// Adds a table that neither root nor other table leads to any more.
    pub(super) fn add_table(&mut self, table: Lines<T>) {
        self.tables.push(table);
    }

    pub(super) fn has_table(&self) -> bool {
        !self.tables.is_empty()
    }

    fn is_more_than_usual(&self) -> bool {
        self.unproven.len() + self.proven.len() > self.usual
    }

    /// Takes out a proven entry, unless this thread drops others already, too deep within each other.
    pub(super) fn take_one(&mut self) -> Option<Proven<T>> {
        if self.proven.is_empty() {
            return None;
        }
        let within = Within::enter()?;
        self.pop().map(|entry| Proven { entry, _within: within })
    }

    /// Takes out a proven entry, with the table's count of it.
    fn pop(&mut self) -> Option<Handle<T>> {
        // SAFETY: the count came here with the entry. Nobody looks at it any more, so it may be given up.
        self.proven.pop().map(|slot| unsafe { Handle::from_slot(slot) })
    }

    /// Sorts what is being checked into what a reader looks at, by the addresses in `published`, and what is proven.
    fn sort(&mut self, published: &[usize]) {
        for slot in self.checking.drain(..) {
            let is_free = published.binary_search(&slot.addr().get()).is_err();
            if is_free { self.proven.push(slot) } else { self.unproven.push(slot) }
        }
        self.usual = self.proven.len();
    }
}

impl<T> Proven<T> {
    /// Drops the entry as far as this is its last handle: then its slot is the caller's, taken still.
    #[inline]
    pub(super) fn vacate(self) -> Option<NonNull<Slot<T>>> {
        let Proven { entry, _within } = self;
        entry.vacate()
    }
}

impl<T> Shared<T> {
    pub(super) fn new(
        roots: Roots<T>,
        pools: Box<[NonNull<Pool<T>>]>,
        ledger: Arc<Ledger>,
        domain: &'static Domain,
    ) -> Shared<T> {
        Shared { roots, pools, ledger, turn: Mutex::new(Vec::new()), domain }
    }

    pub(super) fn domain(&self) -> &'static Domain {
        self.domain
    }

    pub(super) fn set_capacity(&self, capacity: u64) {
        self.ledger.set_capacity(capacity);
    }

    fn pools(&self) -> impl Iterator<Item = &Pool<T>> {
        // SAFETY: pools are let go when this is dropped.
        self.pools.iter().map(|pool| unsafe { pool.as_ref() })
    }

    /// Proves what waits, unless somebody else is at it.
    ///
    /// Runs `Drop` of entries: not to be called with any lock.
    pub(super) fn prove_in_passing(&self) {
        // So that no more is proven and not dropped than one proof finds, whichever pools the entries come from.
        self.drop_proven();
        let mut turn = match self.turn.try_lock() {
            Some(turn) => turn,
            // Whoever proves is slower than the others. They wait, or there would be no end to what waits.
            None if self.ledger.is_due(2) => {
                let turn = self.turn.lock();
                if !self.ledger.is_due(1) {
                    return;
                }
                turn
            }
            None => return,
        };
        self.prove(&mut turn);
    }

    /// Proves what waits, unless somebody else is at it, and frees tables alone.
    pub(super) fn prove_without_drops(&self) {
        if let Some(mut turn) = self.turn.try_lock() {
            self.prove(&mut turn);
        }
    }

    /// Drops what waits and nobody looks at.
    ///
    /// Runs `Drop` of entries: not to be called with any lock.
    pub(super) fn reclaim(&self) {
        let mut turn = self.turn.lock();
        self.prove(&mut turn);
        drop(turn);
        self.drop_proven();
    }

    /// Looks at what has left the tables by now, and at what readers look at. For whoever has the turn.
    fn prove(&self, tables: &mut Vec<Lines<T>>) {
        // First, so that whatever comes to the lists after they were taken is counted.
        self.ledger.reset();
        for pool in self.pools() {
            let waiting = &mut pool.state().lock().waiting;
            debug_assert!(waiting.checking.is_empty());
            std::mem::swap(&mut waiting.unproven, &mut waiting.checking);
            (waiting.entries, waiting.weight) = (0, 0);
            tables.append(&mut waiting.tables);
        }
        // Each of these was made unreachable before it came to its list: no place held the entry, neither root nor table led
        // to the table. That was before the heavy barrier in `published`, by the lock of the pool, under which it was put
        // there and taken. A reader that had published it before its own side of that barrier is seen here, or had withdrawn
        // it with a Release that the Acquire there pairs with; one that did later finds, with the look that follows, that
        // the place it came from holds something else, and lets go of it. Nobody can come to it from now on.
        //
        // Without a barrier nothing is known of the readers, and all has to wait for the next attempt.
        let published = self.domain.published();
        for pool in self.pools() {
            let waiting = &mut pool.state().lock().waiting;
            match &published {
                Some(published) => waiting.sort(published),
                None => {
                    let checking = &mut waiting.checking;
                    waiting.unproven.append(checking);
                }
            }
        }
        let Some(published) = published else { return };
        for table in tables.extract_if(.., |table| published.binary_search(&table.address().addr()).is_err()) {
            // SAFETY: by the argument above. It was put on a list once, by the writer that had replaced it.
            unsafe { table.free() };
        }
    }

    /// Drops what has been proven so far.
    fn drop_proven(&self) {
        let Some(_within) = Within::enter() else { return };
        for pool in self.pools() {
            let mut left = pool.state().lock().waiting.proven.len();
            while left > 0 {
                let mut state = pool.state().lock();
                let taken = [(); TAKEN].map(|()| state.waiting.pop());
                drop(state);
                left = left.saturating_sub(TAKEN);
                drop(taken);
            }
        }
    }
}

impl<T> Drop for Shared<T> {
    /// Gives up all entries of the tables, and all that wait. By now nobody looks at any of them: readers borrow the index,
    /// and writers have a table, which both hold on to this.
    fn drop(&mut self) {
        let mut all = Vec::new();
        let mut tables = std::mem::take(&mut *self.turn.lock());
        for root in self.roots.iter() {
            let mut next = root.table();
            while let Some(lines) = next {
                // SAFETY: it is freed below.
                let table: View<'_, T> = unsafe { lines.view() };
                for at in 0..table.buckets() {
                    // SAFETY: a place stands for a count of its entry, which nobody will take from there any more.
                    all.extend(table.entries_of(at).map(|(_, slot)| unsafe { Handle::from_slot(slot) }));
                }
                next = table.previous();
                tables.push(lines);
            }
        }
        for &pool in &self.pools {
            // SAFETY: pools are let go here alone.
            let waiting = unsafe { Pool::let_go(pool) };
            // SAFETY: each has come with a count of its entry, and nobody looks at it any more.
            let handle = |slot| unsafe { Handle::from_slot(slot) };
            all.extend([waiting.unproven, waiting.checking, waiting.proven].into_iter().flatten().map(handle));
            tables.extend(waiting.tables);
        }
        for table in tables {
            // SAFETY: nobody looks at it any more, and it was put on a list once.
            unsafe { table.free() };
        }
        // One that panics as it is dropped keeps none of the others from it.
        drop(all);
    }
}

thread_local! {
    static WITHIN: Cell<u8> = const { Cell::new(0) };
}

/// Says that this thread drops proven entries.
struct Within;

impl Within {
    /// Returns `None` if it does so too deep within itself.
    #[inline]
    fn enter() -> Option<Within> {
        let depth = WITHIN.with(Cell::get);
        (depth < DEPTH).then(|| {
            WITHIN.with(|within| within.set(depth + 1));
            Within
        })
    }
}

impl Drop for Within {
    #[inline]
    fn drop(&mut self) {
        WITHIN.with(|within| within.set(within.get() - 1));
    }
}

// SAFETY: what it shares out among threads are handles, tables and pools, which are `Send` and `Sync` under these bounds.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}
