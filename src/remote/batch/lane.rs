//! The way to one server: who empties its queue, and what an exchange does for those who wait for it.

use std::mem;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::job::{Job, Stage};
use super::queue::{Batch, Queue};
use super::stats::Counters;
use super::{Answers, unanswered};
use crate::clock::real::now;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Command, RemoteTier};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, thread};
use crate::task::guarded;
use crate::watch::{LaneWatch, Limit, event};

/// How many calls may be under way to a server, queued ones included, when a thread does its own exchange; and, since a batch
/// that has just ended leaves none, how many more than one may have been in the last one. Two threads with a connection each
/// are faster than one that hands over to a third; beyond that, sharing a round trip is.
const MAX_BESIDE: usize = 1;

/// How often a thread lets others run before it sleeps until its answers arrive. Putting a thread to sleep and waking it costs
/// more than all else about an exchange; where many wait for one batch, a few turns of the others bring the answers.
const MAX_YIELDS: usize = 6;

/// How long a turn of the others may take for a thread to grant them another. A longer one shows that they are not only callers:
/// where a processor has other work, each turn costs as long as all that is waiting for it takes, and whoever sleeps is back
/// sooner than whoever yields.
const LONGEST_TURN: Duration = Duration::from_millis(1);

/// Up to which part of its time limit a call may have waited for its thread to empty the queue for others too. The exchange ends
/// by the deadline of that thread, and so for the others by this part of the limit too early at most.
const LATEST_LEAD: u32 = 8;

/// The way to one server. Dropping it waits for nobody: its thread ends once it is through with what is queued.
pub(super) struct Lane {
    pub(super) road: Arc<Road>,
    /// Whether there is an I/O thread. It is started when it is first needed.
    has_thread: AtomicBool,
}

impl Lane {
    pub(super) fn new(road: Road) -> Lane {
        Lane { road: Arc::new(road), has_thread: AtomicBool::new(false) }
    }

    /// Queues requests for the I/O thread, or says at once why that cannot be.
    pub(super) fn submit(&self, requests: Requests, deadline: Instant) -> Passage<'_> {
        let passage = self.queue_up(requests, deadline);
        self.ring();
        passage
    }

    /// Queues requests for whoever comes first, or says at once why that cannot be. Who does this has to [wait](Self::wait).
    pub(super) fn queue_up(&self, requests: Requests, deadline: Instant) -> Passage<'_> {
        Passage { lane: self, job: self.road.queue_up(requests, deadline), deadline }
    }

    /// Waits on this thread for the answers of a job, until `deadline`.
    pub(super) fn wait(&self, job: &Job, deadline: Instant) {
        let mut begun = now();
        for _ in 0..MAX_YIELDS {
            if job.stage() == Stage::Answered {
                return;
            }
            thread::yield_now();
            // By now, all those that were ready to run have queued up.
            self.lead(job, deadline);
            let ended = now();
            if ended.saturating_duration_since(mem::replace(&mut begun, ended)) > LONGEST_TURN {
                break;
            }
        }
        // From here on nobody is there to carry it out but the I/O thread.
        if job.stage() == Stage::Queued {
            self.ring();
        }
        job.sleep(deadline);
    }

    /// Carries out a batch of what is queued on the thread that waits for `job` until `deadline`, if that is queued itself and no
    /// other thread is at it.
    fn lead(&self, job: &Job, deadline: Instant) {
        let road = &*self.road;
        let latest = deadline.checked_sub(road.timeout - road.timeout / LATEST_LEAD);
        if job.stage() != Stage::Queued
            || latest.is_none_or(|latest| now() > latest)
            || road.is_led.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let turn = Turn(&road.is_led);
        let unwanted = road.queue.gather().map(|batch| road.see_to(batch, Some(deadline))).unwrap_or_default();
        drop(turn);
        if !unwanted.is_empty() {
            drop(self.submit(unwanted, now() + road.timeout));
        }
    }

    /// Has the I/O thread empty the queue.
    fn ring(&self) {
        let road = &self.road;
        road.queue.ring();
        // Of several callers that come first, one starts it.
        if self.has_thread.load(Ordering::Relaxed) || self.has_thread.swap(true, Ordering::Relaxed) {
            return;
        }
        let worker = road.clone();
        let started = thread::Builder::new().name(format!("larder-io-{}", road.server)).spawn(move || worker.work());
        if let Err(error) = started {
            // Before the queue is emptied, whose lock orders the two: a job that comes too late for that finds no thread, and
            // tries it again.
            self.has_thread.store(false, Ordering::Relaxed);
            let message = format!("no thread can be started for server {}: {error}", road.server);
            road.refuse_all(&RemoteError::with_source(RemoteErrorKind::Unavailable, message, error));
        }
    }
}

/// Lets others lead when it ends, however that is.
struct Turn<'r>(&'r AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Relaxed, as what took the turn: the flag only keeps batches from being cut smaller. The queue has its lock.
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.road.queue.close();
    }
}

/// A job on its way, as its caller sees it. Dropping it gives its answers up.
pub(super) struct Passage<'b> {
    pub(super) lane: &'b Lane,
    pub(super) job: Arc<Job>,
    /// How long the caller waits: what the job has too.
    pub(super) deadline: Instant,
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if let Some(answers) = self.job.give_up() {
            let unwanted = self.job.unwanted(&answers);
            if !unwanted.is_empty() {
                // In time of its own: the caller's may be what has run out.
                drop(self.lane.submit(unwanted, now() + self.lane.road.timeout));
            }
        }
    }
}

