//! What a background load brings, for the caller that began it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex};
use crate::task::guarded;

/// Returns both ends of an answer that is given once.
pub(crate) fn answer<T>() -> (Promise<T>, Answer<T>) {
    let shared = Arc::new(Mutex::new(State::Open(None)));
    (Promise(shared.clone()), Answer(shared))
}

enum State<T> {
    /// With the waker of who waits.
    Open(Option<Waker>),
    Given(T),
    /// The promise was dropped, or the answer has been taken.
    Over,
}

/// Gives an answer. Dropping it says that there will be none.
pub(crate) struct Promise<T>(Arc<Mutex<State<T>>>);

impl<T> Promise<T> {
    pub(crate) fn give(self, answer: T) {
        self.settle(State::Given(answer));
    }

    fn settle(&self, outcome: State<T>) {
        let mut state = self.0.lock();
        if !matches!(*state, State::Open(_)) {
            // Given already; what this would say is dropped outside the lock.
            drop(state);
            return drop(outcome);
        }
        let before = std::mem::replace(&mut *state, outcome);
        drop(state);
        if let State::Open(Some(waker)) = before {
            guarded(|| waker.wake());
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.settle(State::Over);
    }
}

/// Resolves to the answer; `None` if there is none. Dropping it leaves the load to itself.
pub(crate) struct Answer<T>(Arc<Mutex<State<T>>>);

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // Cloning and dropping a waker is foreign code, and stays outside the lock.
        let waker = context.waker().clone();
        let mut state = self.0.lock();
        let before = match *state {
            State::Open(_) => std::mem::replace(&mut *state, State::Open(Some(waker))),
            State::Given(_) | State::Over => std::mem::replace(&mut *state, State::Over),
        };
        drop(state);
        match before {
            State::Open(_) => Poll::Pending,
            State::Given(answer) => Poll::Ready(Some(answer)),
            State::Over => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(answer: &mut Answer<T>) -> Poll<Option<T>> {
        Pin::new(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_is_given_once_or_never() {
        let (promise, mut given) = answer();
        assert_eq!(poll(&mut given), Poll::Pending);
        promise.give(7);
        assert_eq!(poll(&mut given), Poll::Ready(Some(7)));
        let (promise, mut never) = answer::<u8>();
        drop(promise);
        assert_eq!(poll(&mut never), Poll::Ready(None));
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_dropped_with_its_promise() {
        let value = Arc::new(());
        let (promise, unwanted) = answer();
        drop(unwanted);
        promise.give(value.clone());
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
