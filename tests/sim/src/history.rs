//! What happened, for whoever has to find out why.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::sim;

/// Of a process, or of the world.
static LINES: std::sync::Mutex<Vec<(u64, Option<usize>, String)>> = std::sync::Mutex::new(Vec::new());

/// Whether every exchange is noted, too.
static DETAILED: AtomicBool = AtomicBool::new(false);

/// Has every exchange noted from now on.
pub fn detail() {
    DETAILED.store(true, Ordering::Relaxed);
}

/// Notes what only who looks closely wants to know.
pub fn note_detail(process: Option<usize>, what: impl FnOnce() -> String) {
    if DETAILED.load(Ordering::Relaxed) {
        note(process, what());
    }
}

/// Notes what happens.
pub fn note(process: Option<usize>, what: String) {
    // Not one of the simulation's locks: to note something is no turn of another thread.
    LINES.lock().unwrap().push((sim::now(), process, what));
}

/// Forgets what happened.
pub fn clear() {
    LINES.lock().unwrap().clear();
}

/// Writes all of it down.
pub fn print() {
    let mut out = std::io::stderr().lock();
    for (moment, process, what) in LINES.lock().unwrap().iter() {
        let who = process.map_or("-".to_owned(), |process| format!("p{process}"));
        _ = writeln!(out, "{:>14.6} ms  {who:>4}  {what}", *moment as f64 / 1e6);
    }
}

/// Returns a digest of all of it.
pub fn digest() -> u64 {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    hasher.hash_one(&*LINES.lock().unwrap())
}
