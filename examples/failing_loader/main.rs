//! A loader that hangs, fails half the time, or panics, under load: does every caller get away in time, with the stale value
//! where there is one, and does no key have two loads at once?
//!
//! `cargo run --release --example failing_loader -- --help` lists the options.

mod caches;
mod crew;
mod options;
mod pulse;
mod source;
mod verdict;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use crate::caches::Subject;
use crate::options::{HELP, Options};
use crate::pulse::Pulse;
use crate::source::Plan;
use crate::verdict::Verdict;

fn main() -> ExitCode {
    match Options::from_args() {
        Ok(Some(options)) if run(&options) => ExitCode::SUCCESS,
        Ok(Some(_)) => ExitCode::from(1),
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("failing_loader: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all caches passed.
fn run(options: &Options) -> bool {
    let plan = Plan::new(options);
    println!("{plan}");
    let pulse = Arc::new(Pulse::start());
    let subjects: Vec<_> = Subject::all(&plan, options, &pulse);
    subjects.iter().for_each(crew::prime);
    plan.begin();
    let tallies: Vec<_> = thread::scope(|scope| {
        let crews: Vec<_> = subjects.iter().map(|subject| scope.spawn(|| crew::run(subject, &plan))).collect();
        crews.into_iter().map(|crew| crew.join().expect("a crew catches what loaders do")).collect()
    });
    let verdicts = subjects.iter().zip(&tallies).map(|(subject, tally)| Verdict::of(subject, tally, &pulse));
    let mut passed = true;
    for verdict in verdicts {
        print!("{verdict}");
        passed &= verdict.faults.is_empty();
    }
    passed
}
