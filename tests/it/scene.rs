//! What many tests set up: a cache on a manual clock, threads that are known to wait, and waits that end.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use larder::{Cache, CacheBuilder, Clock, ManualClock};

/// How long a test waits for something that has to happen soon, before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns a builder with room for everything, on a manual clock, and the handle that moves it.
pub(crate) fn roomy<V: Clone + Send + Sync + 'static>() -> (CacheBuilder<u32, V>, ManualClock) {
    let (clock, time) = Clock::manual();
    (Cache::builder().capacity(1_000_000).clock(clock), time)
}

/// Waits until `condition` holds; fails after [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "this never came true: {what}");
        thread::yield_now();
    }
}

/// Runs `work` on `threads` threads that start together, and returns what each returned.
pub(crate) fn together<R: Send>(threads: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let (start, work) = (&start, &work);
        let spawn = |index| {
            scope.spawn(move || {
                start.wait();
                work(index)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs `work` on a thread of its own, and fails if it does not end within [`PATIENCE`]: for tests of deadlocks, which
/// would otherwise hang.
#[track_caller]
pub(crate) fn within_patience<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _ = done.send(work());
    });
    result.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// A gate that a loader waits at, so that a test can act while the load is under way. Every wait at it ends: where the other
/// side does not come, the test fails.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<Passage>, Condvar)>);

#[derive(Default)]
struct Passage {
    reached: bool,
    open: bool,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate::default()
    }

    /// Called by the loader: says that it has come, and waits until it may go on.
    pub(crate) fn pass(&self) {
        self.change(|passage| passage.reached = true);
        self.wait("the gate opens", |passage| passage.open);
    }

    /// Waits until the loader has come.
    pub(crate) fn reached(&self) {
        self.wait("the loader comes", |passage| passage.reached);
    }

    /// Lets the loader go on.
    pub(crate) fn open(&self) {
        self.change(|passage| passage.open = true);
    }

    fn change(&self, change: impl FnOnce(&mut Passage)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn wait(&self, what: &str, condition: impl Fn(&Passage) -> bool) {
        let passage = self.0.0.lock().unwrap();
        let (passage, _) = self.0.1.wait_timeout_while(passage, PATIENCE, |passage| !condition(passage)).unwrap();
        let came = condition(&passage);
        drop(passage);
        assert!(came, "this never came true: {what}");
    }
}

/// Hashes keys so that the shard is the key's remainder: tests choose which keys share one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByKey;

#[derive(Debug, Default)]
pub(crate) struct ByKeyHasher(u64);

impl BuildHasher for ByKey {
    type Hasher = ByKeyHasher;

    fn build_hasher(&self) -> ByKeyHasher {
        ByKeyHasher::default()
    }
}

impl Hasher for ByKeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().rev() {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0 << 40 | self.0
    }
}
