//! The memory of a shard's entries: chunks of slots that never move, and a list of the vacant ones.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, offset_of};
use std::ptr::NonNull;

use super::Seat;
use super::handle::Handle;
use super::limbo::{Ledger, Shared, Waiting};
use crate::sync::model::{AtomicU32, Mutex};
use crate::sync::{Arc, AtomicBool, Ordering, Weak};

/// How many slots a chunk has at most: so few that half of one vacant is little for a large shard, and so many that what the
/// allocator takes for a chunk is little for an entry.
const MOST_IN_CHUNK: usize = 64;

/// How many slots a chunk has at least, however small the shard.
const FEWEST_IN_CHUNK: usize = 8;

/// How many slots there may be, so that a seat leaves a bit to those who keep one in 32.
const MOST: usize = 1 << 31;

/// The memory of one entry, or of one that was or is to come: eight bytes more than that.
///
/// The entry comes first, so that its address is the slot's. Handles, tables and hazards know a slot by its address alone:
/// always one that was made from the chunk's, never from a reference to the entry, so that it may lead to the whole chunk.
#[repr(C)]
pub(super) struct Slot<T> {
    content: UnsafeCell<Content<T>>,
    /// How many handles the entry has, its table's among them; zero where there is none. That it is not zero keeps the entry.
    refs: AtomicU32,
    /// Which of its chunk's slots this is.
    position: u8,
    /// Whether a table holds the entry. Written under its lock alone.
    linked: AtomicBool,
}

#[repr(C)]
union Content<T> {
    entry: ManuallyDrop<T>,
    /// Where the slot is vacant: another vacant one, or null. Under the pool's lock.
    next: *mut Slot<T>,
}

/// What stands before the slots of a chunk.
#[repr(C)]
struct Chunk<T> {
    pool: NonNull<Pool<T>>,
    /// The chunk that was the newest before this one; null if it is the first.
    older: *mut Chunk<T>,
    /// The seat of the first slot.
    first: u32,
    slots: [Slot<T>; 0],
}

/// The entries of one shard.
///
/// Stays until it is [let go](Pool::let_go) and the last slot that is taken has become vacant.
#[repr(align(128))]
pub(super) struct Pool<T> {
    /// Taken for moments alone: nothing foreign runs under it.
    state: Mutex<State<T>>,
    numbering: Numbering,
    pub(super) ledger: Arc<Ledger>,
    pub(super) shared: Weak<Shared<T>>,
}

/// What a pool's lock guards.
pub(super) struct State<T> {
    vacant: *mut Slot<T>,
    newest: *mut Chunk<T>,
    /// How many slots of the newest chunk have ever been taken.
    used: u32,
    /// How many slots are taken.
    taken: usize,
    /// Whether index or tables are still there.
    pub(super) held: bool,
    pub(super) waiting: Waiting<T>,
}

/// How seats lead to slots: the binary logarithm of how many a chunk has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbering(u32);

impl Numbering {
    /// Returns chunks for a shard of so many entries, as far as is known: of their square root in slots, which makes the least
    /// of what chunks take and what their vacant slots do.
    fn new(expected: usize) -> Numbering {
        let room = expected.min(MOST_IN_CHUNK * MOST_IN_CHUNK).isqrt().next_power_of_two();
        Numbering(room.clamp(FEWEST_IN_CHUNK, MOST_IN_CHUNK).ilog2())
    }

    /// Returns how many slots a chunk has.
    pub(super) fn room(self) -> usize {
        1 << self.0
    }

    /// Returns the number of the chunk, and that of the slot in it.
    #[inline]
    pub(super) fn split(self, seat: Seat) -> (usize, usize) {
        (seat.index() >> self.0, seat.index() & (self.room() - 1))
    }
}

impl<T> Slot<T> {
    /// Returns where the entry is.
    #[inline]
    pub(super) fn entry(slot: NonNull<Slot<T>>) -> NonNull<T> {
        slot.cast()
    }

    /// Returns the count of the entry's handles.
    ///
    /// # Safety
    /// The slot is taken, and stays so during `'a`; or it is looked at by the owner of its lists.
    #[inline]
    pub(super) unsafe fn refs<'a>(slot: NonNull<Slot<T>>) -> &'a AtomicU32 {
        // SAFETY: chunks are freed when no slot is taken; all accesses are atomic.
        unsafe { &(*slot.as_ptr()).refs }
    }

    /// Returns whether the entry stands in a table.
    ///
    /// # Safety
    /// As for [`refs`](Self::refs); or the slot has been taken before, and the pool is held.
    #[inline]
    pub(super) unsafe fn linked<'a>(slot: NonNull<Slot<T>>) -> &'a AtomicBool {
        // SAFETY: chunks are freed when no slot is taken and the pool is let go; all accesses are atomic.
        unsafe { &(*slot.as_ptr()).linked }
    }

    /// Returns the chunk.
    ///
    /// # Safety
    /// As for [`refs`](Self::refs).
    #[inline]
    unsafe fn chunk(slot: NonNull<Slot<T>>) -> NonNull<Chunk<T>> {
        // SAFETY: by the contract. The slots of a chunk follow on its header.
        unsafe { Self::first(slot).cast::<u8>().sub(offset_of!(Chunk<T>, slots)).cast() }
    }

