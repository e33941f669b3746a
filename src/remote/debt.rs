//! Debts: deletions and bumps that the store has not acknowledged.
//!
//! The local tier has carried them out. Until the store has too, this process takes nothing from it that they concern: a
//! value under an owed key, or of an owed group, counts as a miss. Debts are paid with the next commands that are sent,
//! whatever these are.

use std::collections::{HashMap, VecDeque};

use super::key::WireKey;
use super::keyspace::ROOT_GROUP;
use crate::group::Bump;

/// The most debts that are kept apart. More are one debt: a bump of the namespace, which covers them all.
const MAX_DEBTS: usize = 1 << 14;

/// How many debts are paid with one batch of commands, so that a lookup after a long outage stays quick.
const PAYMENTS_PER_BATCH: usize = 64;

/// What is owed: the deletion of an item, or a bump of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Item(WireKey),
    Group(u64, Bump),
}

/// What covers everything else: a bump of the namespace's root.
const EVERYTHING: Subject = Subject::Group(ROOT_GROUP, Bump::Kill);

/// One debt. Owing the same again is a new debt, which an acknowledgement of the old one does not settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Debt {
    id: u64,
    pub(super) subject: Subject,
}

/// What this process owes the store.
#[derive(Debug, Default)]
pub(super) struct Debts {
    /// The number of the debt, by what is owed.
    owed: HashMap<Subject, u64>,
    /// All debts, and perhaps some that are none any more, in the order in which they are tried next.
    queue: VecDeque<Debt>,
    last_id: u64,
    /// The debts up to this one became part of the one that covers everything.
    covered_up_to: u64,
}

impl Debts {
    pub(super) fn len(&self) -> usize {
        self.owed.len()
    }

    /// Adds a debt and returns it.
    pub(super) fn owe(&mut self, subject: Subject) -> Debt {
        if self.owed.len() >= MAX_DEBTS && !self.owed.contains_key(&subject) {
            log::warn!("{MAX_DEBTS} invalidations wait for the remote tier: they become one, of the whole namespace");
            self.owed.clear();
            self.queue.clear();
            self.covered_up_to = self.last_id;
            return self.owe(EVERYTHING);
        }
        self.last_id += 1;
        let debt = Debt { id: self.last_id, subject };
        self.owed.insert(debt.subject.clone(), debt.id);
        self.queue.push_back(debt.clone());
        // What was owed again or settled out of turn leaves its old place behind.
        if self.queue.len() > 2 * MAX_DEBTS {
            let owed = &self.owed;
            self.queue.retain(|debt| owed.get(&debt.subject) == Some(&debt.id));
        }
        debt
    }

    /// Returns as many debts as are paid at once; the next call begins with others.
    pub(super) fn due(&mut self) -> Vec<Debt> {
        let mut due = Vec::new();
        for _ in 0..self.queue.len() {
            let Some(debt) = self.queue.pop_front() else { break };
            if self.owed.get(&debt.subject) == Some(&debt.id) {
                self.queue.push_back(debt.clone());
                due.push(debt);
            }
            if due.len() == PAYMENTS_PER_BATCH {
                break;
            }
        }
        due
    }

    /// Forgets a debt that the store has acknowledged, unless the same has come to be owed again since it was sent.
    pub(super) fn settle(&mut self, paid: &Debt) {
        if self.owed.get(&paid.subject) == Some(&paid.id) {
            self.owed.remove(&paid.subject);
        }
    }

    /// Returns whether the store has acknowledged a debt, or a later one that covers it.
    pub(super) fn is_settled(&self, debt: &Debt) -> bool {
        let subject = if debt.id <= self.covered_up_to { &EVERYTHING } else { &debt.subject };
        self.owed.get(subject).is_none_or(|&id| id < debt.id)
    }

    pub(super) fn owes_item(&self, key: &WireKey) -> bool {
        // Nearly always nothing is owed at all.
        !self.owed.is_empty() && self.owed.contains_key(&Subject::Item(key.clone()))
    }

    pub(super) fn owes_group(&self, group_hash: u64, bump: Bump) -> bool {
        !self.owed.is_empty()
            && (self.owed.contains_key(&Subject::Group(group_hash, bump)) || self.owed.contains_key(&EVERYTHING))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: usize) -> Subject {
        Subject::Item(WireKey::new(format!("k{key}")).unwrap())
    }

    #[test]
    fn an_acknowledgement_settles_what_was_sent_and_nothing_younger() {
        let mut debts = Debts::default();
        let first = debts.owe(item(1));
        let sent = debts.due();
        assert_eq!(sent, std::slice::from_ref(&first));
        let again = debts.owe(item(1));
        debts.settle(&sent[0]);
        assert!(!debts.is_settled(&first) && !debts.is_settled(&again));
        let sent = debts.due();
        debts.settle(&sent[0]);
        assert!(debts.is_settled(&first) && debts.is_settled(&again));
        assert_eq!((debts.len(), debts.due()), (0, vec![]));
    }

    #[test]
    fn every_debt_has_its_turn_though_the_first_ones_cannot_be_paid() {
        let mut debts = Debts::default();
        (0..3 * PAYMENTS_PER_BATCH).for_each(|key| drop(debts.owe(item(key))));
        let mut tried: Vec<_> = (0..3).flat_map(|_| debts.due()).map(|debt| debt.id).collect();
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried.len(), 3 * PAYMENTS_PER_BATCH);
    }

    #[test]
    fn too_many_debts_become_one() {
        let mut debts = Debts::default();
        let first = debts.owe(item(0));
        (1..=MAX_DEBTS).for_each(|key| drop(debts.owe(item(key))));
        assert_eq!(debts.len(), 1);
        assert!(debts.owes_group(7, Bump::Kill) && !debts.is_settled(&first));
        let sent = debts.due();
        debts.settle(&sent[0]);
        assert!(debts.is_settled(&first) && debts.len() == 0);
    }

    #[test]
    fn a_group_is_owed_by_kind() {
        let mut debts = Debts::default();
        debts.owe(Subject::Group(7, Bump::Expire));
        assert!(
            debts.owes_group(7, Bump::Expire) && !debts.owes_group(7, Bump::Kill) && !debts.owes_group(8, Bump::Expire)
        );
    }
}
