//! memcached, as far as the protocol uses it.

/// How many keys, and how many groups, a configuration may have.
pub const KEYS: usize = 2;
pub const GROUPS: usize = 2;

/// A set of small numbers: of groups, or of changes.
pub type Set = u8;

/// A version of an item. 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cas(pub u8);

/// A version that was read on a connection which is gone: no item is of it.
pub const VOID: Cas = Cas(u8::MAX);

/// A token of a group; 0 where it is missing, or is to be a fresh one.
pub type Token = u8;

/// Which of a group's two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Hard,
    Soft,
}

/// A value, as a load or an insert has made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// The changes that had been called when its load began.
    pub knows: Set,
    /// The insert that it is of.
    pub by: Option<u8>,
    /// The tokens that its header records.
    pub tokens: [[Token; 2]; GROUPS],
}

/// What is under the key of a value, or of the claim to refresh it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    Nothing,
    Lease(Cas),
    Value(Cas, Value),
}

/// What an entry of the journal says has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moved {
    /// The key has another value; by which process.
    KeyInsert(u8, u8),
    KeyRemove(u8),
    GroupHard(u8),
    GroupSoft(u8),
    All,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Journal {
    pub epoch: u8,
    pub base: u8,
    pub entries: Vec<Moved>,
    pub cas: Cas,
}

impl Journal {
    #[must_use]
    pub fn end(&self) -> u8 {
        self.base + self.entries.len() as u8
    }
}

/// One item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    Value(u8),
    Refresh(u8),
    Token(u8, Kind),
    Journal,
}

/// One command of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `mg <v> v c`
    Get(u8),
    /// `mg <v> v c N<lease>`
    GetLease(u8),
    /// `ms <v> C<cas>`
    Set(u8, Option<Cas>, Value),
    /// `md <v> C<cas>`
    Delete(u8, Option<Cas>),
    /// `mg <r> N<grace>`
    GetRefreshLease(u8),
    /// `md <r> C<cas>`
    DeleteRefresh(u8, Cas),
    /// `mg <g> v`
    GetToken(u8, Kind),
    /// `ms <g>`, with a fresh token for 0
    SetToken(u8, Kind, Token),
    /// `ms <g> ME` with a fresh token, and `mg <g> v` behind it
    AddToken(u8, Kind),
    /// `ms <j> MA`
    Append(Vec<Moved>),
    /// `ms <j> ME`, with a fresh epoch
    AddJournal(Vec<Moved>),
    /// `mg <j> v c`
    ReadJournal,
    /// `ms <j> C<cas>`, with a fresh epoch
    ReplaceJournal(Cas, Vec<Moved>),
    /// `ms <j> C<cas>`, with the newer half
    Compact(Cas),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    Done,
    NotStored,
    Fenced,
    Miss,
    Won(Cas),
    Busy(Cas),
    Hit(Cas, Value),
    Token(Token),
    Journal(Journal),
    /// Done: this is the epoch of the journal that was made.
    Made(u8),
}

/// What all servers hold, and the numbers that they have given out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub values: [Held; KEYS],
    pub refreshes: [Held; KEYS],
    pub tokens: [[Token; 2]; GROUPS],
    pub journal: Option<Journal>,
    /// The last version of each item, the last token of each group, and the last epoch.
    pub last_cas: [u8; 2 * KEYS + 1],
    pub last_token: [[u8; 2]; GROUPS],
    pub last_epoch: u8,
}

/// What is named by a number of its own.
#[derive(Clone, Copy)]
pub enum Name {
    Cas(Item),
    Token(usize, usize),
    /// A token in the header of a value.
    Recorded(usize, usize),
    Epoch,
}

impl Name {
    pub const COUNT: usize = 2 * KEYS + 1 + 2 * GROUPS + 1;

    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Name::Cas(item) => cas_index(item),
            Name::Token(group, kind) | Name::Recorded(group, kind) => 2 * KEYS + 1 + 2 * group + kind,
            Name::Epoch => Name::COUNT - 1,
        }
    }
}

