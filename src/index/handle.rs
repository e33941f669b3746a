//! Counted references to entries.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use super::Seat;
use super::pool::{Pool, Slot};
use crate::sync::Ordering;

/// How many handles an entry may have: far fewer than its count could tell, since threads that count up do not wait for each
/// other. More end the process, as with `Arc`: they can only be handles that were forgotten.
const MOST: u32 = i32::MAX as u32;

/// A counted reference to an entry, in a table or not; what `Arc` would be. Outlives the index if it has to.
///
/// The entry is dropped where its last handle is, a table's own count included.
pub(crate) struct Handle<T> {
    slot: NonNull<Slot<T>>,
    entry: PhantomData<T>,
}

// SAFETY: as for `Arc`: whoever has a handle reads the entry, and may be the one who drops it.
unsafe impl<T: Send + Sync> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Handle<T> {}

impl<T> Handle<T> {
    /// Returns a handle that stands for one of the counts of this slot's entry.
    ///
    /// # Safety
    /// Nothing else stands for that count.
    #[inline]
    pub(super) unsafe fn from_slot(slot: NonNull<Slot<T>>) -> Handle<T> {
        Handle { slot, entry: PhantomData }
    }

    /// Returns one handle more to this slot's entry.
    ///
    /// # Safety
    /// The count is not zero, and does not become so during the call.
    #[inline]
    pub(super) unsafe fn another(slot: NonNull<Slot<T>>) -> Handle<T> {
        // SAFETY: the slot is taken, since its count is not zero.
        // Relaxed: whoever may count up has a reference, whose own way here has ordered all else.
        let before = unsafe { Slot::refs(slot) }.fetch_add(1, Ordering::Relaxed);
        if before > MOST {
            std::process::abort();
        }
        // SAFETY: it stands for the count that was just added.
        unsafe { Handle::from_slot(slot) }
    }

    #[inline]
    pub(super) fn slot(&self) -> NonNull<Slot<T>> {
        self.slot
    }

    /// Gives the count away to whoever has the slot.
    #[inline]
    pub(super) fn into_slot(self) -> NonNull<Slot<T>> {
        ManuallyDrop::new(self).slot
    }

    /// Returns the seat that the entry has, in a table or not.
    #[inline]
    pub(crate) fn seat(&self) -> Seat {
        // SAFETY: the slot is taken while there is a handle.
        unsafe { Slot::seat(self.slot) }
    }

    pub(crate) fn ptr_eq(&self, other: &Handle<T>) -> bool {
        self.slot == other.slot
    }

    /// Returns the entry, if this is its last handle and no table holds it. Of several that are given up at once, one gets it.
    pub(crate) fn into_inner(self) -> Option<T> {
        let slot = self.into_slot();
        // SAFETY: this was a handle.
        if !unsafe { give_up(slot) } {
            return None;
        }
        // SAFETY: the count is zero, so the entry is nobody else's.
        let entry = unsafe { Slot::entry(slot).read() };
        // SAFETY: as above, and the entry has been moved out.
        unsafe { Pool::take_back(Slot::pool(slot), slot) };
        Some(entry)
    }

    /// Drops this handle. If it was the last, so is the entry, and the slot is the caller's: taken still, with a count of zero.
    pub(super) fn vacate(self) -> Option<NonNull<Slot<T>>> {
        let slot = self.into_slot();
        // SAFETY: this was a handle.
        if !unsafe { give_up(slot) } {
            return None;
        }
        // SAFETY: the count is zero, by this.
        Some(unsafe { empty(slot) }.keep())
    }

    /// Returns the entry to be changed, if this is its only handle and no table holds it, nor has one from which it is still
    /// to be dropped.
    #[cfg(any(test, feature = "tiered"))]
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: this handle stands for one of the count.
        let is_only = unsafe { is_only(self.slot) };
        // SAFETY: there is no other handle, and none comes while this one is borrowed.
        is_only.then(|| unsafe { Slot::entry(self.slot).as_mut() })
    }
}

/// Returns whether a slot's entry has no handle but the caller's, and gets none but by it: readers add to a count as long as a
/// table, or limbo, has one of its own.
///
/// # Safety
/// The caller has one of the count.
#[inline]
unsafe fn is_only<T>(slot: NonNull<Slot<T>>) -> bool {
    // Acquire pairs with the Release in `give_up`: what other handles did with the entry is done.
    // SAFETY: the slot is taken while there is a handle.
    unsafe { Slot::refs(slot) }.load(Ordering::Acquire) == 1
}

/// Takes one from the count of a slot's entry. Returns whether it was the last: then the entry is the caller's.
///
/// # Safety
/// The count is the caller's to take, and no reader adds to it because of that one.
#[inline]
unsafe fn give_up<T>(slot: NonNull<Slot<T>>) -> bool {
    // SAFETY: the count is the caller's.
    if unsafe { is_only(slot) } {
        // Relaxed: nobody else has the entry. Cheaper than to count down.
        // SAFETY: the slot is given back by the caller at the earliest.
        unsafe { Slot::refs(slot) }.store(0, Ordering::Relaxed);
        return true;
    }
    // Release: whatever was done by way of this handle comes before what the last one does.
    // SAFETY: the slot is taken while there is a count.
    if unsafe { Slot::refs(slot) }.fetch_sub(1, Ordering::Release) != 1 {
        return false;
    }
    // Acquire pairs with the Release above, of all others. A load rather than a fence, which ThreadSanitizer does not know.
    // SAFETY: the slot is given back by the caller at the earliest.
    unsafe { Slot::refs(slot) }.load(Ordering::Acquire);
    true
}

impl<T> Clone for Handle<T> {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: this handle stands for one of the count.
        unsafe { Handle::another(self.slot) }
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the entry is dropped when there is no handle.
        unsafe { Slot::entry(self.slot).as_ref() }
    }
}

impl<T> Drop for Handle<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this handle stands for one of the count.
        if unsafe { give_up(self.slot) } {
            // SAFETY: the count is zero, by this.
            drop(unsafe { empty(self.slot) });
        }
    }
}

/// A slot whose entry has been dropped, or as much of it as could be. It is given back, unless it is [kept](Self::keep).
struct Emptied<T>(NonNull<Slot<T>>);

impl<T> Emptied<T> {
    fn keep(self) -> NonNull<Slot<T>> {
        ManuallyDrop::new(self).0
    }
}

impl<T> Drop for Emptied<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `empty`, which alone makes one.
        unsafe { Pool::take_back(Slot::pool(self.0), self.0) };
    }
}

/// Drops the entry of a slot. If that panics, the slot is given back.
///
/// # Safety
/// The entry is the caller's alone, and its count zero.
#[inline(never)]
unsafe fn empty<T>(slot: NonNull<Slot<T>>) -> Emptied<T> {
    let emptied = Emptied(slot);
    // SAFETY: by the contract.
    unsafe { Slot::entry(slot).drop_in_place() };
    emptied
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
