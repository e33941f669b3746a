//! How long does a hit take while another thread disturbs? One disturbance a file.
//!
//! Every hit is timed alone, so the clock's own time is in each figure; the row "(clock alone)" times nothing. Percentiles
//! are taken within a round, and their medians over rounds are reported: one preempted round does not decide a tail.

mod bumps;
mod growth;
mod inserts;

use std::{
    array, hint,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    contestants::{Contestant, Key, fresh_value},
    effort::Effort,
    random::Random,
    report::Section,
    rotation::{Lane, Series, rotate},
    summary::{Spread, percentile},
    table::Table,
    zipf::{Zipf, key_of_rank},
};

/// Few enough to stay resident beside what the disturbing thread inserts; those that are evicted come back at once.
const HOT: usize = 1_000;
const EXPONENT: f64 = 0.99;
/// The last is the longest hit of a round.
const PERCENTILES: [f64; COUNT] = [50.0, 99.0, 99.9, 99.99, 100.0];
const PERCENTILE_NAMES: [&str; COUNT] = ["p50", "p99", "p99.9", "p99.99", "max"];
const COUNT: usize = 5;
/// Whose ratios stand in the results beside those to the first.
const SECOND_YARDSTICK: &str = "moka";

/// The times of one round's hits in nanoseconds, one per percentile, and what share of the lookups missed.
struct Tail {
    percentiles: [f64; COUNT],
    miss_ratio: f64,
}

/// One disturbance, and how the contestants' hits fared.
pub(crate) struct Latency {
    /// What the other thread does, in a word.
    under: &'static str,
    /// The same in a sentence.
    setting: String,
    capacity: usize,
    series: Vec<Series<Tail>>,
}

pub(crate) fn run(effort: &Effort, mut done: impl FnMut(&Latency)) {
    done(&inserts::measure(effort));
    done(&bumps::measure(effort));
    done(&growth::measure(effort));
}

/// Lets the lanes take turns, the clock's own among them.
fn compare(effort: &Effort, build: impl Fn() -> Vec<Lane<Tail>>) -> Vec<Series<Tail>> {
    rotate(effort, || {
        let mut lanes = build();
        lanes.push(clock_lane(effort.lap));
        lanes
    })
}

/// The keys of one round's lookups.
fn hot_keys(effort: &Effort) -> Vec<Key> {
    Zipf::new(HOT, EXPONENT).keys(effort.lap, &mut Random::new(effort.seed))
}

fn insert_hot<C: Contestant>(cache: &C) {
    for rank in 0..HOT {
        cache.insert(key_of_rank(rank), fresh_value());
    }
}

/// Runs `measure` on this thread while another calls `disturb` without end.
fn beside<R>(mut disturb: impl FnMut() + Send, measure: impl FnOnce() -> R) -> R {
    let begun = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                disturb();
                begun.store(true, Ordering::Relaxed);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let result = measure();
        over.store(true, Ordering::Relaxed);
        result
    })
}

fn time_hits<C: Contestant>(cache: &C, keys: impl Iterator<Item = Key>) -> Tail {
    let mut times = Vec::with_capacity(keys.size_hint().0);
    let mut misses = 0;
    for key in keys {
        let start = Instant::now();
        let found = hint::black_box(cache.get(key));
        let time = start.elapsed();
        if found.is_some() {
            times.push(time.as_nanos() as f64);
        } else {
            misses += 1;
            cache.insert(key, fresh_value());
        }
    }
    Tail::of(times, misses)
}

fn clock_lane(samples: usize) -> Lane<Tail> {
    let round = move || {
        let times = (0..samples).map(|_| Instant::now().elapsed().as_nanos() as f64).collect();
        Tail::of(times, 0)
    };
    Lane { name: "(clock alone)", round: Box::new(round) }
}

impl Tail {
    fn of(mut times: Vec<f64>, misses: usize) -> Self {
        assert!(!times.is_empty(), "not one lookup was a hit");
        times.sort_unstable_by(f64::total_cmp);
        let miss_ratio = misses as f64 / (misses + times.len()) as f64;
        Self { percentiles: PERCENTILES.map(|percent| percentile(&times, percent)), miss_ratio }
    }
}

struct Row {
    name: &'static str,
    ns: [Spread; COUNT],
    ratio: [Spread; COUNT],
    ratio_to_second: Option<[Spread; COUNT]>,
    miss_ratio: f64,
}

