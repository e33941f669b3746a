//! What a worker is told, and the cache that it makes of it.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use larder::{Announce, Namespace, Postcard, RemoteTier, TieredCache};
use serde::{Deserialize, Serialize};

use crate::record::Record;
use crate::sabotage::Sabotage;

pub(crate) type Records = TieredCache<String, Record>;
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// How many records each worker's local tier holds.
pub(crate) const LOCAL_CAPACITY: u64 = 10_000;

/// Long enough that a lookup succeeds on a machine with many more threads than cores.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker serves its local tier after it last heard of other workers' changes: larder's own default.
pub(crate) const TRUST: Duration = Duration::from_millis(500);

/// The soft deadline: long runs see refreshes. The hard one is eight times as long, which no run reaches.
const SOFT_TTL: Duration = Duration::from_secs(60);

/// One worker's part of a run. Crosses to a worker process as JSON, on its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Which of the workers this is, from 0.
    pub(crate) worker: usize,
    pub(crate) workers: usize,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    /// A new one for every run, so that runs against one memcached do not meet.
    pub(crate) namespace: String,
    /// Where `keys` and `ledger` are.
    pub(crate) folder: PathBuf,
    /// Where the memcached is; unused by threads.
    pub(crate) memcached: String,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Job {
    pub(crate) fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.join("ledger")
    }

    /// Returns the cache over `tier`, with a local tier of this capacity.
    pub(crate) fn cache(&self, tier: impl RemoteTier, capacity: u64) -> Result<Records, Failure> {
        let mut namespace = Namespace::builder(&self.namespace, tier).version("1").timeout(TIMEOUT).trust(TRUST);
        if self.sabotage == Some(Sabotage::UntoldWrites) {
            namespace = namespace.announce(Announce::Groups);
        }
        let records = TieredCache::builder(&namespace.build()?, "records").capacity(capacity).soft_ttl(SOFT_TTL);
        Ok(records.codec(Postcard).build()?)
    }
}
