//! What can happen, and what must not: the state of all processes and servers, its actions, and the promises.

use crate::calls::{Outcome, Turn};
use crate::canonical;
use crate::process::{BEHIND, CHANGER, Call, OUTBOX, POLLER, Position, Process, READER, Step, Subject, Target, Verb};
use crate::rules::Rules;
use crate::search::System;
use crate::store::{
    Cas, Command, GROUPS, Held, Item, Journal, KEYS, Kind, Moved, Name, Reply, Set, Store, Token, VOID, Value,
};

/// A change of the source of values, told to the cache in this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    InvalidateGroup(u8),
    ExpireGroup(u8),
    Remove(u8),
    Insert(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    pub what: What,
    /// The changes that were under way at the same time, of which either may be the last.
    pub beside: Set,
    /// When it was acknowledged, if it was and time counts.
    pub acked_at: Option<u8>,
}

/// How often each of these may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub loads: u8,
    pub reads: u8,
    /// Loads of a process that the trust lease of which has lapsed, and that reaches no server.
    pub loads_cut_off: u8,
    pub invalidations: u8,
    pub expirations: u8,
    pub removals: u8,
    pub inserts: u8,
    pub queued: u8,
    pub compactions: u8,
    /// An error in the place of an answer; what was not carried out yet may be, at any later time.
    pub lost_replies: u8,
    pub evictions: u8,
    pub flushes: u8,
    pub restarts: u8,
    pub crashes: u8,
    pub cuts: u8,
    /// A caller that waits no longer for what another process loads.
    pub impatience: u8,
    pub ticks: u8,
}

/// The bounds of one exploration.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub processes: usize,
    /// One server, or one for the journal and the tokens and another for the values.
    pub servers: usize,
    /// The groups of each key; keys without groups are not used.
    pub groups: [Set; KEYS],
    /// Whether soft tokens exist.
    pub soft: bool,
    /// Whether group 0 is the root of the namespace.
    pub root: bool,
    /// Whether every key has a value in the store at the beginning.
    pub warm: bool,
    pub max_debts: usize,
    /// How many entries the journal has room for.
    pub room: usize,
    /// Whether the journal has three entries at the beginning, which everybody has read.
    pub filled: bool,
    /// Whether a look's answer may take its time; otherwise the poller has it at once.
    pub slow_looks: bool,
    /// How long trust lasts, where time counts.
    pub trust: Option<u8>,
    pub budget: Budget,
    pub rules: Rules,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub store: Store,
    pub processes: Vec<Process>,
    /// Batches whose callers have an error already, and which may be carried out yet.
    pub strays: Vec<Vec<Command>>,
    /// In the order in which they were called.
    pub changes: Vec<Change>,
    pub acked: Set,
    pub left: Budget,
    /// Whether anything has failed.
    pub disturbed: bool,
    pub now: u8,
}

impl State {
    /// Returns all changes that were called.
    #[must_use]
    pub fn called(&self) -> Set {
        ((1_u16 << self.changes.len()) - 1) as Set
    }

    /// Leaves commands to be carried out at any later time.
    pub fn stray(&mut self, commands: Vec<Command>) {
        // A read that nobody waits for changes nothing.
        let changes =
            |command: &Command| !matches!(command, Command::Get(_) | Command::GetToken(..) | Command::ReadJournal);
        let Some(last) = commands.iter().rposition(changes) else { return };
        self.strays.push(commands[..=last].to_vec());
        self.strays.sort_by_cached_key(canonical::fingerprint);
    }
}

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
    Poll(usize),
    Compact(usize),
    Pay(usize),
    SendQueued(usize, u8),
    GiveUpWrite(usize, u8),
    /// The server carries out the next command of a batch.
    Serve(usize, usize),
    /// The answer arrives.
    Receive(usize, usize),
    LoaderReturns(usize),
    AskAgain(usize),
    LoadAlone(usize),
    /// An error arrives instead. With `true`, only the last answer is missing.
    LoseReply(usize, usize, bool),
    /// The server carries out the next command of a batch that was given up.
    ServeStray(usize),
    Evict(Item),
    Flush(usize),
    Restart(usize),
    Crash(usize),
    Cut(usize, usize),
    Heal(usize, usize),
    Tick,
}

impl Model {
    #[must_use]
    pub fn server_of(&self, item: Item) -> usize {
        match item {
            Item::Value(_) | Item::Refresh(_) => self.servers - 1,
            Item::Token(..) | Item::Journal => 0,
        }
    }

    #[must_use]
    pub fn groups_of(&self, key: u8) -> Set {
        self.groups[key as usize]
    }

