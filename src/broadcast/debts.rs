//! Debts: deletions and bumps that the store has not acknowledged.
//!
//! The local tier has carried them out. Until the store has too, this process takes nothing from it that they concern: a
//! value under an owed key, or of an owed group, counts as a miss. This is the list; the [outbox](super::outbox) pays.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::slip::Slip;
use crate::group::Bump;
use crate::remote::key::WireKey;
use crate::remote::keyspace::ROOT_GROUP;
use crate::sync::Arc;

/// The most debts that are kept apart, so that an outage costs megabytes at most. More are one debt: a bump of the
/// namespace, which covers them all.
pub(super) const MAX_DEBTS: usize = 1 << 14;

/// How many debts are paid at once: the commands of 64 bumps are one write to the store.
pub(super) const PAYMENTS_PER_BATCH: usize = 64;

/// What is owed: the deletion of an item, or a bump of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Item {
        key: WireKey,
        /// What stands for the key in the journal.
        fingerprint: u64,
        /// The cache of this process that has a newer value, as the journal calls it; `None` for a removal.
        heir: Option<u64>,
    },
    Group(u64, Bump),
}

/// What covers everything else: a bump of the namespace's root.
pub(super) const EVERYTHING: Subject = Subject::Group(ROOT_GROUP, Bump::Kill);

/// One debt, as it is sent. Owing the same again is a new debt, which an acknowledgement of the old one does not settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Debt {
    id: u64,
    pub(super) subject: Subject,
}

/// What this process owes the store.
#[derive(Debug, Default)]
pub(super) struct Debts {
    items: HashMap<WireKey, Owed>,
    groups: HashMap<(u64, Bump), Owed>,
    /// All debts, and perhaps some that are none any more, in the order in which they are tried next.
    queue: VecDeque<Debt>,
    last_id: u64,
    /// How often everything became one debt because there were too many.
    pub(super) escalations: u64,
}

#[derive(Debug)]
struct Owed {
    /// That of the latest debt: an acknowledgement of an older one settles nothing.
    id: u64,
    /// When the earliest came to be owed.
    since: Instant,
    /// The first is what the next receipt gets, the others are those of what this debt has come to cover.
    slips: Vec<Arc<Slip>>,
}

impl Debts {
    pub(super) fn len(&self) -> usize {
        self.items.len() + self.groups.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.groups.is_empty()
    }

    /// Returns how many deletions are owed.
    pub(super) fn deletions(&self) -> usize {
        self.items.len()
    }

    /// Returns how many bumps are owed.
    pub(super) fn bumps(&self) -> usize {
        self.groups.len()
    }

