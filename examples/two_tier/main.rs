//! Replays a workload through several workers that share one remote tier, and says whether every answer was right.
//!
//! `cargo run --release --example two_tier -- --help` lists the options. Workers are processes around a memcached, or threads
//! around an `InMemoryRemote` where there is none.

mod audit;
mod clock;
mod crew;
mod floors;
mod history;
mod job;
mod latencies;
mod ledger;
mod options;
mod record;
mod report;
mod run;
mod sabotage;
mod server;
mod source;
mod store;
mod tally;
mod verbs;
mod verdict;
mod worker;
mod workload;

use std::process::ExitCode;

use crate::job::Failure;
use crate::options::{HELP, Options};

fn main() -> ExitCode {
    match begin() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("two_tier: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether the run passed.
fn begin() -> Result<bool, Failure> {
    let Some(options) = Options::from_args()? else {
        println!("{HELP}");
        return Ok(true);
    };
    match &options.job {
        Some(job) => crew::work(job).map(|()| true),
        None => run::run(&options),
    }
}
