//! What is cached: a record that says of itself whether it is right.

use serde::{Deserialize, Serialize};

/// How many neighbouring records make up a group.
pub(crate) const GROUP_SIZE: u32 = 32;

/// How long a record's text is: so short that every trace in reach fits the 64 MiB of `InMemoryRemote`.
const TEXT_LEN: usize = 64;

/// A record as the source had it at some moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: String,
    /// Which state of the record this is: the source counts every change, of the record alone or of its group.
    pub(crate) version: u64,
    /// Follows from key and version, so that damage shows.
    pub(crate) text: String,
}

impl Record {
    pub(crate) fn new(key: &str, version: u64) -> Record {
        let text = format!("{key} v{version} ").chars().cycle().take(TEXT_LEN).collect();
        Record { key: key.to_owned(), version, text }
    }

    /// Returns what is wrong with this record as an answer to a read of `key`, if anything is.
    ///
    /// `least` is the version before which the reader's own process had changed the record, and been told that the cache knows;
    /// `most` is the source's version after the read.
    pub(crate) fn flaw(&self, key: &str, least: u64, most: u64) -> Option<String> {
        let Record { key: found, version, .. } = self;
        let flaw = if found != key {
            format!("is the record of {found}")
        } else if *self != Record::new(key, *version) {
            format!("is damaged: {self:?}")
        } else if *version > most {
            format!("has version {version}, and the source has only {most}")
        } else if *version < least {
            format!("has version {version}, though this worker's change to {least} was complete before the read")
        } else {
            return None;
        };
        Some(format!("the answer for {key} {flaw}"))
    }
}

/// Returns the group of a record.
pub(crate) fn group_of(record: u32) -> u32 {
    record / GROUP_SIZE
}

/// Returns the name of a group in larder.
pub(crate) fn group_name(record: u32) -> String {
    format!("group:{}", group_of(record))
}
