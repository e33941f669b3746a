//! Time: the only module that reads a clock, waits for one, or lets tests move one.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker};
#[cfg(feature = "http")]
use std::time::SystemTime;
use std::time::{Duration, Instant};

#[cfg(not(larder_sim))]
use futures_timer::Delay;

#[cfg(larder_sim)]
use crate::sync::sim::world::Delay;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, model, thread};
use crate::task::{guarded, guarded_waker};

/// How far the coarse clock may lag behind the precise one: a tick of the slowest usual kernel (100 Hz), and what rounding
/// to milliseconds hides.
const COARSE_LAG_MS: u64 = 11;

/// From which length on an interval may begin at the coarse time: its lag is at most a hundredth of it.
const COARSE_FROM: Duration = Duration::from_millis(100 * COARSE_LAG_MS);

/// Where a manual clock starts, so that ages before its creation stay representable.
const MANUAL_ORIGIN_MS: u64 = 1 << 32;

/// What a manual clock calls the time of day when it starts, after 1970.
#[cfg(feature = "http")]
const MANUAL_EPOCH: Duration = Duration::from_secs(1_500_000_000);

/// A moment in milliseconds since an origin that all caches of a process share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    /// Returns how long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the moment so many milliseconds after the origin.
    #[inline]
    pub(crate) fn from_ms(ms: u64) -> Timestamp {
        Timestamp(ms)
    }

    #[inline]
    pub(crate) fn as_ms(self) -> u64 {
        self.0
    }

    /// Returns the moment `interval` before: to the millisecond, rounded down, and the origin at the earliest.
    #[cfg(feature = "tiered")]
    pub(crate) fn before(self, interval: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(whole_ms(interval)))
    }
}

/// The moment from which something no longer holds. Smaller is earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// Later than every other.
    pub(crate) const NEVER: Deadline = Deadline(u64::MAX);
    /// Always passed.
    pub(crate) const PASSED: Deadline = Deadline(0);

    /// Returns the deadline `interval` after `start`: to the millisecond, rounded up, and `NEVER` where it overflows.
    pub(crate) fn after(start: Timestamp, interval: Duration) -> Deadline {
        Deadline::at_ms(start, whole_ms(interval))
    }

    /// Returns the deadline so many milliseconds after `start`, and `NEVER` where it overflows.
    #[inline]
    pub(crate) fn at_ms(start: Timestamp, ms: u64) -> Deadline {
        Deadline(start.0.saturating_add(ms))
    }

    /// Returns how many milliseconds this is after `start`: `None` for never, zero where it is before.
    #[inline]
    pub(crate) fn ms_after(self, start: Timestamp) -> Option<u64> {
        (self != Deadline::NEVER).then(|| self.0.saturating_sub(start.0))
    }

    /// Returns the deadline `interval` after `start` where it must not be late: rounded down, and `NEVER` where it overflows.
    #[cfg(feature = "tiered")]
    pub(crate) fn within(start: Timestamp, interval: Duration) -> Deadline {
        u64::try_from(interval.as_millis()).map_or(Deadline::NEVER, |ms| Deadline(start.0.saturating_add(ms)))
    }

    /// Returns the deadline as long after `start` as this is after the origin.
    #[inline]
    pub(crate) fn moved_by(self, start: Timestamp) -> Deadline {
        Deadline(self.0.saturating_add(start.0))
    }

    #[inline]
    pub(crate) fn has_passed(self, now: Timestamp) -> bool {
        self.0 <= now.0
    }

    /// Returns how long it is from `now` to here; `None` for never, zero once passed.
    pub(crate) fn remaining(self, now: Timestamp) -> Option<Duration> {
        self.ms_after(now).map(Duration::from_millis)
    }
}

/// Returns an interval in milliseconds, rounded up, and cut at what fits.
fn whole_ms(interval: Duration) -> u64 {
    // Not from the nanoseconds in all, whose division in 128 bits costs more than the rest of an entry's dates.
    let begun = interval.subsec_nanos().div_ceil(1_000_000);
    interval.as_secs().saturating_mul(1_000).saturating_add(begun.into())
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Deadline::NEVER => f.write_str("never"),
            Deadline(ms) => write!(f, "{ms} ms"),
        }
    }
}

