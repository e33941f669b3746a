//! The table.

use std::fmt::{self, Display};

use crate::audit::Audit;
use crate::latencies::Latencies;
use crate::verdict::Report;

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { tally, distinct, audit, took, .. } = self;
        let requests = tally.reads() + tally.writes + tally.bumps;
        writeln!(
            f,
            "{:<22}{:>12}{:>9}{:>12}{:>12}{:>12}",
            "answered by", "reads", "share", "p50 us", "p99 us", "p99.9 us"
        )?;
        for (tier, latencies) in
            [("local tier", &tally.local), ("remote tier", &tally.remote), ("loader", &tally.loader)]
        {
            row(f, tier, latencies, tally.reads())?;
        }
        writeln!(f)?;
        let per_second = requests as f64 / took.as_secs_f64();
        line(
            f,
            "requests",
            requests,
            &format!("in {:.1} s, {} a second", took.as_secs_f64(), grouped(per_second as u64)),
        )?;
        line(f, "distinct keys", *distinct as u64, "")?;
        line(f, "loads", tally.loads, &format!("{:.2} for each distinct key", tally.loads as f64 / *distinct as f64))?;
        line(f, "writes", tally.writes, &format!("{} acknowledged", grouped(tally.writes_acknowledged)))?;
        line(f, "group bumps", tally.bumps, &format!("{} acknowledged", grouped(tally.bumps_acknowledged)))?;
        line(f, "entries invalidated", tally.invalidated, "by group bumps, in the local tiers of their workers")?;
        line(f, "outdated answers", tally.outdated, "older than another worker's change, until their deadline")?;
        line(
            f,
            "overtaken answers",
            tally.overtaken,
            "from loads in other workers that a bump overtook: not judged yet",
        )?;
        line(f, "remote errors", tally.remote_errors, "")?;
        if let Ok(Audit { found, evicted, .. }) = audit {
            line(f, "writes read back", *found, &format!("{} evicted", grouped(*evicted)))?;
        }
        writeln!(f)?;
        match self.faults().as_slice() {
            [] if tally.overtaken > 0 => {
                writeln!(f, "PASS: no failed worker, no lost write, no wrong value but the overtaken")
            }
            [] => writeln!(f, "PASS: no failed worker, no lost write, no wrong value"),
            faults => faults.iter().try_for_each(|fault| writeln!(f, "FAIL: {fault}")),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, tier: &str, latencies: &Latencies, reads: u64) -> fmt::Result {
    let share = 100.0 * latencies.count() as f64 / reads.max(1) as f64;
    write!(f, "{tier:<22}{:>12}{share:>7.1} %", grouped(latencies.count()))?;
    for quantile in [0.5, 0.99, 0.999] {
        let us = latencies.quantile(quantile).as_nanos() as f64 / 1_000.0;
        write!(f, "{us:>12.1}")?;
    }
    writeln!(f)
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, count: u64, note: &str) -> fmt::Result {
    writeln!(f, "{}", format!("{name:<22}{:>12}  {note}", grouped(count)).trim_end())
}

/// Writes a number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
