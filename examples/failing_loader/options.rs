//! The command line.

use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Loads through caches whose loader hangs, fails half the time, and panics, each for a quarter of the run, then recovers.

cargo run --release --example failing_loader [-- OPTIONS]

  --seconds N       how long (default 60; from 4 to 86400)
  --help            show this

Exit code: 0 if every promise held; 1 if one broke: a caller that was kept past its timeout, a stale value that was not served,
two loads of one key at once, an error that nobody shared, a key that did not recover; 2 if the run could not begin.";

pub(crate) struct Options {
    pub(crate) length: Duration,
    /// Hidden: what to do wrong, to see that the verdict notices.
    pub(crate) sabotage: Option<Sabotage>,
}

/// What a run can be told to do wrong (`--sabotage KIND`), so that a test sees the verdict fail. Not for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// The caches have no timeouts.
    NoTimeouts,
    /// Callers load for themselves.
    UnsharedLoads,
    /// What is to be served stale is dead by then.
    NothingStale,
    /// The loader does not recover.
    LastingFault,
    /// Loads bring the value of another key.
    ForeignValues,
}

const KINDS: [(&str, Sabotage); 5] = [
    ("no-timeouts", Sabotage::NoTimeouts),
    ("unshared-loads", Sabotage::UnsharedLoads),
    ("nothing-stale", Sabotage::NothingStale),
    ("lasting-fault", Sabotage::LastingFault),
    ("foreign-values", Sabotage::ForeignValues),
];

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(given: &str) -> Result<Sabotage, String> {
        let names = KINDS.map(|(name, _)| name).join(", ");
        let kind = KINDS.into_iter().find(|(name, _)| *name == given);
        kind.map(|(_, kind)| kind).ok_or_else(|| format!("--sabotage is {given}: give one of {names}"))
    }
}

impl Options {
    /// Reads the command line; `None` if it asks for help.
    pub(crate) fn from_args() -> Result<Option<Options>, String> {
        let mut options = Options { length: Duration::from_secs(60), sabotage: None };
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next().map_err(explain)? {
            match arg {
                Arg::Long("seconds") => options.length = seconds(&text(&mut parser)?)?,
                Arg::Long("sabotage") => options.sabotage = Some(text(&mut parser)?.parse()?),
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                unknown => return Err(explain(unknown.unexpected())),
            }
        }
        Ok(Some(options))
    }
}

fn seconds(given: &str) -> Result<Duration, String> {
    let seconds = given.parse().ok().filter(|seconds| (4..=86_400).contains(seconds));
    let error = || format!("--seconds is {given}: give a whole number from 4 to 86400");
    seconds.map(Duration::from_secs).ok_or_else(error)
}

fn text(parser: &mut Parser) -> Result<String, String> {
    parser.value().and_then(|value| value.string()).map_err(explain)
}

fn explain(error: lexopt::Error) -> String {
    format!("{error}: see --help")
}
