//! Where dead entries are looked for: a cursor that goes round a shard a few steps at a time, while any can be there.

use crate::clock::Deadline;
use crate::entry::Judge;
use crate::group::Generation;

/// The state of a shard's search for dead entries.
///
/// An entry dies by its hard deadline, or by a bump of a group. A round that began at a generation and went past every
/// entry has met all who died by a bump until then; so there is something to find only after a later bump, or once the
/// earliest deadline has passed.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The next node to look at.
    pub(super) cursor: usize,
    /// The generation at which the last whole round began.
    swept: Generation,
    /// The generation at which this round began.
    began: Generation,
    /// No entry's hard deadline is before this.
    earliest: Deadline,
    /// The same for the entries this round has passed, or that came while it went.
    next_earliest: Deadline,
}

impl Default for Sweep {
    fn default() -> Self {
        Sweep {
            cursor: 0,
            swept: Generation::ZERO,
            began: Generation::ZERO,
            earliest: Deadline::NEVER,
            next_earliest: Deadline::NEVER,
        }
    }
}

impl Sweep {
    /// Returns whether a dead entry can be in the shard.
    pub(super) fn is_due(&self, judge: &Judge<'_>) -> bool {
        self.earliest.has_passed(judge.now) || judge.groups.last_effective() > self.swept
    }

    /// Notes an entry that has just come.
    pub(super) fn note_insert(&mut self, hard: Deadline) {
        self.earliest = self.earliest.min(hard);
        self.next_earliest = self.next_earliest.min(hard);
    }

    /// Notes an entry that was looked at and is alive.
    pub(super) fn note_alive(&mut self, hard: Deadline) {
        self.next_earliest = self.next_earliest.min(hard);
    }

    /// Notes that a round begins. `generation` was read before any of its entries is looked at.
    pub(super) fn begin_round(&mut self, generation: Generation) {
        self.began = generation;
        self.next_earliest = Deadline::NEVER;
    }

    /// Notes that the round has passed every entry.
    pub(super) fn end_round(&mut self) {
        self.cursor = 0;
        self.swept = self.began;
        self.earliest = self.next_earliest;
    }
}
