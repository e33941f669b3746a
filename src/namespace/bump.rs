//! How far an invalidation has come, and what to wait on until it is through.

use std::fmt;
use std::time::Duration;

use super::core::Owed;
use crate::broadcast::slip::{self, Slip, Standing};
use crate::clock::{Clock, Deadline};
use crate::remote::error::RemoteError;
use crate::sync::Arc;
use crate::watch::event;

/// How far an invalidation has come when the call that made it returns. In this process it holds in any case.
#[derive(Clone, Debug)]
#[must_use = "an invalidation that is pending has not reached the remote tier"]
#[non_exhaustive]
pub enum Bump {
    /// The remote tier has carried it out: whoever asks it from now on sees it, and every connected process stops serving
    /// what it concerns from its local tier within the namespace's poll interval and two round trips.
    Acknowledged,
    /// The remote tier has not acknowledged it, and other processes may not know of it yet. This process takes nothing that it
    /// concerns from there, and tries again until it has.
    Pending(Receipt),
}

impl Bump {
    /// Returns whether the remote tier has carried the invalidation out.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        matches!(self, Bump::Acknowledged)
    }

    /// Returns how far both have come.
    pub(crate) fn and(self, other: Bump) -> Bump {
        match (self, other) {
            (Bump::Pending(mut receipt), Bump::Pending(more)) => {
                receipt.slips.extend(more.slips);
                Bump::Pending(receipt)
            }
            (Bump::Acknowledged, bump) | (bump, Bump::Acknowledged) => bump,
        }
    }

    pub(crate) fn from_result(result: Result<(), Owed>) -> Bump {
        match result {
            Ok(()) => Bump::Acknowledged,
            Err(owed) => Bump::Pending(Receipt::of(owed)),
        }
    }

    /// Forgets what has been settled by now, and returns how many changes have not.
    pub(crate) fn count_open(&mut self) -> usize {
        let Bump::Pending(receipt) = self else { return 0 };
        receipt.slips.retain(|slip| slip.standing() != Standing::Settled);
        let open = receipt.slips.len();
        if open == 0 {
            *self = Bump::Acknowledged;
        }
        open
    }
}

/// What to wait on for something that has yet to reach the remote tier.
///
/// A receipt is settled once the remote tier has done it, or something that covers it: more than 16,384 pending changes become
/// one bump of the whole namespace, and of several queued writes of one key the last is sent. It is given up when the
/// namespace is shut down, or its last handle dropped, before.
#[derive(Clone)]
pub struct Receipt {
    slips: Vec<Arc<Slip>>,
    error: Option<RemoteError>,
}

impl Receipt {
    pub(crate) fn of(Owed { error, slips }: Owed) -> Receipt {
        event!(debug, "the remote tier did not acknowledge a change, which is tried again: {error}");
        Receipt { slips, error: Some(error) }
    }

    pub(crate) fn queued(slip: Arc<Slip>) -> Receipt {
        Receipt { slips: vec![slip], error: None }
    }

    /// Returns why the remote tier did not acknowledge it at first; `None` for what has not been sent yet.
    #[must_use]
    pub fn error(&self) -> Option<&RemoteError> {
        self.error.as_ref()
    }

    /// Returns whether it has reached the remote tier by now. Does no I/O.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.slips.iter().all(|slip| slip.standing() == Standing::Settled)
    }

    /// Waits until it has reached the remote tier, and returns whether it has within `patience`; `false` at once where nobody
    /// tries any more.
    ///
    /// # Blocking
    /// For `patience` at most, by the system's clock.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let clock = Clock::system();
        let deadline = Deadline::after(clock.now(), patience);
        clock.block_on(self.wait_async(), deadline).unwrap_or_else(|| self.is_settled())
    }

    /// Waits until it has reached the remote tier, on any runtime, and returns whether it has: `false` where nobody tries any
    /// more. Without a limit of its own; dropping the future half-way changes nothing.
    pub async fn wait_async(&self) -> bool {
        slip::settled(&self.slips).await
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("settled", &self.is_settled()).field("error", &self.error).finish()
    }
}
