//! Where dead entries are looked for: a cursor that goes round a shard a few steps at a time, while any can be there.

use crate::clock::Deadline;
use crate::entry::Judge;

/// The state of a shard's search for dead entries.
///
/// An entry dies by its hard deadline, or by a bump of a group. A round that began after so many bumps and went past every
/// entry has met all who died by them; so there is something to find only after a later bump, or once the
/// earliest deadline has passed.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The next node to look at.
    pub(super) cursor: usize,
    /// How many entries the next search for room looks at, as far as it may.
    pub(super) hope: usize,
    /// How many bumps there had been when the last whole round began; [`NEVER`] if it may have missed an entry all the same.
    swept: u64,
    /// The same for this round.
    began: u64,
    /// No entry's hard deadline is before this.
    earliest: Deadline,
    /// The same for the entries this round has passed, or that came while it went.
    next_earliest: Deadline,
}

/// A number of bumps that there never is.
const NEVER: u64 = u64::MAX;

impl Default for Sweep {
    fn default() -> Self {
        Sweep {
            cursor: 0,
            hope: usize::MAX,
            swept: 0,
            began: 0,
            earliest: Deadline::NEVER,
            next_earliest: Deadline::NEVER,
        }
    }
}

impl Sweep {
    /// Returns whether a dead entry can be in the shard.
    #[inline]
    pub(super) fn is_due(&self, judge: &Judge<'_>) -> bool {
        self.earliest.has_passed(judge.now) || self.swept != judge.groups.effective_bumps()
    }

    /// Notes an entry that has just come.
    #[inline]
    pub(super) fn note_insert(&mut self, hard: Deadline) {
        self.earliest = self.earliest.min(hard);
        self.next_earliest = self.next_earliest.min(hard);
    }

    /// Notes that an entry has come that was dead by then, so that no later bump tells of it: a round has to meet it,
    /// and the one under way may be past its place.
    pub(super) fn note_dead(&mut self) {
        (self.swept, self.began) = (NEVER, NEVER);
    }

    /// Notes an entry that was looked at and is alive.
    pub(super) fn note_alive(&mut self, hard: Deadline) {
        self.next_earliest = self.next_earliest.min(hard);
    }

    /// Notes that a round begins. `bumps` were counted before any of its entries is looked at.
    pub(super) fn begin_round(&mut self, bumps: u64) {
        self.began = bumps;
        self.next_earliest = Deadline::NEVER;
    }

    /// Notes that the round has passed every entry.
    pub(super) fn end_round(&mut self) {
        self.hope = usize::MAX;
        self.cursor = 0;
        self.swept = self.began;
        self.earliest = self.next_earliest;
    }
}