    /// Returns the seat.
    ///
    /// # Safety
    /// As for [`refs`](Self::refs).
    #[inline]
    pub(super) unsafe fn seat(slot: NonNull<Slot<T>>) -> Seat {
        // SAFETY: by the contract. Neither of them ever changes.
        let seat = unsafe { (*Self::chunk(slot).as_ptr()).first + u32::from((*slot.as_ptr()).position) };
        Seat(seat)
    }

    /// Returns the pool.
    ///
    /// # Safety
    /// As for [`refs`](Self::refs).
    #[inline]
    pub(super) unsafe fn pool(slot: NonNull<Slot<T>>) -> NonNull<Pool<T>> {
        // SAFETY: by the contract. It never changes.
        unsafe { (*Self::chunk(slot).as_ptr()).pool }
    }

    /// Returns the first slot of the chunk.
    ///
    /// # Safety
    /// As for [`refs`](Self::refs).
    pub(super) unsafe fn first(slot: NonNull<Slot<T>>) -> NonNull<Slot<T>> {
        // SAFETY: the slot is in a chunk, where its position, which never changes, says.
        unsafe { slot.sub(usize::from((*slot.as_ptr()).position)) }
    }
}

/// A slot for an entry that is still to be made: taken, nobody else's, and its count zero. Vacant again if it is dropped.
pub(crate) struct Vacancy<T>(NonNull<Slot<T>>);

impl<T> Vacancy<T> {
    /// Writes the entry there, and returns its only handle.
    #[inline]
    pub(crate) fn fill(self, entry: T) -> Handle<T> {
        let slot = ManuallyDrop::new(self).0;
        // SAFETY: the slot is this one's alone.
        unsafe { slot.cast::<T>().write(entry) };
        // SAFETY: it is taken. Relaxed: whoever else learns of the entry does so by a happens-before.
        unsafe { Slot::refs(slot) }.store(1, Ordering::Relaxed);
        // SAFETY: this is the count of the only handle.
        unsafe { Handle::from_slot(slot) }
    }
}

impl<T> Drop for Vacancy<T> {
    fn drop(&mut self) {
        // SAFETY: the slot is taken, with a count of zero, and nobody but this knows of it.
        unsafe { Pool::take_back(Slot::pool(self.0), self.0) };
    }
}

impl<T> Pool<T> {
    /// Returns a pool for about `expected` entries.
    pub(super) fn new(expected: usize, ledger: Arc<Ledger>, shared: Weak<Shared<T>>) -> NonNull<Pool<T>> {
        let pool = Pool {
            state: Mutex::new(State {
                vacant: std::ptr::null_mut(),
                newest: std::ptr::null_mut(),
                used: 0,
                taken: 0,
                held: true,
                waiting: Waiting::new(),
            }),
            numbering: Numbering::new(expected),
            ledger,
            shared,
        };
        NonNull::from(Box::leak(Box::new(pool)))
    }

    pub(super) fn numbering(&self) -> Numbering {
        self.numbering
    }

    pub(super) fn state(&self) -> &Mutex<State<T>> {
        &self.state
    }

    /// Finds a slot for an entry, that of a proven one if there is any, and says whether a table waits to be freed.
    ///
    /// Runs `Drop` of the proven entry: not to be called with any lock.
    ///
    /// # Safety
    /// The pool is held, by whoever calls this.
    #[inline]
    pub(super) unsafe fn vacancy(pool: NonNull<Pool<T>>) -> (Vacancy<T>, bool) {
        // SAFETY: by the contract.
        let Pool { state: lock, numbering, .. } = unsafe { pool.as_ref() };
        let mut state = lock.lock();
        let has_table = state.waiting.has_table();
        let slot = match state.waiting.take_one() {
            Some(proven) => {
                drop(state);
                // Somebody may still have a handle of it.
                proven.vacate().unwrap_or_else(|| lock.lock().take(pool, *numbering))
            }
            None => {
                let slot = state.take(pool, *numbering);
                drop(state);
                slot
            }
        };
        (Vacancy(slot), has_table)
    }

    /// Finds a slot as [`vacancy`](Self::vacancy) does, but a vacant one, so that no other entry is dropped for it.
    ///
    /// # Safety
    /// As for [`vacancy`](Self::vacancy).
    pub(super) unsafe fn vacancy_without_drops(pool: NonNull<Pool<T>>) -> (Vacancy<T>, bool) {
        // SAFETY: by the contract.
        let Pool { state, numbering, .. } = unsafe { pool.as_ref() };
        let mut state = state.lock();
        let has_table = state.waiting.has_table();
        let slot = state.take(pool, *numbering);
        drop(state);
        (Vacancy(slot), has_table)
    }

