//! The readers' side: finding an entry, or that there is none, without a lock.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use super::Indexed;
use super::barrier;
use super::handle::Handle;
use super::hazard::{self, Domain, Hold, Read, Reader};
use super::limbo::{Ledger, Shared};
use super::lines::{Found, Header, Lines, Place, View};
use super::pool::{Pool, Slot, Vacancy};
use super::table::Table;
use crate::sync::model::{AtomicPtr, AtomicU64, fence};
use crate::sync::{Arc, Ordering, Padded};

/// The lowest hash bit that chooses a shard.
const SHARD_BITS_FROM: u32 = 40;

/// Searches the tables of a cache, without a lock and without waiting, and makes entries for them.
pub(crate) struct Index<T> {
    roots: Roots<T>,
    shared: Arc<Shared<T>>,
}

/// Where readers and writers of a cache's tables meet: a root for each.
pub(super) struct Roots<T>(Arc<[Padded<Root<T>>]>);

/// Where the readers of one table start, on cache lines that its growth and its replacements alone write to.
pub(super) struct Root<T> {
    /// The present table; null before the first.
    current: AtomicPtr<Header<T>>,
    /// By which a reader that has found nothing knows whether that is an answer: see [`Missed::Absent`]. Odd from before an
    /// entry is taken out that another is to succeed until that one is there; and moves on whenever entries have been put
    /// into another place and are about to be taken out of the one before.
    version: AtomicU64,
}

/// What it means that a reader has found no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// At some moment of the search there was none.
    Absent,
    /// There may be one: it was on its way from one place to another, or could not be looked for.
    Unsure,
}

/// An entry that a reader has found and looks at. Nobody frees it meanwhile.
///
/// Ends on the thread that found it. Many at a time, or within each other, keep that thread's further reads from finding
/// anything.
pub(crate) struct Hit<'a, T> {
    slot: NonNull<Slot<T>>,
    _hold: Hold,
    entry: PhantomData<&'a T>,
}

impl<T: Indexed> Index<T> {
    /// Returns the index of a cache of this capacity, and the tables of its shards.
    pub(crate) fn new(shards: usize, capacity: u64) -> (Index<T>, Vec<Table<T>>) {
        // Makes the process known to the kernel, which may take milliseconds: now, and not at the first hit.
        barrier::kind();
        Index::new_in(hazard::process(), shards, capacity)
    }

    /// Returns an index whose readers publish their hazards in `domain`.
    pub(super) fn new_in(domain: &'static Domain, shards: usize, capacity: u64) -> (Index<T>, Vec<Table<T>>) {
        let roots = Roots((0..shards).map(|_| Padded(Root::new())).collect());
        let ledger = Arc::new(Ledger::new(shards, capacity));
        let each = usize::try_from(capacity / shards.max(1) as u64).unwrap_or(usize::MAX);
        let shared = Arc::new_cyclic(|shared| {
            let pools = (0..shards).map(|_| Pool::new(each, ledger.clone(), shared.clone())).collect();
            Shared::new(roots.clone(), pools, ledger, domain)
        });
        let tables = (0..shards).map(|index| Table::new(shared.clone(), index)).collect();
        (Index { roots, shared }, tables)
    }

