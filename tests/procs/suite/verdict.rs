//! Whether every answer of a run was in time.
//!
//! A change counts from when its bump, or a later one of the same bumper and group, was acknowledged. A read that began
//! later than the bound after that, and returned an older version, is a violation. A bumper's own reads have no bound.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use shared::notes::{BumpNote, ReaderNotes, Sighting, Stall};

use crate::history::History;

/// So many violations are told with their history.
const TOLD: usize = 2;

/// How long after its acknowledgement a bump may be unknown.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// However busy the machine.
    Always(Duration),
    /// While reader and memcached get a processor: longer by the time that one of them had none.
    WhenAwake(Duration),
}

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// For every bump and every reader, how long after the acknowledgement a read began that did not know of it yet, in order.
    lags: Vec<Duration>,
    bumps: usize,
    pending: usize,
    reads: u64,
    stalled: Duration,
    longest_stall: Duration,
    pub(crate) violations: usize,
    /// Which processes they are of.
    pub(crate) violators: BTreeSet<String>,
    told: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(history: &History, bound: Bound) -> Verdict {
        let mut verdict = Verdict::default();
        for (bumper, bumps) in history.bumps.iter().enumerate() {
            verdict.judge_own_reads(history, bumper, bumps);
            let known = known_from(bumps);
            for (reader, notes) in history.readers.iter().enumerate() {
                verdict.judge_reader(history, bumper, &known, (reader, notes), bound);
            }
        }
        for stall in history.readers.iter().flat_map(|notes| &notes.stalls) {
            let took = Duration::from_nanos(stall.to_ns - stall.from_ns);
            verdict.stalled += took;
            verdict.longest_stall = verdict.longest_stall.max(took);
        }
        verdict.reads = history.readers.iter().map(|notes| notes.reads).sum();
        verdict.lags.sort();
        verdict
    }

    fn judge_own_reads(&mut self, history: &History, bumper: usize, bumps: &[BumpNote]) {
        for bump in bumps {
            self.bumps += 1;
            self.pending += usize::from(bump.acknowledged_ns != Some(bump.returned_ns));
            if let Some(read) = bump.own_read.filter(|read| *read < bump.version) {
                let what = format!("itself read version {read} after its bump for {}", bump.version);
                let when = (bump.returned_ns, bump.returned_ns);
                self.violation(history, &format!("bumper {bumper}"), bump.group, when, &what);
            }
        }
    }

    fn judge_reader(
        &mut self,
        history: &History,
        bumper: usize,
        known: &HashMap<u32, Vec<Known>>,
        (reader, notes): (usize, &ReaderNotes),
        bound: Bound,
    ) {
        let mut seen = HashMap::<u32, Vec<(u64, u64)>>::new();
        for Sighting { group, versions, last_ns, .. } in &notes.sightings {
            seen.entry(*group).or_default().push((versions.0[bumper], *last_ns));
        }
        for (&group, known) in known {
            let mut older = seen.remove(&group).unwrap_or_default();
            older.sort_unstable();
            let (mut older, mut last_ns) = (older.into_iter().peekable(), 0);
            for Known { version, from_ns } in known.iter().rev() {
                while let Some((_, seen_ns)) = older.next_if(|(seen, _)| seen < version) {
                    last_ns = last_ns.max(seen_ns);
                }
                let lag = Duration::from_nanos(last_ns.saturating_sub(*from_ns));
                self.lags.push(lag);
                let allowed = match bound {
                    Bound::Always(time) => time,
                    Bound::WhenAwake(time) => time + asleep(&notes.stalls, *from_ns, last_ns),
                };
                if lag > allowed {
                    let what = format!(
                        "read something older than version {version} of bumper {bumper} \
                         {lag:?} after its acknowledgement, and {allowed:?} is allowed"
                    );
                    self.violation(history, &format!("reader {reader}"), group, (*from_ns, last_ns), &what);
                }
            }
        }
    }

    fn violation(&mut self, history: &History, who: &str, group: u32, (from_ns, until_ns): (u64, u64), what: &str) {
        self.violators.insert(who.to_owned());
        self.violations += 1;
        if self.told.len() < TOLD {
            self.told.push(format!("group {group}: {who} {what}\n{}", history.tell(group, from_ns, until_ns)));
        }
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.lags.get(self.lags.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { bumps, pending, reads, stalled, longest_stall, violations, .. } = self;
        let unseen = self.lags.iter().filter(|lag| lag.is_zero()).count() * 100 / self.lags.len().max(1);
        write!(
            f,
            "{bumps} bumps, {pending} of them pending at first; {reads} reads, stalled for {stalled:.1?} in all, \
             {longest_stall:.1?} at most\n\
             until a reader stopped: p50 {:.1?}, p99 {:.1?}, max {:.1?}; at once {unseen} %; violations: {violations}",
            self.percentile(50),
            self.percentile(99),
            self.percentile(100),
        )?;
        self.told.iter().try_for_each(|told| write!(f, "\n{told}"))
    }
}

