//! One simulation, from its seed to its verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use larder::sim::{self, Options, Outcome};
use larder::{LostTrust, Namespace, RawBytes, TieredCache, WriteMode};

use crate::faults::Trouble;
use crate::history;
use crate::network::Network;
use crate::oracle::{Counts, Oracle};
use crate::plan::{MS, Plan};
use crate::server::{Order, Server};
use crate::work::{Cache, Worker};

/// How long a value lives at most: longer than any simulation.
const HARD_TTL: Duration = Duration::from_secs(3_600);

/// Runs a plan. A broken promise ends the process, by `on_failure`.
pub fn run(plan: &Plan, on_failure: fn(&str)) -> (Outcome, Counts) {
    history::clear();
    let options = Options { seed: plan.seed, preempt: plan.preempt, step_ns: plan.step_ns, on_failure };
    let oracle = Arc::new(Oracle::new(plan));
    let (plan, watching) = (plan.clone(), oracle.clone());
    let outcome = sim::run(options, move || play(&plan, &watching));
    (outcome, oracle.counts())
}

fn play(plan: &Plan, oracle: &Arc<Oracle>) {
    let mut random = Rng::with_seed(plan.seed);
    let servers: Vec<_> = (0..plan.servers).map(|number| Server::start(number, oracle.clone())).collect();
    let network = Network::new(plan, servers, oracle.clone());
    let drift = i64::try_from(plan.drift_ppm).unwrap_or_default();
    let processes: Vec<_> = (0..plan.processes).map(|_| sim::process(random.i64(-drift..=drift))).collect();
    let (over, calm) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let starts: Vec<_> = processes
        .iter()
        .enumerate()
        .map(|(number, process)| {
            let crew = Crew {
                process: number,
                plan: plan.clone(),
                network: network.clone(),
                oracle: oracle.clone(),
                over: over.clone(),
                calm: calm.clone(),
            };
            let seed = random.u64(..);
            sim::spawn(*process, "application", move || application(&crew, seed))
        })
        .collect();
    let trouble =
        Trouble { plan: plan.clone(), network: network.clone(), processes, oracle: oracle.clone(), over: over.clone() };
    let trouble = sim::spawn(sim::here(), "trouble", move || Arc::new(trouble).make());
    sim::sleep_until(plan.work_ns);
    over.store(true, Ordering::Relaxed);
    trouble.join();
    calm.store(true, Ordering::Relaxed);
    starts.into_iter().for_each(sim::Joiner::join);
    // What was never heard of any more is still under way.
    sim::sleep_until(sim::now() + 1_000 * MS);
    network.servers.iter().for_each(|server| server.order(Order::Stop));
}

/// What one process works with.
struct Crew {
    process: usize,
    plan: Plan,
    network: Arc<Network>,
    oracle: Arc<Oracle>,
    over: Arc<AtomicBool>,
    calm: Arc<AtomicBool>,
}

/// One process, from its start to its end.
fn application(crew: &Crew, seed: u64) {
    let Crew { process, plan, network, oracle, over, calm } = crew;
    let mut random = Rng::with_seed(seed);
    let (namespace, cache) = open(*process, plan, network);
    let workers: Vec<_> = (0..plan.threads)
        .map(|_| {
            let worker = Worker {
                process: *process,
                plan: plan.clone(),
                oracle: oracle.clone(),
                namespace: namespace.clone(),
                cache: cache.clone(),
                over: over.clone(),
                calm: calm.clone(),
                random: Rng::with_seed(random.u64(..)),
                called: 0,
                open: Vec::new(),
            };
            sim::spawn(sim::here(), "worker", move || worker.work())
        })
        .collect();
    workers.into_iter().for_each(sim::Joiner::join);
    if random.bool()
        && let Err(unsent) = namespace.shutdown(Duration::from_secs(10))
    {
        oracle.fail(*process, &format!("something is left to send: {unsent:?}"));
    }
}

fn open(number: usize, plan: &Plan, network: &Arc<Network>) -> (Namespace, Cache) {
    let mut namespace = Namespace::builder("sim", network.link(number))
        .poll_interval(plan.poll)
        .trust(plan.trust)
        .timeout(plan.timeout);
    if let Some(queue) = plan.behind {
        namespace = namespace.write_mode(WriteMode::Behind { queue });
    }
    if plan.refuse {
        namespace = namespace.on_lost_trust(LostTrust::Refuse);
    }
    let namespace = namespace.build().expect("the plan's settings are good");
    let mut cache = TieredCache::builder(&namespace, "values")
        .capacity(plan.capacity)
        .shards(1)
        .codec(RawBytes)
        .hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
        .hard_ttl(HARD_TTL);
    if let Some(soft) = plan.soft_ttl {
        cache = cache.soft_ttl(soft);
    }
    let cache = cache.build().expect("the plan's settings are good");
    (namespace, cache)
}
