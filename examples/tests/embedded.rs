//! Runs the example `embedded`.

use std::process::Command;

#[test]
fn it_prints_what_the_cache_did() {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("a test lies in <profile>/deps").join("examples");
    let output =
        Command::new(built.join("embedded")).output().expect("the example is built: run `cargo test` without --test");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.lines().any(|line| line.starts_with("hits ")), "{text}");
}
