//! All that the processes of one run wrote down, and how it reads.

use std::fmt::Write;
use std::time::Duration;

use shared::notes::{BumpNote, ReaderNotes};

/// What happened so shortly before and after is told as well.
const AROUND_NS: u64 = 100_000_000;

/// So many events are told at the beginning, and as many at the end.
const EVENTS: usize = 20;

pub(crate) struct History {
    /// By bumper.
    pub(crate) bumps: Vec<Vec<BumpNote>>,
    /// By reader.
    pub(crate) readers: Vec<ReaderNotes>,
    /// What the test did, and when.
    pub(crate) faults: Vec<(u64, String)>,
}

impl History {
    /// Returns what happened to a group in this time, and what the test did at all, a line each.
    pub(crate) fn tell(&self, group: u32, from_ns: u64, until_ns: u64) -> String {
        let mut events = Vec::new();
        for (bumper, bumps) in self.bumps.iter().enumerate() {
            for bump in bumps.iter().filter(|bump| bump.group == group) {
                let version = bump.version;
                events.push((bump.began_ns, format!("bumper {bumper} changes to {version} and bumps")));
                let pending = bump.acknowledged_ns != Some(bump.returned_ns);
                let so_far = if pending { "has pending" } else { "knows acknowledged" };
                events.push((bump.returned_ns, format!("bumper {bumper} {so_far} its bump for {version}")));
                if let Some(at_ns) = bump.acknowledged_ns.filter(|_| pending) {
                    events.push((at_ns, format!("bumper {bumper} knows acknowledged its bump for {version}, at last")));
                }
            }
        }
        for (reader, notes) in self.readers.iter().enumerate() {
            for seen in notes.sightings.iter().filter(|seen| seen.group == group) {
                let what = format!("{:?} by {:?}", seen.versions.0, seen.verb);
                events.push((seen.first_ns, format!("reader {reader} first sees {what}")));
                events.push((seen.last_ns, format!("reader {reader} last sees {what}")));
            }
            for stall in &notes.stalls {
                let took = Duration::from_nanos(stall.to_ns - stall.from_ns);
                events.push((stall.to_ns, format!("reader {reader}, or memcached, was stalled for {took:?}")));
            }
        }
        events.retain(|(at_ns, _)| (from_ns - AROUND_NS..until_ns + AROUND_NS).contains(at_ns));
        events.sort();
        if let Some(more) = events.len().checked_sub(2 * EVENTS + 1) {
            let left_out = EVENTS..=EVENTS + more;
            events.splice(left_out, [(events[EVENTS].0, format!("... and {} events more", more + 1))]);
        }
        events.extend_from_slice(&self.faults);
        events.sort_by_key(|(at_ns, _)| *at_ns);
        let mut told = String::new();
        for (at_ns, what) in events {
            let ms = (at_ns as f64 - from_ns as f64) / 1e6;
            writeln!(told, "{ms:>12.3} ms  {what}").expect("strings take everything");
        }
        told
    }
}
