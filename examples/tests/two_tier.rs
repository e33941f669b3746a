//! Runs the example `two_tier` as a user would, and sees to it that its verdict can fail.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const MEMCACHED_MISSING: &str =
    "memcached is not on the PATH: install 1.6.18 or later, e.g. `apt-get install memcached`";

/// Returns the example that cargo has built beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("a test lies in <profile>/deps").join("examples");
    built.join(name).with_extension(std::env::consts::EXE_EXTENSION)
}

fn two_tier(args: &str) -> Output {
    let mut command = Command::new(example("two_tier"));
    command.args(args.split_whitespace()).output().expect("the example is built: run `cargo test` without --test")
}

/// Asserts the exit code, and returns what was printed.
fn expect(code: i32, args: &str) -> String {
    let output = two_tier(args);
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).join("");
    assert_eq!(output.status.code(), Some(code), "two_tier {args}:\n{text}");
    text
}

fn assert_table(text: &str) {
    for line in ["local tier", "remote tier", "loader", "loads", "entries invalidated", "PASS: "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no line {line:?} in:\n{text}");
    }
}

#[test]
fn threads_pass() {
    let text = expect(0, "--requests 2000 --in-memory");
    assert!(text.contains("on InMemoryRemote"), "{text}");
    assert_table(&text);
}

#[test]
fn processes_pass() {
    let text = expect(0, "--requests 2000 --workers 3");
    assert!(text.contains("a memcached started for this run"), "{MEMCACHED_MISSING}:\n{text}");
    assert_table(&text);
}

#[test]
fn without_a_memcached_workers_are_threads() {
    let output = Command::new(example("two_tier")).args(["--requests", "2000"]).env("PATH", "").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("there is no memcached on the PATH"), "{text}");
    assert_table(&text);
}

#[test]
fn a_trace_comes_from_standard_input() {
    let mut command = Command::new(example("two_tier"));
    command.args(["--in-memory", "--trace", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all("/a\n/b c\r\n\n\u{e4}\n".repeat(100).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("trace -, 300 requests") && text.contains("PASS: "), "{text}");
}

/// The verdict fails by each thing that a run is told to do wrong, in both modes.
#[test]
fn the_verdict_fails() {
    let cases = [
        ("foreign-value", "is the record of"),
        ("damaged-value", "is damaged"),
        ("future-value", "and the source has only"),
        ("forgotten-bump --requests 10000", "was complete before the read"),
        // Few threads, so that loads alone take several times as long as a change may be unknown.
        ("untold-writes --workers 2 --threads 2 --requests 20000", "another worker's change had made wrong"),
        ("lost-write", "lost writes"),
        ("unshared-loads --requests 10000", "loads beside another of their record"),
        ("failed-worker", "worker 0 failed"),
    ];
    for (sabotage, says) in cases {
        for mode in ["", "--in-memory"] {
            let text = expect(1, &format!("--requests 3000 {mode} --sabotage {sabotage}"));
            let fault = text.lines().find(|line| line.starts_with("FAIL: ") && line.contains(says));
            assert!(fault.is_some(), "no FAIL with {says:?} after {sabotage} {mode}:\n{text}");
            assert!(!text.contains("PASS"), "{text}");
        }
    }
}

#[test]
fn bad_input_is_named_with_what_to_do() {
    for (args, says) in [
        ("--workers none", "--workers is none: give a whole number from 1 to 64"),
        ("--requests 0", "--requests is 0: give"),
        ("--trace /no/such/file", "--trace /no/such/file cannot be read"),
        ("--trace /dev/null", "--trace /dev/null has no requests"),
        ("--memcached 127.0.0.1:1", "the memcached of --memcached 127.0.0.1:1 cannot be used"),
        ("--memcached nowhere --in-memory", "exclude each other"),
        ("--fast", "see --help"),
    ] {
        let text = expect(2, args);
        assert!(text.contains(says), "{args}: {text}");
    }
}
