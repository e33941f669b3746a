//! A thread that does one random thing after the other to a key, and writes down what came of it, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;

use super::checker::Event;
use super::pause;
use super::spec::{Op, Rules, Written};
use super::subject::Subject;

/// What histories are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) rules: Rules,
    /// Whether the group is invalidated, and whether time passes.
    pub(crate) bumps: bool,
    pub(crate) advances: bool,
}

/// Nothing but the operations themselves.
pub(crate) const PLAIN: Mix = Mix {
    rules: Rules { soft: u32::MAX, hard: u32::MAX, grace: 60_000, evicts: false },
    bumps: false,
    advances: false,
};
pub(crate) const CROWDED: Mix = Mix { rules: Rules { evicts: true, ..PLAIN.rules }, ..PLAIN };
pub(crate) const BUMPED: Mix = Mix { bumps: true, ..PLAIN };
/// Within a history, time passes values by, and claims.
pub(crate) const AGEING: Mix =
    Mix { rules: Rules { soft: 20, hard: 50, grace: 30, ..PLAIN.rules }, advances: true, ..PLAIN };
pub(crate) const EVERYTHING: Mix = Mix { rules: Rules { evicts: true, ..AGEING.rules }, bumps: true, advances: true };

pub(crate) struct Worker<S: Subject> {
    subject: Arc<S>,
    mix: Mix,
    /// Numbers the beginnings and the ends of all operations.
    ticks: Arc<AtomicU64>,
    random: Rng,
    claims: Vec<(usize, S::Claim)>,
    events: Vec<Event<Op>>,
}

impl<S: Subject> Worker<S> {
    pub(crate) fn new(subject: &Arc<S>, mix: Mix, ticks: &Arc<AtomicU64>, seed: u64) -> Self {
        let (subject, ticks) = (subject.clone(), ticks.clone());
        Worker { subject, mix, ticks, random: Rng::with_seed(seed), claims: Vec::new(), events: Vec::new() }
    }

    /// Carries out some operations, of which the first has number `first`. Returns what it did, and the claims that it has
    /// left: to be dropped, which is no operation of any history, once all threads are through.
    pub(crate) fn run(mut self, first: usize, operations: usize) -> (Vec<Event<Op>>, Vec<S::Claim>) {
        for number in first..first + operations {
            if self.mix.rules.evicts && self.random.bool() {
                self.subject.press(self.random.u32(..));
            }
            pause();
            // A counter in one order with all else: who sees the end of an operation here sees all that it did.
            let begun = self.ticks.fetch_add(1, Ordering::SeqCst);
            let op = self.act(number);
            let ended = self.ticks.fetch_add(1, Ordering::SeqCst);
            self.events.push(Event { op, begun, ended });
        }
        (self.events, self.claims.into_iter().map(|(_, claim)| claim).collect())
    }

    fn act(&mut self, by: usize) -> Op {
        let grouped = self.mix.bumps && self.random.bool();
        match self.random.u8(..22) {
            0..3 => {
                self.subject.insert(Written::by(by), grouped);
                Op::Insert { by, grouped }
            }
            3..5 => Op::Add { by, grouped, added: self.subject.add(Written::by(by), grouped) },
            5..7 => Op::Update { by, made: self.subject.update(by) },
            7..9 => Op::Remove { removed: self.subject.remove() },
            9 => Op::Expire { alive: self.subject.expire() },
            10..13 => self.look(by),
            13..16 => match self.a_claim() {
                Some((ticket, claim)) => {
                    let stored = self.subject.fill(claim, Written::by(by), grouped);
                    Op::Fill { by, ticket, grouped, stored }
                }
                None => self.look(by),
            },
            16 => match self.a_claim() {
                Some((ticket, claim)) => {
                    drop(claim);
                    Op::Abandon { ticket }
                }
                None => self.look(by),
            },
            17 if self.mix.bumps => {
                self.subject.bump();
                Op::Bump
            }
            18 if self.mix.advances => {
                let ms = self.random.u32(1..=30);
                self.subject.advance(ms);
                Op::Advance { ms }
            }
            _ => Op::Get { got: self.subject.get() },
        }
    }

    fn look(&mut self, by: usize) -> Op {
        let (seen, claim) = self.subject.lookup();
        self.claims.extend(claim.map(|claim| (by, claim)));
        Op::Lookup { by, seen }
    }

    fn a_claim(&mut self) -> Option<(usize, S::Claim)> {
        let one = (!self.claims.is_empty()).then(|| self.random.usize(..self.claims.len()))?;
        Some(self.claims.swap_remove(one))
    }
}