#[must_use]
pub fn cas_index(item: Item) -> usize {
    match item {
        Item::Value(key) => key as usize,
        Item::Refresh(key) => KEYS + key as usize,
        Item::Journal => 2 * KEYS,
        Item::Token(..) => unreachable!("nobody reads the version of a token"),
    }
}

impl Command {
    /// Returns the item that the command is about.
    #[must_use]
    pub fn item(&self) -> Item {
        match *self {
            Command::Get(key) | Command::GetLease(key) | Command::Set(key, ..) | Command::Delete(key, _) => {
                Item::Value(key)
            }
            Command::GetRefreshLease(key) | Command::DeleteRefresh(key, _) => Item::Refresh(key),
            Command::GetToken(group, kind) | Command::SetToken(group, kind, _) | Command::AddToken(group, kind) => {
                Item::Token(group, kind)
            }
            Command::Append(_)
            | Command::AddJournal(_)
            | Command::ReadJournal
            | Command::ReplaceJournal(..)
            | Command::Compact(_) => Item::Journal,
        }
    }

    /// Returns a command about the same item that says no more: which one was carried out does not matter.
    #[must_use]
    pub fn spent(&self) -> Command {
        match self.item() {
            Item::Value(key) => Command::Get(key),
            Item::Refresh(key) => Command::GetRefreshLease(key),
            Item::Token(group, kind) => Command::GetToken(group, kind),
            Item::Journal => Command::ReadJournal,
        }
    }

    pub fn names(&mut self, f: &mut impl FnMut(Name, &mut u8)) {
        let item = match self {
            Command::Set(..) | Command::Delete(..) | Command::DeleteRefresh(..) => self.item(),
            _ => Item::Journal,
        };
        match self {
            Command::Set(_, cas, value) => {
                cas.iter_mut().for_each(|cas| f(Name::Cas(item), &mut cas.0));
                value.names(f);
            }
            Command::Delete(_, Some(cas)) | Command::DeleteRefresh(_, cas) => f(Name::Cas(item), &mut cas.0),
            Command::ReplaceJournal(cas, _) | Command::Compact(cas) => f(Name::Cas(item), &mut cas.0),
            Command::SetToken(group, kind, token) => f(Name::Token(*group as usize, *kind as usize), token),
            _ => {}
        }
    }
}

impl Value {
    /// Returns the value without the tokens that its header records: nobody looks at them in the local tier.
    #[must_use]
    pub fn unsealed(self) -> Value {
        Value { tokens: Default::default(), ..self }
    }

    pub fn names(&mut self, f: &mut impl FnMut(Name, &mut u8)) {
        for (group, tokens) in self.tokens.iter_mut().enumerate() {
            tokens.iter_mut().enumerate().for_each(|(kind, token)| f(Name::Recorded(group, kind), token));
        }
    }
}

impl Reply {
    /// Visits the names in an answer to `asked`.
    pub fn names(&mut self, asked: Item, f: &mut impl FnMut(Name, &mut u8)) {
        match self {
            Reply::Won(cas) | Reply::Busy(cas) => f(Name::Cas(asked), &mut cas.0),
            Reply::Hit(cas, value) => {
                f(Name::Cas(asked), &mut cas.0);
                value.names(f);
            }
            Reply::Token(token) => {
                if let Item::Token(group, kind) = asked {
                    f(Name::Token(group as usize, kind as usize), token);
                }
            }
            Reply::Journal(journal) => journal.names(f),
            Reply::Made(epoch) => f(Name::Epoch, epoch),
            Reply::Done | Reply::NotStored | Reply::Fenced | Reply::Miss => {}
        }
    }
}

impl Journal {
    pub fn names(&mut self, f: &mut impl FnMut(Name, &mut u8)) {
        f(Name::Epoch, &mut self.epoch);
        f(Name::Cas(Item::Journal), &mut self.cas.0);
    }
}

impl Held {
    fn cas(&self) -> Option<Cas> {
        match self {
            Held::Nothing => None,
            Held::Lease(cas) | Held::Value(cas, _) => Some(*cas),
        }
    }
}

