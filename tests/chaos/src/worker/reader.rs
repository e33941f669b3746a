//! A thread that reads all the time, by every verb.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::clerk::Clerk;
use super::desk::Desk;
use crate::plant::Plant;
use crate::value::{KEYS, SINGLES};
use crate::verb::Verb;

/// How many reads there are between two pauses.
const ROUND: usize = 8;

const PAUSE: Duration = Duration::from_millis(2);

/// How many keys are read at once, where several are.
const MANY: usize = 4;

/// Reads until the process is to finish.
pub(super) fn read(desk: &Desk, at: usize) {
    let mut clerk = Clerk::new();
    if desk.has(Plant::Stuck) && at == 0 {
        desk.call(at, Verb::Get, || thread::sleep(Duration::MAX));
    }
    while !desk.finishing.load(Ordering::SeqCst) {
        let noted_ns = desk.noted_ns();
        for _ in 0..ROUND {
            let (verb, keys) = match fastrand::u8(..20) {
                0..10 => (Verb::Local, 1),
                10..13 => (Verb::Get, 1),
                13 => (Verb::GetMany, MANY),
                _ => (Verb::GetOrLoad, 1),
            };
            // Half of the reads go to an eighth of the keys.
            let most = if fastrand::bool() { KEYS } else { KEYS / 8 };
            let keys: Vec<_> = (0..keys).map(|_| fastrand::u32(..most)).collect();
            desk.read(at, verb, &keys, noted_ns, &mut clerk);
        }
        desk.read_single(at, fastrand::u32(..SINGLES));
        thread::sleep(PAUSE);
    }
    clerk.flush(&desk.log);
}
