//! The calls that are under way, and whether they take longer than they may.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// By verb: the longest call since that was last asked for.
    longest_ns: [AtomicU64; Verb::ALL.len()],
}

impl Calls {
    /// Runs `call` on the thread with number `at`.
    pub(super) fn run<T>(&self, at: usize, verb: Verb, log: &Log, call: impl FnOnce() -> T) -> T {
        let stalled_ns = self.stalled_ns.load(Ordering::SeqCst);
        *self.under_way[at].lock().unwrap() = Some(Call { verb, began_ns: now_ns(), stalled_ns, reported: false });
        let answer = call();
        let took_ns = self.look(at, log);
        *self.under_way[at].lock().unwrap() = None;
        self.longest_ns[verb as usize].fetch_max(took_ns, Ordering::SeqCst);
        answer
    }

    /// Takes note that this process has not run for a while.
    pub(super) fn stalled(&self, for_ns: u64) {
        self.stalled_ns.fetch_add(for_ns, Ordering::SeqCst);
    }

    /// Writes down which calls are overdue, once each.
    pub(super) fn look_all(&self, log: &Log) {
        for at in 0..CALLERS {
            _ = self.look(at, log);
        }
    }

    /// Returns for how long the call of a thread has been under way, stops left out.
    fn look(&self, at: usize, log: &Log) -> u64 {
        let mut under_way = self.under_way[at].lock().unwrap();
        let Some(call) = &mut *under_way else { return 0 };
        let stalled_ns = self.stalled_ns.load(Ordering::SeqCst) - call.stalled_ns;
        let took_ns = (now_ns() - call.began_ns).saturating_sub(stalled_ns);
        if took_ns > ns(call.verb.limit() + SLACK) && !call.reported {
            call.reported = true;
            log.note(Record::Overdue { verb: call.verb as u8, began_ns: call.began_ns, took_ns });
        }
        took_ns
    }

    /// Returns the longest call of each verb since the last time.
    pub(super) fn take_longest(&self) -> impl Iterator<Item = (Verb, u64)> {
        Verb::ALL.into_iter().map(|verb| (verb, self.longest_ns[verb as usize].swap(0, Ordering::SeqCst)))
    }
}
