//! How many instructions do the hot paths take? Callgrind counts them, which no other load of the machine disturbs, and a
//! path that takes more than its limit in the table fails the run.
//!
//! `cargo run --release --package larder-instructions` compares with the table, `-- --accept` writes it anew. Needs
//! valgrind. Counts are those of one architecture: each has its table, `x86_64.txt` and so on.
//!
//! What the counts leave out: valgrind hides the kernel's vDSO, so the clock is a system call, of which callgrind counts a
//! few instructions of the way in. It may refuse `membarrier` as well; readers then pay for a fence, which is one more
//! instruction and far more time. Caches and branch predictors have no part in it: the time of a hit is what
//! `benches/rivals` measures.

mod callgrind;
mod meter;
mod paths;
mod table;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use crate::meter::Meter;
use crate::table::Table;

/// What this program says to itself when it runs under callgrind.
const UNDER_CALLGRIND: &str = "--under-callgrind";

const USAGE: &str = "Usage: larder-instructions [--accept | --list]

Without arguments, counts the instructions of every path and fails if one is over its limit.
  --accept  writes the table of limits anew
  --list    runs every path without callgrind, and names it";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        ["--accept"] => accept(),
        ["--list" | UNDER_CALLGRIND] => {
            paths::walk(&mut Meter::new());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(USAGE.into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn check() -> Result<ExitCode, Box<dyn Error>> {
    let counts = callgrind::count(&[UNDER_CALLGRIND])?;
    let verdict = Table::read()?.judge(&counts, &callgrind::toolchain()?);
    println!("{verdict}");
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn accept() -> Result<ExitCode, Box<dyn Error>> {
    let table = Table::accepting(&callgrind::count(&[UNDER_CALLGRIND])?, callgrind::toolchain()?);
    table.write()?;
    print!("{table}");
    Ok(ExitCode::SUCCESS)
}
