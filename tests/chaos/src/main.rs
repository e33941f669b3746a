//! Chaos: processes that share memcached servers while everything between and below them fails, and a verdict.
//!
//! `cargo run --release -p larder-chaos -- --help` lists the options. A run starts its own servers and processes, carries out a
//! plan of faults that is drawn from a seed, and judges while it goes on what the processes were answered. What it can judge,
//! and what it cannot, is in the module [`judge`].

mod crew;
mod fault;
mod garble;
mod judge;
mod options;
mod owner;
mod plan;
mod plant;
mod proxy;
mod record;
mod scale;

mod soak;
#[expect(dead_code, reason = "fake servers are for the integration tests")]
#[path = "../../it/support/mod.rs"]
mod support;
mod value;
mod verb;
mod worker;

use std::error::Error;
use std::process::ExitCode;

use crate::options::{Job, Options};

fn main() -> ExitCode {
    match begin() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("larder-chaos: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether the run passed.
fn begin() -> Result<bool, Box<dyn Error>> {
    match Options::from_args()? {
        Job::Help => {
            println!("{}", options::help());
            Ok(true)
        }
        Job::Work(settings) => worker::work(&settings).map(|()| true),
        Job::Soak(options) => soak::run(&options),
        Job::Scale => scale::run().map(|()| true),
    }
}