impl Store {
    /// Carries a command out. `room` is how many entries a journal may have.
    pub fn run(&mut self, command: &Command, room: usize) -> Reply {
        match command {
            Command::Get(key) => match self.values[*key as usize] {
                Held::Nothing => Reply::Miss,
                Held::Lease(cas) => Reply::Busy(cas),
                Held::Value(cas, value) => Reply::Hit(cas, value),
            },
            Command::GetLease(key) => match self.values[*key as usize] {
                Held::Nothing => {
                    let cas = self.next(Item::Value(*key));
                    self.values[*key as usize] = Held::Lease(cas);
                    Reply::Won(cas)
                }
                Held::Lease(cas) => Reply::Busy(cas),
                Held::Value(cas, value) => Reply::Hit(cas, value),
            },
            Command::Set(key, condition, value) => {
                if condition.is_some() && *condition != self.values[*key as usize].cas() {
                    return Reply::Fenced;
                }
                self.values[*key as usize] = Held::Value(self.next(Item::Value(*key)), *value);
                Reply::Done
            }
            Command::Delete(key, condition) => delete(&mut self.values[*key as usize], *condition),
            Command::GetRefreshLease(key) => match self.refreshes[*key as usize].cas() {
                Some(cas) => Reply::Busy(cas),
                None => {
                    let cas = self.next(Item::Refresh(*key));
                    self.refreshes[*key as usize] = Held::Lease(cas);
                    Reply::Won(cas)
                }
            },
            Command::DeleteRefresh(key, cas) => delete(&mut self.refreshes[*key as usize], Some(*cas)),
            Command::GetToken(group, kind) => Reply::Token(self.tokens[*group as usize][*kind as usize]),
            Command::SetToken(group, kind, token) => {
                self.tokens[*group as usize][*kind as usize] =
                    if *token == 0 { self.fresh_token(*group, *kind) } else { *token };
                Reply::Done
            }
            Command::AddToken(group, kind) => {
                if self.tokens[*group as usize][*kind as usize] == 0 {
                    self.tokens[*group as usize][*kind as usize] = self.fresh_token(*group, *kind);
                }
                Reply::Token(self.tokens[*group as usize][*kind as usize])
            }
            Command::Append(news) => {
                let cas = self.next(Item::Journal);
                match &mut self.journal {
                    Some(journal) if journal.entries.len() + news.len() <= room => {
                        journal.entries.extend(news);
                        journal.cas = cas;
                        Reply::Done
                    }
                    _ => {
                        self.last_cas[cas_index(Item::Journal)] -= 1;
                        Reply::NotStored
                    }
                }
            }
            Command::AddJournal(_) if self.journal.is_some() => Reply::NotStored,
            Command::AddJournal(news) => self.make_journal(news),
            Command::ReadJournal => self.journal.clone().map_or(Reply::Miss, Reply::Journal),
            Command::ReplaceJournal(cas, news) => match &self.journal {
                Some(journal) if journal.cas == *cas => self.make_journal(news),
                _ => Reply::Fenced,
            },
            Command::Compact(cas) => match self.journal.take() {
                Some(mut journal) if journal.cas == *cas => {
                    let dropped = journal.entries.len().div_ceil(2);
                    journal.entries.drain(..dropped);
                    journal.base += dropped as u8;
                    journal.cas = self.next(Item::Journal);
                    self.journal = Some(journal);
                    Reply::Done
                }
                other => {
                    self.journal = other;
                    Reply::Fenced
                }
            },
        }
    }

    /// Returns whether an item is there.
    #[must_use]
    pub fn has(&self, item: Item) -> bool {
        match item {
            Item::Value(key) => self.values[key as usize] != Held::Nothing,
            Item::Refresh(key) => self.refreshes[key as usize] != Held::Nothing,
            Item::Token(group, kind) => self.tokens[group as usize][kind as usize] != 0,
            Item::Journal => self.journal.is_some(),
        }
    }

