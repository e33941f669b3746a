//! The locks, threads and queues that programs run on.

pub(crate) use parking_lot::MutexGuard;
pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
#[cfg(not(larder_loom))]
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, fence};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub(crate) use std::{thread, thread_local};

#[cfg(feature = "tiered")]
pub(crate) use crossbeam_channel as channel;