/// From when on everybody has to know of a version.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    version: u64,
    from_ns: u64,
}

/// Returns for each group what has to be known of it, the latest first, and from when: a later bump makes the same values dead.
fn known_from(bumps: &[BumpNote]) -> HashMap<u32, Vec<Known>> {
    let mut known = HashMap::<u32, Vec<Known>>::new();
    for bump in bumps.iter().rev() {
        let of_group = known.entry(bump.group).or_default();
        let later_ns = of_group.last().map(|known| known.from_ns);
        if let Some(from_ns) = bump.acknowledged_ns.into_iter().chain(later_ns).min() {
            of_group.push(Known { version: bump.version, from_ns });
        }
    }
    known
}

/// Returns how long of a time a process was stalled.
fn asleep(stalls: &[Stall], from_ns: u64, to_ns: u64) -> Duration {
    let within = |stall: &Stall| stall.to_ns.min(to_ns).saturating_sub(stall.from_ns.max(from_ns));
    Duration::from_nanos(stalls.iter().map(within).sum())
}

#[cfg(test)]
mod tests {
    use shared::notes::Verb;
    use shared::truth::Versions;

    use super::*;

    const MS: u64 = 1_000_000;
    const BOUND: Duration = Duration::from_millis(100);

    fn bump(version: u64, returned_ms: u64, acknowledged_ms: Option<u64>) -> BumpNote {
        BumpNote {
            group: 7,
            version,
            began_ns: (returned_ms - 1) * MS,
            returned_ns: returned_ms * MS,
            acknowledged_ns: acknowledged_ms.map(|ms| ms * MS),
            own_read: None,
        }
    }

    fn seen(version: u64, first_ms: u64, last_ms: u64) -> Sighting {
        let versions = Versions([version, 0]);
        Sighting { group: 7, versions, verb: Verb::Get, first_ns: first_ms * MS, last_ns: last_ms * MS }
    }

    fn verdict(bumps: Vec<BumpNote>, sightings: Vec<Sighting>, stalls: Vec<Stall>, bound: Bound) -> Verdict {
        let reader = ReaderNotes { sightings, stalls, ..ReaderNotes::default() };
        Verdict::of(&History { bumps: vec![bumps], readers: vec![reader], faults: Vec::new() }, bound)
    }

    #[test]
    fn a_read_of_an_old_version_after_the_bound_is_a_violation() {
        let bumps = || vec![bump(1, 1_000, Some(1_000))];
        let in_time = verdict(bumps(), vec![seen(0, 10, 1_100), seen(1, 1_001, 5_000)], vec![], Bound::Always(BOUND));
        assert_eq!((in_time.violations, in_time.percentile(100)), (0, BOUND));
        let late = verdict(bumps(), vec![seen(0, 10, 1_101)], vec![], Bound::Always(BOUND));
        assert_eq!(late.violations, 1);
        assert!(late.to_string().contains("bumper 0 knows acknowledged its bump for 1"), "{late}");
    }

    #[test]
    fn a_pending_bump_counts_from_its_acknowledgement_or_that_of_a_later_one() {
        let pending = verdict(vec![bump(1, 1_000, None)], vec![seen(0, 10, 9_000)], vec![], Bound::Always(BOUND));
        assert_eq!((pending.violations, pending.pending), (0, 1));
        let settled =
            verdict(vec![bump(1, 1_000, Some(3_000))], vec![seen(0, 10, 3_101)], vec![], Bound::Always(BOUND));
        assert_eq!(settled.violations, 1);
        let bumps = vec![bump(1, 1_000, Some(9_000)), bump(2, 2_000, Some(2_000))];
        let overtaken = verdict(bumps, vec![seen(0, 10, 2_101), seen(1, 10, 2_100)], vec![], Bound::Always(BOUND));
        assert_eq!(overtaken.violations, 2, "both are known from the second bump on: {overtaken}");
    }

    #[test]
    fn a_bumper_has_to_know_at_once() {
        let own = BumpNote { own_read: Some(0), ..bump(1, 1_000, None) };
        assert_eq!(verdict(vec![own], vec![], vec![], Bound::Always(BOUND)).violations, 1);
    }

    #[test]
    fn a_stall_extends_the_bound_by_what_of_it_lies_between() {
        let stalls = || vec![Stall { from_ns: 990 * MS, to_ns: 1_030 * MS }];
        let judge = |last_ms, bound| {
            verdict(vec![bump(1, 1_000, Some(1_000))], vec![seen(0, 10, last_ms)], stalls(), bound).violations
        };
        assert_eq!(judge(1_130, Bound::WhenAwake(BOUND)), 0);
        assert_eq!(judge(1_131, Bound::WhenAwake(BOUND)), 1);
        assert_eq!(judge(1_130, Bound::Always(BOUND)), 1);
    }
}
