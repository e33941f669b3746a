//! Hard timeouts: loads that are given up, whatever their loaders do meanwhile.
//!
//! A loader that hangs cannot be interrupted, and the thread that runs it cannot say so. What its load holds is therefore
//! within the reach of others, as [`Stake`]s: the load is over once any of them finds that its time is. A timer does so in
//! time; a caller that waits for the load, or comes by, does so where it is a moment faster.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::clock::{Clock, Deadline, Timestamp};
use crate::error::LoadError;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak};
use crate::task::{Here, Task, drop_quietly, guarded};

/// What a load holds until it ends, and loses when it is given up.
pub(crate) trait Stake: Send + Sync {
    /// Takes it away from the load, which was allowed so much time. Called any number of times, by any thread.
    fn give_up(&self, allowed: Duration);
}

/// Who is told that a load was given up.
pub(crate) trait Observer: Send + Sync {
    fn gave_up(&self, allowed: Duration);
}

/// The time that one load may take, be it of one key or of many.
pub(crate) struct Limit {
    at: Deadline,
    allowed: Duration,
    observer: Arc<dyn Observer>,
    /// What [`State::phase`] says, for those who ask often.
    is_over: AtomicBool,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    stakes: Vec<Arc<dyn Stake>>,
    /// Of the future that runs the load.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Over,
    /// The load ended by itself.
    Ended,
}

impl Limit {
    /// Returns how much time the load may take.
    pub(crate) fn allowed(&self) -> Duration {
        self.allowed
    }

    /// Returns from when on the load is given up.
    pub(crate) fn at(&self) -> Deadline {
        self.at
    }

    /// Returns whether the load was given up.
    pub(crate) fn is_over(&self) -> bool {
        // Relaxed: a load that hears of it a moment later loses what it holds all the same.
        self.is_over.load(Ordering::Relaxed)
    }

    /// Returns whether the load is past its time, and not yet known to have ended.
    pub(crate) fn is_overdue(&self, now: Timestamp) -> bool {
        self.at.has_passed(now) && self.state.lock().phase != Phase::Ended
    }

    /// Makes something subject to this limit. At once, if the load has been given up already.
    pub(crate) fn cover(&self, stake: Arc<dyn Stake>) {
        let mut state = self.state.lock();
        if state.phase == Phase::Running {
            state.stakes.push(stake);
        } else {
            drop(state);
            stake.give_up(self.allowed);
        }
    }

    /// Gives the load up, unless it has ended. Returns once that is done, by whomever.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Ended {
            return;
        }
        let is_first = state.phase == Phase::Running;
        state.phase = Phase::Over;
        self.is_over.store(true, Ordering::Relaxed);
        // Not taken out: who comes second does it all again, so as not to go on before it is done.
        let stakes = state.stakes.clone();
        let waker = state.waker.take();
        drop(state);
        if is_first {
            self.observer.gave_up(self.allowed);
        }
        stakes.iter().for_each(|stake| stake.give_up(self.allowed));
        if let Some(waker) = waker {
            guarded(|| waker.wake());
        }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("at", &self.at).field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}

/// A load under way, and the timer that ends it. Dropping it says that the load has ended.
pub(crate) struct Limited {
    limit: Arc<Limit>,
    timer: Option<Arc<Task<Here>>>,
}

impl Limited {
    /// Begins to count the time of a load.
    pub(crate) fn start(clock: &Clock, allowed: Duration, observer: Arc<dyn Observer>) -> Limited {
        let at = Deadline::after(clock.now(), allowed);
        let state = State { phase: Phase::Running, stakes: Vec::new(), waker: None };
        let limit =
            Arc::new(Limit { at, allowed, observer, is_over: AtomicBool::new(false), state: Mutex::new(state) });
        let timer = (at != Deadline::NEVER).then(|| {
            let (clock, limit): (Clock, Weak<Limit>) = (clock.clone(), Arc::downgrade(&limit));
            // Polled by whoever tells the time, a thread that must not be kept: giving up only moves words and wakes.
            let timer = Task::new(
                Here,
                Box::pin(async move {
                    clock.alarm(at).await;
                    if let Some(limit) = limit.upgrade() {
                        limit.give_up();
                    }
                }),
            );
            std::task::Wake::wake(timer.clone());
            timer
        });
        Limited { limit, timer }
    }

    pub(crate) fn limit(&self) -> &Arc<Limit> {
        &self.limit
    }

    /// Runs a load until it ends or is given up: then it is dropped, and there is nothing.
    pub(crate) async fn run<F: Future>(&self, load: F) -> Option<F::Output> {
        let mut load = pin!(load);
        poll_fn(|context| {
            let waker = context.waker().clone();
            let replaced = self.limit.state.lock().waker.replace(waker);
            drop(replaced);
            // After the waker is there: who gives the load up from here on wakes it.
            if self.limit.is_over() {
                return Poll::Ready(None);
            }
            match load.as_mut().poll(context) {
                // What a loader that could not be interrupted brings too late is nobody's.
                Poll::Ready(_) if self.limit.is_over() => Poll::Ready(None),
                polled => polled.map(Some),
            }
        })
        .await
    }
}

/// Runs a load within its limit, if it has one.
pub(crate) async fn within<T, E>(
    limited: Option<Limited>,
    load: impl Future<Output = Result<T, LoadError<E>>>,
) -> Result<T, LoadError<E>> {
    match limited {
        Some(limited) => {
            limited.run(load).await.unwrap_or_else(|| Err(LoadError::timed_out(limited.limit().allowed())))
        }
        None => load.await,
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let mut state = self.limit.state.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Ended;
        }
        let done = (std::mem::take(&mut state.stakes), state.waker.take());
        drop(state);
        drop_quietly(done);
        if let Some(timer) = &self.timer {
            timer.cancel();
        }
    }
}
