//! Signals to a memcached, by its process.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::memcached::Server;

/// Stops the process where it stands, until the guard is dropped: connections stay open, and nobody answers.
pub(crate) fn freeze(server: &Server) -> Frozen {
    let process = process_of(server);
    kill_process(process, Signal::STOP).expect("stop memcached");
    Frozen(process)
}

pub(crate) fn process_of(server: &Server) -> Pid {
    let answer = server.ask("stats");
    let process = answer.trim().strip_prefix("STAT pid ").and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    process.unwrap_or_else(|| panic!("memcached does not tell its pid: {answer}"))
}

pub(crate) struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).expect("let memcached go on");
    }
}
