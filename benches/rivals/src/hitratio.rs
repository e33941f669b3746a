//! What share of a trace's accesses hits, beside textbook policies and the optimum.
//!
//! Every access is a `get`, and an `insert` where it missed, on one thread.
//!
//! A cache that puts the work of inserts off holds more than its capacity meanwhile, and where the capacity is 64 entries,
//! up to twice as much. So such a cache takes part twice: as its users run it, and settled after every insert. The
//! difference is large: on seven recorded traces moka's mean is 48 % in the first way and 43 % in the second. Only a part
//! of it is the additional room, for it shows with 18,688 entries too; an entry that waits can also be hit before it is
//! judged. Whoever held noticeably more than the capacity has its hit ratio shown, but is not a rival to be beaten in that
//! cell.
//!
//! Some contestants seed their hashes at random, so that the last digit may differ from run to run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    belady,
    contestants::{Contestant, Enlist, Key, every_policy, fresh_value},
    reference::{self, Lfu, Lru, Ranking},
    report::Section,
    table::Table,
    trace::Trace,
};

/// Cache sizes as shares of the distinct keys: those that the means are taken over.
const SIZES: [f64; 3] = [0.001, 0.01, 0.1];
/// Those between and beyond them, for a curve.
const CURVE: [f64; 5] = [0.002, 0.005, 0.02, 0.05, 0.2];
/// The sizes of `SIZES` are at least that; those of a curve are left out below it, and close above it.
const SMALLEST: usize = 64;
/// A prime, so as not to fall in with the period of any cache's maintenance.
const INSPECT_EVERY: usize = 1_009;
const OPTIMUM: &str = "optimum";

/// What one policy achieved in one cell.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    name: &'static str,
    hit_ratio: f64,
    /// The most entries that it was seen to hold.
    most_held: usize,
}

impl Outcome {
    /// Whether it got along with its capacity, but for what shards round up.
    fn kept_within(&self, capacity: usize) -> bool {
        self.most_held <= capacity + capacity / 16
    }
}

/// One trace with one cache size.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    trace: String,
    capacity: usize,
    /// Whether it is one of the sizes that the means are taken over.
    counts: bool,
    outcomes: Vec<Outcome>,
}

/// All sizes of one trace.
pub(crate) struct TraceResult {
    trace: String,
    requests: usize,
    distinct: usize,
    cells: Vec<Cell>,
}

/// What remains of many traces.
pub(crate) struct Overall {
    means: Vec<(&'static str, f64)>,
    cells: usize,
    worst: Option<WorstCell>,
}

/// Replays `trace` with every size, or with those alone that the means are taken over.
pub(crate) fn replay(trace: &Trace, curve: bool) -> TraceResult {
    let sizes = capacities(trace.distinct, curve).into_iter();
    let cells = sizes.map(|(capacity, counts)| replay_cell(trace, capacity, counts)).collect();
    TraceResult { trace: trace.name.clone(), requests: trace.accesses.len(), distinct: trace.distinct, cells }
}

/// In ascending order, each once, and whether it counts for the means: with few distinct keys, several shares are the
/// smallest cache.
fn capacities(distinct: usize, curve: bool) -> BTreeMap<usize, bool> {
    let entries = |share: &f64| (share * distinct as f64).round() as usize;
    let between = CURVE.iter().filter(|_| curve).map(entries).filter(|&capacity| capacity > SMALLEST + SMALLEST / 4);
    let counting = SIZES.iter().map(|share| (entries(share).max(SMALLEST), true));
    // Of a size that is both, the latter stays.
    between.map(|capacity| (capacity, false)).chain(counting).collect()
}

fn replay_cell(trace: &Trace, capacity: usize, counts: bool) -> Cell {
    let mut outcomes = every_policy(&Replay { trace, capacity });
    outcomes.push(simulate::<Lru>(trace, capacity));
    outcomes.push(simulate::<Lfu>(trace, capacity));
    let hits = belady::optimal_hits(&trace.accesses, trace.distinct, capacity);
    outcomes.push(Outcome { name: OPTIMUM, hit_ratio: share(hits, trace), most_held: capacity });
    Cell { trace: trace.name.clone(), capacity, counts, outcomes }
}

struct Replay<'t> {
    trace: &'t Trace,
    capacity: usize,
}