/// A [`Deadline`] that moves while others look at it.
#[derive(Debug)]
pub(crate) struct AtomicDeadline(model::AtomicU64);

impl AtomicDeadline {
    #[inline]
    pub(crate) fn new(deadline: Deadline) -> Self {
        Self(model::AtomicU64::new(deadline.0))
    }

    // Relaxed: a deadline orders no other memory; who needs it exact looks under the shard's lock.
    #[inline]
    pub(crate) fn get(&self) -> Deadline {
        Deadline(self.0.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set(&self, deadline: Deadline) {
        self.0.store(deadline.0, Ordering::Relaxed);
    }

    /// Returns the deadline, and makes visible what was done before it was moved here.
    // Acquire pairs with the Release in `extend`.
    #[cfg(feature = "tiered")]
    #[inline]
    pub(crate) fn get_acquire(&self) -> Deadline {
        Deadline(self.0.load(Ordering::Acquire))
    }

    /// Moves the deadline to `deadline`, unless it is later already.
    #[cfg(feature = "tiered")]
    pub(crate) fn extend(&self, deadline: Deadline) {
        // Release pairs with the Acquire in `get_acquire`: whoever sees this deadline also sees what came before this call.
        // One who sees a later deadline does too, since every move is a read-modify-write and goes on from the one before.
        self.0.fetch_max(deadline.0, Ordering::Release);
    }
}

/// Where a cache takes its time from: the system, or a test.
///
/// Deadlines count milliseconds of a monotonic clock. On Linux a hit reads the kernel's coarse clock, and the precise one
/// only within the last 11 ms before a deadline, so that no entry is served late for the price of a cheap read. An entry is
/// dated by the coarse clock where its deadlines are more than a second away, so they may come up to 11 ms early, never
/// late. A manual clock stands still until its [`ManualClock`] moves it, and is exact.
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Manual>),
}

impl Clock {
    /// Returns the system's monotonic clock, the default.
    #[must_use]
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// Returns a clock that stands still, and the handle that moves it.
    ///
    /// Whatever waits with a time limit on this clock, a claim's grace or a caller of a load, waits for the handle too.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use larder::{Cache, Clock};
    ///
    /// let (clock, time) = Clock::manual();
    /// let cache = Cache::builder().capacity(10).ttl(Duration::from_secs(60)).clock(clock).build()?;
    /// cache.insert("key", 1).unwrap();
    /// time.advance(Duration::from_secs(60));
    /// assert_eq!(cache.get("key"), None);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    #[must_use]
    pub fn manual() -> (Clock, ManualClock) {
        let manual = Arc::new(Manual::default());
        (Clock(Source::Manual(manual.clone())), ManualClock(manual))
    }