    /// Returns the groups of a key, in order.
    pub fn groups(&self, key: u8) -> impl Iterator<Item = usize> + use<> {
        let groups = self.groups_of(key);
        (0..GROUPS).filter(move |group| groups & (1 << group) != 0)
    }

    fn keys(&self) -> impl Iterator<Item = u8> + use<> {
        let groups = self.groups;
        (0..KEYS as u8).filter(move |key| groups[*key as usize] != 0)
    }

    fn kinds(&self) -> &'static [Kind] {
        if self.soft { &[Kind::Hard, Kind::Soft] } else { &[Kind::Hard] }
    }

    fn all_groups(&self) -> Set {
        self.groups.iter().fold(0, |all, groups| all | groups)
    }

    /// Returns the commands that read the tokens of a key's groups.
    #[must_use]
    pub fn get_tokens(&self, key: u8) -> Vec<Command> {
        let get = |group| self.kinds().iter().map(move |kind| Command::GetToken(group as u8, *kind));
        self.groups(key).flat_map(get).collect()
    }

    /// Returns the commands that add and read the tokens of groups.
    #[must_use]
    pub fn add_tokens(&self, groups: Set) -> Vec<Command> {
        let add = |group| self.kinds().iter().map(move |kind| Command::AddToken(group as u8, *kind));
        (0..GROUPS).filter(|group| groups & (1 << group) != 0).flat_map(add).collect()
    }

    /// Returns the answers to [`get_tokens`](Self::get_tokens), by group.
    #[must_use]
    pub fn tokens_in(&self, key: u8, replies: &[Reply]) -> [Option<[Token; 2]>; GROUPS] {
        let mut replies = replies.iter().map(|reply| if let Reply::Token(token) = reply { *token } else { 0 });
        let mut tokens = [None; GROUPS];
        for group in self.groups(key) {
            let hard = replies.next().unwrap_or(0);
            tokens[group] = Some([hard, if self.soft { replies.next().unwrap_or(0) } else { 0 }]);
        }
        tokens
    }

    /// Returns what covers every other debt.
    #[must_use]
    pub fn everything(&self) -> Option<Subject> {
        self.root.then_some(Subject::Group(0, Kind::Hard))
    }

    /// Returns the time, where it counts.
    #[must_use]
    pub fn time(&self, state: &State) -> Option<u8> {
        self.trust.map(|_| state.now)
    }

    #[must_use]
    pub fn trusts(&self, state: &State, process: usize) -> bool {
        self.trust.is_none() || state.now < state.processes[process].trusted_until
    }

    /// Returns the changes that were acknowledged so long ago that nobody may answer from before them.
    #[must_use]
    pub fn overdue(&self, state: &State) -> Set {
        let Some(trust) = self.trust else { return 0 };
        let late = |change: &Change| change.acked_at.is_some_and(|acked| acked + trust <= state.now);
        state.changes.iter().enumerate().fold(0, |all, (at, change)| all | Set::from(late(change)) << at)
    }

    pub fn acknowledge(&self, state: &mut State, changes: Set) {
        state.acked |= changes;
        let now = self.time(state);
        for (at, change) in state.changes.iter_mut().enumerate() {
            if changes & (1 << at) != 0 {
                change.acked_at = change.acked_at.or(now);
            }
        }
    }

    /// Returns whether `value` is older than a change of its key or groups that is among `must`; than one that expires, if it
    /// is taken for fresh.
    #[must_use]
    pub fn lacks(&self, state: &State, value: Value, key: u8, must: Set, fresh: bool) -> bool {
        let beside = value.by.map_or(0, |by| state.changes[by as usize].beside);
        let missing = must & !value.knows & !beside;
        state
            .changes
            .iter()
            .enumerate()
            .any(|(at, change)| missing & (1 << at) != 0 && self.concerns(change.what, key, fresh))
    }

    fn concerns(&self, what: What, key: u8, fresh: bool) -> bool {
        match what {
            What::InvalidateGroup(group) => self.groups_of(key) & (1 << group) != 0,
            What::ExpireGroup(group) => fresh && self.groups_of(key) & (1 << group) != 0,
            What::Remove(changed) | What::Insert(changed) => changed == key,
        }
    }

    /// Returns whether a load of the key runs that nothing has fenced, of a caller that holds the lease.
    #[must_use]
    pub fn is_loaded(&self, state: &State, key: u8) -> bool {
        // One that is under way takes the lease of a load that has begun since, and fences it by that.
        let takes_leases = |change: &Change| matches!(change.what, What::Remove(_) | What::Insert(_));
        if state.changes.iter().any(takes_leases) {
            return false;
        }
        let leads = |call: &Call| {
            call.step == Step::Load
                && call.key == key
                && call.target != Target::None
                && call.value.is_some_and(|value| !self.lacks(state, value, key, state.called(), true))
        };
        state.processes.iter().flat_map(|process| process.calls.iter().flatten()).any(|call| leads(call))
    }

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

    fn all_items(&self) -> Vec<Item> {
        let groups = self.all_groups();
        let tokens = (0..GROUPS as u8).filter(|group| groups & (1 << group) != 0);
        let tokens = tokens.flat_map(|group| self.kinds().iter().map(move |kind| Item::Token(group, *kind)));
        let values = self.keys().flat_map(|key| [Item::Value(key), Item::Refresh(key)]);
        values.chain(tokens).chain([Item::Journal]).collect()
    }

    fn wipe(&self, state: &mut State, server: usize) {
        for item in self.all_items().into_iter().filter(|item| self.server_of(*item) == server) {
            state.store.lose(item);
        }
    }

    /// Loses the items, the connections, and what was on its way; the versions begin anew.
    fn restart(&self, state: &mut State, server: usize) {
        self.wipe(state, server);
        state.strays.retain(|stray| self.server_of(stray[0].item()) != server);
        for call in state.processes.iter_mut().flat_map(|process| process.calls.iter_mut().flatten()) {
            if let Some(command) = call.next_command()
                && self.server_of(command.item()) == server
            {
                call.failed = true;
                call.sent.clear();
                call.replies.clear();
            }
        }
        for item in self.all_items().into_iter().filter(|item| self.server_of(*item) == server) {
            state.store.forget_versions(item);
        }
        if self.rules.r8_own_connection {
            let void = |name, number: &mut u8| {
                if let Name::Cas(item) = name
                    && self.server_of(item) == server
                {
                    *number = VOID.0;
                }
            };
            canonical::names(state, &mut { void });
        }
    }

    fn crash(&self, state: &mut State, process: usize) {
        let cut = state.processes[process].cut;
        let crashed = std::mem::replace(&mut state.processes[process], Process { cut, ..Process::default() });
        for call in crashed.calls.into_iter().flatten() {
            state.stray(call.sent.get(call.replies.len()..).unwrap_or_default().to_vec());
        }
    }

    fn checked(&self, state: State) -> Result<State, String> {
        for (at, process) in state.processes.iter().enumerate() {
            let must = process.must | self.overdue(&state);
            for key in self.keys() {
                let Some(entry) = process.entries[key as usize] else { continue };
                if self.counts(&state, at, entry.loaded_at) && self.lacks(&state, entry.value, key, must, !entry.stale)
                {
                    return Err(format!("process {at}: its local tier serves an old value of key {key}"));
                }
            }
        }
        for key in self.keys() {
            let Held::Value(_, value) = state.store.values[key as usize] else { continue };
            let agree = |kind: usize| {
                let token = |group: usize| {
                    let token = state.store.tokens[group][kind];
                    token != 0 && token == value.tokens[group][kind]
                };
                self.groups(key).all(token)
            };
            if agree(0) && self.lacks(&state, value, key, state.acked, !self.soft || agree(1)) {
                return Err(format!("the store holds an old value of key {key} under the present tokens"));
            }
        }
        Ok(state)
    }

    /// Returns whether an entry would be served now.
    fn counts(&self, state: &State, process: usize, loaded_at: Option<u8>) -> bool {
        let Some(trust) = self.trust else { return true };
        self.trusts(state, process) || loaded_at.is_some_and(|loaded_at| state.now < loaded_at + trust)
    }
}

