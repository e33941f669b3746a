//! Who runs, and what time it is.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How many times threads may change in one simulation: far more than any that ends, so that one which does not is told of.
const MAX_TURNS: u64 = 200_000_000;

/// How long a yielding thread lets others run, at most.
const YIELD_NS: u64 = 20_000;

/// The stack of a simulated thread: there may be thousands.
const STACK: usize = 512 << 10;

/// The simulation that this process of the system runs; one at a time.
static WORLD: Mutex<Option<World>> = Mutex::new(None);
static OVER: Condvar = Condvar::new();

thread_local! {
    /// Who this thread is. Without a destructor, so that those of other thread-locals may still block.
    static ME: Cell<Option<usize>> = const { Cell::new(None) };
    /// Ends the thread, once every other destructor has run: it is the first that each thread registers.
    static LAST: Last = const { Last };
}

struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(me) = ME.get() {
            end(me);
        }
    }
}

/// What a simulation is made of.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides every choice.
    pub seed: u64,
    /// How many locks of 256 are preceded by a turn of other threads.
    pub preempt: u8,
    /// How long a turn takes at most, in nanoseconds.
    pub step_ns: u64,
    /// From which length on the journal is shortened, in bytes: less than usual, for a simulation to come to it.
    pub compact_at: usize,
    /// Is told why a simulation cannot go on, before the process ends.
    pub on_failure: fn(&str),
}

/// What became of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How often one thread followed another.
    pub turns: u64,
    /// How long it took, in its own time.
    pub took: Duration,
    /// A digest of who ran when: the same for every run of a seed.
    pub digest: u64,
}

/// A process of a simulation, with a clock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub usize);

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Lock(usize),
    Condition(usize),
    End(usize),
    Alarms(usize),
    Token,
    Time,
}

struct World {
    options: Options,
    now: u64,
    random: fastrand::Rng,
    threads: Vec<Member>,
    processes: Vec<Host>,
    ready: Vec<usize>,
    waiting: BTreeMap<Key, Vec<usize>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    next_alarm: u64,
    live: usize,
    ended: usize,
    turns: u64,
    digest: u64,
}

struct Member {
    name: String,
    process: usize,
    state: State,
    /// How often it has waited: tells the timer of an earlier wait from that of this one.
    waits: u64,
    timed_out: bool,
    /// Whether it was unparked while it ran.
    token: bool,
    is_daemon: bool,
    baton: Arc<Baton>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waits(Key),
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake { thread: usize, wait: u64 },
    Resume(usize),
}

#[derive(Default)]
struct Host {
    /// What its clock said at the beginning, and how much faster than the world's it is, in millionths.
    began: u64,
    drift_ppm: i64,
    paused_until: u64,
    /// Those that would run if it were not paused.
    held: Vec<usize>,
    /// By the moment on the world's clock.
    alarms: BTreeMap<(u64, u64), Waker>,
    has_bell: bool,
}

/// Whose turn it is.
#[derive(Default)]
struct Baton {
    mine: Mutex<bool>,
    passed: Condvar,
}

impl Baton {
    fn pass(&self) {
        *self.mine.lock() = true;
        self.passed.notify_one();
    }

    fn take(&self) {
        let mut mine = self.mine.lock();
        while !mem::take(&mut *mine) {
            self.passed.wait(&mut mine);
        }
    }
}

impl Host {
    fn local(&self, now: u64) -> u64 {
        let drift = i128::from(now) * i128::from(self.drift_ppm) / 1_000_000;
        u64::try_from(i128::from(self.began + now) + drift).unwrap_or(0)
    }

    /// Returns the first moment of the world at which this clock has come to `local`.
    fn moment(&self, local: u64) -> u64 {
        let passed = u128::from(local.saturating_sub(self.began)) * 1_000_000;
        let rate = u128::try_from(1_000_000 + self.drift_ppm).unwrap_or(1);
        let mut moment = u64::try_from(passed / rate).unwrap_or(u64::MAX);
        while self.local(moment) < local && moment < u64::MAX {
            moment += 1;
        }
        moment
    }
}

// ---- For simulations ----

