//! Reads and loads: what a call makes of what the store holds, and of what its loader brings.

use super::{Outcome, Turn};
use crate::process::{Entry, Position, ROOT_BIT, Step, Target, Verb};
use crate::store::{Command, GROUPS, Journal, Kind, Reply, Set, Token, Value};

/// A value as judged by tokens.
enum Judged {
    Fresh(Value),
    Stale(Value),
    Spent,
}

impl Turn<'_> {
    // ---- Reading: `fetch`, `consult` ----

    /// Asks for the value, as a call that may load with a lease.
    pub fn fetch(&mut self) -> Outcome {
        let (key, verb) = (self.call().key, self.call().verb);
        let command = if verb == Verb::Load { Command::GetLease(key) } else { Command::Get(key) };
        self.send(Step::Fetch, vec![command])
    }

    pub(super) fn fetched(&mut self, reply: Option<&Reply>) -> Outcome {
        let model = self.model;
        let (key, owed) = (self.call().key, self.call().owed_item);
        match reply {
            None => self.unknown(),
            Some(Reply::Hit(..)) if owed => self.unknown(),
            Some(&Reply::Hit(cas, value)) => {
                self.call().found = Some((cas, Some(value)));
                let owed = [Kind::Hard, Kind::Soft].map(|kind| self.owed_groups(kind));
                let at_hand = model.trusts(self.state, self.process) || !model.rules.r5_judges_under_trust;
                let known = self.process().known;
                let agrees =
                    |group: usize| (owed[0] | owed[1]) & (1 << group) == 0 && known[group] == Some(value.tokens[group]);
                if at_hand && model.groups(key).all(agrees) {
                    return self.judge(&Judged::Fresh(value));
                }
                let call = self.call();
                call.owed_groups = owed;
                call.forgotten = 0;
                self.send(Step::ReadTokens, model.get_tokens(key))
            }
            Some(&Reply::Won(cas)) => {
                self.call().target = Target::Lease(cas);
                self.load()
            }
            Some(&Reply::Busy(cas)) if self.call().verb == Verb::Load && !model.rules.one_lease => {
                self.call().target = Target::Lease(cas);
                self.load()
            }
            Some(Reply::Busy(_)) if self.call().verb == Verb::Load => {
                self.call().step = Step::Pause;
                Ok(())
            }
            Some(_) => self.end(),
        }
    }

    /// `Found::Unknown`
    pub(super) fn unknown(&mut self) -> Outcome {
        if self.call().verb == Verb::Load { self.load() } else { self.end() }
    }

    /// `Core::read_tokens`, answered
    pub(super) fn judged(&mut self, replies: &[Reply], failed: bool) -> Outcome {
        if failed {
            return self.unknown();
        }
        let model = self.model;
        let key = self.call().key;
        let tokens = model.tokens_in(key, replies);
        self.keep(&tokens);
        let (owed, found) = (self.call().owed_groups, self.call().found);
        let Some((_, Some(value))) = found else { unreachable!("a value is judged") };
        let matches = |kind: usize| {
            let token = |group: usize| {
                let read = if owed[kind] & (1 << group) == 0 { tokens[group].map_or(0, |read| read[kind]) } else { 0 };
                read != 0 && read == value.tokens[group][kind]
            };
            model.groups(key).all(token)
        };
        self.judge(&match (matches(0), !model.soft || matches(1)) {
            (false, _) => Judged::Spent,
            (true, true) => Judged::Fresh(value),
            (true, false) => Judged::Stale(value),
        })
    }

    /// Keeps tokens that were read, unless their groups have moved since they were asked for.
    pub(super) fn keep(&mut self, tokens: &[Option<[Token; 2]>]) {
        let (forgotten, rules, soft) = (self.call().forgotten, self.model.rules, self.model.soft);
        for (group, tokens) in tokens.iter().enumerate() {
            let complete = tokens.filter(|[hard, soft_token]| *hard != 0 && (!soft || *soft_token != 0));
            if let Some(tokens) = complete
                && (forgotten & (1 << group) == 0 || !rules.r5_kept_if_unmoved)
            {
                let process = self.process();
                process.known[group] = Some(tokens);
                // It is another one than was known at the moment of a load that runs.
                process.calls.iter_mut().flatten().for_each(|call| call.early &= !(1 << group));
            }
        }
    }

    fn judge(&mut self, judged: &Judged) -> Outcome {
        let (key, verb) = (self.call().key, self.call().verb);
        let cas = self.call().found.map(|(cas, _)| cas).expect("what was found is judged");
        match (judged, verb) {
            (Judged::Fresh(value), _) => {
                self.answer(*value, true)?;
                self.copy(*value, false);
                self.end()
            }
            (Judged::Stale(value), Verb::Read) => {
                self.answer(*value, false)?;
                self.copy(*value, true);
                self.end()
            }
            (Judged::Stale(_), _) => self.send(Step::Elect, vec![Command::GetRefreshLease(key)]),
            (Judged::Spent, Verb::Read) => self.end(),
            (Judged::Spent, _) => {
                self.call().found = None;
                self.send(Step::Replace, vec![Command::Delete(key, Some(cas)), Command::GetLease(key)])
            }
        }
    }

    pub(super) fn replaced(&mut self, reply: Option<&Reply>) -> Outcome {
        match reply {
            Some(&Reply::Won(cas)) => {
                self.call().target = Target::Lease(cas);
                self.load()
            }
            Some(Reply::Busy(_) | Reply::Hit(..)) => {
                self.call().step = Step::Pause;
                Ok(())
            }
            _ => self.load(),
        }
    }

    pub(super) fn elected(&mut self, reply: Option<&Reply>) -> Outcome {
        let (key, slot) = (self.call().key as usize, self.slot as u8);
        let Some((cas, Some(value))) = self.call().found.take() else { unreachable!("a stale value is refreshed") };
        match reply {
            Some(Reply::Busy(_)) => {
                self.answer(value, false)?;
                self.copy(value, true);
                return self.end();
            }
            Some(Reply::Won(lease)) => self.call().refresh = Some(*lease),
            _ => {}
        }
        self.call().target = Target::Value(cas);
        if self.process().entries[key].is_none() {
            // `TieredCache::refresh`: the copy uses the claim up, and the load begins with another.
            self.copy(value, true);
            self.process().flights[key] = Some(slot);
            self.call().moved = 0;
        }
        self.load()
    }

    /// Returns a value to the caller.
    pub(super) fn answer(&mut self, value: Value, fresh: bool) -> Outcome {
        let (key, must) = (self.call().key, self.call().must);
        if self.model.lacks(self.state, value, key, must, fresh) {
            let what = if fresh { "for fresh" } else { "for alive" };
            return Err(format!("process {}: a read takes an old value {what}", self.process));
        }
        Ok(())
    }

    /// `adopt_if_trusted`
    pub(super) fn copy(&mut self, value: Value, stale: bool) {
        let rules = self.model.rules;
        if !self.call().trusted {
            return;
        }
        if self.stands() {
            let key = self.call().key as usize;
            self.process().entries[key] = Some(Entry { value: value.unsealed(), stale, loaded_at: None });
        } else if !rules.r6_ticket || !rules.r6_old_born {
            let (flies, unmoved) = (self.flies(), self.is_unmoved());
            if (flies || !rules.r6_ticket) && (unmoved || !rules.r6_old_born) {
                let key = self.call().key as usize;
                self.process().entries[key] = Some(Entry { value: value.unsealed(), stale, loaded_at: None });
            }
        }
    }

    /// Whether the flight of the call's claim is where it was.
    pub(super) fn flies(&mut self) -> bool {
        let (key, slot) = (self.call().key as usize, self.slot as u8);
        self.process().flights[key] == Some(slot)
    }

    /// Whether no group of the key has moved since the claim's `born`.
    pub(super) fn is_unmoved(&mut self) -> bool {
        let key = self.call().key;
        self.call().moved & (self.model.groups_of(key) | ROOT_BIT) == 0
    }

    pub(super) fn stands(&mut self) -> bool {
        self.flies() && self.is_unmoved()
    }

    // ---- Loading: `run_one`, `finish` ----

    /// The loader begins.
    pub(super) fn load(&mut self) -> Outcome {
        let (knows, now) = (self.state.called(), self.model.time(self.state));
        let known = self.process().known;
        let (key, leads) = (self.call().key, self.call().target != Target::None);
        let second = leads && !self.state.disturbed && self.model.is_loaded(self.state, key);
        let call = self.call();
        call.step = Step::Load;
        // What it needs no more.
        (call.found, call.must, call.forgotten, call.owed_item, call.owed_groups) = (None, 0, 0, false, [0; 2]);
        call.value = Some(Value { knows, by: None, tokens: Default::default() });
        call.loaded_at = now;
        call.early = known.iter().enumerate().fold(0, |all, (at, known)| all | Set::from(known.is_some()) << at);
        if second {
            return Err(format!(
                "process {}: a second load of key {key} begins, and nothing has fenced the first",
                self.process
            ));
        }
        Ok(())
    }

    /// The other process has had its time: this one loads for itself alone.
    pub fn load_alone(&mut self) -> Outcome {
        self.call().target = Target::None;
        self.load()
    }

    /// `TieredCache::finish`
    pub fn loaded(&mut self) -> Outcome {
        if self.call().target == Target::None {
            self.commit();
            return self.give_back();
        }
        if !self.stands() {
            return self.give_back();
        }
        let model = self.model;
        let (key, early) = (self.call().key, self.call().early);
        let late = model.groups_of(key) & !early;
        self.record(model.groups_of(key) & early);
        if late == 0 {
            return self.send_load();
        }
        self.tokens_of_late(late)
    }

    /// Writes tokens that are known into the value.
    pub(super) fn record(&mut self, groups: Set) {
        let known = self.process().known;
        let value = self.call().value.as_mut().expect("a value to write");
        for (group, tokens) in value.tokens.iter_mut().enumerate().filter(|(group, _)| groups & (1 << group) != 0) {
            *tokens = known[group].expect("a token that is known");
        }
    }

    /// `Core::tokens_of_late`
    pub(super) fn tokens_of_late(&mut self, groups: Set) -> Outcome {
        self.begin_look();
        self.call().forgotten = 0;
        let mut commands = self.model.add_tokens(groups);
        if self.model.rules.r7_journal_after_late_tokens {
            commands.push(Command::ReadJournal);
        }
        self.send(Step::TokensOfLate, commands)
    }

    pub(super) fn late(&mut self, replies: &[Reply], failed: bool) -> Outcome {
        if failed {
            return self.late_failed();
        }
        let (tokens, journal) =
            replies.split_at(replies.len() - usize::from(self.model.rules.r7_journal_after_late_tokens));
        self.take_tokens(tokens);
        match journal.first() {
            Some(Reply::Journal(journal)) => self.late_looked(journal),
            Some(_) => self.send(Step::Renew, vec![Command::AddJournal(Vec::new())]),
            None => self.with_late_tokens(),
        }
    }

    /// Records tokens that were read or added, and keeps them.
    pub(super) fn take_tokens(&mut self, replies: &[Reply]) {
        let mut replies = replies.iter();
        let mut value = self.call().value.expect("a value to write");
        let missing: Vec<usize> =
            self.model.groups(self.call().key).filter(|group| value.tokens[*group][0] == 0).collect();
        let mut tokens = [None; GROUPS];
        for group in missing {
            let mut next = || match replies.next() {
                Some(Reply::Token(token)) => *token,
                other => unreachable!("{other:?} for a token"),
            };
            let pair = [next(), if self.model.soft { next() } else { 0 }];
            value.tokens[group] = pair;
            tokens[group] = Some(pair);
        }
        self.call().value = Some(value);
        self.keep(&tokens);
    }

    pub(super) fn late_looked(&mut self, journal: &Journal) -> Outcome {
        match self.digest(journal) {
            Some(moves) => {
                let end = Position { epoch: journal.epoch, seq: journal.end() };
                if self.hear(&moves, end) { self.with_late_tokens() } else { self.late_failed() }
            }
            None => {
                self.begin_look();
                self.send(Step::Look, vec![Command::ReadJournal])
            }
        }
    }

    pub(super) fn late_failed(&mut self) -> Outcome {
        if self.call().verb == Verb::SendQueued {
            return self.written(None);
        }
        if self.is_unmoved() {
            self.commit();
        }
        self.give_back()
    }

    pub(super) fn with_late_tokens(&mut self) -> Outcome {
        if self.call().verb == Verb::SendQueued { self.write() } else { self.send_load() }
    }

    pub(super) fn send_load(&mut self) -> Outcome {
        if !self.is_unmoved() {
            return self.give_back();
        }
        let call = self.call();
        (call.look, call.early, call.forgotten) = (None, 0, 0);
        let (Target::Lease(cas) | Target::Value(cas)) = call.target else { unreachable!("a load that writes") };
        let command = Command::Set(call.key, Some(cas), call.value.expect("a load has brought a value"));
        self.send(Step::SendLoads, vec![command])
    }

    /// `conclude_load`
    pub(super) fn sent(&mut self, reply: Option<&Reply>) -> Outcome {
        match reply {
            Some(Reply::Done) => {
                if let Target::Lease(_) = self.call().target {
                    self.call().target = Target::None;
                }
                self.commit();
            }
            Some(_) => {}
            None => self.commit(),
        }
        self.give_back()
    }

    /// Stores what was loaded in the local tier, if the claim stands.
    pub(super) fn commit(&mut self) {
        if !self.stands() {
            return;
        }
        let from_the_beginning = self.model.rules.vouched_from_the_beginning;
        let now = self.model.time(self.state);
        let call = self.call();
        let (key, loaded_at) = (call.key as usize, if from_the_beginning { call.loaded_at } else { now });
        let value = call.value.expect("a load has brought a value");
        self.process().entries[key] = Some(Entry { value: value.unsealed(), stale: false, loaded_at });
    }

    /// Gives leases back: nobody waits for that, nor knows when it is done.
    pub(super) fn give_back(&mut self) -> Outcome {
        let call = self.call();
        let key = call.key;
        let lease = match call.target {
            Target::Lease(cas) => Some(Command::Delete(key, Some(cas))),
            Target::None | Target::Value(_) => None,
        };
        let refresh = call.refresh.take().map(|cas| Command::DeleteRefresh(key, cas));
        let given_back: Vec<Command> = lease.into_iter().chain(refresh).collect();
        given_back.into_iter().for_each(|command| self.state.stray(vec![command]));
        self.end()
    }
}