impl System for Model {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        let tokens = [[1, u8::from(self.soft)]; GROUPS];
        let value = Value {
            knows: 0,
            by: None,
            tokens: [0, 1].map(|group| if self.all_groups() & (1 << group) != 0 { tokens[group] } else { [0; 2] }),
        };
        let value_of = |key: u8| {
            let mut value = value;
            for (group, tokens) in value.tokens.iter_mut().enumerate() {
                if self.groups_of(key) & (1 << group) == 0 {
                    *tokens = [0; 2];
                }
            }
            value
        };
        let mut values = [Held::Nothing; KEYS];
        if self.warm {
            self.keys().for_each(|key| values[key as usize] = Held::Value(Cas(1), value_of(key)));
        }
        let entries = if self.filled { vec![Moved::KeyRemove(KEYS as u8 - 1); 3] } else { Vec::new() };
        let seq = entries.len() as u8;
        let store = Store {
            values,
            refreshes: [Held::Nothing; KEYS],
            tokens: value.tokens,
            journal: Some(Journal { epoch: 1, base: 0, entries, cas: Cas(1) }),
            last_cas: [u8::from(self.warm), 1, 0, 0, 1],
            last_token: [[1; 2]; GROUPS],
            last_epoch: 1,
        };
        let process = Process {
            position: Some(Position { epoch: 1, seq }),
            trusted_until: self.trust.unwrap_or(0),
            ..Process::default()
        };
        State {
            store,
            processes: vec![process; self.processes],
            strays: Vec::new(),
            changes: Vec::new(),
            acked: 0,
            left: self.budget,
            disturbed: false,
            now: 0,
        }
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        let left = &state.left;
        for (p, process) in state.processes.iter().enumerate() {
            for (slot, call) in process.calls.iter().enumerate() {
                let Some(call) = call else { continue };
                if call.next_command().is_some() && !call.failed {
                    actions.push(Action::Serve(p, slot));
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
            if left.crashes > 0 {
                actions.push(Action::Crash(p));
            }
            for server in 0..self.servers {
                if process.cut & (1 << server) != 0 {
                    actions.push(Action::Heal(p, server));
                } else if left.cuts > 0 {
                    actions.push(Action::Cut(p, server));
                }
            }
        }
        actions.extend((0..state.strays.len()).map(Action::ServeStray));
        if left.evictions > 0 {
            actions.extend(self.all_items().into_iter().filter(|item| state.store.has(*item)).map(Action::Evict));
        }
        if left.flushes > 0 {
            actions.extend((0..self.servers).map(Action::Flush));
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
            Action::Poll(p) => {
                self.turn(s, p, POLLER).begin_poll(Verb::Poll)?;
                let looks = |call: &Call| call.step == Step::Look;
                if !self.slow_looks && s.processes[p].calls[POLLER].as_deref().is_some_and(looks) {
                    self.turn(s, p, POLLER).receive()?;
                }
            }
            Action::Compact(p) => {
                s.left.compactions -= 1;
                self.turn(s, p, POLLER).begin_poll(Verb::Compact)?;
            }
            Action::Pay(p) => self.turn(s, p, OUTBOX).begin_pay()?,
            Action::SendQueued(p, key) => self.turn(s, p, BEHIND).begin_send_queued(key)?,
            Action::GiveUpWrite(p, key) => self.turn(s, p, BEHIND).give_up_write(key)?,
            Action::Serve(p, slot) => self.serve(s, p, slot),
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
            Action::ServeStray(at) => {
                let command = s.strays[at].remove(0);
                s.store.run(&command, self.room);
                let rest = s.strays.remove(at);
                s.stray(rest);
            }
            Action::Evict(item) => {
                s.left.evictions -= 1;
                s.disturbed = true;
                s.store.lose(item);
            }
            Action::Flush(server) => {
                s.left.flushes -= 1;
                s.disturbed = true;
                self.wipe(s, server);
            }
            Action::Restart(server) => {
                s.left.restarts -= 1;
                s.disturbed = true;
                self.restart(s, server);
            }
            Action::Crash(p) => {
                s.left.crashes -= 1;
                s.disturbed = true;
                self.crash(s, p);
            }
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
            Action::Serve(p, slot) => {
                let call = call(p, slot);
                let command = call.next_command().expect("a command on its way");
                let reply = state.store.clone().run(command, self.room);
                format!("process {p}, {:?} in {:?}: {command:?} is carried out: {reply:?}", call.verb, call.step)
            }
            Action::Receive(p, slot) => {
                let call = call(p, slot);
                format!("process {p}, {:?} in {:?}: goes on with the answer", call.verb, call.step)
            }
            Action::LoseReply(p, slot, _) => {
                let call = call(p, slot);
                format!("process {p}, {:?} in {:?}: has an error for an answer", call.verb, call.step)
            }
            Action::ServeStray(at) => format!("late, given up by its caller: {:?} is carried out", state.strays[at][0]),
            other => format!("{other:?}"),
        }
    }
}

impl Model {
    /// What the callers and threads of a process may begin.
    fn begin_actions(&self, state: &State, p: usize, actions: &mut Vec<Action>) {
        let (left, process) = (&state.left, &state.processes[p]);
        let is_idle = |slot: usize| process.calls[slot].is_none();
        if is_idle(POLLER) && self.is_worth_a_look(state, process) {
            actions.push(Action::Poll(p));
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
        let trusts_less = self.trust.is_some_and(|trust| process.trusted_until < state.now + trust);
        process.position != Some(end) || state.acked & !process.must != 0 || trusts_less
    }
}
