//! What bumpers and readers write down, for a verdict afterwards. All times are nanoseconds of [`now_ns`](crate::clock).

use serde::{Deserialize, Serialize};

use crate::truth::Versions;

/// One bump of a group.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BumpNote {
    pub group: u32,
    /// The bumper's own count of its changes of the group: the source had it before the bump began.
    pub version: u64,
    pub began_ns: u64,
    pub returned_ns: u64,
    /// When the remote tier had acknowledged it, as the bumper learned.
    pub acknowledged_ns: Option<u64>,
    /// The version that the bumper itself read right after the bump had returned, if it read any.
    pub own_read: Option<u64>,
}

/// By which verb a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// The local tier alone.
    Local,
    Get,
    GetOrLoad,
}

/// What one thread of a reader saw of a group, reading again and again: the same versions, from `first_ns` to `last_ns`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sighting {
    pub group: u32,
    pub versions: Versions,
    pub verb: Verb,
    /// When the first of these reads began, and when the last one did.
    pub first_ns: u64,
    pub last_ns: u64,
}

/// A time in which a thread that others depend on did not run for want of a processor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Stall {
    pub from_ns: u64,
    pub to_ns: u64,
}

/// All that a reader wrote down.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReaderNotes {
    pub sightings: Vec<Sighting>,
    pub stalls: Vec<Stall>,
    pub reads: u64,
    /// What loads failed by, other than their loader.
    pub errors: Vec<String>,
}
