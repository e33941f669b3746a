//! Which fault comes next, to whom, and for how long: drawn from a seed.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use crate::fault::Fault;
use crate::proxy::Weather;

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mishap {
    pub(crate) fault: Fault,
    pub(crate) target: Target,
    pub(crate) lasts: Duration,
    /// What becomes of the lines, where it is about lines.
    pub(crate) weather: Weather,
    /// How many percent of their connections are hit.
    pub(crate) percent: u8,
}

/// What a fault happens to. Nothing has two at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Process(usize),
    Server(usize),
    /// Pairs of process and server.
    Lines(Vec<(usize, usize)>),
}

impl Target {
    pub(crate) fn overlaps(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Process(one), Target::Process(other)) | (Target::Server(one), Target::Server(other)) => {
                one == other
            }
            (Target::Lines(lines), Target::Lines(others)) => lines.iter().any(|line| others.contains(line)),
            _ => false,
        }
    }
}

pub(crate) struct Plan {
    random: Rng,
    faults: Vec<Fault>,
    processes: usize,
    servers: usize,
    /// Those that have not been drawn since all were.
    due: Vec<Fault>,
}

impl Plan {
    pub(crate) fn new(seed: u64, faults: &[Fault], processes: usize, servers: usize) -> Plan {
        Plan { random: Rng::with_seed(seed), faults: faults.to_vec(), processes, servers, due: Vec::new() }
    }

    /// Returns how long nothing new happens.
    pub(crate) fn pause(&mut self) -> Duration {
        self.time(50..900)
    }

    /// Draws a fault, if there are any: each kind once before one comes again.
    pub(crate) fn draw(&mut self) -> Option<Mishap> {
        if self.due.is_empty() {
            self.due.clone_from(&self.faults);
            self.random.shuffle(&mut self.due);
        }
        let fault = self.due.pop()?;
        let server = self.random.usize(..self.servers);
        let (target, lasts) = match fault {
            Fault::Kill => (self.process(), self.time(0..800)),
            // At times for longer than a lease.
            Fault::Pause => (self.process(), self.time(100..3_500)),
            Fault::Crash => (Target::Server(server), self.time(100..2_500)),
            Fault::Bounce | Fault::Flush => (Target::Server(server), Duration::ZERO),
            Fault::Freeze => (Target::Server(server), self.time(50..2_500)),
            Fault::Starve => (Target::Server(server), self.time(1_500..3_000)),
            Fault::Crowd => (Target::Server(server), self.time(500..2_500)),
            _ => (self.lines(server), self.time(200..3_000)),
        };
        let percent = if self.random.u8(..3) == 0 { self.random.u8(20..80) } else { 100 };
        Some(Mishap { fault, target, lasts, weather: self.weather(fault), percent })
    }

    fn process(&mut self) -> Target {
        Target::Process(self.random.usize(..self.processes))
    }

    /// Returns the lines of one process to a server or to all, or those of all processes to a server.
    fn lines(&mut self, server: usize) -> Target {
        let process = self.random.usize(..self.processes);
        Target::Lines(match self.random.u8(..4) {
            0 => (0..self.processes).map(|process| (process, server)).collect(),
            1 => vec![(process, server)],
            _ => (0..self.servers).map(|server| (process, server)).collect(),
        })
    }

    fn weather(&mut self, fault: Fault) -> Weather {
        match fault {
            // From what is hardly noticed to nearly as long as anybody waits.
            Fault::Delay => Weather::Delay(self.time(2..450)),
            Fault::Cut => Weather::Cut,
            Fault::Hold => Weather::Hold,
            Fault::Mute => Weather::Mute,
            Fault::Deaf => Weather::Deaf,
            Fault::Throttle => Weather::Throttle(self.random.u32(2_000..200_000)),
            Fault::Garble => Weather::Garble,
            Fault::Scramble => Weather::Scramble,
            _ => Weather::Fair,
        }
    }

    fn time(&mut self, ms: Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_plan_and_every_fault_has_its_turn() {
        let draw = |seed| {
            let mut plan = Plan::new(seed, Fault::ALL, 4, 2);
            (0..Fault::ALL.len()).map(|_| plan.draw().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut drawn: Vec<_> = draw(3).into_iter().map(|mishap| mishap.fault).collect();
        drawn.sort();
        assert_eq!(drawn, Fault::ALL);
        assert_eq!(Plan::new(1, &[], 4, 2).draw(), None);
    }
}
