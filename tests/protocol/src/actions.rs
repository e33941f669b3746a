//! What can happen.

use crate::calls::{Outcome, Turn};
use crate::canonical;
use crate::model::{Change, Model, State, What};
use crate::process::{BEHIND, CHANGER, Call, OUTBOX, POLLER, Position, Process, READER, Step, Verb};
use crate::search::System;
use crate::store::{GROUPS, Item, Kind, Value};

/// What happens at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A caller begins a read or a load.
    Ask(usize, Verb, u8),
    LoadCutOff(usize, u8),
    /// A caller begins a change.
    Change(usize, What),
    /// A caller queues an insert.
    Queue(usize, u8),
    /// A thread of the namespace begins.
    Compact(usize),
    Pay(usize),
    SendQueued(usize, u8),
    GiveUpWrite(usize, u8),
    /// A server carries something out, after it has lost something.
    Access(Option<Loss>, Access),
    /// The answer arrives.
    Receive(usize, usize),
    LoaderReturns(usize),
    AskAgain(usize),
    LoadAlone(usize),
    /// An error arrives instead. With `true`, only the last answer is missing.
    LoseReply(usize, usize, bool),
    /// What otherwise comes with who notices it: see [`Model::exact`].
    Lose(Loss),
    Crash(usize),
    Restart(usize),
    Cut(usize, usize),
    Heal(usize, usize),
    Tick,
}

/// What a server carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The next command of a batch.
    Serve(usize, usize),
    /// The next command of a batch that was given up.
    ServeStray(usize),
    /// The look of a poller that begins.
    Poll(usize),
    /// The first look of a process that has crashed. Until then, nobody can tell it from one that takes its time.
    BeginAnew(usize),
}

/// What a server has lost by the time that something is carried out which can tell: until then, it makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Evict(Item),
    Flush(usize),
}

