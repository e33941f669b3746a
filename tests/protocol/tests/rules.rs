//! Each rule is needed: without it, some configuration finds a promise broken.

use protocol::configurations;
use protocol::rules::Rules;
use protocol::search::{End, search};

/// A rule, and a configuration that finds it missing.
const FOUND_BY: &[(&str, &str)] = &[
    ("r1_act_before_announcing", "remove, two loads"),
    ("r2_entry_before_token", "late groups"),
    ("r2_entry_after_token", "late groups, two loads"),
    ("r2_sent_again_whole", "a full journal"),
    ("r3_fresh_token", "outbox of one process, two bumps"),
    ("r4_again", "soft tokens, a lost reply"),
    ("r5_kept_if_unmoved", "soft tokens, two loads"),
    ("r5_judges_under_trust", "trust lease, two reads"),
    ("r6_ticket", "remove"),
    ("r6_old_born", "soft tokens"),
    ("r6_news_kill_tickets", "remove"),
    ("r7_journal_after_late_tokens", "late groups"),
    ("r8_own_connection", "two servers, two loads, a restart"),
    ("r9_insert_under_version", "two inserts, a lost reply"),
    ("r9_dropped_unless_good", "two inserts"),
    ("r10_resync_bumps", "remove, a flush"),
    ("r10_trust_last", "late groups, slow looks"),
    ("r11_purge", "write-behind and remove"),
    ("r11_purged_counts", "write-behind and remove"),
    ("r11_old_as_queued", "write-behind and bump"),
    ("r12_owed_items", "remove, a lost reply"),
    ("r12_owed_groups", "outbox"),
    ("trust_noted_before", "trust lease, slow looks"),
    ("vouched_from_the_beginning", "trust lease, a load of one cut off"),
    ("one_lease", "late groups, two loads"),
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
