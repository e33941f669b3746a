//! Eviction: which entry makes room. A policy sees hashes, weights and recency, never keys or values.

mod ghost;
mod queue;
mod s3_fifo;

pub(crate) use self::queue::NodeId;
pub(crate) use self::s3_fifo::S3Fifo;

use crate::sync::{AtomicU8, Ordering};

/// Decides which resident of a shard is evicted.
///
/// A policy owns the order of a shard's residents and runs under the shard's lock; all that a hit does is
/// [`Recency::touch`]. It holds a handle of each resident, so that a victim is handed out, never dropped in here.
pub(crate) trait EvictionPolicy<R: Resident>: Default {
    /// Admits a resident, and returns where it is kept.
    fn insert(&mut self, resident: R) -> NodeId;

    /// Lets go of a resident that leaves for another reason than eviction.
    fn remove(&mut self, node: NodeId) -> R;

    /// Picks the resident that is worth the least and lets go of it. `None` when there is none.
    fn evict(&mut self) -> Option<R>;

    /// Returns the resident at `node`; `None` where there is none at present. For sweeps over all nodes up to
    /// [`nodes`](Self::nodes).
    fn resident(&self, node: NodeId) -> Option<&R>;

    /// Returns one past the largest node in use.
    fn nodes(&self) -> usize;

    /// Returns the weight of all residents.
    fn weight(&self) -> u64;

    /// Panics unless links, lengths and weights agree.
    #[cfg(test)]
    fn validate(&self);
}

/// What a policy may know of an entry.
pub(crate) trait Resident {
    fn hash(&self) -> u64;
    fn weight(&self) -> u64;
    fn recency(&self) -> &Recency;
}

/// How often an entry was hit of late: a counter that saturates at 3, all that a hit may write.
#[derive(Debug, Default)]
pub(crate) struct Recency(AtomicU8);

impl Recency {
    const MAX: u8 = 3;

    /// Counts a hit. A saturated counter is only read, so that hot entries stay in every core's cache.
    #[inline]
    pub(crate) fn touch(&self) {
        // Relaxed, and a load and a store rather than an addition: a hit that is lost to a race costs nothing but itself.
        let count = self.0.load(Ordering::Relaxed);
        if count < Self::MAX {
            self.0.store(count + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, count: u8) {
        self.0.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sync::Arc;

    /// A resident that is nothing else.
    #[derive(Clone, Debug)]
    pub(crate) struct Plain(Arc<(u64, u64, Recency)>);

    impl Plain {
        pub(crate) fn new(hash: u64, weight: u64) -> Plain {
            Plain(Arc::new((hash, weight, Recency::default())))
        }
    }

    impl Resident for Plain {
        fn hash(&self) -> u64 {
            self.0.0
        }

        fn weight(&self) -> u64 {
            self.0.1
        }

        fn recency(&self) -> &Recency {
            &self.0.2
        }
    }

    #[test]
    fn recency_saturates() {
        let recency = Recency::default();
        for expected in [1, 2, 3, 3] {
            recency.touch();
            assert_eq!(recency.count(), expected);
        }
    }

    /// Every policy holds what it was given, hands each out once, and keeps its sums right.
    fn conserves_residents<P: EvictionPolicy<Plain>>() {
        fastrand::seed(7);
        let mut policy = P::default();
        let mut held: Vec<(NodeId, u64)> = Vec::new();
        let mut weight = 0;
        for step in 0..20_000_u64 {
            match fastrand::u8(..10) {
                0..5 => {
                    let resident = Plain::new(fastrand::u64(..500), fastrand::u64(1..10));
                    weight += resident.weight();
                    let hash = resident.hash();
                    held.push((policy.insert(resident), hash));
                }
                5..7 if !held.is_empty() => {
                    let (node, hash) = held.swap_remove(fastrand::usize(..held.len()));
                    let resident = policy.remove(node);
                    assert_eq!(resident.hash(), hash);
                    weight -= resident.weight();
                }
                7 if !held.is_empty() => {
                    let (node, _) = held[fastrand::usize(..held.len())];
                    policy.resident(node).unwrap().recency().touch();
                }
                _ => match policy.evict() {
                    Some(victim) => {
                        weight -= victim.weight();
                        // The victim's node is the one that is vacant now.
                        let gone = held.iter().position(|&(node, _)| policy.resident(node).is_none()).unwrap();
                        assert_eq!(held.swap_remove(gone).1, victim.hash());
                    }
                    None => assert!(held.is_empty()),
                },
            }
            assert_eq!(policy.weight(), weight);
            if step % 100 == 0 {
                policy.validate();
            }
        }
        while policy.evict().is_some() {
            held.pop();
        }
        assert!(held.is_empty() && policy.weight() == 0);
    }

    #[test]
    fn s3_fifo_conserves_residents() {
        conserves_residents::<S3Fifo<Plain>>();
    }
}
