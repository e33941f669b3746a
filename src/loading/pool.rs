//! The threads that run loads in the background.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;

use crate::load::BoxFuture;
use crate::sync::{Arc, AtomicUsize, Condvar, Mutex, Ordering, thread, thread_local};
use crate::task::{Home, Task};

/// How many background loads of one cache may be under way, those that wait for a thread among them. Each holds a claim and
/// what its loader keeps; a source that is so far behind is not helped by more.
pub(crate) const MAX_LOADS: usize = 4_096;

/// The most threads that a cache may load by. Loads that wait for something else than the processor are futures.
pub(crate) const MAX_THREADS: usize = 1_024;

/// Lets one load be under way in the background.
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An executor for loads, blocking ones and futures alike. Dropping it ends its threads and drops its loads, and waits for
/// neither: a loader that blocks keeps its thread until it returns.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    /// How many permits there are.
    under_way: Arc<AtomicUsize>,
}

struct Shared {
    threads: usize,
    state: Mutex<State>,
    /// There is something to run, or nothing will be any more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Each task at most once, so no more than there are permits.
    ready: VecDeque<Arc<Task<Member>>>,
    /// All that have not ended, for the pool to end them.
    tasks: HashMap<u64, Arc<Task<Member>>, ahash::RandomState>,
    last_id: u64,
    running_threads: usize,
    idle_threads: usize,
    is_stopped: bool,
}

/// A task's place in the pool.
struct Member {
    pool: Arc<Shared>,
    id: u64,
}

thread_local! {
    /// The pool that this thread belongs to, by its address; 0 for none.
    static POOL: Cell<usize> = const { Cell::new(0) };
}

impl Pool {
    /// Returns a pool of at most `threads`, which are started as there are loads for them.
    pub(crate) fn new(threads: usize) -> Pool {
        Pool {
            shared: Arc::new(Shared { threads, state: Mutex::default(), changed: Condvar::new() }),
            under_way: Arc::default(),
        }
    }

    /// Returns the right to begin a load; `None` where there are too many.
    pub(crate) fn permit(&self) -> Option<Permit> {
        // Relaxed: it counts and orders nothing.
        if self.under_way.fetch_add(1, Ordering::Relaxed) < MAX_LOADS {
            return Some(Permit(self.under_way.clone()));
        }
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Returns whether the calling thread is one of this pool: if all of them waited for what the pool has yet to run, none
    /// would be left to run it.
    pub(crate) fn is_mine(&self) -> bool {
        POOL.with(Cell::get) == self.shared.address()
    }

    /// Runs a future, which owns a [`Permit`]. Where not even one thread can be started, it is dropped.
    pub(crate) fn spawn(&self, future: BoxFuture) {
        let mut state = self.shared.state.lock();
        state.last_id += 1;
        let member = Member { pool: self.shared.clone(), id: state.last_id };
        let id = member.id;
        let task = Task::new(member, future);
        state.tasks.insert(id, task.clone());
        drop(state);
        std::task::Wake::wake(task);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Home for Member {
    fn send(&self, task: Arc<Task<Self>>) {
        self.pool.push(task);
    }

    fn ended(&self) {
        let ended = self.pool.state.lock().tasks.remove(&self.id);
        drop(ended);
    }
}

impl Shared {
    fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    fn push(self: &Arc<Self>, task: Arc<Task<Member>>) {
        let mut state = self.state.lock();
        if state.is_stopped {
            drop(state);
            return task.cancel();
        }
        state.ready.push_back(task);
        let starts = state.ready.len() > state.idle_threads && state.running_threads < self.threads;
        if starts {
            state.running_threads += 1;
        }
        let number = state.running_threads;
        drop(state);
        if starts {
            self.start(number);
        }
        self.changed.notify_one();
    }

    fn start(self: &Arc<Self>, number: usize) {
        let pool = self.clone();
        let started = thread::Builder::new().name(format!("larder-load-{number}")).spawn(move || pool.work());
        if let Err(error) = started {
            super::report(format_args!("no thread to load by: {error}"));
            let mut state = self.state.lock();
            state.running_threads -= 1;
            // Without any thread nothing would ever run: whoever waits is told so.
            let stranded =
                if state.running_threads == 0 { std::mem::take(&mut state.tasks) } else { HashMap::default() };
            drop(state);
            stranded.values().for_each(|task| task.cancel());
        }
    }

    fn work(self: Arc<Self>) {
        POOL.with(|pool| pool.set(self.address()));
        let mut state = self.state.lock();
        while !state.is_stopped {
            match state.ready.pop_front() {
                Some(task) => {
                    drop(state);
                    task.run();
                    drop(task);
                    state = self.state.lock();
                }
                None => {
                    state.idle_threads += 1;
                    self.changed.wait(&mut state);
                    state.idle_threads -= 1;
                }
            }
        }
    }

    fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        let (ready, tasks) = (std::mem::take(&mut state.ready), std::mem::take(&mut state.tasks));
        drop(state);
        self.changed.notify_all();
        drop(ready);
        tasks.values().for_each(|task| task.cancel());
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.shared.state.lock().running_threads;
        let under_way = self.under_way.load(Ordering::Relaxed);
        f.debug_struct("Pool").field("threads", &threads).field("under_way", &under_way).finish()
    }
}