/// Runs `main` and every thread that it starts to their ends, and returns what became of it.
///
/// # Panics
/// If `main` does, or a simulation runs already.
pub fn run(options: Options, main: impl FnOnce() + Send + 'static) -> Outcome {
    let world = World {
        options,
        now: 0,
        random: fastrand::Rng::with_seed(options.seed),
        threads: Vec::new(),
        processes: Vec::new(),
        ready: Vec::new(),
        waiting: BTreeMap::new(),
        events: BinaryHeap::new(),
        next_event: 0,
        next_alarm: 0,
        live: 0,
        ended: 0,
        turns: 0,
        digest: options.seed,
    };
    assert!(WORLD.lock().replace(world).is_none(), "one simulation at a time");
    process(0);
    let (first, started) = start(Process(0), "main".to_owned(), false, main);
    let mut world = WORLD.lock();
    if let Some(world) = &mut *world {
        world.ready.retain(|thread| *thread != first);
        world.threads[first].baton.pass();
    }
    while world.as_ref().is_some_and(|world| world.ended < world.threads.len()) {
        OVER.wait(&mut world);
    }
    let ended = world.take().map(|world| Outcome {
        turns: world.turns,
        took: Duration::from_nanos(world.now),
        digest: world.digest,
    });
    drop(world);
    started.join().expect("the first thread of a simulation panicked");
    ended.expect("a simulation ends once")
}

/// Adds a process, whose clock is so much faster than the world's, in millionths.
pub fn process(drift_ppm: i64) -> Process {
    with(|world| {
        let began = 1_000_000_000_000 + world.random.u64(..1_000_000_000_000);
        world.processes.push(Host { began, drift_ppm, ..Host::default() });
        Process(world.processes.len() - 1)
    })
}

/// Starts a thread of a process.
pub fn spawn(process: Process, name: &str, work: impl FnOnce() + Send + 'static) -> Joiner {
    let (id, handle) = start(process, name.to_owned(), false, work);
    drop(handle);
    Joiner(id)
}

/// A thread that may be waited for.
#[derive(Debug)]
pub struct Joiner(usize);

impl Joiner {
    /// Waits until the thread has ended.
    pub fn join(self) {
        join(self.0);
    }
}

/// Returns the time of the world, in nanoseconds since its beginning.
#[must_use]
pub fn now() -> u64 {
    with(|world| world.now)
}

/// Returns the process of this thread.
#[must_use]
pub fn here() -> Process {
    with(|world| Process(world.threads[me()].process))
}

/// Returns a random number that the seed decides.
#[must_use]
pub fn random() -> u64 {
    with(|world| world.random.u64(..))
}

/// Waits until a moment of the world.
pub fn sleep_until(moment: u64) {
    _ = block(Key::Time, Some(moment));
}

/// Has no thread of a process run until a moment of the world.
pub fn pause(process: Process, until: u64) {
    with(|world| {
        let host = &mut world.processes[process.0];
        host.paused_until = host.paused_until.max(until);
        let (held, ready) = mem::take(&mut world.ready)
            .into_iter()
            .partition(|thread: &usize| world.threads[*thread].process == process.0);
        world.ready = ready;
        world.processes[process.0].held.extend::<Vec<usize>>(held);
        world.at(until, Event::Resume(process.0));
    });
}

/// Lets a paused process run.
pub fn resume(process: Process) {
    with(|world| {
        world.processes[process.0].paused_until = world.now;
        let held = mem::take(&mut world.processes[process.0].held);
        world.ready.extend(held);
    });
}

/// Has no thread of a process run any more, wherever it is: nothing is unwound, nothing dropped, and each thread of the system
/// is kept for as long as the system's process lives. Not for the process of the thread that calls this.
pub fn kill(process: Process) {
    with(|world| {
        let is_its_own = |member: &Member| member.process == process.0 && member.state != State::Ended;
        let dead: Vec<usize> = (0..world.threads.len()).filter(|id| is_its_own(&world.threads[*id])).collect();
        world.ready.retain(|id| !dead.contains(id));
        world.processes[process.0].held.clear();
        for id in dead {
            if let State::Waits(key) = world.threads[id].state
                && let Some(waiting) = world.waiting.get_mut(&key)
            {
                waiting.retain(|other| *other != id);
                if waiting.is_empty() {
                    world.waiting.remove(&key);
                }
            }
            world.ends(id);
        }
    });
}

