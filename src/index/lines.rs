//! The memory of a table: buckets of one cache line each, which hold the tags of their entries beside the entries.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::pool::Slot;
use crate::sync::Ordering;
use crate::sync::model::{AtomicPtr, AtomicU64};

/// How many entries a bucket holds. With the tags they fill a cache line.
const WIDTH: usize = 7;

/// How many entries a table takes for each of its buckets before it grows: fuller, and too many keys leave the bucket that
/// their hash leads to.
pub(super) const LOAD: usize = 6;

/// A one in the byte of each tag.
const EACH: u64 = 0x0001_0101_0101_0101;

/// Where the count of those who went past a bucket begins, above the tags.
const PASSED_SHIFT: u32 = 56;

/// The largest such count, which is never lowered again, since it may stand for more.
const PASSED_MAX: u64 = 0xFF;

/// One cache line of a table.
///
/// Written by the table's writer alone, read by everyone. Who reads it while it is written may miss an entry; it finds none
/// in a place that is not there.
#[repr(C, align(64))]
struct Bucket<T> {
    /// A tag for each place, zero where the place is vacant; above them, how many entries went past this bucket, because it
    /// was full, to one further on.
    tags: AtomicU64,
    places: [AtomicPtr<Slot<T>>; WIDTH],
}

/// What stands before the buckets.
#[repr(C, align(64))]
pub(super) struct Header<T> {
    buckets: usize,
    /// The table whose entries are being moved here; null if none is.
    previous: AtomicPtr<Header<T>>,
    /// What the allocator returned, which need not be where the header is.
    allocation: *mut u8,
}

/// The memory of a table, or what was one: a header and any number of buckets.
pub(super) struct Lines<T>(*mut Header<T>);

/// The memory of a table for as long as it is sure not to be freed.
pub(super) struct View<'a, T> {
    header: *const Header<T>,
    memory: PhantomData<&'a Header<T>>,
}

/// A place in a bucket, which holds an entry or has just done so.
pub(super) struct Place<'a, T> {
    bucket: &'a Bucket<T>,
    /// The bucket's number.
    at: usize,
    /// Which of the bucket's places this is.
    position: usize,
}

/// What the search of a bucket has come to.
pub(super) enum Found<'a, T> {
    Here(Place<'a, T>, NonNull<Slot<T>>),
    /// Not here. The bucket was full when some entry came, which went on to the next.
    PerhapsFurther,
    Nowhere,
}

impl<T> Clone for Lines<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Lines<T> {}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<T> Lines<T> {
    /// Allocates vacant buckets, at least one.
    ///
    /// # Panics
    /// If they do not fit into the address space.
    pub(super) fn allocate(buckets: usize) -> Lines<T> {
        debug_assert!(buckets > 0);
        let layout = Self::layout(buckets);
        // SAFETY: the layout is not of size zero.
        let allocation = unsafe { alloc_zeroed(layout) };
        if allocation.is_null() {
            handle_alloc_error(layout);
        }
        let header = allocation.map_addr(|address| address.next_multiple_of(align_of::<Header<T>>()));
        let header = header.cast::<Header<T>>();
        let first = Header { buckets, previous: AtomicPtr::new(std::ptr::null_mut()), allocation };
        // SAFETY: the layout has room for the header, and for what its alignment may skip.
        unsafe { header.write(first) };
        // A bucket of zeros is a vacant one, save for a model checker, whose atomics are more than their value.
        #[cfg(larder_loom)]
        for bucket in 0..buckets {
            let vacant = Bucket {
                tags: AtomicU64::new(0),
                places: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            };
            // SAFETY: the layout has room for that many buckets behind the header.
            unsafe { header.add(1).cast::<Bucket<T>>().add(bucket).write(vacant) };
        }
        Lines(header)
    }