    /// Returns since when the oldest debt has been owed.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.items.values().chain(self.groups.values()).map(|owed| owed.since).min()
    }

    /// Returns the slips of all debts.
    pub(super) fn slips(&self) -> Vec<Arc<Slip>> {
        self.items.values().chain(self.groups.values()).flat_map(|owed| owed.slips.iter().cloned()).collect()
    }

    /// Adds a debt and returns its slip. `others` are settled with it.
    pub(super) fn owe(&mut self, subject: Subject, mut others: Vec<Arc<Slip>>, now: Instant) -> Arc<Slip> {
        let known = self.get(&subject).is_some();
        if self.len() >= MAX_DEBTS && !known && subject != EVERYTHING {
            self.escalations += 1;
            self.queue.clear();
            let since = self.oldest().unwrap_or(now);
            let all = self.items.drain().map(|(_, owed)| owed).chain(self.groups.drain().map(|(_, owed)| owed));
            // Those of which no receipt is left would only pile up from one escalation to the next. Nobody gets hold of one
            // meanwhile: only this list is left to give it out.
            others.extend(all.flat_map(|owed| owed.slips).filter(|slip| Arc::strong_count(slip) > 1));
            return self.owe(EVERYTHING, others, since);
        }
        self.last_id += 1;
        let id = self.last_id;
        let owed = match &subject {
            Subject::Item { key, .. } => self.items.entry(key.clone()).or_insert_with(|| Owed::new(now)),
            Subject::Group(group, bump) => self.groups.entry((*group, *bump)).or_insert_with(|| Owed::new(now)),
        };
        owed.id = id;
        owed.slips.extend(others);
        let slip = owed.slips[0].clone();
        self.queue.push_back(Debt { id, subject });
        // What was owed again or settled out of turn leaves its old place behind.
        if self.queue.len() > 2 * MAX_DEBTS {
            let mut queue = std::mem::take(&mut self.queue);
            queue.retain(|debt| self.is_owed(debt));
            self.queue = queue;
        }
        slip
    }

    /// Returns as many debts as are paid at once; the next call begins with others.
    pub(super) fn due(&mut self) -> Vec<Debt> {
        if let Some(owed) = self.get(&EVERYTHING) {
            // It covers what is older, which need not be sent at all.
            return vec![Debt { id: owed.id, subject: EVERYTHING }];
        }
        let mut due = Vec::new();
        for _ in 0..self.queue.len() {
            let Some(debt) = self.queue.pop_front() else { break };
            if self.is_owed(&debt) {
                self.queue.push_back(debt.clone());
                due.push(debt);
            }
            if due.len() == PAYMENTS_PER_BATCH {
                break;
            }
        }
        due
    }

    /// Forgets debts that the store has acknowledged, unless the same has come to be owed again since they were sent, and
    /// returns the slips to settle, once the lock is free.
    pub(super) fn settle(&mut self, paid: &[Debt]) -> Vec<Arc<Slip>> {
        let mut settled = Vec::new();
        for debt in paid.iter().filter(|debt| self.is_owed(debt)).cloned().collect::<Vec<_>>() {
            let owed = match &debt.subject {
                Subject::Item { key, .. } => self.items.remove(key),
                Subject::Group(group, bump) => self.groups.remove(&(*group, *bump)),
            };
            settled.extend(owed.into_iter().flat_map(|owed| owed.slips));
            if debt.subject == EVERYTHING {
                // Whatever the store held when an older debt arose, it held under the token that is now replaced.
                let mut cover = |owed: &mut Owed| {
                    let covered = owed.id < debt.id;
                    settled.extend(owed.slips.drain(..if covered { owed.slips.len() } else { 0 }));
                    !covered
                };
                self.items.retain(|_, owed| cover(owed));
                self.groups.retain(|_, owed| cover(owed));
            }
        }
        settled
    }

    pub(super) fn owes_item(&self, key: &WireKey) -> bool {
        self.items.contains_key(key)
    }

    pub(super) fn owes_group(&self, group_hash: u64, bump: Bump) -> bool {
        self.groups.contains_key(&(group_hash, bump)) || self.get(&EVERYTHING).is_some()
    }

    fn get(&self, subject: &Subject) -> Option<&Owed> {
        match subject {
            Subject::Item { key, .. } => self.items.get(key),
            Subject::Group(group, bump) => self.groups.get(&(*group, *bump)),
        }
    }

    /// Returns whether `debt` is owed still, and has not been owed again.
    fn is_owed(&self, debt: &Debt) -> bool {
        self.get(&debt.subject).is_some_and(|owed| owed.id == debt.id)
    }
}

