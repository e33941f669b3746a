//! What a run brought, and whether its cache passed.

use std::fmt;
use std::time::Duration;

use crate::caches::Subject;
use crate::crew::{Slow, TOLERANCE, Tally};
use crate::pulse::Pulse;
use crate::source::Counts;

/// How often, at most, one call waits for a thread to run: the caller's, the timer's, those of loads and of a runtime.
const STEPS: u32 = 8;

/// What is to be said of one cache.
pub(crate) struct Verdict<'a> {
    subject: &'a Subject,
    tally: &'a Tally,
    counts: Counts,
    /// What it failed by; it passed if that is nothing.
    pub(crate) faults: Vec<String>,
}

impl<'a> Verdict<'a> {
    pub(crate) fn of(subject: &'a Subject, tally: &'a Tally, pulse: &Pulse) -> Verdict<'a> {
        let counts = subject.source.counts.lock().unwrap().clone();
        let mut faults = Vec::new();
        // A machine that lets threads wait excuses no more than that: each step of a call may have come as late as a tick did.
        let excess = |slow: &Slow| {
            let excused = slow.timeout + TOLERANCE + STEPS * pulse.lateness(slow.start, slow.end);
            (slow.end - slow.start).saturating_sub(excused)
        };
        let late: Vec<&Slow> = tally.slow.iter().filter(|slow| excess(slow) > Duration::ZERO).collect();
        if let Some(worst) = late.iter().max_by_key(|slow| excess(slow)) {
            let (key, took, timeout) = (&worst.key, worst.end - worst.start, worst.timeout);
            faults.push(format!(
                "{} callers were kept past their timeout, such as {took:.1?} for {key}, of {timeout:?}",
                late.len()
            ));
        }
        if let Some(first) = tally.unserved.first() {
            faults.push(format!("{} errors in the place of a stale value, such as {first}", tally.unserved.len()));
        }
        if let Some(first) = tally.foreign.first() {
            faults.push(format!("{} values of another key, such as {first}", tally.foreign.len()));
        }
        if counts.overlaps > 0 {
            faults.push(format!("{} loads beside another of their key that was not given up", counts.overlaps));
        }
        if tally.sharers.values().all(|sharers| *sharers < 2) {
            faults.push("no error was shared: each caller had a load of its own".to_owned());
        }
        if let Some(Err(key)) = &tally.recovery {
            faults.push(format!("it did not recover: {key}"));
        }
        if counts.hung == 0 || counts.refused == 0 || counts.panicked == 0 || subject.hits_stale() == 0 {
            faults.push(format!("the loader was not put to the test: {counts:?}"));
        }
        Verdict { subject, tally, counts, faults }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { subject, tally, counts, faults } = self;
        let mut errors: Vec<_> = tally.errors.iter().map(|(kind, count)| format!("{count} {kind:?}")).collect();
        errors.sort();
        writeln!(f, "\n{}", subject.name)?;
        writeln!(f, "  calls      {:>8}  {} answers; {}", tally.calls, tally.answers, errors.join(", "))?;
        writeln!(f, "  stale      {:>8}  hits", subject.hits_stale())?;
        writeln!(
            f,
            "  loads      {:>8}  {} hung, {} failed, {} panicked",
            subject.source.next_load(),
            counts.hung,
            counts.refused,
            counts.panicked
        )?;
        let sharers = tally.sharers.values().max().copied().unwrap_or(0);
        writeln!(f, "  sharers    {sharers:>8}  callers at most of one error")?;
        writeln!(f, "  past       {:>8.1?}  of a timeout at most", tally.longest_past)?;
        if let Some(Ok(took)) = &tally.recovery {
            writeln!(f, "  recovered  {took:>8.1?}  after the end, every key")?;
        }
        for fault in faults {
            writeln!(f, "FAIL: {}: {fault}", subject.name)?;
        }
        if faults.is_empty() {
            writeln!(f, "PASS: {}", subject.name)?;
        }
        Ok(())
    }
}