impl Enlist for Replay<'_> {
    type Entry = Outcome;

    fn enlist<C: Contestant>(&self) -> Outcome {
        let cache = C::new(self.capacity);
        let value = fresh_value();
        let mut hits = 0;
        let mut most_held = 0;
        for (time, &number) in self.trace.accesses.iter().enumerate() {
            let key = Key::from(number);
            if cache.get(key).is_some() {
                hits += 1;
            } else {
                cache.insert(key, value.clone());
            }
            if time % INSPECT_EVERY == 0 {
                most_held = most_held.max(cache.resident());
            }
        }
        Outcome { name: C::NAME, hit_ratio: share(hits, self.trace), most_held }
    }
}

fn simulate<R: Ranking>(trace: &Trace, capacity: usize) -> Outcome {
    let hits = reference::hits::<R>(&trace.accesses, trace.distinct, capacity);
    Outcome { name: R::NAME, hit_ratio: share(hits, trace), most_held: capacity }
}

fn share(hits: usize, trace: &Trace) -> f64 {
    hits as f64 / trace.accesses.len() as f64
}

impl Cell {
    fn of(&self, name: &str) -> Option<f64> {
        self.outcomes.iter().find(|outcome| outcome.name == name).map(|outcome| outcome.hit_ratio)
    }

    /// The best of those that kept within the capacity and do not know the future, `subject` itself left out.
    fn best_rival(&self, subject: &str) -> Option<&Outcome> {
        let rivals = self.outcomes.iter().filter(|outcome| ![subject, OPTIMUM].contains(&outcome.name));
        let rivals = rivals.filter(|outcome| outcome.kept_within(self.capacity));
        rivals.max_by(|a, b| a.hit_ratio.total_cmp(&b.hit_ratio))
    }
}

/// The cell in which a policy is farthest behind its best rival there.
#[derive(Debug, Clone)]
struct WorstCell {
    subject: &'static str,
    cell: Cell,
    rival: Outcome,
    /// Negative when the rival is ahead.
    lead: f64,
}

impl WorstCell {
    /// `None` when `subject` did not take part.
    fn of(subject: &'static str, cells: &[&Cell]) -> Option<Self> {
        let leads = cells.iter().filter_map(|&cell| {
            let rival = cell.best_rival(subject)?.clone();
            let lead = cell.of(subject)? - rival.hit_ratio;
            Some(Self { subject, cell: cell.clone(), rival, lead })
        });
        leads.min_by(|a, b| a.lead.total_cmp(&b.lead))
    }

    fn text(&self) -> String {
        let Self { subject, cell: Cell { trace, capacity, .. }, rival, lead } = self;
        let lead = 100.0 * lead;
        format!("{subject}'s worst cell: {lead:+.2} points against {} ({trace}, {capacity} entries)", rival.name)
    }

    fn json(&self) -> Value {
        let Self { subject, cell, rival, lead } = self;
        json!({
            "subject": subject,
            "trace": cell.trace,
            "capacity": cell.capacity,
            "best_rival": rival.name,
            "lead": lead,
        })
    }
}

impl Overall {
    /// # Panics
    /// If there is no result.
    pub(crate) fn of(results: &[TraceResult]) -> Self {
        let cells: Vec<&Cell> = results.iter().flat_map(|result| &result.cells).filter(|cell| cell.counts).collect();
        let names = cells[0].outcomes.iter().map(|outcome| outcome.name);
        let mean = |name| cells.iter().filter_map(|cell| cell.of(name)).sum::<f64>() / cells.len() as f64;
        Self {
            means: names.map(|name| (name, mean(name))).collect(),
            cells: cells.len(),
            worst: WorstCell::of("larder", &cells),
        }
    }
}

impl Section for TraceResult {
    fn text(&self) -> String {
        let names = self.cells[0].outcomes.iter().map(|outcome| outcome.name);
        let mut table = Table::new(["entries"].into_iter().chain(names));
        let mut overfull = Vec::new();
        for Cell { capacity, outcomes, .. } in &self.cells {
            let ratios = outcomes.iter().map(|outcome| format!("{:.2}", 100.0 * outcome.hit_ratio));
            table.row([capacity.to_string()].into_iter().chain(ratios));
            for Outcome { name, most_held, .. } in outcomes.iter().filter(|outcome| !outcome.kept_within(*capacity)) {
                overfull.push(format!("  {name} held up to {most_held} entries where {capacity} are allowed\n"));
            }
        }
        let Self { trace, requests, distinct, .. } = self;
        format!("hit ratio in % · {trace} · {requests} requests, {distinct} distinct\n{table}{}", overfull.concat())
    }

