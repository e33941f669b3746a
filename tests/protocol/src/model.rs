//! The state of all processes and servers, and the bounds within which it changes.

use crate::canonical;
use crate::process::{Position, Process, Subject};
use crate::rules::Rules;
use crate::store::{Cas, Command, GROUPS, Held, Item, Journal, KEYS, Kind, Moved, Reply, Set, Store, Token, Value};

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
    /// Whether states differ that are as good as the same, and what is lost is so at any time, not just before somebody
    /// notices. So there are many times as many, and the same promises are broken.
    pub exact: bool,
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

impl Model {
    /// Returns the state that everything begins with.
    pub(crate) fn beginning(&self) -> State {
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

    pub(crate) fn keys(&self) -> impl Iterator<Item = u8> + use<> {
        let groups = self.groups;
        (0..KEYS as u8).filter(move |key| groups[*key as usize] != 0)
    }

    pub(crate) fn kinds(&self) -> &'static [Kind] {
        if self.soft { &[Kind::Hard, Kind::Soft] } else { &[Kind::Hard] }
    }

    pub(crate) fn all_groups(&self) -> Set {
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

    pub fn acknowledge(&self, state: &mut State, changes: Set) {
        state.acked |= changes;
        let now = self.time(state);
        for (at, change) in state.changes.iter_mut().enumerate() {
            if changes & (1 << at) != 0 {
                change.acked_at = change.acked_at.or(now);
            }
        }
    }
}