impl System for Model {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        self.beginning()
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        let left = &state.left;
        for (p, process) in state.processes.iter().enumerate() {
            for (slot, call) in process.calls.iter().enumerate() {
                let Some(call) = call else { continue };
                if let Some(command) = call.next_command()
                    && !call.failed
                {
                    actions.extend(self.accesses(state, Access::Serve(p, slot), command.item()));
                }
                if call.is_answered() {
                    actions.push(Action::Receive(p, slot));
                }
                if left.lost_replies > 0 && !call.sent.is_empty() && !call.failed {
                    actions.push(Action::LoseReply(p, slot, false));
                    if call.step == Step::Bump && call.replies.len() + 1 == call.sent.len() {
                        actions.push(Action::LoseReply(p, slot, true));
                    }
                }
            }
            self.begin_actions(state, p, &mut actions);
            let is_idle = process.calls.iter().all(Option::is_none) && !self.listens(state, process);
            if left.crashes > 0 && self.exact {
                actions.push(Action::Crash(p));
            } else if left.crashes > 0 && !is_idle {
                actions.extend(self.accesses(state, Access::BeginAnew(p), Item::Journal));
            }
            for server in 0..self.servers {
                if process.cut & (1 << server) != 0 {
                    actions.push(Action::Heal(p, server));
                } else if left.cuts > 0 {
                    actions.push(Action::Cut(p, server));
                }
            }
        }
        for (at, stray) in state.strays.iter().enumerate() {
            actions.extend(self.accesses(state, Access::ServeStray(at), stray[0].item()));
        }
        if self.exact {
            let items = self.all_items().into_iter().filter(|item| left.evictions > 0 && state.store.has(*item));
            let servers = 0..if left.flushes > 0 { self.servers } else { 0 };
            actions.extend(items.map(Loss::Evict).chain(servers.map(Loss::Flush)).map(Action::Lose));
        }
        if left.restarts > 0 {
            actions.extend((0..self.servers).map(Action::Restart));
        }
        if left.ticks > 0 {
            actions.push(Action::Tick);
        }
        actions
    }

    fn apply(&self, state: &State, action: &Action) -> Result<State, String> {
        let mut next = state.clone();
        let s = &mut next;
        match *action {
            Action::Ask(p, verb, key) => {
                let left = if verb == Verb::Load { &mut s.left.loads } else { &mut s.left.reads };
                *left -= 1;
                self.turn(s, p, READER).begin_read(verb, key)?;
            }
            Action::LoadCutOff(p, key) => {
                s.left.loads_cut_off -= 1;
                self.turn(s, p, READER).begin_load_cut_off(key)?;
            }
            Action::Change(p, what) => {
                let left = match what {
                    What::InvalidateGroup(_) => &mut s.left.invalidations,
                    What::ExpireGroup(_) => &mut s.left.expirations,
                    What::Remove(_) => &mut s.left.removals,
                    What::Insert(_) => &mut s.left.inserts,
                };
                *left -= 1;
                self.begin_change(s, p, what)?;
            }
            Action::Queue(p, key) => {
                s.left.queued -= 1;
                let id = self.call_change(s, p, What::Insert(key));
                let value = Value { knows: s.called(), by: Some(id), tokens: Default::default() };
                self.turn(s, p, CHANGER).queue(key, id, value)?;
            }
            Action::Compact(p) => {
                s.left.compactions -= 1;
                self.turn(s, p, POLLER).begin_poll(Verb::Compact)?;
            }
            Action::Pay(p) => self.turn(s, p, OUTBOX).begin_pay()?,
            Action::SendQueued(p, key) => self.turn(s, p, BEHIND).begin_send_queued(key)?,
            Action::GiveUpWrite(p, key) => self.turn(s, p, BEHIND).give_up_write(key)?,
            Action::Access(loss, access) => {
                if let Some(loss) = loss {
                    self.lose(s, loss);
                }
                self.carry_out(s, access)?;
            }
            Action::Receive(p, slot) => self.turn(s, p, slot).receive()?,
            Action::LoaderReturns(p) => self.turn(s, p, READER).loaded()?,
            Action::AskAgain(p) => self.turn(s, p, READER).fetch()?,
            Action::LoadAlone(p) => {
                s.left.impatience -= 1;
                self.turn(s, p, READER).load_alone()?;
            }
            Action::LoseReply(p, slot, last) => {
                s.left.lost_replies -= 1;
                s.disturbed = true;
                let call = s.processes[p].calls[slot].as_mut().expect("a call under way");
                let rest = call.sent[call.replies.len()..].to_vec();
                call.failed = true;
                if !last {
                    call.replies.clear();
                    call.sent.clear();
                }
                s.stray(rest);
                self.turn(s, p, slot).receive()?;
            }
            Action::Lose(loss) => self.lose(s, loss),
            Action::Crash(p) => self.crash(s, p),
            Action::Restart(server) => self.restart(s, server),
            Action::Cut(p, server) => {
                s.left.cuts -= 1;
                s.disturbed = true;
                s.processes[p].cut |= 1 << server;
            }
            Action::Heal(p, server) => s.processes[p].cut &= !(1 << server),
            Action::Tick => {
                s.left.ticks -= 1;
                s.now += 1;
            }
        }
        let mut next = self.checked(next)?;
        self.tidy(&mut next);
        Ok(next)
    }

    fn fingerprint(&self, state: &State) -> u64 {
        canonical::fingerprint_of(self, state)
    }

    fn describe(&self, state: &State, action: &Action) -> String {
        let call = |p: usize, slot: usize| state.processes[p].calls[slot].as_ref().expect("a call under way");
        match *action {
            Action::Access(None, Access::Serve(p, slot)) => {
                let call = call(p, slot);
                let command = call.next_command().expect("a command on its way");
                let reply = state.store.clone().run(command, self.room);
                format!("process {p}, {:?} in {:?}: {command:?} is carried out: {reply:?}", call.verb, call.step)
            }
            Action::Access(None, Access::ServeStray(at)) => {
                format!("late, given up by its caller: {:?} is carried out", state.strays[at][0])
            }
            Action::Access(Some(loss), access) => {
                format!("{loss:?}, and then: {}", self.describe(state, &Action::Access(None, access)))
            }
            Action::Access(None, access) => format!("{access:?}"),
            Action::Receive(p, slot) => {
                let call = call(p, slot);
                format!("process {p}, {:?} in {:?}: goes on with the answer", call.verb, call.step)
            }
            Action::LoseReply(p, slot, _) => {
                let call = call(p, slot);
                format!("process {p}, {:?} in {:?}: has an error for an answer", call.verb, call.step)
            }
            other => format!("{other:?}"),
        }
    }
}

