//! S3-FIFO: "FIFO queues are all you need for cache eviction" (Yang et al., SOSP 2023).

use super::ghost::Ghost;
use super::queue::{NodeId, Nodes, Queue};
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
    nodes: Nodes<R, QueueName>,
    small: Queue,
    main: Queue,
    ghost: Ghost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueName {
    Small,
    Main,
}

impl<R> Default for S3Fifo<R> {
    fn default() -> Self {
        S3Fifo { nodes: Nodes::default(), small: Queue::default(), main: Queue::default(), ghost: Ghost::default() }
    }
}

impl<R: Resident> EvictionPolicy<R> for S3Fifo<R> {
    fn insert(&mut self, resident: R) -> NodeId {
        if self.ghost.recall(resident.hash()) {
            self.nodes.push(&mut self.main, QueueName::Main, resident)
        } else {
            self.nodes.push(&mut self.small, QueueName::Small, resident)
        }
    }

    fn remove(&mut self, node: NodeId) -> R {
        match self.nodes.queue_of(node) {
            QueueName::Small => self.nodes.take(&mut self.small, node),
            QueueName::Main => self.nodes.take(&mut self.main, node),
        }
    }

    fn evict(&mut self) -> Option<R> {
        let mut moves_left = MAX_MOVES;
        loop {
            let small_is_full = self.small.weight() >= (self.weight() / SMALL_SHARE).max(1);
            let victim = match (self.small.oldest(), self.main.oldest()) {
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
        self.nodes.resident(node)
    }

    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn weight(&self) -> u64 {
        self.small.weight() + self.main.weight()
    }

    #[cfg(test)]
    fn validate(&self) {
        self.nodes.validate(&self.small);
        self.nodes.validate(&self.main);
    }
}

impl<R: Resident> S3Fifo<R> {
    /// Evicts the oldest of the small queue, or moves it to main if it was hit.
    fn leave_small(&mut self, oldest: NodeId, moves_left: &mut usize) -> Option<R> {
        let recency = self.nodes.resident(oldest)?.recency();
        if recency.count() >= PROMOTION_HITS && *moves_left > 0 {
            *moves_left -= 1;
            recency.set(0);
            self.nodes.transfer(&mut self.small, &mut self.main, QueueName::Main, oldest);
            return None;
        }
        let victim = self.nodes.take(&mut self.small, oldest);
        // As many ghosts as there are residents: at least the main queue's length that the paper asks for.
        self.ghost.remember(victim.hash(), self.small.len() + self.main.len());
        Some(victim)
    }

    /// Evicts the oldest of the main queue, or sends it round again, one hit poorer.
    fn leave_main(&mut self, oldest: NodeId, moves_left: &mut usize) -> Option<R> {
        let recency = self.nodes.resident(oldest)?.recency();
        let count = recency.count();
        if count > 0 && *moves_left > 0 {
            *moves_left -= 1;
            recency.set(count - 1);
            self.nodes.renew(&mut self.main, oldest);
            return None;
        }
        Some(self.nodes.take(&mut self.main, oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Plain;
    use super::*;

    fn hash(key: u64) -> u64 {
        key << 20
    }

    fn fill(policy: &mut S3Fifo<Plain>, keys: std::ops::Range<u64>) -> Vec<NodeId> {
        keys.map(|key| policy.insert(Plain::new(hash(key), 1))).collect()
    }

    #[test]
    fn what_was_never_hit_leaves_in_order_of_arrival() {
        let mut policy = S3Fifo::default();
        fill(&mut policy, 0..20);
        let evicted: Vec<_> = (0..5).map(|_| policy.evict().unwrap().hash()).collect();
        assert_eq!(evicted, (0..5).map(hash).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_hit_survives_a_scan() {
        let mut policy = S3Fifo::default();
        for node in fill(&mut policy, 0..10) {
            policy.resident(node).unwrap().recency().set(2);
        }
        for key in 100..1_000 {
            policy.insert(Plain::new(hash(key), 1));
            assert!(policy.evict().unwrap().hash() >= hash(10), "the scan evicts itself alone");
        }
    }

    #[test]
    fn a_key_that_returns_goes_to_main() {
        let mut policy = S3Fifo::default();
        fill(&mut policy, 0..20);
        let victim = policy.evict().unwrap();
        let node = policy.insert(Plain::new(victim.hash(), 1));
        assert_eq!(policy.nodes.queue_of(node), QueueName::Main);
    }

    #[test]
    fn one_eviction_moves_no_more_than_its_bound() {
        let mut policy = S3Fifo::default();
        for node in fill(&mut policy, 0..1_000) {
            policy.resident(node).unwrap().recency().set(3);
        }
        assert!(policy.evict().is_some());
        assert_eq!(policy.main.len(), MAX_MOVES);
    }
}
