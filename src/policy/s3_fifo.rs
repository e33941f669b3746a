//! S3-FIFO: "FIFO queues are all you need for cache eviction" (Yang et al., SOSP 2023). What [`AdaptiveFifo`] is measured by.
//!
//! [`AdaptiveFifo`]: super::AdaptiveFifo

use super::ghost::Ghost;
use super::queue::{QueueName, Queues};
use super::{EvictionPolicy, Profile, Residents};
use crate::index::Seat;

/// The small queue's share of the weight: one part in this many.
const SMALL_SHARE: u64 = 10;

/// How often a resident of the small queue must have been hit to move to the main one.
const PROMOTION_HITS: u8 = 2;

/// How many residents one eviction may move before it takes the next one, hit or not: the bound on its work.
const MAX_MOVES: usize = 64;

/// Newcomers wait in the *small* queue, a tenth of the weight; those hit meanwhile move to the *main* queue, where a resident
/// goes round once for each hit. A key that returns while the *ghost* remembers its eviction goes to main at once.
#[derive(Debug, Default)]
pub(crate) struct S3Fifo {
    queues: Queues,
    ghost: Ghost,
    /// How many residents have left small.
    now: u32,
}

impl EvictionPolicy for S3Fifo {
    type Arrival = QueueName;

    fn arrive(&mut self, hash: u64) -> QueueName {
        // As many ghosts as there are residents: at least the main queue's length that the paper asks for.
        match self.ghost.recall(hash, self.now) {
            Some(shade) if shade.age as usize <= self.queues.total_len() => QueueName::Main,
            _ => QueueName::Small,
        }
    }

    fn succeed(&mut self, seat: Seat, residents: &impl Residents) -> QueueName {
        self.queues.take(seat, residents.profile(seat).weight)
    }

    fn insert(&mut self, seat: Seat, newcomer: Profile<'_>, queue: QueueName, _residents: &impl Residents) {
        self.queues.push(queue, seat, 0, newcomer.weight);
    }

    fn remove(&mut self, seat: Seat, residents: &impl Residents) {
        self.queues.take(seat, residents.profile(seat).weight);
    }

    fn evict(&mut self, _newcomer: Option<&mut QueueName>, residents: &impl Residents) -> Option<Seat> {
        let mut moves_left = MAX_MOVES;
        loop {
            let small_is_full = self.queues.weight(QueueName::Small) >= (self.weight() / SMALL_SHARE).max(1);
            let victim = match (self.queues.oldest(QueueName::Small), self.queues.oldest(QueueName::Main)) {
                (Some(oldest), _) if small_is_full => self.leave_small(oldest, &mut moves_left, residents),
                (_, Some(oldest)) => self.leave_main(oldest, &mut moves_left, residents),
                (Some(oldest), None) => self.leave_small(oldest, &mut moves_left, residents),
                (None, None) => return None,
            };
            if victim.is_some() {
                return victim;
            }
        }
    }

    fn weight(&self) -> u64 {
        self.queues.total_weight()
    }

    fn len(&self) -> usize {
        self.queues.total_len()
    }

    fn validate(&self, residents: &impl Residents) {
        self.queues.validate(residents);
        self.ghost.validate();
    }
}

impl S3Fifo {
    /// Evicts the oldest of the small queue, or moves it to main if it was hit.
    fn leave_small(&mut self, oldest: Seat, moves_left: &mut usize, residents: &impl Residents) -> Option<Seat> {
        let Profile { hash, weight, recency } = residents.profile(oldest);
        if recency.count() >= PROMOTION_HITS && *moves_left > 0 {
            *moves_left -= 1;
            recency.set(0);
            self.queues.transfer(oldest, QueueName::Main, 0, weight);
            return None;
        }
        let turnover = self.queues.total_len();
        self.queues.take(oldest, weight);
        self.now = self.now.wrapping_add(1);
        self.ghost.remember(hash, QueueName::Small, self.now, turnover);
        Some(oldest)
    }

    /// Evicts the oldest of the main queue, or sends it round again, one hit poorer.
    fn leave_main(&mut self, oldest: Seat, moves_left: &mut usize, residents: &impl Residents) -> Option<Seat> {
        let Profile { weight, recency, .. } = residents.profile(oldest);
        let count = recency.count();
        if count > 0 && *moves_left > 0 {
            *moves_left -= 1;
            recency.set(count - 1);
            self.queues.renew(oldest, 0);
            return None;
        }
        self.queues.take(oldest, weight);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Shelf;
    use super::*;

    #[test]
    fn what_was_never_hit_leaves_in_order_of_arrival() {
        let mut shelf = Shelf::<S3Fifo>::new(20);
        (0..20).for_each(|key| assert!(!shelf.access(key, 1)));
        let evicted: Vec<_> = (0..5).map(|_| shelf.evict().unwrap()).collect();
        assert_eq!(evicted, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_key_that_returns_goes_to_main() {
        let mut shelf = Shelf::<S3Fifo>::new(20);
        (0..21).for_each(|key| assert!(!shelf.access(key, 1)));
        assert!(!shelf.access(0, 1));
        assert_eq!(shelf.policy.queues.queue_of(shelf.seat(0).unwrap()), QueueName::Main);
    }
}
