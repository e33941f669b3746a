//! The ghost: which keys were evicted of late, from which queue, and when.

use std::ops::Range;

use super::queue::QueueName;

/// How many evicted keys one bucket remembers, in 48 bytes.
const BUCKET: usize = 16;

/// How many evicted keys there is room for, for each resident: as many as are of use, but that keys spread unevenly over the
/// buckets.
const SLOTS: usize = 2;

/// Into how many steps, at least, the time is divided in which as many keys come as there are residents.
const STEPS: usize = 16;

/// The evicted keys of one bucket, from the youngest to the oldest, vacancies last: for each a fingerprint, zero where there
/// is none, and how it left.
///
/// That is one bit of queue and 7 of the time, in steps. A shade that is older than they can tell passes for a younger one:
/// after the time in which four keys came for each resident, or more, while its slot is used again after two as a rule. Where
/// most residents leave without an eviction it is used again later, so that many a shade passes for another age: no hits are
/// lost by it, as recorded traces show where nine of ten keys are removed half a turnover after they came.
type Bucket = ([u16; BUCKET], [u8; BUCKET]);

const MAIN_BIT: u8 = 1 << 7;
const TIME_MASK: u8 = MAIN_BIT - 1;

/// Remembers keys that were evicted by fingerprints of 16 bits, in one bucket each: a stranger passes for one of them once in
/// four thousand times.
///
/// It takes no memory until the first eviction, and 6 bytes for each resident from then on. When there are many more
/// residents than it was made for, or far fewer, it begins anew and has forgotten everything.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    // Of integers alone, so that a large ghost is mapped, not filled: no eviction pays for all of it.
    buckets: Box<[Bucket]>,
    /// For how many residents it is good.
    fits: Range<usize>,
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
    #[inline]
    pub(super) fn remember(&mut self, hash: u64, queue: QueueName, now: u32, residents: usize) {
        if !self.fits.contains(&residents) {
            self.begin_anew(residents);
        }
        let (bucket, fingerprint) = self.place(hash);
        let queue = if queue == QueueName::Main { MAIN_BIT } else { 0 };
        let leaving = queue | self.time(now);
        let (fingerprints, leavings) = &mut self.buckets[bucket];
        push_front(fingerprints, fingerprint);
        push_front(leavings, leaving);
    }

    /// Returns whether there is anything to recall of the key with this hash.
    #[inline]
    pub(super) fn knows(&self, hash: u64) -> bool {
        let (bucket, fingerprint) = self.place(hash);
        let Some((fingerprints, _)) = self.buckets.get(bucket) else { return false };
        // All of them, without a branch, since as a rule it is none.
        fingerprints.iter().fold(false, |any, &known| any | (known == fingerprint))
    }

    /// Forgets the key with this hash, and returns what was known of it.
    pub(super) fn recall(&mut self, hash: u64, now: u32) -> Option<Shade> {
        let (bucket, fingerprint) = self.place(hash);
        let time = self.time(now);
        let (fingerprints, leavings) = self.buckets.get_mut(bucket)?;
        let slot = fingerprints.iter().position(|&known| known == fingerprint)?;
        let leaving = leavings[slot];
        fingerprints.copy_within(slot + 1.., slot);
        fingerprints[BUCKET - 1] = 0;
        leavings.copy_within(slot + 1.., slot);
        let queue = if leaving & MAIN_BIT == 0 { QueueName::Small } else { QueueName::Main };
        let age = u32::from(time.wrapping_sub(leaving) & TIME_MASK) << self.step_log2;
        Some(Shade { queue, age })
    }

    /// Returns the smallest difference of times that it can tell.
    pub(super) fn step(&self) -> u32 {
        1 << self.step_log2
    }

    #[cold]
    fn begin_anew(&mut self, residents: usize) {
        let slots = residents.saturating_mul(SLOTS);
        *self = Ghost {
            buckets: vec![Bucket::default(); slots.div_ceil(BUCKET)].into_boxed_slice(),
            // Far apart, so that it does not forget each time when the number of residents goes up and down.
            fits: residents / 4..residents.saturating_add(residents / 2).saturating_add(1),
            step_log2: (residents / STEPS).max(1).ilog2(),
        };
    }

    /// Panics unless every bucket has its vacancies last.
    #[cfg(test)]
    pub(super) fn validate(&self) {
        assert!(self.buckets.iter().all(|bucket| bucket.0.is_sorted_by_key(|&fingerprint| fingerprint == 0)));
    }

    #[inline]
    fn time(&self, now: u32) -> u8 {
        (now >> self.step_log2) as u8 & TIME_MASK
    }

    /// Returns the bucket of a key, which is there unless there is none at all, and its fingerprint, never zero.
    #[inline]
    fn place(&self, hash: u64) -> (usize, u16) {
        // Fibonacci hashing: the bits that all keys of a shard share decide neither.
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bucket = ((mixed >> 32) * self.buckets.len() as u64) >> 32;
        let fingerprint = ((mixed >> 16) as u16).max(1);
        (bucket as usize, fingerprint)
    }
}

/// Puts `first` before the others of a slice, the last of which is lost.
#[inline]
fn push_front<T: Copy>(slots: &mut [T; BUCKET], first: T) {
    slots.copy_within(..BUCKET - 1, 1);
    slots[0] = first;
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
        ghost.remember(1, QueueName::Small, 120, 10);
        ghost.remember(2, QueueName::Main, 127, 10);
        assert_eq!(ghost.recall(1, 130), Some(Shade { queue: QueueName::Small, age: 10 }));
        assert_eq!(ghost.recall(2, 130), Some(Shade { queue: QueueName::Main, age: 3 }));
        assert_eq!((ghost.recall(1, 130), ghost.recall(2, 130)), (None, None));
    }

    #[test]
    fn whoever_it_forgets_leaves_one_vacancy() {
        let mut ghost = Ghost::default();
        remember(&mut ghost, 0..BUCKET as u64, BUCKET / SLOTS);
        assert_eq!(ghost.buckets.len(), 1);
        for key in [5, 0, 15] {
            assert!(ghost.recall(key, 16).is_some() && ghost.recall(key, 16).is_none());
            ghost.validate();
        }
        assert_eq!((0..16).filter(|&key| ghost.recall(key, 16).is_some()).count(), 13);
    }

    #[test]
    fn it_knows_nearly_all_of_the_last_two_for_each_resident_and_few_before() {
        let mut ghost = Ghost::default();
        remember(&mut ghost, 0..20_000, 1_000);
        ghost.validate();
        let known = |ghost: &mut Ghost, keys: std::ops::Range<u64>| {
            keys.filter(|&key| {
                ghost.recall(key, 20_000).is_some_and(|shade| shade.age.abs_diff(20_000 - key as u32) <= 32)
            })
            .count()
        };
        assert!(known(&mut ghost, 19_000..20_000) > 990);
        assert!(known(&mut ghost, 18_000..19_000) > 700);
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
        assert_eq!((buckets, size_of::<Bucket>()), (13, 48), "two for each resident, in sixteens");
        for residents in [150, 25] {
            ghost.remember(10, QueueName::Small, 10, residents);
            assert!(ghost.recall(0, 10).is_some());
            ghost.remember(0, QueueName::Small, 10, residents);
        }
        ghost.remember(10, QueueName::Small, 10, 151);
        assert_eq!((ghost.buckets.len(), ghost.recall(0, 10)), (19, None));
        ghost.remember(10, QueueName::Small, 10, 1);
        assert_eq!((ghost.buckets.len(), ghost.recall(10, 10).is_some()), (1, true));
    }
}
