//! The command line.

use std::{ffi::OsString, path::PathBuf};

use lexopt::{Arg, Parser, ValueExt};

use crate::effort::Effort;

pub(crate) const HELP: &str = "\
Compares larder with other in-process caches in one interleaved run.

Usage: rivals <COMMAND> [OPTIONS]

Commands:
  hit       time of a hit: Zipf 0.99, everything resident
  miss      time of a lookup of an absent key
  insert    time of an insert of a new key into a full cache
  mixed     time of a lookup, and of an insert where it missed: Zipf 0.9 over ten times the capacity
  latency   percentiles of a hit while another thread inserts, invalidates other groups, or fills the cache
  hitratio  hit ratio on recorded traces, beside LRU, LFU and the optimum; needs --trace
  memory    bytes per entry beyond key and value
  all       all of these, with fewer rounds; without --trace, on a synthetic one

Options:
  --trace FILE...   traces, one key a line; .xz is decompressed by `xz`, - is the standard input
  --curve           more sizes of each trace, which count for no mean
  --threads N,...   numbers of threads [default: 1,2,8]
  --instances N     how often every contestant is built anew [default: 41; all: 9]
  --rounds N        rounds of an instance; in each, every contestant runs once [default: 3]
  --seed N          seed of every random choice of this program [default: 42]
  --brief           a few seconds for everything, to see that it works; the figures mean nothing
  --json FILE       also writes the results there
  -h, --help        this text

Times are the wall time of a round, from the first thread's start to the last one's finish, divided by the operations
of all threads. Ratios compare contestants within the same round. Of both, the median over all rounds of all instances
is reported, with the 10th and the 90th percentile.";

const DEFAULT_SEED: u64 = 42;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Hit,
    Miss,
    Insert,
    Mixed,
    Latency,
    HitRatio,
    Memory,
    All,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Invocation {
    Help,
    Run(Run),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) command: Command,
    pub(crate) traces: Vec<PathBuf>,
    /// Whether hit ratios are wanted at more sizes than the means are taken over.
    pub(crate) curve: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) effort: Effort,
}

/// Reads the arguments, the program's own name left out.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, lexopt::Error> {
    let mut parser = Parser::from_args(arguments);
    let (mut command, mut traces, mut json) = (None, Vec::new(), None);
    let (mut threads, mut instances, mut rounds) = (None, None, None);
    let (mut seed, mut brief, mut curve) = (DEFAULT_SEED, false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(name) if command.is_none() => command = Some(name.parse_with(parse_command)?),
            Arg::Long("trace") => traces.extend(parser.values()?.map(PathBuf::from)),
            Arg::Long("curve") => curve = true,
            Arg::Long("threads") => threads = Some(parser.value()?.parse_with(parse_threads)?),
            Arg::Long("instances") => instances = Some(parser.value()?.parse_with(parse_positive)?),
            Arg::Long("rounds") => rounds = Some(parser.value()?.parse_with(parse_positive)?),
            Arg::Long("seed") => seed = parser.value()?.parse()?,
            Arg::Long("brief") => brief = true,
            Arg::Long("json") => json = Some(parser.value()?.into()),
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    let command = command.ok_or("no command; try --help")?;
    if command == Command::HitRatio && traces.is_empty() {
        return Err("hitratio needs --trace FILE".into());
    }
    let mut effort = match command {
        _ if brief => Effort::brief(seed),
        Command::All => Effort::moderate(seed),
        _ => Effort::thorough(seed),
    };
    effort.threads = threads.unwrap_or(effort.threads);
    effort.instances = instances.unwrap_or(effort.instances);
    effort.rounds = rounds.unwrap_or(effort.rounds);
    Ok(Invocation::Run(Run { command, traces, curve, json, effort }))
}

fn parse_command(name: &str) -> Result<Command, &'static str> {
    Ok(match name {
        "hit" => Command::Hit,
        "miss" => Command::Miss,
        "insert" => Command::Insert,
        "mixed" => Command::Mixed,
        "latency" => Command::Latency,
        "hitratio" => Command::HitRatio,
        "memory" => Command::Memory,
        "all" => Command::All,
        _ => return Err("no such command; try --help"),
    })
}

fn parse_threads(list: &str) -> Result<Vec<usize>, &'static str> {
    list.split(',').map(parse_positive).collect()
}

fn parse_positive(number: &str) -> Result<usize, &'static str> {
    number.trim().parse().ok().filter(|&number| number > 0).ok_or("not a number above zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Run, String> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Invocation::Run(run)) => Ok(run),
            Ok(Invocation::Help) => Err("help".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn options_override_the_effort() {
        let run = run("hit --threads 1,4 --instances 2 --rounds 7 --seed 9").unwrap();
        assert_eq!(run.effort, Effort { threads: vec![1, 4], instances: 2, rounds: 7, ..Effort::thorough(9) });
    }

    #[test]
    fn several_traces_follow_one_option() {
        let run = run("hitratio --trace a b.xz --curve --trace - --json out").unwrap();
        assert_eq!(run.traces, ["a", "b.xz", "-"].map(PathBuf::from));
        assert_eq!((run.curve, run.json), (true, Some("out".into())));
    }

    #[test]
    fn mistakes_are_errors() {
        for line in ["", "hits", "hit miss", "hitratio", "hit --threads 0", "hit --rounds", "hit --fast"] {
            assert!(run(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn help_wins() {
        assert_eq!(run("hit --help").unwrap_err(), "help");
    }
}
