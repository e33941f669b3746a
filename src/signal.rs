//! A signal: given once, and waited for by one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::Mutex;

/// Tells one thread, or one future, of something that happens once.
#[derive(Default)]
pub(crate) struct Signal(Mutex<State>);

#[derive(Default)]
struct State {
    is_given: bool,
    waker: Option<Waker>,
}

impl Signal {
    pub(crate) fn give(&self) {
        let mut state = self.0.lock();
        state.is_given = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.lock().is_given
    }

    /// Returns a future that resolves once this has been given. One at a time is woken.
    pub(crate) fn given(&self) -> Given<'_> {
        Given(self)
    }
}

/// Resolves once a [`Signal`] has been given.
pub(crate) struct Given<'a>(&'a Signal);

impl Future for Given<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Cloning and dropping a waker is foreign code, and stays outside the lock.
        let waker = context.waker().clone();
        let mut state = self.0.0.lock();
        if state.is_given {
            return Poll::Ready(());
        }
        let replaced = state.waker.replace(waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}
