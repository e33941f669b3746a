//! The capacity of a cache: one pool of weight that all its shards draw from, so that what is stored never exceeds it.

use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};

/// A cache's capacity, and how much of it is neither stored nor granted.
///
/// Weight is always in one of three places: free, granted to an operation under way, or stored in a shard. Operations move
/// it between them and never make any, so the stored part is bounded at every moment, not only when they return.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: AtomicU64,
    free: AtomicU64,
    /// Held by the one operation that may collect weight from other shards: two that each hold a part of what both need
    /// would wait for each other.
    pub(crate) gathering: Mutex<()>,
    /// The shard where the next collection starts, so that none is always the first to give.
    pub(crate) next_shard: AtomicUsize,
}

/// Weight on its way from the pool, or from entries that left, to an entry that comes. What is not spent goes back.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    budget: &'a Budget,
    weight: u64,
}

// Relaxed throughout: these are plain sums. What an entry weighs is read under its shard's lock, and no other memory is
// reached by way of these words.
impl Budget {
    pub(crate) fn new(capacity: u64) -> Budget {
        Budget {
            capacity: AtomicU64::new(capacity),
            free: AtomicU64::new(capacity),
            gathering: Mutex::new(()),
            next_shard: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Changes the capacity, and nothing else: the caller holds `gathering`, and moves the difference to or from the pool.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Takes as much of `wanted` as is free.
    #[inline]
    pub(crate) fn take(&self, wanted: u64) -> Grant<'_> {
        let mut grant = Grant { budget: self, weight: 0 };
        grant.top_up(wanted);
        grant
    }

    #[inline]
    pub(crate) fn release(&self, weight: u64) {
        if weight > 0 {
            self.free.fetch_add(weight, Ordering::Relaxed);
        }
    }
}

impl Grant<'_> {
    #[inline]
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Takes from the pool what is missing to `wanted`, as far as it is free.
    #[inline]
    pub(crate) fn top_up(&mut self, wanted: u64) {
        let missing = wanted.saturating_sub(self.weight);
        let mut free = self.budget.free.load(Ordering::Relaxed);
        while missing > 0 && free > 0 {
            let taken = missing.min(free);
            match self.budget.free.compare_exchange_weak(free, free - taken, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.weight += taken;
                    return;
                }
                Err(now) => free = now,
            }
        }
    }

    /// Returns everything to the pool.
    #[inline]
    pub(crate) fn give_back(&mut self) {
        self.budget.release(std::mem::take(&mut self.weight));
    }

    /// Adds the weight of entries that have left a shard.
    #[inline]
    pub(crate) fn add(&mut self, freed: u64) {
        self.weight += freed;
    }

    /// Hands weight over to an entry that is stored now.
    #[inline]
    pub(crate) fn spend(&mut self, weight: u64) {
        debug_assert!(weight <= self.weight, "an entry is stored only once there is room for it");
        self.weight -= weight;
    }
}

impl Drop for Grant<'_> {
    #[inline]
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_is_conserved() {
        let budget = Budget::new(10);
        let mut first = budget.take(7);
        let second = budget.take(7);
        assert_eq!((first.weight(), second.weight()), (7, 3));
        first.spend(5);
        first.add(1);
        drop((first, second));
        assert_eq!(budget.take(u64::MAX).weight(), 6);
    }
}