impl Model {
    /// Returns an access, as it is and after each loss that it would notice.
    fn accesses(&self, state: &State, access: Access, item: Item) -> impl Iterator<Item = Action> + use<> {
        let left = &state.left;
        let evicted = (!self.exact && left.evictions > 0 && state.store.has(item)).then_some(Loss::Evict(item));
        let flushed = (!self.exact && left.flushes > 0).then_some(Loss::Flush(self.server_of(item)));
        let losses = [evicted, flushed].into_iter().flatten().map(Some);
        [None].into_iter().chain(losses).map(move |loss| Action::Access(loss, access))
    }

    fn carry_out(&self, state: &mut State, access: Access) -> Outcome {
        match access {
            Access::Serve(p, slot) => {
                self.serve(state, p, slot);
                Ok(())
            }
            Access::ServeStray(at) => {
                let command = state.strays[at].remove(0);
                state.store.run(&command, self.room);
                let rest = state.strays.remove(at);
                state.stray(rest);
                Ok(())
            }
            Access::Poll(p) => self.poll(state, p),
            Access::BeginAnew(p) => {
                self.crash(state, p);
                self.poll(state, p)
            }
        }
    }

    fn poll(&self, state: &mut State, p: usize) -> Outcome {
        self.turn(state, p, POLLER).begin_poll(Verb::Poll)?;
        let looks = |call: &Call| call.step == Step::Look;
        if !self.slow_looks && state.processes[p].calls[POLLER].as_deref().is_some_and(looks) {
            self.turn(state, p, POLLER).receive()?;
        }
        Ok(())
    }

    /// What the callers and threads of a process may begin.
    fn begin_actions(&self, state: &State, p: usize, actions: &mut Vec<Action>) {
        let (left, process) = (&state.left, &state.processes[p]);
        let is_idle = |slot: usize| process.calls[slot].is_none();
        if is_idle(POLLER) {
            let has_news = self.is_worth_a_look(state, process);
            let looks = self.accesses(state, Access::Poll(p), Item::Journal);
            // If the journal is lost, that is news.
            actions.extend(looks.filter(|action| has_news || !matches!(action, Action::Access(None, _))));
        }
        // Whoever has not looked yet does that first.
        if process.position.is_none() {
            return;
        }
        if is_idle(POLLER) && left.compactions > 0 && state.store.journal.as_ref().is_some_and(|j| j.entries.len() > 1)
        {
            actions.push(Action::Compact(p));
        }
        if is_idle(OUTBOX) && !process.debts.is_empty() {
            actions.push(Action::Pay(p));
        }
        match process.calls[READER].as_ref().map(|call| call.step) {
            Some(Step::Load) => actions.push(Action::LoaderReturns(p)),
            Some(Step::Pause) => {
                actions.push(Action::AskAgain(p));
                if left.impatience > 0 {
                    actions.push(Action::LoadAlone(p));
                }
            }
            Some(_) => {}
            None => {
                for key in self.keys() {
                    let entry = process.entries[key as usize].filter(|entry| self.counts(state, p, entry.loaded_at));
                    if left.loads > 0 && entry.is_none_or(|entry| entry.stale) {
                        actions.push(Action::Ask(p, Verb::Load, key));
                    }
                    if left.reads > 0 && entry.is_none() {
                        actions.push(Action::Ask(p, Verb::Read, key));
                    }
                    if left.loads_cut_off > 0 && entry.is_none() && !self.trusts(state, p) {
                        actions.push(Action::LoadCutOff(p, key));
                    }
                }
            }
        }
        if is_idle(CHANGER) {
            let groups = self.all_groups();
            // The root is bumped by what covers everything alone.
            let groups = (u8::from(self.root)..GROUPS as u8).filter(|group| groups & (1 << group) != 0);
            for group in groups {
                let bumps =
                    [(left.invalidations, What::InvalidateGroup(group)), (left.expirations, What::ExpireGroup(group))];
                actions.extend(bumps.iter().filter(|(left, _)| *left > 0).map(|(_, what)| Action::Change(p, *what)));
            }
            for key in self.keys() {
                let changes = [(left.removals, What::Remove(key)), (left.inserts, What::Insert(key))];
                actions.extend(changes.iter().filter(|(left, _)| *left > 0).map(|(_, what)| Action::Change(p, *what)));
                if left.queued > 0 {
                    actions.push(Action::Queue(p, key));
                }
            }
        }
        for key in self.keys() {
            if let Some(queued) = process.waiting[key as usize]
                && is_idle(BEHIND)
            {
                actions.push(Action::SendQueued(p, key));
                if queued.failed {
                    actions.push(Action::GiveUpWrite(p, key));
                }
            }
        }
    }

