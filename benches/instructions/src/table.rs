//! The table of limits: what every path may take.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::callgrind::Count;

/// By how much a path may take more instructions than were accepted, in per cent: about what the compiler does by itself
/// to code that did not change, when it inlines otherwise.
const SLACK_PERCENT: u64 = 3;

/// How many instructions more are no failure in any case, since a few registers saved cost a short path more than that.
const SLACK: u64 = 4;

/// What the line of the table begins with that names the toolchain.
const TOOLCHAIN: &str = "# with ";

/// How to make a limit of what was counted.
const HOW_TO_ACCEPT: &str = "INSTRUCTIONS_ACCEPT=yes tests/run instructions";

/// What one path took when it was accepted, and what it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    path: String,
    instructions: u64,
    limit: u64,
}

/// The paths, in the order in which they run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// What compiled and counted them.
    toolchain: String,
    rows: Vec<Row>,
}

impl Table {
    /// Reads the table of this architecture.
    pub(crate) fn read() -> Result<Table, Box<dyn Error>> {
        let file = file();
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("no limits in {}: {error}; {HOW_TO_ACCEPT} makes them", file.display()))?;
        Ok(Table::parse(&text)?)
    }

    /// Returns a table in which these counts are what is right.
    pub(crate) fn accepting(counts: &[Count], toolchain: String) -> Table {
        let accept = |&Count { ref path, instructions }: &Count| {
            let limit = instructions + slack(instructions);
            Row { path: path.clone(), instructions, limit }
        };
        Table { toolchain, rows: counts.iter().map(accept).collect() }
    }

    pub(crate) fn write(&self) -> Result<(), Box<dyn Error>> {
        Ok(fs::write(file(), self.to_string())?)
    }

    /// Compares what this toolchain's code was counted at with what is accepted.
    pub(crate) fn judge(&self, counts: &[Count], toolchain: &str) -> Verdict {
        let mut verdict = Verdict::default();
        for &Count { ref path, instructions } in counts {
            let Some(row) = self.rows.iter().find(|row| row.path == *path) else {
                verdict.failures.push(format!("{path}: {instructions} instructions, and no limit"));
                continue;
            };
            let accepted = row.instructions;
            if instructions > row.limit {
                verdict.failures.push(format!(
                    "{path}: {instructions} instructions, {} more than the {accepted} accepted ({:+.1} %); the limit is {}",
                    instructions - accepted,
                    (instructions as f64 / accepted as f64 - 1.0) * 100.0,
                    row.limit
                ));
            } else if instructions + slack(accepted) < accepted {
                let fewer = accepted - instructions;
                verdict.faster.push(format!("{path}: {instructions} instructions, {fewer} fewer than accepted"));
            }
            verdict.compared.push((row.clone(), instructions));
        }
        for row in self.rows.iter().filter(|row| counts.iter().all(|count| count.path != row.path)) {
            verdict.failures.push(format!("{}: has a limit, and was not counted", row.path));
        }
        if self.toolchain != toolchain && !verdict.is_good() {
            verdict.failures.push(format!("the limits were made with {}, this is {toolchain}", self.toolchain));
        }
        verdict
    }

    fn parse(text: &str) -> Result<Table, String> {
        let toolchain = text.lines().find_map(|line| line.strip_prefix(TOOLCHAIN)).unwrap_or_default().to_owned();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let row = |line| Row::parse(line).ok_or_else(|| format!("not a row of the table: {line}"));
        Ok(Table { toolchain, rows: lines.map(row).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Instructions that one operation takes, and the limit that a run holds it to. Written by")?;
        writeln!(f, "# {HOW_TO_ACCEPT}")?;
        writeln!(f, "{TOOLCHAIN}{}", self.toolchain)?;
        writeln!(f, "{:<52}{:>14}{:>8}", "# path", "instructions", "limit")?;
        for Row { path, instructions, limit } in &self.rows {
            writeln!(f, "{path:<52}{instructions:>14}{limit:>8}")?;
        }
        Ok(())
    }
}

impl Row {
    /// Numbers come last: the name of a path may have spaces.
    fn parse(line: &str) -> Option<Row> {
        let (line, limit) = line.trim_end().rsplit_once(' ')?;
        let (path, instructions) = line.trim_end().rsplit_once(' ')?;
        let path = path.trim_end().to_owned();
        Some(Row { path, instructions: instructions.parse().ok()?, limit: limit.parse().ok()? })
    }
}

/// How the counts compare with the table.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    compared: Vec<(Row, u64)>,
    failures: Vec<String>,
    faster: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<52}{:>14}{:>10}{:>8}", "instructions of one operation", "now", "accepted", "limit")?;
        for (Row { path, instructions, limit }, now) in &self.compared {
            writeln!(f, "{path:<52}{now:>14}{instructions:>10}{limit:>8}")?;
        }
        for path in &self.faster {
            writeln!(f, "faster: {path}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        match (self.failures.is_empty(), self.faster.is_empty()) {
            (true, true) => write!(f, "all {} paths are within their limits", self.compared.len()),
            (true, false) => write!(f, "lower limits would hold what was won: {HOW_TO_ACCEPT}"),
            (false, _) => write!(f, "if that is as it should be: {HOW_TO_ACCEPT}, and commit {}", file().display()),
        }
    }
}

