//! Runs the example `failing_loader` briefly, and sees to it that its verdict can fail.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Returns the example that cargo has built beside this test.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("a test lies in <profile>/deps").join("examples");
    built.join("failing_loader").with_extension(std::env::consts::EXE_EXTENSION)
}

fn start(arguments: &str) -> Child {
    let mut command = Command::new(example());
    let command = command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the example is built: run `cargo test` without --test")
}

/// Asserts the exit code, and returns what was printed.
fn expect(code: i32, child: Child) -> String {
    let output = child.wait_with_output().expect("it was started here");
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).join("");
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[test]
fn every_cache_keeps_its_promises() {
    let text = expect(0, start("--seconds 8"));
    assert_eq!(text.lines().filter(|line| line.starts_with("PASS: ")).count(), CACHES, "{text}");
}

/// How many caches a run puts to the test.
const CACHES: usize = 4;

/// The verdict fails by each thing that a run is told to do wrong, for every cache.
#[test]
fn the_verdict_fails() {
    let cases = [
        ("no-timeouts", "callers were kept past their timeout"),
        ("unshared-loads", "loads beside another of their key"),
        ("nothing-stale", "errors in the place of a stale value"),
        ("lasting-fault", "it did not recover"),
        ("foreign-values", "values of another key"),
    ];
    let running = cases.map(|(sabotage, says)| (sabotage, says, start(&format!("--seconds 6 --sabotage {sabotage}"))));
    for (sabotage, says, child) in running {
        let text = expect(1, child);
        let faults = text.lines().filter(|line| line.starts_with("FAIL: ") && line.contains(says)).count();
        assert_eq!(faults, CACHES, "FAIL with {says:?} after {sabotage}:\n{text}");
        assert!(!text.contains("PASS"), "{text}");
    }
}

#[test]
fn bad_input_is_named_with_what_to_do() {
    for (arguments, says) in [
        ("--seconds 3", "--seconds is 3: give a whole number from 4 to 86400"),
        ("--sabotage nothing", "--sabotage is nothing: give one of"),
        ("--fast", "see --help"),
    ] {
        let text = expect(2, start(arguments));
        assert!(text.contains(says), "{arguments}: {text}");
    }
    assert!(expect(0, start("--help")).contains("--seconds N"));
}
