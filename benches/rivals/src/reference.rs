//! Textbook policies, exact and slow: one order over all entries, of which the lowest goes.

use std::collections::BTreeSet;

/// A policy by what it ranks entries by. Ties are broken by recency.
pub(crate) trait Ranking {
    const NAME: &'static str;

    /// The rank of a key that was accessed so often, its latest access included.
    fn rank(accesses: u64) -> u64;
}

/// The least recently used goes.
pub(crate) struct Lru;

/// The least frequently used goes, counted over all of the past: what sketches of frequency approximate, without their
/// forgetting. (Counting from zero after each insertion does much worse: newcomers evict one another.)
pub(crate) struct Lfu;

impl Ranking for Lru {
    const NAME: &'static str = "LRU";

    fn rank(_accesses: u64) -> u64 {
        0
    }
}

impl Ranking for Lfu {
    const NAME: &'static str = "LFU";

    fn rank(accesses: u64) -> u64 {
        accesses
    }
}

/// How many of `accesses`, each below `distinct`, hit in a cache of `capacity` entries.
pub(crate) fn hits<R: Ranking>(accesses: &[u32], distinct: usize, capacity: usize) -> usize {
    #[derive(Clone, Default)]
    struct Past {
        accesses: u64,
        last: usize,
        resident: bool,
    }
    let mut pasts = vec![Past::default(); distinct];
    let mut order: BTreeSet<(u64, usize, u32)> = BTreeSet::new();
    let mut hits = 0;
    for (now, &key) in accesses.iter().enumerate() {
        let past = &pasts[key as usize];
        if past.resident {
            hits += 1;
            order.remove(&(R::rank(past.accesses), past.last, key));
        } else if order.len() == capacity {
            let (_, _, victim) = order.pop_first().expect("a full cache holds an entry");
            pasts[victim as usize].resident = false;
        }
        let past = &mut pasts[key as usize];
        *past = Past { accesses: past.accesses + 1, last: now, resident: true };
        order.insert((R::rank(past.accesses), now, key));
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lru_evicts_what_was_not_used() {
        // 0 is used again and stays; 1 goes.
        assert_eq!(hits::<Lru>(&[0, 1, 0, 2, 0, 1], 3, 2), 2);
    }

    #[test]
    fn lru_never_hits_in_a_loop() {
        assert_eq!(hits::<Lru>(&[0, 1, 2, 0, 1, 2, 0, 1, 2], 3, 2), 0);
    }

    #[test]
    fn lfu_keeps_the_frequent_through_a_scan() {
        let accesses = [0, 0, 0, 1, 2, 3, 0];
        assert_eq!(hits::<Lfu>(&accesses, 4, 2), 3);
        assert_eq!(hits::<Lru>(&accesses, 4, 2), 2);
    }

    #[test]
    fn lfu_breaks_ties_by_recency() {
        // 0 and 1 were used once each: 0, the older, goes for 2.
        assert_eq!(hits::<Lfu>(&[0, 1, 2, 1], 3, 2), 1);
        assert_eq!(hits::<Lfu>(&[0, 1, 2, 0], 3, 2), 0);
    }

    #[test]
    fn lfu_remembers_the_evicted() {
        // 0 goes for 2 with two accesses, and with three of them outlasts 1.
        assert_eq!(hits::<Lfu>(&[0, 0, 1, 1, 1, 2, 0, 3, 0], 4, 2), 4);
    }

    #[test]
    fn lru_agrees_with_a_list() {
        let mut random = crate::random::Random::new(5);
        for capacity in 1..8 {
            let accesses: Vec<u32> = (0..500).map(|_| random.below(12) as u32).collect();
            let mut list: Vec<u32> = Vec::new();
            let mut expected = 0;
            for &key in &accesses {
                if let Some(at) = list.iter().position(|&held| held == key) {
                    expected += 1;
                    list.remove(at);
                } else if list.len() == capacity {
                    list.remove(0);
                }
                list.push(key);
            }
            assert_eq!(hits::<Lru>(&accesses, 12, capacity), expected, "capacity {capacity}");
        }
    }
}
