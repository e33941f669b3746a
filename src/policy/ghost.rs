//! The ghost: which keys were evicted of late, as fingerprints, oldest forgotten first.

use std::collections::VecDeque;

use hashbrown::HashTable;

/// How many keys one eviction forgets at most: more than it remembers, and a bound on its work.
const FORGET_AT_ONCE: usize = 8;

/// Remembers keys that were evicted, so that one that returns soon is known. Two keys of one fingerprint pass for one
/// another, once in four thousand million.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    order: VecDeque<Shade>,
    shades: HashTable<Shade>,
    clock: u32,
}

/// A key that was evicted, and when: a key evicted twice stands in the order twice, and the older place counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shade {
    fingerprint: u32,
    evicted_at: u32,
}

impl Ghost {
    /// Remembers the key with this hash, and of the others at most the `capacity - 1` evicted last. After a fall of the
    /// capacity that takes several calls, since each forgets a few at most.
    pub(super) fn remember(&mut self, hash: u64, capacity: usize) {
        let fingerprint = fingerprint(hash);
        self.clock = self.clock.wrapping_add(1);
        let shade = Shade { fingerprint, evicted_at: self.clock };
        match self.shades.find_mut(table_hash(fingerprint), |known| known.fingerprint == fingerprint) {
            Some(known) => *known = shade,
            None => {
                self.shades.insert_unique(table_hash(fingerprint), shade, |shade| table_hash(shade.fingerprint));
            }
        }
        self.order.push_back(shade);
        for _ in 0..FORGET_AT_ONCE {
            if self.order.len() <= capacity.max(1) {
                break;
            }
            self.forget_oldest();
        }
    }

    /// Forgets the key with this hash, and returns whether it was known.
    pub(super) fn recall(&mut self, hash: u64) -> bool {
        let fingerprint = fingerprint(hash);
        match self.shades.find_entry(table_hash(fingerprint), |known| known.fingerprint == fingerprint) {
            Ok(known) => {
                known.remove();
                true
            }
            Err(_) => false,
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front()
            && let Ok(known) = self.shades.find_entry(table_hash(oldest.fingerprint), |known| *known == oldest)
        {
            known.remove();
        }
    }
}

fn fingerprint(hash: u64) -> u32 {
    (hash >> 16) as u32
}

/// Spreads a fingerprint over the 64 bits that a table looks at (Fibonacci hashing).
fn table_hash(fingerprint: u32) -> u64 {
    u64::from(fingerprint).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        key << 16
    }

    #[test]
    fn it_knows_a_key_once_and_the_last_ones_only() {
        let mut ghost = Ghost::default();
        for key in 0..10 {
            ghost.remember(hash(key), 4);
        }
        assert!(!ghost.recall(hash(5)));
        assert!(ghost.recall(hash(6)));
        assert!(!ghost.recall(hash(6)));
    }

    #[test]
    fn a_fall_of_the_capacity_is_followed_a_few_keys_at_a_time() {
        let mut ghost = Ghost::default();
        for key in 0..1_000 {
            ghost.remember(hash(key), 1_000);
        }
        ghost.remember(hash(1_000), 1);
        assert_eq!(ghost.order.len(), 1_001 - FORGET_AT_ONCE);
        for key in 1_001..1_200 {
            ghost.remember(hash(key), 1);
        }
        assert_eq!((ghost.order.len(), ghost.shades.len()), (1, 1));
    }

    #[test]
    fn a_key_evicted_again_counts_from_its_last_eviction() {
        let mut ghost = Ghost::default();
        for key in [1, 2, 1, 3, 4] {
            ghost.remember(hash(key), 3);
        }
        // The order holds 1, 3, 4: the first 1 has been forgotten, the second not.
        assert!(ghost.recall(hash(1)));
        assert!(!ghost.recall(hash(2)));
        assert_eq!(ghost.shades.len(), 2);
    }
}
