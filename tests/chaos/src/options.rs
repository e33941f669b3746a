//! The command line.

use std::ops::RangeInclusive;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::fault::Fault;
use crate::plant::Plant;

const USAGE: &str = "\
Has processes share two memcached servers while everything between and below them fails, and judges what they are answered.

cargo run --release -p larder-chaos [-- OPTIONS]
cargo run --release -p larder-chaos -- scale    (counts what many processes cost the server with the journal)

  --seconds N       how long faults go on (default 40)
  --seed N          draws the plan of faults (default 1)
  --processes N     how many processes (default 4)
  --faults A,B,C    the kinds of faults, `all` (the default), or `none`
  --plant BUG       plants a bug in the first process, to see that the verdict is against it
  --help            show this

Exit code: 0 without a violation, 1 with one, 2 if it could not run.
";

/// The most processes: their connections, eight and one each to a server, are fewer than a server takes.
const MAX_PROCESSES: u64 = 32;

/// Longer than a day is a mistake.
const MAX_SECONDS: u64 = 24 * 3_600;

pub(crate) enum Job {
    Help,
    /// Hidden: makes this process one of those that share the servers.
    Work(String),
    Soak(Options),
    Scale,
}

pub(crate) struct Options {
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) processes: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) plant: Option<Plant>,
}

impl Options {
    pub(crate) fn from_args() -> Result<Job, String> {
        let mut options = Options { time: Duration::from_secs(40), seed: 1, processes: 4, faults: all(), plant: None };
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next().map_err(explain)? {
            match arg {
                Arg::Long("seconds") => {
                    options.time = Duration::from_secs(number("--seconds", &mut parser, 1..=MAX_SECONDS)?);
                }
                Arg::Long("seed") => options.seed = number("--seed", &mut parser, 0..=u64::MAX)?,
                Arg::Long("processes") => {
                    options.processes = number("--processes", &mut parser, 2..=MAX_PROCESSES)? as usize;
                }
                Arg::Long("faults") => options.faults = faults(&text(&mut parser)?)?,
                Arg::Long("plant") => options.plant = Some(text(&mut parser)?.parse()?),
                Arg::Long("work") => return text(&mut parser).map(Job::Work),
                Arg::Short('h') | Arg::Long("help") => return Ok(Job::Help),
                Arg::Value(word) if word == "scale" => return Ok(Job::Scale),
                unknown => return Err(explain(unknown.unexpected())),
            }
        }
        Ok(Job::Soak(options))
    }
}

/// Returns what `--help` says.
pub(crate) fn help() -> String {
    let bugs: Vec<_> = Plant::ALL.iter().map(|(name, _)| *name).collect();
    format!("{USAGE}\nFaults:\n{}\nBugs to plant: {}", Fault::describe(), bugs.join(", "))
}

fn faults(list: &str) -> Result<Vec<Fault>, String> {
    match list {
        "all" => Ok(all()),
        "none" => Ok(Vec::new()),
        some => some.split(',').map(str::parse).collect(),
    }
}

/// All faults under which every promise is judged.
fn all() -> Vec<Fault> {
    Fault::ALL.iter().copied().filter(|fault| *fault != Fault::Scramble).collect()
}

fn text(parser: &mut Parser) -> Result<String, String> {
    parser.value().and_then(|value| value.string()).map_err(explain)
}

fn number(option: &str, parser: &mut Parser, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let given = text(parser)?;
    let (least, most) = (allowed.start(), allowed.end());
    let number = given.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| format!("{option} is {given}: give a whole number from {least} to {most}"))
}

fn explain(error: lexopt::Error) -> String {
    format!("{error}: see --help")
}
