//! Histories made by hand: what the checker must refuse, and what it must not.

use super::checker::{Event, History, check};
use super::spec::{Op, Rules, Seen, State, Written};
use super::worker::{AGEING, BUMPED, CROWDED, PLAIN};

/// One thread's operations, each with its beginning and its end.
type Thread<'a> = &'a [(Op, u64, u64)];

fn is_explained(rules: Rules, threads: &[Thread<'_>]) -> bool {
    let history: History<Op> = threads
        .iter()
        .map(|thread| thread.iter().map(|&(op, begun, ended)| Event { op, begun, ended }).collect())
        .collect();
    check(&rules, &State::default(), &history).is_ok()
}

fn value(by: usize) -> Option<Written> {
    Some(Written::by(by))
}

fn get(got: Option<Written>) -> Op {
    Op::Get { got }
}

fn insert(by: usize) -> Op {
    Op::Insert { by, grouped: true }
}

fn look(by: usize, seen: Seen) -> Op {
    Op::Lookup { by, seen }
}

fn fill(by: usize, ticket: usize, stored: bool) -> Op {
    Op::Fill { by, ticket, grouped: true, stored }
}

/// Whatever one thread does after the other has one order.
fn in_turn(rules: Rules, ops: &[Op]) -> bool {
    let events: Vec<_> = ops.iter().zip(0..).map(|(&op, at)| (op, 2 * at, 2 * at + 1)).collect();
    is_explained(rules, &[&events])
}

#[test]
fn a_read_returns_what_was_stored_last() {
    assert!(in_turn(PLAIN.rules, &[get(None), insert(1), get(value(1)), insert(2), get(value(2))]));
    assert!(!in_turn(PLAIN.rules, &[insert(1), insert(2), get(value(1))]));
    assert!(!in_turn(PLAIN.rules, &[insert(1), get(None)]));
    assert!(!in_turn(PLAIN.rules, &[get(value(1)), insert(1)]));
}

#[test]
fn what_overlaps_may_come_in_any_order_and_what_does_not_may_not() {
    let overlapping = |got| is_explained(PLAIN.rules, &[&[(insert(1), 0, 3)], &[(get(got), 1, 2)]]);
    assert!(overlapping(None) && overlapping(value(1)));
    // Of two reads, the later one has the older value.
    let reads =
        |first, second| is_explained(PLAIN.rules, &[&[(insert(1), 0, 9)], &[(get(first), 1, 2), (get(second), 3, 4)]]);
    assert!(reads(None, value(1)));
    assert!(!reads(value(1), None));
    let after = |got| is_explained(PLAIN.rules, &[&[(insert(1), 0, 1)], &[(get(got), 2, 3)]]);
    assert!(after(value(1)) && !after(None));
}

#[test]
fn an_eviction_explains_absence_and_no_resurrection() {
    assert!(in_turn(CROWDED.rules, &[insert(1), get(None), get(None)]));
    assert!(!in_turn(CROWDED.rules, &[insert(1), get(None), get(value(1))]));
    assert!(!in_turn(CROWDED.rules, &[insert(1), insert(2), get(value(1))]));
}

#[test]
fn a_removed_value_is_gone() {
    let removed = Op::Remove { removed: value(1) };
    assert!(in_turn(PLAIN.rules, &[insert(1), removed, get(None)]));
    assert!(!in_turn(PLAIN.rules, &[insert(1), removed, get(value(1))]));
    // Two callers cannot both take it away.
    assert!(!is_explained(PLAIN.rules, &[&[(insert(1), 0, 1), (removed, 2, 5)], &[(removed, 3, 4)]]));
}

#[test]
fn one_of_several_adds_succeeds() {
    let add = |by, added| Op::Add { by, grouped: false, added };
    let both = |first, second| is_explained(PLAIN.rules, &[&[(add(1, first), 0, 3)], &[(add(2, second), 1, 2)]]);
    assert!(both(true, false) && both(false, true));
    assert!(!both(true, true) && !both(false, false));
}

#[test]
fn no_update_is_lost() {
    let update = |by, from: Option<Written>| Op::Update { by, made: from.map(|from| from.updated_by(by)) };
    let one_after_the_other = Some(Written::by(1).updated_by(2));
    let updates = |second| {
        is_explained(PLAIN.rules, &[&[(insert(1), 0, 1), (update(2, value(1)), 2, 5)], &[(update(3, second), 3, 4)]])
    };
    assert!(updates(one_after_the_other));
    // Both from the same value: one has overwritten the other.
    assert!(!updates(value(1)));
}

#[test]
fn a_claim_has_one_holder_and_its_ticket_is_void_after_a_removal() {
    let vacant = |by| look(by, Seen::Vacant);
    assert!(in_turn(PLAIN.rules, &[vacant(1), look(2, Seen::Busy), fill(3, 1, true), get(value(3))]));
    assert!(!in_turn(PLAIN.rules, &[vacant(1), vacant(2)]));
    assert!(in_turn(PLAIN.rules, &[vacant(1), Op::Abandon { ticket: 1 }, vacant(2)]));
    let removal = Op::Remove { removed: None };
    assert!(in_turn(PLAIN.rules, &[vacant(1), removal, fill(3, 1, false), get(None)]));
    assert!(!in_turn(PLAIN.rules, &[vacant(1), removal, fill(3, 1, true)]));
    assert!(!in_turn(PLAIN.rules, &[vacant(1), fill(3, 1, false)]));
}

#[test]
fn a_stale_value_is_refreshed_by_one_caller() {
    let stale = |by, claimed| look(by, Seen::Stale(Written::by(0), claimed));
    let expired = [insert(0), Op::Expire { alive: true }];
    let then = |ops: &[Op]| in_turn(PLAIN.rules, &[&expired, ops].concat());
    assert!(then(&[
        stale(2, true),
        stale(3, false),
        get(value(0)),
        fill(4, 2, true),
        look(5, Seen::Fresh(Written::by(4)))
    ]));
    assert!(!then(&[stale(2, true), stale(3, true)]));
    assert!(!then(&[stale(2, false)]));
    assert!(!then(&[look(2, Seen::Fresh(Written::by(0)))]));
}

#[test]
fn a_bump_reaches_what_came_before_it_and_nothing_else() {
    assert!(in_turn(BUMPED.rules, &[insert(1), Op::Bump, get(None)]));
    assert!(!in_turn(BUMPED.rules, &[insert(1), Op::Bump, get(value(1))]));
    assert!(!in_turn(BUMPED.rules, &[Op::Bump, insert(1), get(None)]));
    let apart = Op::Insert { by: 1, grouped: false };
    assert!(!in_turn(BUMPED.rules, &[apart, Op::Bump, get(None)]));
    let claimed = [look(1, Seen::Vacant), Op::Bump];
    assert!(in_turn(BUMPED.rules, &[&claimed[..], &[fill(3, 1, false), get(None)]].concat()));
    assert!(!in_turn(BUMPED.rules, &[&claimed[..], &[fill(3, 1, true), get(value(3))]].concat()));
    // A value whose insert began before the bump may go with it, also where it is stored after another.
    let race = |got| {
        is_explained(BUMPED.rules, &[&[(insert(1), 0, 9)], &[(Op::Bump, 1, 2), (insert(2), 3, 4), (get(got), 10, 11)]])
    };
    assert!(race(value(1)) && race(value(2)) && race(None));
}

#[test]
fn deadlines_and_grace_end_in_time() {
    let Rules { soft, hard, grace, .. } = AGEING.rules;
    let after = |ms, ops: &[Op]| in_turn(AGEING.rules, &[&[insert(0), Op::Advance { ms }], ops].concat());
    let fresh = look(2, Seen::Fresh(Written::by(0)));
    let stale = look(2, Seen::Stale(Written::by(0), true));
    assert!(after(soft - 1, &[fresh]) && !after(soft - 1, &[stale]));
    assert!(after(soft, &[stale]) && !after(soft, &[fresh]));
    assert!(after(hard - 1, &[get(value(0))]) && !after(hard - 1, &[get(None)]));
    assert!(after(hard, &[get(None)]) && !after(hard, &[get(value(0))]));
    let claimed = |ms, seen| in_turn(AGEING.rules, &[look(1, Seen::Vacant), Op::Advance { ms }, look(2, seen)]);
    assert!(claimed(grace - 1, Seen::Busy) && !claimed(grace - 1, Seen::Vacant));
    assert!(claimed(grace, Seen::Vacant) && !claimed(grace, Seen::Busy));
}
