//! How long does an operation take in ordinary use: look up, and insert on a miss?
//!
//! Ten times more keys than the cache can hold, so a better policy inserts less often: hit ratios stand beside the times.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Cell, Sample, crew_lane};
use crate::{
    contestants::{Contestant, Enlist, Key, Value, every_cache, fresh_value},
    crew::{Crew, Job, Leg},
    effort::Effort,
    random::Random,
    rotation::Lane,
    zipf::Zipf,
};

const CAPACITY: usize = 10_000;
const POPULATION: usize = 10 * CAPACITY;
const EXPONENT: f64 = 0.9;
/// Operations before the first round: enough to fill the cache and to show its policy what is popular.
const WARMING: usize = 20 * CAPACITY;
/// Laps differ, or rare keys would return with the period of a lap.
const LAPS: usize = 8;

struct Mixed {
    crew: Rc<Crew>,
    /// `LAPS` sequences of each worker.
    laps: Arc<Vec<Vec<Vec<Key>>>>,
    lap: usize,
}

pub(crate) fn run(effort: &Effort, mut done: impl FnMut(&Cell)) {
    let zipf = Zipf::new(POPULATION, EXPONENT);
    for &threads in &effort.threads {
        let mut random = Random::new(effort.seed);
        let mut laps_of_a_worker = || (0..LAPS).map(|_| zipf.keys(effort.lap, &mut random)).collect();
        let laps = Arc::new((0..threads).map(|_| laps_of_a_worker()).collect());
        let crew = Rc::new(Crew::new(threads));
        let mixed = Mixed { crew: Rc::clone(&crew), laps, lap: effort.lap };
        let cell = Cell::run("mixed", POPULATION, &crew, effort, || every_cache(&mixed));
        done(&Cell { reports_hit_ratio: true, ..cell });
    }
}

impl Enlist for Mixed {
    type Entry = Lane<Sample>;

    fn enlist<C: Contestant>(&self) -> Self::Entry {
        let cache = C::new(CAPACITY);
        for &key in self.laps.iter().flatten().flatten().take(WARMING) {
            if cache.get(key).is_none() {
                cache.insert(key, fresh_value());
            }
        }
        let laps = Arc::clone(&self.laps);
        let rounds: Vec<AtomicUsize> = laps.iter().map(|_| AtomicUsize::new(0)).collect();
        let job: Job = Arc::new(move |worker, line| {
            let round = rounds[worker].fetch_add(1, Ordering::Relaxed);
            let keys = &laps[worker][round % LAPS];
            // As many values as a lap could need, allocated before the clock starts and freed after it stops.
            let mut values: Vec<Value> = keys.iter().map(|_| fresh_value()).collect();
            line.wait();
            Leg::timed(|| look_up_or_insert(&cache, keys, &mut values))
        });
        crew_lane(C::NAME, &self.crew, self.lap, job)
    }
}

/// Returns the number of hits.
fn look_up_or_insert<C: Contestant>(cache: &C, keys: &[Key], values: &mut Vec<Value>) -> usize {
    let mut hits = 0;
    for &key in keys {
        if std::hint::black_box(cache.get(key)).is_some() {
            hits += 1;
        } else {
            let value = values.pop().expect("there is a value for every key");
            cache.insert(key, value);
        }
    }
    hits
}
