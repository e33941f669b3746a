//! Breadth-first search over all states that can be reached.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Into how many parts the set of visited states is divided, each with a lock of its own.
const PARTS: usize = 64;

/// What can be searched.
pub trait System: Sync {
    type State: Clone + Send + Sync;
    type Action: Send;

    fn initial(&self) -> Self::State;

    /// Returns what can happen next.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// Lets it happen.
    ///
    /// # Errors
    /// Which promise is broken by that.
    fn apply(&self, state: &Self::State, action: &Self::Action) -> Result<Self::State, String>;

    /// Returns what tells a state from all others but those that are as good as the same.
    fn fingerprint(&self, state: &Self::State) -> u64;

    /// Returns an action in words, for a trace.
    fn describe(&self, state: &Self::State, action: &Self::Action) -> String;
}

/// What a search has found.
#[derive(Debug)]
pub struct Outcome {
    pub states: usize,
    /// How many steps the farthest state is away.
    pub depth: usize,
    pub took: Duration,
    pub end: End,
}

/// How a search has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Every state was visited.
    Exhausted,
    /// There were more states than it was allowed.
    Bounded,
    /// A promise was broken, after these steps.
    Violation { promise: String, trace: Vec<String> },
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("fingerprints are written as u64");
    }
    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// Where each state was first reached from.
type Part = Mutex<HashMap<u64, u64, BuildHasherDefault<AsItIs>>>;

struct Visited(Vec<Part>);

impl Visited {
    fn part(&self, fingerprint: u64) -> &Part {
        &self.0[(fingerprint >> 32) as usize % PARTS]
    }

    fn from(&self, fingerprint: u64) -> Option<u64> {
        self.part(fingerprint).lock().unwrap().get(&fingerprint).copied()
    }

    /// Returns whether the state is a new one.
    fn add(&self, fingerprint: u64, from: u64) -> bool {
        match self.part(fingerprint).lock().unwrap().entry(fingerprint) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(from);
                true
            }
        }
    }

    fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().unwrap().len()).sum()
    }
}

/// Visits states, level by level, until there are none left or more than `most`.
pub fn search<S: System>(system: &S, threads: usize, most: usize) -> Outcome {
    let started = Instant::now();
    let visited = Visited((0..PARTS).map(|_| Part::default()).collect());
    let first = system.initial();
    let beginning = system.fingerprint(&first);
    visited.add(beginning, 0);
    let mut level = vec![(beginning, first.clone())];
    let mut depth = 0;
    let end = loop {
        let failed = AtomicBool::new(false);
        let share = level.len().div_ceil(threads).max(1);
        // A level is given away part by part, so that two of them are in memory only where they have to be.
        let results: Vec<_> = thread::scope(|scope| {
            let (visited, failed) = (&visited, &failed);
            let expand = |part| scope.spawn(move || expand(system, visited, part, failed));
            let workers: Vec<_> = level.chunks(share).map(expand).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect()
        });
        let mut next = Vec::new();
        let mut broken = None;
        for result in results {
            match result {
                Ok(states) => next.extend(states),
                Err((from, action, promise)) => broken = Some((from, action, promise)),
            }
        }
        if let Some((from, action, promise)) = broken {
            let trace = trace(system, &visited, first, from, &action);
            break End::Violation { promise, trace };
        }
        if next.is_empty() {
            break End::Exhausted;
        }
        depth += 1;
        level = next;
        if visited.len() > most {
            break End::Bounded;
        }
    };
    Outcome { states: visited.len(), depth, took: started.elapsed(), end }
}

/// From which state which action has led to which broken promise.
type Broken<S> = (u64, <S as System>::Action, String);

/// States, each with its fingerprint.
type Level<S> = [(u64, <S as System>::State)];

fn expand<S: System>(
    system: &S,
    visited: &Visited,
    states: &Level<S>,
    failed: &AtomicBool,
) -> Result<Vec<(u64, S::State)>, Broken<S>> {
    let mut next = Vec::new();
    for (from, state) in states {
        // Relaxed: it only saves the other workers' time.
        if failed.load(Ordering::Relaxed) {
            break;
        }
        for action in system.actions(state) {
            match system.apply(state, &action) {
                Ok(reached) => {
                    let fingerprint = system.fingerprint(&reached);
                    if visited.add(fingerprint, *from) {
                        next.push((fingerprint, reached));
                    }
                }
                Err(promise) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err((*from, action, promise));
                }
            }
        }
    }
    Ok(next)
}

/// Returns the steps to the state with fingerprint `last`, and `action` after them.
fn trace<S: System>(system: &S, visited: &Visited, first: S::State, last: u64, action: &S::Action) -> Vec<String> {
    let beginning = system.fingerprint(&first);
    let mut way = vec![last];
    while way[way.len() - 1] != beginning {
        way.push(visited.from(way[way.len() - 1]).expect("every state but the first was reached from another"));
    }
    let (mut state, mut steps) = (first, Vec::new());
    for fingerprint in way.into_iter().rev().skip(1) {
        // The state that was reached may be another one of the same fingerprint, so that the way on is looked for again.
        let taken = system.actions(&state).into_iter().find_map(|action| {
            let reached = system.apply(&state, &action).ok()?;
            (system.fingerprint(&reached) == fingerprint).then_some((action, reached))
        });
        let (action, reached) = taken.expect("what was reached once can be reached again");
        steps.push(system.describe(&state, &action));
        state = reached;
    }
    // Of the last step, too, the one that breaks the promise from the state which the trace has led to.
    let broken = system.actions(&state).into_iter().find(|action| system.apply(&state, action).is_err());
    steps.push(system.describe(&state, broken.as_ref().unwrap_or(action)));
    steps
}
