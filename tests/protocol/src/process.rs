//! What a process knows, and where its calls are.

use crate::store::{Cas, Command, GROUPS, Item, KEYS, Kind, Moved, Name, Reply, Set, Token, Value};

/// What runs at the same time in one process: a caller that reads or loads, one that changes, and the threads of the
/// namespace.
pub const READER: usize = 0;
pub const CHANGER: usize = 1;
pub const POLLER: usize = 2;
pub const OUTBOX: usize = 3;
pub const BEHIND: usize = 4;
pub const SLOTS: usize = 5;

/// Stands for the root in a set of groups.
pub const ROOT_BIT: Set = 0x80;

/// How many entries of which epoch a process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: u8,
    pub seq: u8,
}

/// An entry of the local tier that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub value: Value,
    /// Whether it is stale: it came so, or a group of it has been expired since its `born`.
    pub stale: bool,
    /// When its load began, if this process has loaded it and time counts.
    pub loaded_at: Option<u8>,
}

/// What is owed to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The deletion of an item, and whether this process has a newer value.
    Item(u8, bool),
    Group(u8, Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Debt {
    pub subject: Subject,
    /// What is acknowledged once it is paid.
    pub changes: Set,
    /// Whether it is being paid, and has not been owed again since.
    pub sent: bool,
    /// The token that a retry sends, where that is not a fresh one.
    pub token: Token,
}

/// A write that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queued {
    pub value: Value,
    pub changes: Set,
    /// The groups that have moved since it was queued.
    pub moved: Set,
    pub failed: bool,
}

/// A look at the journal that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    pub position: Option<Position>,
    pub noted: u8,
    /// What had been acknowledged when it began.
    pub acked: Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Read,
    Load,
    Bump,
    Remove,
    Insert,
    /// The poller looks at the journal.
    Poll,
    Compact,
    /// The outbox pays.
    Pay,
    /// The queue of writes sends one.
    SendQueued,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Fetch,
    ReadTokens,
    Replace,
    Elect,
    /// For another process, before it asks again.
    Pause,
    /// For its loader.
    Load,
    TokensOfLate,
    SendLoads,
    Bump,
    Append {
        retried: bool,
    },
    MakeJournal {
        retried: bool,
    },
    ReadFullJournal,
    ReplaceFullJournal,
    Delete,
    Version,
    TokensToRecord,
    Write,
    Look,
    /// For the answer to the journal that it makes, where there was none.
    Renew,
    Compact,
    /// To apply what was adopted already.
    Apply,
}

/// What a load may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    None,
    Lease(Cas),
    Value(Cas),
}

/// A call under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub verb: Verb,
    pub key: u8,
    pub step: Step,
    /// The batch on its way, and the answers to as much of it as was carried out.
    pub sent: Vec<Command>,
    pub replies: Vec<Reply>,
    /// Whether it will have an error for an answer.
    pub failed: bool,
    /// The groups that have moved since its `born`.
    pub moved: Set,
    /// The groups that were forgotten since their tokens were asked for.
    pub forgotten: Set,
    /// The groups whose tokens were known when the load began, and have been since.
    pub early: Set,
    /// What was owed before the store was asked.
    pub owed_item: bool,
    pub owed_groups: [Set; 2],
    /// What the store held under the key.
    pub found: Option<(Cas, Option<Value>)>,
    pub target: Target,
    pub refresh: Option<Cas>,
    /// What the load has brought, or is to be written.
    pub value: Option<Value>,
    pub loaded_at: Option<u8>,
    /// Whether the trust lease held when it began.
    pub trusted: bool,
    pub look: Option<Look>,
    /// What is bumped, and the token where that is not a fresh one.
    pub subjects: Vec<(u8, Kind)>,
    pub token: Token,
    pub announced: bool,
    /// What is to be appended to the journal.
    pub news: Vec<Moved>,
    /// The outbox: which half of the payment is through.
    pub bumped: bool,
    /// A removal: whether it has purged a write, so that what the store holds is older than that.
    pub has_purged: bool,
    /// The changes that are acknowledged when it succeeds.
    pub changes: Set,
    /// The changes that its answer must not lack.
    pub must: Set,
}

impl Call {
    #[must_use]
    pub fn new(verb: Verb, key: u8) -> Call {
        Call {
            verb,
            key,
            step: Step::Pause,
            sent: Vec::new(),
            replies: Vec::new(),
            failed: false,
            moved: 0,
            forgotten: 0,
            early: 0,
            owed_item: false,
            owed_groups: [0; 2],
            found: None,
            target: Target::None,
            refresh: None,
            value: None,
            loaded_at: None,
            trusted: true,
            look: None,
            subjects: Vec::new(),
            token: 0,
            announced: false,
            news: Vec::new(),
            bumped: false,
            has_purged: false,
            changes: 0,
            must: 0,
        }
    }

