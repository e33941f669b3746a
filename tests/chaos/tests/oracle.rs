//! The oracle finds what is wrong: with each bug planted in one of the processes, a short run has a verdict against it.

use std::process::{Command, Output};

/// How often a run is tried that may have no occasion for a bug to show itself.
const ATTEMPTS: u64 = 4;

/// Some seconds of these faults, with a bug.
fn run(faults: &str, seconds: u64, bug: &str, seed: u64) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder-chaos"));
    command.args(["--processes", "2", "--faults", faults, "--plant", bug]);
    command.args(["--seconds", &seconds.to_string(), "--seed", &seed.to_string()]).output().expect("run larder-chaos")
}

/// Fails unless a run with `bug` ends with violations of `kind`, and with no others than those and `also`.
fn expect_found(bug: &str, (faults, seconds): (&str, u64), kind: &str, also: &[&str]) {
    let mut runs = (1..=ATTEMPTS).map(|seed| run(faults, seconds, bug, seed));
    let found = runs.find(|output| output.status.code() != Some(0));
    let output = found.unwrap_or_else(|| panic!("{bug} was not found in {ATTEMPTS} runs"));
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{bug}: {told}{}", String::from_utf8_lossy(&output.stderr));
    let verdict = told.lines().last().unwrap_or_default();
    let kinds = verdict.split_once('(').map_or("", |(_, kinds)| kinds.trim_end_matches(')'));
    let kinds: Vec<_> = kinds.split(", ").filter_map(|kind| kind.rsplit_once(' ')).map(|(kind, _)| kind).collect();
    assert!(kinds.contains(&kind), "{bug} was not found by what it does: {told}");
    assert!(kinds.iter().all(|found| *found == kind || also.contains(found)), "{bug} was not all: {told}");
}

#[test]
fn stale_values_are_found_that_are_served_without_trust() {
    expect_found("serve-stale", ("hold,cut", 16), "too old", &[]);
}

#[test]
fn a_bump_is_found_that_was_acknowledged_and_lost() {
    expect_found("lost-bump", ("none", 6), "too old", &[]);
}

#[test]
fn two_loads_at_once_are_found() {
    expect_found("lone-loads", ("none", 6), "two loads", &[]);
}

#[test]
fn a_wrong_byte_is_found() {
    expect_found("wrong-byte", ("none", 6), "wrong value", &[]);
}

#[test]
fn a_process_is_found_that_forgets_its_own_bump() {
    expect_found("own-stale", ("none", 6), "own bump", &[]);
}

#[test]
fn a_call_is_found_that_never_returns() {
    expect_found("stuck", ("none", 10), "stuck", &[]);
}

#[test]
fn a_panic_is_found() {
    expect_found("panic", ("none", 6), "panic", &[]);
}

#[test]
fn a_leak_is_found() {
    expect_found("leak", ("none", 6), "memory", &[]);
}

#[test]
fn a_process_is_found_that_does_not_recover() {
    expect_found("limp", ("none", 6), "not recovered", &["other"]);
}
