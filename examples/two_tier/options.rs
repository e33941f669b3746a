//! The command line.

use std::ops::RangeInclusive;

use lexopt::{Arg, Parser, ValueExt};

use crate::sabotage::Sabotage;

pub(crate) const HELP: &str = "\
Replays a workload through several workers, each with a local tier of its own, that share one remote tier.

cargo run --release --example two_tier [-- OPTIONS]

  --workers N       worker processes (default 4)
  --threads N       threads in each (default 8)
  --requests N      requests to replay (default 200000; of a trace, all)
  --seed N          seed of keys, writes and group bumps (default 1)
  --trace FILE      replay this file, one key a line; - reads standard input
  --memcached ADDR  use the memcached at host:port, instead of starting one (on a free loopback port)
  --in-memory       use no memcached: workers are threads over one InMemoryRemote
  --help            show this

Exit code: 0 if the run passed; 1 after a wrong value, a failed worker or a lost write; 2 if it could not begin.";

/// Reached by no sensible number, and few enough that memcached's 1,024 connections suffice.
const MAX_WORKERS: u64 = 64;
const MAX_THREADS: u64 = 256;

pub(crate) struct Options {
    pub(crate) workers: usize,
    pub(crate) threads: usize,
    pub(crate) requests: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) trace: Option<String>,
    pub(crate) memcached: Option<String>,
    pub(crate) in_memory: bool,
    /// Hidden: what to do wrong, to see that the verdict notices.
    pub(crate) sabotage: Option<Sabotage>,
    /// Hidden: makes this process a worker, with this job.
    pub(crate) job: Option<String>,
}

impl Options {
    /// Reads the command line; `None` if it asks for help.
    pub(crate) fn from_args() -> Result<Option<Options>, String> {
        let mut options = Options {
            workers: 4,
            threads: 8,
            requests: None,
            seed: 1,
            trace: None,
            memcached: None,
            in_memory: false,
            sabotage: None,
            job: None,
        };
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next().map_err(explain)? {
            match arg {
                Arg::Long("workers") => options.workers = number("--workers", &mut parser, 1..=MAX_WORKERS)? as usize,
                Arg::Long("threads") => options.threads = number("--threads", &mut parser, 1..=MAX_THREADS)? as usize,
                Arg::Long("requests") => {
                    options.requests = Some(number("--requests", &mut parser, 1..=u32::MAX.into())? as usize);
                }
                Arg::Long("seed") => options.seed = number("--seed", &mut parser, 0..=u64::MAX)?,
                Arg::Long("trace") => options.trace = Some(text(&mut parser)?),
                Arg::Long("memcached") => options.memcached = Some(text(&mut parser)?),
                Arg::Long("in-memory") => options.in_memory = true,
                Arg::Long("sabotage") => options.sabotage = Some(text(&mut parser)?.parse()?),
                Arg::Long("job") => options.job = Some(text(&mut parser)?),
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                unknown => return Err(explain(unknown.unexpected())),
            }
        }
        if options.in_memory && options.memcached.is_some() {
            return Err("--in-memory and --memcached exclude each other: leave one of them out".to_owned());
        }
        Ok(Some(options))
    }
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
