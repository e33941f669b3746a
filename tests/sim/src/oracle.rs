//! Who knows what is true, and fails on what larder promised otherwise.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use larder::LostTrust;
use larder::sim;

use crate::history::note;
use crate::plan::{MS, Plan};
use crate::run::SHORT_LEASE;

/// What clocks and deadlines may round: they count milliseconds.
const ROUNDING_NS: u64 = 3 * MS;

/// No call takes longer where nothing goes wrong: less than the 10 s after which one gives up that waits for a load in vain.
const LONGEST_CALL_NS: u64 = 9_000 * MS;

/// No call takes longer while its process runs, whatever goes wrong. A lease whose winner never heard of it holds everybody up
/// for half of the usual `load_wait`, and whoever comes to a load of those who gave up on it, for all of it; and a load takes time.
const LONGEST_HINDERED_CALL_NS: u64 = 16_000 * MS;

/// How long a waiter asks again for another process's load, half of the usual `load_wait`, before it loads itself.
const LONGEST_WAIT_NS: u64 = 5_000 * MS;

/// What an invalidation concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Key(u32),
    Group(u32),
    Cache(u32),
    All,
}

/// What an invalidation does to older values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    Kills,
    /// Makes them stale: they may be served.
    Expires,
    /// It did not take place, or nobody has to care.
    Nothing,
}

/// A value, as it was loaded or written.
#[derive(Clone, Debug)]
struct Version {
    key: u32,
    /// Whose loader or caller made it.
    process: usize,
    /// The last moment at which an invalidation of its groups, or of all, may have come before it.
    made: u64,
    /// The same for its key, as far as other processes go: a write may wait.
    reached: u64,
    /// When its time may have begun at the latest; `None` if nobody knows.
    handed_in: Option<u64>,
}

/// Something that makes older values dead, or stale.
#[derive(Clone, Debug)]
struct Move {
    process: usize,
    began: u64,
    /// From when on its own process has done with what was before.
    returned: Option<u64>,
    /// From when on it was known to be acknowledged.
    acknowledged: Option<u64>,
    force: Force,
    /// Whether other processes are told.
    told: bool,
}

#[derive(Clone, Debug)]
struct Load {
    key: u32,
    process: usize,
    /// When its call began: an invalidation from then on may have fenced it before it began to load.
    called: u64,
    began: u64,
}

/// The truth.
#[derive(Default)]
struct Truth {
    versions: Vec<Version>,
    moves: Vec<Move>,
    /// By what they concern, in the order of their beginnings.
    by_what: BTreeMap<What, Vec<usize>>,
    /// Those under way, by number.
    loads: BTreeMap<u64, Load>,
    last_load: u64,
    /// Until when each process was hindered by something.
    disturbed: Vec<u64>,
    /// When a server lost something last.
    lost: u64,
    /// Until when the leases of processes that have died may stand.
    orphaned: u64,
    /// By counter: what was added in all, and what it was acknowledged to be since a server lost something.
    counters: BTreeMap<u32, (u64, BTreeMap<u64, u64>)>,
    pub counts: Counts,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    pub reads: u64,
    /// Reads that had a value.
    pub hits: u64,
    pub loads: u64,
    pub moves: u64,
    pub faults: u64,
}

pub struct Oracle {
    plan: Plan,
    truth: Mutex<Truth>,
}

/// The groups that a key always has.
pub fn groups_of(plan: &Plan, key: u32) -> Vec<u32> {
    let first = key % plan.groups;
    let second = (key / plan.groups) % plan.groups;
    if first == second { vec![first] } else { vec![first, second] }
}

impl Oracle {
    pub fn new(plan: &Plan) -> Oracle {
        Oracle { plan: plan.clone(), truth: Mutex::default() }
    }

    pub fn counts(&self) -> Counts {
        self.truth.lock().unwrap().counts
    }

    // ---- What happens ----

    /// Notes that a process starts, the next one by number.
    pub fn joins(&self, process: usize) {
        let mut truth = self.truth.lock().unwrap();
        // A cut may be of the ways that are its own now.
        let mut hindered = truth.disturbed.iter().copied().max().unwrap_or_default();
        if self.serves_stale() {
            // It does not wait for its first look at the journal, which voids the loads that have begun by then.
            hindered = hindered.max(sim::now().max(1));
        }
        truth.disturbed.resize(process + 1, hindered);
    }

    /// Notes that a process has died: what it was loading, nobody loads any more, and what it was writing may arrive yet.
    pub fn dies(&self, process: usize) {
        let lease = self.slowest((SHORT_LEASE + Duration::from_secs(1)).as_nanos() as u64);
        let mut truth = self.truth.lock().unwrap();
        let now = sim::now();
        truth.orphaned = now + lease + self.settle_ns();
        truth.loads.retain(|_, load| load.process != process);
    }

