//! Where the weight of an entry comes from that its own shard and the free pool have no room for: a little from each shard.

use super::Store;
use super::place::Refusal;
use crate::budget::Grant;
use crate::error::Rejected;
use crate::shard::Leaving;
use crate::sync::{Ordering, thread};

impl<K, V> Store<K, V> {
    /// Changes the capacity, and evicts until what is stored fits.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        let mut leaving = Leaving::default();
        let gathering = self.budget.gathering.lock();
        let before = self.budget.capacity();
        self.budget.set_capacity(capacity);
        self.index.set_capacity(capacity);
        if let Some(more) = capacity.checked_sub(before) {
            self.budget.release(more);
        } else {
            let excess = before - capacity;
            let mut grant = self.budget.take(excess);
            // Without a bound: an operation under way may hold some of the weight, until it has stored or returned it.
            while grant.weight() < excess {
                self.collect(&mut grant, excess, &mut leaving);
            }
            grant.spend(excess);
        }
        drop(gathering);
        self.dispose(leaving);
    }

    /// Moves weight from the pool and the shards into `grant`, a little from each shard in turn, until it holds `wanted`.
    ///
    /// Fails if the capacity has become too small for it meanwhile. Runs none of the user's code: who holds a grant must
    /// not wait for anybody, since the one that collects waits for all grants.
    pub(super) fn gather(
        &self,
        grant: &mut Grant<'_>,
        wanted: u64,
        leaving: &mut Leaving<K, V>,
    ) -> Result<(), Refusal> {
        grant.give_back();
        let _gathering = self.budget.gathering.lock();
        loop {
            let capacity = self.budget.capacity();
            if wanted > capacity {
                return Err(Refusal::Rejected(Rejected { weight: wanted, capacity }));
            }
            self.collect(grant, wanted, leaving);
            if grant.weight() >= wanted {
                return Ok(());
            }
        }
    }

    /// Goes round all shards once for [`gather`](Self::gather). The caller holds `gathering`.
    fn collect(&self, grant: &mut Grant<'_>, wanted: u64, leaving: &mut Leaving<K, V>) {
        grant.top_up(wanted);
        let share = wanted.saturating_sub(grant.weight()).div_ceil(self.shards.len() as u64);
        let first = self.budget.next_shard.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.shards.len() {
            let missing = wanted.saturating_sub(grant.weight());
            if missing == 0 {
                return;
            }
            let shard = &self.shards[(first + step) % self.shards.len()];
            let freed = shard.write().make_room(share.min(missing), None, &self.judge(), leaving);
            grant.add(freed);
        }
        if grant.weight() < wanted {
            // The rest is in the hands of operations under way, which need a moment to store or return it.
            thread::yield_now();
        }
    }
}