    /// Returns whether a look would change anything.
    fn is_worth_a_look(&self, state: &State, process: &Process) -> bool {
        let Some(journal) = &state.store.journal else { return true };
        let end = Position { epoch: journal.epoch, seq: journal.end() };
        // Trust that lasts longer than time says no more.
        let longest = |trust: u8| (state.now + trust).min(state.now + state.left.ticks + 1);
        let trusts_less = self.trust.is_some_and(|trust| process.trusted_until < longest(trust));
        let is_behind = process.position != Some(end) || state.acked & !process.must != 0 || trusts_less;
        is_behind && (self.exact || self.listens(state, process))
    }
}

impl Model {
    /// Carries out the next command of a call.
    pub fn serve(&self, state: &mut State, process: usize, slot: usize) {
        let State { store, processes, .. } = state;
        let call = processes[process].calls[slot].as_mut().expect("a call under way");
        let command = call.next_command().expect("a command on its way");
        let reply = store.run(command, self.room);
        call.replies.push(reply);
    }

    fn turn<'a>(&'a self, state: &'a mut State, process: usize, slot: usize) -> Turn<'a> {
        Turn { model: self, state, process, slot }
    }

    fn call_change(&self, state: &mut State, process: usize, what: What) -> u8 {
        let id = state.changes.len() as u8;
        let open = state.called() & !state.acked;
        // What this process has queued and returned from is before it, though it is not acknowledged.
        let before = state.processes[process].waiting.iter().flatten().fold(0, |all, queued| all | queued.changes)
            | state.processes[process].calls[BEHIND].as_ref().map_or(0, |call| call.changes);
        let beside = open & !before;
        for (at, change) in state.changes.iter_mut().enumerate() {
            if beside & (1 << at) != 0 && matches!(change.what, What::Insert(_)) {
                change.beside |= 1 << id;
            }
        }
        let beside = if let What::Insert(_) = what { beside } else { 0 };
        state.changes.push(Change { what, beside, acked_at: None });
        id
    }

    fn begin_change(&self, state: &mut State, process: usize, what: What) -> Outcome {
        let id = self.call_change(state, process, what);
        let value = Value { knows: state.called(), by: Some(id), tokens: Default::default() };
        let mut turn = self.turn(state, process, CHANGER);
        match what {
            What::InvalidateGroup(group) => turn.begin_bump(group, Kind::Hard, id),
            What::ExpireGroup(group) => turn.begin_bump(group, Kind::Soft, id),
            What::Remove(key) => turn.begin_remove(key, id),
            What::Insert(key) => turn.begin_insert(key, id, value),
        }
    }
}