    /// Notes that a process, or each, is hindered until a moment.
    pub fn disturbed(&self, process: Option<usize>, until: u64) {
        let mut truth = self.truth.lock().unwrap();
        let all = 0..truth.disturbed.len();
        let those = process.map_or(all, |process| process..process + 1);
        truth.disturbed[those].iter_mut().for_each(|known| *known = until.max(*known));
    }

    /// Notes that a server has lost something.
    pub fn lost(&self) {
        let mut truth = self.truth.lock().unwrap();
        truth.lost = sim::now();
        truth.counters.values_mut().for_each(|(_, known)| known.clear());
    }

    pub fn fault(&self) {
        self.truth.lock().unwrap().counts.faults += 1;
    }

    /// Notes a value that a loader begins to make now, and returns its number.
    pub fn loads(&self, process: usize, key: u32) -> u64 {
        self.makes(process, key, sim::now())
    }

    /// Notes a value that a caller begins to write now, and returns its number. Until the call returns, the value may come after
    /// any invalidation.
    pub fn writes(&self, process: usize, key: u32) -> u64 {
        self.makes(process, key, u64::MAX)
    }

    fn makes(&self, process: usize, key: u32, made: u64) -> u64 {
        let mut truth = self.truth.lock().unwrap();
        truth.versions.push(Version { key, process, made, reached: made, handed_in: None });
        truth.versions.len() as u64 - 1
    }

    /// Notes that the call that wrote a value has returned, and whether its write may come later yet.
    pub fn wrote(&self, version: u64, waits: bool) {
        let mut truth = self.truth.lock().unwrap();
        let now = sim::now();
        let version = &mut truth.versions[version as usize];
        version.made = now;
        version.reached = if waits { u64::MAX } else { now };
    }

    /// Notes that the call that made a value has ended: its time has begun by now.
    pub fn handed_in(&self, version: u64) {
        self.truth.lock().unwrap().versions[version as usize].handed_in = Some(sim::now());
    }

    /// Notes that an invalidation begins now, and whether it is one that other processes are told of.
    pub fn moves(&self, process: usize, what: What, force: Force, told: bool) -> usize {
        let mut truth = self.truth.lock().unwrap();
        let number = truth.moves.len();
        truth.moves.push(Move { process, began: sim::now(), returned: None, acknowledged: None, force, told });
        truth.by_what.entry(what).or_default().push(number);
        truth.counts.moves += 1;
        number
    }

    /// Notes that an invalidation has returned, and whether it was acknowledged.
    pub fn moved(&self, number: usize, acknowledged: bool) {
        let now = sim::now();
        let mut truth = self.truth.lock().unwrap();
        let known = &mut truth.moves[number];
        known.returned = Some(now);
        known.acknowledged = acknowledged.then_some(now);
    }

    /// Notes that an invalidation that was pending is acknowledged now.
    pub fn settled(&self, number: usize, version: Option<u64>) {
        let now = sim::now();
        let mut truth = self.truth.lock().unwrap();
        truth.moves[number].acknowledged.get_or_insert(now);
        if let Some(version) = version {
            truth.versions[version as usize].reached = now;
        }
    }

    /// Takes an invalidation back, which did not take place.
    pub fn moved_nothing(&self, number: usize) {
        let mut truth = self.truth.lock().unwrap();
        truth.moves[number].force = Force::Nothing;
    }

    // ---- What is promised ----

    /// Promise 1: notes that a load begins, and fails if another is under way that it may not run beside.
    pub fn load_begins(&self, process: usize, key: u32, called: u64) -> u64 {
        let now = sim::now();
        let mut truth = self.truth.lock().unwrap();
        truth.counts.loads += 1;
        let number = truth.last_load + 1;
        let beside =
            truth.loads.values().find(|other| other.key == key && !self.may_overlap(&truth, other, process, now));
        if let Some(other) = beside {
            let why = format!(
                "two loads of key {key} at a time: of process {} since {:.3} ms, and of process {process} now",
                other.process,
                other.began as f64 / 1e6
            );
            drop(truth);
            sim::fail(&why);
        }
        truth.last_load = number;
        truth.loads.insert(number, Load { key, process, called, began: now });
        number
    }

    pub fn load_ends(&self, number: u64) {
        self.truth.lock().unwrap().loads.remove(&number);
    }

