//! A thread that changes groups all the time, and bumps them.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use larder::{Bump, Receipt};
use shared::clock::now_ns;
use shared::truth::{GROUPS, group_name};

use super::desk::Desk;
use crate::plant::Plant;
use crate::record::Record;
use crate::value::KEYS;
use crate::verb::Verb;

/// The longest pause between two changes, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 60;

/// Nothing more is changed while so many bumps are pending.
const MOST_PENDING: usize = 1_000;

/// A bump that is not acknowledged yet.
struct Pending {
    group: u32,
    version: u64,
    began_ns: u64,
    receipt: Receipt,
}

/// Bumps until the process is to finish and everything is acknowledged.
pub(super) fn bump(desk: &Desk, at: usize) {
    let mut pending = Vec::new();
    loop {
        let finishing = desk.finishing.load(Ordering::SeqCst);
        if finishing && pending.is_empty() {
            return;
        }
        if !finishing && pending.len() < MOST_PENDING {
            match fastrand::u8(..20) {
                0 => drop(desk.call(at, Verb::Remove, || desk.pages.remove(&fastrand::u32(..KEYS)))),
                1 => drop(desk.call(at, Verb::Expire, || desk.pages.expire(&fastrand::u32(..KEYS)))),
                2 => {
                    let group = group_name(fastrand::u32(..GROUPS));
                    drop(desk.call(at, Verb::ExpireGroup, || desk.namespace.expire_group(&group)));
                }
                _ => bump_one(desk, at, own_group(desk), &mut pending),
            }
        }
        settle(desk, &mut pending);
        desk.counts.pending.store(pending.len() as u64, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(fastrand::u64(1..=LONGEST_PAUSE_MS)));
    }
}

/// Returns one of the groups that nobody but this process changes.
fn own_group(desk: &Desk) -> u32 {
    let (process, processes) = (desk.settings.process as u32, desk.settings.processes as u32);
    let own = (GROUPS - process).div_ceil(processes);
    process + processes * fastrand::u32(..own)
}

fn bump_one(desk: &Desk, at: usize, group: u32, pending: &mut Vec<Pending>) {
    let version = desk.change(group);
    let began_ns = now_ns();
    let acked = |acked_ns| Record::Acked { group: group as u16, version, began_ns, acked_ns };
    if desk.has(Plant::LostBump) && version.is_multiple_of(2) {
        return desk.log.note(acked(now_ns()));
    }
    if desk.has(Plant::OwnStale) && version.is_multiple_of(2) {
        return desk.bumped(group, version);
    }
    match desk.call(at, Verb::InvalidateGroup, || desk.namespace.invalidate_group(&group_name(group))) {
        Bump::Acknowledged => desk.log.note(acked(now_ns())),
        Bump::Pending(receipt) => pending.push(Pending { group, version, began_ns, receipt }),
        other => panic!("{other:?} is neither acknowledged nor pending"),
    }
    // Pending or not, this process does not serve what is older.
    desk.bumped(group, version);
    desk.counts.bumps.fetch_add(1, Ordering::Relaxed);
}

/// Writes down what has been acknowledged by now.
fn settle(desk: &Desk, pending: &mut Vec<Pending>) {
    for Pending { group, version, began_ns, .. } in pending.extract_if(.., |pending| pending.receipt.is_settled()) {
        let acked_ns = now_ns();
        desk.log.note(Record::Acked { group: group as u16, version, began_ns, acked_ns });
    }
}
