//! One caller's requests on their way: where they are, where their answers arrive, and how their caller learns of it.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use smallvec::smallvec;

use super::Answers;
use crate::clock::real::Alarm;
use crate::remote::error::RemoteError;
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Action, Reply};
use crate::sync::{Arc, Condvar, Mutex};
use crate::task::guarded;
use crate::watch::event;

/// What a request is taken to need beside its key and its value.
const REQUEST_OVERHEAD: usize = 160;

/// The requests of one caller to one server, which are never split, and where their answers arrive, whether or not anybody
/// waits for them still.
///
/// Its caller and whoever carries it out share it, so that a call of one request allocates once, and as a rule frees where it allocated.
pub(super) struct Job {
    pub(super) requests: Requests,
    /// About what they need on the wire.
    pub(super) bytes: usize,
    /// The connection that they insist on, all that do.
    pub(super) connection: Option<u64>,
    pub(super) deadline: Instant,
    state: Mutex<JobState>,
    arrived: Condvar,
}

#[derive(Default)]
struct JobState {
    stage: Stage,
    /// Empty unless the stage says that they are here.
    answers: Answers,
    waker: Option<Waker>,
    /// Whether nobody will take the answers.
    given_up: bool,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Queued,
    /// Its requests go out, so that only an answer says what has become of them.
    Sent,
    Answered,
    /// Its caller has gone, so that nothing of it is sent any more.
    Withdrawn,
}

/// What a caller leaves a job with.
pub(super) enum Departure {
    With(Answers),
    /// Its time was up in the queue.
    Unsent,
    /// Its time was up with the requests under way.
    Unanswered,
}

impl Job {
    pub(super) fn new(requests: Requests, deadline: Instant) -> Job {
        let bytes = requests.iter().map(request_len).sum();
        let connection = requests.iter().find_map(Request::connection);
        Job { requests, bytes, connection, deadline, state: Mutex::default(), arrived: Condvar::new() }
    }

    /// Answers every request with an error, since none is sent.
    pub(super) fn refuse(&self, error: RemoteError) {
        drop(self.put(smallvec![Err(error); self.requests.len()]));
    }

    pub(super) fn stage(&self) -> Stage {
        self.state.lock().stage
    }

    /// Returns whether the job is to be sent, which its caller will reckon with from now on.
    pub(super) fn send_off(&self) -> bool {
        let mut state = self.state.lock();
        let waits = state.stage == Stage::Queued;
        if waits {
            state.stage = Stage::Sent;
        }
        waits
    }

    /// Hands the answers over, or returns them where nobody will take them.
    pub(super) fn put(&self, answers: Answers) -> Option<Answers> {
        let mut state = self.state.lock();
        if state.given_up {
            return Some(answers);
        }
        (state.stage, state.answers) = (Stage::Answered, answers);
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_one();
        // Foreign code, which must not take the answers of others down with it.
        if let Some(waker) = waker
            && guarded(|| waker.wake()).is_none()
        {
            event!(error, "the waker of a future that waits for the remote tier panicked");
        }
        None
    }

    /// Notes that nobody will take the answers, and returns them if they are there.
    pub(super) fn give_up(&self) -> Option<Answers> {
        let mut state = self.state.lock();
        state.given_up = true;
        (state.stage == Stage::Answered).then(|| mem::take(&mut state.answers))
    }

    /// Returns what gives back the leases among answers that nobody takes: their holder has gone, and others would wait for it.
    pub(super) fn unwanted(&self, answers: &Answers) -> Requests {
        let won = self.requests.iter().zip(answers).filter_map(|(request, answer)| match answer {
            Ok(Reply::Won(cas)) => Some(Request::delete(request.key().clone(), Some(*cas))),
            _ => None,
        });
        won.collect()
    }

    /// Puts this thread to sleep until the answers are there, until `deadline` at most.
    pub(super) fn sleep(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while state.stage != Stage::Answered && !self.arrived.wait_until(&mut state, deadline).timed_out() {}
    }

    /// Takes the answers, or gives them up.
    pub(super) fn leave(&self) -> Departure {
        let mut state = self.state.lock();
        match mem::replace(&mut state.stage, Stage::Withdrawn) {
            Stage::Answered => Departure::With(mem::take(&mut state.answers)),
            Stage::Sent => Departure::Unanswered,
            Stage::Queued | Stage::Withdrawn => Departure::Unsent,
        }
    }
}

/// Resolves once the answers of a job are there, or its time is up.
pub(super) struct Arrival {
    job: Arc<Job>,
    alarm: Alarm,
}

impl Arrival {
    pub(super) fn new(job: Arc<Job>, alarm: Alarm) -> Arrival {
        Arrival { job, alarm }
    }
}

impl Future for Arrival {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Cloning and dropping a waker is foreign code, and stays outside the lock.
        let waker = context.waker().clone();
        let mut state = self.job.state.lock();
        if state.stage == Stage::Answered {
            return Poll::Ready(());
        }
        let replaced = state.waker.replace(waker);
        drop(state);
        drop(replaced);
        Pin::new(&mut self.alarm).poll(context)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // Whoever carries the job out may keep it for long; whoever waited must not stay alive by it.
        let waker = self.job.state.lock().waker.take();
        drop(waker);
    }
}

fn request_len(request: &Request) -> usize {
    let command = request.command();
    let value = if let Action::Set { value, .. } = command.action { value.len() } else { 0 };
    command.key.as_bytes().len() + value + REQUEST_OVERHEAD
}