/// Returns from which length on the journal is shortened.
pub(crate) fn compact_at() -> usize {
    with(|world| world.options.compact_at)
}

/// Ends the process of the system, after saying why.
pub fn fail(why: &str) -> ! {
    let on_failure = WORLD.lock().as_ref().map(|world| world.options.on_failure);
    if let Some(tell) = on_failure {
        tell(why);
    }
    std::process::exit(1)
}

// ---- For locks, threads and queues ----

fn me() -> usize {
    ME.get().expect("only threads of a simulation use its locks and clocks")
}

/// Returns whether this thread belongs to a simulation.
pub(super) fn is_inside() -> bool {
    ME.get().is_some()
}

fn with<R>(look: impl FnOnce(&mut World) -> R) -> R {
    look(WORLD.lock().as_mut().expect("a simulation runs"))
}

/// Gives way to others now and then.
pub(super) fn maybe_yield() {
    let Some(me) = ME.get() else { return };
    let mut world = WORLD.lock();
    let Some(inner) = &mut *world else { return };
    if inner.random.u8(..) < inner.options.preempt {
        inner.make_ready(me);
        switch(world, me);
    }
}

/// Lets others run for a moment.
pub(super) fn yield_now() {
    let until = with(|world| world.now + 1 + world.random.u64(..YIELD_NS));
    _ = block(Key::Time, Some(until));
}

/// Waits until somebody [`wake`]s those who wait for `key`, or until a moment of the world. Returns whether it was the former.
pub(super) fn block(key: Key, until: Option<u64>) -> bool {
    let me = me();
    let mut world = WORLD.lock();
    let inner = world.as_mut().expect("a simulation runs");
    if key == Key::Token && mem::take(&mut inner.threads[me].token) {
        return true;
    }
    let member = &mut inner.threads[me];
    member.state = State::Waits(key);
    member.waits += 1;
    member.timed_out = false;
    let wait = member.waits;
    if !matches!(key, Key::Token | Key::Time) {
        inner.waiting.entry(key).or_default().push(me);
    }
    if let Some(until) = until {
        inner.at(until, Event::Wake { thread: me, wait });
    }
    switch(world, me);
    with(|world| !world.threads[me].timed_out)
}

/// Wakes who waits for `key`: everybody, or one.
pub(super) fn wake(key: Key, everybody: bool) {
    let mut world = WORLD.lock();
    let Some(world) = &mut *world else { return };
    let Some(waiting) = world.waiting.get_mut(&key) else { return };
    let woken =
        if everybody { mem::take(waiting) } else { vec![waiting.swap_remove(world.random.usize(..waiting.len()))] };
    if waiting.is_empty() {
        world.waiting.remove(&key);
    }
    woken.into_iter().for_each(|thread| world.make_ready(thread));
}

pub(super) fn unpark(thread: usize) {
    with(|world| match world.threads[thread].state {
        State::Waits(Key::Token) => world.make_ready(thread),
        _ => world.threads[thread].token = true,
    });
}

pub(super) fn current() -> usize {
    me()
}

pub(super) fn join(thread: usize) {
    while with(|world| world.threads[thread].state != State::Ended) {
        _ = block(Key::End(thread), None);
    }
}

/// Starts a thread of the process that this one belongs to.
pub(super) fn start_here<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> (usize, std::thread::JoinHandle<T>) {
    start(here(), name, false, work)
}

fn start<T: Send + 'static>(
    process: Process,
    name: String,
    is_daemon: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> (usize, std::thread::JoinHandle<T>) {
    let (id, enter) = enroll(process, name, is_daemon);
    let thread = std::thread::Builder::new().stack_size(STACK);
    let handle = thread.spawn(move || {
        enter();
        work()
    });
    (id, handle.expect("the system has a thread"))
}

