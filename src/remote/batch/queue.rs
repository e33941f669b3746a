//! What waits to be sent to one server, and what of it goes out together.

use std::collections::VecDeque;
use std::mem;

use smallvec::SmallVec;

use super::job::Job;
use crate::sync::{Arc, Condvar, Mutex};

/// The calls that may wait for one server: a live one is through with them in about 10 ms, far below any sensible time limit,
/// so that a longer queue would only hold what is bound to fail.
pub(super) const MAX_QUEUED_JOBS: usize = 8_192;

/// The bytes that those calls may hold between them, beyond one call of any size.
pub(super) const MAX_QUEUED_BYTES: usize = 64 << 20;

/// The commands of one batch: as many as go out in one write, beyond which a round trip is no longer what costs.
pub(super) const MAX_BATCH_COMMANDS: usize = 256;

/// The bytes of one batch: as many as go out in one write.
pub(super) const MAX_BATCH_BYTES: usize = 64 << 10;

/// The jobs that a batch may pass over, because they do not fit into it, in search of others that do. They stay first in the
/// queue.
pub(super) const MAX_PASSED_OVER: usize = 16;

/// The jobs that wait for one server.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// The I/O thread sleeps here.
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Arc<Job>>,
    bytes: usize,
    /// Whether there may be jobs that the I/O thread has to see to.
    rung: bool,
    closed: bool,
}

impl Queue {
    /// Adds a job, or gives it back if there is no room. Unless somebody rings, it is its caller who sees to it.
    pub(super) fn push(&self, job: Arc<Job>) -> Result<(), Arc<Job>> {
        let mut waiting = self.waiting.lock();
        let fits = waiting.bytes == 0 || waiting.bytes.saturating_add(job.bytes) <= MAX_QUEUED_BYTES;
        if !fits || waiting.jobs.len() >= MAX_QUEUED_JOBS {
            return Err(job);
        }
        waiting.bytes += job.bytes;
        waiting.jobs.push_back(job);
        Ok(())
    }

    /// Has the I/O thread empty the queue.
    pub(super) fn ring(&self) {
        let was_rung = mem::replace(&mut self.waiting.lock().rung, true);
        // It sleeps only after it has found the queue empty, and has forgotten the bell under the same lock.
        if !was_rung {
            self.bell.notify_one();
        }
    }

    /// Lets the I/O thread end once the queue is empty.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.bell.notify_one();
    }

    /// Takes what fits into one batch; `None` if nothing waits.
    pub(super) fn gather(&self) -> Option<Batch> {
        self.waiting.lock().gather()
    }

    /// Takes what fits into one batch. Waits for the bell while nothing does; `None` once the queue is closed, too.
    pub(super) fn gather_when_rung(&self) -> Option<Batch> {
        let mut waiting = self.waiting.lock();
        loop {
            if (waiting.rung || waiting.closed)
                && let Some(batch) = waiting.gather()
            {
                return Some(batch);
            }
            if waiting.closed {
                return None;
            }
            waiting.rung = false;
            self.bell.wait(&mut waiting);
        }
    }

    /// Takes everything.
    pub(super) fn drain(&self) -> VecDeque<Arc<Job>> {
        let mut waiting = self.waiting.lock();
        waiting.bytes = 0;
        mem::take(&mut waiting.jobs)
    }

    /// Returns the bytes that the jobs hold.
    #[cfg(any(test, feature = "metrics"))]
    pub(super) fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }
}

impl Waiting {
    fn gather(&mut self) -> Option<Batch> {
        let mut batch = Batch::new(self.jobs.pop_front()?);
        let mut passed_over = SmallVec::<[Arc<Job>; MAX_PASSED_OVER]>::new();
        while !batch.is_full() && passed_over.len() < MAX_PASSED_OVER {
            let Some(job) = self.jobs.pop_front() else { break };
            if let Err(job) = batch.take(job) {
                passed_over.push(job);
            }
        }
        passed_over.into_iter().rev().for_each(|job| self.jobs.push_front(job));
        self.bytes -= batch.bytes;
        Some(batch)
    }
}

/// Jobs that share an exchange.
pub(super) struct Batch {
    pub(super) jobs: Vec<Arc<Job>>,
    commands: usize,
    bytes: usize,
    /// The connection that the exchange has to take, because a cas among its commands was read on it.
    connection: Option<u64>,
}

impl Batch {
    fn new(first: Arc<Job>) -> Batch {
        let (commands, bytes, connection) = (first.requests.len(), first.bytes, first.connection);
        Batch { jobs: vec![first], commands, bytes, connection }
    }

    fn is_full(&self) -> bool {
        self.commands >= MAX_BATCH_COMMANDS || self.bytes >= MAX_BATCH_BYTES
    }

    /// Adds a job, or gives it back if it does not fit.
    fn take(&mut self, job: Arc<Job>) -> Result<(), Arc<Job>> {
        let commands = self.commands + job.requests.len();
        let bytes = self.bytes.saturating_add(job.bytes);
        // A store takes the connection of the first cas and fences all others unsent, which would be wrong about them.
        let agree = self.connection.is_none() || job.connection.is_none() || self.connection == job.connection;
        if commands > MAX_BATCH_COMMANDS || bytes > MAX_BATCH_BYTES || !agree {
            return Err(job);
        }
        (self.commands, self.bytes) = (commands, bytes);
        self.connection = self.connection.or(job.connection);
        self.jobs.push(job);
        Ok(())
    }
}
