//! The other thread fills the cache, which was empty but for the hot keys, until it is large: its tables grow beneath the
//! hits.
//!
//! A round lasts as long as the filling does, so that a slow one is not cut short, and each round has a cache of its own.
//! A cache that takes the room for all of its capacity when it is built has nothing left to grow: the results on memory
//! show what it holds while it is empty.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::thread;

use super::{Latency, Tail, compare, hot_keys, insert_hot, time_hits};
use crate::{
    contestants::{Contestant, Enlist, Key, every_lookup},
    effort::Effort,
    rotation::Lane,
    workload::insert::UniqueKeys,
};

/// Values allocated ahead of as many inserts.
const BATCH: usize = 256;

struct UnderGrowth {
    keys: Arc<Vec<Key>>,
    population: usize,
}

pub(super) fn measure(effort: &Effort) -> Latency {
    let population = effort.growth;
    let hits = UnderGrowth { keys: Arc::new(hot_keys(effort)), population };
    // What a new instance changes, every round of this workload has anew.
    let effort = Effort { instances: effort.instances, warm_ups: 0, rounds: 1, ..effort.clone() };
    Latency {
        under: "growth",
        setting: format!("another thread filling the cache from empty to {population} entries"),
        capacity: 2 * population,
        series: compare(&effort, || every_lookup(&hits)),
    }
}

impl Enlist for UnderGrowth {
    type Entry = Lane<Tail>;

    fn enlist<C: Contestant>(&self) -> Self::Entry {
        let keys = Arc::clone(&self.keys);
        let population = self.population;
        let round = move || {
            let cache = C::new(2 * population);
            insert_hot(&cache);
            let tail = while_growing(&cache, population, |grown| {
                // The first lap is gone through in any case: a machine that is busy otherwise may let the other thread
                // come to its end before this one has looked once.
                let further = keys.iter().copied().cycle().take_while(|_| !grown.load(Ordering::Relaxed));
                time_hits(&cache, keys.iter().copied().chain(further))
            });
            cache.settle();
            let held = cache.resident();
            assert!(held >= population, "{} has {held} of {population} entries, with room to spare", C::NAME);
            tail
        };
        Lane { name: C::NAME, round: Box::new(round) }
    }
}

/// Runs `measure` on this thread while another inserts `population` entries. The flag that it is given rises at the end.
fn while_growing<C: Contestant, R>(cache: &C, population: usize, measure: impl FnOnce(&AtomicBool) -> R) -> R {
    let begun = AtomicBool::new(false);
    let grown = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let unique = UniqueKeys::default();
            for _ in 0..population.div_ceil(BATCH) {
                for (key, value) in unique.entries(BATCH) {
                    cache.insert(key, value);
                }
                begun.store(true, Ordering::Relaxed);
            }
            grown.store(true, Ordering::Relaxed);
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        measure(&grown)
    })
}
