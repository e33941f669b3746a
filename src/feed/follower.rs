//! The follower: a thread that connects to a feed, applies what it brings, acknowledges it, and starts over when it fails.
//!
//! **Nothing is lost.** Of the feed's changes the follower remembers one position, `applied`: up to there everything has been
//! carried out in this process, and acknowledged by the remote tier where there is one. It moves before the feed hears of
//! it, never earlier. Whatever fails, the next connection is asked to go on after it, so a change is applied again rather than
//! not at all. A change whose bump is pending stands in a queue, and everything behind it waits, in order.
//!
//! **Gaps.** A feed that cannot go back says so when it connects, and then *the order is subscribe, invalidate, go on*. Take
//! any change, and the moment it is committed:
//!
//! - Before the subscription stood: the feed may never bring it. The invalidation of the gap comes later than the commit. A
//!   load that began before the invalidation is fenced by it, and what was stored is dead; a load that begins after it reads
//!   what is committed.
//! - After: the feed brings it, and it is applied like any other.
//!
//! The other way round, a change committed between the invalidation and the subscription is brought by nobody, and a load
//! that began between the invalidation and the commit has stored the value from before.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::target::{MAX_OPEN, Standing, Target};
use super::{BATCH, Change, ChangeFeed, Connected, pause};
use crate::clock::{Clock, Deadline};
use crate::error::BuildError;
use crate::signal::Signal;
use crate::sync::{Arc, Mutex, thread};
use crate::task::drop_quietly;

/// How long the feed is asked to wait for a change: how long a follower may take to hear that it is to stop.
const WAIT: Duration = Duration::from_millis(250);

/// How long it is asked to wait while the remote tier has yet to acknowledge something: how late the feed may hear of that.
const WAIT_OPEN: Duration = Duration::from_millis(20);

/// How soon a feed is asked again that does not wait as long as it was asked to.
const EARLY: Duration = Duration::from_millis(10);

/// The longest name of a follower.
const MAX_NAME: usize = 64;

/// How much of an error's text is kept, in bytes: enough for a cause and its context.
const MAX_ERROR: usize = 1_024;

/// A thread that follows a [`ChangeFeed`], made by [`Cache::follow`](crate::Cache::follow) and its like.
///
/// Dropping it lets the thread end and waits for nothing; [`stop`](Self::stop) waits.
pub struct Follower {
    name: String,
    shared: Arc<Shared>,
}

/// What a follower is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FeedState {
    /// It connects, for the first time or again.
    #[default]
    Connecting,
    /// It is connected, and applies what comes.
    Following,
    /// It pauses after a failure.
    Pausing,
    /// Its thread has ended.
    Stopped,
}

/// How a follower is: a snapshot, made by [`Follower::health`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedHealth {
    /// What it is doing.
    pub state: FeedState,
    /// Changes that were carried out in this process.
    pub changes: u64,
    /// The batches that they came in. Changes that are at hand at once share one.
    pub batches: u64,
    /// Batches and gaps that the remote tier has not acknowledged, nor the feed therefore. They hold in this process.
    pub pending: usize,
    /// How often so many were pending that they became one, of everything.
    pub escalations: u64,
    /// How often the feed has connected.
    pub connections: u64,
    /// How often changes may have been missed, so that what they could have changed was invalidated.
    pub gaps: u64,
    /// Errors and panics of the feed.
    pub errors: u64,
    /// The last of them.
    pub last_error: Option<String>,
}

#[derive(Default)]
struct Shared {
    health: Mutex<FeedHealth>,
    stop: Signal,
    ended: Signal,
}

impl Shared {
    fn note(&self, note: impl FnOnce(&mut FeedHealth)) {
        note(&mut self.health.lock());
    }
}

