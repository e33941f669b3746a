//! The steps of a process's calls, after the functions of the code: what each sends, and what it makes of the answers.

use crate::model::{Model, State};
use crate::process::{
    BEHIND, Call, Debt, Entry, Look, Position, Process, Queued, ROOT_BIT, Step, Subject, Target, Verb,
};
use crate::store::{Command, GROUPS, Journal, Kind, Moved, Reply, Set, Token, Value};

/// `Err` says which promise is broken.
pub type Outcome = Result<(), String>;

/// One step of one call.
pub struct Turn<'a> {
    pub model: &'a Model,
    pub state: &'a mut State,
    pub process: usize,
    pub slot: usize,
}

/// What a look found to have moved.
enum Moves {
    Nothing,
    Entries(Vec<Moved>),
    Lost,
}

/// A value as judged by tokens.
enum Judged {
    Fresh(Value),
    Stale(Value),
    Spent,
}

impl Turn<'_> {
    fn process(&mut self) -> &mut Process {
        &mut self.state.processes[self.process]
    }

    fn call(&mut self) -> &mut Call {
        self.state.processes[self.process].calls[self.slot].as_mut().expect("a call under way")
    }

    fn begin(&mut self, call: Call) {
        self.state.processes[self.process].calls[self.slot] = Some(Box::new(call));
    }

    /// Ends the call. What it holds of the local tier is free.
    fn end(&mut self) -> Outcome {
        let slot = self.slot as u8;
        let process = self.process();
        process.calls[slot as usize] = None;
        for flight in &mut process.flights {
            *flight = flight.filter(|holder| *holder != slot);
        }
        Ok(())
    }

    fn send(&mut self, step: Step, commands: Vec<Command>) -> Outcome {
        let server = self.model.server_of(commands[0].item());
        let is_cut = self.process().cut & (1 << server) != 0;
        let call = self.call();
        call.step = step;
        call.replies.clear();
        call.sent = commands;
        call.failed = is_cut;
        // A breaker answers at once, and nothing is sent.
        if is_cut { self.receive() } else { Ok(()) }
    }

    // ---- What a call begins with ----

    /// `TieredCache::read` and `load_one`, after a look at the local tier that found nothing to serve.
    pub fn begin_read(&mut self, verb: Verb, key: u8) -> Outcome {
        let (model, slot) = (self.model, self.slot as u8);
        let trusted = model.trusts(self.state, self.process);
        let must = self.process().must | model.overdue(self.state);
        let process = self.process();
        process.flights[key as usize] = Some(slot);
        let owed_item = model.rules.r12_owed_items && process.owes_item(key);
        self.begin(Call { trusted, must, owed_item, ..Call::new(verb, key) });
        self.fetch()
    }

    /// A load of a process that is cut off: `Standing::CutOff` asks nobody.
    pub fn begin_load_cut_off(&mut self, key: u8) -> Outcome {
        let slot = self.slot as u8;
        self.process().flights[key as usize] = Some(slot);
        self.begin(Call { trusted: false, ..Call::new(Verb::Load, key) });
        self.load()
    }

    /// `Core::bump`
    pub fn begin_bump(&mut self, group: u8, kind: Kind, change: u8) -> Outcome {
        let rules = self.model.rules;
        let token = if rules.r3_fresh_token { 0 } else { self.state.store.fresh_token(group, kind) };
        let subjects = vec![(group, kind)];
        self.begin(Call { subjects, token, changes: 1 << change, ..Call::new(Verb::Bump, 0) });
        if rules.r4_bump_before {
            self.move_group(1 << group, kind);
        }
        self.bump()
    }

    /// `TieredCache::change`
    pub fn begin_remove(&mut self, key: u8, change: u8) -> Outcome {
        self.begin(Call { changes: 1 << change, news: vec![Moved::KeyRemove(key)], ..Call::new(Verb::Remove, key) });
        self.forget(key, true);
        if self.model.rules.r11_purge {
            self.purge(key);
        }
        if self.model.rules.r1_act_before_announcing {
            self.send(Step::Delete, vec![Command::Delete(key, None)])
        } else {
            self.append()
        }
    }

    /// `TieredCache::write_all`
    pub fn begin_insert(&mut self, key: u8, change: u8, value: Value) -> Outcome {
        self.admit(key, value);
        let call = Call { changes: 1 << change, value: Some(value), ..Call::new(Verb::Insert, key) };
        self.begin(call);
        self.version()
    }

    /// `TieredCache::queue`. What waits for the key goes out as this.
    pub fn queue(&mut self, key: u8, change: u8, value: Value) -> Outcome {
        self.admit(key, value);
        let process = self.process();
        let older = process.waiting[key as usize].map_or(0, |queued| queued.changes);
        process.waiting[key as usize] = Some(Queued { value, changes: older | 1 << change, moved: 0, failed: false });
        process.must |= 1 << change;
        Ok(())
    }

    /// The thread of the queue sends what waits.
    pub fn begin_send_queued(&mut self, key: u8) -> Outcome {
        let rules = self.model.rules;
        let queued = self.process().waiting[key as usize].take().expect("a write that waits");
        let moved = if rules.r11_old_as_queued { queued.moved } else { 0 };
        let call =
            Call { changes: queued.changes, moved, value: Some(queued.value), ..Call::new(Verb::SendQueued, key) };
        self.begin(call);
        self.version()
    }

    /// A write of the queue that has failed is given up.
    pub fn give_up_write(&mut self, key: u8) -> Outcome {
        let queued = self.process().waiting[key as usize].take().expect("a write that waits");
        self.owe(Subject::Item(key, false), queued.changes, 0);
        Ok(())
    }

    /// `Outbox::pay`
    pub fn begin_pay(&mut self) -> Outcome {
        let everything = self.model.everything();
        let debts = &mut self.process().debts;
        let all = debts.iter().any(|debt| Some(debt.subject) == everything);
        let due = |debt: &Debt| !all || Some(debt.subject) == everything;
        debts.iter_mut().for_each(|debt| debt.sent = due(debt));
        let group = |debt: &Debt| match debt.subject {
            Subject::Group(group, kind) if debt.sent => Some((group, kind)),
            Subject::Group(..) | Subject::Item(..) => None,
        };
        let subjects: Vec<(u8, Kind)> = debts.iter().filter_map(group).collect();
        let token = debts.iter().find(|debt| group(debt).is_some()).map_or(0, |debt| debt.token);
        let bumps = !subjects.is_empty();
        self.begin(Call { subjects, token, ..Call::new(Verb::Pay, 0) });
        if bumps { self.bump() } else { self.pay_deletions() }
    }

    /// `Source::read`: the look begins with its request, and that is carried out at once: a later moment of either asks less.
    pub fn begin_poll(&mut self, verb: Verb) -> Outcome {
        self.begin(Call::new(verb, 0));
        self.look()?;
        if self.state.processes[self.process].calls[self.slot].is_some() {
            self.model.serve(self.state, self.process, self.slot);
        }
        Ok(())
    }

    // ---- Answers ----

    /// Goes on with the answers to a batch, or with its error.
    pub fn receive(&mut self) -> Outcome {
        let call = self.call();
        let (step, failed) = (call.step, std::mem::take(&mut call.failed));
        let asked = call.sent.len();
        call.sent.clear();
        let replies = std::mem::take(&mut call.replies);
        match step {
            Step::Fetch => self.fetched(replies.first().filter(|_| !failed)),
            Step::ReadTokens => self.judged(&replies, failed),
            Step::Replace => self.replaced(replies.get(1).filter(|_| !failed)),
            Step::Elect => self.elected(replies.first().filter(|_| !failed)),
            Step::TokensOfLate => self.late(&replies, failed),
            Step::SendLoads => self.sent(replies.first().filter(|_| !failed)),
            Step::Bump => self.bumped(&replies, asked, failed),
            Step::Append { .. } | Step::MakeJournal { .. } | Step::ReadFullJournal | Step::ReplaceFullJournal => {
                match replies.first().filter(|_| !failed) {
                    Some(reply) => self.appended(step, reply),
                    None => self.announced(false),
                }
            }
            Step::Delete => self.deleted(failed),
            Step::Version => self.versioned(replies.first().filter(|_| !failed)),
            Step::TokensToRecord => self.recorded(&replies, failed),
            Step::Write => self.written(replies.first().filter(|_| !failed)),
            Step::Look => self.looked(replies.first().filter(|_| !failed)),
            Step::Renew => self.renewed(replies.first().filter(|_| !failed)),
            Step::Compact => self.end(),
            Step::Apply => {
                let moves = Moves::Entries(std::mem::take(&mut self.call().news));
                self.apply(&moves);
                self.end()
            }
            Step::Pause | Step::Load => unreachable!("nothing is asked"),
        }
    }

    // ---- Reading: `fetch`, `consult` ----

    /// Asks for the value, as a call that may load with a lease.
    pub fn fetch(&mut self) -> Outcome {
        let (key, verb) = (self.call().key, self.call().verb);
        let command = if verb == Verb::Load { Command::GetLease(key) } else { Command::Get(key) };
        self.send(Step::Fetch, vec![command])
    }

    fn fetched(&mut self, reply: Option<&Reply>) -> Outcome {
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
            Some(Reply::Busy(_)) if self.call().verb == Verb::Load && !model.rules.one_lease => self.unknown(),
            Some(Reply::Busy(_)) if self.call().verb == Verb::Load => {
                self.call().step = Step::Pause;
                Ok(())
            }
            Some(_) => self.end(),
        }
    }

    /// `Found::Unknown`
    fn unknown(&mut self) -> Outcome {
        if self.call().verb == Verb::Load { self.load() } else { self.end() }
    }

    /// `Core::read_tokens`, answered
    fn judged(&mut self, replies: &[Reply], failed: bool) -> Outcome {
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
    fn keep(&mut self, tokens: &[Option<[Token; 2]>]) {
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

    fn replaced(&mut self, reply: Option<&Reply>) -> Outcome {
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

    fn elected(&mut self, reply: Option<&Reply>) -> Outcome {
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
    fn answer(&mut self, value: Value, fresh: bool) -> Outcome {
        let (key, must) = (self.call().key, self.call().must);
        if self.model.lacks(self.state, value, key, must, fresh) {
            let what = if fresh { "for fresh" } else { "for alive" };
            return Err(format!("process {}: a read takes an old value {what}", self.process));
        }
        Ok(())
    }

    /// `adopt_if_trusted`
    fn copy(&mut self, value: Value, stale: bool) {
        let rules = self.model.rules;
        if !self.call().trusted {
            return;
        }
        if self.stands() {
            let key = self.call().key as usize;
            self.process().entries[key] = Some(Entry { value: unsealed(value), stale, loaded_at: None });
        } else if !rules.r6_ticket || !rules.r6_old_born {
            let (flies, unmoved) = (self.flies(), self.is_unmoved());
            if (flies || !rules.r6_ticket) && (unmoved || !rules.r6_old_born) {
                let key = self.call().key as usize;
                self.process().entries[key] = Some(Entry { value: unsealed(value), stale, loaded_at: None });
            }
        }
    }

    /// Whether the flight of the call's claim is where it was.
    fn flies(&mut self) -> bool {
        let (key, slot) = (self.call().key as usize, self.slot as u8);
        self.process().flights[key] == Some(slot)
    }

    /// Whether no group of the key has moved since the claim's `born`.
    fn is_unmoved(&mut self) -> bool {
        let key = self.call().key;
        self.call().moved & (self.model.groups_of(key) | ROOT_BIT) == 0
    }

    fn stands(&mut self) -> bool {
        self.flies() && self.is_unmoved()
    }

    // ---- Loading: `run_one`, `finish` ----

    /// The loader begins.
    fn load(&mut self) -> Outcome {
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
    fn record(&mut self, groups: Set) {
        let known = self.process().known;
        let value = self.call().value.as_mut().expect("a value to write");
        for (group, tokens) in value.tokens.iter_mut().enumerate().filter(|(group, _)| groups & (1 << group) != 0) {
            *tokens = known[group].expect("a token that is known");
        }
    }

    /// `Core::tokens_of_late`
    fn tokens_of_late(&mut self, groups: Set) -> Outcome {
        self.begin_look();
        self.call().forgotten = 0;
        let mut commands = self.model.add_tokens(groups);
        if self.model.rules.r7_journal_after_late_tokens {
            commands.push(Command::ReadJournal);
        }
        self.send(Step::TokensOfLate, commands)
    }

    fn late(&mut self, replies: &[Reply], failed: bool) -> Outcome {
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
    fn take_tokens(&mut self, replies: &[Reply]) {
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

    fn late_looked(&mut self, journal: &Journal) -> Outcome {
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

    fn late_failed(&mut self) -> Outcome {
        if self.call().verb == Verb::SendQueued {
            return self.written(None);
        }
        if self.is_unmoved() {
            self.commit();
        }
        self.give_back()
    }

    fn with_late_tokens(&mut self) -> Outcome {
        if self.call().verb == Verb::SendQueued { self.write() } else { self.send_load() }
    }

    fn send_load(&mut self) -> Outcome {
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
    fn sent(&mut self, reply: Option<&Reply>) -> Outcome {
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
    fn commit(&mut self) {
        if !self.stands() {
            return;
        }
        let from_the_beginning = self.model.rules.vouched_from_the_beginning;
        let now = self.model.time(self.state);
        let call = self.call();
        let (key, loaded_at) = (call.key as usize, if from_the_beginning { call.loaded_at } else { now });
        let value = call.value.expect("a load has brought a value");
        self.process().entries[key] = Some(Entry { value: unsealed(value), stale: false, loaded_at });
    }

    /// Gives leases back: nobody waits for that, nor knows when it is done.
    fn give_back(&mut self) -> Outcome {
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

    // ---- Bumps: `announce::bump` ----

    fn bump(&mut self) -> Outcome {
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

    fn bumped(&mut self, replies: &[Reply], asked: usize, failed: bool) -> Outcome {
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

    fn bump_over(&mut self, acknowledged: bool) -> Outcome {
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
            if self.model.rules.r4_bump_again {
                self.move_group(1 << group, kind);
            }
        }
        self.over(changes, acknowledged)
    }

    /// Returns to the caller of a change.
    fn over(&mut self, changes: Set, acknowledged: bool) -> Outcome {
        self.process().must |= changes;
        if acknowledged {
            self.model.acknowledge(self.state, changes);
        }
        self.end()
    }

    // ---- The journal: `announce::append` ----

    fn append(&mut self) -> Outcome {
        let news = self.call().news.clone();
        self.send(Step::Append { retried: false }, vec![Command::Append(news)])
    }

    fn appended(&mut self, step: Step, reply: &Reply) -> Outcome {
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
    fn announced(&mut self, done: bool) -> Outcome {
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

    fn deleted(&mut self, failed: bool) -> Outcome {
        let acts_first = self.model.rules.r1_act_before_announcing;
        match self.call().verb {
            Verb::Pay if failed => self.paid(false),
            Verb::Remove if failed => self.removed(false),
            Verb::Remove if !acts_first => self.removed(true),
            _ => self.append(),
        }
    }

    fn removed(&mut self, acknowledged: bool) -> Outcome {
        let (key, changes) = (self.call().key, self.call().changes);
        if !acknowledged {
            self.owe(Subject::Item(key, false), changes, 0);
        }
        if self.model.rules.r4_bump_again {
            self.forget(key, true);
        }
        self.over(changes, acknowledged)
    }

    /// `Behind::purge`: the commands of a write that is being sent may be on their way yet.
    fn purge(&mut self, key: u8) {
        let process = self.process();
        let waiting = process.waiting[key as usize].take().map_or(0, |queued| queued.changes);
        let sending = process.calls[BEHIND].take_if(|call| call.key == key);
        let stray = sending.as_ref().map(|call| call.sent[call.replies.len()..].to_vec());
        let older = waiting | sending.map_or(0, |call| call.changes);
        self.state.stray(stray.unwrap_or_default());
        // Those who wait for them wait for the removal now.
        self.call().changes |= older;
    }

    // ---- Inserts: `write_pending`, `announce_done`, `conclude` ----

    /// Stores a value in the local tier.
    fn admit(&mut self, key: u8, value: Value) {
        self.forget(key, true);
        self.process().entries[key as usize] = Some(Entry { value, stale: false, loaded_at: None });
    }

    fn version(&mut self) -> Outcome {
        let call = self.call();
        let key = call.key;
        call.value = call.value.map(unsealed);
        call.found = None;
        self.send(Step::Version, vec![Command::GetLease(key)])
    }

    fn versioned(&mut self, reply: Option<&Reply>) -> Outcome {
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

    fn recorded(&mut self, replies: &[Reply], failed: bool) -> Outcome {
        if failed {
            return self.written(None);
        }
        self.take_tokens(replies);
        self.write()
    }

    fn write(&mut self) -> Outcome {
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

    fn written(&mut self, reply: Option<&Reply>) -> Outcome {
        match reply {
            Some(Reply::Done | Reply::Miss) => self.append(),
            Some(_) => self.version(),
            None => self.conclude(false),
        }
    }

    fn conclude(&mut self, sent: bool) -> Outcome {
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
        if !is_good && !(verb == Verb::SendQueued && is_followed) && self.model.rules.r9_dropped_unless_good {
            self.forget(key, true);
        }
        self.over(changes, sent)
    }

    /// `Behind::conclude`, of a write that has failed: a newer one stands for it, or it waits again.
    fn queue_again(&mut self, key: u8, value: Value, changes: Set) -> Outcome {
        let moved = self.call().moved;
        let waiting = &mut self.process().waiting[key as usize];
        match waiting {
            Some(newer) => newer.changes |= changes,
            None => *waiting = Some(Queued { value: unsealed(value), changes, moved, failed: true }),
        }
        self.end()
    }

    // ---- The outbox ----

    /// `Debts::owe`
    fn owe(&mut self, subject: Subject, changes: Set, token: Token) {
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
    fn pay_deletions(&mut self) -> Outcome {
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
    fn paid(&mut self, deleted: bool) -> Outcome {
        let everything = self.model.everything();
        let call = self.call();
        let (bumped, subjects) = (call.bumped, call.subjects.clone());
        if bumped && self.model.rules.r4_bump_again {
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

    // ---- Looking: `Source::read`, `Follower` ----

    fn begin_look(&mut self) {
        let look = Look {
            position: self.process().position,
            noted: self.model.time(self.state).unwrap_or(0),
            acked: self.state.acked,
        };
        self.call().look = Some(look);
    }

    fn look(&mut self) -> Outcome {
        self.begin_look();
        self.send(Step::Look, vec![Command::ReadJournal])
    }

    fn looked(&mut self, reply: Option<&Reply>) -> Outcome {
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

    fn polled(&mut self, journal: &Journal) -> Outcome {
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
    fn renewed(&mut self, reply: Option<&Reply>) -> Outcome {
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
    fn digest(&mut self, journal: &Journal) -> Option<Moves> {
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
    fn hear(&mut self, moves: &Moves, end: Position) -> bool {
        let look = self.call().look.expect("a look that has begun");
        if matches!(moves, Moves::Lost) && look.position.is_none() && self.process().position.is_some() {
            return false;
        }
        self.apply(moves);
        self.adopt(end);
        true
    }

    fn apply(&mut self, moves: &Moves) {
        match moves {
            Moves::Nothing => {}
            Moves::Entries(news) => news.iter().for_each(|moved| self.apply_one(*moved)),
            Moves::Lost if self.model.rules.r10_resync_bumps => self.move_group(Set::MAX, Kind::Hard),
            Moves::Lost => {}
        }
    }

    fn apply_one(&mut self, moved: Moved) {
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
    fn adopt(&mut self, end: Position) {
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

    // ---- The local tier ----

    /// `Core::move_group`: everything that is older than this moment has been overtaken.
    fn move_group(&mut self, groups: Set, kind: Kind) {
        let model = self.model;
        let process = self.process();
        for call in process.calls.iter_mut().flatten() {
            call.moved |= groups;
            call.forgotten |= groups;
            call.early &= !groups;
        }
        process.waiting.iter_mut().flatten().for_each(|queued| queued.moved |= groups);
        for (key, entry) in process.entries.iter_mut().enumerate() {
            if groups & (model.groups_of(key as u8) | ROOT_BIT) != 0 {
                match kind {
                    Kind::Hard => *entry = None,
                    Kind::Soft => entry.iter_mut().for_each(|entry| entry.stale = true),
                }
            }
        }
        for (group, known) in process.known.iter_mut().enumerate() {
            *known = known.filter(|_| groups & (1 << group) == 0);
        }
    }

    /// Takes what stands under a key out of the local tier.
    fn forget(&mut self, key: u8, flights: bool) {
        let process = self.process();
        process.entries[key as usize] = None;
        if flights {
            process.flights[key as usize] = None;
        }
    }

    fn owed_groups(&mut self, kind: Kind) -> Set {
        let everything = self.model.everything();
        if self.model.rules.r12_owed_groups { self.process().owed_groups(kind, everything) } else { 0 }
    }
}

/// Returns a value without the tokens that its header records: nobody looks at them in the local tier.
fn unsealed(value: Value) -> Value {
    Value { tokens: Default::default(), ..value }
}
