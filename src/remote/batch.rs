//! The way of requests to the store: on the caller's own thread where the way is free, otherwise in batches.
//!
//! Each server has a *lane*: a bounded queue and an I/O thread. The thread takes what waits, merges it into one exchange, and
//! hands out the answers; while it does, more gathers. So nothing ever waits for a batch to fill, and the more callers there
//! are, the more of them share a round trip. A second thread would cut the batches smaller: with 64 callers it cost a fifth
//! of the throughput.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use smallvec::{SmallVec, smallvec};

use super::error::{RemoteError, RemoteErrorKind};
use super::request::{Request, Requests};
use super::tier::{Action, Command, RemoteTier, Reply, ServerHealth};
use crate::clock::real::{Alarm, now};
use crate::sync::channel::{self, Receiver, Sender, TrySendError};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, OnceLock, Ordering, thread};
use crate::watch::{LaneWatch, Limit, WayWatch, event};

/// How many calls may be under way to a server, queued ones included, when a thread does its own exchange; and, since a batch
/// that has just ended leaves none, how many more than one may have been in the last one. Two threads with a connection each
/// are faster than one that hands over to a third; beyond that, sharing a round trip is.
const MAX_BESIDE: usize = 1;

/// How often a thread lets others run before it sleeps until its answers arrive. Putting a thread to sleep and waking it costs
/// more than all else about an exchange; where many wait for one batch, a few turns of the others bring the answers. More
/// turns keep the I/O thread from its own: 3 gave 64 callers 2.8 times the throughput of as many on `MetaClient`, 8 gave 2.4,
/// none 1.5, on two cores.
const MAX_YIELDS: usize = 3;

/// The calls that may wait for one server: a live one is through with them in about 10 ms, far below any sensible time limit,
/// so that a longer queue would only hold what is bound to fail.
const MAX_QUEUED_JOBS: usize = 8_192;

/// The bytes that those calls may hold between them, beyond one call of any size.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// The commands of one batch: as many as go out in one write, beyond which a round trip is no longer what costs.
const MAX_BATCH_COMMANDS: usize = 256;

/// The bytes of one batch: as many as go out in one write.
const MAX_BATCH_BYTES: usize = 64 << 10;

/// What a request is taken to need beside its key and its value.
const REQUEST_OVERHEAD: usize = 160;

/// The jobs that a batch may pass over, because they do not fit into it, in search of others that do. They are first in the
/// next one.
const MAX_PASSED_OVER: usize = 16;

/// No call may wait longer, whatever its time limit says.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);

/// What became of requests, in their order.
pub(crate) type Answers = SmallVec<[Result<Reply, RemoteError>; 1]>;

/// Who waits for an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread, which may do the I/O itself, and which a poll may block.
    Thread,
    /// A future, which must not block whoever polls it.
    Task,
}

/// What has gone through a [`Batcher`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchStats {
    /// Calls that reached a server's lane, one for each server that a call went to.
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

/// Runs requests for all callers of one namespace.
///
/// Dropping it waits for nobody: its threads end once they are through with what is queued.
pub(crate) struct Batcher {
    tier: Arc<dyn RemoteTier>,
    timeout: Duration,
    lanes: Box<[Lane]>,
    counters: Arc<Counters>,
    watch: WayWatch,
}

impl Batcher {
    /// Makes a way to the store that nobody watches.
    #[cfg(test)]
    pub(crate) fn new(tier: Arc<dyn RemoteTier>, timeout: Duration) -> Batcher {
        Batcher::watched(tier, timeout, &WayWatch::default())
    }

    /// Makes a way to the store for whom `watch` names.
    pub(crate) fn watched(tier: Arc<dyn RemoteTier>, timeout: Duration, watch: &WayWatch) -> Batcher {
        let timeout = timeout.min(LONGEST_TIMEOUT);
        let counters = Arc::<Counters>::default();
        let servers = tier.server_health();
        let lane = |server| {
            let (tier, counters) = (tier.clone(), counters.clone());
            let queued_bytes = AtomicUsize::new(0);
            let road = Road {
                tier,
                server,
                timeout,
                under_way: AtomicUsize::new(0),
                last_batch: AtomicUsize::new(0),
                queued_bytes,
                counters,
                watch: LaneWatch::new(watch, &servers, server),
                overflows: Limit::default(),
                panics: Limit::default(),
            };
            Lane { road: Arc::new(road), queue: OnceLock::new() }
        };
        let lanes = (0..tier.servers().max(1)).map(lane).collect();
        Batcher { tier, timeout, lanes, counters, watch: watch.clone() }
    }

    /// Runs `requests` and returns an answer for each, in order.
    ///
    /// Requests to one server reach it in their order, on one connection; those of other callers may be in between batches,
    /// never in between these. Those to different servers are under way at the same time. Nothing is sent before the first
    /// poll.
    ///
    /// # Errors
    /// Beside those of the store: [`Unavailable`](RemoteErrorKind::Unavailable), at once if too many calls wait for a server
    /// already, and after the time limit if it ran out in the queue; [`TimedOut`](RemoteErrorKind::TimedOut) if it ran out
    /// and the requests may be under way.
    ///
    /// # Blocking
    /// A [`Caller::Thread`] is blocked by the first poll, for about the time limit at most, however dead the store is; what
    /// it runs on its own thread, by the store's word. A [`Caller::Task`] never is.
    ///
    /// # Cancel safety
    /// A future that is dropped leaves nothing behind that waits for it. Its requests may still be carried out; leases that
    /// they take are given back. So are those whose answer comes too late.
    pub(crate) async fn run(&self, caller: Caller, requests: impl Into<Requests>) -> Answers {
        let deadline = now() + self.timeout;
        let mut shares = self.split(requests.into());
        let call = self.watch.call(&shares.iter().map(|share| (&share.lane.road.watch, &*share.requests)));
        if shares.len() > 1 {
            // Apart, so that all other calls' futures are not as large as those of the few that go to several servers.
            return call.follow(Box::pin(self.carry_several(caller, shares, deadline))).await;
        }
        let Some(share) = shares.pop() else { return Answers::new() };
        drop(shares);
        call.follow(self.carry(caller, share, deadline)).await
    }

