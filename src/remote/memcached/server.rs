//! One memcached: its connections, its breaker, and the part of a batch that goes to it.

use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::address::{Address, Resolver};
use super::connection::Connection;
use super::pool::{Checkout, Pool};
use crate::clock::real::now;
use crate::remote::breaker::Breaker;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::tier::{BreakerState, Cas, Command, Reply, ServerHealth, next_connection_id};
use crate::sync::Mutex;
use crate::watch::{Limit, event};

/// Limits that all servers share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connect_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) max_value_len: usize,
    /// The longest pause of a breaker.
    pub(super) longest_pause: Duration,
}

#[derive(Debug)]
pub(super) struct Server {
    resolver: Resolver,
    pool: Pool,
    breaker: Mutex<Breaker>,
    /// Bounds how often probes are told of.
    probes: Limit,
    limits: Limits,
}

impl Server {
    pub(super) fn new(address: Address, limits: Limits) -> Self {
        let pool = Pool::new(limits.max_connections);
        let breaker = Mutex::new(Breaker::new(limits.longest_pause));
        Self { resolver: Resolver::new(address), pool, breaker, probes: Limit::default(), limits }
    }

    pub(super) fn address(&self) -> &Address {
        self.resolver.address()
    }

    pub(super) fn health(&self) -> ServerHealth {
        ServerHealth::new(self.address().as_str(), self.breaker.lock().state())
    }

    /// Makes sure that there is a connection to the server, and so that larder can work with it.
    pub(super) fn check(&self, deadline: Instant) -> Result<(), RemoteError> {
        let mut checkout = self.pool.take_any(deadline)?;
        checkout.connection(|id| self.dial(id, deadline))?;
        checkout.give_back();
        Ok(())
    }

    /// Runs `commands` in order on one connection, and returns an answer for each.
    ///
    /// The connection is the first one that a cas among them names and that is still there. A cas of any other connection
    /// is void: after a restart, the server numbers its items anew. So that command is fenced without being sent.
    pub(super) fn run(&self, commands: &[Command<'_>], deadline: Instant) -> Vec<Result<Reply, RemoteError>> {
        if commands.iter().all(|command| command.action.cas().is_none()) {
            return self.send(None, commands, deadline);
        }
        let held = match self.take_named(commands, deadline) {
            Ok(held) => held,
            Err(error) => return vec![Err(error); commands.len()],
        };
        let holder = held.as_ref().map(Checkout::id);
        let may_run = |command: &&Command<'_>| match command.action.cas() {
            Some(cas) => is_real(&cas) && Some(cas.connection) == holder,
            None => true,
        };
        let runnable: Vec<_> = commands.iter().filter(may_run).copied().collect();
        let mut answers = self.send(held, &runnable, deadline).into_iter();
        let answer = |command| if may_run(&command) { answers.next() } else { Some(Ok(Reply::Fenced)) };
        commands.iter().map_while(answer).collect()
    }

    /// Takes the first connection that a cas among `commands` names and that still exists.
    fn take_named(&self, commands: &[Command<'_>], deadline: Instant) -> Result<Option<Checkout<'_>>, RemoteError> {
        let mut tried = None;
        for cas in commands.iter().filter_map(|command| command.action.cas()).filter(is_real) {
            if tried.replace(cas.connection) == Some(cas.connection) {
                continue;
            }
            if let Some(checkout) = self.pool.take(cas.connection, deadline)? {
                return Ok(Some(checkout));
            }
        }
        Ok(None)
    }

    /// Sends `commands` on the connection that is held, or on any, if the breaker has no objection.
    fn send<'s>(
        &'s self,
        held: Option<Checkout<'s>>,
        commands: &[Command<'_>],
        deadline: Instant,
    ) -> Vec<Result<Reply, RemoteError>> {
        if commands.is_empty() {
            // Nothing is held either: who holds a connection runs at least the command that named it.
            return Vec::new();
        }
        let admitted = self.breaker(|breaker| breaker.admit(now()));
        let permit = match admitted {
            Ok(permit) => permit,
            Err(pause) => {
                if let Some(held) = held {
                    held.give_back();
                }
                let message = format!("memcached at {} keeps failing; next try in {pause:.1?}", self.address());
                return vec![Err(RemoteError::new(RemoteErrorKind::Unavailable, message)); commands.len()];
            }
        };
        let mut checkout = match held.map_or_else(|| self.pool.take_any(deadline), Ok) {
            Ok(checkout) => checkout,
            Err(error) => {
                // All connections are in use: that says nothing about the server.
                self.breaker(|breaker| breaker.abandon(permit, now()));
                return vec![Err(error); commands.len()];
            }
        };
        if now() >= deadline {
            // Neither does a time limit that ran out before the server was asked.
            checkout.give_back();
            self.breaker(|breaker| breaker.abandon(permit, now()));
            let error = RemoteError::new(RemoteErrorKind::Unavailable, "the time limit ran out before sending");
            return vec![Err(error); commands.len()];
        }
        let (answers, failure) = match checkout.connection(|id| self.dial(id, deadline)) {
            Ok(connection) => connection.exchange(commands, self.limits.max_value_len, deadline),
            Err(error) => (vec![Err(error.clone()); commands.len()], Some(error)),
        };
        match failure {
            None => {
                checkout.give_back();
                self.breaker(|breaker| breaker.succeed(permit));
            }
            Some(error) => {
                event!(debug, "memcached at {}: {error}", self.address());
                drop(checkout);
                self.breaker(|breaker| breaker.fail(permit, now(), self.entropy()));
            }
        }
        answers
    }

    /// Lets the breaker learn or decide something, and tells of what it has become.
    fn breaker<R>(&self, learn: impl FnOnce(&mut Breaker) -> R) -> R {
        let mut breaker = self.breaker.lock();
        let before = breaker.state();
        let learnt = learn(&mut breaker);
        let after = breaker.state();
        drop(breaker);
        let server = self.address().as_str();
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                event!(warn, [server = server], "memcached at {server} keeps failing: its breaker opens");
            }
            (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Closed) => {
                event!(info, [server = server], "memcached at {server} answers again: its breaker closes");
            }
            // A server that is down is probed all the time.
            (BreakerState::Open, BreakerState::HalfOpen) => {
                if let Some(others) = self.probes.pass() {
                    event!(
                        info,
                        [server = server, others = others.0],
                        "memcached at {server} is probed: its breaker is half-open{others}"
                    );
                }
            }
            _ => {}
        }
        learnt
    }

    fn dial(&self, id: u64, deadline: Instant) -> Result<Connection, RemoteError> {
        let deadline = deadline.min(now() + self.limits.connect_timeout);
        let addresses = self.resolver.resolve(deadline)?;
        Connection::open(id, self.address().as_str(), &addresses, deadline)
    }

    /// Returns bits that differ between processes and calls.
    fn entropy(&self) -> u64 {
        let seed = u64::from(std::process::id()) << 32 | next_connection_id();
        xxh3_64_with_seed(self.address().as_str().as_bytes(), seed)
    }
}

/// Returns whether `cas` is one that a server gives out. On the wire, 0 means that there is no condition.
fn is_real(cas: &Cas) -> bool {
    cas.value != 0
}