    /// Returns whether the version that a command names, if it names one, is the present one.
    #[must_use]
    pub fn may_be_stored(&self, command: &Command) -> bool {
        match command {
            Command::Set(key, Some(cas), _) | Command::Delete(key, Some(cas)) => {
                self.values[*key as usize].cas() == Some(*cas)
            }
            Command::DeleteRefresh(key, cas) => self.refreshes[*key as usize].cas() == Some(*cas),
            Command::ReplaceJournal(cas, _) | Command::Compact(cas) => {
                self.journal.as_ref().is_some_and(|journal| journal.cas == *cas)
            }
            _ => true,
        }
    }

    /// Loses an item. Returns whether it was there.
    pub fn lose(&mut self, item: Item) -> bool {
        match item {
            Item::Value(key) => delete(&mut self.values[key as usize], None) == Reply::Done,
            Item::Refresh(key) => delete(&mut self.refreshes[key as usize], None) == Reply::Done,
            Item::Token(group, kind) => std::mem::take(&mut self.tokens[group as usize][kind as usize]) != 0,
            Item::Journal => self.journal.take().is_some(),
        }
    }

    /// Begins the versions of an item anew, as a restart does.
    pub fn forget_versions(&mut self, item: Item) {
        if !matches!(item, Item::Token(..)) {
            self.last_cas[cas_index(item)] = 0;
        }
    }

    /// Returns the present version of each item, by [`cas_index`].
    #[must_use]
    pub fn versions(&self) -> [u8; 2 * KEYS + 1] {
        let mut versions = [0; 2 * KEYS + 1];
        let held = self.values.iter().chain(&self.refreshes).map(|held| held.cas());
        let all = held.chain([self.journal.as_ref().map(|journal| journal.cas)]);
        versions.iter_mut().zip(all).for_each(|(version, cas)| *version = cas.map_or(0, |cas| cas.0));
        versions
    }

    pub fn names(&mut self, f: &mut impl FnMut(Name, &mut u8)) {
        for (key, held) in self.values.iter_mut().enumerate() {
            held_names(held, Item::Value(key as u8), f);
        }
        for (key, held) in self.refreshes.iter_mut().enumerate() {
            held_names(held, Item::Refresh(key as u8), f);
        }
        for (group, tokens) in self.tokens.iter_mut().enumerate() {
            tokens.iter_mut().enumerate().for_each(|(kind, token)| f(Name::Token(group, kind), token));
        }
        self.journal.iter_mut().for_each(|journal| journal.names(f));
    }

    /// Notes how many numbers of each name are in use.
    pub fn set_last(&mut self, in_use: impl Fn(usize) -> u8) {
        for (index, last) in self.last_cas.iter_mut().enumerate() {
            *last = in_use(index);
        }
        for (group, tokens) in self.last_token.iter_mut().enumerate() {
            tokens.iter_mut().enumerate().for_each(|(kind, last)| *last = in_use(Name::Token(group, kind).index()));
        }
        self.last_epoch = in_use(Name::Epoch.index());
    }

    /// Returns a token that is not in use, and will not be again.
    pub fn fresh_token(&mut self, group: u8, kind: Kind) -> Token {
        let last = &mut self.last_token[group as usize][kind as usize];
        *last += 1;
        *last
    }

    fn make_journal(&mut self, news: &[Moved]) -> Reply {
        self.last_epoch += 1;
        let (epoch, cas) = (self.last_epoch, self.next(Item::Journal));
        self.journal = Some(Journal { epoch, base: 0, entries: news.to_vec(), cas });
        Reply::Made(epoch)
    }

    fn next(&mut self, item: Item) -> Cas {
        let last = &mut self.last_cas[cas_index(item)];
        *last += 1;
        Cas(*last)
    }
}

fn held_names(held: &mut Held, item: Item, f: &mut impl FnMut(Name, &mut u8)) {
    match held {
        Held::Nothing => {}
        Held::Lease(cas) => f(Name::Cas(item), &mut cas.0),
        Held::Value(cas, value) => {
            f(Name::Cas(item), &mut cas.0);
            value.names(f);
        }
    }
}

fn delete(held: &mut Held, condition: Option<Cas>) -> Reply {
    match held.cas() {
        None => Reply::Miss,
        found if condition.is_some() && condition != found => Reply::Fenced,
        Some(_) => {
            *held = Held::Nothing;
            Reply::Done
        }
    }
}