    /// Notes another capacity, to which what waits to be dropped is in proportion.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.shared.set_capacity(capacity);
    }

    /// Returns the shard of a hash: chosen by bits above those that choose the bucket, and below the tag's.
    #[inline]
    pub(crate) fn shard_of(&self, hash: u64) -> usize {
        (hash >> SHARD_BITS_FROM) as usize & (self.roots.0.len() - 1)
    }

    /// Finds room for an entry of the table of this shard, which is made right where it is to stay.
    ///
    /// Not to be called with any lock: after a table has grown, it may pay for what frees the old one, and drop entries that
    /// have left.
    #[inline]
    pub(crate) fn vacancy(&self, shard: usize) -> Vacancy<T> {
        // SAFETY: the pools stay while `shared` does.
        let (vacancy, has_table) = unsafe { Pool::vacancy(self.shared.pools[shard]) };
        if has_table {
            self.shared.prove_in_passing();
        }
        vacancy
    }

    /// Makes an entry for the table of this shard, as [`vacancy`](Self::vacancy) has it.
    #[inline]
    pub(crate) fn make(&self, shard: usize, entry: T) -> Handle<T> {
        self.vacancy(shard).fill(entry)
    }

    /// Finds room as [`vacancy`](Self::vacancy) does, but drops no other entry: for a thread that others wait for, of which what
    /// is dropped might be one.
    pub(crate) fn vacancy_without_drops(&self, shard: usize) -> Vacancy<T> {
        // SAFETY: the pools stay while `shared` does.
        let (vacancy, has_table) = unsafe { Pool::vacancy_without_drops(self.shared.pools[shard]) };
        if has_table {
            self.shared.prove_without_drops();
        }
        vacancy
    }

    /// Returns this thread as a reader, for [`find_by`](Self::find_by); `None` while it is being torn down.
    #[inline]
    pub(crate) fn reader(&self) -> Option<Reader> {
        debug_assert!(std::ptr::eq(self.shared.domain(), hazard::process()));
        Reader::current()
    }

    /// Returns the entry with this hash that `is_it` takes, or what it means that none was found.
    ///
    /// `is_it` may be asked about entries that have left, and may itself call this; if it panics, nothing is held on to.
    #[inline]
    pub(crate) fn find(&self, shard: usize, hash: u64, is_it: impl Fn(&T) -> bool) -> Result<Hit<'_, T>, Missed> {
        self.find_by(self.reader().ok_or(Missed::Unsure)?, shard, hash, is_it)
    }

    /// Finds as [`find`](Self::find) does, for who has asked for this thread's [reader](Self::reader) already.
    #[inline]
    pub(crate) fn find_by(
        &self,
        reader: Reader,
        shard: usize,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
    ) -> Result<Hit<'_, T>, Missed> {
        let root: &Root<T> = &self.roots.0[shard];
        // Acquire pairs with the Release in `Root::move_version` and those below it: who sees a version sees all that was put
        // anywhere before it.
        let version = root.version.load(Ordering::Acquire);
        let raw = root.current.load(Ordering::Relaxed);
        let Some(lines) = Lines::from_raw(raw) else { return Err(root.missed(version)) };
        let read = reader.read(lines.address()).ok_or(Missed::Unsure)?;
        // Acquire pairs with the Release in `Roots::set_current`: who sees the table sees it made.
        if root.current.load(Ordering::Acquire) != raw {
            return Err(Missed::Unsure);
        }
        // SAFETY: its address was published before the look that has just found it in the root. Its writer takes it from there
        // before it is retired, and whoever frees it looks at what is published after that, by the argument in `prove`. It
        // stays published while `read` is there, which outlives all use of the view.
        let table = unsafe { lines.view() };
        // Nearly all entries are in the bucket where the search begins: what else there is to do is done elsewhere, so that
        // this is short enough for its callers.
        let at = table.start(hash);
        let hit = match table.find_in(at, hash, |place, slot| look(&read, place, slot, &is_it)) {
            Found::Here(_, slot) => Some(Hit::new(slot, read)),
            Found::PerhapsFurther => search_on(true, read, table, hash, is_it),
            Found::Nowhere if table.is_filling() => search_on(false, read, table, hash, is_it),
            Found::Nowhere => None,
        };
        hit.ok_or_else(|| root.missed(version))
    }

    /// Drops what has left the tables and nobody looks at.
    ///
    /// Runs `Drop` of entries: not to be called with any lock.
    pub(crate) fn reclaim(&self) {
        self.shared.reclaim();
    }
}

/// Publishes what a place held a moment ago, and returns whether it is still there, and `is_it` takes it. It stays published
/// until the next look, or the end of the read.
#[inline]
fn look<T>(read: &Read, place: &Place<'_, T>, slot: NonNull<Slot<T>>, is_it: impl Fn(&T) -> bool) -> bool {
    read.publish_entry(slot.as_ptr().cast());
    if !place.holds(slot) {
        return false;
    }
    // SAFETY: its address was published before the look that has just found it in its place, where the writer put it with a
    // Release that the Acquire of that look pairs with. An entry is in one place, of one table, save while its writer moves
    // it, and is in none when it is retired; whoever frees it looks at what is published after that, by the argument in
    // `prove`. It stays published until another is, or `read` ends.
    is_it(unsafe { Slot::entry(slot).as_ref() })
}

/// Goes on where the first bucket had no answer: in those after it, if there may be one, and in the table whose entries are
/// being moved.
#[inline(never)]
fn search_on<'a, T>(
    further: bool,
    read: Read,
    table: View<'_, T>,
    hash: u64,
    is_it: impl Fn(&T) -> bool,
) -> Option<Hit<'a, T>> {
    let look = |place: &Place<'_, T>, slot| look(&read, place, slot, &is_it);
    if further && let Some((_, slot)) = table.find_after(table.start(hash), hash, look) {
        return Some(Hit::new(slot, read));
    }
    let previous = table.previous()?;
    let published = read.publish_previous(previous.address());
    // Not just the same address, which another table might have by now, but the one that leads on from here: this table
    // never has two. If not, all that it held has been moved, and the version moved with it.
    if table.previous().map(Lines::address) != Some(previous.address()) {
        return None;
    }
    // SAFETY: as for the present table, in which the writer sets `previous` to null before it retires the one before it.
    let (_, slot) = unsafe { previous.view() }.find(hash, look)?;
    drop(published);
    Some(Hit::new(slot, read))
}

