//! Runs all workers, as processes or as threads, and gathers what they counted.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;

use larder::Memcached;

use crate::job::{Failure, Job};
use crate::store::Store;
use crate::tally::Tally;
use crate::worker::Worker;
use crate::workload::Workload;

/// Runs every job to its end, and returns for each what its worker counted, or why it failed.
pub(crate) fn run(
    jobs: &[Job],
    store: &Store,
    workload: &Workload,
    progress: impl Fn(usize) + Sync,
) -> Vec<Result<Tally, Failure>> {
    let progress = &progress;
    thread::scope(|scope| {
        let start = |job| {
            scope.spawn(move || match store {
                Store::Memcached { .. } => run_process(job, progress),
                Store::InMemory { store, .. } => Worker::new(job, workload, store.clone())?.run(progress),
            })
        };
        let running: Vec<_> = jobs.iter().map(start).collect();
        running.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("it panicked".into()))).collect()
    })
}

/// Runs this executable again, as a worker, and reads what it prints: numbers of requests done, and its tally at the end.
fn run_process(job: &Job, progress: impl Fn(usize)) -> Result<Tally, Failure> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--job").arg(serde_json::to_string(job)?);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("its standard output is not connected")?;
    let mut tally = None;
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.parse() {
            Ok(done) => progress(done),
            Err(_) => tally = Some(serde_json::from_str(&line)?),
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("its process ended with {status}").into());
    }
    tally.ok_or_else(|| "its process ended without a result".into())
}

/// What a worker process does.
pub(crate) fn work(job: &str) -> Result<(), Failure> {
    let job: Job = serde_json::from_str(job)?;
    let workload = Workload::open(&job.keys(), usize::MAX, job.seed)?;
    let worker = Worker::new(&job, &workload, Memcached::connect(&job.memcached)?)?;
    // If nobody listens any more, printing panics, and so this process ends.
    let tally = worker.run(|done| println!("{done}"))?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&tally)?)?;
    Ok(())
}
