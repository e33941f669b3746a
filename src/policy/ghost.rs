//! The ghost: which keys were evicted of late, from which queue, and when.

use super::queue::QueueName;

/// How many evicted keys one bucket remembers: 64 bytes of them.
const BUCKET: usize = 16;

/// How many evicted keys there is room for, for every two residents. More than what is of use, two for each, since keys
/// spread unevenly over the buckets.
const SLOTS_FOR_TWO: usize = 5;

/// Into how many steps, at least, the time is divided in which as many keys come as there are residents.
const STEPS: usize = 32;

/// How a shade is kept, from the highest bit: 16 bits of fingerprint, one of queue, and 15 of the time, in steps. A shade that
/// is older than they can tell passes for a younger one: after the time in which 512 keys came for each resident at the
/// earliest, while its slot is used again after a few.
const FINGERPRINT_SHIFT: u32 = 16;
const MAIN_BIT: u32 = 1 << 15;
const TIME_MASK: u32 = MAIN_BIT - 1;

/// Remembers keys that were evicted by fingerprints of 16 bits, in one bucket each: a stranger passes for one of them once in
/// four thousand times.
///
/// It takes no memory until the first eviction, and 10 bytes for each resident from then on. When there are many more
/// residents than it was made for, or far fewer, it begins anew and has forgotten everything.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    // Arrays of integers, so that a large ghost is mapped, not filled: no eviction pays for all of it. Zero is a vacancy.
    /// Each from the youngest to the oldest, vacancies last.
    buckets: Box<[[u32; BUCKET]]>,
    /// For how many residents it was made.
    residents: usize,
    /// What the clock is divided by, as a power of two.
    step_log2: u32,
}

/// An eviction that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shade {
    pub(super) queue: QueueName,
    /// How long ago it was, give or take a [`step`](Ghost::step).
    pub(super) age: u32,
}

impl Ghost {
    /// Remembers that the key with this hash left `queue` at the moment `now`. There were so many residents till then.
    pub(super) fn remember(&mut self, hash: u64, queue: QueueName, now: u32, residents: usize) {
        // Far apart, so that it does not forget each time when the number of residents goes up and down.
        if residents > self.residents.saturating_add(self.residents / 2) || residents < self.residents / 4 {
            *self = Ghost::sized_for(residents);
        }
        let (bucket, fingerprint) = self.place(hash);
        let queue = if queue == QueueName::Main { MAIN_BIT } else { 0 };
        let shade = fingerprint << FINGERPRINT_SHIFT | queue | self.time(now);
        let bucket = &mut self.buckets[bucket];
        bucket.copy_within(..BUCKET - 1, 1);
        bucket[0] = shade;
    }

    /// Forgets the key with this hash, and returns what was known of it.
    pub(super) fn recall(&mut self, hash: u64, now: u32) -> Option<Shade> {
        if self.buckets.is_empty() {
            return None;
        }
        let (bucket, fingerprint) = self.place(hash);
        let bucket = &mut self.buckets[bucket];
        let is_it = |&shade: &u32| shade >> FINGERPRINT_SHIFT == fingerprint;
        // All of them, without a branch, since as a rule it is none.
        if !bucket.iter().fold(false, |any, shade| any | is_it(shade)) {
            return None;
        }
        let slot = bucket.iter().position(is_it)?;
        let shade = bucket[slot];
        bucket.copy_within(slot + 1.., slot);
        bucket[BUCKET - 1] = 0;
        let queue = if shade & MAIN_BIT == 0 { QueueName::Small } else { QueueName::Main };
        let age = (self.time(now).wrapping_sub(shade) & TIME_MASK) << self.step_log2;
        Some(Shade { queue, age })
    }

    /// Returns the smallest difference of times that it can tell.
    pub(super) fn step(&self) -> u32 {
        1 << self.step_log2
    }