impl<T> Hit<'_, T> {
    /// Of an entry that the read has published, and found in its place after that.
    #[inline]
    fn new(slot: NonNull<Slot<T>>, read: Read) -> Self {
        Hit { slot, _hold: read.hold(), entry: PhantomData }
    }

    /// Returns a handle, which keeps the entry beyond this.
    pub(crate) fn handle(&self) -> Handle<T> {
        // SAFETY: the table's count is not given up while the entry is published.
        unsafe { Handle::another(self.slot) }
    }
}

impl<T> Deref for Hit<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the entry is not dropped while it is published.
        unsafe { Slot::entry(self.slot).as_ref() }
    }
}

impl<T> Clone for Roots<T> {
    fn clone(&self) -> Self {
        Roots(self.0.clone())
    }
}

impl<T> Roots<T> {
    /// Makes `table` the one that readers start from in table `index`. For its writer.
    pub(super) fn set_current(&self, index: usize, table: Lines<T>) {
        // Release pairs with the Acquire in `find_by`.
        self.0[index].current.store(table.into_raw(), Ordering::Release);
    }

    /// Returns the root of table `index`.
    pub(super) fn of(&self, index: usize) -> &Root<T> {
        &self.0[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Root<T>> {
        self.0.iter().map(|root| &root.0)
    }
}

impl<T> Root<T> {
    fn new() -> Root<T> {
        Root { current: AtomicPtr::new(std::ptr::null_mut()), version: AtomicU64::new(0) }
    }

    /// Returns what it means that a search has found nothing which began after the version was read.
    ///
    /// Suppose that the key has an entry all the while. The search has looked at the place where that stood when the version
    /// was read, and has found it gone: emptied, or its bucket's tags without it, or its table no longer the one that leads
    /// on. The writer did that with a Release, so that after the fence its version of that time is seen, or a later one.
    ///
    /// - *Moved.* The version moved on between the store to the new place and the one that emptied the old. It is not the one
    ///   that was read before: with that one, by its Release and the Acquire of the search, the new place would have been
    ///   seen as well, and so it would have been the place to begin with.
    /// - *Succeeded by another.* The version became odd before the old one was taken out. So it was odd when it was read
    ///   first, or it is another by now.
    ///
    /// Entries that are only put there or taken out leave the version alone: at a moment before or after, there was none. Nor
    /// do they mislead a search for others: the count of those who went past a bucket never misses one that is there.
    #[inline]
    fn missed(&self, version: u64) -> Missed {
        // Acquire pairs with the Release of whatever the search has read that was stored later than the version.
        fence(Ordering::Acquire);
        let is_same = self.version.load(Ordering::Relaxed) == version;
        if is_same && version.is_multiple_of(2) { Missed::Absent } else { Missed::Unsure }
    }

    /// Has readers that miss something look again, from before the next entry is taken out until
    /// [`end_succession`](Self::end_succession). For the table's writer.
    pub(super) fn begin_succession(&self) {
        // Release, like the two below, pairs with the Acquire in `find_by`; and each store that empties a place is a Release,
        // which comes after this and pairs with the fence in `missed`. Loads are Relaxed: the writer wrote it.
        self.version.store(self.version.load(Ordering::Relaxed) | 1, Ordering::Release);
    }

    /// Says that what was taken out has its successor in the table, or will have none.
    #[inline]
    pub(super) fn end_succession(&self) {
        let version = self.version.load(Ordering::Relaxed);
        if !version.is_multiple_of(2) {
            self.version.store(version + 1, Ordering::Release);
        }
    }

    /// Says that entries stand in new places, and are about to be taken out of the old ones.
    pub(super) fn move_version(&self) {
        self.version.store(self.version.load(Ordering::Relaxed) + 2, Ordering::Release);
    }

    /// Returns the present table. For its writer, or who knows that there is none.
    pub(super) fn table(&self) -> Option<Lines<T>> {
        Lines::from_raw(self.current.load(Ordering::Relaxed))
    }
}

impl<T> fmt::Debug for Index<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Hit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit").finish_non_exhaustive()
    }
}
