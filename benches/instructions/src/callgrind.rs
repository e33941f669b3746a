//! Runs this program under callgrind, and reads what that has counted.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::meter::{CONCLUDED, COUNTED, OPERATIONS};

/// The instructions of one operation of a path, on average and rounded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) path: String,
    pub(crate) instructions: u64,
}

/// Returns a count for each path that this program names when it is run with these arguments.
///
/// # Errors
/// Where valgrind is missing, the program fails under it, or a path was not counted.
pub(crate) fn count(arguments: &[&str]) -> Result<Vec<Count>, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let dumps = directory.path().join("dump");
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-before={CONCLUDED}"))
        .arg(format!("--callgrind-out-file={}", dumps.display()))
        .arg(env::current_exe()?)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("valgrind cannot be run: {error}; on Debian, apt-get install valgrind"))?;
    if !output.status.success() {
        return Err(format!("the paths failed under callgrind: {}", output.status).into());
    }
    let named = String::from_utf8(output.stdout)?;
    // Dumps are numbered from one, in the order of their paths.
    named.lines().zip(1..).map(|(path, number)| read(path, &dumps.with_extension(number.to_string()))).collect()
}

/// Returns what has compiled this program, if that is the compiler that is called by its name, and what counts.
pub(crate) fn toolchain() -> Result<String, Box<dyn Error>> {
    let version = |program: &str| -> Result<String, Box<dyn Error>> {
        let output = Command::new(program).arg("--version").output();
        let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    Ok(format!("{}, {}", version("rustc")?, version("valgrind")?))
}

fn read(path: &str, dump: &Path) -> Result<Count, Box<dyn Error>> {
    let text = fs::read_to_string(dump).map_err(|error| format!("no count of '{path}': {error}"))?;
    let total = total(&text).ok_or_else(|| format!("no total in the count of '{path}'"))?;
    if total < OPERATIONS {
        return Err(format!("only {total} instructions for {OPERATIONS} times '{path}': it was not counted").into());
    }
    Ok(Count { path: path.to_owned(), instructions: (total + OPERATIONS / 2) / OPERATIONS })
}

/// Returns the sum of all that a dump counts.
fn total(dump: &str) -> Option<u64> {
    dump.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_dump_is_read() {
        let dump = "# callgrind format\nversion: 1\npart: 2\nevents: Ir\n\nfn=(1) larder\n0 700\n\ntotals: 61000\n";
        assert_eq!(total(dump), Some(61_000));
        assert_eq!(total("events: Ir\n"), None);
    }
}
