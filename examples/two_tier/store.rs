//! The remote tier of a run: which one, and whether it can have dropped anything for want of room.

use std::time::Duration;

use larder::{Action, Command, Expiry, InMemoryRemote, Memcached, RemoteTier, Reply, Route, SetMode, WireKey};

use crate::job::{Failure, Job, Records};
use crate::options::Options;
use crate::server::{Server, stat};

pub(crate) enum Store {
    /// Workers are processes.
    Memcached { address: String, own: Option<Server>, evictions_before: u64 },
    /// Workers are threads, for want of a memcached, if there is a reason given.
    InMemory { store: InMemoryRemote, oldest: WireKey, because: Option<String> },
}

impl Store {
    pub(crate) fn choose(options: &Options) -> Result<Store, Failure> {
        if let Some(address) = options.memcached.clone() {
            Memcached::connect(&address).map_err(|error| {
                format!("the memcached of --memcached {address} cannot be used: {error}; start one there, or leave the option out")
            })?;
            let evictions_before = stat(&address, "evictions")?;
            return Ok(Store::Memcached { address, own: None, evictions_before });
        }
        if options.in_memory {
            return Store::in_memory(None);
        }
        match Server::start() {
            Ok(server) => {
                Ok(Store::Memcached { address: server.address.clone(), own: Some(server), evictions_before: 0 })
            }
            Err(reason) => Store::in_memory(Some(reason)),
        }
    }

    fn in_memory(because: Option<String>) -> Result<Store, Failure> {
        let (store, oldest) = (InMemoryRemote::new(), WireKey::new("oldest")?);
        // It drops its oldest writes first: while this one is there, all others are.
        let set = Action::Set { value: b"", expiry: Expiry::Never, mode: SetMode::Always, cas: None };
        run(&store, &oldest, set)?;
        Ok(Store::InMemory { store, oldest, because })
    }

    /// Returns whether the store may have dropped something for want of room, so that what is missing is not lost.
    pub(crate) fn has_evicted(&self) -> Result<bool, Failure> {
        match self {
            Store::Memcached { address, evictions_before, .. } => Ok(stat(address, "evictions")? > *evictions_before),
            Store::InMemory { store, oldest, .. } => {
                let get = Action::Get { value: false, lease: None, touch: None };
                Ok(matches!(run(store, oldest, get)?, Reply::Miss))
            }
        }
    }

    /// Returns a cache over the store with nothing in its local tier, as a process has that has just started.
    pub(crate) fn fresh_cache(&self, job: &Job) -> Result<Records, Failure> {
        match self {
            Store::Memcached { address, .. } => job.cache(Memcached::connect(address)?, 0),
            Store::InMemory { store, .. } => job.cache(store.clone(), 0),
        }
    }

    /// Returns where the memcached is, for worker processes.
    pub(crate) fn address(&self) -> &str {
        match self {
            Store::Memcached { address, .. } => address,
            Store::InMemory { .. } => "",
        }
    }

    pub(crate) fn describe(&self, workers: usize, threads: usize) -> String {
        let workers = |kind| format!("{workers} {kind}, {threads} threads in each");
        match self {
            Store::Memcached { address, own: Some(_), .. } => {
                format!("{}, on a memcached started for this run at {address}", workers("processes"))
            }
            Store::Memcached { address, .. } => format!("{}, on the memcached at {address}", workers("processes")),
            Store::InMemory { because: None, .. } => {
                format!("{}, on InMemoryRemote", workers("workers in this process"))
            }
            Store::InMemory { because: Some(reason), .. } => {
                format!("{reason}: {}, on InMemoryRemote", workers("workers in this process"))
            }
        }
    }
}

fn run(store: &InMemoryRemote, key: &WireKey, action: Action<'_>) -> Result<Reply, Failure> {
    let replies = store.run(&[Command { key, route: Route::ByKey, action }], Duration::from_secs(1));
    Ok(replies.into_iter().next().ok_or("InMemoryRemote left a command unanswered")??)
}
