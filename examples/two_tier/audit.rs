//! Looks for lost writes after a run.

use crate::job::{Failure, Job};
use crate::ledger::Ledger;
use crate::record::Record;
use crate::sabotage::Sabotage;
use crate::store::Store;
use crate::workload::Workload;

/// How many records are read at once.
const BATCH: usize = 200;

/// What became of the writes that were acknowledged, and neither overwritten nor invalidated since.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) found: u64,
    /// Whether the store may have dropped something for want of room: a cache may do that.
    pub(crate) may_be_missing: bool,
    /// Missing, from such a store.
    pub(crate) evicted: u64,
    pub(crate) lost: u64,
    pub(crate) first_lost: Option<String>,
}

/// Reads every record back whose last change was a write that its worker was told is `Write::Through`.
///
/// A later version than the written one is right as well: the worker then made another change that was not acknowledged. A
/// write that is missing is lost unless the store says that it evicts; one in whose place there is an older version is lost
/// whatever the store says.
pub(crate) fn audit(job: &Job, store: &Store, workload: &Workload) -> Result<Audit, Failure> {
    let cache = store.fresh_cache(job)?;
    if job.sabotage == Some(Sabotage::LostWrite) && !cache.clear().is_acknowledged() {
        return Err("the sabotage failed".into());
    }
    let rows = Ledger::open(&job.ledger())?.rows(0..workload.keys.len() as u32)?;
    let written: Vec<_> = workload.keys.iter().zip(rows).filter(|(_, row)| row.acknowledged > 0).collect();
    let mut audit = Audit { may_be_missing: store.has_evicted()?, ..Audit::default() };
    for batch in written.chunks(BATCH) {
        for ((key, row), answer) in batch.iter().zip(cache.get_many(batch.iter().map(|(key, _)| key.as_str()))) {
            let flaw = answer.as_ref().map(|answer: &Record| answer.flaw(key, row.acknowledged, row.version));
            match flaw {
                Some(None) => audit.found += 1,
                None if audit.may_be_missing => audit.evicted += 1,
                missing_or_flawed => {
                    audit.lost += 1;
                    let what = missing_or_flawed.flatten().unwrap_or_else(|| format!("{key} is missing"));
                    audit.first_lost.get_or_insert(what);
                }
            }
        }
    }
    let errors = cache.remote_stats().errors;
    if errors > 0 {
        // What they asked for may be there or not: neither found, nor evicted, nor lost.
        return Err(format!("{errors} reads of the remote tier failed").into());
    }
    Ok(audit)
}
