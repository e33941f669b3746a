//! Slips: what receipts hold, and who waits for one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex};
use crate::task::guarded;
use crate::watch::event;

/// Whether one thing that has yet to reach the remote tier has.
///
/// Shared by who sees to it and by all who hold a receipt for it, so it lives no longer than they need it.
pub(crate) struct Slip(Mutex<State>);

struct State {
    standing: Standing,
    /// One for each future that waits: it comes with the first poll, and goes with the future.
    wakers: Vec<(u64, Waker)>,
    next_waker: u64,
}

/// How it stands with a slip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Somebody is seeing to it.
    Open,
    /// It has reached the remote tier, or something that covers it has.
    Settled,
    /// Nobody tries any more.
    Abandoned,
}

impl Slip {
    pub(crate) fn new() -> Arc<Slip> {
        Arc::new(Slip(Mutex::new(State { standing: Standing::Open, wakers: Vec::new(), next_waker: 0 })))
    }

    pub(crate) fn standing(&self) -> Standing {
        self.0.lock().standing
    }

    /// Settles it, and wakes who waits.
    pub(crate) fn settle(&self) {
        self.close(Standing::Settled);
    }

    /// Tells those who wait that nobody tries any more. What has been settled stays so.
    pub(crate) fn abandon(&self) {
        self.close(Standing::Abandoned);
    }

    fn close(&self, standing: Standing) {
        let mut state = self.0.lock();
        if state.standing == Standing::Settled {
            return;
        }
        state.standing = standing;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        for (_, waker) in wakers {
            // Foreign code, which must not keep the news from the others, nor end the thread that brings them.
            if guarded(|| waker.wake()).is_none() {
                event!(error, "the waker of a future that waits for a receipt panicked");
            }
        }
    }

    /// Returns a future that resolves once nobody sees to it any more, to whether it is settled.
    pub(crate) fn closed(self: &Arc<Self>) -> Closed {
        Closed { slip: self.clone(), waker: None }
    }
}

impl fmt::Debug for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slip").field(&self.standing()).finish()
    }
}

/// Waits for all of `slips`, and returns whether they are all settled.
pub(crate) async fn settled(slips: &[Arc<Slip>]) -> bool {
    let mut all = true;
    for slip in slips {
        all &= slip.closed().await;
    }
    all
}

/// Resolves when a slip is closed. Dropping it at any point leaves nothing behind.
pub(crate) struct Closed {
    slip: Arc<Slip>,
    waker: Option<u64>,
}

impl Future for Closed {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        // Cloning and dropping a waker is foreign code, and stays outside the lock.
        let waker = context.waker().clone();
        let this = &mut *self;
        let mut state = this.slip.0.lock();
        if state.standing != Standing::Open {
            return Poll::Ready(state.standing == Standing::Settled);
        }
        let known = this.waker.and_then(|id| state.wakers.iter_mut().find(|(known, _)| *known == id));
        let replaced = match known {
            Some((_, known)) => Some(std::mem::replace(known, waker)),
            None => {
                let id = state.next_waker;
                state.next_waker += 1;
                state.wakers.push((id, waker));
                this.waker = Some(id);
                None
            }
        };
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(id) = self.waker {
            let mut state = self.slip.0.lock();
            let mine = state.wakers.iter().position(|(known, _)| *known == id);
            let waker = mine.map(|at| state.wakers.swap_remove(at));
            drop(state);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Deadline};

    #[test]
    fn who_waits_learns_of_the_end_as_a_thread_and_as_a_future() {
        let slips = [Slip::new(), Slip::new()];
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| Clock::system().block_on(settled(&slips), Deadline::NEVER));
            let suspended = scope.spawn(|| futures::executor::block_on(settled(&slips)));
            slips[1].settle();
            slips[0].settle();
            assert_eq!((blocked.join().unwrap(), suspended.join().unwrap()), (Some(true), true));
        });
    }

    #[test]
    fn what_is_abandoned_ends_the_wait_and_what_is_settled_stays_so() {
        let slip = Slip::new();
        slip.abandon();
        assert!(!futures::executor::block_on(slip.closed()));
        slip.settle();
        slip.abandon();
        assert!(futures::executor::block_on(slip.closed()));
    }

    #[test]
    fn a_wait_that_is_dropped_leaves_no_waker_behind() {
        let slip = Slip::new();
        let mut closed = Box::pin(slip.closed());
        let mut context = Context::from_waker(Waker::noop());
        assert!(closed.as_mut().poll(&mut context).is_pending());
        assert!(closed.as_mut().poll(&mut context).is_pending());
        assert_eq!(slip.0.lock().wakers.len(), 1);
        drop(closed);
        assert!(slip.0.lock().wakers.is_empty());
    }
}
