//! What a cache may do with one key, step by step.
//!
//! Without bumps and deadlines each operation comes to one step. With them it takes several, because the cache promises no
//! more: a value that is given counts as loaded when its call began, a deadline is counted from when the entry was made, an
//! entry that was found is judged a moment later, and a bump that is under way may be noticed or not.

use std::fmt;

use super::checker::Spec;

/// How long values are fresh, how long they live, and how long a claim lasts, in milliseconds; and whether an entry may leave at
/// any time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) soft: u32,
    pub(crate) hard: u32,
    pub(crate) grace: u32,
    pub(crate) evicts: bool,
}

/// A value says who wrote it: its lowest six bits are one more than the number of the operation, and those above are what an
/// update has made it from. So no two are alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Written(pub(crate) u64);

impl Written {
    /// Returns the value that operation `number` stores.
    pub(crate) fn by(number: usize) -> Written {
        assert!(number < 63, "an operation's number has six bits");
        Written(number as u64 + 1)
    }

    /// Returns the value that operation `number` makes of this one.
    pub(crate) fn updated_by(self, number: usize) -> Written {
        Written(self.0 << 6 | Written::by(number).0)
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let earlier = self.0 >> 6;
        if earlier > 0 {
            write!(f, "{:?}+", Written(earlier))?;
        }
        write!(f, "#{}", (self.0 & 63) - 1)
    }
}

/// What a lookup found, and whether it got a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Fresh(Written),
    Stale(Written, bool),
    Vacant,
    Busy,
}

/// One operation with its arguments and its result. `by` is its own number, `ticket` that of the lookup which took the claim,
/// and `grouped` says whether the value is in the group that bumps go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Get { got: Option<Written> },
    Insert { by: usize, grouped: bool },
    Add { by: usize, grouped: bool, added: bool },
    Update { by: usize, made: Option<Written> },
    Remove { removed: Option<Written> },
    Expire { alive: bool },
    Lookup { by: usize, seen: Seen },
    Fill { by: usize, ticket: usize, grouped: bool, stored: bool },
    Abandon { ticket: usize },
    Bump,
    Advance { ms: u32 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: u32,
    /// The number of the last bump that has begun, and of the last one by which entries are dead and fills are fenced. The two
    /// sides of the latter are told apart: a stale entry may be known to be dead before a fresh one.
    begun: u32,
    killed: u32,
    touched: u32,
    entry: Option<Entry>,
    flight: Option<Flight>,
    /// How many lookups are between two looks under one lock: meanwhile nothing is written.
    readers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    value: Written,
    born: u32,
    grouped: bool,
    /// From when on it is stale, and dead.
    soft: u32,
    hard: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    ticket: usize,
    born: u32,
    /// Whether the entry that it is to replace is in the group.
    suspects: bool,
    until: u32,
}

/// What an operation has taken note of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Local {
    /// The bumps there had been when the call began.
    Born(u32),
    Dated {
        born: u32,
        now: u32,
    },
    Found(Entry),
    /// An entry that was alive, for an update.
    Base(Entry),
    /// Once more, after others were faster.
    Again,
    /// The entry that a lookup judged, which holds the lock yet.
    Judged {
        born: u32,
        found: Option<Entry>,
    },
    /// A lookup that wants to claim.
    Free {
        born: u32,
        found: Option<Entry>,
    },
    Claiming {
        born: u32,
        found: Option<Entry>,
        now: u32,
    },
    /// A refused fill that has yet to free the key.
    Refused,
    /// A bump that has begun, and one that has killed.
    Begun,
    Killed,
}

impl State {
    fn may_be_dead(&self, entry: &Entry) -> bool {
        entry.hard <= self.now || entry.grouped && self.killed > entry.born
    }

    fn may_be_alive(&self, entry: &Entry) -> bool {
        entry.hard > self.now && !(entry.grouped && self.touched > entry.born)
    }

    fn may_be_fresh(&self, entry: &Entry) -> bool {
        self.may_be_alive(entry) && entry.soft > self.now
    }

    fn may_be_stale(&self, entry: &Entry) -> bool {
        !self.may_be_dead(entry) && entry.soft <= self.now
    }

    /// Returns whether another caller fills the key, and has time for it.
    fn is_busy(&self) -> bool {
        self.flight.is_some_and(|flight| flight.until > self.now && !(flight.suspects && self.touched > flight.born))
    }

    fn with_entry(self, entry: Entry) -> State {
        State { entry: Some(entry), flight: None, ..self }
    }