/// Adds a thread, and returns what it has to do first.
pub(super) fn enroll(process: Process, name: String, is_daemon: bool) -> (usize, impl FnOnce() + Send + 'static) {
    let baton = Arc::<Baton>::default();
    let (id, seed) = with(|world| {
        let id = world.threads.len();
        world.threads.push(Member {
            name,
            process: process.0,
            state: State::Ready,
            waits: 0,
            timed_out: false,
            token: false,
            is_daemon,
            baton: baton.clone(),
        });
        world.live += usize::from(!is_daemon);
        world.make_ready(id);
        (id, world.random.u64(..))
    });
    let enter = move || {
        LAST.with(|_| ());
        ME.set(Some(id));
        baton.take();
        fastrand::seed(seed);
    };
    (id, enter)
}

fn end(me: usize) {
    let mut world = WORLD.lock();
    let Some(inner) = &mut *world else { return };
    inner.ends(me);
    if inner.live == 0 {
        // Those who ring alarms have nobody left to ring for.
        let bells: Vec<_> = inner.waiting.keys().copied().filter(|key| matches!(key, Key::Alarms(_))).collect();
        for bell in bells {
            let ringing = inner.waiting.remove(&bell).unwrap_or_default();
            ringing.into_iter().for_each(|thread| inner.make_ready(thread));
        }
    }
    if inner.ended == inner.threads.len() {
        OVER.notify_all();
        return;
    }
    let next = pick(&mut world);
    let baton = world.as_ref().map(|world| world.threads[next].baton.clone());
    drop(world);
    baton.iter().for_each(|baton| baton.pass());
}

/// Has another thread run, and returns when it is this one's turn again.
fn switch(mut world: MutexGuard<'_, Option<World>>, me: usize) {
    let next = pick(&mut world);
    if next == me {
        return;
    }
    let inner = world.as_ref().expect("a simulation runs");
    let (theirs, mine) = (inner.threads[next].baton.clone(), inner.threads[me].baton.clone());
    drop(world);
    theirs.pass();
    mine.take();
}

fn pick(world: &mut MutexGuard<'_, Option<World>>) -> usize {
    let inner = world.as_mut().expect("a simulation runs");
    match inner.pick() {
        Some(next) => next,
        None => {
            let why = inner.stuck();
            MutexGuard::unlocked(world, || fail(&why))
        }
    }
}

impl World {
    fn at(&mut self, moment: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((moment, self.next_event, event)));
    }

    /// Notes that a thread has ended, and wakes who waits for that.
    fn ends(&mut self, thread: usize) {
        self.threads[thread].state = State::Ended;
        self.ended += 1;
        self.live -= usize::from(!self.threads[thread].is_daemon);
        let joiners = self.waiting.remove(&Key::End(thread)).unwrap_or_default();
        joiners.into_iter().for_each(|thread| self.make_ready(thread));
    }

    fn make_ready(&mut self, thread: usize) {
        self.threads[thread].state = State::Ready;
        let host = &mut self.processes[self.threads[thread].process];
        if host.paused_until > self.now {
            host.held.push(thread);
        } else {
            self.ready.push(thread);
        }
    }

    fn pick(&mut self) -> Option<usize> {
        self.turns += 1;
        if self.turns > MAX_TURNS {
            return None;
        }
        self.now += self.random.u64(..=self.options.step_ns);
        loop {
            self.pass_time();
            if !self.ready.is_empty() {
                let next = self.ready.swap_remove(self.random.usize(..self.ready.len()));
                self.digest =
                    (self.digest ^ self.now ^ (next as u64) << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
                return Some(next);
            }
            let Reverse((moment, ..)) = self.events.peek()?;
            self.now = self.now.max(*moment);
        }
    }

    /// Does what was to happen by now, and forgets what is to come and concerns nobody any more.
    fn pass_time(&mut self) {
        while let Some(&Reverse((moment, _, event))) = self.events.peek() {
            let is_stale = match event {
                Event::Wake { thread, wait } => {
                    let member = &self.threads[thread];
                    member.waits != wait || !matches!(member.state, State::Waits(_))
                }
                Event::Resume(process) => self.processes[process].paused_until != moment,
            };
            if !is_stale && moment > self.now {
                return;
            }
            self.events.pop();
            match event {
                _ if is_stale => {}
                Event::Wake { thread, .. } => {
                    if let State::Waits(key) = self.threads[thread].state
                        && let Some(waiting) = self.waiting.get_mut(&key)
                    {
                        waiting.retain(|other| *other != thread);
                        if waiting.is_empty() {
                            self.waiting.remove(&key);
                        }
                    }
                    self.threads[thread].timed_out = true;
                    self.make_ready(thread);
                }
                Event::Resume(process) => {
                    let held = mem::take(&mut self.processes[process].held);
                    self.ready.extend(held);
                }
            }
        }
    }

    fn stuck(&self) -> String {
        use std::fmt::Write;
        let mut why = if self.turns > MAX_TURNS {
            format!("no end after {MAX_TURNS} turns:")
        } else {
            "all threads wait, and nothing will wake them:".to_owned()
        };
        for (id, member) in self.threads.iter().enumerate().filter(|(_, member)| member.state != State::Ended) {
            _ = write!(why, "\n  thread {id} `{}` of process {}: {:?}", member.name, member.process, member.state);
        }
        why
    }
}

