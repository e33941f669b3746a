//! Times in which a process gets no processor: nothing that it does can be on time then.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock::{now_ns, ns};
use crate::notes::Stall;

/// How long the watch sleeps.
const NAP: Duration = Duration::from_millis(5);

/// What is shorter is the everyday life of a thread.
const NOTEWORTHY: Duration = Duration::from_millis(5);

/// Watches, until it is stopped, the threads of a process whose names are `wanted`, and itself; returns when one of them was
/// ready to run and did not.
///
/// The kernel counts how long each thread was ready in vain. Where it does not tell, there is only what this thread feels.
pub fn watch(process: u32, wanted: impl Fn(&str) -> bool, stopped: &AtomicBool) -> Vec<Stall> {
    let (mut stalls, mut known) = (Vec::new(), waits(process, &wanted));
    while !stopped.load(Ordering::SeqCst) {
        let due_ns = now_ns() + ns(NAP);
        thread::sleep(NAP);
        let to_ns = now_ns();
        let mut note = |from_ns| {
            if to_ns > from_ns + ns(NOTEWORTHY) {
                stalls.push(Stall { from_ns, to_ns });
            }
        };
        note(due_ns);
        let now_known = waits(process, &wanted);
        for (thread, waited_ns) in &now_known {
            // It is counted when the thread runs again, which was a nap ago at most.
            note(to_ns - (waited_ns - known.get(thread).unwrap_or(&0)));
        }
        known = now_known;
    }
    stalls
}

/// Returns by thread for how long it was ready to run and did not, since it began.
fn waits(process: u32, wanted: &impl Fn(&str) -> bool) -> HashMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    // A thread that has ended meanwhile is none any more.
    let wait = |thread: &Path| {
        let name = fs::read_to_string(thread.join("comm")).ok()?;
        let stat = fs::read_to_string(thread.join("schedstat")).ok().filter(|_| wanted(name.trim()))?;
        stat.split(' ').nth(1)?.parse().ok()
    };
    let known = |thread: &Path| Some((thread.file_name()?.to_string_lossy().into_owned(), wait(thread)?));
    threads.filter_map(|thread| known(&thread.path())).collect()
}

/// Returns the same stalls in order and without overlaps.
#[must_use]
pub fn merge(mut stalls: Vec<Stall>) -> Vec<Stall> {
    stalls.sort_by_key(|stall| stall.from_ns);
    let mut merged = Vec::<Stall>::new();
    for stall in stalls {
        match merged.last_mut() {
            Some(last) if stall.from_ns <= last.to_ns => last.to_ns = last.to_ns.max(stall.to_ns),
            _ => merged.push(stall),
        }
    }
    merged
}
