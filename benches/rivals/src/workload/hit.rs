//! How long does a hit take? Everything is resident, and popular keys are asked for as Zipf's law has it.

use std::{rc::Rc, sync::Arc};

use super::{Cell, Sample, crew_lane, look_up};
use crate::{
    contestants::{Contestant, Enlist, Key, every_lookup, fresh_value},
    crew::{Crew, Job, Leg},
    effort::Effort,
    random::Random,
    rotation::Lane,
    zipf::{Zipf, key_of_rank},
};

/// A set that fits into a core's own cache, and one that does not.
const POPULATIONS: [usize; 2] = [1_000, 50_000];
const EXPONENT: f64 = 0.99;

struct Hit {
    population: usize,
    crew: Rc<Crew>,
    laps: Arc<Vec<Vec<Key>>>,
}

pub(crate) fn run(effort: &Effort, mut done: impl FnMut(&Cell)) {
    for population in POPULATIONS {
        let zipf = Zipf::new(population, EXPONENT);
        for &threads in &effort.threads {
            let mut random = Random::new(effort.seed);
            let crew = Rc::new(Crew::new(threads));
            let laps = Arc::new((0..threads).map(|_| zipf.keys(effort.lap, &mut random)).collect());
            let hit = Hit { population, crew: Rc::clone(&crew), laps };
            done(&Cell::run("hit", population, &crew, effort, || every_lookup(&hit)));
        }
    }
}

impl Enlist for Hit {
    type Entry = Lane<Sample>;

    fn enlist<C: Contestant>(&self) -> Self::Entry {
        let cache = C::new(2 * self.population);
        for rank in 0..self.population {
            cache.insert(key_of_rank(rank), fresh_value());
        }
        cache.settle();

        let laps = Arc::clone(&self.laps);
        let job: Job = Arc::new(move |worker, line| {
            let keys = &laps[worker];
            // Brings back what the contestants before this one have pushed out of the processor's caches.
            look_up(&cache, keys);
            line.wait();
            let leg = Leg::timed(|| look_up(&cache, keys));
            assert_eq!(leg.hits(), keys.len(), "{} has lost entries with room to spare", C::NAME);
            leg
        });
        crew_lane(C::NAME, &self.crew, self.laps[0].len(), job)
    }
}
