//! Compares larder with other in-process caches, all of them in one interleaved run. `rivals --help` says how.

mod belady;
mod cli;
mod contestants;
mod crew;
mod effort;
mod heap;
mod hitratio;
mod machine;
mod memory;
mod random;
mod reference;
mod report;
mod rotation;
mod summary;
mod table;
mod trace;
mod workload;
mod zipf;

use std::{
    env,
    error::Error,
    panic,
    process::{self, ExitCode},
};

use crate::{
    cli::{Command, Invocation, Run},
    report::Report,
    trace::Trace,
    workload::{hit, insert, latency, miss, mixed},
};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    match cli::parse(arguments.iter().skip(1).cloned()) {
        Ok(Invocation::Help) => println!("{}", cli::HELP),
        Ok(Invocation::Run(run)) => {
            exit_on_any_panic();
            let command_line: Vec<String> = arguments.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if let Err(error) = carry_out(&run, &command_line) {
                return fail(error.as_ref());
            }
        }
        Err(error) => return fail(&error),
    }
    ExitCode::SUCCESS
}

fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("rivals: {error}");
    ExitCode::FAILURE
}

/// A thread that panics would leave the others waiting for it at the start line.
fn exit_on_any_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::exit(101);
    }));
}

fn carry_out(run: &Run, command_line: &[String]) -> Result<(), Box<dyn Error>> {
    let mut report = Report::begin(command_line, run.effort.seed);
    let wanted = |command| [command, Command::All].contains(&run.command);
    if wanted(Command::Hit) {
        hit::run(&run.effort, |cell| report.add(cell));
    }
    if wanted(Command::Miss) {
        miss::run(&run.effort, |cell| report.add(cell));
    }
    if wanted(Command::Insert) {
        insert::run(&run.effort, |cell| report.add(cell));
    }
    if wanted(Command::Mixed) {
        mixed::run(&run.effort, |cell| report.add(cell));
    }
    if wanted(Command::Latency) {
        latency::run(&run.effort, |result| report.add(result));
    }
    if wanted(Command::HitRatio) {
        compare_hit_ratios(run, &mut report)?;
    }
    if wanted(Command::Memory) {
        for &population in &run.effort.populations {
            report.add(&memory::measure(population));
        }
    }
    if let Some(path) = &run.json {
        report.write(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn compare_hit_ratios(run: &Run, report: &mut Report) -> Result<(), Box<dyn Error>> {
    const SYNTHETIC_ACCESSES: usize = 500_000;
    let lines = run.effort.trace_lines;
    let mut results = Vec::new();
    let mut compare = |trace: &Trace| {
        let result = hitratio::replay(trace, run.curve);
        report.add(&result);
        results.push(result);
    };
    if run.traces.is_empty() {
        compare(&Trace::synthetic(SYNTHETIC_ACCESSES.min(lines), run.effort.seed));
    }
    for path in &run.traces {
        compare(&Trace::read(path, lines)?);
    }
    report.add(&hitratio::Overall::of(&results));
    Ok(())
}
