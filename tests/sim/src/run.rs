//! One simulation, from its seed to its verdict.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use larder::sim::{self, Options, Outcome};
use larder::{Namespace, RawBytes, TieredCache, WriteMode};

use crate::faults::Trouble;
use crate::history;
use crate::network::Network;
use crate::oracle::{Counts, Oracle};
use crate::plan::{MS, Plan};
use crate::server::{Order, Server};
use crate::work::{Cache, Worker};

/// How long a value lives where nothing else is said: longer than any simulation.
const HARD_TTL: Duration = Duration::from_secs(3_600);

/// How long a lease lasts where processes die: the shortest, for others to come by it.
pub const SHORT_LEASE: Duration = Duration::from_secs(3);

/// After which no lease stands any more that nobody renews: longer than the usual grace, which is that of refreshes.
const LONGEST_TERM: Duration = Duration::from_secs(70);

/// Runs a plan. A broken promise ends the process, by `on_failure`.
pub fn run(plan: &Plan, on_failure: fn(&str)) -> (Outcome, Counts) {
    history::clear();
    let Plan { seed, preempt, step_ns, compact_at, .. } = *plan;
    let options = Options { seed, preempt, step_ns, compact_at, on_failure };
    let oracle = Arc::new(Oracle::new(plan));
    let (plan, watching) = (plan.clone(), oracle.clone());
    let outcome = sim::run(options, move || play(&plan, &watching));
    (outcome, oracle.counts())
}

fn play(plan: &Plan, oracle: &Arc<Oracle>) {
    let servers: Vec<_> = (0..plan.servers).map(|number| Server::start(number, oracle.clone())).collect();
    let network = Network::new(plan, servers, oracle.clone());
    let stage = Arc::new(Stage {
        plan: plan.clone(),
        network: network.clone(),
        oracle: oracle.clone(),
        over: Arc::default(),
        calm: Arc::default(),
        next_move: Arc::default(),
        cast: Mutex::new(Cast { random: Rng::with_seed(plan.seed), alive: Vec::new(), started: Vec::new() }),
    });
    (0..plan.processes).for_each(|_| stage.start());
    let trouble = Trouble { stage: stage.clone() };
    let trouble = sim::spawn(sim::here(), "trouble", move || Arc::new(trouble).make());
    sim::sleep_until(plan.work_ns);
    stage.over.store(true, Ordering::Relaxed);
    trouble.join();
    stage.calm.store(true, Ordering::Relaxed);
    let started = mem::take(&mut stage.cast.lock().unwrap().started);
    started.into_iter().for_each(sim::Joiner::join);
    // What was never heard of any more is still under way.
    sim::sleep_until(sim::now() + 1_000 * MS);
    network.servers.iter().for_each(|server| server.order(Order::Rest));
    sim::sleep_until(sim::now() + LONGEST_TERM.as_nanos() as u64);
    network.servers.iter().for_each(|server| server.order(Order::Stop));
}

/// Where processes come and go.
pub struct Stage {
    pub plan: Plan,
    pub network: Arc<Network>,
    pub oracle: Arc<Oracle>,
    /// Whether the work is over.
    pub over: Arc<AtomicBool>,
    /// Whether nothing goes wrong any more.
    calm: Arc<AtomicBool>,
    /// When somebody may invalidate something again.
    next_move: Arc<AtomicU64>,
    cast: Mutex<Cast>,
}

/// Who is on.
struct Cast {
    random: Rng,
    /// By their numbers.
    alive: Vec<(usize, sim::Process)>,
    started: Vec<sim::Joiner>,
}

impl Stage {
    /// Starts another process.
    pub fn start(self: &Arc<Self>) {
        let mut cast = self.cast.lock().unwrap();
        let drift = i64::try_from(self.plan.drift_ppm).unwrap_or_default();
        let process = sim::process(cast.random.i64(-drift..=drift));
        let (number, seed) = (cast.started.len(), cast.random.u64(..));
        self.oracle.joins(number);
        let stage = self.clone();
        cast.started.push(sim::spawn(process, "application", move || stage.application(number, seed)));
        cast.alive.push((number, process));
    }

    /// Returns one of those that are alive.
    pub fn any(&self, random: &mut Rng) -> (usize, sim::Process) {
        let cast = self.cast.lock().unwrap();
        cast.alive[random.usize(..cast.alive.len())]
    }

    /// Has a process die, unless it is the last one, or has died.
    pub fn kill(&self, number: usize) -> bool {
        let mut cast = self.cast.lock().unwrap();
        let Some(at) = cast.alive.iter().position(|(alive, _)| *alive == number) else { return false };
        if cast.alive.len() == 1 {
            return false;
        }
        let (_, process) = cast.alive.remove(at);
        sim::kill(process);
        self.oracle.dies(number);
        true
    }

    /// One process, from its start to its end.
    fn application(&self, process: usize, seed: u64) {
        let Stage { plan, network, oracle, over, calm, next_move, .. } = self;
        let mut random = Rng::with_seed(seed);
        let (namespace, caches) = open(process, plan, network);
        let workers: Vec<_> = (0..plan.threads)
            .map(|_| {
                let worker = Worker {
                    process,
                    plan: plan.clone(),
                    oracle: oracle.clone(),
                    namespace: namespace.clone(),
                    caches: caches.clone(),
                    over: over.clone(),
                    calm: calm.clone(),
                    next_move: next_move.clone(),
                    random: Rng::with_seed(random.u64(..)),
                    called: 0,
                    made: Arc::default(),
                    open: Vec::new(),
                };
                sim::spawn(sim::here(), "worker", move || worker.work())
            })
            .collect();
        workers.into_iter().for_each(sim::Joiner::join);
        if random.bool()
            && let Err(unsent) = namespace.shutdown(Duration::from_secs(10))
        {
            oracle.fail(process, &format!("something is left to send: {unsent:?}"));
        }
    }
}

fn open(number: usize, plan: &Plan, network: &Arc<Network>) -> (Namespace, Vec<Cache>) {
    let mut namespace = Namespace::builder("sim", network.link(number))
        .poll_interval(plan.poll)
        .trust(plan.trust)
        .timeout(plan.timeout)
        .on_lost_trust(plan.on_lost_trust)
        .announce(plan.announce);
    if let Some(queue) = plan.behind {
        namespace = namespace.write_mode(WriteMode::Behind { queue });
    }
    if plan.has_deaths() {
        namespace = namespace.lease(SHORT_LEASE);
    }
    let namespace = namespace.build().expect("the plan's settings are good");
    let cache = |name: u32| {
        let mut cache = TieredCache::builder(&namespace, &format!("values-{name}"))
            .capacity(plan.capacity)
            .shards(1)
            .codec(RawBytes)
            .hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
            .hard_ttl(plan.hard_ttl.filter(|_| !plan.own_ttl).unwrap_or(HARD_TTL));
        if let Some(soft) = plan.soft_ttl {
            cache = cache.soft_ttl(soft);
        }
        cache.build().expect("the plan's settings are good")
    };
    let caches = (0..plan.caches).map(cache).collect();
    (namespace, caches)
}
