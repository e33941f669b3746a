//! One worker: threads that replay its requests through a tiered cache, and judge every answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use larder::RemoteTier;

use crate::floors::Floors;
use crate::history::BOUND;
use crate::job::{Failure, Job, LOCAL_CAPACITY, Records};
use crate::ledger::Ledger;
use crate::record::GROUP_SIZE;
use crate::sabotage::Sabotage;
use crate::source::Source;
use crate::tally::Tally;
use crate::workload::{Verb, Workload};

/// After so many requests of a worker, progress is told.
const PROGRESS_EVERY: usize = 250;

/// How long a worker tries at its end to send what the remote tier has not acknowledged.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// What whoever changes a group knows of its changes before.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// When this group was last bumped.
    pub(crate) bumped_ns: u64,
}

impl Turn {
    /// Returns whether news of the last bump may still come, as they do to the bumper itself. They remove what is being written
    /// when they come: nothing says that it is newer than the bump.
    pub(crate) fn may_overtake(&self, began_ns: u64) -> bool {
        began_ns < self.bumped_ns + BOUND.as_nanos() as u64
    }
}

pub(crate) struct Worker<'a> {
    pub(crate) job: &'a Job,
    pub(crate) workload: &'a Workload,
    pub(crate) cache: Records,
    pub(crate) source: Source,
    pub(crate) floors: Floors,
    /// By group: taken for a change of it, so that the source and the cache see changes in one order.
    pub(crate) turns: Vec<Mutex<Turn>>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(job: &'a Job, workload: &'a Workload, tier: impl RemoteTier) -> Result<Worker<'a>, Failure> {
        let records = workload.keys.len();
        Ok(Worker {
            job,
            workload,
            cache: job.cache(tier, LOCAL_CAPACITY)?,
            source: Source::new(records, job.sabotage),
            floors: Floors::new(records),
            turns: (0..records.div_ceil(GROUP_SIZE as usize)).map(|_| Mutex::default()).collect(),
        })
    }

    /// Replays this worker's requests, tells how many more are done from time to time, and returns what it counted.
    pub(crate) fn run(&self, progress: impl Fn(usize) + Sync) -> Result<Tally, Failure> {
        let next = AtomicUsize::new(0);
        let results: Vec<_> = thread::scope(|scope| {
            let run = || scope.spawn(|| self.run_thread(&next, &progress));
            let threads: Vec<_> = (0..self.job.threads).map(|_| run()).collect();
            // A panic was printed where it happened.
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
                .collect()
        });
        let mut total = Tally::default();
        for tally in results {
            total += tally?;
        }
        // Entries that were invalidated are counted when they are reclaimed.
        self.cache.local().run_maintenance();
        total.invalidated = self.cache.stats().invalidations;
        total.remote_errors = self.cache.remote_stats().errors;
        let namespace = self.cache.namespace();
        let health = namespace.health();
        (total.exchanges, total.commands) = (health.exchanges, health.commands);
        total.resyncs = health.resyncs.saturating_sub(1);
        // Whatever is still unsent then makes this worker fail, and its error says what it is.
        namespace.shutdown(SHUTDOWN)?;
        Ok(total)
    }

    fn run_thread(&self, next: &AtomicUsize, progress: impl Fn(usize)) -> Result<Tally, Failure> {
        let ledger = Ledger::open(&self.job.ledger())?;
        let (mut tally, mut done) = (Tally::default(), 0);
        while let request = next.fetch_add(1, Ordering::Relaxed)
            && let Some(&(record, verb)) = self.workload.requests.get(request)
        {
            if self.workload.worker_for(request, self.job.workers) != self.job.worker {
                continue;
            }
            if self.job.sabotage == Some(Sabotage::FailedWorker) && self.job.worker == 0 && record > GROUP_SIZE {
                panic!("this worker is told to fail");
            }
            match verb {
                Verb::Read => self.read(record, &ledger, &mut tally)?,
                Verb::Write => self.write(record, &ledger, &mut tally)?,
                Verb::BumpGroup => self.bump_group(record, &ledger, &mut tally)?,
            }
            done += 1;
            if done == PROGRESS_EVERY {
                progress(std::mem::take(&mut done));
            }
        }
        progress(done);
        Ok(tally)
    }
}
