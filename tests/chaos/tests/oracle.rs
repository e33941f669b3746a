//! The oracle finds what is wrong: with each bug planted in one of the processes, a short run has a verdict against it.

use std::process::{Command, Output};

/// A few seconds of these faults by this seed, with and without a bug.
fn run(faults: &str, bug: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder-chaos"));
    command.args(["--processes", "2", "--seconds", "8", "--seed", "1", "--faults", faults]);
    if let Some(bug) = bug {
        command.args(["--plant", bug]);
    }
    command.output().expect("run larder-chaos")
}

/// Fails unless a run with `bug` ends with violations of `kind`, and with no others than those and `also`.
fn expect_found(bug: &str, faults: &str, kind: &str, also: &[&str]) {
    let output = run(faults, Some(bug));
    let told = String::from_utf8_lossy(&output.stdout);
    let verdict = told.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{bug} was not found: {told}");
    let kinds = verdict.split_once('(').map_or("", |(_, kinds)| kinds.trim_end_matches(')'));
    let kinds: Vec<_> = kinds.split(", ").filter_map(|kind| kind.rsplit_once(' ')).map(|(kind, _)| kind).collect();
    assert!(kinds.contains(&kind), "{bug} was not found by what it does: {told}");
    assert!(kinds.iter().all(|found| *found == kind || also.contains(found)), "{bug} was not all: {told}");
}

#[test]
fn stale_values_are_found_that_are_served_without_trust() {
    expect_found("serve-stale", "hold,cut", "too old", &[]);
}

#[test]
fn a_bump_is_found_that_was_acknowledged_and_lost() {
    expect_found("lost-bump", "flush", "too old", &[]);
}

#[test]
fn two_loads_at_once_are_found() {
    expect_found("lone-loads", "flush", "two loads", &[]);
}

#[test]
fn a_wrong_byte_is_found() {
    expect_found("wrong-byte", "flush", "wrong value", &[]);
}

#[test]
fn a_process_is_found_that_forgets_its_own_bump() {
    expect_found("own-stale", "flush", "own bump", &[]);
}

#[test]
fn a_call_is_found_that_never_returns() {
    expect_found("stuck", "flush", "stuck", &[]);
}

#[test]
fn a_panic_is_found() {
    expect_found("panic", "flush", "panic", &[]);
}

#[test]
fn a_leak_is_found() {
    expect_found("leak", "flush", "memory", &[]);
}

#[test]
fn a_process_is_found_that_does_not_recover() {
    expect_found("limp", "flush", "not recovered", &["other"]);
}
