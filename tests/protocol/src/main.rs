//! Explores the configurations, and fails with a trace where a promise is broken.

use std::process::ExitCode;

use protocol::configurations;
use protocol::rules::Rules;
use protocol::search::{End, search};

const USAGE: &str = "Usage: larder-protocol [--larger] [--exact] [--states MOST] [--without RULE] [NAME]...
Explores all configurations, or those whose name begins with one of NAME; with --larger, larger ones, which take minutes
to hours and gigabytes each; with --exact, without taking states for the same that are as good as that.";

fn main() -> ExitCode {
    let (mut most, mut exact, mut rules, mut names) = (usize::MAX, false, Rules::default(), Vec::new());
    let mut table = configurations::all();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--larger" => table = configurations::larger(),
            "--exact" => exact = true,
            "--states" => match arguments.next().and_then(|most| most.parse().ok()) {
                Some(given) => most = given,
                None => return usage(),
            },
            "--without" => match arguments.next().as_deref().and_then(Rules::without) {
                Some(given) => rules = given,
                None => return usage(),
            },
            option if option.starts_with('-') => return usage(),
            _ => names.push(argument),
        }
    }
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut failed = false;
    for (name, mut model) in table {
        if !names.is_empty() && !names.iter().any(|wanted| name.starts_with(wanted.as_str())) {
            continue;
        }
        (model.rules, model.exact) = (rules, exact);
        let outcome = search(&model, threads, most);
        let (states, depth, took) = (outcome.states, outcome.depth, outcome.took.as_secs_f64());
        let end = match outcome.end {
            End::Exhausted => "all",
            End::Bounded => "the nearest",
            End::Violation { .. } => "VIOLATION after",
        };
        println!("{name:<42} {end} {states:>9} states, {depth:>3} deep, {took:>6.1} s");
        if let End::Violation { promise, trace } = outcome.end {
            failed = true;
            println!("  {promise}");
            trace.iter().enumerate().for_each(|(at, step)| println!("  {:>3} {step}", at + 1));
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn usage() -> ExitCode {
    println!("{USAGE}");
    println!("Rules: {}", Rules::NAMES.join(" "));
    ExitCode::FAILURE
}
