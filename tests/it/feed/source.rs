//! A source of changes that a test writes, and that fails on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use larder::{Change, ChangeFeed, Connected};

use crate::scene::{Gate, PATIENCE, eventually};

/// Where the source can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    Connect,
    /// A wait for the next change.
    Next,
    /// A question for what else is at hand, after a change was returned.
    NextOfBatch,
    Acknowledge,
    /// The choice of a pause, which has no errors but panics.
    Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Error,
    Panic,
}

#[derive(Default)]
pub(super) struct State {
    /// Every change so far; a change's position is how many there are up to it.
    log: Vec<Change>,
    /// How far the connection has come.
    read: u64,
    /// Whether it brings nothing for now.
    held: bool,
    /// What it answers if it cannot go back.
    gap: Option<Change>,
    faults: VecDeque<(Point, Fault)>,
    /// A gate before the next change.
    gate: Option<Gate>,
    pause: Duration,
    /// The positions that it was to go on after.
    pub(super) connected: Vec<Option<u64>>,
    /// How many waits for a change there have been.
    pub(super) waits: u64,
    pub(super) acknowledged: Vec<u64>,
    pub(super) attempts: Vec<u32>,
    pub(super) dropped: bool,
}

/// The source, and the feed that reads it. Clones are the same source; only one is to be followed.
#[derive(Clone, Default)]
pub(super) struct Source(Arc<(Mutex<State>, Condvar)>);

/// The feed of a source.
pub(super) struct Feed(Source);

impl Source {
    /// Returns a source that keeps its changes, and resumes wherever it is asked to.
    pub(super) fn durable() -> Source {
        Source::default()
    }

    /// Returns a source that forgets what nobody was connected for.
    pub(super) fn forgetful(gap: Change) -> Source {
        let source = Source::default();
        source.change(|state| state.gap = Some(gap));
        source
    }

    pub(super) fn feed(&self) -> Feed {
        Feed(self.clone())
    }

    pub(super) fn commit(&self, changes: impl IntoIterator<Item = Change>) {
        self.change(|state| state.log.extend(changes));
    }

    /// Fails once at each of these points, in this order.
    pub(super) fn fail(&self, faults: impl IntoIterator<Item = (Point, Fault)>) {
        self.change(|state| state.faults.extend(faults));
    }

    pub(super) fn hold(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    /// Makes the next wait for a change hang at a gate.
    pub(super) fn hang(&self) -> Gate {
        let gate = Gate::new();
        self.change(|state| state.gate = Some(gate.clone()));
        gate
    }

    pub(super) fn pause(&self, pause: Duration) {
        self.change(|state| state.pause = pause);
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.0.0.lock().unwrap())
    }

    /// Waits until everything that was committed is acknowledged.
    #[track_caller]
    pub(super) fn settled(&self) {
        eventually("everything is acknowledged", || {
            self.look(|state| state.acknowledged.last().copied().unwrap_or(0) == state.log.len() as u64)
        });
    }

    /// Waits until the follower has come back a few times for more.
    #[track_caller]
    pub(super) fn asked_again(&self) {
        let before = self.look(|state| state.waits);
        eventually("the follower comes back for more", || self.look(|state| state.waits >= before + 3));
    }

    /// Waits until the source has failed as often as it was to.
    #[track_caller]
    pub(super) fn failed(&self) {
        eventually("the source has failed", || self.look(|state| state.faults.is_empty()));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn reach(&self, point: Point) -> Result<(), String> {
        let fault = {
            let mut state = self.0.0.lock().unwrap();
            if state.faults.front().is_none_or(|(at, _)| *at != point) {
                return Ok(());
            }
            state.faults.pop_front().map(|(_, fault)| fault)
        };
        match fault {
            Some(Fault::Panic) => panic!("at {point:?}"),
            _ => Err(format!("failed at {point:?}")),
        }
    }
}

impl ChangeFeed for Feed {
    type Position = u64;
    type Error = String;

    fn connect(&mut self, after: Option<&u64>) -> Result<Connected, String> {
        let source = &self.0;
        source.change(|state| state.connected.push(after.copied()));
        source.reach(Point::Connect)?;
        let mut connected = Connected::Resumed;
        // Whoever asks for what comes after it has applied it.
        source.change(|state| state.acknowledged.extend(after));
        source.change(|state| match &state.gap {
            Some(gap) => {
                state.read = state.log.len() as u64;
                connected = Connected::Gap(gap.clone());
            }
            // It keeps what was acknowledged, for who has no position yet.
            None => state.read = after.copied().or(state.acknowledged.last().copied()).unwrap_or(0),
        });
        Ok(connected)
    }

    fn next(&mut self, within: Duration) -> Result<Option<(Change, u64)>, String> {
        let Source(shared) = &self.0;
        let (mut gate, mut waits) = (None, false);
        self.0.change(|state| {
            waits = !within.is_zero();
            state.waits += u64::from(waits);
            gate = state.gate.take_if(|_| waits);
        });
        if let Some(gate) = gate {
            gate.pass();
        }
        self.0.reach(if waits { Point::Next } else { Point::NextOfBatch })?;
        let nothing = |state: &mut State| state.held || state.log.len() as u64 == state.read;
        let state = shared.0.lock().unwrap();
        let (mut state, _) = shared.1.wait_timeout_while(state, within.min(PATIENCE), nothing).unwrap();
        if nothing(&mut state) {
            return Ok(None);
        }
        state.read += 1;
        Ok(Some((state.log[state.read as usize - 1].clone(), state.read)))
    }

    fn acknowledge(&mut self, position: &u64) -> Result<(), String> {
        self.0.reach(Point::Acknowledge)?;
        self.0.change(|state| state.acknowledged.push(*position));
        Ok(())
    }

    fn backoff(&mut self, attempt: u32) -> Duration {
        self.0.change(|state| state.attempts.push(attempt));
        // A panic is all that it can fail by.
        self.0.reach(Point::Backoff).unwrap();
        self.0.look(|state| state.pause)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.change(|state| state.dropped = true);
    }
}
