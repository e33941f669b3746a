//! What a run brought, and whether it passed.

use std::time::Duration;

use crate::audit::Audit;
use crate::history::Judgement;
use crate::job::Failure;
use crate::tally::Tally;

/// All that a run brought.
pub(crate) struct Report<'a> {
    pub(crate) tally: &'a Tally,
    pub(crate) judgement: &'a Judgement,
    pub(crate) keys: &'a [String],
    pub(crate) failed: &'a [(usize, Failure)],
    pub(crate) audit: &'a Result<Audit, Failure>,
    pub(crate) took: Duration,
}

impl Report<'_> {
    /// Returns what the run failed by; it passed if that is nothing.
    pub(crate) fn faults(&self) -> Vec<String> {
        let Report { tally, judgement, keys, failed, audit, .. } = self;
        let mut faults = Vec::new();
        if tally.wrong > 0 {
            faults.push(format!("{} wrong values, such as: {}", tally.wrong, tally.wrong_examples.join("; ")));
        }
        if let Some((answer, missed)) = judgement.latest {
            faults.push(format!(
                "{} answers that another worker's change had made wrong too long before, such as: {} in version {}, {:.1?} after \
                 version {} was acknowledged",
                judgement.late,
                keys[answer.record as usize],
                answer.version,
                Judgement::lag(answer, missed),
                missed.version
            ));
        }
        faults.extend(failed.iter().map(|(worker, why)| format!("worker {worker} failed: {why}")));
        match audit {
            Ok(Audit { lost: 0, .. }) => {}
            Ok(Audit { lost, first_lost, .. }) => {
                faults.push(format!("{lost} lost writes, such as: {}", first_lost.as_deref().unwrap_or_default()));
            }
            Err(error) => faults.push(format!("acknowledged writes could not be looked for: {error}")),
        }
        if judgement.overlapping > 0 && self.is_undisturbed() {
            faults.push(format!(
                "{} loads beside another of their record that nothing had fenced",
                judgement.overlapping
            ));
        }
        faults
    }

    /// Returns whether the remote tier answered all the time, and neither a lease nor the journal can have been lost. Only
    /// then is one load of a record at a time promised.
    fn is_undisturbed(&self) -> bool {
        let Report { tally, audit, .. } = self;
        tally.remote_errors == 0 && tally.resyncs == 0 && audit.as_ref().is_ok_and(|audit| !audit.may_be_missing)
    }
}