    fn may_overlap(&self, truth: &Truth, other: &Load, process: usize, now: u64) -> bool {
        let settle = self.settle_ns();
        // A load that an invalidation has fenced, wherever that was made and however long it took to become known.
        let is_fenced = self.concerning(other.key).any(|what| {
            truth.by_what.get(&what).is_some_and(|moves| {
                moves.iter().map(|number| &truth.moves[*number]).any(|moved| {
                    let known = moved.acknowledged.map_or(u64::MAX, |then| then.saturating_add(settle));
                    known >= other.called
                })
            })
        });
        // The lease of one that has died holds others up until they give up on it, each for itself.
        let is_orphaned = other.called <= truth.orphaned;
        let since = other.called.saturating_sub(settle);
        let was_lost = truth.lost >= since && truth.lost > 0;
        let were_disturbed = |process: usize| truth.disturbed[process] >= since && truth.disturbed[process] > 0;
        if process == other.process {
            // By itself no process loads twice, unless it is so long without news that it takes its own load for overtaken.
            let is_without_news = self.serves_stale() || now - other.called >= self.trust_ns() / 2;
            return is_fenced || was_lost || (were_disturbed(process) && is_without_news);
        }
        is_fenced
            || was_lost
            || is_orphaned
            || were_disturbed(process)
            || were_disturbed(other.process)
            || now - other.began >= LONGEST_WAIT_NS
    }

    /// Promises 2 to 4: a value was read by a call that began at `began`, fresh or stale.
    pub fn read(&self, process: usize, key: u32, value: Option<&[u8]>, began: u64) {
        self.judge(process, key, value, began, &[Force::Kills]);
    }

    /// The same for a value that was said to be fresh.
    pub fn read_fresh(&self, process: usize, key: u32, value: &[u8], began: u64) {
        self.judge(process, key, Some(value), began, &[Force::Kills, Force::Expires]);
    }

    fn judge(&self, process: usize, key: u32, value: Option<&[u8]>, began: u64, forces: &[Force]) {
        let mut truth = self.truth.lock().unwrap();
        truth.counts.reads += 1;
        let Some(value) = value else { return };
        truth.counts.hits += 1;
        let version = version_of(value);
        let Some(known) = truth.versions.get(version as usize).filter(|known| known.key == key) else {
            drop(truth);
            sim::fail(&format!("process {process} reads of key {key} what nobody has written: {value:?}"))
        };
        let mut why = None;
        let over = known.handed_in.and_then(|then| Some(then + self.longest_life_ns()?));
        if over.is_some_and(|over| began > over) {
            why = Some(format!(
                "process {process} reads of key {key} the value {version}, handed in at {:?} ns, in a call from {:.3} ms on: \
                 past its hard deadline",
                known.handed_in,
                began as f64 / 1e6
            ));
        }
        for what in self.concerning(key) {
            let Some(moves) = truth.by_what.get(&what) else { continue };
            for moved in moves.iter().map(|number| &truth.moves[*number]).filter(|moved| forces.contains(&moved.force))
            {
                let is_own_key = what == What::Key(key) && moved.process == known.process;
                let made = if matches!(what, What::Key(_)) && !is_own_key { known.reached } else { known.made };
                if made >= moved.began {
                    continue;
                }
                let (bound, named) = self.bound(&truth, moved, process, began);
                if bound.is_some_and(|bound| began > bound) {
                    why = Some(format!(
                        "process {process} reads of key {key} the value {version}, made at {:.3} ms, in a call from \
                         {:.3} ms on, although {what:?} was invalidated by process {} from {:.3} ms, returned {:?}, \
                         acknowledged {:?} (in ns): past its bound by {named}",
                        known.made as f64 / 1e6,
                        began as f64 / 1e6,
                        moved.process,
                        moved.began as f64 / 1e6,
                        moved.returned,
                        moved.acknowledged,
                    ));
                }
            }
        }
        drop(truth);
        if let Some(why) = why {
            sim::fail(&why);
        }
    }

    /// Returns until when a call may begin that does not know of an invalidation, and by which promise.
    fn bound(&self, truth: &Truth, moved: &Move, process: usize, began: u64) -> (Option<u64>, &'static str) {
        if moved.process == process {
            return (moved.returned, "whoever invalidates knows at once");
        }
        let Some(acknowledged) = moved.acknowledged.filter(|_| moved.told) else { return (None, "") };
        let trusted = acknowledged + self.trust_ns();
        let disturbed = truth.disturbed[process];
        let was_disturbed = disturbed > 0 && disturbed + self.settle_ns() >= acknowledged;
        if was_disturbed && self.serves_stale() {
            return (Some(trusted.max(disturbed + self.settle_ns())), "a process that hears of the journal again");
        }
        if was_disturbed || began > trusted {
            return (Some(trusted), "trust");
        }
        (Some(acknowledged + self.connected_ns()), "the poll interval and two round trips")
    }

    /// Returns how long the trust lease may last on the slowest clock.
    fn trust_ns(&self) -> u64 {
        self.slowest(self.plan.trust.as_nanos() as u64) + ROUNDING_NS
    }

