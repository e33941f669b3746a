//! How long does an insert take when it must evict? Every key is new, and the cache is full.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Cell, Sample, crew_lane};
use crate::{
    contestants::{Contestant, Enlist, Key, Value, every_cache, fresh_value},
    crew::{Crew, Job, Leg},
    effort::Effort,
    random::scatter,
    rotation::Lane,
};

const CAPACITY: usize = 10_000;

struct Insert {
    crew: Rc<Crew>,
    lap: usize,
}

pub(crate) fn run(effort: &Effort, mut done: impl FnMut(&Cell)) {
    for &threads in &effort.threads {
        let crew = Rc::new(Crew::new(threads));
        let insert = Insert { crew: Rc::clone(&crew), lap: effort.lap };
        done(&Cell::run("insert", CAPACITY, &crew, effort, || every_cache(&insert)));
    }
}

impl Enlist for Insert {
    type Entry = Lane<Sample>;

    fn enlist<C: Contestant>(&self) -> Self::Entry {
        let cache = C::new(CAPACITY);
        let unique = UniqueKeys::default();
        for (key, value) in unique.entries(2 * CAPACITY) {
            cache.insert(key, value);
        }
        cache.settle();

        let lap = self.lap;
        let job: Job = Arc::new(move |_, line| {
            // Values are allocated before the clock starts. Dropping evicted ones is part of an insert.
            let entries = unique.entries(lap);
            line.wait();
            Leg::timed(|| {
                for (key, value) in entries {
                    cache.insert(key, value);
                }
                0
            })
        });
        crew_lane(C::NAME, &self.crew, lap, job)
    }
}

/// Hands out keys that were never handed out before.
#[derive(Default)]
pub(super) struct UniqueKeys {
    next: AtomicU64,
}

impl UniqueKeys {
    pub(super) fn entries(&self, count: usize) -> Vec<(Key, Value)> {
        let first = self.next.fetch_add(count as u64, Ordering::Relaxed);
        (first..first + count as u64).map(|number| (scatter(number), fresh_value())).collect()
    }
}
