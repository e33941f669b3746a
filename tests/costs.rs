//! What a hit in memcached costs this process, counted: allocations, and system calls on its sockets.
//!
//! A binary of its own, because it counts what the allocator and the C library are called for. Nothing here depends on time: the
//! same calls cost the same on every machine.

#![cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code, reason = "an allocator, and functions of the C library, that count")]

#[allow(dead_code, reason = "the tests of the remote tier use the rest")]
#[path = "it/support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};
use std::sync::Arc;
use std::time::Duration;

use larder::{EntryOptions, Memcached, Namespace, RawBytes, TieredCache};
use support::memcached::Server;

/// How many keys a scene reads: enough for what happens once in a while to stay below one for each.
const KEYS: u64 = 500;
const VALUE_LEN: usize = 200;

/// The allocations of what an exchange is told of to a recorder of metrics, were there one.
const TOLD: u64 = if cfg!(feature = "metrics") { 3 } else { 0 };

/// What one thread has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Costs {
    allocations: u64,
    allocated_bytes: u64,
    sends: u64,
    receives: u64,
    other_calls: u64,
}

thread_local! {
    static COSTS: Cell<Costs> = const { Cell::new(Costs {
        allocations: 0, allocated_bytes: 0, sends: 0, receives: 0, other_calls: 0,
    }) };
}

fn count(cost: impl FnOnce(&mut Costs)) {
    // A thread that ends still frees and allocates.
    _ = COSTS.try_with(|costs| {
        let mut now = costs.get();
        cost(&mut now);
        costs.set(now);
    });
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all calls are passed on as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_allocation(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count_allocation(size: usize) {
    count(|costs| {
        costs.allocations += 1;
        costs.allocated_bytes += size as u64;
    });
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
mod number {
    use std::ffi::c_long;

    pub(super) const SENDTO: c_long = 44;
    pub(super) const RECVFROM: c_long = 45;
    pub(super) const SETSOCKOPT: c_long = 54;
}

#[cfg(target_arch = "aarch64")]
mod number {
    use std::ffi::c_long;

    pub(super) const SENDTO: c_long = 206;
    pub(super) const RECVFROM: c_long = 207;
    pub(super) const SETSOCKOPT: c_long = 208;
}

/// Stands before the C library's `send`, which the standard library writes to sockets with.
#[unsafe(no_mangle)]
extern "C" fn send(socket: c_int, bytes: *const c_void, len: usize, flags: c_int) -> isize {
    count(|costs| costs.sends += 1);
    // SAFETY: the kernel checks what it is given.
    unsafe { syscall(number::SENDTO, socket, bytes, len, flags, std::ptr::null::<c_void>(), 0_usize) as isize }
}

/// Stands before the C library's `recv`, which the standard library reads and peeks with.
#[unsafe(no_mangle)]
extern "C" fn recv(socket: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> isize {
    count(|costs| costs.receives += 1);
    let nobody = std::ptr::null::<c_void>();
    // SAFETY: the kernel checks what it is given.
    unsafe { syscall(number::RECVFROM, socket, buffer, len, flags, nobody, nobody) as isize }
}

/// Stands before the C library's `setsockopt`, which time limits are set with.
#[unsafe(no_mangle)]
extern "C" fn setsockopt(socket: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int {
    count(|costs| costs.other_calls += 1);
    // SAFETY: the kernel checks what it is given.
    unsafe { syscall(number::SETSOCKOPT, socket, level, name, value, len) as c_int }
}

/// Returns what `work` cost this thread.
fn cost_of(work: impl FnOnce()) -> Costs {
    let before = COSTS.get();
    work();
    let after = COSTS.get();
    Costs {
        allocations: after.allocations - before.allocations,
        allocated_bytes: after.allocated_bytes - before.allocated_bytes,
        sends: after.sends - before.sends,
        receives: after.receives - before.receives,
        other_calls: after.other_calls - before.other_calls,
    }
}

/// A cache with room for one entry, so that reads in a circle find nothing in the local tier, and its values in memcached.
fn scene(server: &Server) -> TieredCache<u64, Arc<[u8]>> {
    let memcached = Memcached::builder().server(server.addr()).build().expect("the address is one");
    // On a busy machine, a lost trust lease would cost a look at the journal.
    let namespace =
        Namespace::builder("costs", memcached).trust(Duration::from_secs(60)).timeout(Duration::from_secs(60));
    let namespace = namespace.build().expect("the name is valid");
    let cache = TieredCache::builder(&namespace, "values").capacity(1).soft_ttl(Duration::from_secs(3_600));
    let cache = cache.codec(RawBytes).build().expect("these settings agree with each other");
    for key in 0..KEYS {
        let options = EntryOptions::new().groups(["benchmark"]);
        assert!(cache.insert_with(key, Arc::from([1; VALUE_LEN]), options).is_through());
    }
    cache
}

#[test]
fn a_hit_of_a_lone_thread_costs_at_most_this() {
    let server = Server::start();
    let cache = scene(&server);
    let read = || (0..KEYS).for_each(|key| assert_eq!(cache.get(&key).map(|value| value.len()), Some(VALUE_LEN)));
    // Once before, for what is made when it is first needed.
    read();
    let costs = cost_of(read);
    assert_eq!(cache.remote_stats().hits_fresh, 2 * KEYS);
    assert!(costs.allocations <= (7 + TOLD) * KEYS, "{costs:?}");
    assert!(costs.allocated_bytes <= (900 + 150 * TOLD) * KEYS, "{costs:?}");
    // One write, one read, and one look whether the server has hung up.
    assert_eq!((costs.sends, costs.receives), (KEYS, 2 * KEYS), "{costs:?}");
    // The time limits of the socket are set now and then, as exchanges take more or less time.
    assert!(costs.other_calls <= KEYS / 10, "{costs:?}");
}

#[test]
fn hits_that_share_an_exchange_cost_at_most_this() {
    const SHARING: u64 = 50;
    let server = Server::start();
    let cache = scene(&server);
    let keys: Vec<u64> = (0..SHARING).collect();
    let read = || assert!(cache.get_many(&keys).iter().all(Option::is_some));
    read();
    read();
    let costs = cost_of(read);
    // Into how many parts its answers come is the server's and the kernel's affair: far fewer than there are answers.
    assert!(costs.sends == 1 && costs.receives <= SHARING / 4, "{costs:?}");
    assert!(costs.allocations <= 7 * SHARING, "{costs:?}");
}
