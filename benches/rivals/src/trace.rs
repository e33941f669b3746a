//! Recorded accesses, one key a line.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{random::Random, zipf::Zipf};

/// A sequence of accesses. Keys are numbered in the order in which they first appear.
#[derive(Debug, PartialEq)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) accesses: Vec<u32>,
    pub(crate) distinct: usize,
}

impl Trace {
    /// Reads at most `lines` lines of a plain file, of one that ends in `.xz`, or of the standard input where `path`
    /// is `-`.
    pub(crate) fn read(path: &Path, lines: usize) -> Result<Self, TraceError> {
        let fail = |cause| TraceError { path: path.display().to_string(), cause };
        if path == Path::new("-") {
            return Self::parse("stdin", io::stdin().lock(), lines).map_err(fail);
        }
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        if path.extension().is_some_and(|extension| extension == "xz") {
            return Self::read_xz(&name, path, lines).map_err(fail);
        }
        let file = File::open(path).map_err(fail)?;
        Self::parse(&name, BufReader::new(file), lines).map_err(fail)
    }

    fn read_xz(name: &str, path: &Path, lines: usize) -> io::Result<Self> {
        // Opened here as well, because the decompressor's message about a missing file would go elsewhere.
        let file = File::open(path)?;
        let mut xz = spawn_xz(file)?;
        let output = xz.stdout.take().expect("the output of xz is piped");
        let trace = Self::parse(name.trim_end_matches(".xz"), BufReader::new(output), lines);
        // Of a trace that was read in part, xz could not write the rest; only a complete one must end well.
        let complete = trace.as_ref().is_ok_and(|trace| trace.accesses.len() < lines);
        if xz.wait()?.success() || !complete { trace } else { Err(io::Error::other("xz could not decompress it")) }
    }

    fn parse(name: &str, input: impl BufRead, lines: usize) -> io::Result<Self> {
        let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut accesses = Vec::new();
        // Bytes, since keys of the world are not always UTF-8.
        for line in input.split(b'\n').take(lines) {
            let mut key = line?;
            if key.last() == Some(&b'\r') {
                key.pop();
            }
            let next = u32::try_from(numbers.len()).map_err(|_| io::Error::other("more than 2^32 distinct keys"))?;
            accesses.push(*numbers.entry(key).or_insert(next));
        }
        if accesses.is_empty() {
            return Err(io::Error::other("it holds no access"));
        }
        Ok(Self { name: name.trim_end_matches(".txt").to_owned(), accesses, distinct: numbers.len() })
    }

    /// Zipf's law, interrupted by scans over keys that never return: what a run does without any trace at hand.
    pub(crate) fn synthetic(accesses: usize, seed: u64) -> Self {
        const RANKS: usize = 20_000;
        const SCAN_EVERY: usize = 10_000;
        const SCAN: usize = 1_000;
        let zipf = Zipf::new(RANKS, 0.9);
        let mut random = Random::new(seed);
        let mut numbers = HashMap::new();
        let accesses: Vec<u32> = (0..accesses)
            .map(|time| {
                let scanning = time % SCAN_EVERY >= SCAN_EVERY - SCAN;
                let key = if scanning { RANKS + time } else { zipf.rank(&mut random) };
                let next = numbers.len() as u32;
                *numbers.entry(key).or_insert(next)
            })
            .collect();
        Self { name: "synthetic: zipf 0.9 with scans".to_owned(), accesses, distinct: numbers.len() }
    }
}

fn spawn_xz(input: File) -> io::Result<Child> {
    let xz = Command::new("xz").arg("-dc").stdin(input).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    xz.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other("there is no `xz` to decompress it with: install xz-utils, or decompress it beforehand")
        }
        _ => error,
    })
}

/// A trace that cannot be read.
#[derive(Debug)]
pub(crate) struct TraceError {
    path: String,
    cause: io::Error,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read the trace {}: {}", self.path, self.cause)
    }
}

impl std::error::Error for TraceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_as_they_appear() {
        let trace = Trace::parse("t.txt", &b"7\n/a b\r\n7\n\xFF\n/a b\n"[..], usize::MAX).unwrap();
        assert_eq!(trace, Trace { name: "t".to_owned(), accesses: vec![0, 1, 0, 2, 1], distinct: 3 });
    }

    #[test]
    fn stops_at_the_limit() {
        assert_eq!(Trace::parse("t", &b"1\n2\n3\n"[..], 2).unwrap().accesses, [0, 1]);
    }

    #[test]
    fn an_empty_trace_is_an_error() {
        assert!(Trace::parse("t", &b""[..], 2).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Trace::read(Path::new("no/such/trace.xz"), 1).unwrap_err();
        assert!(error.to_string().contains("no/such/trace.xz"), "{error}");
    }

    #[test]
    fn the_synthetic_trace_is_reproducible() {
        let trace = Trace::synthetic(20_000, 1);
        assert_eq!(trace, Trace::synthetic(20_000, 1));
        assert_eq!(trace.accesses.iter().max(), Some(&(trace.distinct as u32 - 1)));
    }
}