    /// Returns the next command to be carried out, if one is on its way.
    #[must_use]
    pub fn next_command(&self) -> Option<&Command> {
        self.sent.get(self.replies.len())
    }

    /// Returns whether its answer is there.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let waits = matches!(self.step, Step::Pause | Step::Load);
        !waits && (self.failed || self.replies.len() == self.sent.len())
    }

    pub fn names(&mut self, f: &mut impl FnMut(Name, &mut u8)) {
        for (at, reply) in self.replies.iter_mut().enumerate() {
            // An answer that was given up has no question any more, and no names.
            if let Some(command) = self.sent.get(at) {
                reply.names(command.item(), f);
            }
        }
        self.sent.iter_mut().for_each(|command| command.names(f));
        let item = Item::Value(self.key);
        if let Some((cas, value)) = &mut self.found {
            f(Name::Cas(item), &mut cas.0);
            value.iter_mut().for_each(|value| value.names(f));
        }
        if let Target::Lease(cas) | Target::Value(cas) = &mut self.target {
            f(Name::Cas(item), &mut cas.0);
        }
        self.refresh.iter_mut().for_each(|cas| f(Name::Cas(Item::Refresh(self.key)), &mut cas.0));
        self.value.iter_mut().for_each(|value| value.names(f));
        if let Some(Look { position: Some(position), .. }) = &mut self.look {
            f(Name::Epoch, &mut position.epoch);
        }
        if let Some((group, kind)) = self.subjects.first() {
            f(Name::Token(*group as usize, *kind as usize), &mut self.token);
        }
    }
}

/// A process. Crashed, it begins anew, as one that knows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Process {
    pub position: Option<Position>,
    /// The version of the journal that was adopted last, where it is looked at without its connection (R8 dropped).
    pub version: Option<(Cas, u8)>,
    pub trusted_until: u8,
    pub entries: [Option<Entry>; KEYS],
    /// Which call holds the claim of a key.
    pub flights: [Option<u8>; KEYS],
    pub known: [Option<[Token; 2]>; GROUPS],
    /// In the order in which they came to be owed.
    pub debts: Vec<Debt>,
    pub waiting: [Option<Queued>; KEYS],
    /// The servers that it cannot reach.
    pub cut: Set,
    pub calls: [Option<Box<Call>>; SLOTS],
    /// The changes that its local tier must not lack.
    pub must: Set,
}

impl Process {
    /// Returns whether the item is not to be used: a deletion of it is owed, or a write of it waits or is being sent, or was
    /// purged for a removal that is under way.
    #[must_use]
    pub fn owes_item(&self, key: u8) -> bool {
        let owed = |debt: &Debt| matches!(debt.subject, Subject::Item(item, _) if item == key);
        let is_sent = self.calls[BEHIND].as_ref().is_some_and(|call| call.key == key);
        let is_purged = self.calls[CHANGER].as_ref().is_some_and(|call| call.key == key && call.has_purged);
        self.debts.iter().any(owed) || self.waiting[key as usize].is_some() || is_sent || is_purged
    }

    /// Returns which groups are owed a bump of this kind. `everything` is what covers all, if anything does.
    #[must_use]
    pub fn owed_groups(&self, kind: Kind, everything: Option<Subject>) -> Set {
        let owed = |debt: &Debt| match debt.subject {
            subject if Some(subject) == everything => Set::MAX,
            Subject::Group(group, owed) if owed == kind => 1 << group,
            Subject::Group(..) | Subject::Item(..) => 0,
        };
        self.debts.iter().map(owed).fold(0, |all, groups| all | groups)
    }

    pub fn names(&mut self, f: &mut impl FnMut(Name, &mut u8)) {
        self.position.iter_mut().for_each(|position| f(Name::Epoch, &mut position.epoch));
        self.version.iter_mut().for_each(|(cas, _)| f(Name::Cas(Item::Journal), &mut cas.0));
        self.entries.iter_mut().flatten().for_each(|entry| entry.value.names(f));
        for (group, known) in self.known.iter_mut().enumerate() {
            let tokens = known.iter_mut().flatten().enumerate();
            tokens.for_each(|(kind, token)| f(Name::Token(group, kind), token));
        }
        for debt in &mut self.debts {
            if let Subject::Group(group, kind) = debt.subject {
                f(Name::Token(group as usize, kind as usize), &mut debt.token);
            }
        }
        self.waiting.iter_mut().flatten().for_each(|queued| queued.value.names(f));
        self.calls.iter_mut().flatten().for_each(|call| call.names(f));
    }
}
