//! What the contestants are timed at, one workload a file.

pub(crate) mod hit;
pub(crate) mod insert;
pub(crate) mod latency;
pub(crate) mod miss;
pub(crate) mod mixed;

use std::rc::Rc;

use serde_json::{Value, json};

use crate::{
    contestants::{Contestant, Key},
    crew::{Crew, Job},
    effort::Effort,
    report::Section,
    rotation::{Lane, Series, rotate},
    summary::Spread,
    table::Table,
};

/// What one contestant did in one round.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    ns_per_operation: f64,
    hit_ratio: f64,
}

/// One workload with one number of keys and threads, and how the contestants did at it.
pub(crate) struct Cell {
    workload: &'static str,
    keys: usize,
    threads: usize,
    /// Operations of one thread in one round.
    lap: usize,
    /// Whether the contestants' hit ratios differ and so belong to the result.
    reports_hit_ratio: bool,
    series: Vec<Series<Sample>>,
}

impl Cell {
    fn run(
        workload: &'static str,
        keys: usize,
        crew: &Crew,
        effort: &Effort,
        build: impl Fn() -> Vec<Lane<Sample>>,
    ) -> Self {
        let series = rotate(effort, build);
        Self { workload, keys, threads: crew.size(), lap: effort.lap, reports_hit_ratio: false, series }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let ns = |series: &Series<Sample>| -> Vec<f64> { series.rounds.iter().map(|s| s.ns_per_operation).collect() };
        let yardstick = ns(&self.series[0]);
        self.series.iter().map(move |series| Row {
            name: series.name,
            ns: Spread::of(ns(series)),
            ratio: Spread::of_ratio(&ns(series), &yardstick),
            hit_ratio: Spread::of(series.rounds.iter().map(|sample| sample.hit_ratio)).median,
        })
    }
}

struct Row {
    name: &'static str,
    ns: Spread,
    ratio: Spread,
    hit_ratio: f64,
}

impl Section for Cell {
    fn text(&self) -> String {
        let rounds = self.series[0].rounds.len();
        let Self { workload, keys, threads, lap, .. } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        let title =
            format!("{workload} · {keys} keys · {threads} thread{plural} · {rounds} rounds of {lap} operations each");
        let versus = format!("/ {}", self.series[0].name);
        let mut heading = vec!["", "ns/op", "p10", "p90", versus.as_str(), "p10", "p90"];
        if self.reports_hit_ratio {
            heading.push("hits %");
        }
        let mut table = Table::new(heading);
        for Row { name, ns, ratio, hit_ratio } in self.rows() {
            let mut cells = vec![name.to_owned()];
            cells.extend([ns.median, ns.p10, ns.p90].map(|ns| format!("{ns:.1}")));
            cells.extend([ratio.median, ratio.p10, ratio.p90].map(|ratio| format!("{ratio:.2}")));
            if self.reports_hit_ratio {
                cells.push(format!("{:.2}", 100.0 * hit_ratio));
            }
            table.row(cells);
        }
        format!("{title}\n{table}")
    }

    fn json(&self) -> Value {
        let contestants: Vec<Value> = self
            .rows()
            .map(|Row { name, ns, ratio, hit_ratio }| {
                let (ns, ratio) = (ns.json(), ratio.json());
                json!({ "name": name, "ns_per_operation": ns, "ratio_to_first": ratio, "hit_ratio": hit_ratio })
            })
            .collect();
        json!({
            "workload": self.workload,
            "keys": self.keys,
            "threads": self.threads,
            "operations_per_thread_and_round": self.lap,
            "rounds": self.series[0].rounds.len(),
            "contestants": contestants,
        })
    }
}

/// A lane in which the whole crew does `job`, `lap` operations each.
fn crew_lane(name: &'static str, crew: &Rc<Crew>, lap: usize, job: Job) -> Lane<Sample> {
    let crew = Rc::clone(crew);
    let operations = (crew.size() * lap) as f64;
    let round = move || {
        let race = crew.race(&job);
        Sample {
            ns_per_operation: race.duration.as_nanos() as f64 / operations,
            hit_ratio: race.hits as f64 / operations,
        }
    };
    Lane { name, round: Box::new(round) }
}

/// Looks up every key and returns the number of hits, which is the sum of what was read: every value begins with a 1.
fn look_up<C: Contestant>(cache: &C, keys: &[Key]) -> usize {
    let mut hits = 0;
    for &key in keys {
        if let Some(byte) = std::hint::black_box(cache.get(key)) {
            hits += usize::from(byte);
        }
    }
    hits
}
