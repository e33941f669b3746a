//! What goes wrong, and when.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use larder::sim;

use crate::history::note;
use crate::plan::Fault;
use crate::run::Stage;
use crate::server::Order;

/// Has things go wrong until told to stop.
pub struct Trouble {
    pub stage: Arc<Stage>,
}

impl Trouble {
    pub fn make(self: &Arc<Self>) {
        let faults = &self.stage.plan.faults;
        let Some(every) = faults.every_ns else { return };
        let mut random = Rng::with_seed(self.stage.plan.seed ^ 0xBAD_BAD);
        let mut healing = Vec::new();
        while !self.stage.over.load(Ordering::Relaxed) {
            sim::sleep_until(sim::now() + random.u64(..2 * every));
            let kind = faults.kinds[random.usize(..faults.kinds.len())];
            let seed = random.u64(..);
            let this = self.clone();
            healing.push(sim::spawn(sim::here(), "fault", move || this.one(kind, &mut Rng::with_seed(seed))));
        }
        healing.into_iter().for_each(sim::Joiner::join);
    }

    fn one(&self, kind: Fault, random: &mut Rng) {
        let Stage { plan, network, oracle, .. } = &*self.stage;
        let now = sim::now();
        let servers = network.servers.len();
        let first = usize::from(kind == Fault::RestartValues && servers > 1);
        let server = random.usize(first..servers);
        let (process, host) = self.stage.any(random);
        let long = if random.u8(..4) == 0 { 10 } else { 1 };
        let until = now + random.u64(..long * plan.faults.longest_ns);
        let name = format!("{kind:?} for {:.3} ms:", (until - now) as f64 / 1e6);
        let all = None;
        oracle.fault();
        match kind {
            Fault::Cut => {
                let (to, from) = [(true, false), (false, true), (true, true)][random.usize(..3)];
                note(None, format!("{name} process {process} to server {server}: {to}, from it: {from}"));
                oracle.disturbed(Some(process), until);
                network.cut(process, server, to, from);
                sim::sleep_until(until);
                network.mend(process, server);
            }
            Fault::Loss => {
                note(None, format!("{name} messages are lost"));
                network.lose_until(until);
                sim::sleep_until(until);
            }
            Fault::Slow => {
                let longest = random.u64(..2 * plan.timeout.as_nanos() as u64);
                note(None, format!("{name} ways take {:.3} ms more", longest as f64 / 1e6));
                oracle.disturbed(all, until + longest);
                network.slow_until(until, longest);
                sim::sleep_until(until + longest);
            }
            Fault::Stall => {
                note(None, format!("{name} server {server}"));
                oracle.disturbed(all, until);
                sim::pause(network.servers[server].process, until);
                sim::sleep_until(until);
            }
            Fault::Restart | Fault::RestartValues => {
                note(None, format!("{name} server {server}"));
                oracle.disturbed(all, until);
                network.servers[server].order(Order::GoDown);
                sim::sleep_until(until);
                oracle.disturbed(all, sim::now());
                network.servers[server].order(Order::ComeUp);
            }
            Fault::Flush => {
                note(None, format!("server {server} is flushed"));
                network.servers[server].order(Order::Flush);
            }
            Fault::Evict => {
                network.servers[server].order(Order::Evict(random.usize(..)));
            }
            Fault::Pause => {
                note(None, format!("{name} process {process}"));
                oracle.disturbed(Some(process), until);
                sim::pause(host, until);
                sim::sleep_until(until);
            }
            Fault::Fade => {
                // Late enough to matter, early enough for the trust lease to hold.
                let trust = plan.trust.as_nanos() as u64;
                let late = random.u64(..2 * trust.min(plan.timeout.as_nanos() as u64) / 3);
                let deaf = random.u64(trust..3 * trust);
                let (others, until) = (if random.bool() { late } else { 0 }, until.min(now + 4 * trust));
                note(None, format!("{name} process {process} hears {:.3} ms later, then nothing", late as f64 / 1e6));
                oracle.disturbed(Some(process), until + deaf + others);
                network.late_until(process, until + deaf, late, others);
                sim::sleep_until(until);
                network.cut(process, 0, true, true);
                sim::sleep_until(until + deaf);
                network.mend(process, 0);
            }
            Fault::Death => {
                if self.stage.kill(process) {
                    note(None, format!("{name} process {process} is dead"));
                    sim::sleep_until(until);
                    self.stage.start();
                }
            }
        }
    }
}
