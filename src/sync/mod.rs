//! Locks, atomics, threads, queues and padding: the only module that imports them, so that a model checker or a scheduler can
//! take their place.

pub(crate) mod model;
#[cfg(not(larder_shuttle))]
mod native;
#[cfg(larder_shuttle)]
mod shuttle;

#[cfg(not(larder_shuttle))]
pub(crate) use self::native::*;
#[cfg(larder_shuttle)]
pub(crate) use self::shuttle::*;

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