    fn has(&self, value: Option<Written>) -> bool {
        self.entry.map(|entry| entry.value) == value
    }
}

impl Rules {
    fn entry(&self, value: Written, born: u32, grouped: bool, now: u32) -> Entry {
        Entry { value, born, grouped, soft: now.saturating_add(self.soft), hard: now.saturating_add(self.hard) }
    }

    /// A value that is given: born, then dated, then stored.
    fn store(&self, op: &Op, local: Option<&Local>, state: &State, mut go: impl FnMut(State, Option<Local>)) {
        match (local, op) {
            (None, _) => go(*state, Some(Local::Born(state.begun))),
            (Some(&Local::Born(born)), _) => go(*state, Some(Local::Dated { born, now: state.now })),
            (Some(&Local::Dated { born, now }), &Op::Insert { by, grouped }) => {
                go(state.with_entry(self.entry(Written::by(by), born, grouped, now)), None);
            }
            (Some(&Local::Dated { born, now }), &Op::Add { by, grouped, added: true }) => {
                if state.entry.is_none_or(|entry| state.may_be_dead(&entry)) {
                    go(state.with_entry(self.entry(Written::by(by), born, grouped, now)), None);
                }
            }
            (Some(Local::Dated { .. }), _) => {
                if state.entry.is_some_and(|entry| state.may_be_alive(&entry)) {
                    go(*state, None);
                }
            }
            _ => unreachable!(),
        }
    }

    fn update(
        &self,
        op: (usize, Option<Written>),
        local: Option<&Local>,
        state: &State,
        mut go: impl FnMut(State, Option<Local>),
    ) {
        let (by, made) = op;
        match local {
            None | Some(Local::Again) => match state.entry {
                Some(entry) => go(*state, Some(Local::Found(entry))),
                None if made.is_none() => go(*state, None),
                None => {}
            },
            Some(Local::Found(entry)) => {
                if made.is_none() && state.may_be_dead(entry) {
                    go(*state, None);
                }
                if made.is_some() && state.may_be_alive(entry) {
                    go(*state, Some(Local::Base(*entry)));
                }
            }
            Some(Local::Base(base)) => match state.entry {
                Some(entry) if entry.value == base.value => {
                    let value = base.value.updated_by(by);
                    if made == Some(value) {
                        go(state.with_entry(Entry { value, ..entry }), None);
                    }
                }
                _ => go(*state, Some(Local::Again)),
            },
            _ => unreachable!(),
        }
    }

    fn lookup(
        &self,
        op: (usize, Seen),
        local: Option<&Local>,
        state: &State,
        mut go: impl FnMut(State, Option<Local>),
    ) {
        let (by, seen) = op;
        let entry = state.entry;
        match local {
            None => go(*state, Some(Local::Born(state.begun))),
            Some(&Local::Born(born)) => match (seen, entry) {
                // Without the lock, and so judged a moment later.
                (Seen::Fresh(value), Some(entry)) if entry.value == value => go(*state, Some(Local::Found(entry))),
                (Seen::Stale(value, _), Some(entry)) if entry.value == value && state.may_be_stale(&entry) => {
                    go(
                        State { readers: state.readers + 1, ..*state },
                        Some(Local::Judged { born, found: Some(entry) }),
                    );
                }
                (Seen::Vacant | Seen::Busy, found) if found.is_none_or(|entry| state.may_be_dead(&entry)) => {
                    go(State { readers: state.readers + 1, ..*state }, Some(Local::Judged { born, found }));
                }
                _ => {}
            },
            Some(Local::Found(entry)) => {
                if state.may_be_fresh(entry) {
                    go(*state, None);
                }
            }
            Some(&Local::Judged { born, found }) => {
                let claims = matches!(seen, Seen::Stale(_, true) | Seen::Vacant);
                if claims != state.is_busy() {
                    let local = claims.then_some(Local::Free { born, found });
                    go(State { readers: state.readers - 1, ..*state }, local);
                }
            }
            Some(&Local::Free { born, found }) => go(*state, Some(Local::Claiming { born, found, now: state.now })),
            Some(&Local::Claiming { born, found, now }) => {
                if !state.has(found.map(|entry| entry.value)) || state.is_busy() {
                    return go(*state, Some(Local::Born(born)));
                }
                let suspects = found.is_some_and(|entry| entry.grouped);
                let until = now.saturating_add(self.grace);
                go(State { flight: Some(Flight { ticket: by, born, suspects, until }), ..*state }, None);
            }
            _ => unreachable!(),
        }
    }

