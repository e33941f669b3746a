//! The bounds within which the protocol is explored.

use crate::model::{Budget, Model};
use crate::rules::Rules;

const NONE: Budget = Budget {
    loads: 0,
    reads: 0,
    loads_cut_off: 0,
    invalidations: 0,
    expirations: 0,
    removals: 0,
    inserts: 0,
    queued: 0,
    compactions: 0,
    lost_replies: 0,
    evictions: 0,
    flushes: 0,
    restarts: 0,
    crashes: 0,
    cuts: 0,
    impatience: 0,
    ticks: 0,
};

/// What may go wrong, by name.
type Fault = (&'static str, fn(Budget) -> Budget);

const LOST_REPLY: Fault = ("a lost reply", |budget| Budget { lost_replies: 1, ..budget });
const EVICTION: Fault = ("an eviction", |budget| Budget { evictions: 1, ..budget });
const FLUSH: Fault = ("a flush", |budget| Budget { flushes: 1, ..budget });
const RESTART: Fault = ("a restart", |budget| Budget { restarts: 1, ..budget });
const CRASH: Fault = ("a crash", |budget| Budget { crashes: 1, ..budget });
const CUT: Fault = ("a cut", |budget| Budget { cuts: 1, ..budget });

/// Configurations by name.
pub type Table = Vec<(String, Model)>;

/// Two processes, one server, one key in one group, and nothing happens.
fn base() -> Model {
    Model {
        processes: 2,
        servers: 1,
        groups: [1, 0],
        soft: false,
        root: false,
        warm: false,
        max_debts: usize::MAX,
        room: usize::MAX,
        slow_looks: false,
        trust: None,
        budget: NONE,
        rules: Rules::default(),
    }
}

/// Returns the configurations that are explored by default.
#[must_use]
pub fn all() -> Table {
    let mut all = Table::new();
    // A load names its group when it ends, and the tokens of that were not known before.
    let late = Model { budget: Budget { loads: 2, invalidations: 1, ..NONE }, ..base() };
    add(&mut all, "late groups", late, &[LOST_REPLY, EVICTION, FLUSH, RESTART, CRASH]);
    add(&mut all, "late groups, slow looks", Model { slow_looks: true, ..late }, &[]);
    // What is expired is stale, and one process refreshes it.
    let soft = Model { soft: true, warm: true, budget: Budget { loads: 2, expirations: 1, ..NONE }, ..base() };
    add(&mut all, "soft tokens", soft, &[LOST_REPLY, EVICTION, FLUSH, RESTART, CRASH]);
    let both = Model { budget: Budget { loads: 1, expirations: 1, invalidations: 1, ..NONE }, ..soft };
    add(&mut all, "soft and hard tokens", both, &[LOST_REPLY, EVICTION]);
    // What is owed is sent again, late or never carried out the first time.
    let owed = Model {
        warm: true,
        budget: Budget { loads: 1, reads: 1, invalidations: 1, lost_replies: 1, ..NONE },
        ..base()
    };
    add(&mut all, "outbox", owed, &[CRASH, CUT]);
    let twice = Model { budget: Budget { loads: 1, invalidations: 1, lost_replies: 2, ..NONE }, ..owed };
    add(&mut all, "outbox, two lost replies", twice, &[]);
    let again = Model { budget: Budget { loads: 1, invalidations: 2, lost_replies: 1, ..NONE }, ..owed };
    add(&mut all, "outbox, two bumps", again, &[]);
    let overflow = Model {
        groups: [3, 0],
        root: true,
        max_debts: 1,
        budget: Budget { loads: 1, invalidations: 1, removals: 1, cuts: 1, ..NONE },
        ..owed
    };
    add(&mut all, "outbox, escalation", overflow, &[]);
    // Removals and inserts.
    let remove = Model { warm: true, budget: Budget { loads: 2, removals: 1, ..NONE }, ..base() };
    add(&mut all, "remove", remove, &[LOST_REPLY, EVICTION, FLUSH, RESTART, CRASH]);
    let insert = Model { warm: true, budget: Budget { loads: 1, inserts: 2, ..NONE }, ..base() };
    add(&mut all, "insert", insert, &[LOST_REPLY, EVICTION, FLUSH, RESTART, CRASH]);
    // Write-behind.
    let queued = Model { warm: true, budget: Budget { loads: 1, queued: 2, ..NONE }, ..base() };
    add(&mut all, "write-behind", queued, &[LOST_REPLY, EVICTION, CRASH]);
    let purged = Model { budget: Budget { loads: 1, queued: 1, removals: 1, ..NONE }, ..queued };
    add(&mut all, "write-behind and remove", purged, &[LOST_REPLY, EVICTION]);
    let overtaken = Model { budget: Budget { loads: 1, queued: 1, invalidations: 1, ..NONE }, ..queued };
    add(&mut all, "write-behind and bump", overtaken, &[LOST_REPLY, EVICTION]);
    // Two servers, of which one fails.
    let servers =
        Model { servers: 2, warm: true, budget: Budget { loads: 1, removals: 1, invalidations: 1, ..NONE }, ..base() };
    add(&mut all, "two servers", servers, &[CUT, FLUSH, RESTART]);
    // The journal.
    let full = Model { warm: true, room: 2, budget: Budget { loads: 1, invalidations: 2, ..NONE }, ..base() };
    add(&mut all, "a full journal", full, &[LOST_REPLY]);
    let compact = Model { warm: true, budget: Budget { loads: 1, invalidations: 2, compactions: 1, ..NONE }, ..base() };
    add(&mut all, "compaction", compact, &[LOST_REPLY, RESTART]);
    // Who loads.
    let election = Model { processes: 3, budget: Budget { loads: 3, invalidations: 1, ..NONE }, ..base() };
    add(&mut all, "election", election, &[]);
    // The trust lease, of two ticks.
    let trust = Model {
        warm: true,
        trust: Some(2),
        budget: Budget { loads: 1, reads: 1, loads_cut_off: 1, invalidations: 1, ticks: 4, ..NONE },
        ..base()
    };
    add(&mut all, "trust lease", trust, &[]);
    add(&mut all, "trust lease, slow looks", Model { slow_looks: true, ..trust }, &[]);
    all
}

/// Returns one of them.
#[must_use]
pub fn named(name: &str) -> Option<Model> {
    all().into_iter().find_map(|(known, model)| (known == name).then_some(model))
}

/// Adds a configuration as it is, and with each of `faults`.
fn add(all: &mut Table, name: &str, model: Model, faults: &[Fault]) {
    all.push((name.to_owned(), model));
    for (fault, with) in faults {
        all.push((format!("{name}, {fault}"), Model { budget: with(model.budget), ..model }));
    }
}