    fn sized_for(residents: usize) -> Ghost {
        let slots = residents.saturating_mul(SLOTS_FOR_TWO).div_ceil(2);
        Ghost {
            buckets: vec![[0; BUCKET]; slots.div_ceil(BUCKET)].into_boxed_slice(),
            residents,
            step_log2: (residents / STEPS).max(1).ilog2(),
        }
    }

    /// Panics unless every bucket has its vacancies last.
    #[cfg(test)]
    pub(super) fn validate(&self) {
        assert!(self.buckets.iter().all(|bucket| bucket.is_sorted_by_key(|&shade| shade == 0)));
    }

    fn time(&self, now: u32) -> u32 {
        (now >> self.step_log2) & TIME_MASK
    }

    /// Returns the bucket and the fingerprint of a key, never zero. There is a bucket.
    fn place(&self, hash: u64) -> (usize, u32) {
        // Fibonacci hashing: the bits that all keys of a shard share decide neither.
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bucket = ((mixed >> 32) * self.buckets.len() as u64) >> 32;
        let fingerprint = ((mixed >> 16) & 0xFFFF).max(1);
        (bucket as usize, fingerprint as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remember(ghost: &mut Ghost, keys: std::ops::Range<u64>, residents: usize) {
        keys.for_each(|key| ghost.remember(key, QueueName::Small, key as u32, residents));
    }

    #[test]
    fn it_knows_a_key_once_with_its_queue_and_age() {
        let mut ghost = Ghost::default();
        assert_eq!(ghost.recall(1, 0), None);
        ghost.remember(1, QueueName::Small, 100, 10);
        ghost.remember(2, QueueName::Main, 107, 10);
        assert_eq!(ghost.recall(1, 110), Some(Shade { queue: QueueName::Small, age: 10 }));
        assert_eq!(ghost.recall(2, 110), Some(Shade { queue: QueueName::Main, age: 3 }));
        assert_eq!((ghost.recall(1, 110), ghost.recall(2, 110)), (None, None));
    }

    #[test]
    fn it_knows_nearly_all_of_the_last_two_for_each_resident_and_few_before() {
        let mut ghost = Ghost::default();
        remember(&mut ghost, 0..20_000, 1_000);
        ghost.validate();
        let known = |ghost: &mut Ghost, keys: std::ops::Range<u64>| {
            keys.filter(|&key| {
                ghost.recall(key, 20_000).is_some_and(|shade| shade.age.abs_diff(20_000 - key as u32) <= 16)
            })
            .count()
        };
        assert!(known(&mut ghost, 18_000..20_000) > 1_800);
        assert!(known(&mut ghost, 10_000..15_000) < 10);
        ghost.validate();
    }

    #[test]
    fn strangers_seldom_pass_for_its_own() {
        let mut ghost = Ghost::default();
        remember(&mut ghost, 0..20_000, 1_000);
        let strangers = (1_000_000..1_200_000).filter(|&key| ghost.recall(key, 20_000).is_some()).count();
        assert!(strangers < 100, "{strangers}: one in four thousand are 50");
    }

    #[test]
    fn it_begins_anew_for_many_more_residents_or_far_fewer() {
        let mut ghost = Ghost::default();
        remember(&mut ghost, 0..10, 100);
        let buckets = ghost.buckets.len();
        assert_eq!(buckets, 16, "five for two residents, in sixteens");
        for residents in [150, 25] {
            ghost.remember(10, QueueName::Small, 10, residents);
            assert!(ghost.recall(0, 10).is_some());
            ghost.remember(0, QueueName::Small, 10, residents);
        }
        ghost.remember(10, QueueName::Small, 10, 151);
        assert_eq!((ghost.buckets.len(), ghost.recall(0, 10)), (24, None));
        ghost.remember(10, QueueName::Small, 10, 1);
        assert_eq!((ghost.buckets.len(), ghost.recall(10, 10).is_some()), (1, true));
    }
}
