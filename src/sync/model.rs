//! What the protocols are made of that a model checker goes through: under `--cfg larder_loom`, its own. Those are of readers
//! without locks, of flights, of breakers and of the trust lease.

#[cfg(larder_loom)]
pub(crate) use self::checked::Mutex;
#[cfg(not(larder_loom))]
pub(crate) use super::{AtomicPtr, AtomicU32, AtomicU64, Mutex, fence};
#[cfg(larder_loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};

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
