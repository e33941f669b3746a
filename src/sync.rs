//! Locks, atomics and padding: the only module that imports them, so that a model checker can take their place.

pub(crate) use parking_lot::MutexGuard;
pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock, Weak};

/// What the protocol of readers without locks is made of: under `--cfg larder_loom`, the model checker's own.
pub(crate) mod model {
    #[cfg(larder_loom)]
    pub(crate) use self::checked::Mutex;
    #[cfg(larder_loom)]
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};
    #[cfg(not(larder_loom))]
    pub(crate) use parking_lot::Mutex;
    #[cfg(not(larder_loom))]
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};

    #[cfg(larder_loom)]
    mod checked {
        use loom::sync::{Mutex as Checked, MutexGuard};

        /// The model checker's lock, with the face of the one that it stands for.
        #[derive(Debug)]
        pub(crate) struct Mutex<T>(Checked<T>);

        impl<T> Mutex<T> {
            pub(crate) fn new(value: T) -> Mutex<T> {
                Mutex(Checked::new(value))
            }

            pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
                self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
            }

            pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
                self.0.try_lock().ok()
            }
        }
    }
}

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
