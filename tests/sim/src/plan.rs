//! What a seed decides before anything runs.

use std::time::Duration;

use fastrand::Rng;
use larder::{Announce, LostTrust};

use crate::theme::Theme;

pub const MS: u64 = 1_000_000;

/// One simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub theme: Theme,
    pub processes: usize,
    /// How much faster or slower a clock may be, in millionths.
    pub drift_ppm: u64,
    pub threads: usize,
    pub servers: usize,
    /// Of each namespace: keys go round them.
    pub caches: u32,
    pub keys: u32,
    pub groups: u32,
    /// Of the local tier of each process, in entries.
    pub capacity: u64,
    /// How long the work goes on, in nanoseconds of the world.
    pub work_ns: u64,
    /// The longest pause between two calls of one thread.
    pub pause_ns: u64,
    /// The mean time between two invalidations, wherever, while everybody reads and loads; 0 for as many as there are calls.
    pub calm_ns: u64,
    /// The longest that a load takes as a rule.
    pub load_ns: u64,
    /// How many loads of 40 bring nothing that is kept.
    pub spoilt: u8,
    /// How many loads of 8 name their groups only when they end.
    pub late: u8,
    pub soft_ttl: Option<Duration>,
    /// From when on values are dead; later than the end of the simulation for `None`.
    pub hard_ttl: Option<Duration>,
    /// Whether each value says so for itself, instead of its cache for all.
    pub own_ttl: bool,
    pub poll: Duration,
    pub trust: Duration,
    pub timeout: Duration,
    /// How many writes may wait, where they do.
    pub behind: Option<usize>,
    pub on_lost_trust: LostTrust,
    pub announce: Announce,
    /// From which length on the journal is shortened.
    pub compact_at: usize,
    /// The longest way of a message in one direction, while nothing disturbs it.
    pub delay_ns: u64,
    /// The longest time between two commands of one write, in which others' commands are carried out.
    pub gap_ns: u64,
    /// How many writes of 8 are stretched: between half of their commands there is one.
    pub gaps: u8,
    pub faults: Faults,
    pub verbs: Verbs,
    pub preempt: u8,
    pub step_ns: u64,
}

/// What may go wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The mean time between two faults; `None` for none at all.
    pub every_ns: Option<u64>,
    /// How long one lasts at most; a few last ten times as long.
    pub longest_ns: u64,
    /// How many messages of 1,000 are lost while a fault of that kind lasts.
    pub loss: u32,
    /// How many commands of 1,000 that may be are carried out twice.
    pub twice: u32,
    /// Which kinds there are.
    pub kinds: Vec<Fault>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Messages of a process to a server are lost, or those from it, or both.
    Cut,
    /// Some messages are lost, or stop half-way.
    Loss,
    /// Messages take long.
    Slow,
    /// A server answers late, since it stands still.
    Stall,
    /// A server dies and comes back empty, with its numbers from the start.
    Restart,
    /// The same, of a server that has values alone, where there is one.
    RestartValues,
    Flush,
    Evict,
    /// A process stands still.
    Pause,
    /// A process hears of the server that has the journal later and later, then nothing.
    Fade,
    /// A process dies, in the middle of anything. Later another one starts in its place.
    Death,
}

/// Which verbs are called how often, as shares.
#[derive(Clone, Debug)]
pub struct Verbs(pub Vec<(u32, Verb)>);

/// What a thread of a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Peek,
    GetMany,
    Load,
    LoadAsync,
    LoadMany,
    Claim,
    Insert,
    Add,
    Update,
    Remove,
    Expire,
    Bump,
    BumpSoft,
    Clear,
    Count,
}

impl Verb {
    /// Returns whether it invalidates something.
    pub fn moves(self) -> bool {
        use Verb::{Add, Bump, BumpSoft, Clear, Expire, Insert, Remove, Update};
        matches!(self, Insert | Add | Update | Remove | Expire | Bump | BumpSoft | Clear)
    }
}

