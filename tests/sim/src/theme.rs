//! Plans that make one kind of meeting likely: what the rules of the protocol are there for comes about in few of all schedules.
//!
//! All of them keep invalidations apart (`calm_ns`), since the next one covers what the last one left behind.

use std::time::Duration;

use fastrand::Rng;
use larder::{Announce, LostTrust};

use crate::plan::{Fault, Faults, MS, Plan, Verb, Verbs};

/// What a plan is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Anything.
    Mix,
    /// Who reads between the entries and the token of a bump.
    Bumps,
    /// Who names groups late, beside bumps.
    Late,
    /// Who fills a key that is removed or written.
    Keys,
    /// Servers that come back at once, and count from the start again.
    Restarts,
    /// Journals, tokens and values that are evicted.
    Losses,
    /// Changes that the store has not acknowledged.
    Debts,
    /// Processes that are cut off from the journal alone.
    Trust,
    /// Processes that die.
    Deaths,
    /// Very many processes.
    Crowd,
}

/// How many seeds of 1,000 are of each theme; the others are a mix.
const SHARES: [(u64, Theme); 9] = [
    (1, Theme::Crowd),
    (70, Theme::Bumps),
    (70, Theme::Late),
    (70, Theme::Keys),
    (70, Theme::Restarts),
    (70, Theme::Losses),
    (70, Theme::Debts),
    (80, Theme::Trust),
    (50, Theme::Deaths),
];

/// How many processes a crowd is.
const CROWD: usize = 150;

impl Theme {
    /// Returns what the plan of a seed is about.
    pub fn of(seed: u64) -> Theme {
        // Every thousand seeds in a row have each theme as often as its share says, spread over them.
        let mut at = (seed % 1_000 * 619 + 500) % 1_000;
        for (share, theme) in SHARES {
            if at < share {
                return theme;
            }
            at -= share;
        }
        Theme::Mix
    }

    pub fn named(name: &str) -> Option<Theme> {
        let themes = SHARES.iter().map(|(_, theme)| *theme).chain([Theme::Mix]);
        themes.into_iter().find(|theme| format!("{theme:?}").eq_ignore_ascii_case(name))
    }

    /// Returns how many processes there are, where that is not left to the seed.
    pub fn processes(self) -> Option<usize> {
        (self == Theme::Crowd).then_some(CROWD)
    }

