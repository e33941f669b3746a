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
        filled: false,
        slow_looks: false,
        trust: None,
        exact: false,
        budget: NONE,
        rules: Rules::default(),
    }
}

/// Returns the configurations that are explored by default.
#[must_use]
pub fn all() -> Table {
    let mut all = Table::new();
    let faults = &[LOST_REPLY, EVICTION, FLUSH, CRASH];
    // A load names its group when it ends, and the tokens of that were not known before.
    let late = Model { budget: Budget { loads: 1, invalidations: 1, ..NONE }, ..base() };
    add(&mut all, "late groups", late, &[LOST_REPLY, EVICTION, FLUSH, CRASH]);
    let loads = Model { budget: Budget { loads: 2, ..late.budget }, ..late };
    add(&mut all, "late groups, two loads", loads, &[]);
    add(&mut all, "late groups, slow looks", Model { slow_looks: true, ..late }, &[LOST_REPLY, CRASH]);
    add(&mut all, "late groups, a crash and an eviction", crash(evict(late)), &[]);
    // What is expired is stale, and one process refreshes it.
    let soft = Model { soft: true, warm: true, budget: Budget { loads: 1, expirations: 1, ..NONE }, ..base() };
    add(&mut all, "soft tokens", soft, &[LOST_REPLY, CRASH]);
    let loads = Model { budget: Budget { loads: 2, ..soft.budget }, ..soft };
    add(&mut all, "soft tokens, two loads", loads, &[]);
    // What is owed is sent again; the first time may be carried out late, or never.
    let owed = Model { warm: true, budget: Budget { reads: 1, invalidations: 1, lost_replies: 1, ..NONE }, ..base() };
    add(&mut all, "outbox", owed, &[CRASH, CUT]);
    let loads = Model { budget: Budget { loads: 1, reads: 0, ..owed.budget }, ..owed };
    add(&mut all, "outbox and a load", loads, &[]);
    let twice = Model { budget: Budget { lost_replies: 2, ..owed.budget }, ..owed };
    add(&mut all, "outbox, two lost replies", twice, &[]);
    let again = Model { processes: 1, budget: Budget { invalidations: 2, ..loads.budget }, ..owed };
    add(&mut all, "outbox of one process, two bumps", again, &[]);
    let overflow = Model {
        groups: [3, 0],
        root: true,
        max_debts: 1,
        budget: Budget { reads: 1, invalidations: 1, removals: 1, cuts: 1, ..NONE },
        ..owed
    };
    add(&mut all, "outbox, escalation", overflow, &[]);
    // Removals and inserts.
    let remove = Model { warm: true, budget: Budget { loads: 1, removals: 1, ..NONE }, ..base() };
    add(&mut all, "remove", remove, faults);
    let loads = Model { budget: Budget { loads: 2, ..remove.budget }, ..remove };
    add(&mut all, "remove, two loads", loads, &[CRASH]);
    let insert = Model { warm: true, budget: Budget { loads: 1, inserts: 1, ..NONE }, ..base() };
    add(&mut all, "insert", insert, faults);
    let inserts = Model { budget: Budget { inserts: 2, ..insert.budget }, ..insert };
    add(&mut all, "two inserts", inserts, &[LOST_REPLY]);
    let removed = Model { budget: Budget { removals: 1, ..insert.budget }, ..insert };
    add(&mut all, "insert and remove", removed, &[]);
    // Write-behind.
    let queued = Model { warm: true, budget: Budget { reads: 1, queued: 2, ..NONE }, ..base() };
    add(&mut all, "write-behind", queued, &[LOST_REPLY, CRASH]);
    let queued = Model { budget: Budget { queued: 1, ..queued.budget }, ..queued };
    let purged = Model { budget: Budget { removals: 1, ..queued.budget }, ..queued };
    add(&mut all, "write-behind and remove", purged, &[LOST_REPLY, EVICTION, CRASH]);
    let overtaken = Model { budget: Budget { invalidations: 1, ..queued.budget }, ..queued };
    add(&mut all, "write-behind and bump", overtaken, &[LOST_REPLY, EVICTION]);
    // One server for the journal and the tokens, one for the values; one of them fails.
    let two = Model { servers: 2, warm: true, budget: Budget { loads: 1, removals: 1, ..NONE }, ..base() };
    add(&mut all, "two servers, remove", two, &[CUT, FLUSH, RESTART, LOST_REPLY]);
    let bumped = Model { budget: Budget { loads: 1, invalidations: 1, ..NONE }, ..two };
    add(&mut all, "two servers, bump", bumped, &[CUT, FLUSH, RESTART]);
    let restarted = Model { budget: Budget { loads: 2, removals: 1, restarts: 1, ..NONE }, warm: false, ..two };
    add(&mut all, "two servers, two loads, a restart", restarted, &[]);
    // The journal.
    let full = Model { room: 3, filled: true, budget: Budget { loads: 1, invalidations: 1, ..NONE }, ..base() };
    add(&mut all, "a full journal", full, &[LOST_REPLY, CRASH]);
    let compact = Model { budget: Budget { loads: 1, invalidations: 1, compactions: 1, ..NONE }, ..full };
    add(&mut all, "compaction", Model { room: usize::MAX, ..compact }, &[LOST_REPLY, RESTART]);
    // Who loads.
    let election = Model { processes: 3, budget: Budget { loads: 3, ..NONE }, ..base() };
    add(&mut all, "election of three", election, &[]);
    // The trust lease, of two ticks.
    let trust = Model { warm: true, trust: Some(2), budget: Budget { invalidations: 1, ticks: 3, ..NONE }, ..base() };
    let read = Model { budget: Budget { reads: 1, ..trust.budget }, ..trust };
    add(&mut all, "trust lease", read, &[LOST_REPLY]);
    add(&mut all, "trust lease, slow looks", Model { slow_looks: true, ..read }, &[]);
    let reads = Model { budget: Budget { reads: 2, ticks: 2, ..trust.budget }, ..trust };
    add(&mut all, "trust lease, two reads", reads, &[]);
    let own = Model { budget: Budget { loads_cut_off: 1, ticks: 4, ..trust.budget }, ..trust };
    add(&mut all, "trust lease, a load of one cut off", own, &[]);
    let own = Model { warm: false, budget: Budget { loads: 1, ticks: 3, ..trust.budget }, ..trust };
    add(&mut all, "trust lease, a load", own, &[]);
    all
}

