//! One run: from the keys to the verdict.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::audit::audit;
use crate::crew;
use crate::history::Judgement;
use crate::job::{Failure, Job, LOCAL_CAPACITY};
use crate::ledger::Ledger;
use crate::options::Options;
use crate::record::GROUP_SIZE;
use crate::report::grouped;
use crate::source::LOAD_US;
use crate::store::Store;
use crate::tally::Tally;
use crate::verdict::Report;
use crate::workload::{BUMP_EVERY, WRITE_EVERY, Workload, zipf};

/// The built-in workload.
const RECORDS: u32 = 50_000;
const REQUESTS: usize = 200_000;

/// Replays the workload, prints the table, and returns whether nothing went wrong.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let workload = workload(options)?;
    let store = Store::choose(options)?;
    println!("workers   {}", store.describe(options.workers, options.threads));
    let name = options.trace.as_ref().map_or("Zipf 0.99".to_owned(), |trace| format!("trace {trace}"));
    println!(
        "workload  {}, {} requests; 1 in {WRITE_EVERY} writes its record, 1 in {BUMP_EVERY} bumps its group of {GROUP_SIZE}",
        name,
        grouped(workload.requests.len() as u64)
    );
    println!(
        "loader    {} to {} ms, asleep; local tiers hold {} records each",
        LOAD_US.0 / 1_000,
        LOAD_US.1 / 1_000,
        grouped(LOCAL_CAPACITY)
    );
    println!();

    let folder = tempfile::Builder::new().prefix("larder-two-tier-").tempdir()?;
    let job = Job {
        worker: 0,
        workers: options.workers,
        threads: options.threads,
        seed: options.seed,
        namespace: format!("two-tier-{:x}", RandomState::new().hash_one(0)),
        folder: folder.path().to_owned(),
        memcached: store.address().to_owned(),
        sabotage: options.sabotage,
    };
    Ledger::create(&job.ledger(), workload.keys.len())?;
    workload.save(&job.keys())?;
    let jobs: Vec<_> = (0..options.workers).map(|worker| Job { worker, ..job.clone() }).collect();

    // Nothing is drawn unless standard error is a terminal.
    let style = ProgressStyle::with_template("{wide_bar} {percent} %  {per_sec}, {eta} left")?;
    let bar = ProgressBar::new(workload.requests.len() as u64).with_style(style);
    let start = Instant::now();
    let ended = crew::run(&jobs, &store, &workload, |done| bar.inc(done as u64));
    let took = start.elapsed();
    bar.finish_and_clear();

    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    for (worker, result) in ended.into_iter().enumerate() {
        match result {
            Ok(counted) => tally += counted,
            Err(error) => failed.push((worker, error)),
        }
    }
    let audit = audit(&job, &store, &workload);
    let judgement = Judgement::of(&tally.history);
    let keys = &workload.keys;
    let report = Report { tally: &tally, judgement: &judgement, keys, failed: &failed, audit: &audit, took };
    print!("{report}");
    Ok(report.faults().is_empty())
}

fn workload(options: &Options) -> Result<Workload, Failure> {
    let all = options.requests.unwrap_or(usize::MAX);
    let Some(trace) = &options.trace else {
        let requests = options.requests.unwrap_or(REQUESTS);
        return Ok(Workload::read(&*zipf(requests, RECORDS, options.seed), all, options.seed)?);
    };
    let workload = match trace.as_str() {
        "-" => Workload::read(io::stdin().lock(), all, options.seed),
        path => File::open(path).and_then(|file| Workload::read(BufReader::new(file), all, options.seed)),
    };
    let workload = workload
        .map_err(|error| format!("--trace {trace} cannot be read ({error}): give a file with one key a line, or -"))?;
    if workload.requests.is_empty() {
        return Err(format!("--trace {trace} has no requests: give a file with one key a line, or -").into());
    }
    Ok(workload)
}
