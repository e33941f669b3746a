//! Bumps under load: two processes bump groups, two others read them all the time.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Pid;
use shared::clock::now_ns;
use shared::notes::{ReaderNotes, Stall};
use shared::order::{Order, Report, Settings};
use shared::stalls::{self, merge};
use shared::truth::BUMPERS;

use crate::crew::{Task, Worker};
use crate::history::History;
use crate::scene::{POLL_INTERVAL, Scene, TIMEOUT, TRUST};
use crate::signals::process_of;
use crate::support::eventually;
use crate::verdict::{Bound, Verdict};

/// Beyond the poll interval: two round trips, and the threads that have to be woken for them.
const SLACK: Duration = Duration::from_millis(50);

/// How many bumps the quiet run makes, unless `LARDER_PROCS_BUMPS` says otherwise.
const BUMPS: usize = 10_000;

/// Between two bumps of a process in the quiet run.
const PAUSE: Duration = Duration::from_micros(500);

const READERS: usize = 2;

pub(crate) fn bumps() -> usize {
    match env::var("LARDER_PROCS_BUMPS") {
        Ok(bumps) => bumps.parse().expect("LARDER_PROCS_BUMPS is a number"),
        Err(_) => BUMPS,
    }
}

/// Returns how bumpers and readers are set up: with the defaults of larder.
pub(crate) fn settings(scene: &Scene) -> Settings {
    Settings { timeout: TIMEOUT, ..scene.settings() }
}

/// Bumpers and readers at work.
pub(crate) struct Run<'a> {
    pub(crate) scene: &'a mut Scene,
    readers: Vec<(Worker, Task)>,
    bumpers: Vec<(Worker, Task)>,
    bumps: usize,
    faults: Vec<(u64, String)>,
    memcached: Watch,
}

impl<'a> Run<'a> {
    /// Starts so many bumps in all, with so long a pause after each one of a bumper. The settings are those of the first reader
    /// and of the first bumper, who may sit behind a proxy; the others have the usual ones.
    pub(crate) fn start(
        scene: &'a mut Scene,
        (bumps, pause): (usize, Duration),
        reader: &Settings,
        bumper: &Settings,
    ) -> Self {
        let others = &settings(scene);
        let crew = |first, all| (0..all).map(move |at| if at == 0 { first } else { others }).map(Worker::start);
        // All of them first, so that nobody is still being started while bumps are made.
        let readers: Vec<_> = crew(reader, READERS).collect();
        let bumpers: Vec<_> = crew(bumper, BUMPERS).collect();
        let read = |reader: Worker| {
            let task = reader.begin(Order::Read);
            task.began();
            (reader, task)
        };
        let readers = readers.into_iter().map(read).collect();
        let bump = |(at, bumper): (usize, Worker)| {
            let task = bumper.begin(Order::Bump { bumper: at, bumps: bumps / BUMPERS, pause });
            (bumper, task)
        };
        let bumpers = bumpers.into_iter().enumerate().map(bump).collect();
        let memcached = Watch::over(process_of(&scene.server));
        Run { scene, readers, bumpers, bumps, faults: Vec::new(), memcached }
    }

    /// Waits until this part of all bumps has been begun.
    pub(crate) fn wait_for(&self, part: f64) {
        eventually("bumps to be made", || self.has_made(part).then_some(()));
    }

    /// Returns whether this part of all bumps has been begun.
    pub(crate) fn has_made(&self, part: f64) -> bool {
        self.scene.truth.changes().expect("the truth can be read") >= (self.bumps as f64 * part) as u64
    }

    /// Writes down what the test does now.
    pub(crate) fn note(&mut self, what: &str) {
        self.faults.push((now_ns(), what.to_owned()));
    }

    /// Waits until all bumps are acknowledged, and the readers had the time to learn of them; returns what happened.
    pub(crate) fn finish(self) -> History {
        let bumps = self.bumpers.iter().map(|(_, task)| match task.report() {
            Report::Bumped(notes) => notes,
            other => panic!("a bumper reports {other:?}"),
        });
        let bumps = bumps.collect();
        // Twice: whoever still reads what is old past the bound has to be seen.
        thread::sleep(2 * TRUST);
        let readers = self.readers.iter().map(|(reader, task)| {
            reader.obey(Order::Stop);
            match task.report() {
                Report::Seen(notes) => notes,
                other => panic!("a reader reports {other:?}"),
            }
        });
        let mut readers: Vec<ReaderNotes> = readers.collect();
        let of_memcached = self.memcached.end();
        for reader in &mut readers {
            reader.stalls = merge([&*reader.stalls, &of_memcached].concat());
        }
        History { bumps, readers, faults: self.faults }
    }
}

/// Notes when memcached gets no processor.
struct Watch {
    stopped: Arc<AtomicBool>,
    watching: Option<JoinHandle<Vec<Stall>>>,
}

impl Watch {
    fn over(memcached: Pid) -> Watch {
        let stopped = Arc::<AtomicBool>::default();
        let of_thread = Arc::clone(&stopped);
        let process = memcached.as_raw_pid().unsigned_abs();
        let watching = Some(thread::spawn(move || stalls::watch(process, |_| true, &of_thread)));
        Watch { stopped, watching }
    }

    fn end(mut self) -> Vec<Stall> {
        self.stopped.store(true, Ordering::SeqCst);
        self.watching.take().and_then(|watching| watching.join().ok()).expect("a watch that does not panic")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

/// Fails unless every bump was acknowledged in the end and no read broke the bound; prints how it went.
pub(crate) fn expect_in_time(what: &str, history: &History, bound: Bound) {
    let verdict = Verdict::of(history, bound);
    println!("{what}: {verdict}");
    assert_eq!(verdict.violations, 0, "{what}: {verdict}");
    let lost = history.bumps.iter().flatten().filter(|bump| bump.acknowledged_ns.is_none()).count();
    assert_eq!(lost, 0, "{what}: bumps were never acknowledged");
    for (reader, notes) in history.readers.iter().enumerate() {
        assert!(notes.errors.is_empty(), "{what}: loads of reader {reader} failed: {:?}", notes.errors);
    }
}

#[test]
fn every_reader_stops_within_the_poll_interval_of_an_acknowledgement() {
    let mut scene = Scene::alone();
    let settings = settings(&scene);
    let history = Run::start(&mut scene, (bumps(), PAUSE), &settings, &settings).finish();
    expect_in_time("quiet", &history, Bound::WhenAwake(POLL_INTERVAL + SLACK));
    expect_in_time("quiet, by trust", &history, Bound::Always(TRUST));
}
