//! Locks and conditions, with the face of `parking_lot`'s.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use super::world::{self, Key};

/// Mutual exclusion among the threads of a simulation.
#[derive(Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    /// Makes a lock that is free.
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        if !world::is_inside() {
            return MutexGuard { lock: self, inner: Some(self.0.lock()) };
        }
        world::maybe_yield();
        loop {
            if let Some(inner) = self.0.try_lock() {
                return MutexGuard { lock: self, inner: Some(inner) };
            }
            _ = world::block(self.key(), None);
        }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        world::maybe_yield();
        self.0.try_lock().map(|inner| MutexGuard { lock: self, inner: Some(inner) })
    }

    fn key(&self) -> Key {
        Key::Lock(std::ptr::from_ref(self).addr())
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Holds a [`Mutex`].
pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// `None` for a moment only: while it waits, or is dropped.
    inner: Option<parking_lot::MutexGuard<'a, T>>,
}

impl<T> MutexGuard<'_, T> {
    /// Runs `work` while the lock is free.
    pub(crate) fn unlocked<R>(guard: &mut Self, work: impl FnOnce() -> R) -> R {
        guard.release();
        let result = work();
        guard.inner = guard.lock.lock().inner.take();
        result
    }

    fn release(&mut self) {
        if let Some(inner) = self.inner.take() {
            drop(inner);
            world::wake(self.lock.key(), true);
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("a guard in use holds its lock")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("a guard in use holds its lock")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What threads that hold a lock wait for.
#[derive(Debug, Default)]
pub(crate) struct Condvar(
    #[expect(dead_code, reason = "a condition is told from others by where it is, so that it needs a size")] u8,
);

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Returns whether it took until its deadline.
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    /// Makes a condition that nobody waits for.
    pub(crate) const fn new() -> Condvar {
        Condvar(0)
    }

    /// Waits to be notified.
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        MutexGuard::unlocked(guard, || world::block(self.key(), None));
    }

    /// Waits to be notified, until an instant of this process.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
        let moment = world::moment_of(deadline);
        WaitTimeoutResult(!MutexGuard::unlocked(guard, || world::block(self.key(), Some(moment))))
    }

    /// Wakes one who waits.
    pub(crate) fn notify_one(&self) {
        world::wake(self.key(), false);
    }

    /// Wakes all who wait.
    pub(crate) fn notify_all(&self) {
        world::wake(self.key(), true);
    }

    fn key(&self) -> Key {
        Key::Condition(std::ptr::from_ref(self).addr())
    }
}

/// What a thread waits for without a lock: between its look at something and its wait no other thread runs.
#[derive(Debug, Default)]
pub struct Bell(Condvar);

impl Bell {
    /// Waits until it rings, or until a moment of the world.
    pub fn wait(&self, until: Option<u64>) {
        _ = world::block(self.0.key(), until);
    }

    /// Has all go on that wait.
    pub fn ring(&self) {
        self.0.notify_all();
    }
}

/// Many readers or one writer.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> RwLock<T> {
        RwLock(parking_lot::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let inner = self.wait_for(parking_lot::RwLock::try_read, parking_lot::RwLock::read);
        RwLockReadGuard { lock: self, inner: Some(inner) }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        let inner = self.wait_for(parking_lot::RwLock::try_write, parking_lot::RwLock::write);
        RwLockWriteGuard { lock: self, inner: Some(inner) }
    }

    fn wait_for<'a, G>(
        &'a self,
        attempt: impl Fn(&'a parking_lot::RwLock<T>) -> Option<G>,
        take: impl Fn(&'a parking_lot::RwLock<T>) -> G,
    ) -> G {
        if !world::is_inside() {
            return take(&self.0);
        }
        world::maybe_yield();
        loop {
            if let Some(guard) = attempt(&self.0) {
                return guard;
            }
            _ = world::block(self.key(), None);
        }
    }

    fn key(&self) -> Key {
        Key::Lock(std::ptr::from_ref(self).addr())
    }
}

macro_rules! guards {
    ($($name:ident),*) => {$(
        pub(crate) struct $name<'a, T> {
            lock: &'a RwLock<T>,
            /// `None` only while it is dropped.
            inner: Option<parking_lot::$name<'a, T>>,
        }

        impl<T> Deref for $name<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                self.inner.as_ref().expect("a guard in use holds its lock")
            }
        }

        impl<T> Drop for $name<'_, T> {
            fn drop(&mut self) {
                drop(self.inner.take());
                world::wake(self.lock.key(), true);
            }
        }
    )*};
}

guards!(RwLockReadGuard, RwLockWriteGuard);

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("a guard in use holds its lock")
    }
}
