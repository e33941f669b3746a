//! The optimum: what no policy can beat.
//!
//! Belady's MIN, with bypass: of the resident entries and the newcomer, the one whose next access lies farthest ahead has
//! to go, and where that is the newcomer, it is not admitted. Belady's original must admit every newcomer, and so does
//! not bound policies that may refuse one, as TinyLFU does; this one bounds both kinds.

use std::collections::BinaryHeap;

const NEVER: usize = usize::MAX;

/// How many of `accesses`, each below `distinct`, hit in an optimal cache of `capacity` entries.
pub(crate) fn optimal_hits(accesses: &[u32], distinct: usize, capacity: usize) -> usize {
    let next = next_accesses(accesses, distinct);
    let mut resident = vec![false; distinct];
    let mut held = 0;
    let mut hits = 0;
    // Next access and key of whatever is resident. A hit leaves its old element behind, whose time has then come: it is
    // smaller than that of any resident entry, so it never surfaces while there is one.
    let mut farthest: BinaryHeap<(usize, u32)> = BinaryHeap::new();
    for (&key, &next) in accesses.iter().zip(&next) {
        if resident[key as usize] {
            hits += 1;
        } else if held < capacity {
            resident[key as usize] = true;
            held += 1;
        } else {
            match farthest.peek() {
                Some(&(latest, victim)) if latest > next => {
                    farthest.pop();
                    resident[victim as usize] = false;
                    resident[key as usize] = true;
                }
                _ => continue,
            }
        }
        farthest.push((next, key));
    }
    hits
}

/// For every access, when its key is accessed next.
fn next_accesses(accesses: &[u32], distinct: usize) -> Vec<usize> {
    let mut upcoming = vec![NEVER; distinct];
    let mut next = vec![NEVER; accesses.len()];
    for (time, &key) in accesses.iter().enumerate().rev() {
        next[time] = std::mem::replace(&mut upcoming[key as usize], time);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// The best of every choice that demand fetching leaves: on a miss, evict any entry or none and refuse the newcomer.
    fn best_of_all(accesses: &[u32], resident: &mut Vec<u32>, capacity: usize) -> usize {
        let Some((&key, rest)) = accesses.split_first() else { return 0 };
        if resident.contains(&key) {
            return 1 + best_of_all(rest, resident, capacity);
        }
        let mut best = best_of_all(rest, resident, capacity);
        if resident.len() < capacity {
            resident.push(key);
            best = best.max(best_of_all(rest, resident, capacity));
            resident.pop();
        } else {
            for slot in 0..resident.len() {
                let victim = std::mem::replace(&mut resident[slot], key);
                best = best.max(best_of_all(rest, resident, capacity));
                resident[slot] = victim;
            }
        }
        best
    }

    #[test]
    fn agrees_with_exhaustive_search() {
        let mut random = Random::new(11);
        for _ in 0..300 {
            let distinct = 1 + random.below(6);
            let length = 1 + random.below(11);
            let capacity = 1 + random.below(3);
            let accesses: Vec<u32> = (0..length).map(|_| random.below(distinct) as u32).collect();
            let expected = best_of_all(&accesses, &mut Vec::new(), capacity);
            assert_eq!(optimal_hits(&accesses, distinct, capacity), expected, "{accesses:?} with {capacity}");
        }
    }

    #[test]
    fn room_for_all_misses_once_each() {
        assert_eq!(optimal_hits(&[0, 1, 2, 0, 1, 2], 3, 3), 3);
    }

    #[test]
    fn a_loop_keeps_a_part() {
        // LRU would never hit. The newcomer that is needed last is refused.
        assert_eq!(optimal_hits(&[0, 1, 2, 0, 1, 2, 0, 1, 2], 3, 2), 4);
    }
}
