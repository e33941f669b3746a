//! Locks, atomics, threads, queues and padding: the only module that imports them, so that a model checker, a scheduler or a
//! simulation can take their place.

pub(crate) mod model;
#[cfg(not(any(larder_shuttle, larder_sim)))]
mod native;
#[cfg(larder_shuttle)]
mod shuttle;
#[cfg(larder_sim)]
pub(crate) mod sim;

#[cfg(not(any(larder_shuttle, larder_sim)))]
pub(crate) use self::native::*;
#[cfg(larder_shuttle)]
pub(crate) use self::shuttle::*;
#[cfg(larder_sim)]
pub(crate) use self::sim::*;

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