impl Latency {
    fn rows(&self) -> impl Iterator<Item = Row> {
        let times = |series: &Series<Tail>, of: usize| -> Vec<f64> {
            series.rounds.iter().map(|t| t.percentiles[of]).collect()
        };
        let ratios = move |series: &Series<Tail>, yardstick: &Series<Tail>| {
            array::from_fn(|of| Spread::of_ratio(&times(series, of), &times(yardstick, of)))
        };
        let second = self.series.iter().find(|series| series.name == SECOND_YARDSTICK);
        self.series.iter().map(move |series| Row {
            name: series.name,
            ns: array::from_fn(|of| Spread::of(times(series, of))),
            ratio: ratios(series, &self.series[0]),
            ratio_to_second: second.map(|second| ratios(series, second)),
            miss_ratio: Spread::of(series.rounds.iter().map(|tail| tail.miss_ratio)).median,
        })
    }
}

impl Section for Latency {
    fn text(&self) -> String {
        let rounds = self.series[0].rounds.len();
        let title = format!("latency · {HOT} hot keys · {} · {rounds} rounds", self.setting);
        let versus = format!("/ {}", self.series[0].name);
        let headings = PERCENTILE_NAMES.iter().flat_map(|name| [format!("{name} ns"), versus.clone()]);
        let mut table = Table::new([String::new()].into_iter().chain(headings).chain(["misses %".to_owned()]));
        for row in self.rows() {
            let mut cells = vec![row.name.to_owned()];
            for (ns, ratio) in row.ns.iter().zip(&row.ratio) {
                cells.extend([format!("{:.0}", ns.median), format!("{:.2}", ratio.median)]);
            }
            cells.push(format!("{:.2}", 100.0 * row.miss_ratio));
            table.row(cells);
        }
        format!("{title}\n{table}")
    }

    fn json(&self) -> Value {
        let by_percentile = |spreads: &[Spread; COUNT]| -> serde_json::Map<String, Value> {
            PERCENTILE_NAMES.iter().map(|&name| name.to_owned()).zip(spreads.iter().map(Spread::json)).collect()
        };
        let contestants: Vec<Value> = self
            .rows()
            .map(|row| {
                json!({
                    "name": row.name,
                    "ns": by_percentile(&row.ns),
                    "ratio_to_first": by_percentile(&row.ratio),
                    "ratio_to_moka": row.ratio_to_second.as_ref().map(by_percentile),
                    "miss_ratio": row.miss_ratio,
                })
            })
            .collect();
        json!({
            "workload": "latency",
            "under": self.under,
            "setting": self.setting,
            "keys": HOT,
            "capacity": self.capacity,
            "rounds": self.series[0].rounds.len(),
            "contestants": contestants,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_reaches_to_the_longest() {
        let tail = Tail::of((1..=100).map(f64::from).rev().collect(), 100);
        assert_eq!(tail.percentiles, [50.0, 99.0, 100.0, 100.0, 100.0]);
        assert!((tail.miss_ratio - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_disturbance_is_under_way_before_anything_is_measured_and_ends_with_it() {
        let disturbances = std::sync::atomic::AtomicUsize::new(0);
        let seen = beside(
            || {
                disturbances.fetch_add(1, Ordering::Relaxed);
            },
            || disturbances.load(Ordering::Relaxed),
        );
        assert!(seen > 0);
        // The thread has been joined: whatever is counted now has ended.
        assert!(disturbances.load(Ordering::Relaxed) >= seen);
    }

    #[test]
    fn every_row_has_a_ratio_to_both_yardsticks() {
        let series = |name, ns| {
            let tail = |factor: f64| Tail { percentiles: [ns * factor; COUNT], miss_ratio: 0.0 };
            Series { name, rounds: vec![tail(1.0), tail(10.0)] }
        };
        let series = vec![series("first", 10.0), series(SECOND_YARDSTICK, 40.0), series("us", 20.0)];
        let latency = Latency { under: "test", setting: String::new(), capacity: 1, series };
        let json = latency.json();
        let us = &json["contestants"][2];
        assert_eq!(us["ratio_to_first"]["p99.9"]["median"], 2.0);
        assert_eq!(us["ratio_to_moka"]["max"]["p90"], 0.5);
    }
}
