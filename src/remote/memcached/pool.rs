//! The connections to one server: who has which, and who waits for which. No I/O happens here.

use std::fmt;
use std::mem;
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::clock::real::now;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::tier::next_connection_id;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How long a connection may lie unused. Longer than leases live, since a cas is worth nothing without its connection;
/// shorter than the 350 s after which common load balancers forget one without a word.
const MAX_IDLE_AGE: Duration = Duration::from_secs(300);

/// A bounded set of connections.
///
/// Without a wish, the oldest idle connection is given out: so the surplus of a burst ages out, and a quiet process, whose
/// polls compare what they read with what they read before, stays on one connection.
pub(super) struct Pool {
    state: Mutex<State>,
    max: usize,
    /// A connection came back or went away; for those that take any.
    any: Condvar,
    /// The same, for those that wait for a certain one.
    certain: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    /// The ids that are out, those of connections under construction among them.
    out: Vec<u64>,
    /// The ids that somebody waits for. Those who take any leave these alone.
    wanted: Vec<u64>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The right to one of the pool's connections, which may have to be dialed first.
///
/// Dropping it closes the connection for good, and its cas values are void; [`give_back`](Self::give_back) keeps it.
#[derive(Debug)]
pub(super) struct Checkout<'p> {
    pool: &'p Pool,
    id: u64,
    connection: Option<Connection>,
    keep: bool,
}

impl Pool {
    /// Makes an empty pool of at most `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self { state: Mutex::default(), max, any: Condvar::new(), certain: Condvar::new() }
    }

    /// Takes any connection, or the right to dial one.
    ///
    /// # Blocking
    /// Waits for a connection to come back while all are out, until `deadline`.
    pub(super) fn take_any(&self, deadline: Instant) -> Result<Checkout<'_>, RemoteError> {
        let mut state = self.state.lock();
        loop {
            let aged = state.remove_aged(now());
            if !aged.is_empty() {
                // Closing a socket is a system call, and so is looking at one below: not under the lock.
                MutexGuard::unlocked(&mut state, || drop(aged));
            }
            if let Some(connection) = state.take_oldest() {
                let checkout = self.check_out(state, connection);
                if checkout.is_alive() {
                    return Ok(checkout);
                }
                drop(checkout);
                state = self.state.lock();
            } else if state.idle.len() + state.out.len() < self.max {
                let id = next_connection_id();
                state.out.push(id);
                return Ok(Checkout { pool: self, id, connection: None, keep: false });
            } else if self.any.wait_until(&mut state, deadline).timed_out() {
                return Err(self.all_busy());
            }
        }
    }

    /// Takes the connection `id`, or returns `None` if it is gone.
    ///
    /// # Blocking
    /// Waits for it to come back while it is out, until `deadline`.
    pub(super) fn take(&self, id: u64, deadline: Instant) -> Result<Option<Checkout<'_>>, RemoteError> {
        let mut state = self.state.lock();
        let mut waiting = false;
        let mut timed_out = false;
        let found = loop {
            if let Some(position) = state.idle.iter().position(|idle| idle.connection.id() == id) {
                break Ok(Some(state.idle.remove(position).connection));
            }
            if !state.out.contains(&id) {
                break Ok(None);
            }
            if timed_out {
                break Err(self.all_busy());
            }
            if !mem::replace(&mut waiting, true) {
                state.wanted.push(id);
            }
            timed_out = self.certain.wait_until(&mut state, deadline).timed_out();
        };
        if waiting {
            if let Some(position) = state.wanted.iter().position(|wanted| *wanted == id) {
                state.wanted.swap_remove(position);
            }
            // Somebody may have passed the connection over because it was wanted.
            self.any.notify_one();
        }
        let checkout = found?.map(|connection| self.check_out(state, connection));
        Ok(checkout.filter(Checkout::is_alive))
    }

    fn check_out(&self, mut state: MutexGuard<'_, State>, connection: Connection) -> Checkout<'_> {
        let id = connection.id();
        state.out.push(id);
        Checkout { pool: self, id, connection: Some(connection), keep: false }
    }

    fn all_busy(&self) -> RemoteError {
        let message = format!("no connection came free in time: all of at most {} are in use", self.max);
        RemoteError::new(RemoteErrorKind::Unavailable, message)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Pool")
            .field("idle", &state.idle.len())
            .field("out", &state.out.len())
            .field("max", &self.max)
            .finish()
    }
}

impl State {
    fn take_oldest(&mut self) -> Option<Connection> {
        let free = self.idle.iter().enumerate().filter(|(_, idle)| !self.wanted.contains(&idle.connection.id()));
        let (oldest, _) = free.min_by_key(|(_, idle)| idle.connection.id())?;
        Some(self.idle.remove(oldest).connection)
    }

    fn remove_aged(&mut self, now: Instant) -> Vec<Idle> {
        self.idle.extract_if(.., |idle| now.saturating_duration_since(idle.since) > MAX_IDLE_AGE).collect()
    }
}

impl Checkout<'_> {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the connection, which `dial` makes if there is none yet.
    pub(super) fn connection(
        &mut self,
        dial: impl FnOnce(u64) -> Result<Connection, RemoteError>,
    ) -> Result<&mut Connection, RemoteError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            vacant => Ok(vacant.insert(dial(self.id)?)),
        }
    }

    /// Puts the connection back for the next one.
    pub(super) fn give_back(mut self) {
        self.keep = true;
    }

    fn is_alive(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_quiet)
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        let kept = self.connection.take_if(|_| self.keep);
        // One that is not kept is closed outside the lock, and before its place is free.
        self.connection = None;
        let mut state = self.pool.state.lock();
        state.out.retain(|id| *id != self.id);
        state.idle.extend(kept.map(|connection| Idle { connection, since: now() }));
        drop(state);
        self.pool.any.notify_one();
        self.pool.certain.notify_all();
    }
}
