//! How long does it take to learn that a key is absent?

use std::{rc::Rc, sync::Arc};

use super::{Cell, Sample, crew_lane, look_up};
use crate::{
    contestants::{Contestant, Enlist, Key, every_lookup, fresh_value},
    crew::{Crew, Job, Leg},
    effort::Effort,
    random::Random,
    rotation::Lane,
    zipf::key_of_rank,
};

const POPULATION: usize = 50_000;
const ABSENT: usize = 1_000_000;

struct Miss {
    crew: Rc<Crew>,
    laps: Arc<Vec<Vec<Key>>>,
}

pub(crate) fn run(effort: &Effort, mut done: impl FnMut(&Cell)) {
    for &threads in &effort.threads {
        let mut random = Random::new(effort.seed);
        let crew = Rc::new(Crew::new(threads));
        let laps = Arc::new((0..threads).map(|_| absent_keys(effort.lap, &mut random)).collect());
        let miss = Miss { crew: Rc::clone(&crew), laps };
        done(&Cell::run("miss", POPULATION, &crew, effort, || every_lookup(&miss)));
    }
}

fn absent_keys(count: usize, random: &mut Random) -> Vec<Key> {
    (0..count).map(|_| key_of_rank(POPULATION + random.below(ABSENT))).collect()
}

impl Enlist for Miss {
    type Entry = Lane<Sample>;

    fn enlist<C: Contestant>(&self) -> Self::Entry {
        let cache = C::new(2 * POPULATION);
        for rank in 0..POPULATION {
            cache.insert(key_of_rank(rank), fresh_value());
        }
        cache.settle();

        let laps = Arc::clone(&self.laps);
        let job: Job = Arc::new(move |worker, line| {
            let keys = &laps[worker];
            look_up(&cache, keys);
            line.wait();
            let leg = Leg::timed(|| look_up(&cache, keys));
            assert_eq!(leg.hits(), 0, "{} has made entries up", C::NAME);
            leg
        });
        crew_lane(C::NAME, &self.crew, self.laps[0].len(), job)
    }
}
