//! The steps of a process's calls, after the functions of the code: what each sends, and what it makes of the answers.

mod change;
mod look;
mod read;

use self::look::Moves;
use crate::model::{Model, State};
use crate::process::{Call, Debt, Process, Queued, ROOT_BIT, Step, Subject, Verb};
use crate::store::{Command, Kind, Moved, Set, Value};

/// `Err` says which promise is broken.
pub type Outcome = Result<(), String>;

/// One step of one call.
pub struct Turn<'a> {
    pub model: &'a Model,
    pub state: &'a mut State,
    pub process: usize,
    pub slot: usize,
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
        self.move_group(1 << group, kind);
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
