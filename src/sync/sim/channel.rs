//! Bounded queues, with the face of `crossbeam_channel`'s.

use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) use crossbeam_channel::{RecvError, SendError, TryRecvError};

use super::{Condvar, Mutex};

struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    senders: usize,
    receivers: usize,
}

/// Returns both ends of a queue of at most `capacity`, which is not 0.
pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { waiting: VecDeque::new(), senders: 1, receivers: 1 });
    let queue = Arc::new(Queue { state, changed: Condvar::new(), capacity });
    (Sender(queue.clone()), Receiver(queue))
}

pub(crate) struct Sender<T>(Arc<Queue<T>>);

impl<T> Sender<T> {
    pub(crate) fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state.lock();
        while state.receivers > 0 && state.waiting.len() >= self.0.capacity {
            self.0.changed.wait(&mut state);
        }
        if state.receivers == 0 {
            return Err(SendError(item));
        }
        state.waiting.push_back(item);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

pub(crate) struct Receiver<T>(Arc<Queue<T>>);

impl<T> Receiver<T> {
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                self.0.changed.notify_all();
                return Ok(item);
            }
            if state.senders == 0 {
                return Err(RecvError);
            }
            self.0.changed.wait(&mut state);
        }
    }

    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.state.lock();
        let item = state.waiting.pop_front();
        self.0.changed.notify_all();
        item.ok_or(if state.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.receivers -= 1;
        // What nobody will take is dropped outside of the lock.
        let left = if state.receivers == 0 { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        self.0.changed.notify_all();
        drop(left);
    }
}
