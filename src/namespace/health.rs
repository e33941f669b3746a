//! How a namespace is.

use std::time::Duration;

use super::core::Core;
use crate::broadcast::behind::Behind;
use crate::remote::error::RemoteError;
use crate::remote::tier::ServerHealth;

/// How a namespace and its remote tier are: a snapshot, each figure exact, taken one after the other. Made by
/// [`Namespace::health`](crate::Namespace::health).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// How much longer the local tiers are trusted if the journal is not reached again; zero once the trust lease has lapsed.
    pub trust_left: Duration,
    /// How often it could not be told what other processes had invalidated, so that everything local was: once at the start,
    /// and after each loss of the journal.
    pub resyncs: u64,
    /// Looks at the journal that failed, by whichever thread.
    pub failed_looks: u64,
    /// Deletions that the remote tier has not acknowledged. What they concern counts as a miss in this process.
    pub pending_deletions: usize,
    /// Bumps that the remote tier has not acknowledged. What they concern counts as a miss in this process.
    pub pending_bumps: usize,
    /// How long the oldest of these has been pending.
    pub oldest_pending: Option<Duration>,
    /// How often there were too many to keep them apart, so that they became one bump of the whole namespace.
    pub escalations: u64,
    /// Writes that wait in the queue of [`WriteMode::Behind`](crate::WriteMode::Behind), or are being sent from there.
    pub queued_writes: usize,
    /// Writes from that queue that were given up after several attempts; what the remote tier held instead is deleted.
    pub writes_given_up: u64,
    /// Why the last attempt failed to send something that was pending or queued.
    pub last_error: Option<RemoteError>,
    /// Exchanges with the remote tier on behalf of callers.
    pub exchanges: u64,
    /// The commands that they carried: how many callers and keys share a round trip.
    pub commands: u64,
    /// Calls that were refused because too many waited for a server.
    pub queue_full: u64,
    /// Calls that had no answer within the timeout.
    pub timeouts: u64,
    /// The servers of the remote tier, where it has some.
    pub servers: Vec<ServerHealth>,
}

impl Health {
    pub(crate) fn of(core: &Core) -> Health {
        let outbox = core.outbox.health();
        let behind = core.behind.as_ref().map(Behind::health);
        let batches = core.batcher.stats();
        Health {
            trust_left: core.trust.left(),
            resyncs: core.resyncs(),
            failed_looks: core.failed_looks(),
            pending_deletions: outbox.deletions,
            pending_bumps: outbox.bumps,
            oldest_pending: outbox.oldest,
            escalations: outbox.escalations,
            queued_writes: behind.as_ref().map_or(0, |behind| behind.queued),
            writes_given_up: behind.as_ref().map_or(0, |behind| behind.given_up),
            last_error: outbox.last_error.or_else(|| behind.and_then(|behind| behind.last_error)),
            exchanges: batches.batches,
            commands: batches.commands,
            queue_full: batches.refused,
            timeouts: batches.timed_out,
            servers: core.batcher.server_health(),
        }
    }

    /// Returns whether the local tiers are trusted now, and nothing is pending.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.trust_left.is_zero() && self.pending_deletions == 0 && self.pending_bumps == 0
    }
}
