//! What a worker counts and measures; adds up over threads and workers, and crosses between processes as JSON.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::latencies::Latencies;

/// So many wrong values are kept word by word; the others are counted.
const EXAMPLES: usize = 3;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Reads by what answered them.
    pub(crate) local: Latencies,
    pub(crate) remote: Latencies,
    pub(crate) loader: Latencies,
    pub(crate) writes: u64,
    pub(crate) writes_acknowledged: u64,
    pub(crate) bumps: u64,
    pub(crate) bumps_acknowledged: u64,
    /// Entries that left a local tier because their group was invalidated.
    pub(crate) invalidated: u64,
    pub(crate) remote_errors: u64,
    /// Exchanges with the remote tier, and the commands that they carried.
    pub(crate) exchanges: u64,
    pub(crate) commands: u64,
    /// How often local tiers were given up because the journal could not say what they had missed, but for the start of each.
    pub(crate) resyncs: u64,
    pub(crate) wrong: u64,
    pub(crate) wrong_examples: Vec<String>,
    pub(crate) history: History,
}

impl Tally {
    pub(crate) fn reads(&self) -> u64 {
        self.local.count() + self.remote.count() + self.loader.count()
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.wrong += 1;
        self.wrong_examples.push(what);
        self.wrong_examples.truncate(EXAMPLES);
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.local += other.local;
        self.remote += other.remote;
        self.loader += other.loader;
        self.writes += other.writes;
        self.writes_acknowledged += other.writes_acknowledged;
        self.bumps += other.bumps;
        self.bumps_acknowledged += other.bumps_acknowledged;
        self.invalidated += other.invalidated;
        self.remote_errors += other.remote_errors;
        self.exchanges += other.exchanges;
        self.commands += other.commands;
        self.resyncs += other.resyncs;
        self.wrong += other.wrong;
        self.wrong_examples.extend(other.wrong_examples);
        self.wrong_examples.truncate(EXAMPLES);
        self.history += other.history;
    }
}
