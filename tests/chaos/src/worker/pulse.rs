//! What a process tells of itself: that it runs, what it has done, and what went wrong.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use shared::clock::{now_ns, ns};

use super::desk::Desk;
use crate::plant::Plant;
use crate::record::Record;
use crate::verb::TIMEOUT;

/// How often it looks whether it runs.
const NAP: Duration = Duration::from_millis(10);

/// What is shorter is the everyday life of a thread.
const NOTEWORTHY: Duration = Duration::from_millis(40);

/// How many naps are between two times that it tells.
const NAPS: u32 = 10;

/// How much a leak leaves behind at a time: enough to be noticed within a short run.
const LEAK: usize = 16 << 20;

/// Writes down that something panics, whoever catches it.
pub(super) fn note_panics(desk: &Arc<Desk>) {
    let (desk, usual) = (Arc::clone(desk), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        desk.log.note(Record::Panicked);
        usual(info);
    }));
}

/// Tells for as long as the process lives.
pub(super) fn beat(desk: &Desk) {
    let (mut told, mut told_at_ns) = (Failures::default(), now_ns());
    let mut longest_look_ns = 0;
    loop {
        for _ in 0..NAPS {
            let due_ns = now_ns() + ns(NAP);
            thread::sleep(NAP);
            let now = now_ns();
            let stalled_ns = if now > due_ns + ns(NOTEWORTHY) { now - due_ns } else { 0 };
            // First, so that no call is taken to be late for it.
            desk.calls.beat(stalled_ns);
            if stalled_ns > 0 {
                desk.log.note(Record::Stalled { from_ns: due_ns, to_ns: now });
            }
            longest_look_ns = longest_look_ns.max(desk.look_age_ns().unwrap_or(0));
        }
        misbehave(desk);
        desk.calls.look_all(&desk.log);
        let failures = Failures::of(desk);
        let now = now_ns();
        if failures.count > told.count {
            // What has failed by now may have begun as long ago as it may take.
            desk.log.note(Record::Troubled { from_ns: told_at_ns - ns(2 * TIMEOUT), to_ns: now });
        }
        let take = |count: &std::sync::atomic::AtomicU64| count.swap(0, Ordering::Relaxed) as u32;
        desk.log.note(Record::Done {
            reads: take(&desk.counts.reads),
            loads: take(&desk.counts.loads),
            bumps: take(&desk.counts.bumps),
            failures: (failures.count - told.count) as u32,
            resyncs: (failures.resyncs - told.resyncs) as u32,
            pending: desk.counts.pending.load(Ordering::Relaxed) as u32,
        });
        for (verb, call_ns) in desk.calls.take_longest().filter(|(_, call_ns)| *call_ns > 0) {
            desk.log.note(Record::Longest { look_ns: longest_look_ns, verb: verb as u8, call_ns });
        }
        (told, told_at_ns, longest_look_ns) = (failures, now, 0);
    }
}

/// What larder has counted of what the remote tier did not do.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u64,
    resyncs: u64,
}

impl Failures {
    fn of(desk: &Desk) -> Failures {
        let health = desk.namespace.health();
        let errors = [&desk.pages, &desk.singles].map(|cache| cache.remote_stats().errors);
        let count = health.failed_looks + health.timeouts + health.queue_full + errors.iter().sum::<u64>();
        Failures { count, resyncs: health.resyncs }
    }
}

fn misbehave(desk: &Desk) {
    match desk.settings.plant {
        Some(Plant::Leak) => std::mem::forget(std::hint::black_box(vec![1_u8; LEAK])),
        Some(Plant::Panic) if fastrand::u8(..20) == 0 => drop(thread::Builder::new().spawn(|| panic!("planted"))),
        _ => {}
    }
}
