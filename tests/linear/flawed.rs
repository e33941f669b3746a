//! Caches with a flaw, which the checker has to find.

use std::sync::Mutex;

use super::spec::{Seen, Written};
use super::subject::{Local, Subject};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A removal is carried out one operation late.
    RemovesLate,
    /// An invalidation is carried out one operation late.
    BumpsLate,
    /// Once, a read returns what the first one returned.
    ServesOldOnce,
    /// A fill is stored whatever has happened since its claim was taken.
    FillsWithoutTicket,
    /// A value is added without a look at what is there, and the answer is that of a look before.
    AddsBlindly,
    /// A value that expires is gone.
    ExpiresForGood,
    /// A second caller is given a claim as well.
    ClaimsTwice,
}

impl Flaw {
    pub(crate) const ALL: [Flaw; 7] = [
        Flaw::RemovesLate,
        Flaw::BumpsLate,
        Flaw::ServesOldOnce,
        Flaw::FillsWithoutTicket,
        Flaw::AddsBlindly,
        Flaw::ExpiresForGood,
        Flaw::ClaimsTwice,
    ];
}

pub(crate) struct Flawed {
    inner: Local,
    flaw: Flaw,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owed: u8,
    old: Option<Written>,
    reads: u8,
}

/// A claim, unless it is one too many.
pub(crate) struct Ticket(Option<<Local as Subject>::Claim>);

impl Flawed {
    pub(crate) fn new(inner: Local, flaw: Flaw) -> Flawed {
        Flawed { inner, flaw, state: Mutex::default() }
    }

    /// Puts something off for as long as one other operation takes.
    fn put_off(&self) {
        self.state.lock().unwrap().owed = 2;
    }

    /// Begins every operation.
    fn pay(&self) -> &Local {
        let mut state = self.state.lock().unwrap();
        let is_due = state.owed == 1;
        state.owed = state.owed.saturating_sub(1);
        drop(state);
        match self.flaw {
            Flaw::RemovesLate if is_due => drop(self.inner.remove()),
            Flaw::BumpsLate if is_due => self.inner.bump(),
            _ => {}
        }
        &self.inner
    }
}

impl Subject for Flawed {
    type Claim = Ticket;

    fn get(&self) -> Option<Written> {
        let got = self.pay().get();
        let mut state = self.state.lock().unwrap();
        state.old = state.old.or(got);
        state.reads += u8::from(state.old.is_some());
        if self.flaw == Flaw::ServesOldOnce && state.reads == 4 { state.old } else { got }
    }

    fn insert(&self, value: Written, grouped: bool) {
        self.pay().insert(value, grouped);
    }

    fn add(&self, value: Written, grouped: bool) -> bool {
        if self.flaw != Flaw::AddsBlindly {
            return self.pay().add(value, grouped);
        }
        let was_there = self.inner.get().is_some();
        self.inner.insert(value, grouped);
        !was_there
    }

    fn update(&self, by: usize) -> Option<Written> {
        self.pay().update(by)
    }

    fn remove(&self) -> Option<Written> {
        if self.flaw != Flaw::RemovesLate {
            return self.pay().remove();
        }
        let removed = self.pay().get();
        self.put_off();
        removed
    }

    fn expire(&self) -> bool {
        let inner = self.pay();
        if self.flaw == Flaw::ExpiresForGood { inner.remove().is_some() } else { inner.expire() }
    }

    fn lookup(&self) -> (Seen, Option<Ticket>) {
        let (seen, claim) = self.pay().lookup();
        match seen {
            Seen::Busy if self.flaw == Flaw::ClaimsTwice => (Seen::Vacant, Some(Ticket(None))),
            _ => (seen, claim.map(|claim| Ticket(Some(claim)))),
        }
    }

    fn fill(&self, claim: Ticket, value: Written, grouped: bool) -> bool {
        let inner = self.pay();
        if self.flaw == Flaw::FillsWithoutTicket {
            drop(claim);
            inner.insert(value, grouped);
            return true;
        }
        claim.0.is_some_and(|claim| inner.fill(claim, value, grouped))
    }

    fn bump(&self) {
        let inner = self.pay();
        if self.flaw == Flaw::BumpsLate { self.put_off() } else { inner.bump() }
    }

    fn advance(&self, ms: u32) {
        self.pay().advance(ms);
    }

    fn press(&self, key: u32) {
        self.inner.press(key);
    }
}
