//! The calls that are under way, and whether they take longer than they may.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use shared::clock::{now_ns, ns};

use super::CALLERS;
use super::log::Log;
use crate::record::Record;
use crate::verb::{SLACK, Verb};

#[derive(Clone, Copy, Debug)]
struct Call {
    verb: Verb,
    began_ns: u64,
    /// For how long this process had not run by then.
    stalled_ns: u64,
    reported: bool,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By thread.
    under_way: [Mutex<Option<Call>>; CALLERS],
    /// For how long this process has not run, as far as it noticed.
    stalled_ns: AtomicU64,
    /// How often it was looked whether the process runs.
    beats: AtomicU64,
    /// By verb: the longest call since that was last asked for.
    longest_ns: [AtomicU64; Verb::ALL.len()],
}

impl Calls {
    /// Runs `call` on the thread with number `at`.
    pub(super) fn run<T>(&self, at: usize, verb: Verb, log: &Log, call: impl FnOnce() -> T) -> T {
        let stalled_ns = self.stalled_ns.load(Ordering::SeqCst);
        *self.under_way[at].lock().unwrap() = Some(Call { verb, began_ns: now_ns(), stalled_ns, reported: false });
        let answer = call();
        let ended_ns = now_ns();
        if self.took_ns(at, ended_ns) > limit_ns(verb) {
            // Where this thread is the first to go on after a stop, the one that notices stops has not had the time to.
            let beats = self.beats.load(Ordering::SeqCst);
            while self.beats.load(Ordering::SeqCst) < beats + 2 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.look(at, ended_ns, log);
        self.longest_ns[verb as usize].fetch_max(self.took_ns(at, ended_ns), Ordering::SeqCst);
        *self.under_way[at].lock().unwrap() = None;
        answer
    }

    /// Takes note that this process has not run for so long, which may be not at all.
    pub(super) fn beat(&self, stalled_ns: u64) {
        self.stalled_ns.fetch_add(stalled_ns, Ordering::SeqCst);
        self.beats.fetch_add(1, Ordering::SeqCst);
    }

    /// Writes down which calls are overdue, once each.
    pub(super) fn look_all(&self, log: &Log) {
        (0..CALLERS).for_each(|at| self.look(at, now_ns(), log));
    }

    fn look(&self, at: usize, at_ns: u64, log: &Log) {
        let took_ns = self.took_ns(at, at_ns);
        if let Some(Call { verb, began_ns, reported, .. }) = &mut *self.under_way[at].lock().unwrap()
            && took_ns > limit_ns(*verb)
            && !std::mem::replace(reported, true)
        {
            log.note(Record::Overdue { verb: *verb as u8, began_ns: *began_ns, took_ns });
        }
    }

    /// Returns for how long the call of a thread had been under way at some time, stops left out.
    fn took_ns(&self, at: usize, at_ns: u64) -> u64 {
        let Some(call) = *self.under_way[at].lock().unwrap() else { return 0 };
        let stalled_ns = self.stalled_ns.load(Ordering::SeqCst) - call.stalled_ns;
        at_ns.saturating_sub(call.began_ns).saturating_sub(stalled_ns)
    }

    /// Returns the longest call of each verb since the last time.
    pub(super) fn take_longest(&self) -> impl Iterator<Item = (Verb, u64)> {
        Verb::ALL.into_iter().map(|verb| (verb, self.longest_ns[verb as usize].swap(0, Ordering::SeqCst)))
    }
}

fn limit_ns(verb: Verb) -> u64 {
    ns(verb.limit() + SLACK)
}
