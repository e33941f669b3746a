//! The command line.

use std::{ffi::OsString, path::PathBuf};

use lexopt::{Arg, Parser, ValueExt};

use crate::steps::{Effort, LARDER};

pub(crate) const HELP: &str = "\
Measures larder beside other caches, and writes one page of HTML with plots and the numbers behind them.

Usage: benches/report [OPTIONS]

Options:
  --traces PATH...  recorded traces for the hit ratios, one key a line: files, or directories of *.txt and *.txt.xz
  --quick           fewer instances of each cache: some minutes instead of the better part of an hour
  --brief           seconds, to see that it works; the figures mean nothing
  --out DIR         where the page (report.html) and the measurements (data/) go [default: target/report]
  --from DIR        measures nothing, and makes the page of the measurements in DIR
  --readme          also puts the headline table into README.md, between the markers
  -h, --help        this text

Leave the machine alone meanwhile. Needs memcached for the figures of the remote tier, and xz for compressed traces.";

#[derive(Debug, PartialEq)]
pub(crate) enum Invocation {
    Help,
    Make(Task),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Task {
    pub(crate) source: Source,
    pub(crate) out: PathBuf,
    pub(crate) readme: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    Measure { effort: Effort, traces: Vec<PathBuf> },
    From(PathBuf),
}

/// Reads the arguments, the program's own name left out.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, lexopt::Error> {
    let mut parser = Parser::from_args(arguments);
    let (mut effort, mut traces, mut from) = (None, Vec::new(), None);
    let (mut out, mut readme) = (PathBuf::from(LARDER).join("target/report"), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("traces") => traces.extend(parser.values()?.map(PathBuf::from)),
            Arg::Long("quick") => effort = Some(Effort::Quick),
            Arg::Long("brief") => effort = Some(Effort::Brief),
            Arg::Long("out") => out = parser.value()?.parse()?,
            Arg::Long("from") => from = Some(parser.value()?.parse()?),
            Arg::Long("readme") => readme = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    let source = match from {
        Some(_) if effort.is_some() || !traces.is_empty() => {
            return Err("--from measures nothing: it takes no --quick, --brief or --traces".into());
        }
        Some(directory) => Source::From(directory),
        None => Source::Measure { effort: effort.unwrap_or(Effort::Full), traces },
    };
    Ok(Invocation::Make(Task { source, out, readme }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_full_measurement_is_the_default() {
        let Ok(Invocation::Make(task)) = parse_line("--traces a b --out o --readme") else { panic!("an error") };
        let source = Source::Measure { effort: Effort::Full, traces: vec!["a".into(), "b".into()] };
        assert_eq!(task, Task { source, out: "o".into(), readme: true });
    }

    #[test]
    fn what_measures_nothing_takes_no_effort() {
        for line in ["--from d --quick", "--from d --traces t", "d", "--fast", "--out"] {
            assert!(parse_line(line).is_err(), "{line:?}");
        }
        assert!(parse_line("--from d").is_ok());
    }
}
