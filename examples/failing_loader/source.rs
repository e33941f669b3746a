//! What values are loaded from: it hangs, fails and panics by plan, and sees whether two loads of one key overlap.

use std::collections::HashMap;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use larder::Load;

use crate::caches::LOAD_THREADS;
use crate::options::{Options, Sabotage};
use crate::pulse::Pulse;

/// How long a load takes that goes well, and one that fails or panics.
const WORK: Duration = Duration::from_millis(5);

/// How long a load hangs that nothing ends: many times any timeout.
const HANG: Duration = Duration::from_secs(4);

/// The same where the callers are to be kept by it: more than what the slowest machine excuses.
const LONG_HANG: Duration = Duration::from_secs(20);

/// How many loads at once hold their threads to the end of that, whoever has given them up; the others ask, and end. Half of
/// the threads: if all hang, no loader can run, and that is no fault of the cache's.
const MOST_STUBBORN: usize = LOAD_THREADS / 2;

/// Keys whose values become stale, and are never dead; and keys whose values are dead soon.
pub(crate) const KEYS_OF_A_KIND: usize = 8;

/// How long the value of a key lives that is to be missing often.
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// What is wrong with the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Hangs,
    FailsHalfTheTime,
    Panics,
}

/// When what is wrong. Clones are the same plan.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Nothing is, before it begins.
    start: Arc<OnceLock<Instant>>,
    length: Duration,
    lasting: bool,
}

impl Plan {
    pub(crate) fn new(options: &Options) -> Plan {
        let lasting = options.sabotage == Some(Sabotage::LastingFault);
        Plan { start: Arc::default(), length: options.length, lasting }
    }

    pub(crate) fn begin(&self) {
        self.start.get_or_init(Instant::now);
    }

    /// Returns what is wrong now.
    fn fault(&self) -> Fault {
        let elapsed = self.start.get().map_or(Duration::ZERO, Instant::elapsed);
        match elapsed.div_duration_f64(self.length) {
            ..0.05 => Fault::None,
            ..0.30 => Fault::Hangs,
            ..0.55 => Fault::FailsHalfTheTime,
            ..0.80 => Fault::Panics,
            _ if self.lasting => Fault::Panics,
            _ => Fault::None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.start.get().is_some_and(|start| start.elapsed() > self.length)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quarter = self.length / 4;
        write!(f, "the loader hangs for {quarter:.1?}, fails half the time for {quarter:.1?}, panics for {quarter:.1?}")
    }
}

/// What a load fails with.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The number of the load.
    pub(crate) load: u64,
}

/// A source of values. A value says its key and the number of its load.
pub(crate) struct Source {
    plan: Plan,
    pulse: Arc<Pulse>,
    sabotage: Option<Sabotage>,
    loads: AtomicU64,
    /// How many loads hang.
    hanging: AtomicUsize,
    /// By key, the loads under way.
    running: Mutex<HashMap<String, Vec<Running>>>,
    pub(crate) counts: Mutex<Counts>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hung: u64,
    pub(crate) refused: u64,
    pub(crate) panicked: u64,
    /// Loads that began beside one of their key that had not been given up.
    pub(crate) overlaps: u64,
}

struct Running {
    number: u64,
    load: Arc<Load<String>>,
}

/// A load under way, for the source; it ends when this is dropped, by whatever.
struct Run<'a> {
    source: &'a Source,
    key: &'a str,
    number: u64,
    load: Arc<Load<String>>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut running = self.source.running.lock().unwrap();
        if let Some(runs) = running.get_mut(self.key) {
            runs.retain(|run| run.number != self.number);
        }
    }
}

/// What becomes of a load.
enum Fate {
    Value,
    Hang,
    Refusal,
    Panic,
}

impl Source {
    pub(crate) fn new(plan: &Plan, options: &Options, pulse: &Arc<Pulse>) -> Arc<Source> {
        Arc::new(Source {
            plan: plan.clone(),
            pulse: pulse.clone(),
            sabotage: options.sabotage,
            loads: AtomicU64::new(0),
            hanging: AtomicUsize::new(0),
            running: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    /// Loads a value, by blocking the thread.
    pub(crate) fn load(&self, key: &str, load: Load<String>) -> Result<String, Refused> {
        let (run, fate) = self.begin(key, load);
        if let Fate::Hang = fate {
            // Taken before it is looked at: two that ask at once are not both the last.
            let is_stubborn = self.hanging.fetch_add(1, Ordering::Relaxed) < MOST_STUBBORN;
            let until = Instant::now() + self.hang();
            while Instant::now() < until && (is_stubborn || !run.load.is_cancelled()) {
                thread::sleep(WORK);
            }
            self.hanging.fetch_sub(1, Ordering::Relaxed);
        } else {
            thread::sleep(WORK);
        }
        run.end(&fate)
    }

    /// Loads a value, as a future.
    pub(crate) async fn load_async(&self, key: &str, load: Load<String>) -> Result<String, Refused> {
        let (run, fate) = self.begin(key, load);
        let takes = if matches!(fate, Fate::Hang) { self.hang() } else { WORK };
        self.pulse.sleep(takes).await;
        run.end(&fate)
    }

    fn hang(&self) -> Duration {
        if self.sabotage == Some(Sabotage::NoTimeouts) { LONG_HANG } else { HANG }
    }

    /// Returns the number of the next load.
    pub(crate) fn next_load(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    fn begin<'a>(&'a self, key: &'a str, load: Load<String>) -> (Run<'a>, Fate) {
        if dies_soon(key) {
            load.hard_ttl(SHORT_LIFE);
        }
        let (number, load) = (self.loads.fetch_add(1, Ordering::Relaxed), Arc::new(load));
        let mut running = self.running.lock().unwrap();
        let beside = running.entry(key.to_owned()).or_default();
        let overlaps = beside.iter().any(|run| !run.load.is_cancelled());
        beside.push(Running { number, load: load.clone() });
        drop(running);

        let mut counts = self.counts.lock().unwrap();
        counts.overlaps += u64::from(overlaps);
        let fate = match self.plan.fault() {
            Fault::None => Fate::Value,
            Fault::Hangs => {
                counts.hung += 1;
                Fate::Hang
            }
            Fault::FailsHalfTheTime if fastrand::bool() => Fate::Value,
            Fault::FailsHalfTheTime => {
                counts.refused += 1;
                Fate::Refusal
            }
            Fault::Panics => {
                counts.panicked += 1;
                Fate::Panic
            }
        };
        (Run { source: self, key, number, load }, fate)
    }
}

impl Run<'_> {
    fn end(self, fate: &Fate) -> Result<String, Refused> {
        match fate {
            Fate::Value | Fate::Hang => {
                let key = if self.source.sabotage == Some(Sabotage::ForeignValues) { "another" } else { self.key };
                Ok(format!("{key} {}", self.number))
            }
            Fate::Refusal => Err(Refused { load: self.number }),
            // A panic that nobody prints: there are thousands.
            Fate::Panic => resume_unwind(Box::new("the loader panics, as it was told to")),
        }
    }
}

/// Returns the keys whose values may be stale, and never dead, then those whose values die soon.
pub(crate) fn keys() -> impl Iterator<Item = String> {
    ["stale", "missing"].into_iter().flat_map(|kind| (0..KEYS_OF_A_KIND).map(move |number| format!("{kind}-{number}")))
}

pub(crate) fn dies_soon(key: &str) -> bool {
    key.starts_with("missing")
}
