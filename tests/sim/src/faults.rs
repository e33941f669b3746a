//! What goes wrong, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use larder::sim;

use crate::history::note;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::plan::{Fault, MS, Plan};
use crate::server::Order;

/// Has things go wrong until told to stop.
pub struct Trouble {
    pub plan: Plan,
    pub network: Arc<Network>,
    pub processes: Vec<sim::Process>,
    pub oracle: Arc<Oracle>,
    pub over: Arc<AtomicBool>,
}

impl Trouble {
    pub fn make(self: &Arc<Self>) {
        let Some(every) = self.plan.faults.every_ns else { return };
        let mut random = Rng::with_seed(self.plan.seed ^ 0xBAD_BAD);
        let mut healing = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            sim::sleep_until(sim::now() + random.u64(..2 * every));
            let kind = self.plan.faults.kinds[random.usize(..self.plan.faults.kinds.len())];
            let seed = random.u64(..);
            let this = self.clone();
            healing.push(sim::spawn(sim::here(), "fault", move || this.one(kind, &mut Rng::with_seed(seed))));
        }
        healing.into_iter().for_each(sim::Joiner::join);
    }

    fn one(&self, kind: Fault, random: &mut Rng) {
        let now = sim::now();
        let server = random.usize(..self.network.servers.len());
        let process = random.usize(..self.processes.len());
        let long = if random.u8(..4) == 0 { 10 } else { 1 };
        let until = now + random.u64(..long * 400 * MS);
        let name = format!("{kind:?} for {:.3} ms:", (until - now) as f64 / 1e6);
        let all = None;
        self.oracle.fault();
        match kind {
            Fault::Cut => {
                let (to, from) = [(true, false), (false, true), (true, true)][random.usize(..3)];
                note(None, format!("{name} process {process} to server {server}: {to}, from it: {from}"));
                self.oracle.disturbed(Some(process), until);
                self.network.cut(process, server, to, from);
                sim::sleep_until(until);
                self.network.mend(process, server);
            }
            Fault::Loss => {
                note(None, format!("{name} messages are lost"));
                self.network.lose_until(until);
                sim::sleep_until(until);
            }
            Fault::Slow => {
                let longest = random.u64(..2 * self.plan.timeout.as_nanos() as u64);
                note(None, format!("{name} ways take {:.3} ms more", longest as f64 / 1e6));
                self.oracle.disturbed(all, until + longest);
                self.network.slow_until(until, longest);
                sim::sleep_until(until + longest);
            }
            Fault::Stall => {
                note(None, format!("{name} server {server}"));
                self.oracle.disturbed(all, until);
                sim::pause(self.network.servers[server].process, until);
                sim::sleep_until(until);
            }
            Fault::Restart => {
                note(None, format!("{name} server {server}"));
                self.oracle.disturbed(all, until);
                self.network.servers[server].order(Order::GoDown);
                sim::sleep_until(until);
                self.oracle.disturbed(all, sim::now());
                self.network.servers[server].order(Order::ComeUp);
            }
            Fault::Flush => {
                note(None, format!("server {server} is flushed"));
                self.network.servers[server].order(Order::Flush);
            }
            Fault::Evict => {
                self.network.servers[server].order(Order::Evict(random.usize(..)));
            }
            Fault::Pause => {
                note(None, format!("{name} process {process}"));
                self.oracle.disturbed(Some(process), until);
                sim::pause(self.processes[process], until);
                sim::sleep_until(until);
            }
        }
    }
}
