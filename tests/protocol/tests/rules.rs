//! Each rule is needed: without it, some configuration finds a promise broken.

use protocol::configurations;
use protocol::rules::Rules;
use protocol::search::{End, search};

/// A rule, and a configuration that finds it missing.
const FOUND_BY: &[(&str, &str)] = &[
    ("r1_act_before_announcing", "remove"),
    ("r2_entry_before_token", "late groups"),
    ("r2_entry_after_token", "late groups"),
    ("r4_bump_again", "soft tokens, a lost reply"),
];

/// More states than any of these takes.
const MOST: usize = 2_000_000;

#[test]
fn each_rule_that_is_dropped_is_missed() {
    for (rule, configuration) in FOUND_BY {
        let mut model = configurations::named(configuration).expect("a configuration of this name");
        model.rules = Rules::without(rule).expect("a rule of this name");
        let outcome = search(&model, 2, MOST);
        assert!(matches!(outcome.end, End::Violation { .. }), "without {rule}, {configuration:?} finds nothing");
    }
}
