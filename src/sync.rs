//! Locks, atomics and padding: the only module that imports them, so that a model checker can take their place.

pub(crate) use parking_lot::MutexGuard;
pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock, Weak};

/// Keeps what it wraps on cache lines of its own: two of them, since x86 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}
