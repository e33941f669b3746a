//! The threads of a namespace: when they start, and when they end.

use std::io;

use super::core::Core;
use crate::clock::{Deadline, real};
use crate::remote::batch::Batcher;
use crate::signal::Signal;
use crate::sync::{Arc, thread};
use crate::task::guarded;
use crate::watch::{Limit, Publisher, event};

/// By which part of itself the interval between two looks at the journal is shortened at most, at random, so that processes
/// that started together do not ask together for ever.
const POLL_JITTER: f64 = 0.2;

/// The threads of a namespace.
pub(super) struct Threads {
    stop: Arc<Signal>,
}

impl Threads {
    /// Starts the thread that follows the journal, by a way of its own.
    pub(super) fn start(core: &Arc<Core>, batcher: Batcher) -> io::Result<Threads> {
        let stop = Arc::new(Signal::default());
        let (core, stopped) = (core.clone(), stop.clone());
        thread::Builder::new().name("larder-poll".to_owned()).spawn(move || follow(&core, &batcher, &stopped))?;
        Ok(Threads { stop })
    }

    /// Lets all threads end. Does not wait for them.
    pub(super) fn stop(&self, core: &Core) {
        self.stop.give();
        core.leases.stop();
    }
}

/// Looks at the journal again and again.
fn follow(core: &Core, batcher: &Batcher, stop: &Signal) {
    let mut publisher = Publisher::default();
    let failures = Limit::default();
    loop {
        // What the news take out of the caches is dropped here: code of the user's, which must not end the thread.
        match guarded(|| real::block_on(core.look_by(batcher))) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                if let Some(others) = failures.pass() {
                    event!(debug, [others = others.0], "the journal cannot be read: {error}{others}");
                }
            }
            None => event!(error, "a value panicked that was dropped because of news from another process"),
        }
        publisher.turn(core);
        let pause = core.settings.poll_interval.mul_f64(1.0 - POLL_JITTER * fastrand::f64());
        let until = Deadline::after(core.clock.now(), pause);
        if core.clock.block_on(stop.given(), until).is_some() {
            return;
        }
    }
}
