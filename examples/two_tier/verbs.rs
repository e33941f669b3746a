//! What a worker does for one request.

use std::sync::PoisonError;
use std::time::Instant;

use larder::EntryOptions;

use crate::job::Failure;
use crate::ledger::Ledger;
use crate::record::{GROUP_SIZE, Record, group_name, group_of};
use crate::sabotage::Sabotage;
use crate::tally::Tally;
use crate::worker::Worker;

impl Worker<'_> {
    pub(crate) fn read(&self, record: u32, ledger: &Ledger, tally: &mut Tally) -> Result<(), Failure> {
        let key = self.workload.keys[record as usize].as_str();
        let floor = self.floors[record as usize].before_read(self.job.workers);
        let loads_before = self.source.loads_ended(record);
        let was_local = self.cache.local().peek(key).is_some();
        let mut loaded = false;

        let start = Instant::now();
        let answer = self.cache.get_or_load(key, |load| {
            loaded = true;
            load.groups([group_name(record)]);
            self.source.load(record, key, ledger)
        });
        let took = start.elapsed();

        let answer = answer.map_err(|error| format!("reading {key} failed: {error}"))?;
        tally.loads += u64::from(loaded);
        // Who had no value at first and waited for another thread's load was answered by the loader, too.
        let latencies = match () {
            () if loaded => &mut tally.loader,
            () if was_local => &mut tally.local,
            () if self.source.loads_ended(record) != loads_before => &mut tally.loader,
            () => &mut tally.remote,
        };
        latencies.record(took);

        let latest = ledger.version(record)?;
        match answer.flaw(key, floor.least, latest) {
            Some(flaw) => tally.wrong(flaw),
            None if answer.version < floor.bumped => tally.overtaken += 1,
            // A local tier learns of another process's change by the deadline, so this is no fault; nor is an answer that was
            // overtaken on its way by a change in this process.
            None if answer.version < latest && !self.changes(record) => tally.outdated += 1,
            None => {}
        }
        Ok(())
    }

    /// Changes one record in the source, and writes it to both tiers.
    pub(crate) fn write(&self, record: u32, ledger: &Ledger, tally: &mut Tally) -> Result<(), Failure> {
        let _turn = self.turns[group_of(record) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let key = &self.workload.keys[record as usize];
        let version = ledger.change(record..record + 1)?[0];
        let options = EntryOptions::new().groups([group_name(record)]);
        let written = self.cache.insert_with(key.clone(), Record::new(key, version), options);
        // Otherwise the remote tier may have it or not, and nothing is promised to others.
        if written.is_through() {
            ledger.acknowledge(record, version)?;
            tally.writes_acknowledged += 1;
        }
        tally.writes += 1;
        self.floors[record as usize].written(version);
        Ok(())
    }

    /// Changes all records of one group in the source, and invalidates it.
    pub(crate) fn bump_group(&self, record: u32, ledger: &Ledger, tally: &mut Tally) -> Result<(), Failure> {
        let _turn = self.turns[group_of(record) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let first = record - record % GROUP_SIZE;
        let last = (first + GROUP_SIZE).min(self.workload.keys.len() as u32);
        let versions = ledger.change(first..last)?;
        let forget = self.job.sabotage == Some(Sabotage::ForgottenBump);
        if !forget && self.cache.namespace().invalidate_group(&group_name(record)).is_acknowledged() {
            tally.bumps_acknowledged += 1;
        }
        tally.bumps += 1;
        (first..last).zip(versions).for_each(|(record, version)| self.floors[record as usize].bumped(version));
        Ok(())
    }

    /// Returns whether changes of this record are this worker's.
    fn changes(&self, record: u32) -> bool {
        group_of(record) as usize % self.job.workers == self.job.worker
    }
}