    /// Takes back a slot whose entry has been moved out of it, or dropped.
    ///
    /// # Safety
    /// The slot is taken and of this pool, its count is zero, and nobody looks at it, now or later.
    pub(super) unsafe fn take_back(pool: NonNull<Pool<T>>, slot: NonNull<Slot<T>>) {
        // SAFETY: the pool stays while a slot is taken.
        let mut state = unsafe { pool.as_ref() }.state.lock();
        // SAFETY: the slot is nobody's, by the contract.
        unsafe { (*(*slot.as_ptr()).content.get()).next = state.vacant };
        state.vacant = slot.as_ptr();
        state.taken -= 1;
        let is_over = state.is_over();
        drop(state);
        if is_over {
            // SAFETY: it is let go, and nothing is taken.
            unsafe { Self::free(pool) };
        }
    }

    /// Has the pool end with the last slot that is taken, and returns what waits. Entries that leave from now on do not.
    ///
    /// # Safety
    /// It has not been let go before, and the caller makes no further use of it.
    pub(super) unsafe fn let_go(pool: NonNull<Pool<T>>) -> Waiting<T> {
        // SAFETY: the pool stays until it is let go.
        let mut state = unsafe { pool.as_ref() }.state.lock();
        let waiting = std::mem::replace(&mut state.waiting, Waiting::new());
        state.held = false;
        let is_over = state.is_over();
        drop(state);
        if is_over {
            // SAFETY: it is let go, and nothing is taken.
            unsafe { Self::free(pool) };
        }
        waiting
    }

    /// # Safety
    /// The pool is over, as the caller has seen under its lock, and freed the lock after that. Nobody comes to it again, and
    /// whoever had the lock before has let go of it: freeing a lock ends with what lets the next one have it.
    unsafe fn free(pool: NonNull<Pool<T>>) {
        // SAFETY: it came from a box, and only the one who sees it to be over comes here: neither count nor flag changes after.
        let pool = unsafe { Box::from_raw(pool.as_ptr()) };
        let mut next = pool.state.lock().newest;
        while let Some(chunk) = NonNull::new(next) {
            // SAFETY: it is freed but here, after this.
            let older = unsafe { (*chunk.as_ptr()).older };
            // SAFETY: it came from `allocate`, with this layout. Its slots are all vacant.
            unsafe { dealloc(chunk.as_ptr().cast(), Chunk::<T>::layout(pool.numbering.room())) };
            next = older;
        }
    }
}

impl<T> State<T> {
    /// Takes a slot that is vacant, or was never taken.
    fn take(&mut self, pool: NonNull<Pool<T>>, numbering: Numbering) -> NonNull<Slot<T>> {
        let slot = match NonNull::new(self.vacant) {
            Some(slot) => {
                // SAFETY: it is vacant, so under this lock its content is the next.
                self.vacant = unsafe { (*(*slot.as_ptr()).content.get()).next };
                slot
            }
            None => self.first_use(pool, numbering.room() as u32),
        };
        self.taken += 1;
        slot
    }

    /// Returns a slot that was never taken, in a new chunk if need be.
    #[inline(never)]
    fn first_use(&mut self, pool: NonNull<Pool<T>>, room: u32) -> NonNull<Slot<T>> {
        // SAFETY: chunks stay until the pool goes.
        let newest = NonNull::new(self.newest).map(|newest| unsafe { (*newest.as_ptr()).first });
        if newest.is_none() || self.used == room {
            let first = newest.map_or(0, |first| first + room);
            assert!((first + room) as usize <= MOST, "a shard has room for no more than {MOST} entries");
            self.newest = Chunk::allocate(pool, self.newest, first, room).as_ptr();
            self.used = 0;
        }
        let position = self.used;
        self.used += 1;
        // SAFETY: the chunk has more slots than `used` was.
        unsafe {
            let slot = (&raw mut (*self.newest).slots).cast::<Slot<T>>().add(position as usize);
            (&raw mut (*slot).refs).write(AtomicU32::new(0));
            (&raw mut (*slot).position).write(position as u8);
            (&raw mut (*slot).linked).write(AtomicBool::new(false));
            NonNull::new_unchecked(slot)
        }
    }

    /// Returns whether nobody will come to the pool again.
    fn is_over(&self) -> bool {
        !self.held && self.taken == 0
    }
}

impl<T> Chunk<T> {
    fn layout(room: usize) -> Layout {
        let slots = Layout::array::<Slot<T>>(room);
        let layout = slots.and_then(|slots| Layout::new::<Chunk<T>>().extend(slots));
        layout.expect("a chunk fits into the address space").0.pad_to_align()
    }

    fn allocate(pool: NonNull<Pool<T>>, older: *mut Chunk<T>, first: u32, room: u32) -> NonNull<Chunk<T>> {
        let layout = Self::layout(room as usize);
        // SAFETY: the layout is not of size zero.
        let chunk = unsafe { alloc(layout) }.cast::<Chunk<T>>();
        let Some(chunk) = NonNull::new(chunk) else { handle_alloc_error(layout) };
        // SAFETY: the layout begins with the header.
        unsafe { chunk.write(Chunk { pool, older, first, slots: [] }) };
        chunk
    }
}

// SAFETY: a pool is shared by all who have handles, on any thread; its lock guards what changes, and entries are reached through
// handles, tables and hits, which ask for these bounds themselves.
unsafe impl<T: Send + Sync> Send for Pool<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Pool<T> {}