    /// Room for header and buckets wherever the allocator places it. Asked for a whole cache line, it would fill large tables
    /// with zeros itself, for milliseconds; so they come from the system as zeros, page by page.
    fn layout(buckets: usize) -> Layout {
        let size = buckets.checked_mul(size_of::<Bucket<T>>());
        let size = size.and_then(|size| size.checked_add(size_of::<Header<T>>() + align_of::<Header<T>>()));
        let layout = size.and_then(|size| Layout::from_size_align(size, align_of::<usize>()).ok());
        layout.expect("a table fits into the address space")
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// Nobody looks at it, now or later.
    pub(super) unsafe fn free(self) {
        // SAFETY: `allocate` wrote the header, and the caller has seen to it that it was not freed before.
        let (buckets, allocation) = unsafe { ((*self.0).buckets, (*self.0).allocation) };
        // So that a model checker reports whoever looks at them all the same.
        #[cfg(larder_loom)]
        for bucket in 0..buckets {
            // SAFETY: there are that many buckets behind the header, and they are nobody else's.
            let bucket = unsafe { &mut *self.0.add(1).cast::<Bucket<T>>().add(bucket) };
            bucket.tags.with_mut(|_| ());
            bucket.places.iter_mut().for_each(|cell| cell.with_mut(|_| ()));
        }
        // SAFETY: it came from `alloc_zeroed` with this layout.
        unsafe { dealloc(allocation, Self::layout(buckets)) };
    }

    pub(super) fn into_raw(self) -> *mut Header<T> {
        self.0
    }

    /// Returns what [`into_raw`](Self::into_raw) made this from; `None` for null.
    #[inline]
    pub(super) fn from_raw(raw: *mut Header<T>) -> Option<Lines<T>> {
        (!raw.is_null()).then_some(Lines(raw))
    }

    /// Returns the address by which readers publish that they look at it.
    #[inline]
    pub(super) fn address(self) -> *mut () {
        self.0.cast()
    }

    /// Returns a look at the memory.
    ///
    /// # Safety
    /// It came from [`allocate`](Self::allocate), which the caller knows of by a happens-before, and is not freed during `'a`.
    #[inline]
    pub(super) unsafe fn view<'a>(self) -> View<'a, T> {
        View { header: self.0, memory: PhantomData }
    }
}

/// Returns the tag of a hash, of bits that choose neither bucket nor shard.
#[inline]
fn tag(hash: u64) -> u64 {
    hash >> 56
}

/// Returns the positions that [`equal_to`] has marked, in order.
#[inline]
fn positions(mut marked: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let position = (marked != 0).then(|| marked.trailing_zeros() as usize / 8);
        marked &= marked.wrapping_sub(1);
        position
    })
}

/// Returns a one in the highest bit of each byte of `tags` that equals `tag`; above the lowest of them also, perhaps, in
/// bytes that do not.
#[inline]
fn equal_to(tags: u64, tag: u64) -> u64 {
    // The byte above the tags is made to differ.
    let differing = (tags ^ (EACH * tag)) | PASSED_MAX << PASSED_SHIFT;
    differing.wrapping_sub(EACH) & !differing & (EACH << 7)
}

impl<'a, T> View<'a, T> {
    /// Returns how many buckets there are.
    #[inline]
    pub(super) fn buckets(self) -> usize {
        self.header().buckets
    }