    /// Returns the time to the millisecond.
    pub(crate) fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system::precise(),
            Source::Manual(manual) => manual.now(),
        }
    }

    /// Returns the time of day, which other hosts may see otherwise, and which may be set.
    #[cfg(feature = "http")]
    pub(crate) fn time_of_day(&self) -> SystemTime {
        match &self.0 {
            Source::System => system::time_of_day(),
            Source::Manual(manual) => {
                SystemTime::UNIX_EPOCH + MANUAL_EPOCH + Duration::from_nanos(manual.nanos.load(Ordering::Relaxed))
            }
        }
    }

    /// Returns the time, or one up to [`COARSE_LAG_MS`] before it, as cheaply as the system gives it.
    #[inline]
    pub(crate) fn coarse(&self) -> Timestamp {
        match &self.0 {
            Source::System => system::coarse(),
            Source::Manual(manual) => manual.now(),
        }
    }

    /// Returns the time at which something begins that lasts for `shortest` or longer: where that is long enough, one up to
    /// [`COARSE_LAG_MS`] early, and as cheap as that.
    ///
    /// What ends an interval after it ends early by as much, never late.
    #[inline]
    pub(crate) fn about(&self, shortest: Duration) -> Timestamp {
        if shortest >= COARSE_FROM { self.coarse() } else { self.now() }
    }

    /// Returns a time by which `deadline` can be judged exactly: the coarse one while the deadline is far from it.
    #[inline]
    pub(crate) fn near(&self, deadline: Deadline) -> Timestamp {
        let coarse = self.coarse();
        // Once the coarse clock, which never runs ahead, has passed the deadline, so has the precise one. Both at once: only
        // a deadline ahead of it by its lag or less is neither passed nor far.
        let is_far = deadline.0.wrapping_sub(coarse.0).wrapping_sub(1) >= COARSE_LAG_MS;
        if is_far { coarse } else { self.now() }
    }

    /// Returns whether `deadline` has passed, exactly, and reads no clock where it never does.
    #[inline]
    pub(crate) fn has_passed(&self, deadline: Deadline) -> bool {
        if deadline == Deadline::NEVER {
            return false;
        }
        let coarse = self.coarse();
        // Nearly always it is far ahead.
        deadline.0 <= coarse.0 + COARSE_LAG_MS && (deadline.has_passed(coarse) || deadline.has_passed(self.now()))
    }

    /// Waits for `future` on this thread until `deadline`.
    pub(crate) fn block_on<F: Future>(&self, future: F, deadline: Deadline) -> Option<F::Output> {
        let mut future = pin!(future);
        // What does its I/O in its own poll is ready at the first one, and needs no waker. Anything else is polled again at
        // once, and is told of the real waker then.
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(unpark.clone());
        let mut context = Context::from_waker(&waker);
        let mut alarm = self.manual_alarm(deadline);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            match &mut alarm {
                // The alarm holds this thread's waker, so an advance past the deadline ends the park.
                Some(alarm) => match Pin::new(alarm).poll(&mut context) {
                    Poll::Ready(()) => return None,
                    Poll::Pending => unpark.park(None),
                },
                None => match deadline.remaining(self.now()) {
                    Some(Duration::ZERO) => return None,
                    remaining => unpark.park(remaining),
                },
            }
        }
    }

    /// Waits for `future` on any runtime until `deadline`.
    pub(crate) async fn timeout<F: Future>(&self, future: F, deadline: Deadline) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut alarm = pin!(self.alarm(deadline));
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => alarm.as_mut().poll(context).map(|()| None),
        })
        .await
    }

    /// Resolves at `deadline`, on any runtime.
    pub(crate) async fn alarm(&self, deadline: Deadline) {
        match (self.manual_alarm(deadline), deadline.remaining(self.now())) {
            (Some(alarm), _) => alarm.await,
            (None, Some(remaining)) => Timer::after(remaining).await,
            (None, None) => std::future::pending().await,
        }
    }

    fn manual_alarm(&self, deadline: Deadline) -> Option<ManualAlarm> {
        match &self.0 {
            Source::System => None,
            Source::Manual(manual) => Some(ManualAlarm { manual: manual.clone(), deadline, id: None }),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock::system",
            Source::Manual(_) => "Clock::manual",
        })
    }
}

/// Moves the manual clock it was made with.
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

impl ManualClock {
    /// Moves the clock forward by `interval` and wakes whoever waited for a moment that has now passed.
    ///
    /// It stands still for good once it has been moved by 584 years.
    pub fn advance(&self, interval: Duration) {
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let mut alarms = self.0.alarms.lock();
        // Under the lock, so that an alarm set meanwhile sees either the new time or this wake-up.
        let later = self.0.nanos.load(Ordering::Relaxed).saturating_add(nanos);
        self.0.nanos.store(later, Ordering::Relaxed);
        let now = self.0.now();
        let mut due = Vec::new();
        alarms.set.retain(|alarm| {
            let rings = alarm.deadline.has_passed(now);
            if rings {
                due.push(alarm.waker.clone());
            }
            !rings
        });
        drop(alarms);
        // Foreign code, which must not keep the time from the others.
        for waker in due {
            guarded(|| waker.wake());
        }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.0.now()).finish()
    }
}

#[derive(Default)]
struct Manual {
    nanos: AtomicU64,
    alarms: Mutex<Alarms>,
}

