//! The other thread inserts new keys into a full cache, without pause.

use std::sync::Arc;

use super::{Latency, Tail, beside, compare, hot_keys, insert_hot, time_hits};
use crate::{
    contestants::{Contestant, Enlist, Key, every_lookup},
    effort::Effort,
    rotation::Lane,
    workload::insert::UniqueKeys,
};

const CAPACITY: usize = 10_000;
/// Inserts between two looks at whether the round is over.
const BATCH: usize = 256;

struct UnderInserts {
    keys: Arc<Vec<Key>>,
}

pub(super) fn measure(effort: &Effort) -> Latency {
    let hits = UnderInserts { keys: Arc::new(hot_keys(effort)) };
    Latency {
        under: "inserts",
        setting: format!("another thread inserting into the full cache of {CAPACITY}"),
        capacity: CAPACITY,
        series: compare(effort, || every_lookup(&hits)),
    }
}

impl Enlist for UnderInserts {
    type Entry = Lane<Tail>;

    fn enlist<C: Contestant>(&self) -> Self::Entry {
        let cache = C::new(CAPACITY);
        let unique = UniqueKeys::default();
        insert_hot(&cache);
        for (key, value) in unique.entries(2 * CAPACITY) {
            cache.insert(key, value);
        }
        cache.settle();
        let keys = Arc::clone(&self.keys);
        let round = move || {
            let disturb = || {
                for (key, value) in unique.entries(BATCH) {
                    cache.insert(key, value);
                }
            };
            beside(disturb, || time_hits(&cache, keys.iter().copied()))
        };
        Lane { name: C::NAME, round: Box::new(round) }
    }
}
