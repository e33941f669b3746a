//! Threads, with the face of the standard library's.

use std::io;
use std::time::Duration;

use super::world::{self, Key};

/// What wakes a thread.
#[derive(Clone, Debug)]
pub(crate) struct Thread(usize);

impl Thread {
    pub(crate) fn unpark(&self) {
        world::unpark(self.0);
    }
}

pub(crate) fn current() -> Thread {
    Thread(world::current())
}

pub(crate) fn park() {
    _ = world::block(Key::Token, None);
}

pub(crate) fn park_timeout(limit: Duration) {
    _ = world::block(Key::Token, world::moment_after(limit));
}

pub(crate) fn yield_now() {
    world::yield_now();
}

#[derive(Debug, Default)]
pub(crate) struct Builder(String);

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder::default()
    }

    pub(crate) fn name(self, name: String) -> Builder {
        Builder(name)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let (id, handle) = world::start_here(self.0, work);
        Ok(JoinHandle { id, handle })
    }

    #[cfg(feature = "tiered")]
    pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
        self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        let (id, enter) = world::enroll(world::here(), self.0, false);
        let handle = scope.spawn(move || {
            enter();
            work()
        });
        Ok(ScopedJoinHandle { id, handle })
    }
}

pub(crate) struct JoinHandle<T> {
    id: usize,
    handle: std::thread::JoinHandle<T>,
}

impl<T> JoinHandle<T> {
    #[cfg_attr(not(test), expect(dead_code, reason = "the library waits for none of its threads"))]
    pub(crate) fn join(self) -> std::thread::Result<T> {
        world::join(self.id);
        self.handle.join()
    }
}

#[cfg(feature = "tiered")]
pub(crate) use std::thread::scope;

#[cfg(feature = "tiered")]
pub(crate) struct ScopedJoinHandle<'scope, T> {
    id: usize,
    handle: std::thread::ScopedJoinHandle<'scope, T>,
}

#[cfg(feature = "tiered")]
impl<T> ScopedJoinHandle<'_, T> {
    pub(crate) fn join(self) -> std::thread::Result<T> {
        world::join(self.id);
        self.handle.join()
    }
}
