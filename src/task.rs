//! A future that is polled wherever its wake-ups send it, by one thread at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Wake, Waker};

use crate::load::BoxFuture;
use crate::sync::{Arc, Mutex};

/// Where a task goes to be polled.
pub(crate) trait Home: Sized + Send + Sync + 'static {
    /// Sees to it that [`Task::run`] is called. At most one call of it is on the way at a time.
    fn send(&self, task: Arc<Task<Self>>);

    /// Is told once that the task has ended, in whatever way.
    fn ended(&self) {}
}

/// A future and where it is polled. Ends when the future does, when that panics, or when it is cancelled.
pub(crate) struct Task<H> {
    home: H,
    state: Mutex<State>,
}

enum State {
    /// Nobody has asked for it.
    Idle(BoxFuture),
    /// On its way to be polled.
    Sent(BoxFuture),
    /// Being polled, which took the future out: neither its poll nor its drop runs under the lock.
    Running,
    /// Being polled, and woken meanwhile: to be polled once more.
    Woken,
    Ended,
}

impl<H: Home> Task<H> {
    pub(crate) fn new(home: H, future: BoxFuture) -> Arc<Task<H>> {
        Arc::new(Task { home, state: Mutex::new(State::Idle(future)) })
    }

    /// Polls the future, if this task was sent to be.
    pub(crate) fn run(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let mut future = match std::mem::replace(&mut *state, State::Running) {
            State::Sent(future) => future,
            other => {
                *state = other;
                return;
            }
        };
        drop(state);
        let waker = Waker::from(self.clone());
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        if matches!(polled, Ok(Poll::Pending)) {
            let mut state = self.state.lock();
            match *state {
                State::Running => {
                    *state = State::Idle(future);
                    return;
                }
                State::Woken => {
                    *state = State::Sent(future);
                    drop(state);
                    return self.home.send(self.clone());
                }
                // Cancelled while it was polled.
                State::Idle(_) | State::Sent(_) | State::Ended => {}
            }
        }
        drop_quietly((future, polled));
        self.cancel();
    }

    /// Ends the task and drops its future: here, or where it is being polled just now.
    pub(crate) fn cancel(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Ended);
        if !matches!(state, State::Ended) {
            drop_quietly(state);
            self.home.ended();
        }
    }
}

impl<H: Home> Wake for Task<H> {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Ended) {
            State::Idle(future) => {
                *state = State::Sent(future);
                drop(state);
                self.home.send(self.clone());
            }
            State::Running => *state = State::Woken,
            other => *state = other,
        }
    }
}

/// Polls a task at once, on the thread that wakes it: for futures that are short and do not block.
pub(crate) struct Here;

impl Home for Here {
    fn send(&self, task: Arc<Task<Self>>) {
        task.run();
    }
}

/// Runs something of the user's, a store, a waker or a subscriber say, whose panic is to end neither what goes on around it nor
/// a thread of this crate; `None` if it panics.
pub(crate) fn guarded<R>(run: impl FnOnce() -> R) -> Option<R> {
    let panic = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => return Some(result),
        Err(panic) => panic,
    };
    // What a panic carries may panic in its turn when it is dropped; what that carries is not dropped any more.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(panic);
    }
    None
}

/// Returns a waker that calls another one, whose panic goes no further.
pub(crate) fn guarded_waker(waker: Waker) -> Waker {
    struct Guarded(Waker);

    impl Wake for Guarded {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            guarded(|| self.0.wake_by_ref());
        }
    }

    Waker::from(Arc::new(Guarded(waker)))
}

/// Drops something of the user's, whose drop may panic.
pub(crate) fn drop_quietly<T>(dropped: T) {
    let _ = guarded(|| drop(dropped));
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use super::*;
    use crate::sync::{AtomicUsize, Ordering};

    /// Keeps what is sent to it, for a test to run.
    #[derive(Clone, Default)]
    struct Inbox {
        sent: Arc<Mutex<Vec<Arc<Task<Inbox>>>>>,
        ended: Arc<AtomicUsize>,
    }

    impl Home for Inbox {
        fn send(&self, task: Arc<Task<Self>>) {
            self.sent.lock().push(task);
        }

        fn ended(&self) {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Inbox {
        fn run_all(&self) -> usize {
            let tasks = std::mem::take(&mut *self.sent.lock());
            tasks.iter().for_each(Task::run);
            tasks.len()
        }

        fn ended(&self) -> usize {
            self.ended.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn wake_ups_send_a_task_once_and_those_during_its_poll_once_more() {
        let inbox = Inbox::default();
        let mut polls = 0;
        let future = poll_fn(move |context| {
            polls += 1;
            (0..3).for_each(|_| context.waker().wake_by_ref());
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        let task = Task::new(inbox.clone(), Box::pin(future));
        task.run();
        assert_eq!(inbox.run_all(), 0, "nobody has woken it");
        (0..3).for_each(|_| task.clone().wake());
        assert_eq!((inbox.run_all(), inbox.run_all(), inbox.ended()), (1, 1, 1));
        task.clone().wake();
        assert_eq!(inbox.run_all(), 0, "it has ended");
    }

    #[test]
    fn a_task_that_is_cancelled_drops_its_future_at_once_or_after_its_poll() {
        let held = Arc::new(());
        let inbox = Inbox::default();
        let hold = held.clone();
        let idle = Task::new(inbox.clone(), Box::pin(async move { drop((pending::<()>().await, hold)) }));
        idle.cancel();
        assert_eq!((Arc::strong_count(&held), inbox.ended()), (1, 1));

        let itself: Arc<Mutex<Option<Arc<Task<Inbox>>>>> = Arc::default();
        let (hold, own) = (held.clone(), itself.clone());
        let running = poll_fn(move |_| {
            let task = own.lock().take().expect("polled once");
            task.cancel();
            assert_eq!(Arc::strong_count(&hold), 2, "nobody drops a future that is being polled");
            Poll::Pending
        });
        let running = Task::new(inbox.clone(), Box::pin(running));
        *itself.lock() = Some(running.clone());
        running.clone().wake();
        assert_eq!((inbox.run_all(), Arc::strong_count(&held), inbox.ended()), (1, 1, 2));
    }

    #[test]
    fn a_panic_ends_a_task_and_goes_no_further() {
        let inbox = Inbox::default();
        let task = Task::new(inbox.clone(), Box::pin(poll_fn(|_| panic!("in a poll"))));
        task.wake();
        assert_eq!((inbox.run_all(), inbox.ended()), (1, 1));
    }
}
