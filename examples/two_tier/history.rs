//! What the workers did and when, as far as the promises between processes are judged by it after the run.
//!
//! No worker can judge these alone: it does not know when another was told that its change is through. So each writes down
//! its changes, its loads, and the answers that the source had overtaken when they came. Times are those of [`now_ns`](crate::clock).

use std::collections::HashMap;
use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::TRUST;
use crate::latencies::Latencies;

/// How long after its acknowledgement a change may be unknown to another worker: what is promised however busy the machine
/// is. The table shows how long it was.
pub(crate) const BOUND: Duration = TRUST;

/// A new version of a record in the source, and the write or the bump by which the cache was told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) record: u32,
    pub(crate) version: u64,
    pub(crate) began_ns: u64,
    pub(crate) ended_ns: u64,
    /// Whether the remote tier had carried it out by then. Otherwise nothing is promised to other workers.
    pub(crate) acknowledged: bool,
}

/// An answer that was older than the source right after it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Outdated {
    pub(crate) record: u32,
    pub(crate) version: u64,
    /// When the read began.
    pub(crate) began_ns: u64,
}

/// A load of a record, from when its loader was called until that returned.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) record: u32,
    pub(crate) began_ns: u64,
    pub(crate) ended_ns: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) changes: Vec<Change>,
    pub(crate) outdated: Vec<Outdated>,
    pub(crate) loads: Vec<Load>,
}

impl AddAssign for History {
    fn add_assign(&mut self, other: History) {
        self.changes.extend(other.changes);
        self.outdated.extend(other.outdated);
        self.loads.extend(other.loads);
    }
}

/// What follows from the history of all workers together.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Of each answer that was older than an acknowledged change: how long after the acknowledgement its read began.
    pub(crate) lags: Latencies,
    /// How many of them began after the bound.
    pub(crate) late: u64,
    pub(crate) latest: Option<(Outdated, Change)>,
    /// Loads that began while another of their record ran.
    pub(crate) beside: u64,
    /// Those of them that began beside one which no change can have fenced.
    pub(crate) overlapping: u64,
}

impl Judgement {
    pub(crate) fn of(history: &History) -> Judgement {
        // One worker at a time changes a record, so that a later version was also made later.
        let changes = by_record(&history.changes, |change| (change.record, change.version));
        let changes_of = |record| changes.get(&record).map_or(&[][..], Vec::as_slice);
        let mut judgement = Judgement::default();
        for answer in &history.outdated {
            let changes = changes_of(answer.record);
            let newer = &changes[changes.partition_point(|change| change.version <= answer.version)..];
            // The others had not ended when the read began: they overtook the answer on its way.
            if let Some(missed) = newer.iter().find(|change| change.acknowledged)
                && missed.ended_ns < answer.began_ns
            {
                judgement.note_lag(*answer, *missed);
            }
        }
        for (record, loads) in by_record(&history.loads, |load| (load.record, load.began_ns)) {
            judgement.count_overlaps(&loads, changes_of(record));
        }
        judgement
    }

    /// Counts those of a record's loads that began while others ran.
    fn count_overlaps(&mut self, loads: &[Load], changes: &[Change]) {
        let mut running = Vec::<Load>::new();
        for load in loads {
            running.retain(|other| other.ended_ns > load.began_ns);
            let mut unfenced = running.iter().filter(|other| !may_be_fenced(other, load.began_ns, changes));
            self.overlapping += u64::from(unfenced.next().is_some());
            self.beside += u64::from(!running.is_empty());
            running.push(*load);
        }
    }

    fn note_lag(&mut self, answer: Outdated, missed: Change) {
        let lag = Judgement::lag(answer, missed);
        self.lags.record(lag);
        if lag > BOUND {
            self.late += 1;
            if self.latest.is_none_or(|(latest, of)| Judgement::lag(latest, of) < lag) {
                self.latest = Some((answer, missed));
            }
        }
    }

    pub(crate) fn lag(answer: Outdated, missed: Change) -> Duration {
        Duration::from_nanos(answer.began_ns - missed.ended_ns)
    }
}

/// Returns whether one of the changes of its record can have fenced a load by `until_ns`. News of one that is complete reach a
/// worker within the bound, and fence there what began before they came.
fn may_be_fenced(load: &Load, until_ns: u64, changes: &[Change]) -> bool {
    let bound_ns = BOUND.as_nanos() as u64;
    changes.iter().any(|change| change.began_ns <= until_ns && change.ended_ns + bound_ns >= load.began_ns)
}

/// Returns what `place` puts under each record, in the order of its second part.
fn by_record<T: Copy>(all: &[T], place: impl Fn(&T) -> (u32, u64)) -> HashMap<u32, Vec<T>> {
    let mut by_record = HashMap::<u32, Vec<T>>::new();
    for one in all {
        by_record.entry(place(one).0).or_default().push(*one);
    }
    by_record.values_mut().for_each(|of_record| of_record.sort_unstable_by_key(|one| place(one).1));
    by_record
}