    /// Changes a plan so that it is about this.
    pub fn shape(self, plan: &mut Plan, random: &mut Rng) {
        use Verb::{Add, Bump, BumpSoft, Claim, Expire, Get, GetMany, Insert, Load, LoadAsync, Peek, Remove, Update};
        match self {
            Theme::Mix => {}
            Theme::Crowd => plan.preempt = plan.preempt.min(4),
            Theme::Deaths => {
                if random.bool() {
                    plan.faults.every_ns = Some([100 * MS, 400 * MS][random.usize(..2)]);
                    plan.faults.longest_ns = 400 * MS;
                    plan.faults.kinds.push(Fault::Death);
                } else {
                    // One death, or two, and time for what it leaves behind to run out.
                    plan.concentrate(random);
                    plan.faults = Faults::of([Fault::Death], 2_000 * MS, 400 * MS);
                    plan.work_ns = random.u64(6_000..10_000) * MS;
                    plan.pause_ns = 40 * MS;
                    plan.load_ns = 200 * MS;
                }
            }
            Theme::Bumps => {
                plan.concentrate(random);
                plan.spread_out(random);
                plan.calm_ns = [100 * MS, 300 * MS][random.usize(..2)];
                plan.groups = 1;
                plan.verbs = Verbs(vec![(10, Bump), (1, BumpSoft), (30, Get), (30, Peek), (5, GetMany), (10, Load)]);
            }
            Theme::Late => {
                plan.concentrate(random);
                plan.spread_out(random);
                // Who has read a dead value knows the tokens of its groups. Who loads after another one that brought nothing, or
                // after a removal, does not, and names them late: each key has a group of its own, for that to be bumped then.
                plan.spoilt = 15;
                plan.late = 7;
                plan.keys = [2, 4][random.usize(..2)];
                plan.groups = plan.keys;
                plan.work_ns = random.u64(2_000..4_000) * MS;
                plan.calm_ns = [20 * MS, 40 * MS][random.usize(..2)];
                plan.gap_ns = 30 * MS;
                plan.load_ns = [20 * MS, 40 * MS][random.usize(..2)];
                plan.verbs = Verbs(vec![(10, Bump), (10, Remove), (40, Load), (10, LoadAsync), (5, Get)]);
            }
            Theme::Keys => {
                plan.concentrate(random);
                if random.bool() {
                    plan.spread_out(random);
                } else {
                    plan.delay_ns = [5 * MS, 20 * MS][random.usize(..2)];
                }
                if random.bool() {
                    plan.faults = Faults::of([Fault::Cut], 100 * MS, 200 * MS);
                }
                plan.calm_ns = [100 * MS, 300 * MS][random.usize(..2)];
                plan.verbs = Verbs(vec![
                    (10, Remove),
                    (5, Insert),
                    (2, Update),
                    (1, Expire),
                    (3, Bump),
                    (40, Get),
                    (10, Peek),
                    (15, Load),
                    (5, Claim),
                ]);
            }
            Theme::Restarts => {
                plan.concentrate(random);
                plan.processes = random.usize(2..4);
                plan.keys = 1;
                plan.groups = 1;
                plan.delay_ns = [MS / 10, MS][random.usize(..2)];
                plan.gap_ns = 0;
                plan.pause_ns = [5 * MS, 20 * MS][random.usize(..2)];
                plan.calm_ns = [30 * MS, 100 * MS, 250 * MS][random.usize(..3)];
                if random.bool() {
                    // A server that counts nothing but the versions of one key has the same ones again in each of its lives.
                    plan.servers = 3;
                    plan.poll = Duration::from_millis(100);
                    plan.load_ns = 200 * MS;
                    plan.faults = Faults::of([Fault::RestartValues], 50 * MS, 20 * MS);
                } else {
                    plan.servers = random.usize(1..3);
                    plan.poll = Duration::from_millis([20, 50, 100][random.usize(..3)]);
                    plan.load_ns = [20 * MS, 200 * MS][random.usize(..2)];
                    plan.faults = Faults::of([Fault::Restart], [50 * MS, 150 * MS][random.usize(..2)], 20 * MS);
                }
                plan.trust = 3 * plan.poll;
                plan.verbs = Verbs(vec![
                    (10, Remove),
                    (4, Insert),
                    (4, Bump),
                    (20, Load),
                    (20, LoadAsync),
                    (20, Get),
                    (10, Peek),
                ]);
            }
            Theme::Losses => {
                plan.concentrate(random);
                plan.calm_ns = [60 * MS, 200 * MS][random.usize(..2)];
                plan.poll = Duration::from_millis([50, 100][random.usize(..2)]);
                plan.faults = Faults::of([Fault::Evict], [10 * MS, 40 * MS][random.usize(..2)], MS);
                if random.u8(..4) == 0 {
                    plan.faults.kinds.push(Fault::Flush);
                }
                plan.verbs = Verbs(vec![(10, Bump), (3, Remove), (2, Insert), (50, Get), (10, Peek), (4, Load)]);
            }
            Theme::Debts => {
                plan.concentrate(random);
                plan.timeout = Duration::from_millis(100);
                plan.calm_ns = [50 * MS, 150 * MS][random.usize(..2)];
                plan.faults = Faults::of([Fault::Loss, Fault::Cut], [50 * MS, 150 * MS][random.usize(..2)], 400 * MS);
                plan.faults.loss = [200, 400, 600][random.usize(..3)];
                plan.verbs = Verbs(vec![
                    (8, Remove),
                    (6, Insert),
                    (2, Update),
                    (8, Bump),
                    (1, Expire),
                    (50, Get),
                    (10, Peek),
                    (10, Load),
                ]);
                if random.u8(..3) == 0 {
                    // Debts to the queue: writes of one key that wait, and removals that take them out.
                    plan.behind = Some(1_000);
                    plan.processes = 2;
                    plan.keys = 1;
                    plan.calm_ns = 5 * MS;
                    plan.delay_ns = 20 * MS;
                    plan.verbs = Verbs(vec![(10, Remove), (20, Insert), (40, Get)]);
                }
            }
            Theme::Trust => {
                plan.concentrate(random);
                plan.servers = random.usize(1..4);
                plan.poll = Duration::from_millis([20, 50][random.usize(..2)]);
                plan.trust = plan.poll * random.u32(3..8);
                plan.pause_ns = [MS / 5, 2 * MS][random.usize(..2)];
                plan.work_ns = random.u64(300..1_500) * MS;
                plan.calm_ns = [10 * MS, 50 * MS][random.usize(..2)];
                plan.faults = Faults::of([Fault::Fade], [100 * MS, 300 * MS][random.usize(..2)], 400 * MS);
                if random.bool() {
                    plan.faults.kinds.extend([Fault::Cut, Fault::Pause]);
                }
                plan.verbs =
                    Verbs(vec![(20, Get), (50, Peek), (8, Load), (2, Update), (5, Add), (10, Bump), (3, Remove)]);
            }
        }
    }
}

impl Plan {
    /// Has few processes be at few keys all the time, with nothing else in the way.
    fn concentrate(&mut self, random: &mut Rng) {
        self.processes = random.usize(2..5);
        self.threads = random.usize(2..4);
        self.caches = 1;
        self.keys = random.u32(1..4);
        self.groups = random.u32(1..3);
        self.capacity = 100;
        self.work_ns = random.u64(500..2_500) * MS;
        self.pause_ns = [2 * MS, 5 * MS][random.usize(..2)];
        self.load_ns = [MS, 20 * MS][random.usize(..2)];
        self.hard_ttl = None;
        self.soft_ttl = None;
        self.behind = None;
        self.on_lost_trust = LostTrust::Revalidate;
        self.announce = Announce::All;
        self.poll = Duration::from_millis([20, 50][random.usize(..2)]);
        self.trust = self.poll * random.u32(3..11);
        self.faults = Faults::default();
    }

    /// Has much happen between two commands of one write.
    fn spread_out(&mut self, random: &mut Rng) {
        self.delay_ns = [MS / 10, MS][random.usize(..2)];
        self.gap_ns = [10 * MS, 30 * MS][random.usize(..2)];
        self.gaps = [3, 5][random.usize(..2)];
        self.timeout = Duration::from_millis(1_000);
    }
}

impl Faults {
    fn of<const N: usize>(kinds: [Fault; N], every_ns: u64, longest_ns: u64) -> Faults {
        Faults { every_ns: Some(every_ns), longest_ns, loss: 100, twice: 10, kinds: kinds.to_vec() }
    }
}