impl Follower {
    pub(super) fn start(name: &str, target: Target, feed: impl ChangeFeed) -> Result<Follower, BuildError> {
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            let message = format!("the name {name:?} of a follower: give 1 to {MAX_NAME} bytes of printable ASCII");
            return Err(BuildError::new(message));
        }
        let shared = Arc::new(Shared::default());
        let course = Course {
            name: name.to_owned(),
            feed,
            target,
            shared: shared.clone(),
            queue: VecDeque::new(),
            gap: None,
            applied: None,
        };
        let spawned = thread::Builder::new().name(format!("larder-feed-{name}")).spawn(move || {
            // Declared first, so dropped last: after the feed, whose `drop` may panic.
            let _ended = Ended(course.shared.clone());
            course.run();
        });
        spawned.map_err(|error| BuildError::new(format!("no thread could be started to follow a feed: {error}")))?;
        Ok(Follower { name: name.to_owned(), shared })
    }

    /// Returns how the follower is. Never waits.
    #[must_use]
    pub fn health(&self) -> FeedHealth {
        self.shared.health.lock().clone()
    }

    /// Lets the thread end, and returns whether it has within `limit`: it looks between two calls of the feed.
    ///
    /// What has been applied and acknowledged until then has been told to the feed; what is pending will come again where the
    /// feed is followed next.
    ///
    /// # Blocking
    /// For `limit` at most, by the system's clock.
    #[must_use = "the thread may still run where this is false"]
    pub fn stop(&mut self, limit: Duration) -> bool {
        self.shared.stop.give();
        let clock = Clock::system();
        let deadline = Deadline::after(clock.now(), limit);
        clock.block_on(self.shared.ended.given(), deadline).is_some()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.stop.give();
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("name", &self.name).field("health", &self.health()).finish()
    }
}

/// Says that the thread has ended, however it did.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.note(|health| health.state = FeedState::Stopped);
        self.0.ended.give();
    }
}

/// What the thread of a follower has.
struct Course<F: ChangeFeed> {
    name: String,
    feed: F,
    target: Target,
    shared: Arc<Shared>,
    /// What is carried out in this process, and may be open in the remote tier, in order.
    queue: VecDeque<Unsettled<F::Position>>,
    /// What a gap may have changed, until it is invalidated.
    gap: Option<Change>,
    /// Up to where everything is applied.
    applied: Option<F::Position>,
}

/// One batch, or a gap, that was applied.
struct Unsettled<P> {
    /// The last of its positions; `None` for a gap, and for what is to come again.
    position: Option<P>,
    standing: Standing,
    /// How many changes of groups were open when it was last looked at, at least 1: what it counts for.
    weight: usize,
}

impl<F: ChangeFeed> Course<F> {
    fn run(mut self) {
        let mut attempt = 0;
        while !self.shared.stop.is_given() {
            self.shared.note(|health| health.state = FeedState::Connecting);
            match told(|| self.follow(&mut attempt)) {
                Ok(()) => return,
                Err(error) => self.failed(error, attempt),
            }
            let pause = catch_unwind(AssertUnwindSafe(|| self.feed.backoff(attempt))).unwrap_or_else(|panic| {
                drop_quietly(panic);
                pause(attempt)
            });
            attempt = attempt.saturating_add(1);
            self.shared.note(|health| health.state = FeedState::Pausing);
            self.rest(pause);
        }
    }

    /// Follows one connection until it breaks, or the follower is to stop.
    fn follow(&mut self, attempt: &mut u32) -> Result<(), String> {
        // What is open since the last connection will come again, or be covered by a gap. It stays before all that comes from
        // now on, which must not count as applied sooner: should this process crash, it would be lost. But its positions would
        // lead back.
        self.queue.iter_mut().for_each(|unsettled| unsettled.position = None);
        if let Connected::Gap(change) = told(|| self.feed.connect(self.applied.as_ref()))? {
            self.shared.note(|health| health.gaps += 1);
            // Kept until it is applied: the feed may not speak of it again.
            self.gap = Some(self.gap.take().unwrap_or_default().and(change));
        }
        self.shared.note(|health| health.connections += 1);
        // After the subscription, before the first change: see the module.
        if let Some(gap) = &self.gap {
            let standing = self.target.apply(gap);
            self.gap = None;
            self.push(None, standing);
        }
        self.shared.note(|health| health.state = FeedState::Following);
        while !self.shared.stop.is_given() {
            let taken = self.take();
            if let Some((batch, position, changes)) = taken.batch {
                let standing = self.target.apply(&batch);
                self.push(Some(position), standing);
                self.shared.note(|health| {
                    health.changes += changes;
                    health.batches += 1;
                });
            }
            self.settle()?;
            taken.broken?;
            // A whole round in good order. No sooner: a change that makes its own application fail would be tried for ever
            // without a pause.
            *attempt = 0;
        }
        self.settle()
    }

