//! Threads that start together and are timed together.
//!
//! A round lasts from the first thread's start to the last thread's finish, and a figure of "ns/op" is that time divided
//! by the operations of *all* threads. So two threads that do not disturb each other halve it, and a thread that others
//! starve shows in it.

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// What a worker does in a round: prepares itself, waits at the line, does its laps inside [`Leg::timed`].
pub(crate) type Job = Arc<dyn Fn(usize, &StartLine) -> Leg + Send + Sync>;

/// One worker's share of a round.
pub(crate) struct Leg {
    start: Instant,
    finish: Instant,
    hits: usize,
}

impl Leg {
    /// Times `laps`, which returns its number of hits.
    pub(crate) fn timed(laps: impl FnOnce() -> usize) -> Self {
        let start = Instant::now();
        let hits = laps();
        let finish = Instant::now();
        Self { start, finish, hits }
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits
    }
}

/// All workers' share of a round.
pub(crate) struct Race {
    pub(crate) duration: Duration,
    pub(crate) hits: usize,
}

/// A fixed number of threads that live through many rounds, as those of a server do: what a cache keeps per thread is
/// set up before anything is timed.
pub(crate) struct Crew {
    workers: Vec<Worker>,
}

struct Worker {
    // Dropping it ends the thread.
    jobs: SyncSender<Job>,
    legs: Receiver<Leg>,
}

impl Crew {
    pub(crate) fn new(size: usize) -> Self {
        let line = Arc::new(StartLine::new(size));
        Self { workers: (0..size).map(|index| Worker::spawn(index, Arc::clone(&line))).collect() }
    }

    pub(crate) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Has every worker do `job` once.
    ///
    /// # Panics
    /// If a worker does.
    pub(crate) fn race(&self, job: &Job) -> Race {
        for worker in &self.workers {
            worker.jobs.send(Arc::clone(job)).expect("a worker has panicked");
        }
        let legs: Vec<Leg> =
            self.workers.iter().map(|worker| worker.legs.recv().expect("a worker has panicked")).collect();
        let start = legs.iter().map(|leg| leg.start).min().expect("a crew is never empty");
        let finish = legs.iter().map(|leg| leg.finish).max().expect("a crew is never empty");
        Race { duration: finish - start, hits: legs.iter().map(|leg| leg.hits).sum() }
    }
}

impl Worker {
    fn spawn(index: usize, line: Arc<StartLine>) -> Self {
        let (jobs, inbox) = sync_channel::<Job>(1);
        let (outbox, legs) = sync_channel(1);
        thread::spawn(move || {
            for job in inbox {
                if outbox.send(job(index, &line)).is_err() {
                    break;
                }
            }
        });
        Self { jobs, legs }
    }
}

/// A barrier whose waiters spin. Waking threads that sleep takes tens of microseconds, one after the other: the first
/// would be well ahead of the last.
pub(crate) struct StartLine {
    size: usize,
    arrivals: AtomicUsize,
}

impl StartLine {
    fn new(size: usize) -> Self {
        Self { size, arrivals: AtomicUsize::new(0) }
    }

    /// Returns once every worker of the crew has come here as often as the caller has.
    pub(crate) fn wait(&self) {
        const SPINS: u32 = 128;
        // AcqRel, and Acquire below: what each worker prepared happens before any worker's start.
        let arrival = self.arrivals.fetch_add(1, Ordering::AcqRel);
        let complete = (arrival / self.size + 1) * self.size;
        let mut spins = 0;
        while self.arrivals.load(Ordering::Acquire) < complete {
            spins += 1;
            // With more workers than cores, those who are awaited need this core.
            if spins % SPINS == 0 { thread::yield_now() } else { hint::spin_loop() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_starts_before_everybody_is_ready() {
        const WORKERS: usize = 4;
        let crew = Crew::new(WORKERS);
        let ready = Arc::new(AtomicUsize::new(0));
        for round in 1..=50 {
            let ready = Arc::clone(&ready);
            let job: Job = Arc::new(move |_, line| {
                ready.fetch_add(1, Ordering::Relaxed);
                line.wait();
                Leg::timed(|| {
                    assert!(ready.load(Ordering::Relaxed) >= round * WORKERS);
                    1
                })
            });
            assert_eq!(crew.race(&job).hits, WORKERS);
        }
    }
}