    fn fill(&self, op: &Op, local: Option<&Local>, state: &State, mut go: impl FnMut(State, Option<Local>)) {
        let &Op::Fill { by, ticket, grouped, stored } = op else { unreachable!() };
        let mine = state.flight.filter(|flight| flight.ticket == ticket);
        match local {
            None => go(*state, Some(Local::Dated { born: 0, now: state.now })),
            Some(&Local::Dated { now, .. }) => {
                let stands = mine.filter(|flight| !(grouped && state.touched > flight.born));
                match stands {
                    Some(flight) if stored => {
                        go(state.with_entry(self.entry(Written::by(by), flight.born, grouped, now)), None);
                    }
                    None if !stored => go(*state, mine.map(|_| Local::Refused)),
                    _ => {}
                }
            }
            Some(Local::Refused) => go(State { flight: state.flight.filter(|_| mine.is_none()), ..*state }, None),
            _ => unreachable!(),
        }
    }
}

impl Spec for Rules {
    type Op = Op;
    type State = State;
    type Local = Local;

    fn step(&self, op: &Op, local: Option<&Local>, state: &State, mut go: impl FnMut(State, Option<Local>)) {
        // Whatever changes waits for the lock.
        let go = |next: State, local| {
            let writes = (next.entry, next.flight) != (state.entry, state.flight);
            if !writes || state.readers == 0 {
                go(next, local);
            }
        };
        let mut go = go;
        match (op, local) {
            (Op::Get { got }, None) => match state.entry {
                Some(entry) => go(*state, Some(Local::Found(entry))),
                None if got.is_none() => go(*state, None),
                None => {}
            },
            (Op::Get { got: None }, Some(Local::Found(entry))) if state.may_be_dead(entry) => go(*state, None),
            (Op::Get { got }, Some(Local::Found(entry))) => {
                if *got == Some(entry.value) && state.may_be_alive(entry) {
                    go(*state, None);
                }
            }
            (Op::Insert { .. } | Op::Add { .. }, _) => self.store(op, local, state, go),
            (&Op::Update { by, made }, _) => self.update((by, made), local, state, go),
            (Op::Remove { removed }, None) => match state.entry {
                Some(entry) => go(State { entry: None, flight: None, ..*state }, Some(Local::Found(entry))),
                None if removed.is_none() => go(State { flight: None, ..*state }, None),
                None => {}
            },
            (Op::Remove { removed: None }, Some(Local::Found(entry))) if state.may_be_dead(entry) => go(*state, None),
            (Op::Remove { removed }, Some(Local::Found(entry))) => {
                if *removed == Some(entry.value) && state.may_be_alive(entry) {
                    go(*state, None);
                }
            }
            (Op::Expire { alive: true }, _) => {
                if let Some(entry) = state.entry.filter(|entry| state.may_be_alive(entry)) {
                    go(state.with_entry(Entry { soft: 0, ..entry }), None);
                }
            }
            (Op::Expire { alive: false }, _) => {
                if state.entry.is_none_or(|entry| state.may_be_dead(&entry)) {
                    go(State { flight: None, ..*state }, None);
                }
            }
            (&Op::Lookup { by, seen }, _) => self.lookup((by, seen), local, state, go),
            (Op::Fill { .. }, _) => self.fill(op, local, state, go),
            (Op::Abandon { ticket }, _) => {
                let flight = state.flight.filter(|flight| flight.ticket != *ticket);
                go(State { flight, ..*state }, None);
            }
            // One after the other.
            (Op::Bump, None) if state.begun == state.touched => {
                go(State { begun: state.begun + 1, ..*state }, Some(Local::Begun));
            }
            (Op::Bump, None) => {}
            (Op::Bump, Some(Local::Begun)) => go(State { killed: state.begun, ..*state }, Some(Local::Killed)),
            (Op::Bump, _) => go(State { touched: state.begun, ..*state }, None),
            (Op::Advance { ms }, _) => go(State { now: state.now + ms, ..*state }, None),
            _ => unreachable!(),
        }
    }

    fn drift(&self, state: &State, mut go: impl FnMut(State)) {
        // The dead are swept, by whichever insert comes by.
        let may_leave = state.entry.is_some_and(|entry| self.evicts || state.may_be_dead(&entry));
        if may_leave && state.readers == 0 {
            go(State { entry: None, ..*state });
        }
    }
}
