//! The few figures that matter most, for the top of the page and for README.md.

use std::collections::BTreeSet;

use crate::{
    markup::{Element, element},
    numbers::{grouped, percent, plain},
    results::{Conditions, Footprint, Latency, Memory, Overall, Results, Timing, Trace},
    sections::{hit_ratio, latency, memory, remote, throughput},
    steps::Step,
};

/// Those whose figures stand beside larder's, as the results name them; the heading of each.
const RIVALS: [(&str, &str); 3] =
    [("quick_cache", "quick_cache"), ("moka", "moka"), ("foyer s3-fifo", "foyer S3-FIFO")];
/// What knows the future, or is larder itself, is nobody's rival.
const NO_RIVALS: [&str; 2] = ["larder", "optimum"];
const CALLERS: u64 = 64;

pub(crate) struct Headline {
    rows: Vec<Row>,
    /// What made the figures, on what.
    source: String,
}

struct Row {
    what: String,
    /// The section of the page that shows more.
    section: &'static str,
    larder: String,
    rivals: [String; 3],
    /// larder's figure against the yardstick's.
    beside: String,
    goal: Goal,
    reached: Reached,
}

/// What larder sets out to reach: without the first it is not good enough, the second is what it aims for.
struct Goal {
    least: String,
    aim: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reached {
    Aim,
    Goal,
    Neither,
    NotMeasured,
}

impl Headline {
    pub(crate) fn of(results: &Results) -> Self {
        let mut rows = Vec::new();
        for (threads, least, aim) in [(1, 1.2, 1.0), (2, 0.6, 0.5)] {
            for keys in throughput::HIT_KEYS {
                let what = format!("hit, `get`, {}, {} keys", of_threads(threads), grouped(keys as f64));
                rows.push(timed(results, Step::Hit, Some(keys), threads, "larder", what, (least, aim)));
            }
        }
        for keys in throughput::HIT_KEYS {
            let what = format!("hit, `with`, {}, {} keys", of_threads(2), grouped(keys as f64));
            rows.push(timed(results, Step::Hit, Some(keys), 2, "larder with", what, (0.45, 0.35)));
        }
        for threads in [1, 2] {
            let what = format!("look up, insert on a miss, {}", of_threads(threads));
            rows.push(timed(results, Step::Mixed, None, threads, "larder", what, (1.5, 1.0)));
        }
        for threads in [1, 2] {
            let what = format!("insert that evicts, {}", of_threads(threads));
            rows.push(timed(results, Step::Insert, None, threads, "larder", what, (2.0, 1.25)));
        }
        rows.push(slowest_hits(results));
        rows.push(bytes_per_entry(results));
        rows.extend(hit_ratios(results));
        rows.push(remote_hits(results));
        let source = results.conditions.as_ref().map_or("an unknown machine".to_owned(), |conditions| {
            let Conditions { effort, cpu, cores, kernel, rustc, date, commit, .. } = conditions;
            format!("{cpu}, {cores} cores, {kernel}, {rustc}, {date}, commit {commit}; {effort}")
        });
        Self { rows, source: format!("`benches/report` on {source}.") }
    }