/// Returns how many instructions more or fewer mean nothing.
fn slack(accepted: u64) -> u64 {
    SLACK.max((accepted * SLACK_PERCENT).div_ceil(100))
}

/// Limits hold for the code of one architecture.
fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{}.txt", env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, instructions: u64) -> Count {
        Count { path: path.to_owned(), instructions }
    }

    fn accepted(counts: &[Count]) -> Table {
        Table::accepting(counts, "rustc 1".to_owned())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let table = accepted(&[count("hit, get", 20), count("insert that evicts, one group", 1_000)]);
        let limits: Vec<u64> = table.rows.iter().map(|row| row.limit).collect();
        assert_eq!(limits, [24, 1_030]);
        assert_eq!(Table::parse(&table.to_string()), Ok(table));
    }

    #[test]
    fn a_line_that_is_no_row_is_an_error() {
        assert!(Table::parse("hit, get   100\n").is_err());
    }

    #[test]
    fn a_path_over_its_limit_fails_by_name() {
        let table = accepted(&[count("hit", 200), count("miss", 200)]);
        assert!(table.judge(&[count("hit", 206), count("miss", 194)], "rustc 1").is_good());
        let verdict = table.judge(&[count("hit", 207), count("miss", 200)], "rustc 1");
        assert!(!verdict.is_good());
        assert_eq!(
            verdict.failures,
            ["hit: 207 instructions, 7 more than the 200 accepted (+3.5 %); the limit is 206"]
        );
    }

    #[test]
    fn a_failure_says_that_the_compiler_is_another() {
        let verdict = accepted(&[count("hit", 200)]).judge(&[count("hit", 207)], "rustc 2");
        assert_eq!(verdict.failures.last().unwrap(), "the limits were made with rustc 1, this is rustc 2");
        assert!(accepted(&[count("hit", 200)]).judge(&[count("hit", 200)], "rustc 2").is_good());
    }

    #[test]
    fn a_path_without_a_limit_and_a_limit_without_a_path_fail() {
        let table = accepted(&[count("hit", 100)]);
        assert_eq!(table.judge(&[count("hit", 100), count("miss", 9)], "rustc 1").failures.len(), 1);
        assert_eq!(table.judge(&[], "rustc 1").failures.len(), 1);
    }

    #[test]
    fn a_path_that_became_faster_is_told_of() {
        let verdict = accepted(&[count("hit", 100)]).judge(&[count("hit", 90)], "rustc 1");
        assert!(verdict.is_good());
        assert_eq!(verdict.faster, ["hit: 90 instructions, 10 fewer than accepted"]);
    }
}
