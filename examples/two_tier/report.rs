//! The table.

use std::fmt::{self, Display};

use crate::audit::Audit;
use crate::latencies::Latencies;
use crate::verdict::Report;

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { tally, judgement, keys, audit, took, .. } = self;
        let distinct = keys.len() as u64;
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
        line(f, "distinct keys", distinct, "")?;
        let loads = tally.history.loads.len() as u64;
        let per_key = loads as f64 / distinct as f64;
        let note = format!("{per_key:.2} for each distinct key, {} began beside another of theirs", judgement.beside);
        line(f, "loads", loads, &note)?;
        line(f, "writes", tally.writes, &format!("{} acknowledged", grouped(tally.writes_acknowledged)))?;
        line(f, "group bumps", tally.bumps, &format!("{} acknowledged", grouped(tally.bumps_acknowledged)))?;
        line(f, "entries invalidated", tally.invalidated, "by group bumps, in the local tiers of their workers")?;
        outdated(f, &judgement.lags)?;
        let per_exchange = tally.commands as f64 / tally.exchanges.max(1) as f64;
        line(f, "exchanges", tally.exchanges, &format!("with the remote tier, of {per_exchange:.1} commands each"))?;
        line(f, "remote errors", tally.remote_errors, "")?;
        line(f, "resyncs", tally.resyncs, "of local tiers that had lost the journal, after the start")?;
        if let Ok(Audit { found, evicted, .. }) = audit {
            line(f, "writes read back", *found, &format!("{} evicted", grouped(*evicted)))?;
        }
        writeln!(f)?;
        match self.faults().as_slice() {
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

/// Writes how long answers were older than another worker's change.
fn outdated(f: &mut fmt::Formatter<'_>, lags: &Latencies) -> fmt::Result {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| lags.quantile(quantile).as_secs_f64() * 1_000.0);
    let note = format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms after another worker's change");
    line(f, "outdated answers", lags.count(), if lags.count() > 0 { &note } else { "" })
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
