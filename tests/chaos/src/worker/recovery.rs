//! Whether all is as it should be once nothing fails any more.

use std::thread;
use std::time::Duration;

use larder::BreakerState;
use shared::clock::{now_ns, ns};
use shared::truth::{GROUPS, group_name};

use super::clerk::Clerk;
use super::desk::Desk;
use crate::plant::Plant;
use crate::record::Record;
use crate::value::KEYS;
use crate::verb::Verb;

/// How long it may take: breakers pause for two seconds at most and debts for half of one, and leases of those who were killed
/// last three.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a process tries at its end to send what it owes.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(2);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the process trusts its local tier, owes nothing, gives every key, reaches all servers, and its bumps are
/// acknowledged; and says so, or what was the first of these that did not come true.
pub(super) fn recover(desk: &Desk, at: usize) {
    let began_ns = now_ns();
    let steps: [&dyn Fn() -> bool; 5] = [
        &|| !desk.namespace.health().trust_left.is_zero(),
        &|| desk.namespace.owed() == 0 && !desk.has(Plant::Limp),
        &|| read_all(desk, at, Verb::GetOrLoad) == KEYS as usize,
        &|| desk.namespace.health().servers.iter().all(|server| server.breaker == BreakerState::Closed),
        &|| (0..GROUPS).all(|group| is_others(desk, group) || bump(desk, at, group)),
    ];
    let mut step = 0;
    while step < steps.len() {
        if steps[step]() {
            step += 1;
        } else if now_ns() > began_ns + ns(PATIENCE) {
            let health = desk.namespace.health();
            let (trust_ns, owed) = (ns(health.trust_left), desk.namespace.owed() as u64);
            return desk.log.note(Record::Unwell { step: step as u8, trust_ns, owed });
        } else {
            thread::sleep(LOOK_EVERY);
            // A breaker closes again when somebody asks its server.
            read_all(desk, at, Verb::Get);
        }
    }
    desk.log.note(Record::Recovered { took_ns: now_ns() - began_ns });
}

/// Reads everything by every verb, and says so.
pub(super) fn check(desk: &Desk, at: usize) {
    for verb in [Verb::Local, Verb::Get, Verb::GetOrLoad, Verb::Local] {
        read_all(desk, at, verb);
    }
    desk.log.note(Record::Recovered { took_ns: 0 });
}

/// Returns how many keys have a value.
fn read_all(desk: &Desk, at: usize, verb: Verb) -> usize {
    let (noted_ns, mut clerk) = (desk.noted_ns(), Clerk::new());
    let found = (0..KEYS).map(|key| desk.read(at, verb, &[key], noted_ns, &mut clerk)).sum();
    clerk.flush(&desk.log);
    found
}

fn is_others(desk: &Desk, group: u32) -> bool {
    group as usize % desk.settings.processes != desk.settings.process
}

/// Bumps a group, and returns whether that was acknowledged.
fn bump(desk: &Desk, at: usize, group: u32) -> bool {
    let (version, began_ns) = (desk.change(group), now_ns());
    let acked =
        desk.call(at, Verb::InvalidateGroup, || desk.namespace.invalidate_group(&group_name(group)).is_acknowledged());
    desk.bumped(group, version);
    if acked {
        desk.log.note(Record::Acked { group: group as u16, version, began_ns, acked_ns: now_ns() });
    }
    acked
}
