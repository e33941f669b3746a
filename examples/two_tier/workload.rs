//! What is replayed: which record each request is for, and what it does.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use fastrand::Rng;

use crate::record::group_of;

/// One request in this many writes its record.
pub(crate) const WRITE_EVERY: u32 = 100;
/// One request in this many changes the whole group of its record.
pub(crate) const BUMP_EVERY: u32 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Write,
    BumpGroup,
}

/// Requests in their order. Equal in all workers: it follows from the keys and the seed.
pub(crate) struct Workload {
    /// The key of every record; records are numbered as they first appear.
    pub(crate) keys: Vec<String>,
    pub(crate) requests: Vec<(u32, Verb)>,
}

impl Workload {
    /// Reads keys, one a line, up to `limit` of them.
    pub(crate) fn read(input: impl BufRead, limit: usize, seed: u64) -> io::Result<Workload> {
        let mut workload = Workload { keys: Vec::new(), requests: Vec::new() };
        let (mut numbers, mut rng) = (HashMap::new(), Rng::with_seed(seed));
        for line in input.split(b'\n') {
            let line = line?;
            let key = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            if key.is_empty() {
                continue;
            }
            if workload.requests.len() == limit {
                break;
            }
            let record = *numbers.entry(key).or_insert_with_key(|key| {
                workload.keys.push(key.clone());
                (workload.keys.len() - 1) as u32
            });
            let verb = match (rng.u32(..WRITE_EVERY), rng.u32(..BUMP_EVERY)) {
                (_, 0) => Verb::BumpGroup,
                (0, _) => Verb::Write,
                _ => Verb::Read,
            };
            workload.requests.push((record, verb));
        }
        Ok(workload)
    }

    pub(crate) fn open(path: &Path, limit: usize, seed: u64) -> io::Result<Workload> {
        Workload::read(BufReader::new(File::open(path)?), limit, seed)
    }

    /// Writes the keys for worker processes to read.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create_new(path)?);
        self.requests.iter().try_for_each(|(record, _)| writeln!(file, "{}", self.keys[*record as usize]))?;
        file.flush()
    }

    /// Returns which of `workers` a request is for: reads take turns, and all changes of one group come from one worker, so
    /// that it is well defined which is the last.
    pub(crate) fn worker_for(&self, request: usize, workers: usize) -> usize {
        match self.requests[request] {
            (_, Verb::Read) => request % workers,
            (record, Verb::Write | Verb::BumpGroup) => group_of(record) as usize % workers,
        }
    }
}

/// Returns lines of keys by Zipf's law: the key of rank `n` is drawn with a probability proportional to `n^-0.99`.
pub(crate) fn zipf(requests: usize, ranks: u32, seed: u64) -> Vec<u8> {
    let mut sum = 0.0;
    let mut add = |rank: u32| {
        sum += f64::from(rank).powf(-0.99);
        sum
    };
    let cumulative: Vec<f64> = (1..=ranks).map(&mut add).collect();
    let mut rng = Rng::with_seed(!seed);
    let mut line = || {
        let point = rng.f64() * sum;
        format!("record:{}\n", 1 + cumulative.partition_point(|&up_to| up_to <= point))
    };
    (0..requests).flat_map(|_| line().into_bytes()).collect()
}
