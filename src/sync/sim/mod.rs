//! Locks, threads, queues and time of a simulation: under `--cfg larder_sim` they take the place of the native ones.
//!
//! Threads are threads of the system, of which one runs at a time: whoever would block, and now and then whoever would take a
//! lock, gives way to another, which a [`World`](world) picks by its seed. Time is virtual, and jumps where all wait. So a seed
//! is a schedule, and what a test finds with it, it finds again.

#[cfg(feature = "tiered")]
pub(crate) mod channel;
mod locks;
pub(crate) mod thread;
pub(crate) mod world;

pub use self::locks::Bell;
pub(crate) use self::locks::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub(crate) use std::thread_local;
