//! Makes one page of HTML out of what was measured. `benches/report --help` says how.
//!
//! Measuring writes files of JSON; the page is made of those alone, so that it can be made again without measuring, and
//! tested on files that never change.

mod bars;
mod cli;
mod headline;
mod labels;
mod lines;
mod looks;
mod markup;
mod measure;
mod numbers;
mod page;
mod readme;
mod results;
mod scale;
mod sections;
mod steps;

use std::{env, error::Error, fs, path::Path, process::ExitCode};

use crate::{
    cli::{Invocation, Source, Task},
    headline::Headline,
    results::Results,
    steps::LARDER,
};

fn main() -> ExitCode {
    let task = match cli::parse(env::args_os().skip(1)) {
        Ok(Invocation::Help) => {
            println!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Make(task)) => task,
        Err(error) => return fail(&error),
    };
    match make(&task) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => fail(format!("{failed} of the measurements failed; the page says which, and why").as_str()),
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("report: {error}");
    ExitCode::FAILURE
}

/// Returns how many measurements failed: the page is made of the others.
fn make(task: &Task) -> Result<usize, Box<dyn Error>> {
    let readme = Path::new(LARDER).join("README.md");
    let with_table = |table: &str| -> Result<String, Box<dyn Error>> {
        readme::with_table(&fs::read_to_string(&readme)?, table)
            .map_err(|problem| format!("README.md: {problem}").into())
    };
    if task.readme {
        // Nobody wants to hear that after an hour of measuring.
        with_table("")?;
    }
    let measured = task.out.join("data");
    let (directory, failed) = match &task.source {
        Source::From(directory) => (directory.as_path(), 0),
        Source::Measure { effort, traces } => {
            let traces = measure::traces(traces)?;
            (measured.as_path(), measure::run(&measured, *effort, &traces)?)
        }
    };
    let results = Results::read(directory).map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
    let headline = Headline::of(&results);
    fs::create_dir_all(&task.out)?;
    let page = task.out.join("report.html");
    fs::write(&page, page::html(&results, &headline))?;
    println!("{}\n\n{}", headline.markdown(), fs::canonicalize(&page)?.display());
    if task.readme {
        fs::write(&readme, with_table(&headline.markdown())?)?;
    }
    Ok(failed)
}
