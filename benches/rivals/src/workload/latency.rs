//! How long does a hit take while another thread inserts without pause?
//!
//! Every hit is timed alone, so the clock's own time is in each figure; the row "(clock alone)" times nothing. Percentiles
//! are taken within a round, and their medians over rounds are reported: one preempted round does not decide a tail.

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use super::insert::UniqueKeys;
use crate::{
    contestants::{Contestant, Enlist, Key, every_lookup, fresh_value},
    effort::Effort,
    random::Random,
    report::Section,
    rotation::{Lane, Series, rotate},
    summary::{Spread, percentile},
    table::Table,
    zipf::{Zipf, key_of_rank},
};

const CAPACITY: usize = 10_000;
/// Few enough to stay resident beside the inserted ones; those that are evicted come back at once.
const HOT: usize = 1_000;
const EXPONENT: f64 = 0.99;
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

/// The times of one round's hits in nanoseconds, one per percentile, and how many lookups missed.
struct Tail {
    percentiles: [f64; 3],
    misses: usize,
}

pub(crate) struct Latency {
    samples: usize,
    series: Vec<Series<Tail>>,
}

struct HitWhileInserting {
    keys: Arc<Vec<Key>>,
}

pub(crate) fn run(effort: &Effort, done: impl FnOnce(&Latency)) {
    let keys = Zipf::new(HOT, EXPONENT).keys(effort.lap, &mut Random::new(effort.seed));
    let hit = HitWhileInserting { keys: Arc::new(keys) };
    let series = rotate(effort, || {
        let mut lanes = every_lookup(&hit);
        lanes.push(clock_lane(effort.lap));
        lanes
    });
    done(&Latency { samples: effort.lap, series });
}

impl Enlist for HitWhileInserting {
    type Entry = Lane<Tail>;

    fn enlist<C: Contestant>(&self) -> Self::Entry {
        let cache = C::new(CAPACITY);
        let unique = UniqueKeys::default();
        for rank in 0..HOT {
            cache.insert(key_of_rank(rank), fresh_value());
        }
        for (key, value) in unique.entries(2 * CAPACITY) {
            cache.insert(key, value);
        }
        cache.settle();
        let keys = Arc::clone(&self.keys);
        let round = move || while_inserting(&cache, &unique, || time_hits(&cache, &keys));
        Lane { name: C::NAME, round: Box::new(round) }
    }
}

/// Runs `measure` on this thread while another inserts into `cache`.
fn while_inserting<C: Contestant, R>(cache: &C, unique: &UniqueKeys, measure: impl FnOnce() -> R) -> R {
    const BATCH: usize = 256;
    let begun = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (key, value) in unique.entries(BATCH) {
                    cache.insert(key, value);
                }
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

fn time_hits<C: Contestant>(cache: &C, keys: &[Key]) -> Tail {
    let mut times = Vec::with_capacity(keys.len());
    let mut misses = 0;
    for &key in keys {
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
        Self { percentiles: PERCENTILES.map(|percent| percentile(&times, percent)), misses }
    }
}

struct Row {
    name: &'static str,
    ns: [Spread; 3],
    ratio: [Spread; 3],
    miss_ratio: f64,
}

impl Latency {
    fn rows(&self) -> impl Iterator<Item = Row> {
        let times = |series: &Series<Tail>, of: usize| -> Vec<f64> {
            series.rounds.iter().map(|t| t.percentiles[of]).collect()
        };
        self.series.iter().map(move |series| Row {
            name: series.name,
            ns: [0, 1, 2].map(|of| Spread::of(times(series, of))),
            ratio: [0, 1, 2].map(|of| Spread::of_ratio(&times(series, of), &times(&self.series[0], of))),
            miss_ratio: Spread::of(series.rounds.iter().map(|tail| tail.misses as f64)).median / self.samples as f64,
        })
    }
}

impl Section for Latency {
    fn text(&self) -> String {
        let rounds = self.series[0].rounds.len();
        let title = format!(
            "latency · {HOT} hot keys in a cache of {CAPACITY}, another thread inserting · {rounds} rounds of {} lookups",
            self.samples
        );
        let versus = format!("/ {}", self.series[0].name);
        let versus = versus.as_str();
        let mut table = Table::new(["", "p50 ns", versus, "p99 ns", versus, "p99.9 ns", versus, "misses %"]);
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
        let contestants: Vec<Value> = self
            .rows()
            .map(|row| {
                let [p50, p99, p99_9] = row.ns.map(|ns| ns.json());
                let ratio = row.ratio.map(|ratio| ratio.json());
                json!({
                    "name": row.name,
                    "ns": { "p50": p50, "p99": p99, "p99.9": p99_9 },
                    "ratio_to_first": { "p50": ratio[0], "p99": ratio[1], "p99.9": ratio[2] },
                    "miss_ratio": row.miss_ratio,
                })
            })
            .collect();
        json!({
            "workload": "latency",
            "keys": HOT,
            "capacity": CAPACITY,
            "lookups_per_round": self.samples,
            "rounds": self.series[0].rounds.len(),
            "contestants": contestants,
        })
    }
}
