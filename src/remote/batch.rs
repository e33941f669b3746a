//! The way of requests to the store: on the caller's own thread where nobody else is on the way, otherwise in batches.

use std::time::Duration;

use super::error::RemoteError;
use super::request::Request;
use super::tier::{Command, RemoteTier, Reply};
use crate::sync::Arc;

/// Who waits for an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread, which may do the I/O itself.
    Thread,
    /// A future, which must not block whoever polls it.
    Task,
}

/// Runs requests for all callers of one namespace.
pub(crate) struct Batcher {
    tier: Arc<dyn RemoteTier>,
    timeout: Duration,
}

impl Batcher {
    pub(crate) fn new(tier: Arc<dyn RemoteTier>, timeout: Duration) -> Batcher {
        Batcher { tier, timeout }
    }

    /// Runs `requests` and returns an answer for each, in order.
    ///
    /// Requests to one server reach it in their order, on one connection; those of other callers may be in between batches,
    /// never in between these. Resolves after about the time limit at the latest, however dead the store is.
    #[expect(clippy::unused_async, reason = "the queue is to come")]
    pub(crate) async fn run(&self, _caller: Caller, requests: Vec<Request>) -> Vec<Result<Reply, RemoteError>> {
        let commands: Vec<Command<'_>> = requests.iter().map(Request::command).collect();
        self.tier.run(&commands, self.timeout)
    }

    /// Returns how long an exchange may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}
