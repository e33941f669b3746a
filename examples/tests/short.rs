//! Runs the examples that are one file each.

use std::process::Command;

/// Runs an example, which ends well only if all that it asserts holds, and returns what it printed.
fn run(example: &str) -> String {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("a test lies in <profile>/deps").join("examples");
    let output =
        Command::new(built.join(example)).output().expect("the example is built: run `cargo test` without --test");
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).join("");
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn embedded_prints_what_the_cache_did() {
    let text = run("embedded");
    assert!(text.lines().any(|line| line.starts_with("hits ")), "{text}");
}

#[test]
fn agree_gets_to_its_end() {
    let text = run("agree");
    assert!(text.lines().any(|line| line.starts_with("the store is back")), "{text}");
}
