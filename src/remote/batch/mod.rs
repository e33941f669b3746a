//! The way of requests to the store: on the caller's own thread where the way is free, otherwise in batches.
//!
//! Each server has a *lane*: a bounded queue, which is emptied into exchanges of many calls. Callers that have threads empty it
//! themselves, one at a time: who finds its call still queued after the others had their turn takes what waits, runs it in one
//! exchange, and hands out the answers; meanwhile more gathers. So nothing ever waits for a batch to fill, the more callers there
//! are, the more of them share a round trip, and a busy crowd hands nothing over to another thread. What nobody is there for, the
//! calls of tasks and of threads that have gone to sleep, an I/O thread does the same for.

mod job;
mod lane;
mod queue;
mod stats;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, Instant};

use smallvec::{SmallVec, smallvec};

use self::job::{Arrival, Departure};
use self::lane::{Lane, Passage, Road};
pub(crate) use self::stats::BatchStats;
use self::stats::Counters;
use super::error::{RemoteError, RemoteErrorKind};
use super::request::{Request, Requests};
use super::tier::{RemoteTier, Reply, ServerHealth};
use crate::clock::real::{Alarm, now};
use crate::sync::{Arc, Ordering};
use crate::task::guarded;
use crate::watch::{LaneWatch, WayWatch};

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
            let watch = LaneWatch::new(watch, &servers, server);
            Lane::new(Road::new(tier.clone(), server, timeout, counters.clone(), watch))
        };
        let lanes = (0..tier.servers().max(1)).map(lane).collect();
        Batcher { tier, timeout, lanes, counters, watch: watch.clone() }
    }

    /// Runs `requests` and returns an answer for each, in order.
    ///
    /// Requests to one server reach it in their order, on one connection; those of other callers may be in between batches,
    /// never in between these. Those to different servers are under way at the same time. Those to one whose cas were read on
    /// different connections go out apart, in whatever order: a request without one then goes with what is before it. Nothing
    /// is sent before the first poll.
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
        let passage = match caller {
            Caller::Thread if lane.road.enter() => return lane.road.carry_out_own(&requests, self.timeout),
            Caller::Thread => lane.queue_up(requests, deadline),
            Caller::Task => lane.submit(requests, deadline),
        };
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
            .map(|Share { lane, requests, positions, .. }| (positions, lane.submit(requests, deadline)))
            .collect();
        let mut answers: Vec<Option<Result<Reply, RemoteError>>> = vec![None; count];
        let mut settle = |positions: Vec<usize>, arrived: Answers| {
            for (position, answer) in positions.into_iter().zip(arrived) {
                answers[position] = Some(answer);
            }
        };
        // Last, so that the others are on their way meanwhile.
        if let Some(Share { lane, requests, positions, .. }) = own {
            settle(positions, lane.road.carry_out_own(&requests, self.timeout));
        }
        // Taken together, once nothing is waited for any more: whoever is dropped half-way still gives back what has arrived.
        for (_, passage) in &queued {
            arrive(caller, passage).await;
        }
        for (positions, passage) in queued {
            settle(positions, self.leave(&passage));
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
            calls: road.under_way(),
            queued_bytes: road.queue.bytes(),
        })
    }

    /// Sorts requests by their server, and by the connection that they insist on: a store takes one connection for all that it
    /// is sent at once, and fences what insists on another unsent, although that may be there.
    fn split(&self, requests: Requests) -> Shares<'_> {
        let mut shares = Shares::new();
        if let [request] = &*requests {
            let (lane, connection) = (self.lane_of(request), request.connection());
            shares.push(Share { lane, connection, requests, positions: Vec::new() });
            return shares;
        }
        for (position, request) in requests.into_iter().enumerate() {
            let lane = self.lane_of(&request);
            let connection = request.connection();
            let agrees = |share: &Share<'_>| {
                std::ptr::eq(share.lane, lane)
                    && (connection.is_none() || share.connection.is_none_or(|own| connection == Some(own)))
            };
            // Of several, the one that the request before it has gone to: it may be about the same key.
            let agreeing = shares.iter().enumerate().filter(|(_, share)| agrees(share));
            let known = agreeing.max_by_key(|(_, share)| share.positions.last()).map(|(at, _)| at);
            let known = known.unwrap_or_else(|| {
                shares.push(Share { lane, connection, requests: Requests::new(), positions: Vec::new() });
                shares.len() - 1
            });
            let share = &mut shares[known];
            share.connection = share.connection.or(connection);
            share.requests.push(request);
            share.positions.push(position);
        }
        shares
    }

    fn lane_of(&self, request: &Request) -> &Lane {
        match &*self.lanes {
            [lane] => lane,
            lanes => {
                // A store that names a server it does not have, or panics, gets its commands all the same: it routes them itself.
                let server = guarded(|| self.tier.server_of(request.key(), request.route())).unwrap_or_default();
                &lanes[server.min(lanes.len() - 1)]
            }
        }
    }

    /// Waits for the answers of a job until its deadline.
    async fn wait(&self, caller: Caller, passage: Passage<'_>) -> Answers {
        arrive(caller, &passage).await;
        self.leave(&passage)
    }

    /// Takes the answers of a job, or says what has become of it by its deadline.
    fn leave(&self, passage: &Passage<'_>) -> Answers {
        let job = &passage.job;
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

/// Waits until the answers of a job are there, or its deadline is.
async fn arrive(caller: Caller, Passage { lane, job, deadline }: &Passage<'_>) {
    match caller {
        Caller::Thread => lane.wait(job, *deadline),
        Caller::Task => Arrival::new(job.clone(), Alarm::at(*deadline)).await,
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
    /// The connection that a cas among the requests was read on.
    connection: Option<u64>,
    requests: Requests,
    /// In whose places the answers belong; empty if there is no other part.
    positions: Vec<usize>,
}

fn unanswered() -> RemoteError {
    RemoteError::new(RemoteErrorKind::Protocol, "the store left a command unanswered")
}
