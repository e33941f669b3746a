//! Counts the bytes that a piece of code leaves allocated.

#![allow(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait; every call is passed on to `System` unchanged")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
};

#[global_allocator]
static HEAP: CountingHeap = CountingHeap;

// Off outside `growth_during`, so that timed loops pay for one load of a flag that nobody writes, and not for a counter
// that all threads share.
static COUNTING: AtomicBool = AtomicBool::new(false);
static BALANCE: AtomicI64 = AtomicI64::new(0);

struct CountingHeap;

/// Runs `work` and returns its result and by how many bytes the heap has grown, as requested from the allocator: what
/// the allocator adds by rounding up is its own.
///
/// Other threads must not allocate meanwhile.
pub(crate) fn growth_during<R>(work: impl FnOnce() -> R) -> (R, i64) {
    BALANCE.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::Relaxed);
    let result = work();
    COUNTING.store(false, Ordering::Relaxed);
    (result, BALANCE.load(Ordering::Relaxed))
}

fn count(bytes: usize, sign: i64) {
    if COUNTING.load(Ordering::Relaxed) {
        BALANCE.fetch_add(sign * bytes as i64, Ordering::Relaxed);
    }
}

// SAFETY: every method passes its arguments on to `System`, which is a correct allocator, and does not unwind: counting
// is arithmetic on atomics.
unsafe impl GlobalAlloc for CountingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller promises `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller promises `alloc_zeroed`'s contract, which is `System`'s.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: `block` came from one of these methods, so from `System`, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(new_size, 1);
        // SAFETY: `block` came from one of these methods, so from `System`, with this layout; the caller promises the rest.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
