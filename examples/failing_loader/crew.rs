//! The callers of one cache, and what they note.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use larder::LoadErrorKind;

use crate::caches::{HARD_TIMEOUT, SOFT_TIMEOUT, Subject};
use crate::source::{Plan, dies_soon, keys};

const THREADS: usize = 8;

/// How long a caller rests between two calls, at most.
const REST_US: u64 = 4_000;

/// How much longer than its timeout a call may take on a machine that is never late. Many times what it takes, and a fraction of
/// how long a load hangs.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(1);

/// How long every key may take to have a new value once the source is well: the last load that hangs has its time, and so has a
/// slow machine.
const RECOVERY: Duration = Duration::from_secs(15);

/// What the callers of a cache noted.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) answers: u64,
    pub(crate) errors: HashMap<LoadErrorKind, u64>,
    /// By load, how many callers got its error.
    pub(crate) sharers: HashMap<u64, u64>,
    /// Calls that took longer than their timeout and the tolerance.
    pub(crate) slow: Vec<Slow>,
    /// The longest time past a timeout.
    pub(crate) longest_past: Duration,
    /// Errors in the place of a stale value.
    pub(crate) unserved: Vec<String>,
    /// Values of another key.
    pub(crate) foreign: Vec<String>,
    /// How long it took until every key had a new value, or the key that had none.
    pub(crate) recovery: Option<Result<Duration, String>>,
}

pub(crate) struct Slow {
    pub(crate) key: String,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) timeout: Duration,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.answers += other.answers;
        other.errors.into_iter().for_each(|(kind, count)| *self.errors.entry(kind).or_default() += count);
        other.sharers.into_iter().for_each(|(load, count)| *self.sharers.entry(load).or_default() += count);
        self.slow.extend(other.slow);
        self.longest_past = self.longest_past.max(other.longest_past);
        self.unserved.extend(other.unserved);
        self.foreign.extend(other.foreign);
    }

    /// Calls once, and notes what came of it.
    fn call(&mut self, subject: &Subject, key: &str) -> Option<u64> {
        let start = Instant::now();
        let answer = subject.call(key);
        let end = Instant::now();
        let timeout = if dies_soon(key) { HARD_TIMEOUT } else { SOFT_TIMEOUT };
        let past = (end - start).saturating_sub(timeout);
        self.calls += 1;
        self.longest_past = self.longest_past.max(past);
        if past > TOLERANCE {
            self.slow.push(Slow { key: key.to_owned(), start, end, timeout });
        }
        match answer {
            Ok(value) => {
                self.answers += 1;
                let (loaded, number) = value.split_once(' ')?;
                if loaded != key {
                    self.foreign.push(format!("{value:?} for {key}"));
                }
                number.parse().ok()
            }
            Err(error) => {
                *self.errors.entry(error.kind()).or_default() += 1;
                if let Some(refused) = error.loader() {
                    *self.sharers.entry(refused.load).or_default() += 1;
                }
                if !dies_soon(key) {
                    self.unserved.push(format!("{key}: {error:?}"));
                }
                None
            }
        }
    }
}

/// Loads every key while the source is well, so that there is something that can be stale.
pub(crate) fn prime(subject: &Subject) {
    let mut tally = Tally::default();
    keys().for_each(|key| while tally.call(subject, &key).is_none() {});
}

/// Calls a cache from several threads until the plan is over, and then until it has recovered.
pub(crate) fn run(subject: &Subject, plan: &Plan) -> Tally {
    let (mut tally, keys) = (Tally::default(), keys().collect::<Vec<_>>());
    thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| call_on(subject, plan, &keys))).collect();
        for caller in callers {
            tally.add(caller.join().expect("loaders panic elsewhere"));
        }
    });
    tally.recovery = Some(recover(subject, &keys));
    tally
}

fn call_on(subject: &Subject, plan: &Plan, keys: &[String]) -> Tally {
    let mut tally = Tally::default();
    while !plan.is_over() {
        tally.call(subject, &keys[fastrand::usize(..keys.len())]);
        thread::sleep(Duration::from_micros(fastrand::u64(..REST_US)));
    }
    tally
}

/// Calls until every key has a value that was loaded from now on.
fn recover(subject: &Subject, keys: &[String]) -> Result<Duration, String> {
    let (first_new, start) = (subject.source.next_load(), Instant::now());
    let mut tally = Tally::default();
    for key in keys {
        while tally.call(subject, key).is_none_or(|load| load < first_new) {
            if start.elapsed() > RECOVERY {
                return Err(format!("{key} has no new value {RECOVERY:?} after the end"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(start.elapsed())
}