// ---- Time ----

/// Returns what the clock of this thread's process says, in nanoseconds. Outside of a simulation it stands still.
pub(crate) fn local_now() -> u64 {
    let Some(me) = ME.get() else { return 0 };
    with(|world| world.processes[world.threads[me].process].local(world.now))
}

/// Returns the moment of the world at which the clock of this thread's process will say `local`.
pub(super) fn moment(local: u64) -> u64 {
    let me = me();
    with(|world| world.processes[world.threads[me].process].moment(local))
}

/// An instant that every instant of a simulation is counted from: the standard library makes none but by reading a clock.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Returns the instant of this thread's process.
pub(crate) fn instant() -> Instant {
    origin() + Duration::from_nanos(local_now())
}

/// Returns the moment of the world that an instant of this process is.
pub(super) fn moment_of(instant: Instant) -> u64 {
    let local = u64::try_from(instant.saturating_duration_since(origin()).as_nanos()).unwrap_or(u64::MAX);
    moment(local)
}

/// Returns the moment of the world that is `interval` from now on the clock of this process; `None` for one that never comes.
pub(super) fn moment_after(interval: Duration) -> Option<u64> {
    let local = local_now().checked_add(u64::try_from(interval.as_nanos()).ok()?)?;
    // Later than any simulation: its arithmetic would overflow.
    (local < 1 << 60).then(|| moment(local))
}

/// Resolves after an interval of the process that polls it first.
#[derive(Debug)]
pub struct Delay {
    moment: Option<u64>,
    /// Of which process, and under which number, a waker waits.
    set: Option<(usize, u64)>,
}

impl Delay {
    /// Makes one that begins now.
    #[must_use]
    pub fn new(interval: Duration) -> Delay {
        Delay { moment: moment_after(interval), set: None }
    }

    fn unset(&mut self) {
        if let (Some((process, number)), Some(moment)) = (self.set.take(), self.moment) {
            let waker = with(|world| world.processes[process].alarms.remove(&(moment, number)));
            drop(waker);
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(moment) = self.moment else { return Poll::Pending };
        self.unset();
        let process = here().0;
        let waker = context.waker().clone();
        let set = with(|world| {
            if moment <= world.now {
                return None;
            }
            world.next_alarm += 1;
            let number = world.next_alarm;
            let host = &mut world.processes[process];
            host.alarms.insert((moment, number), waker);
            let is_first = !mem::replace(&mut host.has_bell, true);
            Some((number, is_first))
        });
        let Some((number, is_first)) = set else { return Poll::Ready(()) };
        self.set = Some((process, number));
        if is_first {
            drop(start(Process(process), "alarms".to_owned(), true, move || ring(process)));
        } else {
            wake(Key::Alarms(process), true);
        }
        Poll::Pending
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.unset();
    }
}

/// Wakes those whose alarms are due, until the simulation is over.
fn ring(process: usize) {
    loop {
        let (due, next, is_over) = with(|world| {
            let later = world.processes[process].alarms.split_off(&(world.now + 1, 0));
            let due = mem::replace(&mut world.processes[process].alarms, later);
            let next = world.processes[process].alarms.keys().next().map(|(moment, _)| *moment);
            (due, next, world.live == 0)
        });
        if is_over {
            return;
        }
        if due.is_empty() {
            _ = block(Key::Alarms(process), next);
        }
        due.into_values().for_each(Waker::wake);
    }
}
