//! Bumps, removals, inserts, and what is owed of them.

use super::{Outcome, Turn};
use crate::process::{BEHIND, Debt, Entry, Position, Queued, Step, Subject, Verb};
use crate::store::{Command, Kind, Moved, Reply, Set, Token, Value};

impl Turn<'_> {
    // ---- Bumps: `announce::bump` ----

    pub(super) fn bump(&mut self) -> Outcome {
        self.begin_look();
        let rules = self.model.rules;
        let everything = self.model.everything();
        let entry = |&(group, kind): &(u8, Kind)| match kind {
            _ if Some(Subject::Group(group, kind)) == everything => Moved::All,
            Kind::Hard => Moved::GroupHard(group),
            Kind::Soft => Moved::GroupSoft(group),
        };
        let call = self.call();
        call.announced = false;
        call.news = call.subjects.iter().map(entry).collect();
        let token = call.token;
        let append = |sent: bool| sent.then(|| Command::Append(call.news.clone()));
        let tokens = call.subjects.iter().map(|&(group, kind)| Command::SetToken(group, kind, token));
        let commands: Vec<Command> = append(rules.r2_entry_before_token)
            .into_iter()
            .chain(tokens)
            .chain(append(rules.r2_entry_after_token))
            .chain([Command::ReadJournal])
            .collect();
        self.send(Step::Bump, commands)
    }

    pub(super) fn bumped(&mut self, replies: &[Reply], asked: usize, failed: bool) -> Outcome {
        // The answer to the last command, which reads the journal, may be the only one that is missing.
        if asked == 0 || replies.len() < asked - 1 || (failed && replies.len() == asked) {
            return self.bump_over(false);
        }
        let stored = &replies[..asked - 1];
        let done = |reply: &Reply| matches!(reply, Reply::Done);
        let before = usize::from(self.model.rules.r2_entry_before_token);
        self.call().announced = stored[..before + self.call().subjects.len()].iter().all(done);
        if !stored.iter().all(done) {
            return self.append();
        }
        if let (false, Some(Reply::Journal(journal))) = (failed, replies.last())
            && let Some(moves) = self.digest(journal)
        {
            self.hear(&moves, Position { epoch: journal.epoch, seq: journal.end() });
        }
        self.bump_over(true)
    }

    pub(super) fn bump_over(&mut self, acknowledged: bool) -> Outcome {
        let call = self.call();
        let (verb, subjects, changes, token) = (call.verb, call.subjects.clone(), call.changes, call.token);
        if verb == Verb::Pay {
            self.call().bumped = acknowledged;
            return self.pay_deletions();
        }
        for (group, kind) in subjects {
            if !acknowledged {
                self.owe(Subject::Group(group, kind), changes, token);
            }
            if self.model.rules.r4_again {
                self.move_group(1 << group, kind);
            }
        }
        self.over(changes, acknowledged)
    }

    /// Returns to the caller of a change.
    pub(super) fn over(&mut self, changes: Set, acknowledged: bool) -> Outcome {
        self.process().must |= changes;
        if acknowledged {
            self.model.acknowledge(self.state, changes);
        }
        self.end()
    }

    // ---- The journal: `announce::append` ----

    pub(super) fn append(&mut self) -> Outcome {
        let news = self.call().news.clone();
        self.send(Step::Append { retried: false }, vec![Command::Append(news)])
    }

    pub(super) fn appended(&mut self, step: Step, reply: &Reply) -> Outcome {
        let news = self.call().news.clone();
        match (step, reply) {
            (_, Reply::Done | Reply::Made(_)) => self.announced(true),
            (Step::Append { retried }, _) => self.send(Step::MakeJournal { retried }, vec![Command::AddJournal(news)]),
            (Step::MakeJournal { retried: true }, _) => self.send(Step::ReadFullJournal, vec![Command::ReadJournal]),
            (Step::ReadFullJournal, Reply::Journal(journal)) => {
                self.send(Step::ReplaceFullJournal, vec![Command::ReplaceJournal(journal.cas, news)])
            }
            _ => self.send(Step::Append { retried: true }, vec![Command::Append(news)]),
        }
    }

    /// The entries are in the journal, or nobody knows.
    pub(super) fn announced(&mut self, done: bool) -> Outcome {
        let rules = self.model.rules;
        let call = self.call();
        let (verb, key, announced) = (call.verb, call.key, call.announced);
        let of_keys = call.news.iter().any(|moved| matches!(moved, Moved::KeyInsert(..) | Moved::KeyRemove(_)));
        match verb {
            Verb::Bump | Verb::Pay if !of_keys => {
                if done && !announced && rules.r2_sent_again_whole {
                    self.bump()
                } else {
                    self.bump_over(done)
                }
            }
            Verb::Bump | Verb::Pay => self.paid(done),
            Verb::Remove if done && !rules.r1_act_before_announcing => {
                self.send(Step::Delete, vec![Command::Delete(key, None)])
            }
            Verb::Remove => self.removed(done),
            Verb::Insert | Verb::SendQueued => self.conclude(done),
            Verb::Read | Verb::Load | Verb::Poll | Verb::Compact => unreachable!("it announces nothing"),
        }
    }

    // ---- Removals ----

    pub(super) fn deleted(&mut self, failed: bool) -> Outcome {
        let acts_first = self.model.rules.r1_act_before_announcing;
        match self.call().verb {
            Verb::Pay if failed => self.paid(false),
            Verb::Remove if failed => self.removed(false),
            Verb::Remove if !acts_first => self.removed(true),
            _ => self.append(),
        }
    }

    pub(super) fn removed(&mut self, acknowledged: bool) -> Outcome {
        let (key, changes) = (self.call().key, self.call().changes);
        if !acknowledged {
            self.owe(Subject::Item(key, false), changes, 0);
        }
        if self.model.rules.r4_again {
            self.forget(key, true);
        }
        self.over(changes, acknowledged)
    }

    /// `Behind::purge`: the commands of a write that is being sent may be on their way yet.
    pub(super) fn purge(&mut self, key: u8) {
        let process = self.process();
        let waiting = process.waiting[key as usize].take().map_or(0, |queued| queued.changes);
        let sending = process.calls[BEHIND].take_if(|call| call.key == key);
        let stray = sending.as_ref().map(|call| call.sent[call.replies.len()..].to_vec());
        let older = waiting | sending.map_or(0, |call| call.changes);
        self.state.stray(stray.unwrap_or_default());
        // Those who wait for them wait for the removal now.
        let counts = self.model.rules.r11_purged_counts;
        let call = self.call();
        call.changes |= older;
        call.has_purged = older != 0 && counts;
    }

    // ---- Inserts: `write_pending`, `announce_done`, `conclude` ----

    /// Stores a value in the local tier.
    pub(super) fn admit(&mut self, key: u8, value: Value) {
        self.forget(key, true);
        self.process().entries[key as usize] = Some(Entry { value, stale: false, loaded_at: None });
    }

    pub(super) fn version(&mut self) -> Outcome {
        let call = self.call();
        let key = call.key;
        call.value = call.value.map(Value::unsealed);
        call.found = None;
        self.send(Step::Version, vec![Command::GetLease(key)])
    }

    pub(super) fn versioned(&mut self, reply: Option<&Reply>) -> Outcome {
        let Some(Reply::Won(cas) | Reply::Busy(cas) | Reply::Hit(cas, _)) = reply else { return self.written(None) };
        self.call().found = Some((*cas, None));
        let model = self.model;
        let groups = model.groups_of(self.call().key);
        if self.call().verb == Verb::SendQueued {
            return self.tokens_of_late(groups);
        }
        let known = self.process().known;
        let known = (0..known.len()).filter(|group| known[*group].is_some()).fold(0, |all, group| all | 1 << group);
        self.record(groups & known);
        if groups & !known == 0 {
            return self.write();
        }
        self.call().forgotten = 0;
        self.send(Step::TokensToRecord, model.add_tokens(groups & !known))
    }

    pub(super) fn recorded(&mut self, replies: &[Reply], failed: bool) -> Outcome {
        if failed {
            return self.written(None);
        }
        self.take_tokens(replies);
        self.write()
    }

    pub(super) fn write(&mut self) -> Outcome {
        let (overtaken, rules) = (!self.is_unmoved(), self.model.rules);
        let call = self.call();
        let (key, cas) = (call.key, call.found.map(|(cas, _)| cas));
        let process = self.process as u8;
        let call = self.call();
        let (news, command) = if overtaken {
            (Moved::KeyRemove(key), Command::Delete(key, cas))
        } else {
            let value = call.value.expect("a value to write");
            (Moved::KeyInsert(key, process), Command::Set(key, cas.filter(|_| rules.r9_insert_under_version), value))
        };
        call.news = vec![news];
        self.send(Step::Write, vec![command])
    }

    pub(super) fn written(&mut self, reply: Option<&Reply>) -> Outcome {
        match reply {
            Some(Reply::Done | Reply::Miss) => self.append(),
            Some(_) => self.version(),
            None => self.conclude(false),
        }
    }

    pub(super) fn conclude(&mut self, sent: bool) -> Outcome {
        let call = self.call();
        let (verb, key, changes) = (call.verb, call.key, call.changes);
        let value = call.value.expect("a value to write");
        if verb == Verb::SendQueued && !sent {
            return self.queue_again(key, value, changes);
        }
        if !sent {
            self.owe(Subject::Item(key, true), changes, 0);
        }
        let is_followed = self.process().waiting[key as usize].is_some();
        let is_good =
            self.is_unmoved() && self.process().entries[key as usize].is_some_and(|entry| entry.value.by == value.by);
        let may_stay = is_good || (verb == Verb::SendQueued && is_followed);
        if !may_stay && self.model.rules.r9_dropped_unless_good {
            self.forget(key, true);
        }
        self.over(changes, sent)
    }

    /// `Behind::conclude`, of a write that has failed: a newer one stands for it, or it waits again.
    pub(super) fn queue_again(&mut self, key: u8, value: Value, changes: Set) -> Outcome {
        let moved = self.call().moved;
        let waiting = &mut self.process().waiting[key as usize];
        match waiting {
            Some(newer) => newer.changes |= changes,
            None => *waiting = Some(Queued { value: value.unsealed(), changes, moved, failed: true }),
        }
        self.end()
    }

    // ---- The outbox ----

    /// `Debts::owe`
    pub(super) fn owe(&mut self, subject: Subject, changes: Set, token: Token) {
        let (most, everything) = (self.model.max_debts, self.model.everything());
        let debts = &mut self.process().debts;
        let same = |debt: &Debt| match (debt.subject, subject) {
            (Subject::Item(one, _), Subject::Item(other, _)) => one == other,
            (one, other) => one == other,
        };
        let known = debts.iter().position(same);
        let escalates = known.is_none() && debts.len() >= most && everything.is_some() && Some(subject) != everything;
        if let (true, Some(everything)) = (escalates, everything) {
            let all = debts.drain(..).fold(changes, |all, debt| all | debt.changes);
            return self.owe(everything, all, 0);
        }
        let older = known.map_or(0, |at| debts.remove(at).changes);
        debts.push(Debt { subject, changes: older | changes, sent: false, token });
    }

    /// `Outbox::delete`
    pub(super) fn pay_deletions(&mut self) -> Outcome {
        let process = self.process as u8;
        let item = |debt: &Debt| match debt.subject {
            Subject::Item(key, heir) if debt.sent => Some((key, heir)),
            Subject::Item(..) | Subject::Group(..) => None,
        };
        let items: Vec<(u8, bool)> = self.process().debts.iter().filter_map(item).collect();
        if items.is_empty() {
            return self.paid(false);
        }
        let news =
            |&(key, heir): &(u8, bool)| if heir { Moved::KeyInsert(key, process) } else { Moved::KeyRemove(key) };
        self.call().news = items.iter().map(news).collect();
        self.send(Step::Delete, items.into_iter().map(|(key, _)| Command::Delete(key, None)).collect())
    }

    /// The end of `Outbox::pay`
    pub(super) fn paid(&mut self, deleted: bool) -> Outcome {
        let everything = self.model.everything();
        let call = self.call();
        let (bumped, subjects) = (call.bumped, call.subjects.clone());
        if bumped && self.model.rules.r4_again {
            for (group, kind) in subjects {
                self.move_group(1 << group, kind);
            }
        }
        let debts = &mut self.process().debts;
        let all = debts.iter().position(|debt| debt.sent && Some(debt.subject) == everything).filter(|_| bumped);
        let mut settled = 0;
        let mut at = 0;
        debts.retain(|debt| {
            let covered = all.is_some_and(|all| at < all);
            at += 1;
            let paid = debt.sent && if matches!(debt.subject, Subject::Group(..)) { bumped } else { deleted };
            settled |= if covered || paid { debt.changes } else { 0 };
            !(covered || paid)
        });
        debts.iter_mut().for_each(|debt| debt.sent = false);
        self.model.acknowledge(self.state, settled);
        self.end()
    }
}