    fn json(&self) -> Value {
        let cell = |cell: &Cell| {
            let outcome = |outcome: &Outcome| {
                let Outcome { name, hit_ratio, most_held } = outcome;
                json!({
                    "name": name,
                    "hit_ratio": hit_ratio,
                    "most_held": most_held,
                    "kept_within_capacity": outcome.kept_within(cell.capacity),
                })
            };
            json!({
                "capacity": cell.capacity,
                "counts": cell.counts,
                "contestants": cell.outcomes.iter().map(outcome).collect::<Vec<_>>(),
            })
        };
        json!({
            "workload": "hit ratio",
            "trace": self.trace,
            "requests": self.requests,
            "distinct": self.distinct,
            "cells": self.cells.iter().map(cell).collect::<Vec<_>>(),
        })
    }
}

impl Section for Overall {
    fn text(&self) -> String {
        let mut table = Table::new([""].into_iter().chain(self.means.iter().map(|(name, _)| *name)));
        let means = self.means.iter().map(|(_, mean)| format!("{:.2}", 100.0 * mean));
        table.row(["mean".to_owned()].into_iter().chain(means));
        let worst = self.worst.as_ref().map_or_else(String::new, |worst| format!("  {}\n", worst.text()));
        format!("hit ratio in % · mean of {} cells\n{table}{worst}", self.cells)
    }

    fn json(&self) -> Value {
        let means = self.means.iter().map(|(name, mean)| json!({ "name": name, "hit_ratio": mean }));
        json!({
            "workload": "hit ratio, overall",
            "cells": self.cells,
            "means": means.collect::<Vec<_>>(),
            "worst_cell": self.worst.as_ref().map(WorstCell::json),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(trace: &str, ratios: &[(&'static str, f64)]) -> Cell {
        let outcomes =
            ratios.iter().map(|&(name, hit_ratio)| Outcome { name, hit_ratio, most_held: SMALLEST }).collect();
        Cell { trace: trace.to_owned(), capacity: SMALLEST, counts: true, outcomes }
    }

    #[test]
    fn small_traces_share_the_smallest_cache() {
        assert_eq!(capacities(1_496, false), [(64, true), (150, true)].into());
        assert_eq!(capacities(100_000, false), [(100, true), (1_000, true), (10_000, true)].into());
    }

    #[test]
    fn a_curve_adds_sizes_that_do_not_count() {
        assert_eq!(capacities(1_496, true), [(64, true), (150, true), (299, false)].into());
        let mut result = replay(&Trace::synthetic(5_000, 1), true);
        let counting = Overall::of(&[replay(&Trace::synthetic(5_000, 1), false)]).cells;
        assert!(result.cells.len() > counting);
        assert_eq!(Overall::of(std::slice::from_ref(&result)).cells, counting);
        result.cells.retain(|cell| cell.counts);
        assert_eq!(result.cells.len(), counting);
    }

    #[test]
    fn the_worst_cell_is_farthest_behind_its_best_rival() {
        let close = cell("close", &[("us", 0.5), ("a", 0.51), ("b", 0.4), (OPTIMUM, 0.9)]);
        let behind = cell("behind", &[("us", 0.5), ("a", 0.1), ("b", 0.6), (OPTIMUM, 0.7)]);
        let worst = WorstCell::of("us", &[&close, &behind]).unwrap();
        assert_eq!((worst.cell.trace.as_str(), worst.rival.name), ("behind", "b"));
        assert!((worst.lead + 0.1).abs() < 1e-9);
        assert!(WorstCell::of("absent", &[&close]).is_none());
    }

    #[test]
    fn more_room_is_no_better_policy() {
        let mut cell = cell("t", &[("us", 0.5), ("roomy", 0.9), ("a", 0.6)]);
        cell.outcomes[1].most_held = 2 * SMALLEST;
        assert_eq!(cell.best_rival("us").unwrap().name, "a");
    }

    #[test]
    fn nobody_beats_the_optimum() {
        let trace = Trace::synthetic(30_000, 1);
        for cell in replay(&trace, false).cells {
            let optimum = cell.of(OPTIMUM).unwrap();
            for outcome in &cell.outcomes {
                let more_room = outcome.most_held > cell.capacity;
                assert!(outcome.hit_ratio <= optimum || more_room, "{} with {} entries", outcome.name, cell.capacity);
            }
        }
    }
}