    /// Returns the bucket where a search for this hash begins: of the lower half of it the upper bits, so to speak, for any
    /// number of buckets. The upper half chooses shard and tag.
    #[inline]
    pub(super) fn start(self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.buckets() as u64) >> 32) as usize
    }

    /// Returns the bucket that a key goes to where `at` is full.
    #[inline]
    fn next(self, at: usize) -> usize {
        if at + 1 == self.buckets() { 0 } else { at + 1 }
    }

    #[inline]
    fn bucket(self, at: usize) -> &'a Bucket<T> {
        debug_assert!(at < self.buckets());
        // SAFETY: the header is followed by that many buckets, of which this is one, and is not freed during `'a`, by the
        // contract of `view`. All accesses are atomic.
        unsafe { &*self.header.add(1).cast::<Bucket<T>>().add(at) }
    }

    #[inline]
    fn header(self) -> &'a Header<T> {
        // SAFETY: it is not freed during `'a`, by the contract of `view`, and only `previous` is ever written to.
        unsafe { &*self.header }
    }

    /// Returns whether there is a table whose entries are being moved to this one.
    #[inline]
    pub(super) fn is_filling(self) -> bool {
        // Relaxed: who sees that there is none any more passes a fence before it takes an entry for missing.
        !self.header().previous.load(Ordering::Relaxed).is_null()
    }

    /// Returns the table whose entries are being moved to this one.
    #[inline]
    pub(super) fn previous(self) -> Option<Lines<T>> {
        // Acquire pairs with the Release in `set_previous`: who sees the table sees it made.
        Lines::from_raw(self.header().previous.load(Ordering::Acquire))
    }

    pub(super) fn set_previous(self, previous: Option<Lines<T>>) {
        let raw = previous.map_or(std::ptr::null_mut(), Lines::into_raw);
        self.header().previous.store(raw, Ordering::Release);
    }

    /// Returns the first place among those where `hash` may be that `is_it` takes, with its entry. `is_it` is handed what a
    /// place held a moment ago; for the writer, what it holds.
    #[inline]
    pub(super) fn find(
        self,
        hash: u64,
        is_it: impl FnMut(&Place<'a, T>, NonNull<Slot<T>>) -> bool,
    ) -> Option<(Place<'a, T>, NonNull<Slot<T>>)> {
        let first = self.start(hash);
        self.find_from(first, first, hash, is_it)
    }

    /// Finds as [`find`](Self::find) does, in the buckets after the first, which is `first`.
    pub(super) fn find_after(
        self,
        first: usize,
        hash: u64,
        is_it: impl FnMut(&Place<'a, T>, NonNull<Slot<T>>) -> bool,
    ) -> Option<(Place<'a, T>, NonNull<Slot<T>>)> {
        let next = self.next(first);
        if next == first { None } else { self.find_from(next, first, hash, is_it) }
    }

    /// Finds from bucket `at` on, until the search comes to bucket `end`.
    #[inline]
    fn find_from(
        self,
        mut at: usize,
        end: usize,
        hash: u64,
        mut is_it: impl FnMut(&Place<'a, T>, NonNull<Slot<T>>) -> bool,
    ) -> Option<(Place<'a, T>, NonNull<Slot<T>>)> {
        loop {
            match self.find_in(at, hash, &mut is_it) {
                Found::Here(place, slot) => return Some((place, slot)),
                Found::PerhapsFurther => at = self.next(at),
                Found::Nowhere => return None,
            }
            if at == end {
                return None;
            }
        }
    }

    /// Searches one bucket.
    #[inline]
    pub(super) fn find_in(
        self,
        at: usize,
        hash: u64,
        mut is_it: impl FnMut(&Place<'a, T>, NonNull<Slot<T>>) -> bool,
    ) -> Found<'a, T> {
        let bucket = self.bucket(at);
        // Acquire pairs with the Release in `put`: who sees a tag sees the entry in its place, or a later state of it.
        let tags = bucket.tags.load(Ordering::Acquire);
        for position in positions(equal_to(tags, tag(hash))) {
            let place = Place { bucket, at, position };
            // Relaxed: a reader looks again, with Acquire, once it has published what it saw, or passes a fence before it takes
            // the place for vacant; the writer wrote it.
            if let Some(slot) = NonNull::new(place.cell().load(Ordering::Relaxed))
                && is_it(&place, slot)
            {
                return Found::Here(place, slot);
            }
        }
        if tags >> PASSED_SHIFT == 0 { Found::Nowhere } else { Found::PerhapsFurther }
    }

    /// Returns the place of an entry in the bucket where the search for it begins, if it is there. For the writer.
    #[inline]
    pub(super) fn first_place_of(self, hash: u64, slot: NonNull<Slot<T>>) -> Option<Place<'a, T>> {
        let at = self.start(hash);
        let bucket = self.bucket(at);
        // Relaxed, here and below: the writer wrote them. Seven comparisons are less than what the tags would save of them.
        let is_it = |place: &AtomicPtr<Slot<T>>| place.load(Ordering::Relaxed) == slot.as_ptr();
        let position = bucket.places.iter().position(is_it)?;
        Some(Place { bucket, at, position })
    }

    /// Stores an entry in a vacant place: there must be one. For the writer.
    #[inline]
    pub(super) fn put(self, hash: u64, slot: NonNull<Slot<T>>) {
        let at = self.start(hash);
        if !self.bucket(at).put(hash, slot) {
            self.put_further(at, hash, slot);
        }
    }

    /// Stores an entry in a bucket after this one.
    #[inline(never)]
    fn put_further(self, first: usize, hash: u64, slot: NonNull<Slot<T>>) {
        let mut at = self.next(first);
        while at != first {
            if self.bucket(at).put(hash, slot) {
                return;
            }
            at = self.next(at);
        }
        unreachable!("a table grows before its last place is taken");
    }

    /// Empties a place, which held an entry with this hash. For the writer.
    pub(super) fn take(self, hash: u64, place: &Place<'a, T>) {
        let mut at = self.start(hash);
        while at != place.at {
            let passed = &self.bucket(at).tags;
            let tags = passed.load(Ordering::Relaxed);
            if tags >> PASSED_SHIFT < PASSED_MAX {
                passed.store(tags - (1 << PASSED_SHIFT), Ordering::Release);
            }
            at = self.next(at);
        }
        place.empty();
    }

    /// Returns the entries of bucket `at`, each with its place. For the writer.
    pub(super) fn entries_of(self, at: usize) -> impl Iterator<Item = (Place<'a, T>, NonNull<Slot<T>>)> {
        let bucket = self.bucket(at);
        (0..WIDTH).filter_map(move |position| {
            let place = Place { bucket, at, position };
            NonNull::new(place.cell().load(Ordering::Relaxed)).map(|slot| (place, slot))
        })
    }
}

impl<T> Bucket<T> {
    /// Stores an entry in a vacant place, or counts one that goes past. Returns whether there was a place.
    #[inline]
    fn put(&self, hash: u64, slot: NonNull<Slot<T>>) -> bool {
        // Relaxed, here and below: the writer wrote them.
        let tags = self.tags.load(Ordering::Relaxed);
        // An entry's tag may be zero as well.
        let is_vacant = |&position: &usize| self.places[position].load(Ordering::Relaxed).is_null();
        let vacant = positions(equal_to(tags, 0)).find(is_vacant);
        if let Some(position) = vacant {
            // Release pairs with the Acquire in `Place::holds`: who sees the entry sees what it was made of.
            self.places[position].store(slot.as_ptr(), Ordering::Release);
            // Release pairs with the Acquire in `find`.
            self.tags.store(tags | tag(hash) << (8 * position), Ordering::Release);
        } else if tags >> PASSED_SHIFT < PASSED_MAX {
            self.tags.store(tags + (1 << PASSED_SHIFT), Ordering::Release);
        }
        vacant.is_some()
    }
}

#[cfg(test)]
impl<T> View<'_, T> {
    /// Asserts that every entry can be found from where its search begins, by the counts of those who went past, and every
    /// vacant place by its tag; returns how many entries there are. Where entries have been moved away, counts may be too large.
    pub(super) fn validate(self, hash: impl Fn(NonNull<Slot<T>>) -> u64, moved: bool) -> usize {
        let mut passed = vec![0; self.buckets()];
        let mut entries = 0;
        for at in 0..self.buckets() {
            for (place, slot) in self.entries_of(at) {
                let mut from = self.start(hash(slot));
                while from != place.at {
                    passed[from] += 1;
                    from = self.next(from);
                }
                assert!(self.find(hash(slot), |_, other| other == slot).is_some());
                entries += 1;
            }
        }
        for (at, passed) in passed.into_iter().enumerate() {
            let bucket = self.bucket(at);
            let tags = bucket.tags.load(Ordering::Relaxed);
            for (position, cell) in bucket.places.iter().enumerate() {
                assert!(!cell.load(Ordering::Relaxed).is_null() || (tags >> (8 * position)).trailing_zeros() >= 8);
            }
            let count = tags >> PASSED_SHIFT;
            assert!(
                count == passed || count == PASSED_MAX || (moved && count > passed),
                "{count} went past, not {passed}"
            );
        }
        entries
    }
}

impl<'a, T> Place<'a, T> {
    #[inline]
    fn cell(&self) -> &'a AtomicPtr<Slot<T>> {
        &self.bucket.places[self.position]
    }

    /// Returns whether the place holds this very entry.
    #[inline]
    pub(super) fn holds(&self, slot: NonNull<Slot<T>>) -> bool {
        // Acquire pairs with the Release in `put`.
        self.cell().load(Ordering::Acquire) == slot.as_ptr()
    }

    /// Empties the place. For the writer.
    #[inline]
    pub(super) fn empty(&self) {
        // Release pairs with the fence in `Root::missed`: who sees the place empty also sees what the table's version was by
        // then. What orders this before the search for readers of the entry is the heavy barrier in between.
        self.cell().store(std::ptr::null_mut(), Ordering::Release);
        // After that: who still sees the tag finds nothing here. Release, as in `put`: who sees the tags that are left sees
        // their entries; and as above.
        let tags = self.bucket.tags.load(Ordering::Relaxed);
        self.bucket.tags.store(tags & !(0xFF << (8 * self.position)), Ordering::Release);
    }
}
