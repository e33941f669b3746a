//! What a worker does for one request.

use std::sync::PoisonError;
use std::time::Instant;

use larder::EntryOptions;

use crate::clock::now_ns;
use crate::history::{Change, Load, Outdated};
use crate::job::Failure;
use crate::ledger::Ledger;
use crate::record::{GROUP_SIZE, Record, group_name, group_of};
use crate::sabotage::Sabotage;
use crate::tally::Tally;
use crate::worker::Worker;

impl Worker<'_> {
    pub(crate) fn read(&self, record: u32, ledger: &Ledger, tally: &mut Tally) -> Result<(), Failure> {
        let key = self.workload.keys[record as usize].as_str();
        let floor = self.floors.before_read(record);
        let loads_before = self.source.loads_ended(record);
        let was_local = self.cache.local().peek(key).is_some();
        let mut loaded = None;

        let (start, began_ns) = (Instant::now(), now_ns());
        let mut load = || {
            let began_ns = now_ns();
            let answer = self.source.load(record, key, ledger);
            loaded = Some(Load { record, began_ns, ended_ns: now_ns() });
            answer
        };
        let answer = if self.job.sabotage == Some(Sabotage::UnsharedLoads) {
            load().map_err(|error| error.to_string())
        } else {
            let answer = self.cache.get_or_load(key, |settings| {
                settings.groups([group_name(record)]);
                load()
            });
            answer.map_err(|error| error.to_string())
        };
        let took = start.elapsed();

        let answer = answer.map_err(|error| format!("reading {key} failed: {error}"))?;
        // Who had no value at first and waited for another thread's load was answered by the loader, too.
        let latencies = match () {
            () if loaded.is_some() => &mut tally.loader,
            () if was_local => &mut tally.local,
            () if self.source.loads_ended(record) != loads_before => &mut tally.loader,
            () => &mut tally.remote,
        };
        latencies.record(took);
        tally.history.loads.extend(loaded);

        let latest = ledger.version(record)?;
        match answer.flaw(key, floor, latest) {
            Some(flaw) => tally.wrong(flaw),
            // Overtaken on its way, or since not so long that this worker had to know of it, or wrong: see `history`.
            None if answer.version < latest => {
                tally.history.outdated.push(Outdated { record, version: answer.version, began_ns });
            }
            None => {}
        }
        Ok(())
    }

    /// Changes one record in the source, and writes it to both tiers.
    pub(crate) fn write(&self, record: u32, ledger: &Ledger, tally: &mut Tally) -> Result<(), Failure> {
        let turn = self.turns[group_of(record) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let key = &self.workload.keys[record as usize];
        let version = ledger.change(record..record + 1)?[0];
        let began_ns = now_ns();
        let options = EntryOptions::new().groups([group_name(record)]);
        let written = self.cache.insert_with(key.clone(), Record::new(key, version), options);
        let acknowledged = written.is_through();
        self.complete([Change { record, version, began_ns, ended_ns: now_ns(), acknowledged }], tally);
        if acknowledged && !turn.may_overtake(began_ns) {
            ledger.acknowledge(record, version)?;
        }
        tally.writes_acknowledged += u64::from(acknowledged);
        tally.writes += 1;
        Ok(())
    }

    /// Changes all records of one group in the source, and invalidates it.
    pub(crate) fn bump_group(&self, record: u32, ledger: &Ledger, tally: &mut Tally) -> Result<(), Failure> {
        let mut turn = self.turns[group_of(record) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let first = record - record % GROUP_SIZE;
        let last = (first + GROUP_SIZE).min(self.workload.keys.len() as u32);
        let versions = ledger.change(first..last)?;
        let began_ns = now_ns();
        let forget = self.job.sabotage == Some(Sabotage::ForgottenBump);
        let acknowledged = !forget && self.cache.namespace().invalidate_group(&group_name(record)).is_acknowledged();
        let ended_ns = now_ns();
        turn.bumped_ns = ended_ns;
        let change = |(record, version)| Change { record, version, began_ns, ended_ns, acknowledged };
        self.complete((first..last).zip(versions).map(change), tally);
        tally.bumps_acknowledged += u64::from(acknowledged);
        tally.bumps += 1;
        Ok(())
    }

    fn complete(&self, changes: impl IntoIterator<Item = Change>, tally: &mut Tally) {
        for change in changes {
            self.floors.raise(change.record, change.version);
            tally.history.changes.push(change);
        }
    }
}