    /// Sees to a call that goes to one server.
    async fn carry(&self, caller: Caller, share: Share<'_>, deadline: Instant) -> Answers {
        let Share { lane, requests, .. } = share;
        if caller == Caller::Thread && lane.road.enter() {
            return lane.road.carry_out_own(&requests, self.timeout);
        }
        let passage = lane.submit(requests, deadline);
        self.wait(caller, passage).await
    }

    /// Sees to a call that has been sorted by servers.
    async fn carry_several(&self, caller: Caller, mut shares: Shares<'_>, deadline: Instant) -> Answers {
        let count = shares.iter().map(|share| share.requests.len()).sum();
        let own = match caller {
            Caller::Thread => shares.iter().position(|share| share.lane.road.enter()),
            Caller::Task => None,
        };
        let own = own.map(|at| shares.swap_remove(at));
        let queued: Vec<_> = shares
            .into_iter()
            .map(|Share { lane, requests, positions }| (positions, lane.submit(requests, deadline)))
            .collect();
        let mut answers: Vec<Option<Result<Reply, RemoteError>>> = vec![None; count];
        let mut settle = |positions: Vec<usize>, arrived: Answers| {
            for (position, answer) in positions.into_iter().zip(arrived) {
                answers[position] = Some(answer);
            }
        };
        // Last, so that the others are on their way meanwhile.
        if let Some(Share { lane, requests, positions }) = own {
            settle(positions, lane.road.carry_out_own(&requests, self.timeout));
        }
        for (positions, passage) in queued {
            settle(positions, self.wait(caller, passage).await);
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered()))).collect()
    }

    /// Sends `requests` as [`run`](Self::run) does, for a caller that cannot wait for the answers.
    pub(crate) fn post(&self, requests: impl Into<Requests>) {
        let deadline = now() + self.timeout;
        for Share { lane, requests, .. } in self.split(requests.into()) {
            drop(lane.submit(requests, deadline));
        }
    }

    /// Returns how long an exchange may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns how the servers are.
    pub(crate) fn server_health(&self) -> Vec<ServerHealth> {
        self.tier.server_health()
    }

    /// Returns what has gone through so far.
    pub(crate) fn stats(&self) -> BatchStats {
        self.counters.read()
    }

    /// Returns how much is on its way to each server.
    #[cfg(feature = "metrics")]
    pub(crate) fn loads(&self) -> impl Iterator<Item = LaneLoad<'_>> {
        self.lanes.iter().map(|Lane { road, .. }| LaneLoad {
            server: road.watch.server(),
            calls: road.under_way.load(Ordering::Relaxed),
            queued_bytes: road.queued_bytes.load(Ordering::Relaxed),
        })
    }

    /// Sorts requests by their server.
    fn split(&self, requests: Requests) -> Shares<'_> {
        let mut shares = Shares::new();
        if let [lane] = &*self.lanes {
            if !requests.is_empty() {
                shares.push(Share { lane, requests, positions: Vec::new() });
            }
            return shares;
        }
        for (position, request) in requests.into_iter().enumerate() {
            let server = self.tier.server_of(request.key(), request.route());
            // A store that names a server it does not have gets its commands all the same: it routes them itself.
            let lane = &self.lanes[server.min(self.lanes.len() - 1)];
            let known = shares.iter().position(|share| std::ptr::eq(share.lane, lane));
            let known = known.unwrap_or_else(|| {
                shares.push(Share { lane, requests: Requests::new(), positions: Vec::new() });
                shares.len() - 1
            });
            shares[known].requests.push(request);
            shares[known].positions.push(position);
        }
        shares
    }

    /// Waits for the answers of a job until its deadline.
    async fn wait(&self, caller: Caller, passage: Passage<'_>) -> Answers {
        let Passage { job, deadline, .. } = &passage;
        match caller {
            Caller::Thread => job.wait(*deadline),
            Caller::Task => Arrival { job: job.clone(), alarm: Alarm::at(*deadline) }.await,
        }
        let error = match job.leave() {
            Departure::With(answers) => {
                self.counters.count_timeout(&answers);
                return answers;
            }
            Departure::Unsent => {
                let message = format!("the time limit of {:?} ran out before sending", self.timeout);
                RemoteError::new(RemoteErrorKind::Unavailable, message)
            }
            Departure::Unanswered => {
                let message = format!("the store did not answer within {:?}", self.timeout);
                RemoteError::new(RemoteErrorKind::TimedOut, message)
            }
        };
        self.counters.timed_out.fetch_add(1, Ordering::Relaxed);
        smallvec![Err(error); job.requests.len()]
    }
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher")
            .field("servers", &self.lanes.len())
            .field("timeout", &self.timeout)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// How much is on its way to one server.
#[cfg(feature = "metrics")]
pub(crate) struct LaneLoad<'b> {
    pub(crate) server: &'b Arc<str>,
    /// Calls that are queued or under way.
    pub(crate) calls: usize,
    pub(crate) queued_bytes: usize,
}

/// A call, sorted by servers.
type Shares<'b> = SmallVec<[Share<'b>; 1]>;

/// The part of a call that goes to one server.
struct Share<'b> {
    lane: &'b Lane,
    requests: Requests,
    /// In whose places the answers belong; empty if there is no other part.
    positions: Vec<usize>,
}