/// What the callers and the I/O thread of one server share.
pub(super) struct Road {
    tier: Arc<dyn RemoteTier>,
    server: usize,
    timeout: Duration,
    pub(super) queue: Queue,
    /// Whether a caller carries out a batch.
    is_led: AtomicBool,
    /// The jobs that are queued or being carried out. A hint that orders nothing.
    under_way: AtomicUsize,
    /// How many jobs were carried out together last.
    last_batch: AtomicUsize,
    counters: Arc<Counters>,
    pub(super) watch: LaneWatch,
    overflows: Limit,
    panics: Limit,
}

impl Road {
    pub(super) fn new(
        tier: Arc<dyn RemoteTier>,
        server: usize,
        timeout: Duration,
        counters: Arc<Counters>,
        watch: LaneWatch,
    ) -> Road {
        Road {
            tier,
            server,
            timeout,
            queue: Queue::default(),
            is_led: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            last_batch: AtomicUsize::new(0),
            counters,
            watch,
            overflows: Limit::default(),
            panics: Limit::default(),
        }
    }

    /// Returns whether the way is free for a caller's own exchange: if so it is on the way, until it has called
    /// [`carry_out_own`](Self::carry_out_own).
    pub(super) fn enter(&self) -> bool {
        // Relaxed: a hint, like the other. A caller that is alone after a crowd hands over once, and finds it gone.
        if self.last_batch.load(Ordering::Relaxed) > MAX_BESIDE + 1 {
            return false;
        }
        let beside = |under_way| (under_way <= MAX_BESIDE).then_some(under_way + 1);
        self.under_way.try_update(Ordering::Relaxed, Ordering::Relaxed, beside).is_ok()
    }

    /// Carries out what a caller that has [entered](Self::enter) asks for.
    pub(super) fn carry_out_own(&self, requests: &[Request], timeout: Duration) -> Answers {
        let commands: SmallVec<[Command<'_>; 1]> = requests.iter().map(Request::command).collect();
        let answers = self.exchange(&commands, timeout, 1);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.counters.count_timeout(&answers);
        answers
    }

    /// Returns how many jobs are queued or being carried out.
    #[cfg(any(test, feature = "metrics"))]
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    fn queue_up(&self, requests: Requests, deadline: Instant) -> Arc<Job> {
        let job = Arc::new(Job::new(requests, deadline));
        self.under_way.fetch_add(1, Ordering::Relaxed);
        if let Err(refused) = self.queue.push(job.clone()) {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!("the queue of server {} is full", self.server);
            if let Some(others) = self.overflows.pass() {
                event!(warn, [others = others.0], "{message}: a call is refused{others}");
            }
            refused.refuse(RemoteError::new(RemoteErrorKind::Unavailable, message));
        }
        job
    }

    /// Answers all that is queued with an error.
    fn refuse_all(&self, error: &RemoteError) {
        for job in self.queue.drain() {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            job.refuse(error.clone());
        }
    }

    /// Is the I/O thread: carries out what it is rung for until the lane is gone.
    fn work(&self) {
        while let Some(batch) = self.queue.gather_when_rung() {
            let unwanted = self.see_to(batch, None);
            if !unwanted.is_empty() {
                let commands: Vec<Command<'_>> = unwanted.iter().map(Request::command).collect();
                drop(self.exchange(&commands, self.timeout, 1));
            }
        }
    }

    /// Carries a batch out, until `deadline` at most or the last one of its jobs, and hands its answers to those who wait for
    /// them. Returns what gives back the leases that nobody waits for.
    fn see_to(&self, batch: Batch, deadline: Option<Instant>) -> Requests {
        let now = now();
        let mut jobs = batch.jobs;
        // The callers of the others have left, or are about to, and say themselves that nothing was sent.
        let given_up = jobs.extract_if(.., |job| job.deadline <= now || !job.send_off()).count();
        self.under_way.fetch_sub(given_up, Ordering::Relaxed);
        let Some(latest) = jobs.iter().map(|job| job.deadline).max() else { return Requests::new() };
        self.last_batch.store(jobs.len(), Ordering::Relaxed);
        let timeout = deadline.unwrap_or(latest).saturating_duration_since(now);
        let commands: Vec<Command<'_>> = jobs.iter().flat_map(|job| &job.requests).map(Request::command).collect();
        let answers = self.exchange(&commands, timeout, jobs.len());
        if let [job] = &*jobs {
            return self.answer(job, answers);
        }
        let mut answers = answers.into_iter();
        let answer = |job: &Arc<Job>| self.answer(job, answers.by_ref().take(job.requests.len()).collect());
        jobs.iter().flat_map(answer).collect()
    }

    /// Hands a job its answers. Returns what gives back the leases among them if nobody waits for them any more.
    fn answer(&self, job: &Job, answers: Answers) -> Requests {
        // Before the caller wakes up, so that one who is alone finds the way free.
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        job.put(answers).map(|answers| job.unwanted(&answers)).unwrap_or_default()
    }

    /// Returns an answer for each command, whatever the store does.
    fn exchange(&self, commands: &[Command<'_>], timeout: Duration, jobs: usize) -> Answers {
        self.counters.count(jobs, commands.len());
        let watched = self.watch.exchange(commands);
        let mut answers = guarded(|| self.tier.run(commands, timeout)).unwrap_or_else(|| {
            if let Some(others) = self.panics.pass() {
                let commands = commands.len();
                event!(
                    error,
                    [others = others.0],
                    "the remote tier panicked: {commands} commands count as unanswered{others}"
                );
            }
            Vec::new()
        });
        answers.resize_with(commands.len(), || Err(unanswered()));
        let answers = answers.into();
        watched.end(&answers);
        answers
    }
}
