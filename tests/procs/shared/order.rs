//! What a worker is told on its standard input, and what it says on its standard output: a line of JSON each.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::notes::{BumpNote, ReaderNotes};

/// How a worker is set up: its one argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub memcached: String,
    pub namespace: String,
    pub version: String,
    /// Where the truth is.
    pub folder: PathBuf,
    /// How long one exchange with memcached may take.
    pub timeout: Duration,
    pub poll_interval: Duration,
    pub trust: Duration,
    pub lease: Duration,
}

/// An order, or a report on it, with the number of the order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered<T> {
    pub number: u64,
    pub what: T,
}

/// The caches that a worker has, of several types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shelf {
    /// Strings by strings, as raw bytes.
    Texts,
    /// As `Texts`, by another name.
    Notes,
    /// Numbers by numbers, by Postcard. They are written out in orders and reports.
    Numbers,
}

/// What a load does between its beginning and its end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Loading {
    Takes(Duration),
    /// It waits for [`Order::Finish`].
    UntilTold,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Reads from the local tier alone. Answer: `Value`.
    Local { shelf: Shelf, key: String },
    /// Reads from both tiers. Answer: `Value`.
    Get { shelf: Shelf, key: String },
    /// Answer: `Done`, once the value is in both tiers.
    Insert { shelf: Shelf, key: String, value: String },
    /// Answer: `Done`, once acknowledged.
    Remove { shelf: Shelf, key: String },
    /// Makes a key stale. Answer: `Done`, once acknowledged.
    Expire { shelf: Shelf, key: String },
    /// Answer: `Done`, once acknowledged.
    Clear { shelf: Shelf },
    /// Has many callers ask for one key at one moment, with a loader that brings `value`. Answers: `Began` if a load begins
    /// here, and `Loaded`.
    Load { shelf: Shelf, key: String, value: String, callers: usize, at_ns: u64, loading: Loading },
    /// Ends the load of the order with this number. Answer: `Done`.
    Finish { load: u64 },
    /// Bumps random groups. Answer: `Bumped`, once all are acknowledged or that took too long.
    Bump { bumper: usize, bumps: usize, pause: Duration },
    /// Reads all groups again and again. Answers: `Began` and, after `Stop`, `Seen`.
    Read,
    /// Ends all reading. Answer: `Done`.
    Stop,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    Began,
    Done,
    Value(Option<String>),
    Loaded(Vec<Loaded>),
    Bumped(Vec<BumpNote>),
    Seen(ReaderNotes),
    /// The worker could not do it, and why.
    Failed(String),
}

/// What one caller of a load got.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loaded {
    pub value: String,
    pub took: Duration,
}
