//! The remote tier in memcached, over its meta protocol.

mod address;
mod connection;
mod input;
mod pool;
mod router;
mod server;
mod wire;

use std::fmt;
use std::time::{Duration, Instant};

use self::address::Address;
use self::router::Router;
use self::server::{Limits, Server};
use super::breaker::LONGEST_PAUSE;
use super::error::{RemoteError, RemoteErrorKind};
use super::key::WireKey;
use super::tier::{Action, Command, DEFAULT_MAX_VALUE_LEN, RemoteTier, Reply, Route, ServerHealth};
use crate::clock::real::now;
use crate::sync::Arc;

/// How long dialing may take: a dead host must not hold a caller for long, and a live one in reach answers far sooner.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest pause of the breakers of a [`dedicated`](RemoteTier::dedicated) client: its one user, which follows the journal,
/// stops trusting what it knows after about as long, and so has to notice sooner that a server is back.
const DEDICATED_LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Connections to one server: enough for an I/O thread and callers, and so few that a hundred processes stay under the
/// 1,024 that memcached takes unless told otherwise.
const DEFAULT_MAX_CONNECTIONS: usize = 8;

/// More connections of one process are a mistake: memcached serves a pipelined few faster.
const MAX_MAX_CONNECTIONS: usize = 1_024;

/// Beyond this, a list of servers is a mistake: every key is hashed once for each.
const MAX_SERVERS: usize = 1_000;

/// memcached's own ceiling for one item (its option `-I`).
const MAX_MAX_VALUE_LEN: usize = 1 << 30;

/// No batch may wait longer, whatever its time limit says.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A [`RemoteTier`] in one or several memcached servers, version 1.6.18 or later.
///
/// Clones share connections. Each server has a bounded pool of them, dialed when needed, and a breaker: after three
/// failures in a row, commands to that server answer [`Unavailable`](RemoteErrorKind::Unavailable) at once for about 0.1 s,
/// and for up to 2 s while single probes keep failing.
///
/// # Several servers
/// Items spread over the servers by rendezvous hashing of their key; what must have one order (group tokens, the journal)
/// is on one of them. All processes must have the same servers, in any order. A server that is down takes its items with
/// it: they are missing, and no other server answers for them.
///
/// A batch visits its servers one after the other, and each may use an equal share of the time that is left. What goes to
/// one server goes over one connection, in one write up to 64 KiB and 256 commands, and in several beyond.
///
/// # Connections and cas
/// A [`Cas`](crate::Cas) is good on the connection that read it. A command that has one waits until that connection is
/// free, and answers [`Fenced`](Reply::Fenced) once it is gone: after an error, after a restart of the server, or after
/// five minutes of disuse. A proxy that hides connections breaks this, and cannot be used.
///
/// # Examples
/// ```no_run
/// use larder::Memcached;
///
/// let one = Memcached::connect("127.0.0.1:11211")?;
/// let several = Memcached::builder().server("10.0.0.1:11211").server("10.0.0.2:11211").build()?;
/// # Ok::<(), larder::RemoteError>(())
/// ```
#[derive(Clone)]
pub struct Memcached {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Vec<Server>,
    router: Router,
    limits: Limits,
}

impl Memcached {
    /// Connects to the one server at `address` (`host:port`) and checks that larder can work with it.
    ///
    /// # Errors
    /// [`Config`](RemoteErrorKind::Config) if the address is none, if the server is older than 1.6.18, or if it runs without
    /// cas (option `-C`); [`Unavailable`](RemoteErrorKind::Unavailable) if it cannot be reached or does not answer;
    /// [`Protocol`](RemoteErrorKind::Protocol) if it is no memcached.
    ///
    /// # Blocking
    /// Looks the address up, dials and waits for the server, at most about 1 s in all.
    pub fn connect(address: impl fmt::Display) -> Result<Self, RemoteError> {
        let memcached = Self::builder().server(address).build()?;
        for server in &memcached.shared.servers {
            server.check(now() + DEFAULT_CONNECT_TIMEOUT)?;
        }
        Ok(memcached)
    }

    /// Starts the configuration of a client.
    pub fn builder() -> MemcachedBuilder {
        MemcachedBuilder {
            servers: Vec::new(),
            limits: Limits {
                connect_timeout: DEFAULT_CONNECT_TIMEOUT,
                max_connections: DEFAULT_MAX_CONNECTIONS,
                max_value_len: DEFAULT_MAX_VALUE_LEN,
                longest_pause: LONGEST_PAUSE,
            },
        }
    }

    fn new(addresses: Vec<Address>, limits: Limits) -> Self {
        let router = Router::new(addresses.iter().map(Address::as_str));
        let servers = addresses.into_iter().map(|address| Server::new(address, limits)).collect();
        Self { shared: Arc::new(Shared { servers, router, limits }) }
    }
}

