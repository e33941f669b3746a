//! Server addresses: checked when configured, looked up when dialed.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::clock::real::now;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::sync::{Arc, Condvar, Mutex, thread};

/// The port that messages suggest.
const DEFAULT_PORT: u16 = 11211;

/// How long the addresses of a host name are kept. Short, since they are asked for when a server has moved.
const LOOKUP_KEPT: Duration = Duration::from_secs(10);

/// The addresses of one name that are tried: a name with more stands for a pool that we do not want to walk.
const MAX_ADDRESSES: usize = 8;

/// `host:port` of one memcached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The normal form: what routing hashes and messages name.
    text: String,
    host: String,
    port: u16,
}

impl Address {
    pub(super) fn parse(given: &str) -> Result<Self, RemoteError> {
        let refuse = |why: &str| {
            let message = format!("server address {given:?} {why}: write it as \"host:{DEFAULT_PORT}\"");
            Err(RemoteError::new(RemoteErrorKind::Config, message))
        };
        let text = given.trim().to_ascii_lowercase();
        if text.is_empty() {
            return refuse("is empty");
        }
        let Some((host, port)) = text.rsplit_once(':') else { return refuse("has no port") };
        let Some(port) = port.parse().ok().filter(|port| *port != 0) else {
            return refuse("has no port between 1 and 65535");
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if host.is_empty() {
            return refuse("has no host");
        }
        // Before colons are taken for those of IPv6: a URL has some too.
        if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '@') {
            return refuse("is no plain host and port");
        }
        if bracketed.is_none() && host.contains(':') {
            return refuse("holds an IPv6 address without brackets");
        }
        let text = if bracketed.is_some() { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(Self { text: text.clone(), host: host.to_owned(), port })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Looks an address up without waiting longer than its caller can.
///
/// The system's resolver takes as long as it likes and cannot be stopped, so that it runs on a thread of its own: one at a
/// time, however many callers wait for it, and one that comes back late serves the next.
#[derive(Debug)]
pub(super) struct Resolver {
    address: Address,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lookup: Mutex<Lookup>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Lookup {
    running: bool,
    /// The outcome of the last one, and when it came.
    last: Option<(Instant, Result<Vec<SocketAddr>, RemoteError>)>,
}

impl Resolver {
    pub(super) fn new(address: Address) -> Self {
        Self { address, shared: Arc::default() }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Returns between one and `MAX_ADDRESSES` addresses.
    pub(super) fn resolve(&self, deadline: Instant) -> Result<Vec<SocketAddr>, RemoteError> {
        if let Ok(ip) = self.address.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.address.port)]);
        }
        let asked = now();
        let mut lookup = self.shared.lookup.lock();
        loop {
            match &lookup.last {
                Some((at, Ok(found))) if asked.saturating_duration_since(*at) < LOOKUP_KEPT => return Ok(found.clone()),
                Some((at, Err(error))) if *at >= asked => return Err(error.clone()),
                _ => {}
            }
            if !lookup.running {
                self.start()?;
                lookup.running = true;
            }
            if self.shared.ended.wait_until(&mut lookup, deadline).timed_out() {
                let message = format!("looking up {} took longer than the time limit", self.address);
                return Err(RemoteError::new(RemoteErrorKind::Unavailable, message));
            }
        }
    }

    fn start(&self) -> Result<(), RemoteError> {
        let (address, shared) = (self.address.clone(), Arc::clone(&self.shared));
        let work = move || {
            let outcome = look_up(&address);
            let mut lookup = shared.lookup.lock();
            *lookup = Lookup { running: false, last: Some((now(), outcome)) };
            shared.ended.notify_all();
        };
        let spawned = thread::Builder::new().name("larder-resolve".to_owned()).spawn(work);
        spawned.map(drop).map_err(|error| {
            let message = format!("no thread to look up {}: {error}", self.address);
            RemoteError::with_source(RemoteErrorKind::Unavailable, message, error)
        })
    }
}

fn look_up(address: &Address) -> Result<Vec<SocketAddr>, RemoteError> {
    let refuse = |error: io::Error| {
        let message = format!("cannot look up {address}: {error}");
        RemoteError::with_source(RemoteErrorKind::Unavailable, message, error)
    };
    let found = (address.host.as_str(), address.port).to_socket_addrs().map_err(refuse)?;
    let found: Vec<_> = found.take(MAX_ADDRESSES).collect();
    if found.is_empty() { Err(refuse(io::ErrorKind::NotFound.into())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_normal_form() {
        for (given, normal) in [
            ("127.0.0.1:11211", "127.0.0.1:11211"),
            (" Cache.Example:11211 ", "cache.example:11211"),
            ("[::1]:11211", "[::1]:11211"),
            ("host:011211", "host:11211"),
        ] {
            assert_eq!(Address::parse(given).unwrap().as_str(), normal);
        }
    }

    #[test]
    fn an_address_that_cannot_work_names_itself_and_the_fix() {
        for given in
            ["", " ", "host", "host:", "host:0", "host:65536", ":11211", "::1:11211", "[]:1", "tcp://host:1", "a b:1"]
        {
            let error = Address::parse(given).unwrap_err();
            assert_eq!(error.kind(), RemoteErrorKind::Config);
            assert!(error.to_string().contains(&format!("{given:?}")), "{error}");
            assert!(error.to_string().contains("host:11211"), "{error}");
        }

        let error = Address::parse("tcp://host:1").unwrap_err();
        assert!(error.to_string().contains("is no plain host and port"), "{error}");
    }

    #[test]
    fn literals_and_local_names_resolve() {
        let deadline = now() + Duration::from_secs(30);
        for given in ["127.0.0.1:7", "[::1]:7", "localhost:7"] {
            let resolver = Resolver::new(Address::parse(given).unwrap());
            let found = resolver.resolve(deadline).unwrap();
            assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{found:?}");
            assert_eq!(resolver.resolve(deadline).unwrap(), found);
        }
    }
}
