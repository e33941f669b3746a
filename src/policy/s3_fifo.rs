//! S3-FIFO: "FIFO queues are all you need for cache eviction" (Yang et al., SOSP 2023). What [`AdaptiveFifo`] is measured by.
//!
//! [`AdaptiveFifo`]: super::AdaptiveFifo

use super::ghost::Ghost;
use super::queue::{NodeId, QueueName, Queues};
use super::{EvictionPolicy, Resident};

/// The small queue's share of the weight: one part in this many.
const SMALL_SHARE: u64 = 10;

/// How often a resident of the small queue must have been hit to move to the main one.
const PROMOTION_HITS: u8 = 2;

/// How many residents one eviction may move before it takes the next one, hit or not: the bound on its work.
const MAX_MOVES: usize = 64;

/// Newcomers wait in the *small* queue, a tenth of the weight; those hit meanwhile move to the *main* queue, where a resident
/// goes round once for each hit. A key that returns while the *ghost* remembers its eviction goes to main at once.
#[derive(Debug)]
pub(crate) struct S3Fifo<R> {
    queues: Queues<R>,
    ghost: Ghost,
    /// How many residents have left small.
    now: u32,
}

impl<R> Default for S3Fifo<R> {
    fn default() -> Self {
        S3Fifo { queues: Queues::default(), ghost: Ghost::default(), now: 0 }
    }
}

impl<R: Resident> EvictionPolicy<R> for S3Fifo<R> {
    type Arrival = QueueName;

    fn arrive(&mut self, hash: u64) -> QueueName {
        // As many ghosts as there are residents: at least the main queue's length that the paper asks for.
        match self.ghost.recall(hash, self.now) {
            Some(shade) if shade.age as usize <= self.queues.total_len() => QueueName::Main,
            _ => QueueName::Small,
        }
    }

    fn succeed(&mut self, node: NodeId) -> (R, QueueName) {
        let queue = self.queues.queue_of(node);
        (self.queues.take(node), queue)
    }

    fn insert(&mut self, resident: R, queue: QueueName) -> NodeId {
        self.queues.push(queue, 0, resident)
    }

    fn remove(&mut self, node: NodeId) -> R {
        self.queues.take(node)
    }

    fn evict(&mut self, _newcomer: Option<&mut QueueName>) -> Option<R> {
        let mut moves_left = MAX_MOVES;
        loop {
            let small_is_full = self.queues.weight(QueueName::Small) >= (self.weight() / SMALL_SHARE).max(1);
            let victim = match (self.queues.oldest(QueueName::Small), self.queues.oldest(QueueName::Main)) {
                (Some(oldest), _) if small_is_full => self.leave_small(oldest, &mut moves_left),
                (_, Some(oldest)) => self.leave_main(oldest, &mut moves_left),
                (Some(oldest), None) => self.leave_small(oldest, &mut moves_left),
                (None, None) => return None,
            };
            if victim.is_some() {
                return victim;
            }
        }
    }

    fn resident(&self, node: NodeId) -> Option<&R> {
        self.queues.resident(node)
    }

    fn nodes(&self) -> usize {
        self.queues.nodes()
    }

    fn weight(&self) -> u64 {
        self.queues.total_weight()
    }

    fn validate(&self) {
        self.queues.validate();
    }
}

impl<R: Resident> S3Fifo<R> {
    /// Evicts the oldest of the small queue, or moves it to main if it was hit.
    fn leave_small(&mut self, oldest: NodeId, moves_left: &mut usize) -> Option<R> {
        let recency = self.queues.resident(oldest)?.recency();
        if recency.count() >= PROMOTION_HITS && *moves_left > 0 {
            *moves_left -= 1;
            recency.set(0);
            self.queues.transfer(oldest, QueueName::Main, 0);
            return None;
        }
        let residents = self.queues.total_len();
        let victim = self.queues.take(oldest);
        self.now = self.now.wrapping_add(1);
        self.ghost.remember(victim.hash(), QueueName::Small, self.now, residents);
        Some(victim)
    }

    /// Evicts the oldest of the main queue, or sends it round again, one hit poorer.
    fn leave_main(&mut self, oldest: NodeId, moves_left: &mut usize) -> Option<R> {
        let recency = self.queues.resident(oldest)?.recency();
        let count = recency.count();
        if count > 0 && *moves_left > 0 {
            *moves_left -= 1;
            recency.set(count - 1);
            self.queues.renew(oldest, 0);
            return None;
        }
        Some(self.queues.take(oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Plain, Shelf};
    use super::*;

    #[test]
    fn what_was_never_hit_leaves_in_order_of_arrival() {
        let mut shelf = Shelf::<S3Fifo<Plain>>::new(20);
        (0..20).for_each(|key| assert!(!shelf.access(key, 1)));
        let evicted: Vec<_> = (0..5).map(|_| shelf.policy.evict(None).unwrap().hash()).collect();
        assert_eq!(evicted, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_key_that_returns_goes_to_main() {
        let mut shelf = Shelf::<S3Fifo<Plain>>::new(20);
        (0..21).for_each(|key| assert!(!shelf.access(key, 1)));
        assert!(!shelf.access(0, 1));
        assert_eq!(shelf.policy.queues.queue_of(shelf.node(0).unwrap()), QueueName::Main);
    }
}