impl RemoteTier for Memcached {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let deadline = now() + timeout.min(LONGEST_TIMEOUT);
        let Shared { servers, router, limits } = &*self.shared;
        if let [server] = &**servers
            && batch.iter().all(|command| refuse_locally(command, limits).is_none())
        {
            return server.run(batch, deadline);
        }
        let mut answers: Vec<_> = batch.iter().map(|command| refuse_locally(command, limits)).collect();
        // What goes where, and in whose place its answer belongs.
        let mut shares: Vec<Share<'_, '_>> = Vec::new();
        for (position, command) in batch.iter().enumerate().filter(|(position, _)| answers[*position].is_none()) {
            let server = &servers[router.server(command.key, command.route)];
            let share = match shares.iter().position(|share| std::ptr::eq(share.server, server)) {
                Some(known) => &mut shares[known],
                None => shares.push_mut(Share { server, commands: Vec::new(), positions: Vec::new() }),
            };
            share.commands.push(*command);
            share.positions.push(position);
        }
        let mut waiting = u32::try_from(shares.len()).unwrap_or(u32::MAX);
        for share in shares {
            let deadline = fair_share(deadline, waiting);
            waiting -= 1;
            for (position, answer) in share.positions.into_iter().zip(share.server.run(&share.commands, deadline)) {
                answers[position] = Some(answer);
            }
        }
        let missing = || Err(RemoteError::new(RemoteErrorKind::Interrupted, "the command has no answer"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    fn max_value_len(&self) -> usize {
        self.shared.limits.max_value_len
    }

    fn servers(&self) -> usize {
        self.shared.servers.len()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        self.shared.router.server(key, route)
    }

    /// The same servers over one connection each, which stays the same until it breaks, and with breakers that pause for 250
    /// ms at most.
    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        let Shared { servers, limits, .. } = &*self.shared;
        let limits = Limits { max_connections: 1, longest_pause: DEDICATED_LONGEST_PAUSE, ..*limits };
        let addresses = servers.iter().map(|server| server.address().clone()).collect();
        Some(Box::new(Memcached::new(addresses, limits)))
    }

    fn server_health(&self) -> Vec<ServerHealth> {
        self.shared.servers.iter().map(Server::health).collect()
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcached")
            .field("servers", &self.shared.servers)
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

/// One server's part of a batch.
struct Share<'s, 'b> {
    server: &'s Server,
    commands: Vec<Command<'b>>,
    positions: Vec<usize>,
}

/// Answers a command that must not be sent: memcached drops the old item when a new value is too large for it.
fn refuse_locally(command: &Command<'_>, limits: &Limits) -> Option<Result<Reply, RemoteError>> {
    match command.action {
        Action::Set { value, .. } if value.len() > limits.max_value_len => {
            Some(Err(RemoteError::too_large(value.len(), limits.max_value_len)))
        }
        _ => None,
    }
}

/// Returns the deadline of the first of `waiting` servers, so that one that hangs leaves the others their time.
fn fair_share(deadline: Instant, waiting: u32) -> Instant {
    let now = now();
    now + deadline.saturating_duration_since(now) / waiting.max(1)
}

/// Configures a [`Memcached`]. Made by [`Memcached::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct MemcachedBuilder {
    servers: Vec<String>,
    limits: Limits,
}

impl MemcachedBuilder {
    /// Adds a server by its address, `host:port` or `[ipv6]:port`. All processes must use the same spelling of an address,
    /// since items are assigned by it (upper and lower case aside).
    pub fn server(mut self, address: impl fmt::Display) -> Self {
        self.servers.push(address.to_string());
        self
    }

    /// Bounds how long a command waits for a new connection: looking up, dialing and checking the server. A batch's own
    /// time limit bounds it too. Default: 1 s. Zero is refused.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// Bounds the connections to each server; callers beyond it wait for one. Default: 8. From 1 to 1,024.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections;
        self
    }

    /// Sets the largest value in bytes that is sent or accepted. Raise it together with memcached's option `-I`, leaving 512
    /// bytes for the key and the item's header, and in all processes alike: an item that is longer than this ends the
    /// connection that meets it. Default: 1 MiB less 512 bytes. From 1 to 1 GiB.
    pub fn max_value_len(mut self, bytes: usize) -> Self {
        self.limits.max_value_len = bytes;
        self
    }

    /// Makes the client. Does no I/O: servers are looked up, dialed and checked when the first command needs them.
    ///
    /// # Errors
    /// [`Config`](RemoteErrorKind::Config) if there is no server, if an address is none or is there twice, or if a limit is
    /// out of range. The message names the value.
    pub fn build(self) -> Result<Memcached, RemoteError> {
        let config = |message: String| RemoteError::new(RemoteErrorKind::Config, message);
        let Limits { connect_timeout, max_connections, max_value_len, .. } = self.limits;
        if connect_timeout.is_zero() || connect_timeout > LONGEST_TIMEOUT {
            return Err(config(format!("connect_timeout is {connect_timeout:?}: make it 1 ns to {LONGEST_TIMEOUT:?}")));
        }
        if !(1..=MAX_MAX_CONNECTIONS).contains(&max_connections) {
            return Err(config(format!("max_connections is {max_connections}: make it 1 to {MAX_MAX_CONNECTIONS}")));
        }
        if !(1..=MAX_MAX_VALUE_LEN).contains(&max_value_len) {
            return Err(config(format!("max_value_len is {max_value_len}: make it 1 to {MAX_MAX_VALUE_LEN} bytes")));
        }
        if self.servers.is_empty() {
            return Err(config("there is no memcached server: add one with server(\"host:11211\")".to_owned()));
        }
        if self.servers.len() > MAX_SERVERS {
            return Err(config(format!("there are {} servers: use at most {MAX_SERVERS}", self.servers.len())));
        }
        let mut addresses: Vec<Address> = Vec::with_capacity(self.servers.len());
        for given in &self.servers {
            let address = Address::parse(given)?;
            if addresses.contains(&address) {
                return Err(config(format!("server {address} is there twice: remove one")));
            }
            addresses.push(address);
        }
        Ok(Memcached::new(addresses, self.limits))
    }
}