#[derive(Default)]
struct Alarms {
    next_id: u64,
    set: Vec<SetAlarm>,
}

struct SetAlarm {
    id: u64,
    deadline: Deadline,
    waker: Waker,
}

impl Manual {
    fn now(&self) -> Timestamp {
        Timestamp(MANUAL_ORIGIN_MS + self.nanos.load(Ordering::Relaxed) / 1_000_000)
    }
}

/// Resolves once a manual clock has passed a deadline.
struct ManualAlarm {
    manual: Arc<Manual>,
    deadline: Deadline,
    id: Option<u64>,
}

impl Future for ManualAlarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Cloning and dropping a waker is foreign code, and stays outside the lock.
        let waker = context.waker().clone();
        let mut alarms = this.manual.alarms.lock();
        if this.deadline.has_passed(this.manual.now()) {
            return Poll::Ready(());
        }
        let known = this.id.and_then(|id| alarms.set.iter_mut().find(|alarm| alarm.id == id));
        let replaced = match known {
            Some(alarm) => Some(std::mem::replace(&mut alarm.waker, waker)),
            None => {
                let id = alarms.next_id;
                alarms.next_id += 1;
                alarms.set.push(SetAlarm { id, deadline: this.deadline, waker });
                this.id = Some(id);
                None
            }
        };
        drop(alarms);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for ManualAlarm {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut alarms = self.manual.alarms.lock();
            let mine = alarms.set.iter().position(|alarm| alarm.id == id);
            let alarm = mine.map(|at| alarms.set.swap_remove(at));
            drop(alarms);
            drop(alarm);
        }
    }
}

/// Wakes a thread that waits for a future. The thread's own token would not do: a future that parks its thread in a poll, for
/// something of its own, takes that along.
struct Unpark {
    thread: thread::Thread,
    woken: AtomicBool,
}

impl Unpark {
    /// Parks its thread until this is woken, for `limit` at most; not at all if it was since the last time.
    fn park(&self, limit: Option<Duration>) {
        // Pairs with the store in `wake`: what was done before that shows in the next poll.
        if self.woken.swap(false, Ordering::Acquire) {
            return;
        }
        match limit {
            Some(limit) => thread::park_timeout(limit),
            None => thread::park(),
        }
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Resolves after an interval of the system's clock, on any runtime.
///
/// All of a process wait on one thread, which would end with the first waker that panics.
struct Timer {
    delay: Delay,
    /// The waker of the last poll, and the one that calls it.
    waker: Option<(Waker, Waker)>,
}

impl Timer {
    fn after(interval: Duration) -> Timer {
        Timer { delay: Delay::new(interval), waker: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Timer { delay, waker } = &mut *self;
        let called = context.waker();
        if !waker.as_ref().is_some_and(|(last, _)| last.will_wake(called)) {
            *waker = Some((called.clone(), guarded_waker(called.clone())));
        }
        let calls = waker.as_ref().map_or(called, |(_, calls)| calls);
        Pin::new(delay).poll(&mut Context::from_waker(calls))
    }
}

/// The time of I/O, which no cache's clock can move.
#[cfg(feature = "tiered")]
pub(crate) mod real {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use super::{Clock, Deadline, Timer, system};

    /// Resolves at a moment, on any runtime.
    pub(crate) struct Alarm(Timer);

    impl Alarm {
        pub(crate) fn at(moment: Instant) -> Alarm {
            Alarm(Timer::after(moment.saturating_duration_since(now())))
        }
    }

    impl Future for Alarm {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            Pin::new(&mut self.0).poll(context)
        }
    }

    /// Returns the time of deadlines of exchanges, and of expiries in a store in memory.
    pub(crate) fn now() -> Instant {
        system::instant()
    }

    /// Runs a future on this thread to its end.
    pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
        Clock::system()
            .block_on(future, Deadline::NEVER)
            .expect("nothing ends a wait without a deadline but its future")
    }

    /// Waits for `future` on any runtime, for `limit` at most.
    pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
        let clock = Clock::system();
        clock.timeout(future, Deadline::after(clock.now(), limit)).await
    }