    /// Returns how long after the call that made it a value may live; `None` if that is not known.
    fn longest_life_ns(&self) -> Option<u64> {
        let hard = self.plan.hard_ttl?;
        let local = self.slowest(hard.as_nanos() as u64) + ROUNDING_NS;
        // By the store's clock, which begins with the arrival of a value and counts whole seconds, the shorter are over at once.
        if hard < Duration::from_secs(1) {
            return Some(local);
        }
        self.plan.behind.is_none().then(|| local + self.settle_ns() + 1_000 * MS)
    }

    /// Returns how late a connected process may know.
    fn connected_ns(&self) -> u64 {
        // Ways differ in length: of the round trip under way when a bump is acknowledged, half may be to come.
        let ways = 5 * (self.plan.delay_ns + self.plan.delay_ns / 2);
        // Whoever is ready to run waits for its turn among all threads.
        let turns = self.plan.step_ns * (40 * self.plan.processes as u64 * (self.plan.threads as u64 + 2));
        self.slowest(self.plan.poll.as_nanos() as u64) + ways + turns + ROUNDING_NS
    }

    /// Returns how long after a disturbance everything is as if there had been none.
    fn settle_ns(&self) -> u64 {
        self.trust_ns() + self.slowest(2 * self.plan.timeout.as_nanos() as u64) + self.connected_ns()
    }

    fn slowest(&self, interval: u64) -> u64 {
        interval + interval * self.plan.drift_ppm / (1_000_000 - self.plan.drift_ppm) + 1
    }

    fn serves_stale(&self) -> bool {
        self.plan.on_lost_trust == LostTrust::ServeStale
    }

    fn concerning(&self, key: u32) -> impl Iterator<Item = What> {
        let groups = groups_of(&self.plan, key).into_iter().map(What::Group);
        [What::Key(key), What::Cache(key % self.plan.caches), What::All].into_iter().chain(groups)
    }

    /// Promise 5: a call has ended.
    pub fn ends(&self, process: usize, what: &str, began: u64) {
        let mut truth = self.truth.lock().unwrap();
        truth.counts.calls += 1;
        let hindered = truth.disturbed[process].saturating_sub(began);
        drop(truth);
        let took = sim::now() - began;
        // Where answers may come later than exchanges last, an answer that brings a lease is lost as by a fault.
        let slowest = 2 * (self.plan.delay_ns + self.plan.gap_ns);
        let calm = self.plan.faults.every_ns.is_none()
            && self.plan.gaps <= 2
            && u128::from(slowest) < self.plan.timeout.as_nanos();
        let longest = if calm { LONGEST_CALL_NS } else { LONGEST_HINDERED_CALL_NS };
        if took > longest + hindered {
            sim::fail(&format!("process {process}: `{what}` took {:.3} ms", took as f64 / 1e6));
        }
    }

    /// Fails on leases that a server has when all work is over, although every answer was heard: nobody holds them.
    pub fn left_behind(&self, server: usize, leases: &[String]) {
        let truth = self.truth.lock().unwrap();
        let is_calm = self.plan.faults.every_ns.is_none() && truth.disturbed.iter().all(|until| *until == 0);
        drop(truth);
        if is_calm {
            self.outlived(server, leases);
        }
    }

    /// Fails on leases that a server has after the longest term of all, whatever has gone wrong.
    pub fn outlived(&self, server: usize, leases: &[String]) {
        if !leases.is_empty() {
            sim::fail(&format!("leases that nobody holds are left on server {server}: {}", leases.join(", ")));
        }
    }

    // ---- Counters ----

    /// Notes that a process is about to add to a counter.
    pub fn adds(&self, counter: u32) {
        self.truth.lock().unwrap().counters.entry(counter).or_default().0 += 1;
    }

    /// Notes what a counter was after an addition.
    pub fn added(&self, process: usize, counter: u32, value: u64, began: u64) {
        let mut truth = self.truth.lock().unwrap();
        if truth.lost >= began {
            return;
        }
        let (attempts, known) = truth.counters.entry(counter).or_default();
        let late = known.range(value..).any(|(_, ended)| *ended < began);
        let why = match known.insert(value, sim::now()) {
            Some(_) => Some("twice"),
            None if value > *attempts => Some("more than was added"),
            None if late => Some("less than before"),
            None => None,
        };
        drop(truth);
        if let Some(why) = why {
            sim::fail(&format!("process {process}: counter {counter} is {value}: {why}"));
        }
    }

    /// Fails with what went wrong in a process.
    pub fn fail(&self, process: usize, why: &str) -> ! {
        note(Some(process), why.to_owned());
        sim::fail(why)
    }
}

/// Returns the value whose number is `version`.
pub fn value_of(key: u32, version: u64) -> Vec<u8> {
    [&key.to_le_bytes()[..], &version.to_le_bytes()].concat()
}

/// Returns the number of a value.
pub fn version_of(value: &[u8]) -> u64 {
    value.get(4..12).and_then(|bytes| bytes.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
}