impl Owed {
    fn new(since: Instant) -> Owed {
        Owed { id: 0, since, slips: vec![Slip::new()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::slip::Standing;
    use crate::clock::real::now;

    fn item(key: usize) -> Subject {
        Subject::Item { key: WireKey::new(format!("k{key}")).unwrap(), fingerprint: key as u64, heir: None }
    }

    fn owe(debts: &mut Debts, subject: Subject) -> Arc<Slip> {
        debts.owe(subject, Vec::new(), now())
    }

    fn settle(debts: &mut Debts, paid: &[Debt]) {
        debts.settle(paid).iter().for_each(|slip| slip.settle());
    }

    fn is_settled(slip: &Slip) -> bool {
        slip.standing() == Standing::Settled
    }

    #[test]
    fn an_acknowledgement_settles_what_was_sent_and_nothing_younger() {
        let mut debts = Debts::default();
        let first = owe(&mut debts, item(1));
        let sent = debts.due();
        let again = owe(&mut debts, item(1));
        settle(&mut debts, &sent);
        assert!(!is_settled(&first) && !is_settled(&again));
        let sent = debts.due();
        assert_eq!(sent.len(), 1);
        settle(&mut debts, &sent);
        assert!(is_settled(&first) && is_settled(&again));
        assert_eq!((debts.len(), debts.due()), (0, vec![]));
    }

    #[test]
    fn every_debt_has_its_turn_though_the_first_ones_cannot_be_paid() {
        let mut debts = Debts::default();
        (0..3 * PAYMENTS_PER_BATCH).for_each(|key| drop(owe(&mut debts, item(key))));
        let mut tried: Vec<_> = (0..3).flat_map(|_| debts.due()).map(|debt| debt.id).collect();
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried.len(), 3 * PAYMENTS_PER_BATCH);
    }

    #[test]
    fn too_many_debts_become_one_time_and_again() {
        let mut debts = Debts::default();
        let mut slips = Vec::new();
        for round in 1..=3 {
            slips.push(owe(&mut debts, item(0)));
            (1..=MAX_DEBTS).for_each(|key| drop(owe(&mut debts, item(key))));
            assert_eq!(debts.escalations, round);
        }
        assert!(debts.owes_group(7, Bump::Kill) && !slips.iter().any(|slip| is_settled(slip)));
        // The receipts that are left, that of the debt itself, and no more.
        assert!(debts.groups[&(ROOT_GROUP, Bump::Kill)].slips.len() <= 4);
        let sent = debts.due();
        settle(&mut debts, &sent);
        // What came after the last escalation is owed for itself.
        assert!(slips.iter().all(|slip| is_settled(slip)) && debts.len() < 3);
    }

    #[test]
    fn a_bump_of_everything_settles_what_is_older_and_nothing_younger() {
        let mut debts = Debts::default();
        let older = [owe(&mut debts, item(1)), owe(&mut debts, Subject::Group(7, Bump::Expire))];
        let everything = owe(&mut debts, EVERYTHING);
        let younger = owe(&mut debts, item(2));
        let sent = debts.due();
        assert!(sent.len() == 1 && debts.owes_group(8, Bump::Expire));
        settle(&mut debts, &sent);
        assert!(older.iter().all(|slip| is_settled(slip)) && is_settled(&everything) && !is_settled(&younger));
        assert!(debts.owes_item(&WireKey::new("k2").unwrap()) && debts.len() == 1);
        let sent = debts.due();
        settle(&mut debts, &sent);
        assert!(is_settled(&younger) && debts.due().is_empty());
    }

    #[test]
    fn an_old_bump_of_everything_settles_nothing_once_it_is_owed_again() {
        let mut debts = Debts::default();
        let first = owe(&mut debts, EVERYTHING);
        let sent = debts.due();
        let covered = owe(&mut debts, item(1));
        let again = owe(&mut debts, EVERYTHING);
        settle(&mut debts, &sent);
        assert!(![&first, &covered, &again].into_iter().any(|slip| is_settled(slip)));
    }

    #[test]
    fn the_slips_that_a_debt_was_given_are_settled_with_it() {
        let mut debts = Debts::default();
        let other = Slip::new();
        let own = debts.owe(item(1), vec![other.clone()], now());
        let sent = debts.due();
        settle(&mut debts, &sent);
        assert!(is_settled(&own) && is_settled(&other));
    }

    #[test]
    fn a_group_is_owed_by_kind() {
        let mut debts = Debts::default();
        owe(&mut debts, Subject::Group(7, Bump::Expire));
        assert!(
            debts.owes_group(7, Bump::Expire) && !debts.owes_group(7, Bump::Kill) && !debts.owes_group(8, Bump::Expire)
        );
    }

    #[test]
    fn what_is_owed_again_and_again_takes_no_more_room() {
        let mut debts = Debts::default();
        (0..5 * MAX_DEBTS).for_each(|_| drop(owe(&mut debts, item(1))));
        assert!(debts.queue.len() <= 2 * MAX_DEBTS + 1 && debts.len() == 1);
        assert_eq!(debts.due().len(), 1);
    }
}
