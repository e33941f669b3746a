//! Runs the program as a user does.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command, Output},
};

use serde_json::Value;

fn rivals(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rivals")).args(arguments).output().expect("the program starts")
}

/// A file of this test run, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("rivals-{}-{name}", process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a temporary path is text")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn all_runs_and_reports() {
    let json = Scratch::new("all.json");
    let output = rivals(&["all", "--brief", "--json", json.path()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_str(&fs::read_to_string(&json.0).unwrap()).unwrap();
    let results = report["results"].as_array().unwrap();
    for workload in ["hit", "miss", "insert", "mixed", "latency", "hit ratio", "hit ratio, overall", "memory"] {
        assert!(results.iter().any(|result| result["workload"] == workload), "no result of {workload}");
    }
    for under in ["inserts", "bumps", "growth"] {
        let result = results.iter().find(|result| result["under"] == under);
        let result = result.unwrap_or_else(|| panic!("no latency under {under}"));
        for contestant in result["contestants"].as_array().unwrap() {
            let [p50, max] = ["p50", "max"].map(|percentile| contestant["ns"][percentile]["median"].as_f64().unwrap());
            assert!(0.0 < p50 && p50 < max, "{contestant}");
        }
    }
    assert!(results.iter().all(|result| result["contestants"][0]["name"] == "quick_cache"
        || result["workload"] == "hit ratio"
        || result["workload"] == "hit ratio, overall"));
}

#[test]
fn a_trace_is_replayed() {
    let trace = Scratch::new("trace.txt");
    let lines: String = (0..500).map(|access| format!("/page/{}\n", access % 100)).collect();
    fs::write(&trace.0, lines).unwrap();
    let output = rivals(&["hitratio", "--trace", trace.path()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("500 requests, 100 distinct"), "{text}");
}

#[test]
fn mistakes_are_explained() {
    let output = rivals(&["hitratio", "--trace", "no/such/file"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no/such/file"));
}
