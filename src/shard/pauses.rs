//! Which keys are not to be refreshed for a while: those whose refresh failed of late.

use hashbrown::HashTable;

use crate::clock::Deadline;

/// The pauses of a shard's entries. As a rule there is none, so that they cost the entries nothing.
///
/// They are known by the hashes of the keys: should two share one, a refresh of the other waits as well.
#[derive(Debug, Default)]
pub(super) struct Pauses(HashTable<Pause>);

#[derive(Debug)]
struct Pause {
    hash: u64,
    until: Deadline,
}

impl Pauses {
    /// Begins a pause for an entry of the shard, which [ends](Self::end) it when it leaves: so there are never more than entries.
    pub(super) fn begin(&mut self, hash: u64, until: Deadline) {
        match self.0.find_mut(hash, |pause| pause.hash == hash) {
            Some(pause) => pause.until = until,
            None => _ = self.0.insert_unique(hash, Pause { hash, until }, |pause| pause.hash),
        }
    }

    /// Ends a pause, if there is one.
    #[inline]
    pub(super) fn end(&mut self, hash: u64) {
        if !self.0.is_empty()
            && let Ok(pause) = self.0.find_entry(hash, |pause| pause.hash == hash)
        {
            pause.remove();
        }
    }

    /// Returns until when there is a pause; a deadline that has passed where there is none.
    #[inline]
    pub(super) fn until(&self, hash: u64) -> Deadline {
        if self.0.is_empty() {
            return Deadline::PASSED;
        }
        self.0.find(hash, |pause| pause.hash == hash).map_or(Deadline::PASSED, |pause| pause.until)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|pause| pause.hash)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_pause_is_known_until_it_ends() {
        let (clock, _time) = Clock::manual();
        let after = |secs| Deadline::after(clock.now(), Duration::from_secs(secs));
        let mut pauses = Pauses::default();
        assert_eq!(pauses.until(7), Deadline::PASSED);
        pauses.begin(7, after(1));
        pauses.begin(8, after(2));
        pauses.begin(7, after(3));
        assert_eq!((pauses.until(7), pauses.until(8), pauses.until(9)), (after(3), after(2), Deadline::PASSED));
        pauses.end(7);
        pauses.end(9);
        assert_eq!((pauses.until(7), pauses.until(8)), (Deadline::PASSED, after(2)));
    }
}
