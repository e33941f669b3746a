//! What has gone through, counted.

use super::Answers;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::tier::Reply;
use crate::sync::{AtomicU64, Ordering};

/// What has gone through a [`Batcher`](super::Batcher) so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchStats {
    /// Calls that reached a server's lane: one for each server that a call went to, and each connection that it insisted on.
    pub(crate) jobs: u64,
    /// Exchanges, each of one job or more.
    pub(crate) batches: u64,
    /// The commands in them.
    pub(crate) commands: u64,
    /// The most commands of one exchange.
    pub(crate) largest_batch: u64,
    /// Jobs that were refused because their server's queue was full.
    pub(crate) refused: u64,
    /// Jobs without an answer within their time limit, in the queue or on the way.
    pub(crate) timed_out: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    jobs: AtomicU64,
    batches: AtomicU64,
    commands: AtomicU64,
    largest_batch: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) timed_out: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, jobs: usize, commands: usize) {
        self.jobs.fetch_add(jobs as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
        self.largest_batch.fetch_max(commands as u64, Ordering::Relaxed);
    }

    /// Counts a job that the store itself has found to take too long.
    pub(super) fn count_timeout(&self, answers: &Answers) {
        let is_late = |answer: &Result<Reply, RemoteError>| {
            answer.as_ref().is_err_and(|error| error.kind() == RemoteErrorKind::TimedOut)
        };
        if answers.iter().any(is_late) {
            self.timed_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> BatchStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BatchStats {
            jobs: read(&self.jobs),
            batches: read(&self.batches),
            commands: read(&self.commands),
            largest_batch: read(&self.largest_batch),
            refused: read(&self.refused),
            timed_out: read(&self.timed_out),
        }
    }
}