fn evict(model: Model) -> Model {
    Model { budget: Budget { evictions: model.budget.evictions + 1, ..model.budget }, ..model }
}

fn crash(model: Model) -> Model {
    Model { budget: Budget { crashes: model.budget.crashes + 1, ..model.budget }, ..model }
}

/// Returns larger ones, of minutes to hours each: two loads, or two faults.
#[must_use]
pub fn larger() -> Table {
    let mut all = Table::new();
    let faults = &[LOST_REPLY, EVICTION, FLUSH, RESTART, CRASH];
    let late = Model { budget: Budget { loads: 2, invalidations: 1, ..NONE }, ..base() };
    add(&mut all, "larger, late groups", late, faults);
    add(
        &mut all,
        "larger, late groups, two bumps",
        Model { budget: Budget { invalidations: 2, ..late.budget }, ..late },
        &[],
    );
    let soft = Model { soft: true, warm: true, budget: Budget { loads: 2, expirations: 1, ..NONE }, ..base() };
    add(&mut all, "larger, soft tokens", soft, faults);
    let both = Model { budget: Budget { invalidations: 1, ..soft.budget }, ..soft };
    add(&mut all, "larger, soft and hard tokens", both, &[LOST_REPLY, EVICTION]);
    let owed = Model {
        warm: true,
        budget: Budget { loads: 1, reads: 1, invalidations: 2, lost_replies: 2, ..NONE },
        ..base()
    };
    add(&mut all, "larger, outbox", owed, &[CUT]);
    let remove = Model { warm: true, budget: Budget { loads: 2, removals: 1, ..NONE }, ..base() };
    add(&mut all, "larger, remove", remove, faults);
    let insert = Model { warm: true, budget: Budget { loads: 1, inserts: 2, ..NONE }, ..base() };
    add(&mut all, "larger, insert", insert, faults);
    let queued = Model { warm: true, budget: Budget { loads: 1, queued: 2, removals: 1, ..NONE }, ..base() };
    add(&mut all, "larger, write-behind", queued, &[LOST_REPLY, EVICTION, CRASH]);
    let two =
        Model { servers: 2, warm: true, budget: Budget { loads: 2, removals: 1, invalidations: 1, ..NONE }, ..base() };
    add(&mut all, "larger, two servers", two, &[CUT, FLUSH, RESTART]);
    all
}

/// Returns one of them.
#[must_use]
pub fn named(name: &str) -> Option<Model> {
    all().into_iter().chain(larger()).find_map(|(known, model)| (known == name).then_some(model))
}

/// Adds a configuration as it is, and with each of `faults`.
fn add(all: &mut Table, name: &str, model: Model, faults: &[Fault]) {
    all.push((name.to_owned(), model));
    for (fault, with) in faults {
        all.push((format!("{name}, {fault}"), Model { budget: with(model.budget), ..model }));
    }
}
