//! The slow source that records are loaded from.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::record::Record;
use crate::sabotage::Sabotage;

/// How long a load takes at least and at most, in microseconds.
pub(crate) const LOAD_US: (u64, u64) = (2_000, 4_000);

pub(crate) struct Source {
    /// By record: how many loads of it have ended in this process.
    ended: Vec<AtomicU32>,
    sabotage: Option<Sabotage>,
}

impl Source {
    pub(crate) fn new(records: usize, sabotage: Option<Sabotage>) -> Source {
        Source { ended: (0..records).map(|_| AtomicU32::new(0)).collect(), sabotage }
    }

    /// Returns the record as it is when the call begins: whatever changes before it returns makes the result out of date.
    pub(crate) fn load(&self, record: u32, key: &str, ledger: &Ledger) -> io::Result<Record> {
        let loaded = ledger.version(record).map(|version| Record::new(key, version));
        thread::sleep(Duration::from_micros(fastrand::u64(LOAD_US.0..=LOAD_US.1)));
        // Release pairs with the Acquire in `loads_ended`: a caller that waited for this load sees that it ended.
        self.ended[record as usize].fetch_add(1, Ordering::Release);
        let loaded = loaded?;
        Ok(match self.sabotage {
            Some(sabotage) => sabotage.distort(loaded),
            None => loaded,
        })
    }

    pub(crate) fn loads_ended(&self, record: u32) -> u32 {
        self.ended[record as usize].load(Ordering::Acquire)
    }
}