    /// Takes the changes at hand, or waits a little for one.
    fn take(&mut self) -> Taken<F::Position> {
        let wait = if self.queue.is_empty() { WAIT } else { WAIT_OPEN };
        let stopwatch = Clock::system().stopwatch();
        let mut taken = Taken { batch: None, broken: Ok(()) };
        let mut within = wait;
        for count in 1..=BATCH as u64 {
            // Also after a panic, what it has returned before is applied: it may not be able to go back.
            match told(|| self.feed.next(within)) {
                Ok(Some((change, position))) => {
                    let batch = taken.batch.take().map_or_else(Change::default, |(batch, ..)| batch);
                    taken.batch = Some((batch.and(change), position, count));
                }
                Ok(None) => break,
                Err(error) => {
                    taken.broken = Err(error);
                    break;
                }
            }
            within = Duration::ZERO;
        }
        if taken.batch.is_none() && taken.broken.is_ok() && stopwatch.elapsed() < wait / 2 {
            self.rest(EARLY);
        }
        taken
    }

    /// Notes what was applied. More than is kept apart becomes one.
    fn push(&mut self, position: Option<F::Position>, mut standing: Standing) {
        let weight = standing.count_open().max(1);
        self.queue.push_back(Unsettled { position, standing, weight });
        if self.queue.iter().map(|unsettled| unsettled.weight).sum::<usize>() > MAX_OPEN {
            let standing = self.target.apply_to_all();
            let position = self.queue.drain(..).filter_map(|unsettled| unsettled.position).last();
            self.queue.push_back(Unsettled { position, standing, weight: 1 });
            self.shared.note(|health| health.escalations += 1);
        }
    }

    /// Acknowledges what is applied in the remote tier as well by now.
    fn settle(&mut self) -> Result<(), String> {
        let mut reached = None;
        while let Some(first) = self.queue.front_mut() {
            first.weight = first.standing.count_open();
            if first.weight > 0 {
                break;
            }
            reached = self.queue.pop_front().and_then(|first| first.position).or(reached);
        }
        let pending = self.queue.len();
        self.shared.note(|health| health.pending = pending);
        match reached {
            // In this order: what the feed fails to hear of is applied all the same.
            Some(position) => told(|| self.feed.acknowledge(self.applied.insert(position))),
            None => Ok(()),
        }
    }

    fn failed(&self, mut error: String, attempt: u32) {
        error.truncate(error.floor_char_boundary(MAX_ERROR));
        let (feed, times) = (&*self.name, u64::from(attempt) + 1);
        #[cfg(any(feature = "tiered", feature = "tracing"))]
        crate::watch::event!(
            warn,
            [feed = feed, times = times],
            "the feed {feed} failed, {times} times in a row by now: {error}"
        );
        #[cfg(not(any(feature = "tiered", feature = "tracing")))]
        let _ = (feed, times);
        self.shared.note(|health| {
            health.errors += 1;
            health.last_error = Some(error);
        });
    }

    /// Waits, unless it is to stop.
    fn rest(&self, interval: Duration) {
        let clock = Clock::system();
        clock.block_on(self.shared.stop.given(), Deadline::after(clock.now(), interval));
    }
}

/// What a feed had at hand.
struct Taken<P> {
    /// The changes as one, the last of their positions, and how many they were.
    batch: Option<(Change, P, u64)>,
    /// Why the connection broke after them, if it did.
    broken: Result<(), String>,
}

/// Calls the feed, and tells why it failed if it did, in whatever way. Whatever a panic leaves of it, `connect` makes afresh;
/// the rest changes between calls of it alone.
fn told<R, E: Display>(call: impl FnOnce() -> Result<R, E>) -> Result<R, String> {
    let called = catch_unwind(AssertUnwindSafe(|| call().map_err(|error| error.to_string())));
    called.unwrap_or_else(|panic| Err(describe(panic)))
}

/// Says what a panic said.
fn describe(panic: Box<dyn Any + Send>) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = said.map_or_else(|| "it panicked".to_owned(), |said| format!("it panicked: {said}"));
    drop_quietly(panic);
    message
}