    /// For README.md.
    pub(crate) fn markdown(&self) -> String {
        let mut lines = vec![
            format!("| | larder | {} | in units of a rival |", RIVALS.map(|(_, heading)| heading).join(" | ")),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        for Row { what, larder, rivals, beside, .. } in &self.rows {
            let cells = [what, larder].into_iter().chain(rivals).chain([beside]);
            // A bar within a cell would end it.
            let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
            lines.push(format!("| {} |", cells.join(" | ")));
        }
        lines.extend([String::new(), self.source.clone()]);
        lines.join("\n")
    }

    pub(crate) fn table(&self) -> Element {
        let headings = ["", "larder"].into_iter().chain(RIVALS.map(|(_, heading)| heading));
        let headings = headings.chain(["in units of a rival", "goal", "aim", "reached"]);
        let head = element("tr").children(headings.map(|heading| element("th").with("scope", "col").text(heading)));
        let rows = self.rows.iter().map(|row| {
            let link = element("a").with("href", format!("#{}", row.section)).text(row.what.replace('`', ""));
            let figure = |text: &str| element("td").text(text);
            element("tr")
                .child(element("th").with("scope", "row").child(link))
                .child(figure(&row.larder).with("class", "larder emphasised"))
                .children(row.rivals.iter().map(|rival| figure(rival)))
                .child(figure(&row.beside).with("class", "beside"))
                .children([&row.goal.least, &row.goal.aim].map(|text| figure(text)))
                .child(figure(row.reached.text()).with("class", row.reached.class()))
        });
        element("table")
            .with("class", "headline")
            .child(element("thead").child(head))
            .child(element("tbody").children(rows))
    }
}

impl Reached {
    fn of(value: f64, (least, aim): (f64, f64), enough: impl Fn(f64, f64) -> bool) -> Self {
        match value {
            value if enough(value, aim) => Self::Aim,
            value if enough(value, least) => Self::Goal,
            _ => Self::Neither,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Aim => "✓ aim",
            Self::Goal => "✓ goal",
            Self::Neither => "✗ no",
            Self::NotMeasured => "not measured",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Aim | Self::Goal => "reached",
            Self::Neither => "missed",
            Self::NotMeasured => "unknown",
        }
    }
}

/// A limit that a figure must not exceed, or must reach.
fn at_most(value: f64, limit: f64) -> bool {
    value <= limit
}

fn at_least(value: f64, limit: f64) -> bool {
    value >= limit
}

fn of_threads(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

fn times(ratio: f64, yardstick: &str) -> String {
    format!("{ratio:.2} × {yardstick}")
}

impl Row {
    /// A row that says that there is nothing to say, until something is filled in.
    fn of(what: String, section: &'static str, goal: Goal) -> Self {
        let nothing = || "–".to_owned();
        let rivals = RIVALS.map(|_| nothing());
        let reached = Reached::NotMeasured;
        Self { what, section, larder: nothing(), rivals, beside: "not measured".to_owned(), goal, reached }
    }
}

fn timed(
    results: &Results,
    step: Step,
    keys: Option<usize>,
    threads: usize,
    subject: &str,
    what: String,
    limits: (f64, f64),
) -> Row {
    let goal = Goal { least: format!("≤ {} ×", limits.0), aim: format!("≤ {} ×", limits.1) };
    let mut row = Row::of(what, throughput::ID, goal);
    let Ok((_, timings)) = results.of::<Timing>(step, throughput::workload(step)) else { return row };
    let wanted = |timing: &&Timing| timing.threads == threads && keys.is_none_or(|keys| timing.keys == keys);
    let Some(timing) = timings.iter().find(wanted) else { return row };
    let of = |name: &str| timing.contestants.iter().find(|timed| timed.name == name);
    let figure =
        |name| of(name).map_or("–".to_owned(), |timed| format!("{} ns", plain(timed.ns_per_operation.median)));
    row.larder = figure(subject);
    row.rivals = RIVALS.map(|(name, _)| figure(name));
    if let (Some(timed), Some(first)) = (of(subject), timing.contestants.first()) {
        row.beside = times(timed.ratio_to_first.median, &first.name);
        row.reached = Reached::of(timed.ratio_to_first.median, limits, at_most);
    }
    row
}

fn slowest_hits(results: &Results) -> Row {
    const PERCENTILE: &str = "p99.9";
    /// Of moka, and of quick_cache.
    const LIMITS: (f64, f64) = (0.5, 1.0);
    let goal = Goal { least: "≤ 0.5 × moka".to_owned(), aim: "≤ 1 × quick_cache".to_owned() };
    let mut row = Row::of("hit, p99.9 while another thread inserts".to_owned(), latency::ID, goal);
    let Ok((_, latencies)) = results.of::<Latency>(Step::Latency, latency::WORKLOAD) else { return row };
    let Some(latency) = latencies.iter().find(|latency| latency.under == latency::UNDER_INSERTS) else { return row };
    let of = |name: &str| latency.contestants.iter().find(|delayed| delayed.name == name);
    let figure = |name| {
        let ns = of(name).and_then(|delayed| delayed.ns.get(PERCENTILE));
        ns.map_or("–".to_owned(), |ns| format!("{} ns", plain(ns.median)))
    };
    row.larder = figure("larder");
    row.rivals = RIVALS.map(|(name, _)| figure(name));
    let Some(larder) = of("larder") else { return row };
    let to_moka = larder.ratio_to_moka.as_ref().and_then(|ratio| ratio.get(PERCENTILE));
    if let (Some(to_moka), Some(to_first)) = (to_moka, larder.ratio_to_first.get(PERCENTILE)) {
        row.beside = format!("{}, {}", times(to_moka.median, "moka"), times(to_first.median, "quick_cache"));
        row.reached = match (to_moka.median <= LIMITS.0, to_first.median <= LIMITS.1) {
            (true, true) => Reached::Aim,
            (true, false) => Reached::Goal,
            (false, _) => Reached::Neither,
        };
    }
    row
}

/// With the largest number of entries that was measured.
fn bytes_per_entry(results: &Results) -> Row {
    const LIMITS: (f64, f64) = (96.0, 64.0);
    let goal = Goal { least: format!("≤ {} B", LIMITS.0), aim: format!("≤ {} B", LIMITS.1) };
    let mut row = Row::of("bytes per entry beyond key and value, full; used for long".to_owned(), memory::ID, goal);
    let Ok((_, memories)) = results.of::<Memory>(Step::Memory, memory::WORKLOAD) else { return row };
    let Some(memory) = memories.iter().max_by_key(|memory| memory.entries) else { return row };
    let of = |name: &str| memory.contestants.iter().find(|footprint| footprint.name == name);
    let figure = |name| {
        let both = of(name).map(|footprint| (footprint.bytes_per_entry, footprint.bytes_per_entry_churned));
        both.map_or("–".to_owned(), |(full, churned)| format!("{full:.0}; {churned:.0}"))
    };
    row.larder = figure("larder");
    row.rivals = RIVALS.map(|(name, _)| figure(name));
    if let (Some(larder), Some(first)) = (of("larder"), memory.contestants.first()) {
        let most = |footprint: &Footprint| footprint.bytes_per_entry_churned.max(footprint.bytes_per_entry);
        row.beside = times(most(larder) / most(first), &first.name);
        row.reached = Reached::of(most(larder), LIMITS, at_most);
    }
    row
}

/// The mean of all cells, and the cell in which larder is farthest behind.
fn hit_ratios(results: &Results) -> [Row; 2] {
    /// Points ahead of the best single rival.
    const MEAN_LIMIT: f64 = 1.5;
    /// Points ahead of the best rival of the cell.
    const WORST_LIMITS: (f64, f64) = (-5.0, -3.0);
    let goal = Goal { least: format!("≥ +{MEAN_LIMIT} points"), aim: "best of each cell".to_owned() };
    let mut mean = Row::of("hit ratio on recorded traces, mean".to_owned(), hit_ratio::ID, goal);
    let goal = Goal { least: "≥ −5 points".to_owned(), aim: "≥ −3 points".to_owned() };
    let mut worst = Row::of("hit ratio, worst cell".to_owned(), hit_ratio::ID, goal);
    let overall = results.of::<Overall>(Step::HitRatio, hit_ratio::OVERALL);
    let (Ok((_, overall)), Ok((_, traces))) = (overall, results.of::<Trace>(Step::HitRatio, hit_ratio::WORKLOAD))
    else {
        return [mean, worst];
    };
    let Overall { means, worst_cell, .. } = &overall[0];
    let of = |name: &str| means.iter().find(|mean| mean.name == name).map(|mean| mean.hit_ratio);
    let overfull = overfull(&traces);
    let figure = |name: &str| {
        let reservation = if overfull.contains(name) { " (overfull)" } else { "" };
        of(name).map_or("–".to_owned(), |ratio| format!("{} %{reservation}", percent(ratio)))
    };
    mean.larder = figure("larder");
    mean.rivals = RIVALS.map(|(name, _)| figure(name));
    let rivals = means.iter().filter(|mean| !NO_RIVALS.contains(&mean.name.as_str()) && !overfull.contains(&mean.name));
    let best = rivals.max_by(|a, b| a.hit_ratio.total_cmp(&b.hit_ratio));
    if let (Some(larder), Some(best)) = (of("larder"), best) {
        let lead = 100.0 * (larder - best.hit_ratio);
        mean.beside = format!("{} points on {}", signed(lead), best.name);
        // The best of each cell, were it one cache, would be that far ahead of it.
        let aim = 100.0 * (best_of_each_cell(&traces).unwrap_or(f64::INFINITY) - best.hit_ratio);
        mean.goal.aim = format!("≥ {} points", signed(aim));
        mean.reached = Reached::of(lead, (MEAN_LIMIT, aim.max(MEAN_LIMIT)), at_least);
    }
    if let Some(cell) = worst_cell {
        let lead = 100.0 * cell.lead;
        worst.beside = format!("{} points on {}", signed(lead), cell.best_rival);
        worst.reached = Reached::of(lead, WORST_LIMITS, at_least);
        // Whatever stands elsewhere in the column is larder's figure.
        let policies = traces.iter().filter(|trace| trace.trace == cell.trace).flat_map(|trace| &trace.cells);
        let policies: Vec<_> = policies.filter(|found| found.capacity == cell.capacity).collect();
        let figure = |name: &str| {
            let policy = policies.iter().flat_map(|found| &found.contestants).find(|policy| policy.name == name);
            policy.map_or("–".to_owned(), |policy| {
                let reservation = if policy.kept_within_capacity { "" } else { " (overfull)" };
                format!("{} %{reservation}", percent(policy.hit_ratio))
            })
        };
        worst.larder = figure("larder");
        worst.rivals = RIVALS.map(|(name, _)| figure(name));
        worst.what = format!("hit ratio, worst cell ({}, {} entries)", cell.trace, grouped(cell.capacity as f64));
    }
    [mean, worst]
}

/// Those that held noticeably more than their capacity somewhere.
pub(crate) fn overfull(traces: &[Trace]) -> BTreeSet<String> {
    let policies = traces.iter().flat_map(|trace| &trace.cells).flat_map(|cell| &cell.contestants);
    policies.filter(|policy| !policy.kept_within_capacity).map(|policy| policy.name.clone()).collect()
}

/// The mean over the cells that count of the best rival in each.
fn best_of_each_cell(traces: &[Trace]) -> Option<f64> {
    let counting = traces.iter().flat_map(|trace| &trace.cells).filter(|cell| cell.counts);
    let best = counting.filter_map(|cell| {
        let rivals = cell.contestants.iter().filter(|policy| !NO_RIVALS.contains(&policy.name.as_str()));
        rivals.filter(|policy| policy.kept_within_capacity).map(|policy| policy.hit_ratio).max_by(f64::total_cmp)
    });
    let best: Vec<f64> = best.collect();
    (!best.is_empty()).then(|| best.iter().sum::<f64>() / best.len() as f64)
}

fn signed(points: f64) -> String {
    let sign = if points < 0.0 { '−' } else { '+' };
    format!("{sign}{:.1}", points.abs())
}

fn remote_hits(results: &Results) -> Row {
    const LIMITS: (f64, f64) = (3.0, 5.0);
    let goal = Goal { least: format!("≥ {} ×", LIMITS.0), aim: format!("≥ {} ×", LIMITS.1) };
    let mut row = Row::of(format!("gets that memcached answers, {CALLERS} callers"), remote::ID, goal);
    let Ok(rows) = remote::read(results) else { return row };
    let Some(found) = rows.iter().find(|row| row.callers == CALLERS) else { return row };
    row.larder = format!("{}/s", grouped(found.larder_per_sec));
    row.beside = times(found.ratio, "MetaClient");
    row.reached = Reached::of(found.ratio, LIMITS, at_least);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aim_is_beyond_the_goal() {
        let limits = (1.2, 1.0);
        assert_eq!(Reached::of(1.0, limits, at_most), Reached::Aim);
        assert_eq!(Reached::of(1.1, limits, at_most), Reached::Goal);
        assert_eq!(Reached::of(1.3, limits, at_most), Reached::Neither);
        assert_eq!(Reached::of(-4.0, (-5.0, -3.0), at_least), Reached::Goal);
    }

    #[test]
    fn what_is_not_measured_is_shown_all_the_same() {
        let nothing = std::env::temp_dir().join(format!("report-{}-nothing", std::process::id()));
        std::fs::create_dir_all(&nothing).unwrap();
        let headline = Headline::of(&Results::read(&nothing).unwrap());
        std::fs::remove_dir(&nothing).unwrap();
        let markdown = headline.markdown();
        assert_eq!(markdown.lines().filter(|line| line.starts_with('|')).count(), 2 + headline.rows.len());
        assert_eq!(markdown.matches("not measured").count(), headline.rows.len());
        assert!(headline.rows.iter().all(|row| row.reached == Reached::NotMeasured));
    }
}
