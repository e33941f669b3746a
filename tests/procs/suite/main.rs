//! The acceptance tests of larder: real memcached servers, real processes, and what goes wrong between them.
//!
//! Workers are processes (`worker/`) that do what a test orders them to. `LARDER_PROCS_BUMPS` sets how many bumps the quiet
//! run makes (default: 10,000), and the others make a part of as many.

mod apart;
mod bound;
mod crew;
mod faults;
mod history;
mod news;
mod one_load;
mod oracle;
mod proxy;
mod removal;
mod scene;
mod script;
mod signals;
mod starved;
#[expect(dead_code, reason = "fake servers are for the integration tests")]
#[path = "../../it/support/mod.rs"]
mod support;
mod verdict;
