//! The threads of a namespace: when they start, and when they end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::{io, thread};

use super::core::Core;
use crate::clock::{Deadline, real};
use crate::remote::batch::Batcher;
use crate::sync::{Arc, Mutex};

/// By which part of itself the interval between two looks at the journal is shortened at most, at random, so that processes
/// that started together do not ask together for ever.
const POLL_JITTER: f64 = 0.2;

/// The threads of a namespace.
pub(super) struct Threads {
    stop: Arc<Stop>,
}

impl Threads {
    /// Starts the thread that follows the journal, by a way of its own.
    pub(super) fn start(core: &Arc<Core>, batcher: Batcher) -> io::Result<Threads> {
        let stop = Arc::new(Stop::default());
        let (core, stopped) = (core.clone(), stop.clone());
        thread::Builder::new().name("larder-poll".to_owned()).spawn(move || follow(&core, &batcher, &stopped))?;
        Ok(Threads { stop })
    }

    /// Lets all threads end. Does not wait for them.
    pub(super) fn stop(&self, core: &Core) {
        self.stop.stop();
        core.leases.stop();
    }
}

/// Looks at the journal again and again.
fn follow(core: &Core, batcher: &Batcher, stop: &Stop) {
    loop {
        // What the news take out of the caches is dropped here: code of the user's, which must not end the thread.
        match catch_unwind(AssertUnwindSafe(|| real::block_on(core.look_by(batcher)))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("the journal cannot be read: {error}"),
            Err(panic) => {
                // Dropping it may panic once more.
                std::mem::forget(panic);
                log::error!("a value panicked that was dropped because of news from another process");
            }
        }
        let pause = core.settings.poll_interval.mul_f64(1.0 - POLL_JITTER * fastrand::f64());
        let until = Deadline::after(core.clock.now(), pause);
        if core.clock.block_on(stop.stopped(), until).is_some() {
            return;
        }
    }
}

/// Tells one thread to end.
#[derive(Default)]
struct Stop(Mutex<StopState>);

#[derive(Default)]
struct StopState {
    is_stopped: bool,
    waker: Option<Waker>,
}

impl Stop {
    fn stop(&self) {
        let mut state = self.0.lock();
        state.is_stopped = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Returns a future that resolves once this has been told to stop. One at a time is woken.
    fn stopped(&self) -> Stopped<'_> {
        Stopped(self)
    }
}

struct Stopped<'a>(&'a Stop);

impl Future for Stopped<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock();
        if state.is_stopped {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
