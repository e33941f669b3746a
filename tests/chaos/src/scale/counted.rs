//! A store that counts what it is asked.

use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{Action, Command, RemoteError, RemoteTier, Reply, Route, WireKey};

/// What a store was asked for, in all or by second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Looks at the journal's version alone.
    pub(super) looks: f64,
    /// Readings of all of it by those who follow it.
    pub(super) reads: f64,
}

/// The ways to one store, all of which count together.
#[derive(Clone)]
pub(super) struct Counted {
    tier: Arc<dyn RemoteTier>,
    /// Whether it is the way of one who follows the journal.
    follows: bool,
    looks: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn new(tier: impl RemoteTier) -> Counted {
        Counted { tier: Arc::new(tier), follows: false, looks: Arc::default(), reads: Arc::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        Counts { looks: count(&self.looks), reads: count(&self.reads) }
    }
}

impl RemoteTier for Counted {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        for command in batch.iter().filter(|_| self.follows) {
            match command.action {
                Action::Get { value: false, .. } => self.looks.fetch_add(1, Ordering::Relaxed),
                Action::Get { value: true, .. } => self.reads.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
        }
        self.tier.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.tier.max_value_len()
    }

    fn servers(&self) -> usize {
        self.tier.servers()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        self.tier.server_of(key, route)
    }

    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        // In memory, one way is as good as another.
        let tier = self.tier.dedicated().map_or_else(|| self.tier.clone(), Arc::from);
        Some(Box::new(Counted { tier, follows: true, ..self.clone() }))
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        Counts { looks: self.looks - earlier.looks, reads: self.reads - earlier.reads }
    }
}

impl Counts {
    pub(super) fn per(self, time: Duration) -> Counts {
        let seconds = time.as_secs_f64();
        Counts { looks: self.looks / seconds, reads: self.reads / seconds }
    }
}

#[cfg(test)]
mod tests {
    use larder::{InMemoryRemote, Namespace};

    use super::*;
    use crate::support::eventually;

    #[test]
    fn a_follower_reads_the_journal_when_it_has_changed_and_looks_at_it_otherwise() {
        let store = InMemoryRemote::new();
        let tier = Counted::new(store.clone());
        let build = |tier| Namespace::builder("scale", tier).poll_interval(Duration::from_millis(1)).build().unwrap();
        let (_follower, bumper) = (build(tier.clone()), build(Counted::new(store)));
        let since = |before: Counts| tier.counts() - before;
        // The first look reads the journal, or makes it; then it is known.
        eventually("the first looks", || (tier.counts().looks > 2.0).then_some(()));
        let before = tier.counts();
        eventually("more looks", || (since(before).looks > 5.0).then_some(()));
        assert_eq!(since(before).reads, 0.0, "nothing has changed");
        assert!(bumper.invalidate_group("group").is_acknowledged());
        eventually("another reading", || (since(before).reads > 0.0).then_some(()));
        let before = tier.counts();
        eventually("more looks", || (since(before).looks > 5.0).then_some(()));
        assert!(since(before).reads <= 1.0, "it was read once, or that was under way");
    }
}