    /// Waits for `interval` on any runtime.
    pub(crate) async fn sleep(interval: Duration) {
        Timer::after(interval).await;
    }

    /// Returns the time since 1970 by the wall clock, which other hosts may see otherwise; zero where it is before that.
    pub(crate) fn since_epoch() -> Duration {
        system::time_of_day().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// Measures how long something takes, for statistics.
pub(crate) struct Stopwatch(StopwatchSource);

enum StopwatchSource {
    System(Instant),
    Manual(Arc<Manual>, u64),
}

impl Clock {
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        Stopwatch(match &self.0 {
            Source::System => StopwatchSource::System(system::instant()),
            Source::Manual(manual) => StopwatchSource::Manual(manual.clone(), manual.nanos.load(Ordering::Relaxed)),
        })
    }
}

impl Stopwatch {
    pub(crate) fn elapsed(&self) -> Duration {
        match &self.0 {
            StopwatchSource::System(start) => system::instant().saturating_duration_since(*start),
            StopwatchSource::Manual(manual, start) => {
                Duration::from_nanos(manual.nanos.load(Ordering::Relaxed).saturating_sub(*start))
            }
        }
    }
}

#[cfg(all(target_os = "linux", not(larder_sim)))]
mod system {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::Timestamp;
    pub(super) use super::standard::*;

    /// Both clocks count from boot and are disciplined alike, so their readings compare.
    pub(super) fn precise() -> Timestamp {
        timestamp(clock_gettime(ClockId::Monotonic))
    }

    /// Costs a quarter of the precise read: the kernel's time as of its last tick.
    #[inline]
    pub(super) fn coarse() -> Timestamp {
        timestamp(clock_gettime(ClockId::MonotonicCoarse))
    }

    #[inline]
    #[expect(clippy::cast_sign_loss, reason = "the monotonic clock counts up from 0")]
    fn timestamp(time: Timespec) -> Timestamp {
        // In 32 bits, whose division by a constant is the cheapest, and which hold the nanoseconds of a second.
        let ms = time.tv_nsec as u32 / 1_000_000;
        Timestamp(time.tv_sec as u64 * 1_000 + u64::from(ms))
    }
}

#[cfg(not(any(target_os = "linux", larder_sim)))]
mod system {
    use std::sync::OnceLock;

    pub(super) use super::standard::*;
    use super::{Instant, Timestamp};

    pub(super) fn precise() -> Timestamp {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let since_origin = ORIGIN.get_or_init(Instant::now).elapsed();
        // From 1 on, since 0 is the deadline that is always passed.
        Timestamp(1 + u64::try_from(since_origin.as_millis()).unwrap_or(u64::MAX / 2))
    }

    pub(super) fn coarse() -> Timestamp {
        precise()
    }
}

/// The clocks of the standard library.
#[cfg(not(larder_sim))]
mod standard {
    use std::time::Instant;

    #[inline]
    pub(super) fn instant() -> Instant {
        Instant::now()
    }

    #[cfg(any(feature = "http", feature = "tiered"))]
    pub(super) fn time_of_day() -> std::time::SystemTime {
        std::time::SystemTime::now()
    }
}

/// The clocks of a simulated process.
#[cfg(larder_sim)]
mod system {
    use super::Timestamp;
    use crate::sync::sim::world;
    pub(super) use crate::sync::sim::world::instant;

    /// How often the coarse clock moves on: as rarely as [`COARSE_LAG_MS`](super::COARSE_LAG_MS) allows for.
    const TICK_MS: u64 = 10;

    /// The time of day at which every simulation begins, after 1970.
    #[cfg(any(feature = "http", feature = "tiered"))]
    const EPOCH: std::time::Duration = std::time::Duration::from_secs(1_500_000_000);

    pub(super) fn precise() -> Timestamp {
        Timestamp(1 + world::local_now() / 1_000_000)
    }

    pub(super) fn coarse() -> Timestamp {
        let Timestamp(ms) = precise();
        Timestamp((ms - ms % TICK_MS).max(1))
    }