/// The queue to one server, with the thread that empties it.
struct Lane {
    road: Arc<Road>,
    /// Made when it is first needed. The thread ends when it is gone.
    queue: OnceLock<Sender<Arc<Job>>>,
}

impl Lane {
    /// Queues requests, or says at once why that cannot be.
    fn submit(&self, requests: Requests, deadline: Instant) -> Passage<'_> {
        let job = Arc::new(Job::new(requests, deadline));
        let passage = Passage { lane: self, job: job.clone(), deadline };
        let queue = match self.queue() {
            Ok(queue) => queue,
            Err(error) => {
                let message = format!("no thread can be started for server {}: {error}", self.road.server);
                job.refuse(RemoteError::with_source(RemoteErrorKind::Unavailable, message, error));
                return passage;
            }
        };
        let bytes = job.bytes;
        let queued = self.road.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.road.under_way.fetch_add(1, Ordering::Relaxed);
        let fits = queued == 0 || queued.saturating_add(bytes) <= MAX_QUEUED_BYTES;
        let sent = if fits { queue.try_send(job) } else { Err(TrySendError::Full(job)) };
        if let Err(refused) = sent {
            self.road.under_way.fetch_sub(1, Ordering::Relaxed);
            self.road.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.road.counters.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!("the queue of server {} is full", self.road.server);
            if let Some(others) = self.road.overflows.pass() {
                event!(warn, [others = others.0], "{message}: a call is refused{others}");
            }
            refused.into_inner().refuse(RemoteError::new(RemoteErrorKind::Unavailable, message));
        }
        passage
    }

    /// Returns the queue, and starts its thread if this is its first use.
    fn queue(&self) -> io::Result<&Sender<Arc<Job>>> {
        if let Some(queue) = self.queue.get() {
            return Ok(queue);
        }
        let (queue, jobs) = channel::bounded(MAX_QUEUED_JOBS);
        let worker = Worker { road: self.road.clone(), jobs, passed_over: VecDeque::new() };
        thread::Builder::new().name(format!("larder-io-{}", self.road.server)).spawn(|| worker.work())?;
        // Of several callers that come first, one provides the queue; the threads of the others end with the queues of these.
        Ok(self.queue.get_or_init(|| queue))
    }
}

/// What the callers and the I/O thread of one server share.
struct Road {
    tier: Arc<dyn RemoteTier>,
    server: usize,
    timeout: Duration,
    /// The jobs that are queued or being carried out. A hint that orders nothing.
    under_way: AtomicUsize,
    /// How many jobs the I/O thread carried out together last.
    last_batch: AtomicUsize,
    queued_bytes: AtomicUsize,
    counters: Arc<Counters>,
    watch: LaneWatch,
    overflows: Limit,
    panics: Limit,
}

impl Road {
    /// Returns whether the way is free for a caller's own exchange: if so it is on the way, until it has called
    /// [`carry_out_own`](Self::carry_out_own).
    fn enter(&self) -> bool {
        // Relaxed: a hint, like the other. A caller that is alone after a crowd hands over once, and finds it gone.
        if self.last_batch.load(Ordering::Relaxed) > MAX_BESIDE + 1 {
            return false;
        }
        let beside = |under_way| (under_way <= MAX_BESIDE).then_some(under_way + 1);
        self.under_way.try_update(Ordering::Relaxed, Ordering::Relaxed, beside).is_ok()
    }

