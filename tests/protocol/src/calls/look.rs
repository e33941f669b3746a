//! Looks at the journal: what they find to have moved, and when that counts as heard.

use super::{Outcome, Turn};
use crate::process::{Look, Position, Step, Verb};
use crate::store::{Command, Journal, Kind, Moved, Reply, Set};

/// What a look found to have moved.
pub(super) enum Moves {
    Nothing,
    Entries(Vec<Moved>),
    Lost,
}

impl Turn<'_> {
    // ---- Looking: `Source::read`, `Follower` ----

    pub(super) fn begin_look(&mut self) {
        let look = Look {
            position: self.process().position,
            noted: self.model.time(self.state).unwrap_or(0),
            acked: self.state.acked,
        };
        self.call().look = Some(look);
    }

    pub(super) fn look(&mut self) -> Outcome {
        self.begin_look();
        self.send(Step::Look, vec![Command::ReadJournal])
    }

    pub(super) fn looked(&mut self, reply: Option<&Reply>) -> Outcome {
        let verb = self.call().verb;
        match reply {
            Some(Reply::Journal(journal)) if verb == Verb::Compact => {
                self.send(Step::Compact, vec![Command::Compact(journal.cas)])
            }
            Some(Reply::Journal(journal)) if verb != Verb::Poll => self.late_looked(journal),
            Some(Reply::Journal(journal)) => self.polled(journal),
            Some(_) if verb == Verb::Compact => self.end(),
            Some(_) => self.send(Step::Renew, vec![Command::AddJournal(Vec::new())]),
            None if verb == Verb::Poll || verb == Verb::Compact => self.end(),
            None => self.late_failed(),
        }
    }

    pub(super) fn polled(&mut self, journal: &Journal) -> Outcome {
        let rules = self.model.rules;
        let end = Position { epoch: journal.epoch, seq: journal.end() };
        let version = (journal.cas, journal.end() - journal.base);
        // With R8 the version is one of this connection, and says no more than the position does.
        let unchanged = !rules.r8_own_connection && self.process().version == Some(version);
        let moves = if unchanged { Some(Moves::Nothing) } else { self.digest(journal) };
        if !rules.r8_own_connection {
            self.process().version = Some(version);
        }
        match moves {
            Some(Moves::Entries(news)) if !rules.r10_trust_last => {
                self.adopt(end);
                let call = self.call();
                call.news = news;
                call.step = Step::Apply;
                Ok(())
            }
            Some(Moves::Nothing) if unchanged => {
                let position = self.process().position.unwrap_or(end);
                self.adopt(position);
                self.end()
            }
            Some(moves) => {
                self.hear(&moves, end);
                self.end()
            }
            None => self.end(),
        }
    }

    /// The journal was made, or somebody else was faster.
    pub(super) fn renewed(&mut self, reply: Option<&Reply>) -> Outcome {
        let verb = self.call().verb;
        match reply {
            Some(Reply::Made(epoch)) => {
                let heard = self.hear(&Moves::Lost, Position { epoch: *epoch, seq: 0 });
                match verb {
                    Verb::Poll => self.end(),
                    _ if heard => self.with_late_tokens(),
                    _ => self.late_failed(),
                }
            }
            Some(_) => self.look(),
            None if verb == Verb::Poll => self.end(),
            None => self.late_failed(),
        }
    }

    /// `Follower::digest`; `None` where it is ambiguous
    pub(super) fn digest(&mut self, journal: &Journal) -> Option<Moves> {
        let then = self.call().look.and_then(|look| look.position);
        let Some(at) = self.process().position else { return Some(Moves::Lost) };
        if at.epoch != journal.epoch {
            return then.is_some_and(|then| then.epoch == at.epoch).then_some(Moves::Lost);
        }
        if at.seq > journal.end() {
            let rewound = then.is_some_and(|then| then.epoch == journal.epoch && then.seq > journal.end());
            return Some(if rewound { Moves::Lost } else { Moves::Nothing });
        }
        if at.seq < journal.base {
            return Some(Moves::Lost);
        }
        let news = &journal.entries[(at.seq - journal.base) as usize..];
        Some(if news.is_empty() { Moves::Nothing } else { Moves::Entries(news.to_vec()) })
    }

    /// `Core::hear`
    pub(super) fn hear(&mut self, moves: &Moves, end: Position) -> bool {
        let look = self.call().look.expect("a look that has begun");
        if matches!(moves, Moves::Lost) && look.position.is_none() && self.process().position.is_some() {
            return false;
        }
        self.apply(moves);
        self.adopt(end);
        true
    }

    pub(super) fn apply(&mut self, moves: &Moves) {
        match moves {
            Moves::Nothing => {}
            Moves::Entries(news) => news.iter().for_each(|moved| self.apply_one(*moved)),
            Moves::Lost if self.model.rules.r10_resync_bumps => self.move_group(Set::MAX, Kind::Hard),
            Moves::Lost => {}
        }
    }

    pub(super) fn apply_one(&mut self, moved: Moved) {
        let (me, kill_tickets) = (self.process as u8, self.model.rules.r6_news_kill_tickets);
        match moved {
            Moved::KeyInsert(_, sender) if sender == me => {}
            Moved::KeyInsert(key, _) | Moved::KeyRemove(key) => self.forget(key, kill_tickets),
            Moved::GroupHard(group) => self.move_group(1 << group, Kind::Hard),
            Moved::GroupSoft(group) => self.move_group(1 << group, Kind::Soft),
            Moved::All => self.move_group(Set::MAX, Kind::Hard),
        }
    }

    /// `Follower::adopt`
    pub(super) fn adopt(&mut self, end: Position) {
        let look = self.call().look.expect("a look that has begun");
        let (now, trust) = (self.state.now, self.model.trust);
        let noted = if self.model.rules.trust_noted_before { look.noted } else { now };
        let process = self.process();
        let stays = match (process.position, look.position) {
            (at, then) if at == then => false,
            (Some(at), _) if at.epoch == end.epoch => at.seq >= end.seq,
            (Some(at), Some(then)) => at.epoch != then.epoch,
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if !stays {
            process.position = Some(end);
        }
        process.must |= look.acked;
        if let Some(trust) = trust {
            process.trusted_until = process.trusted_until.max(noted + trust);
        }
    }
}
