//! The tiered cache over the store in memory, over a real memcached, and over three.

mod adversary;
mod ageing;
mod bytes;
mod calls;
mod claims;
#[cfg(feature = "lz4")]
mod compression;
mod counting;
mod endings;
mod exchanges;
pub(crate) mod gate;
mod keeping;
mod lifetimes;
mod model;
mod moments;
mod outages;
mod races;
mod touches;
mod verbs;
mod warm_up;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{InMemoryRemote, Namespace, NamespaceBuilder, RawBytes, TieredCache, TieredCacheBuilder};

use self::gate::{Gate, NextLook};
use crate::support::eventually;

type Pages = TieredCache<String, String>;

/// Far from every deadline that a test does not move.
const HOUR: Duration = Duration::from_secs(3_600);

/// Longer than every time by which a test moves a clock.
const YEARS: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A store that the cases of a test share, each in a namespace of its own.
struct Stand {
    gate: Gate,
    memory: Option<InMemoryRemote>,
    #[cfg(feature = "memcached")]
    servers: Vec<crate::support::memcached::Server>,
}

impl Stand {
    fn memory() -> Stand {
        let memory = InMemoryRemote::new();
        Stand {
            gate: Gate::new(memory.clone()),
            memory: Some(memory),
            #[cfg(feature = "memcached")]
            servers: Vec::new(),
        }
    }

    #[cfg(feature = "memcached")]
    fn memcached(count: usize) -> Stand {
        let servers: Vec<_> = (0..count).map(|_| crate::support::memcached::Server::start()).collect();
        let client = servers.iter().fold(larder::Memcached::builder(), |client, server| client.server(server.addr()));
        Stand { gate: Gate::new(client.build().unwrap()), memory: None, servers }
    }

    /// Returns a stand of each kind.
    fn all() -> Vec<Stand> {
        vec![
            Stand::memory(),
            #[cfg(feature = "memcached")]
            Stand::memcached(1),
            #[cfg(feature = "memcached")]
            Stand::memcached(3),
        ]
    }

    fn kind(&self) -> &'static str {
        if self.memory.is_some() { "in memory" } else { "memcached" }
    }

    /// Returns the name of a namespace that nobody has used.
    fn fresh(&self) -> String {
        static LAST: AtomicU64 = AtomicU64::new(0);
        format!("test{}", LAST.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns another process of the namespace.
    fn process(&self, name: &str) -> Pages {
        process(name, self.gate.clone(), |pages| pages)
    }

    /// Returns another process, whose commands no gate holds up.
    fn bystander(&self, name: &str) -> Pages {
        process(name, self.gate.ungated(), |pages| pages)
    }

    /// Returns what drops every item.
    fn flusher(&self) -> impl Fn() + Send + 'static {
        let memory = self.memory.clone();
        #[cfg(feature = "memcached")]
        let servers: Vec<_> = self.servers.iter().map(crate::support::memcached::Server::addr).collect();
        move || {
            memory.iter().for_each(InMemoryRemote::flush);
            #[cfg(feature = "memcached")]
            for &server in &servers {
                assert_eq!(crate::support::memcached::ask(server, "flush_all").unwrap().trim(), "OK");
            }
        }
    }
}

/// Returns a namespace that looks at the journal when a test says so, or a load has to, and otherwise only once: by now.
fn namespace(name: &str, gate: Gate) -> Namespace {
    let look = gate.next_look();
    settled(Namespace::builder(name, gate).poll_interval(HOUR).trust(YEARS), look)
}

/// Builds a namespace whose first look at the journal is over.
fn settled(builder: NamespaceBuilder, look: NextLook) -> Namespace {
    // No outcome but of outages depends on the limit.
    let namespace = builder.version("1").timeout(Duration::from_secs(20)).build().unwrap();
    // What the thread that follows the journal reads later would be news of what the test has done.
    look.wait();
    eventually("the journal", || {
        namespace.poll_now().unwrap();
        (!namespace.health().trust_left.is_zero()).then_some(())
    });
    namespace
}

fn process(
    name: &str,
    gate: Gate,
    set: impl FnOnce(TieredCacheBuilder<String, String>) -> TieredCacheBuilder<String, String>,
) -> Pages {
    pages(&namespace(name, gate), set)
}

fn pages(
    namespace: &Namespace,
    set: impl FnOnce(TieredCacheBuilder<String, String>) -> TieredCacheBuilder<String, String>,
) -> Pages {
    let builder = TieredCache::builder(namespace, "pages").capacity(1_000).soft_ttl(HOUR).codec(RawBytes);
    set(builder).build().unwrap()
}

/// Loads `value` where there is none, in the groups.
fn load(pages: &Pages, key: &str, value: &str, groups: &[&str]) -> String {
    let loaded = pages.get_or_load(key, |load| {
        load.groups(groups);
        Ok::<_, Infallible>(value.to_owned())
    });
    loaded.unwrap()
}

fn own(text: &str) -> String {
    text.to_owned()
}
