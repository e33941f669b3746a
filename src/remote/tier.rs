//! The narrow waist of the remote tier: a store of small items, driven by batches of commands.

use std::time::Duration;

use super::bytes::SharedBytes;
use super::error::RemoteError;
use super::key::WireKey;
use crate::sync::{AtomicU64, Ordering};

/// The largest value of a store that says nothing else: memcached's default item of 1 MiB, which also holds the key (at
/// most 250 bytes) and about 60 bytes of its own.
pub(super) const DEFAULT_MAX_VALUE_LEN: usize = (1 << 20) - 512;

/// Returns an id that no other connection of this process has had, for [`Cas::connection`].
pub(super) fn next_connection_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// A store of small items that several processes share.
///
/// Everything that larder does remotely (leases, fenced fills, group tokens, the journal, counters) is made of these
/// commands, whose semantics are those of memcached's meta protocol. An implementation only moves them.
///
/// # Contract
/// - `run` answers every command, in its place, and returns within about `timeout`, however dead the store is.
/// - Commands of one batch with the same [`Route`] reach the store in their order, in one write on one connection, unless
///   a [`Cas`] of another connection is among them: that command alone answers [`Reply::Fenced`].
/// - A command that failed after it may have been sent answers an error that says so
///   ([`RemoteError::is_indeterminate`]) and is never sent again.
/// - Nothing that the store answers may panic or allocate beyond [`max_value_len`](Self::max_value_len) a value.
pub trait RemoteTier: Send + Sync + 'static {
    /// Runs `batch` and returns one answer for each command, in order.
    ///
    /// # Blocking
    /// Waits for the store, at most about `timeout` for the batch as a whole.
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>>;

    /// Returns the largest value in bytes that the store takes. A larger one answers
    /// [`TooLarge`](super::error::RemoteErrorKind::TooLarge) without being sent.
    fn max_value_len(&self) -> usize;

    /// Returns how many servers there are. A batch that goes to one of them never waits for another, so that larder keeps a
    /// queue for each. Default: 1.
    fn servers(&self) -> usize {
        1
    }

    /// Returns the number of the server, from 0, that a command with this key and route goes to. Default: 0.
    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        let _ = (key, route);
        0
    }

    /// Returns a way to the same store with connections of its own, for the thread that follows the journal: it compares the
    /// [`Cas`] of the journal with the one it saw before, which is worth nothing on another connection, and it must not wait
    /// for connections that callers use. `None`, the default, says that this one will do.
    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        None
    }

    /// Returns how each server does, in the order of their numbers, without asking them. Default: nothing, for a store that
    /// keeps no record.
    fn server_health(&self) -> Vec<ServerHealth> {
        Vec::new()
    }
}

/// How one server of a [`RemoteTier`] does, as far as this process has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerHealth {
    /// Its address, as configured.
    pub address: String,
    /// Whether commands go to it at present.
    pub breaker: BreakerState,
}

impl ServerHealth {
    /// Makes the record of one server, for an implementation of [`RemoteTier`].
    pub fn new(address: impl Into<String>, breaker: BreakerState) -> Self {
        Self { address: address.into(), breaker }
    }
}

/// Whether commands go to a server that may have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// They all do.
    Closed,
    /// None does: the server has failed several times in a row. Once the pause is over, the next command is a probe.
    Open,
    /// Only the probe does, which is under way. If the server answers it, the others follow.
    HalfOpen,
}

/// One command of a batch: what to do with which item.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The item's key as the store sees it.
    pub key: &'a WireKey,
    /// Where the item lives when there are several servers.
    pub route: Route,
    /// What to do with it.
    pub action: Action<'a>,
}

/// Which server of several holds an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// The server that rendezvous hashing picks for the key: values and refresh claims.
    ByKey,
    /// The one server that holds group tokens and the journal, so that their commands have one order.
    Control,
}