impl Plan {
    /// Decides what `seed` stands for; of `processes`, if it is told how many.
    pub fn new(seed: u64, processes: Option<usize>) -> Plan {
        let theme = Theme::of(seed);
        let random = &mut Rng::with_seed(seed ^ 0x51AB_1E5E_ED5E_ED00);
        let usual = if random.u8(..20) == 0 { random.usize(6..16) } else { random.usize(2..6) };
        let asked = processes.or(theme.processes());
        let processes = asked.unwrap_or(usual);
        let calm = random.u8(..4) == 0;
        let poll = Duration::from_millis([20, 50, 50, 100][random.usize(..4)]);
        let delay_ns = [MS / 10, MS, 5 * MS, 20 * MS][random.usize(..4)];
        // Hundreds of processes do less each.
        let share = 1 + processes as u64 / 8;
        let mut plan = Plan {
            seed,
            theme,
            processes,
            drift_ppm: [0, 100, 10_000][random.usize(..3)],
            threads: if processes > 16 { 1 } else { random.usize(1..4) },
            servers: [1, 2, 2, 3][random.usize(..4)],
            caches: [1, 1, 1, 2][random.usize(..4)],
            keys: [1, 1, 3, 12][random.usize(..4)],
            groups: [1, 2, 5][random.usize(..3)],
            capacity: [2, 8, 100][random.usize(..3)],
            work_ns: random.u64(300..3_000) * MS / share,
            pause_ns: [2 * MS, 10 * MS, 40 * MS][random.usize(..3)] * share,
            calm_ns: 0,
            load_ns: [MS, 20 * MS, 200 * MS][random.usize(..3)],
            spoilt: 4,
            late: 4,
            soft_ttl: [None, Some(Duration::from_millis(300)), Some(Duration::from_secs(2))][random.usize(..3)],
            hard_ttl: [None, None, Some(Duration::from_millis(400)), Some(Duration::from_secs(4))][random.usize(..4)],
            own_ttl: random.bool(),
            poll,
            trust: poll * random.u32(3..11),
            timeout: Duration::from_millis([100, 250, 500][random.usize(..3)]),
            behind: (random.u8(..4) == 0).then(|| [4, 1_000][random.usize(..2)]),
            on_lost_trust: match random.u8(..12) {
                0..2 => LostTrust::Refuse,
                2 => LostTrust::ServeStale,
                _ => LostTrust::Revalidate,
            },
            announce: match random.u8(..12) {
                0 => Announce::Removals,
                1 => Announce::Groups,
                _ => Announce::All,
            },
            compact_at: [64 << 10, 64 << 10, 64 << 10, 28 + 24 * random.usize(8..40)][random.usize(..4)],
            delay_ns,
            gap_ns: [0, delay_ns / 10, 4 * delay_ns][random.usize(..3)],
            gaps: 2,
            faults: if calm { Faults::default() } else { Faults::new(random) },
            verbs: Verbs::new(random),
            preempt: [0, 4, 40, 128][random.usize(..4)],
            step_ns: [100, 2_000, 50_000][random.usize(..3)],
        };
        theme.shape(&mut plan, random);
        plan.processes = asked.unwrap_or(plan.processes);
        // So that a slow look, and another one, fit into it.
        plan.trust = plan.trust.max(2 * plan.poll + Duration::from_nanos(8 * plan.delay_ns));
        plan.timeout = plan.timeout.max(Duration::from_nanos(4 * plan.delay_ns));
        plan.soft_ttl = plan.soft_ttl.filter(|soft| plan.hard_ttl.is_none_or(|hard| *soft < hard));
        plan
    }

    /// Returns whether a process may die: then its threads stop where they are, and never end.
    pub fn has_deaths(&self) -> bool {
        self.faults.kinds.contains(&Fault::Death)
    }
}

impl Faults {
    fn new(random: &mut Rng) -> Faults {
        let all = [
            Fault::Cut,
            Fault::Loss,
            Fault::Slow,
            Fault::Stall,
            Fault::Restart,
            Fault::Flush,
            Fault::Evict,
            Fault::Pause,
            Fault::Fade,
        ];
        let mut kinds: Vec<Fault> = all.into_iter().filter(|_| random.bool()).collect();
        if kinds.is_empty() {
            kinds.push(all[random.usize(..all.len())]);
        }
        Faults {
            every_ns: Some([50 * MS, 200 * MS, 1_000 * MS][random.usize(..3)]),
            longest_ns: 400 * MS,
            loss: [10, 100, 500][random.usize(..3)],
            twice: [0, 10, 200][random.usize(..3)],
            kinds,
        }
    }
}

impl Verbs {
    fn new(random: &mut Rng) -> Verbs {
        use Verb::{
            Add, Bump, BumpSoft, Claim, Clear, Count, Expire, Get, GetMany, Insert, Load, LoadAsync, LoadMany, Peek,
            Remove, Update,
        };
        let usual = [
            (20, Get),
            (20, Peek),
            (8, GetMany),
            (40, Load),
            (15, LoadAsync),
            (8, LoadMany),
            (8, Claim),
            (6, Insert),
            (3, Add),
            (3, Update),
            (5, Remove),
            (3, Expire),
            (15, Bump),
            (3, BumpSoft),
            (1, Clear),
            (2, Count),
        ];
        // Some verbs are left out, so that others meet each other the more.
        let few = random.bool();
        let kept = usual.into_iter().filter(|(_, verb)| *verb == Load || *verb == Bump || !few || random.bool());
        let mut kept: Vec<(u32, Verb)> = kept.collect();
        // And some are called all the time.
        for _ in 0..random.usize(..3) {
            let loud = random.usize(..kept.len());
            kept[loud].0 += 60;
        }
        Verbs(kept)
    }

    /// Picks a verb, one that invalidates nothing if it is not to.
    pub fn pick(&self, random: &mut Rng, may_move: bool) -> Verb {
        let allowed = || self.0.iter().filter(|(_, verb)| may_move || !verb.moves());
        let all: u32 = allowed().map(|(share, _)| share).sum();
        let mut left = random.u32(..all.max(1));
        for (share, verb) in allowed() {
            if left < *share {
                return *verb;
            }
            left -= share;
        }
        Verb::Load
    }
}
