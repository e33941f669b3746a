//! Counts what a thread takes from the heap.

#![allow(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait; every call is passed on to `System` unchanged")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static HEAP: CountingHeap = CountingHeap;

// Of each thread by itself, so that tests may run side by side: the local tier allocates and frees on its callers' threads.
// Without a destructor, so that it is there as long as the thread allocates.
thread_local! {
    static ACCOUNT: Cell<Account> = const { Cell::new(Account { bytes: 0, allocations: 0 }) };
}

/// What a thread has taken and given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    /// As requested from the allocator: what that adds by rounding up is its own.
    pub(crate) bytes: i64,
    pub(crate) allocations: u64,
}

/// Runs `work` and returns its result, by how many bytes the heap has grown, and how many allocations that took.
pub(crate) fn account_of<R>(work: impl FnOnce() -> R) -> (R, Account) {
    let before = ACCOUNT.get();
    let result = work();
    let after = ACCOUNT.get();
    let allocations = after.allocations - before.allocations;
    (result, Account { bytes: after.bytes - before.bytes, allocations })
}

struct CountingHeap;

fn count(bytes: usize, sign: i64) {
    let Account { bytes: balance, allocations } = ACCOUNT.get();
    let allocations = allocations + u64::from(sign > 0);
    ACCOUNT.set(Account { bytes: balance + sign * bytes as i64, allocations });
}

// SAFETY: every method passes its arguments on to `System`, which is a correct allocator, and does not unwind: counting
// is arithmetic on a thread-local that needs no allocation and is never destroyed.
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