    fn carry_out_own(&self, requests: &[Request], timeout: Duration) -> Answers {
        let commands: SmallVec<[Command<'_>; 1]> = requests.iter().map(Request::command).collect();
        let answers = self.exchange(&commands, timeout, 1);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.counters.count_timeout(&answers);
        answers
    }

    /// Carries a batch out and hands its answers to those who wait for them.
    fn carry_out(&self, jobs: &[Arc<Job>]) {
        self.last_batch.store(jobs.len(), Ordering::Relaxed);
        let latest = jobs.iter().map(|job| job.deadline).max();
        let timeout = latest.map_or(Duration::ZERO, |latest| latest.saturating_duration_since(now()));
        let commands: Vec<Command<'_>> = jobs.iter().flat_map(|job| &job.requests).map(Request::command).collect();
        let answers = self.exchange(&commands, timeout, jobs.len());
        if let [job] = jobs {
            return self.answer(job, answers);
        }
        let mut answers = answers.into_iter();
        for job in jobs {
            let own = answers.by_ref().take(job.requests.len()).collect();
            self.answer(job, own);
        }
    }

    fn answer(&self, job: &Job, answers: Answers) {
        // Before the caller wakes up, so that one who is alone finds the way free.
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let Some(answers) = job.put(answers) else { return };
        let unwanted = job.unwanted(&answers);
        if !unwanted.is_empty() {
            let commands: Vec<Command<'_>> = unwanted.iter().map(Request::command).collect();
            drop(self.exchange(&commands, self.timeout, 1));
        }
    }

    /// Returns an answer for each command, whatever the store does.
    fn exchange(&self, commands: &[Command<'_>], timeout: Duration, jobs: usize) -> Answers {
        self.counters.count(jobs, commands.len());
        let watched = self.watch.exchange(commands);
        let ran = catch_unwind(AssertUnwindSafe(|| self.tier.run(commands, timeout)));
        let mut answers = ran.unwrap_or_else(|_| {
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

/// An I/O thread.
struct Worker {
    road: Arc<Road>,
    jobs: Receiver<Arc<Job>>,
    passed_over: VecDeque<Arc<Job>>,
}

impl Worker {
    /// Carries out what is queued until the queue is gone.
    fn work(mut self) {
        while let Some(first) = self.passed_over.pop_front().or_else(|| self.receive(Receiver::recv)) {
            let batch = self.gather(first);
            let now = now();
            let mut jobs = batch.jobs;
            // The callers of the others have left, or are about to, and say themselves that nothing was sent.
            let given_up = jobs.extract_if(.., |job| job.deadline <= now || !job.send_off()).count();
            self.road.under_way.fetch_sub(given_up, Ordering::Relaxed);
            if !jobs.is_empty() {
                self.road.carry_out(&jobs);
            }
        }
    }

    /// Takes into one batch with `first` what waits and fits.
    fn gather(&mut self, first: Arc<Job>) -> Batch {
        let mut batch = Batch::new(first);
        let mut passed_over = VecDeque::new();
        while !batch.is_full() && passed_over.len() < MAX_PASSED_OVER {
            let next = self.passed_over.pop_front().or_else(|| self.receive(Receiver::try_recv));
            let Some(job) = next else { break };
            if let Err(job) = batch.take(job) {
                passed_over.push_back(job);
            }
        }
        // What was passed over before and not looked at now is behind these, and keeps their number below the cap.
        passed_over.append(&mut self.passed_over);
        self.passed_over = passed_over;
        batch
    }

    fn receive<E>(&self, receive: impl FnOnce(&Receiver<Arc<Job>>) -> Result<Arc<Job>, E>) -> Option<Arc<Job>> {
        let job = receive(&self.jobs).ok()?;
        self.road.queued_bytes.fetch_sub(job.bytes, Ordering::Relaxed);
        Some(job)
    }
}

/// Jobs that share an exchange.
struct Batch {
    jobs: Vec<Arc<Job>>,
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

/// The requests of one caller to one server, which are never split, and where their answers arrive, whether or not anybody
/// waits for them still.
///
/// Caller and I/O thread share it, so that a call of one request allocates once, and as a rule frees where it allocated.
struct Job {
    requests: Requests,
    /// About what they need on the wire.
    bytes: usize,
    /// The connection of the first cas among them that a store gives out: 0 is none.
    connection: Option<u64>,
    deadline: Instant,
    state: Mutex<JobState>,
    arrived: Condvar,
}

#[derive(Default)]
struct JobState {
    stage: Stage,
    waker: Option<Waker>,
    /// Whether nobody will take the answers.
    given_up: bool,
}

#[derive(Default)]
enum Stage {
    #[default]
    Queued,
    /// Its requests go out, so that only an answer says what has become of them.
    Sent,
    Answered(Answers),
    /// Its caller has gone, so that nothing of it is sent any more.
    Withdrawn,
}

/// What a caller leaves a job with.
enum Departure {
    With(Answers),
    /// Its time was up in the queue.
    Unsent,
    /// Its time was up with the requests under way.
    Unanswered,
}

fn request_len(request: &Request) -> usize {
    let command = request.command();
    let value = if let Action::Set { value, .. } = command.action { value.len() } else { 0 };
    command.key.as_bytes().len() + value + REQUEST_OVERHEAD
}

/// A job on its way, as its caller sees it. Dropping it gives its answers up.
struct Passage<'b> {
    lane: &'b Lane,
    job: Arc<Job>,
    /// How long the caller waits: what the job has too.
    deadline: Instant,
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if let Some(answers) = self.job.give_up() {
            let unwanted = self.job.unwanted(&answers);
            if !unwanted.is_empty() {
                drop(self.lane.submit(unwanted, self.deadline));
            }
        }
    }
}

impl Job {
    fn new(requests: Requests, deadline: Instant) -> Job {
        let bytes = requests.iter().map(request_len).sum();
        let connection = requests.iter().filter_map(Request::cas).find(|cas| cas.value != 0).map(|cas| cas.connection);
        Job { requests, bytes, connection, deadline, state: Mutex::default(), arrived: Condvar::new() }
    }

    /// Answers every request with an error, since none is sent.
    fn refuse(&self, error: RemoteError) {
        drop(self.put(smallvec![Err(error); self.requests.len()]));
    }

    /// Returns whether the job is to be sent, which its caller will reckon with from now on.
    fn send_off(&self) -> bool {
        let mut state = self.state.lock();
        match state.stage {
            Stage::Queued => {
                state.stage = Stage::Sent;
                true
            }
            Stage::Sent | Stage::Answered(_) | Stage::Withdrawn => false,
        }
    }

    /// Hands the answers over, or returns them where nobody will take them.
    fn put(&self, answers: Answers) -> Option<Answers> {
        let mut state = self.state.lock();
        if state.given_up {
            return Some(answers);
        }
        state.stage = Stage::Answered(answers);
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_one();
        // Foreign code, which must not take the answers of others down with it.
        if let Some(waker) = waker
            && catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err()
        {
            event!(error, "the waker of a future that waits for the remote tier panicked");
        }
        None
    }

    /// Notes that nobody will take the answers, and returns them if they are there.
    fn give_up(&self) -> Option<Answers> {
        let mut state = self.state.lock();
        state.given_up = true;
        match &mut state.stage {
            Stage::Answered(answers) => Some(mem::take(answers)),
            Stage::Queued | Stage::Sent | Stage::Withdrawn => None,
        }
    }

    /// Returns what gives back the leases among answers that nobody takes: their holder has gone, and others would wait for it.
    fn unwanted(&self, answers: &Answers) -> Requests {
        let won = self.requests.iter().zip(answers).filter_map(|(request, answer)| match answer {
            Ok(Reply::Won(cas)) => Some(Request::delete(request.key().clone(), Some(*cas))),
            _ => None,
        });
        won.collect()
    }

    /// Waits on this thread for answers, until `deadline`.
    fn wait(&self, deadline: Instant) {
        for _ in 0..MAX_YIELDS {
            if self.state.lock().is_answered() {
                return;
            }
            thread::yield_now();
        }
        let mut state = self.state.lock();
        while !state.is_answered() && !self.arrived.wait_until(&mut state, deadline).timed_out() {}
    }

    /// Takes the answers, or gives them up.
    fn leave(&self) -> Departure {
        let mut state = self.state.lock();
        match mem::replace(&mut state.stage, Stage::Withdrawn) {
            Stage::Answered(answers) => Departure::With(answers),
            Stage::Sent => Departure::Unanswered,
            Stage::Queued | Stage::Withdrawn => Departure::Unsent,
        }
    }
}

impl JobState {
    fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Answered(_))
    }
}

/// Resolves once the answers of a job are there, or its time is up.
struct Arrival {
    job: Arc<Job>,
    alarm: Alarm,
}

impl Future for Arrival {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Cloning and dropping a waker is foreign code, and stays outside the lock.
        let waker = context.waker().clone();
        let mut state = self.job.state.lock();
        if state.is_answered() {
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
        // The I/O thread may keep the job for long; whoever waited must not stay alive by it.
        let waker = self.job.state.lock().waker.take();
        drop(waker);
    }
}

#[derive(Default)]
struct Counters {
    jobs: AtomicU64,
    batches: AtomicU64,
    commands: AtomicU64,
    largest_batch: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
}

impl Counters {
    fn count(&self, jobs: usize, commands: usize) {
        self.jobs.fetch_add(jobs as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
        self.largest_batch.fetch_max(commands as u64, Ordering::Relaxed);
    }

    /// Counts a job that the store itself has found to take too long.
    fn count_timeout(&self, answers: &Answers) {
        let is_late = |answer: &Result<Reply, RemoteError>| {
            answer.as_ref().is_err_and(|error| error.kind() == RemoteErrorKind::TimedOut)
        };
        if answers.iter().any(is_late) {
            self.timed_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self) -> BatchStats {
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

fn unanswered() -> RemoteError {
    RemoteError::new(RemoteErrorKind::Protocol, "the store left a command unanswered")
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Wake;
    use std::thread::ThreadId;

    use futures::executor::block_on;
    use futures::future::BoxFuture;

    use super::*;
    use crate::remote::key::WireKey;
    use crate::remote::tier::{Cas, Expiry, Item, Route, SetMode};

    /// Longer than any test may take.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A store of which a test sees every exchange begin, and says how it ends.
    struct Scripted {
        began: Sender<Exchange>,
        /// One for each server. Without a word from the test, once that is over, exchanges succeed.
        endings: Vec<Receiver<Ending>>,
    }

    #[derive(Debug, PartialEq)]
    struct Exchange {
        server: usize,
        keys: Vec<String>,
        thread: ThreadId,
    }

    enum Ending {
        Answers,
        /// Answers for all commands but the last.
        OneTooFew,
        Panic,
    }

    impl RemoteTier for Scripted {
        fn run(&self, batch: &[Command<'_>], _timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
            let server = self.server_of(batch[0].key, batch[0].route);
            let keys: Vec<_> = batch.iter().map(|command| text(command.key)).collect();
            _ = self.began.send(Exchange { server, keys, thread: thread::current().id() });
            let count = match self.endings[server].recv() {
                Ok(Ending::Answers) | Err(_) => batch.len(),
                Ok(Ending::OneTooFew) => batch.len() - 1,
                Ok(Ending::Panic) => panic!("scripted"),
            };
            batch[..count].iter().map(|command| Ok(hit(command.key.as_bytes()))).collect()
        }

        fn max_value_len(&self) -> usize {
            1 << 20
        }

        fn servers(&self) -> usize {
            self.endings.len()
        }

        /// Keys begin with the number of their server.
        fn server_of(&self, key: &WireKey, _route: Route) -> usize {
            usize::from(key.as_bytes()[0] - b'0')
        }
    }

    fn text(key: &WireKey) -> String {
        String::from_utf8(key.as_bytes().to_vec()).unwrap()
    }

    fn hit(value: &[u8]) -> Reply {
        let cas = Cas { value: 1, connection: 1 };
        Reply::Hit(Item {
            value: value.to_vec().into(),
            len: value.len(),
            cas,
            expires_in: None,
            stale: false,
            won: false,
        })
    }

    struct Scene {
        batcher: Arc<Batcher>,
        began: Receiver<Exchange>,
        endings: Vec<Sender<Ending>>,
    }

    impl Scene {
        fn new(servers: usize) -> Scene {
            let (send_began, began) = channel::unbounded();
            let (endings, ended) = (0..servers).map(|_| channel::unbounded()).unzip();
            let tier = Arc::new(Scripted { began: send_began, endings: ended });
            Scene { batcher: Arc::new(Batcher::new(tier, PATIENCE)), began, endings }
        }

        /// Submits requests as a task does, without waiting.
        fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, Answers> {
            let batcher = self.batcher.clone();
            let mut call: BoxFuture<'static, Answers> =
                Box::pin(async move { batcher.run(Caller::Task, requests).await });
            assert!(poll_once(call.as_mut()).is_none());
            call
        }

        /// Submits one request that stays under way, so that what follows has to wait.
        fn occupy(&self) -> BoxFuture<'static, Answers> {
            let call = self.submit(gets(&["0:first"]));
            assert_eq!(self.next_keys(), ["0:first"]);
            call
        }

        fn next(&self) -> Exchange {
            self.began.recv_timeout(PATIENCE).expect("an exchange begins")
        }

        fn next_keys(&self) -> Vec<String> {
            self.next().keys
        }

        fn end(&self, server: usize, ending: Ending) {
            self.endings[server].send(ending).unwrap();
        }
    }

    fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn get(key: &str) -> Request {
        Request::get(WireKey::new(key).unwrap(), Route::ByKey)
    }

    fn gets(keys: &[&str]) -> Vec<Request> {
        keys.iter().map(|key| get(key)).collect()
    }

    fn many_gets(name: char, count: usize) -> Vec<Request> {
        (0..count).map(|number| get(&format!("0:{name}{number}"))).collect()
    }

    fn hits(keys: &[&str]) -> Vec<Reply> {
        keys.iter().map(|key| hit(key.as_bytes())).collect()
    }

    fn replies(answers: Answers) -> Vec<Reply> {
        answers.into_iter().map(Result::unwrap).collect()
    }

    fn kinds(answers: Answers) -> Vec<RemoteErrorKind> {
        answers.into_iter().map(|answer| answer.unwrap_err().kind()).collect()
    }

    #[test]
    fn what_waits_shares_the_next_exchange_and_everyone_gets_their_own_answers() {
        let scene = Scene::new(1);
        let first = scene.occupy();
        let second = scene.submit(gets(&["0:a", "0:b"]));
        let third = scene.submit(gets(&["0:c"]));
        let fourth = scene.submit(gets(&["0:d", "0:e", "0:f"]));
        scene.end(0, Ending::Answers);
        assert_eq!(scene.next_keys(), ["0:a", "0:b", "0:c", "0:d", "0:e", "0:f"]);
        scene.end(0, Ending::Answers);
        assert_eq!(replies(block_on(first)), hits(&["0:first"]));
        assert_eq!(replies(block_on(fourth)), hits(&["0:d", "0:e", "0:f"]));
        assert_eq!(replies(block_on(third)), hits(&["0:c"]));
        assert_eq!(replies(block_on(second)), hits(&["0:a", "0:b"]));
        let stats = scene.batcher.stats();
        let expected = BatchStats { jobs: 4, batches: 2, commands: 7, largest_batch: 6, refused: 0, timed_out: 0 };
        assert_eq!(stats, expected);
    }

    #[test]
    fn nothing_is_sent_for_no_requests() {
        let scene = Scene::new(2);
        for caller in [Caller::Thread, Caller::Task] {
            assert!(block_on(scene.batcher.run(caller, Vec::new())).is_empty());
        }
        assert!(scene.began.is_empty());
    }

    #[test]
    fn a_batch_stays_below_its_caps_and_goes_on_with_what_fits() {
        let scene = Scene::new(1);
        let first = scene.occupy();
        let a = scene.submit(many_gets('a', 200));
        let b = scene.submit(many_gets('b', 100));
        let c = scene.submit(many_gets('c', 56));
        let value = vec![0; MAX_BATCH_BYTES];
        let key = WireKey::new("0:large").unwrap();
        let large = Request::set(key, Route::ByKey, value, Expiry::Never, SetMode::Always, None);
        let large = scene.submit(vec![large]);
        let d = scene.submit(gets(&["0:d"]));
        for _ in 0..4 {
            scene.end(0, Ending::Answers);
        }
        let exchange = scene.next_keys();
        assert_eq!((exchange.len(), &*exchange[199], &*exchange[200]), (256, "0:a199", "0:c0"));
        let exchange = scene.next_keys();
        assert_eq!((exchange.len(), &*exchange[0], &*exchange[100]), (101, "0:b0", "0:d"));
        // More than any batch holds: it goes alone.
        assert_eq!(scene.next_keys(), ["0:large"]);
        for call in [first, a, b, c, large, d] {
            assert!(block_on(call).iter().all(Result::is_ok));
        }
    }

    /// A store runs a batch on the connection of the first cas in it, and fences those that were read on another.
    #[test]
    fn jobs_whose_cas_come_from_different_connections_do_not_share_an_exchange() {
        let scene = Scene::new(1);
        let delete = |name: &str, value, connection| {
            vec![Request::delete(WireKey::new(name).unwrap(), Some(Cas { value, connection }))]
        };
        let calls = [
            scene.occupy(),
            scene.submit(gets(&["0:none"])),
            scene.submit(delete("0:one", 1, 1)),
            scene.submit(delete("0:two", 1, 2)),
            scene.submit(delete("0:three", 1, 3)),
            scene.submit(delete("0:one-again", 2, 1)),
            // No store gives out a cas of 0, so its connection does not matter.
            scene.submit(delete("0:zero", 0, 4)),
            scene.submit(delete("0:two-again", 2, 2)),
        ];
        for _ in 0..4 {
            scene.end(0, Ending::Answers);
        }
        assert_eq!(scene.next_keys(), ["0:none", "0:one", "0:one-again", "0:zero"]);
        assert_eq!(scene.next_keys(), ["0:two", "0:two-again"]);
        assert_eq!(scene.next_keys(), ["0:three"]);
        for call in calls {
            assert!(block_on(call).iter().all(Result::is_ok));
        }
    }

    #[test]
    fn what_does_not_fit_is_never_more_than_its_cap_and_never_starves() {
        let scene = Scene::new(1);
        let first = scene.occupy();
        let connections = MAX_PASSED_OVER as u64 + 5;
        let calls: Vec<_> = (0..3 * connections)
            .map(|number| {
                let cas = Cas { value: 1, connection: 1 + number % connections };
                scene.submit(vec![Request::delete(WireKey::new(format!("0:{number}")).unwrap(), Some(cas))])
            })
            .collect();
        drop(scene.endings);
        block_on(first);
        for call in calls {
            assert!(block_on(call)[0].is_ok());
        }
    }

    #[test]
    fn a_thread_does_its_own_exchange_where_the_way_is_free() {
        let scene = Scene::new(1);
        scene.end(0, Ending::Answers);
        let answers = block_on(scene.batcher.run(Caller::Thread, gets(&["0:a"])));
        assert_eq!(replies(answers), hits(&["0:a"]));
        assert_eq!(scene.next().thread, thread::current().id());
        // A task never does.
        scene.end(0, Ending::Answers);
        block_on(scene.batcher.run(Caller::Task, gets(&["0:b"])));
        assert_ne!(scene.next().thread, thread::current().id());

        // With two calls on the way, the third joins them.
        let calls = [scene.occupy(), scene.submit(gets(&["0:c"]))];
        let batcher = scene.batcher.clone();
        let late = thread::spawn(move || block_on(batcher.run(Caller::Thread, gets(&["0:d"]))));
        let queue = scene.batcher.lanes[0].queue.get().unwrap();
        while queue.len() < 2 {
            thread::yield_now();
        }
        scene.end(0, Ending::Answers);
        scene.end(0, Ending::Answers);
        assert_eq!(scene.next_keys(), ["0:c", "0:d"]);
        assert_eq!(replies(late.join().unwrap()), hits(&["0:d"]));
        for call in calls {
            assert!(block_on(call)[0].is_ok());
        }
        assert_eq!(scene.batcher.lanes[0].road.under_way.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_queue_is_an_answer() {
        let scene = Scene::new(1);
        let first = scene.occupy();
        let waiting: Vec<_> = (0..MAX_QUEUED_JOBS).map(|_| scene.submit(gets(&["0:a"]))).collect();
        for caller in [Caller::Task, Caller::Thread] {
            let refused = block_on(scene.batcher.run(caller, gets(&["0:b", "0:c"])));
            assert_eq!(kinds(refused), [RemoteErrorKind::Unavailable; 2]);
        }
        drop(scene.endings);
        for call in waiting.into_iter().chain([first]) {
            assert!(block_on(call)[0].is_ok());
        }
        assert_eq!(scene.batcher.stats().refused, 2);
        let road = &scene.batcher.lanes[0].road;
        assert_eq!(road.queued_bytes.load(Ordering::Relaxed), 0);
        assert!(block_on(scene.batcher.run(Caller::Task, gets(&["0:d"])))[0].is_ok());
    }

    #[test]
    fn a_queue_holds_a_bounded_number_of_bytes_beyond_one_call_of_any_size() {
        let scene = Scene::new(1);
        let large = || {
            let key = WireKey::new("0:large").unwrap();
            let value = vec![0; MAX_QUEUED_BYTES];
            vec![Request::set(key, Route::ByKey, value, Expiry::Never, SetMode::Always, None)]
        };
        let first = scene.occupy();
        let waiting = scene.submit(large());
        for requests in [large(), gets(&["0:a"])] {
            let refused = block_on(scene.batcher.run(Caller::Task, requests));
            assert_eq!(kinds(refused), [RemoteErrorKind::Unavailable]);
        }
        drop(scene.endings);
        for call in [first, waiting] {
            assert!(block_on(call)[0].is_ok());
        }
        assert!(block_on(scene.batcher.run(Caller::Task, large()))[0].is_ok());
    }

    #[test]
    fn a_call_whose_time_is_up_in_the_queue_is_never_sent_and_says_so() {
        for caller in [Caller::Thread, Caller::Task] {
            let scene = Scene::new(1);
            let first = scene.occupy();
            let passage = scene.batcher.lanes[0].submit(gets(&["0:late"]).into(), now());
            let mut withdrawn = scene.batcher.lanes[0].submit(gets(&["0:withdrawn"]).into(), now() + PATIENCE);
            // The I/O thread will find its time not up yet, but nobody there.
            withdrawn.deadline = now();
            for passage in [passage, withdrawn] {
                let answers = block_on(scene.batcher.wait(caller, passage));
                assert_eq!(kinds(answers), [RemoteErrorKind::Unavailable]);
            }
            let last = scene.submit(gets(&["0:last"]));
            drop(scene.endings);
            assert_eq!(scene.began.recv_timeout(PATIENCE).unwrap().keys, ["0:last"]);
            for call in [first, last] {
                assert!(block_on(call)[0].is_ok());
            }
            assert_eq!(scene.batcher.stats().timed_out, 2);
            assert_eq!(scene.batcher.lanes[0].road.under_way.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_caller_leaves_a_stuck_store_at_its_deadline() {
        for caller in [Caller::Thread, Caller::Task] {
            let scene = Scene::new(1);
            let mut passage = scene.batcher.lanes[0].submit(gets(&["0:stuck"]).into(), now() + PATIENCE);
            assert_eq!(scene.next_keys(), ["0:stuck"]);
            passage.deadline = now();
            let job = passage.job.clone();
            let answers = block_on(scene.batcher.wait(caller, passage));
            assert_eq!(kinds(answers), [RemoteErrorKind::TimedOut]);
            scene.end(0, Ending::Answers);
            scene.end(0, Ending::Answers);
            assert!(block_on(scene.batcher.run(Caller::Task, gets(&["0:next"])))[0].is_ok());
            // The late answers went nowhere, and nobody keeps them but this test.
            assert_eq!(Arc::strong_count(&job), 1);
        }
    }

    #[test]
    fn a_future_that_is_dropped_leaves_no_waker_behind() {
        struct Count;
        impl Wake for Count {
            fn wake(self: Arc<Self>) {}
        }
        let scene = Scene::new(1);
        let first = scene.occupy();
        let count = Arc::new(Count);
        let waker = Waker::from(count.clone());
        let mut dropped = Box::pin(scene.batcher.run(Caller::Task, gets(&["0:dropped"])));
        assert!(dropped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(dropped);
        // The timer that its deadline was set on lets go of it when it next looks.
        let deadline = now() + PATIENCE;
        while Arc::strong_count(&count) > 1 && now() < deadline {
            thread::yield_now();
        }
        assert_eq!(Arc::strong_count(&count), 1);
        drop(scene.endings);
        assert!(block_on(first)[0].is_ok());
        assert_eq!(scene.began.recv_timeout(PATIENCE).unwrap().keys, ["0:dropped"]);
    }

    #[test]
    fn a_store_that_panics_is_an_error_and_the_next_call_works() {
        let scene = Scene::new(1);
        for caller in [Caller::Thread, Caller::Task] {
            scene.end(0, Ending::Panic);
            let answers = block_on(scene.batcher.run(caller, gets(&["0:a", "0:b"])));
            assert_eq!(kinds(answers), [RemoteErrorKind::Protocol; 2]);
            scene.end(0, Ending::Answers);
            let answers = block_on(scene.batcher.run(caller, gets(&["0:a"])));
            assert_eq!(replies(answers), hits(&["0:a"]));
        }
    }

    #[test]
    fn a_command_that_the_store_leaves_out_is_an_error_for_its_caller_alone() {
        let scene = Scene::new(1);
        let first = scene.occupy();
        let (second, third) = (scene.submit(gets(&["0:a"])), scene.submit(gets(&["0:b", "0:c"])));
        scene.end(0, Ending::Answers);
        scene.end(0, Ending::OneTooFew);
        assert!(block_on(first)[0].is_ok());
        assert_eq!(replies(block_on(second)), hits(&["0:a"]));
        let third = block_on(third);
        assert_eq!(third[0].as_ref().unwrap(), &hit(b"0:b"));
        assert_eq!(third[1].as_ref().unwrap_err().kind(), RemoteErrorKind::Protocol);
    }

    #[test]
    fn a_waker_that_panics_harms_nobody_else() {
        struct Bad;
        impl Wake for Bad {
            fn wake(self: Arc<Self>) {
                panic!("scripted");
            }
        }
        let scene = Scene::new(1);
        let first = scene.occupy();
        let mut bad = pin!(scene.batcher.run(Caller::Task, gets(&["0:bad"])));
        let waker = Waker::from(Arc::new(Bad));
        assert!(bad.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let good = scene.submit(gets(&["0:good"]));
        scene.end(0, Ending::Answers);
        scene.end(0, Ending::Answers);
        for call in [first, good] {
            assert!(block_on(call)[0].is_ok());
        }
        assert!(block_on(poll_fn(|context| bad.as_mut().poll(context)))[0].is_ok());
    }

    #[test]
    fn the_parts_of_a_call_are_under_way_at_the_same_time_and_a_stuck_server_delays_its_own_only() {
        let scene = Scene::new(3);
        let mut spread = scene.submit(gets(&["0:a", "1:b", "0:c", "2:d"]));
        let mut began = [(); 3].map(|()| scene.next());
        began.sort_by_key(|exchange| exchange.server);
        assert_eq!(began.map(|exchange| exchange.keys.join(" ")), ["0:a 0:c", "1:b", "2:d"]);
        scene.end(1, Ending::Answers);
        scene.end(1, Ending::Answers);
        scene.end(2, Ending::Answers);
        let other = block_on(scene.batcher.run(Caller::Task, gets(&["1:e"])));
        assert_eq!(replies(other), hits(&["1:e"]));
        assert!(poll_once(spread.as_mut()).is_none());
        scene.end(0, Ending::Answers);
        assert_eq!(replies(block_on(spread)), hits(&["0:a", "1:b", "0:c", "2:d"]));
    }

    #[test]
    fn a_thread_does_one_part_itself_while_the_others_are_on_their_way() {
        let scene = Scene::new(3);
        let batcher = scene.batcher.clone();
        let call = thread::spawn(move || {
            (thread::current().id(), block_on(batcher.run(Caller::Thread, gets(&["0:a", "1:b", "2:c", "1:d"]))))
        });
        let threads: Vec<_> = (0..3).map(|_| scene.next().thread).collect();
        drop(scene.endings);
        let (caller, answers) = call.join().unwrap();
        assert_eq!(threads.iter().filter(|thread| **thread == caller).count(), 1);
        assert_eq!(replies(answers), hits(&["0:a", "1:b", "2:c", "1:d"]));
    }

    #[test]
    fn threads_end_with_the_batcher_which_does_not_wait_for_them() {
        let scene = Scene::new(2);
        let tier = Arc::downgrade(&scene.batcher.tier);
        let call = scene.submit(gets(&["0:stuck", "1:stuck"]));
        scene.next();
        scene.next();
        drop(call);
        drop(scene.batcher);
        assert!(tier.upgrade().is_some());
        drop(scene.endings);
        let deadline = now() + PATIENCE;
        while tier.strong_count() > 0 && now() < deadline {
            thread::yield_now();
        }
        assert_eq!(tier.strong_count(), 0);
    }

    #[test]
    fn leases_that_nobody_waits_for_any_more_are_given_back() {
        use crate::remote::in_memory::InMemoryRemote;
        use crate::remote::tier::Route;

        let store = InMemoryRemote::new();
        let batcher = Batcher::new(Arc::new(store.clone()), Duration::from_secs(20));
        let key = WireKey::new("k").unwrap();
        let take = || {
            let action = Action::Get { value: true, lease: Some(Duration::from_secs(60)), touch: None };
            vec![Request::new(key.clone(), Route::ByKey, action)]
        };
        for _ in 0..200 {
            // Polled once, so that it is on its way, and dropped at any moment of that.
            let mut call = Box::pin(batcher.run(Caller::Task, take()));
            if let Poll::Ready(answers) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                // It came before anybody could drop it, and is the caller's.
                if let [Ok(Reply::Won(cas))] = answers[..] {
                    drop(block_on(batcher.run(Caller::Task, vec![Request::delete(key.clone(), Some(cas))])));
                }
            }
            for _ in 0..fastrand::u32(..200) {
                std::hint::spin_loop();
            }
            drop(call);
        }
        // Behind all of them in the queue.
        let held_back = || matches!(block_on(batcher.run(Caller::Task, take())).pop(), Some(Ok(Reply::Won(_))));
        let deadline = now() + Duration::from_secs(20);
        while !held_back() {
            assert!(now() < deadline, "a lease is held that nobody has");
        }
    }
}
