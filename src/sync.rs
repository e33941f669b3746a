//! The only import of locks and atomics.

pub(crate) use parking_lot::Mutex;
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "memcached")]
pub(crate) use parking_lot::{Condvar, MutexGuard};
