//! What the search forgets does not hide a broken promise.

use protocol::configurations;
use protocol::model::Model;
use protocol::rules::Rules;
use protocol::search::{End, search};

/// Configurations of all kinds of calls and of faults, most of which have few states even where nothing is forgotten.
const SMALL: &[&str] = &[
    "late groups",
    "late groups, a crash",
    "late groups, slow looks",
    "soft tokens",
    "outbox",
    "remove, a lost reply",
    "remove, a crash",
    "remove, two loads",
    "remove, a flush",
    "insert, a lost reply",
    "insert, an eviction",
    "two inserts",
    "write-behind and remove",
    "two servers, remove, a cut",
    "a full journal",
    "trust lease, a load of one cut off",
];

/// How many states are visited where nothing is forgotten, the nearest first, if `LARDER_PROTOCOL_EXACT` does not say more.
const MOST: usize = 4_000;

fn most() -> usize {
    std::env::var("LARDER_PROTOCOL_EXACT").map_or(MOST, |most| most.parse().expect("a number of states"))
}

#[test]
fn what_is_forgotten_hides_no_broken_promise() {
    let most = most();
    for name in SMALL {
        let model = configurations::named(name).expect("a configuration of this name");
        let dropped = Rules::NAMES.iter().map(|rule| (*rule, Rules::without(rule).expect("a rule of this name")));
        for (rule, rules) in dropped.chain([("none", Rules::default())]) {
            let all = search(&Model { exact: true, rules, ..model }, 2, most).end;
            let forgetful = search(&Model { rules, ..model }, 2, usize::MAX).end;
            let is_violation = |end: &End| matches!(end, End::Violation { .. });
            let agree = all == End::Bounded || is_violation(&all) == is_violation(&forgetful);
            assert!(agree, "{name:?} without {rule}: {all:?}, and with what is forgotten {forgetful:?}");
        }
    }
}
