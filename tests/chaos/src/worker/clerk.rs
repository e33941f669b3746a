//! What one thread saw of each group, in few records.

use std::time::Duration;

use shared::clock::{now_ns, ns};
use shared::truth::GROUPS;

use super::log::Log;
use crate::record::Record;

/// How long what was seen may wait to be written down.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Reads that returned the same version.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    version: u64,
    reads: u32,
    /// Of the read that had to know the most: until when it had to, and when it began.
    known_ns: u64,
    began_ns: u64,
}

#[derive(Debug)]
pub(super) struct Clerk {
    seen: [Option<Sighting>; GROUPS as usize],
    flush_at_ns: u64,
}

impl Clerk {
    pub(super) fn new() -> Clerk {
        Clerk { seen: [None; GROUPS as usize], flush_at_ns: 0 }
    }

    /// Takes note of a read. Of those that returned the same version, the one that had to know the most is the one that tells.
    pub(super) fn see(&mut self, log: &Log, group: u32, version: u64, (known_ns, began_ns): (u64, u64)) {
        let place = &mut self.seen[group as usize];
        match place {
            Some(seen) if seen.version == version => {
                seen.reads += 1;
                if known_ns > seen.known_ns {
                    (seen.known_ns, seen.began_ns) = (known_ns, began_ns);
                }
            }
            _ => {
                let before = place.replace(Sighting { version, reads: 1, known_ns, began_ns });
                write(log, group, before);
            }
        }
        if now_ns() > self.flush_at_ns {
            self.flush(log);
        }
    }

    /// Writes down what was seen.
    pub(super) fn flush(&mut self, log: &Log) {
        self.flush_at_ns = now_ns() + ns(FLUSH_EVERY);
        for (group, place) in (0..).zip(&mut self.seen) {
            write(log, group, place.take());
        }
    }
}

fn write(log: &Log, group: u32, seen: Option<Sighting>) {
    if let Some(Sighting { version, reads, known_ns, began_ns }) = seen {
        log.note(Record::Seen { group: group as u16, reads, version, known_ns, began_ns });
    }
}