/// What a [`Command`] does.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Reads the item. Answers `Hit`, `Miss`, `Busy` or `Won`; the latter without a lease only for an empty item that was
    /// marked stale.
    Get {
        /// Whether to fetch the value, or its metadata alone.
        value: bool,
        /// When the item is missing, creates an empty one for this long (whole seconds, rounded up, at least 1) and
        /// answers `Won` to the one caller whose read created it; until it is filled, others are answered `Busy`.
        lease: Option<Duration>,
        /// Moves the item's expiry while reading it; also that of a lease which this read creates.
        touch: Option<Expiry>,
    },
    /// Moves the item's expiry, whichever version it is of, and answers as a `Get` without value does, `Fenced` where the
    /// connection that the cas was read on is gone. memcached knows no condition for this: it is for whoever sends it to compare
    /// the cas of the answer with this one.
    Touch {
        /// When the store may forget the item.
        expiry: Expiry,
        /// What was read of the item, on the connection that this has to be sent on.
        cas: Cas,
    },
    /// Stores the item. Answers `Done`, `NotStored` (the mode's condition failed) or `Fenced` (the cas did not match, or
    /// the item is gone).
    Set {
        /// The bytes to store.
        value: &'a [u8],
        /// When the store may forget them.
        expiry: Expiry,
        /// When to store them.
        mode: SetMode,
        /// Stores only while the item is still the one that this was read from.
        cas: Option<Cas>,
    },
    /// Deletes the item. Answers `Done`, `Miss` or `Fenced`.
    Delete {
        /// Deletes only while the item is still the one that this was read from.
        cas: Option<Cas>,
    },
    /// Marks the item stale, so that reads say so and one of them wins its lease. Answers `Done` or `Miss`.
    MarkStale {
        /// How much longer the item stays readable; `None` leaves its expiry alone.
        expiry: Option<Expiry>,
    },
    /// Adds to the unsigned decimal counter in the item, wrapping at 2^64. Answers `Number`, or `Miss` without `initial`.
    /// The stored digits may have spaces behind them, and whether a stale mark survives is left open.
    Increment {
        /// What to add.
        delta: u64,
        /// The counter's first value and its expiry, when the item is missing.
        initial: Option<(u64, Expiry)>,
    },
    /// Subtracts from the counter in the item, stopping at 0. Answers as `Increment` does.
    Decrement {
        /// What to subtract.
        delta: u64,
        /// The counter's first value and its expiry, when the item is missing.
        initial: Option<(u64, Expiry)>,
    },
}

impl Action<'_> {
    /// Returns the version of the item whose connection the command insists on.
    pub(super) fn cas(&self) -> Option<Cas> {
        match self {
            Action::Set { cas, .. } | Action::Delete { cas } => *cas,
            Action::Touch { cas, .. } => Some(*cas),
            _ => None,
        }
    }
}

/// The condition of a [`Action::Set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Whatever is there.
    Always,
    /// Only when the item is missing.
    Add,
    /// Only when the item is there and has room: its value grows at the end, and its expiry stays.
    Append,
}

/// When the store may forget an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Only under pressure.
    Never,
    /// After this long; stores that count in seconds round it up.
    After(Duration),
}

/// What a read remembers of an item, so that a later command applies only while the item is unchanged.
///
/// Valid on the connection that read it alone: after a restart, a store hands out the same numbers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cas {
    /// The store's number for this version of the item; never 0.
    pub value: u64,
    /// The connection that read it.
    pub connection: u64,
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The item is there.
    Hit(Item),
    /// There is no such item.
    Miss,
    /// There was no such item, or it was marked stale while empty; this caller holds the lease, and may fill it under this cas.
    /// Who has no use for it deletes the item under the cas, since nobody else is given the lease.
    Won(Cas),
    /// The item is empty, and another caller holds the lease.
    Busy(Cas),
    /// The command was carried out.
    Done,
    /// The condition of [`SetMode`] did not hold.
    NotStored,
    /// The item is no longer the one that the cas was read from.
    Fenced,
    /// The counter's value after the command.
    Number(u64),
}

/// An item as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its bytes; empty when only the metadata was asked for.
    pub value: SharedBytes,
    /// Its length in bytes, asked for or not.
    pub len: usize,
    /// Its version.
    pub cas: Cas,
    /// How much longer the store keeps it; `None` when it never expires.
    pub expires_in: Option<Duration>,
    /// Whether it was marked stale.
    pub stale: bool,
    /// Whether this read won the right to refresh it: of a stale item, the first read does.
    pub won: bool,
}
