//! `larder-sim`: many processes with caches in two tiers, their servers and their network, simulated from a seed.
//!
//! What runs is larder itself: caches, flights, the journal, its followers, leases, the outbox, queued writes. It is built with
//! `RUSTFLAGS='--cfg larder_sim'`, which puts locks, threads, queues and clocks of a simulation in the place of the system's
//! (`src/sync/sim`): one thread runs at a time, a seed decides which, and time is virtual. Each process has a clock that runs at a
//! rate of its own, and stands still when told to.
//!
//! - A [`plan`] is what a seed stands for: how many processes, how they are built, what they do, what may go wrong. About half of
//!   them have a [`theme`], which makes one kind of meeting likely.
//! - A [`server`] keeps items as memcached does, and carries out commands as they arrive; the [`network`] delays, loses, tears,
//!   repeats and reorders what is on its way, and keeps a CAS to the connection that read it. Connections are TCP's: of one, nothing
//!   is repeated that would not bear it, and nothing overtakes. What was given up may still arrive.
//! - [`faults`] cut ways in one direction or both, stall, empty and restart servers, and pause and kill processes.
//! - [`work`] is what threads of a process do: every verb, with loaders that name their groups early or late, fail, panic and are
//!   given up.
//! - The [`oracle`] knows when each value was made and each invalidation began, returned and was acknowledged, and fails on what
//!   larder promises otherwise.
//! - [`planted`] bugs show that it would.

#[cfg(larder_sim)]
mod args;
#[cfg(larder_sim)]
mod faults;
#[cfg(larder_sim)]
mod history;
#[cfg(larder_sim)]
mod network;
#[cfg(larder_sim)]
mod oracle;
#[cfg(larder_sim)]
mod plan;
#[cfg(larder_sim)]
mod planted;
#[cfg(larder_sim)]
mod run;
#[cfg(larder_sim)]
mod server;
#[cfg(larder_sim)]
mod theme;
#[cfg(larder_sim)]
mod work;

#[cfg(larder_sim)]
fn main() -> std::process::ExitCode {
    args::main()
}

#[cfg(not(larder_sim))]
fn main() -> std::process::ExitCode {
    eprintln!("larder-sim: build it with RUSTFLAGS='--cfg larder_sim'; see tests/run");
    std::process::ExitCode::from(2)
}
