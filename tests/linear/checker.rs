//! Decides whether a history could have happened one step after the other.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", Journal of Parallel and Distributed
//! Computing 17, 1993), which remembers where it has been as Lowe's does ("Testing for linearizability", Concurrency and
//! Computation: Practice and Experience 29(4), 2017). An operation may take several steps, each at one moment, all of them
//! between its beginning and its end, and those of others in between. With one step to an operation, this is
//! linearizability.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

/// What operations may do, step by step.
pub(crate) trait Spec {
    /// An operation, with what it returned.
    type Op: fmt::Debug;
    type State: Clone + Eq + Hash;
    /// What an operation under way has taken note of.
    type Local: Clone + Eq + Hash;

    /// Calls `go` with each way in which `op` may take its next step; without a `Local` where it is over then. `None` as
    /// `local` says that it has not taken any. No way at all says that it cannot: not now, or not with this result.
    fn step(
        &self,
        op: &Self::Op,
        local: Option<&Self::Local>,
        state: &Self::State,
        go: impl FnMut(Self::State, Option<Self::Local>),
    );

    /// Calls `go` with each state to which this one may change by itself.
    fn drift(&self, state: &Self::State, go: impl FnMut(Self::State));
}

/// An operation that has been carried out, and when: between `begun` and `ended`, which number all beginnings and ends.
#[derive(Clone, Debug)]
pub(crate) struct Event<Op> {
    pub(crate) op: Op,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
}

/// What each thread has done, in its order.
pub(crate) type History<Op> = Vec<Vec<Event<Op>>>;

/// A history that cannot have happened.
pub(crate) struct Violation {
    /// All operations in the order in which they began, and how far the search came at best.
    text: String,
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where a search is: how many operations each thread has completed, and how far it is with the next one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place<State, Local> {
    threads: Vec<(usize, Option<Local>)>,
    state: State,
}

/// Looks for an order of steps that explains the history, from `start` on. Returns how many places it has been to.
pub(crate) fn check<S: Spec>(spec: &S, start: &S::State, history: &History<S::Op>) -> Result<usize, Violation> {
    let first = Place { threads: vec![(0, None); history.len()], state: start.clone() };
    let mut seen = HashSet::from([first.clone()]);
    let mut open = vec![first];
    let mut furthest = vec![0; history.len()];
    while let Some(place) = open.pop() {
        let done = |threads: &[(usize, Option<S::Local>)]| threads.iter().map(|thread| thread.0).sum::<usize>();
        if done(&place.threads) > furthest.iter().sum() {
            furthest = place.threads.iter().map(|thread| thread.0).collect();
        }
        if place.threads.iter().zip(history).all(|(thread, events)| thread.0 == events.len()) {
            return Ok(seen.len());
        }
        // Nothing begins before all that ended before it is over.
        let next = |thread: usize| history[thread].get(place.threads[thread].0);
        let first_end = (0..history.len()).filter_map(|thread| Some(next(thread)?.ended)).min().unwrap_or(u64::MAX);
        let mut visit = |place: Place<S::State, S::Local>| {
            if !seen.contains(&place) {
                seen.insert(place.clone());
                open.push(place);
            }
        };
        spec.drift(&place.state, |state| visit(Place { threads: place.threads.clone(), state }));
        for thread in 0..history.len() {
            let (completed, local) = &place.threads[thread];
            let Some(event) = next(thread) else { continue };
            if local.is_none() && event.begun > first_end {
                continue;
            }
            spec.step(&event.op, local.as_ref(), &place.state, |state, local| {
                let mut threads = place.threads.clone();
                threads[thread] = if local.is_none() { (completed + 1, None) } else { (*completed, local) };
                visit(Place { threads, state });
            });
        }
    }
    Err(Violation { text: describe(history, &furthest) })
}

/// Writes the history down in the order of beginnings, and marks what no order explains.
fn describe<Op: fmt::Debug>(history: &History<Op>, furthest: &[usize]) -> String {
    let mut events: Vec<_> = history
        .iter()
        .enumerate()
        .flat_map(|(thread, events)| events.iter().enumerate().map(move |(index, event)| (event, thread, index)))
        .collect();
    events.sort_by_key(|(event, ..)| event.begun);
    let mut text =
        String::from("no order of steps explains this history; from each ? on, one thread could go no further\n");
    for (event, thread, index) in events {
        let mark = if index == furthest[thread] { '?' } else { ' ' };
        let Event { op, begun, ended } = event;
        text.push_str(&format!("{mark} {begun:4} to {ended:4}  thread {thread}  {op:?}\n"));
    }
    text
}