    #[cfg(any(feature = "http", feature = "tiered"))]
    pub(super) fn time_of_day() -> std::time::SystemTime {
        std::time::UNIX_EPOCH + EPOCH + std::time::Duration::from_nanos(world::local_now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wake-up comes during the poll, whose own wait takes the thread's token along.
    #[test]
    fn a_wake_up_is_not_lost_to_a_future_that_parks_its_thread() {
        let mut polls = 0;
        let parks = std::future::poll_fn(|context: &mut Context<'_>| {
            polls += 1;
            if polls > 2 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            thread::park_timeout(Duration::from_millis(1));
            Poll::Pending
        });
        let clock = Clock::system();
        let limit = Deadline::after(clock.now(), Duration::from_secs(20));
        let stopwatch = clock.stopwatch();
        assert_eq!(clock.block_on(parks, limit), Some(()));
        assert!(stopwatch.elapsed() < Duration::from_secs(20), "the limit has ended the wait");
    }

    #[test]
    fn deadlines_round_up_and_saturate() {
        let start = Timestamp(10);
        assert_eq!(Deadline::after(start, Duration::from_micros(1)), Deadline(11));
        assert_eq!(Deadline::after(start, Duration::from_millis(5)), Deadline(15));
        assert_eq!(Deadline::after(start, Duration::MAX), Deadline::NEVER);
        assert!(Deadline(15).has_passed(Timestamp(15)) && !Deadline(15).has_passed(Timestamp(14)));
    }

    #[test]
    fn the_coarse_clock_never_runs_ahead_and_lags_by_less_than_is_allowed_for() {
        for _ in 0..10_000 {
            let coarse = system::coarse();
            let precise = system::precise();
            assert!(coarse <= precise);
        }
    }

    #[test]
    fn a_deadline_is_judged_as_by_the_precise_clock() {
        let clock = Clock::system();
        for step in 0..20_000 {
            let before = clock.now();
            let deadline = Deadline(before.0 + step % 40 - 20);
            let (judged, near) = (clock.has_passed(deadline), deadline.has_passed(clock.near(deadline)));
            let after = clock.now();
            for judged in [judged, near] {
                assert!(judged >= deadline.has_passed(before) && judged <= deadline.has_passed(after));
            }
        }
        assert!(!clock.has_passed(Deadline::NEVER) && clock.has_passed(Deadline::PASSED));
    }

    #[test]
    fn a_short_interval_begins_at_the_precise_time_and_a_long_one_never_after_it() {
        let clock = Clock::system();
        for _ in 0..20_000 {
            let before = clock.now();
            assert!(clock.about(COARSE_FROM - Duration::from_nanos(1)) >= before);
            let long = clock.about(COARSE_FROM);
            assert!(long <= clock.now());
        }
        let (clock, time) = Clock::manual();
        time.advance(Duration::from_millis(1));
        assert_eq!(clock.about(Duration::MAX), clock.now());
    }

    #[test]
    fn an_advance_wakes_a_blocked_thread_and_a_pending_future() {
        let (clock, time) = Clock::manual();
        let deadline = Deadline::after(clock.now(), Duration::from_secs(5));
        let blocked = thread::spawn({
            let clock = clock.clone();
            move || clock.block_on(std::future::pending::<()>(), deadline)
        });
        let suspended =
            thread::spawn(move || futures::executor::block_on(clock.timeout(std::future::pending::<()>(), deadline)));
        for _ in 0..5 {
            time.advance(Duration::from_secs(1));
        }
        assert_eq!(blocked.join().unwrap(), None);
        assert_eq!(suspended.join().unwrap(), None);
    }

    #[test]
    fn a_finished_wait_leaves_no_alarm_behind() {
        let (clock, time) = Clock::manual();
        let deadline = Deadline::after(clock.now(), Duration::from_secs(5));
        let mut polls = 0;
        let future = std::future::poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls < 3 { Poll::Pending } else { Poll::Ready(7) }
        });
        assert_eq!(clock.block_on(future, deadline), Some(7));
        assert!(time.0.alarms.lock().set.is_empty());
    }
}
