//! What a run brought, and whether it passed.

use std::time::Duration;

use crate::audit::Audit;
use crate::job::Failure;
use crate::tally::Tally;

/// All that a run brought.
pub(crate) struct Report<'a> {
    pub(crate) tally: &'a Tally,
    pub(crate) distinct: usize,
    pub(crate) failed: &'a [(usize, Failure)],
    pub(crate) audit: &'a Result<Audit, Failure>,
    pub(crate) took: Duration,
}

impl Report<'_> {
    /// Returns what the run failed by; it passed if that is nothing.
    pub(crate) fn faults(&self) -> Vec<String> {
        let Report { tally, failed, audit, .. } = self;
        let mut faults = Vec::new();
        if tally.wrong > 0 {
            faults.push(format!("{} wrong values, such as: {}", tally.wrong, tally.wrong_examples.join("; ")));
        }
        faults.extend(failed.iter().map(|(worker, why)| format!("worker {worker} failed: {why}")));
        match audit {
            Ok(Audit { lost: 0, .. }) => {}
            Ok(Audit { lost, first_lost, .. }) => {
                faults.push(format!("{lost} lost writes, such as: {}", first_lost.as_deref().unwrap_or_default()));
            }
            Err(error) => faults.push(format!("acknowledged writes could not be looked for: {error}")),
        }
        faults
    }
}
