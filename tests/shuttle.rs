//! Schedules of a whole cache, chosen by seeds: `RUSTFLAGS="--cfg larder_shuttle" cargo test --package larder --test shuttle`.
//!
//! `LARDER_SHUTTLE_SCHEDULES` says how many each scheduler tries, and `LARDER_SHUTTLE_SEED` where their seeds begin. A schedule that
//! fails is printed: with it as `LARDER_SHUTTLE_REPLAY`, and with the name of its test, it runs once more.
#![cfg(larder_shuttle)]

// What histories and their checker have beside what is used here is for tests on the machine's own threads.
#[path = "linear/checker.rs"]
mod checker;
#[path = "linear/spec.rs"]
mod spec;
#[path = "linear/subject.rs"]
mod subject;
#[path = "linear/worker.rs"]
mod worker;

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use larder::{Cache, Claim, Clock, EntryOptions, Fill, Load, Lookup};
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner, thread};

use self::subject::{Hasher, Local};
use self::worker::{AGEING, BUMPED, CROWDED, EVERYTHING, Mix, PLAIN, Worker};

/// How many schedules each scheduler tries of each scenario.
const SCHEDULES: u64 = 1_000;

/// How many times PCT ("A randomized scheduler with probabilistic guarantees of finding bugs", Burckhardt, Kothari, Musuvathi and
/// Nagarakatti, ASPLOS 2010) takes the turn from the thread that it prefers: most races need no more.
const DEPTH: usize = 3;

/// What a thread has for its stack: where atomics carry what shuttle knows of them, a cache that is being made is large.
const STACK_LEN: usize = 2 << 20;

/// Threads of histories, and operations of each: fewer than on the machine's own, since every schedule costs more.
const THREADS: RangeInclusive<usize> = 2..=3;
const OPERATIONS: RangeInclusive<usize> = 3..=5;

/// Every access to an atomic is a place where another thread may go on: there need not be more.
fn pause() {}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_LEN;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario);
}

/// Runs a scenario under many schedules, or under the one that is asked for.
fn explore(scenario: impl Fn() + Send + Sync + Clone + 'static) {
    if let Ok(schedule) = std::env::var("LARDER_SHUTTLE_REPLAY") {
        return run(ReplayScheduler::new_from_encoded(&schedule), scenario);
    }
    let seed = from_environment("LARDER_SHUTTLE_SEED", 0);
    let schedules = from_environment("LARDER_SHUTTLE_SCHEDULES", SCHEDULES) as usize;
    run(RandomScheduler::new_from_seed(seed, schedules), scenario.clone());
    run(PctScheduler::new_from_seed(seed, DEPTH, schedules), scenario);
}

/// A cache of this capacity, of one shard, in which no time passes.
fn cache(capacity: u64) -> Cache<u32, u32, Hasher> {
    let (clock, _) = Clock::manual();
    Cache::builder().capacity(capacity).shards(1).clock(clock).hasher(Hasher::default()).build().unwrap()
}

fn claim(cache: &Cache<u32, u32, Hasher>) -> Claim<u32, u32> {
    let Lookup::Vacant(claim) = cache.lookup(&1) else { panic!("nothing is there, and nobody else fills it") };
    claim
}

/// Returns what `loader` brings, where there is nothing.
fn load(cache: &Cache<u32, u32, Hasher>, loader: impl FnOnce(Load<u32>) -> u32) -> u32 {
    cache.get_or_load(&1, |load| Ok::<_, ()>(loader(load))).unwrap()
}

fn spawn<T: Send + 'static>(
    cache: &Cache<u32, u32, Hasher>,
    act: impl FnOnce(Cache<u32, u32, Hasher>) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let cache = cache.clone();
    thread::spawn(move || act(cache))
}

/// Who waits is told between its look at the shard and its wait, or looks while the load lands.
#[test]
fn many_callers_share_one_load() {
    explore(|| {
        let cache = cache(8);
        let loads = Arc::new(AtomicU32::new(0));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let loads = loads.clone();
                spawn(&cache, move |cache| {
                    load(&cache, |_| {
                        thread::yield_now();
                        loads.fetch_add(1, Ordering::Relaxed) + 7
                    })
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), 7);
        }
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    });
}

/// The removal comes before the fill, and fences it, or after it, and has its value: nothing is left in any case.
#[test]
fn a_removal_fences_a_fill_or_takes_its_value() {
    explore(|| {
        let cache = cache(8);
        let claim = claim(&cache);
        let remover = spawn(&cache, |cache| cache.remove(&1));
        let filled = claim.fill(7);
        match remover.join().unwrap() {
            Some(value) => assert!(value == 7 && filled == Fill::Stored),
            None => assert_eq!(filled, Fill::Fenced(7)),
        }
        assert_eq!(cache.get(&1), None);
    });
}

/// A load that reads its source before the source changes, and names its group only then, races with the bump that follows the
/// change: whoever asks after the bump gets what is new.
#[test]
fn nothing_from_before_a_bump_is_seen_after_it() {
    explore(|| {
        let cache = cache(8);
        let source = Arc::new(AtomicU32::new(1));
        let read = |source: Arc<AtomicU32>| {
            move |load: Load<u32>| {
                let value = source.load(Ordering::Relaxed);
                thread::yield_now();
                load.groups(["g"]);
                value
            }
        };
        let loader = spawn(&cache, {
            let loader = read(source.clone());
            move |cache| load(&cache, loader)
        });
        let joiner = spawn(&cache, {
            let loader = read(source.clone());
            move |cache| load(&cache, loader)
        });
        let bumper = spawn(&cache, {
            let (source, loader) = (source.clone(), read(source.clone()));
            move |cache| {
                source.store(2, Ordering::Relaxed);
                cache.invalidate_group("g");
                load(&cache, loader)
            }
        });
        assert_eq!(bumper.join().unwrap(), 2);
        loader.join().unwrap();
        joiner.join().unwrap();
        assert!(cache.get(&1).is_none_or(|value| value == 2));
    });
}

/// The same for entries that are stored, and a bump that kills them between a search and a judgement.
#[test]
fn a_bump_kills_what_was_stored_before_it_began() {
    explore(|| {
        let cache = cache(8);
        cache.insert_with(1, 1, EntryOptions::new().groups(["g"])).unwrap();
        let reader = spawn(&cache, |cache| (cache.get(&1), cache.get(&1)));
        let bumper = spawn(&cache, |cache| {
            cache.invalidate_group("g");
            cache.get(&1)
        });
        assert_eq!(bumper.join().unwrap(), None);
        assert_ne!(reader.join().unwrap(), (None, Some(1)));
        assert_eq!(cache.get(&1), None);
    });
}

/// A value that knows whether it was dropped.
#[derive(Clone)]
struct Watched(Arc<Guard>);

struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A reader publishes what it looks at while that is evicted, proven and dropped: by the insert that takes its slot, or by
/// maintenance.
#[test]
fn an_evicted_value_is_dropped_when_nobody_looks() {
    explore(|| {
        let (clock, _) = Clock::manual();
        let cache: Cache<u32, Watched, Hasher> =
            Cache::builder().capacity(1).shards(1).clock(clock).hasher(Hasher::default()).build().unwrap();
        let dropped: Vec<Arc<AtomicBool>> = (0..4).map(|_| Arc::default()).collect();
        let insert = |cache: &Cache<u32, Watched, Hasher>, key: u32, dropped: &Arc<AtomicBool>| {
            cache.insert(key, Watched(Arc::new(Guard(dropped.clone())))).unwrap();
        };
        insert(&cache, 1, &dropped[0]);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let cache = cache.clone();
                thread::spawn(move || {
                    cache.with(&1, |value| {
                        thread::yield_now();
                        assert!(!value.0.0.load(Ordering::Relaxed), "it was dropped while it was looked at");
                    });
                })
            })
            .collect();
        for (key, dropped) in (2..).zip(&dropped[1..]) {
            insert(&cache, key, dropped);
        }
        cache.run_maintenance();
        for reader in readers {
            reader.join().unwrap();
        }
        cache.run_maintenance();
        assert!(cache.len() <= 1);
        let left = dropped.iter().filter(|dropped| !dropped.load(Ordering::Relaxed)).count();
        assert_eq!(left, cache.len(), "what was evicted is dropped once nobody looks");
    });
}

/// The capacity shrinks while inserts hold weight that is stored nowhere yet.
#[test]
fn weight_stays_within_a_capacity_that_shrinks() {
    explore(|| {
        let cache = cache(6);
        let inserters: Vec<_> = (0..2)
            .map(|thread| {
                spawn(&cache, move |cache| {
                    for key in 0..2 {
                        let weight = 2 + u64::from(thread);
                        // Too heavy for what the capacity has become, perhaps.
                        let _ = cache.insert_with(10 * thread + key, key, EntryOptions::new().weight(weight));
                        assert!(cache.weight() <= 6);
                    }
                })
            })
            .collect();
        cache.set_capacity(2);
        assert!(cache.weight() <= 2);
        for inserter in inserters {
            inserter.join().unwrap();
        }
        assert!(cache.weight() <= 2);
        // Nothing of it was lost, either.
        cache.set_capacity(6);
        cache.insert_with(100, 1, EntryOptions::new().weight(6)).unwrap();
        assert_eq!((cache.get(&100), cache.weight()), (Some(1), 6));
    });
}

/// A claim is dropped while others are about to wait for it: one of them loads in its stead, and nobody waits for good.
#[test]
fn a_dropped_claim_goes_to_one_of_those_who_wait() {
    explore(|| {
        let cache = cache(8);
        let claim = claim(&cache);
        let loads = Arc::new(AtomicU32::new(0));
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let loads = loads.clone();
                spawn(&cache, move |cache| load(&cache, |_| loads.fetch_add(1, Ordering::Relaxed) + 7))
            })
            .collect();
        drop(claim);
        for caller in waiting {
            assert_eq!(caller.join().unwrap(), 7);
        }
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    });
}

/// The same where the load is a future that is dropped half-way.
#[test]
fn a_dropped_future_goes_to_one_of_those_who_wait() {
    explore(|| {
        let cache = cache(8);
        let waiting = spawn(&cache, |cache| load(&cache, |_| 7));
        {
            let mut loading = pin!(cache.get_or_load_async(&1, |_| std::future::pending::<Result<u32, ()>>()));
            let _ = loading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        assert_eq!(waiting.join().unwrap(), 7);
        assert_eq!(cache.get(&1), Some(7));
    });
}

/// Grace runs out while its holder fills: the claim was taken over by then, or was not.
#[test]
fn a_claim_that_is_taken_over_fills_nothing() {
    explore(|| {
        let (clock, time) = Clock::manual();
        let grace = Duration::from_millis(10);
        let builder = Cache::builder().capacity(8).shards(1).clock(clock).grace(grace);
        let cache: Cache<u32, u32, Hasher> = builder.hasher(Hasher::default()).build().unwrap();
        let first = claim(&cache);
        time.advance(grace);
        let second = spawn(&cache, |cache| match cache.lookup(&1) {
            Lookup::Vacant(claim) => claim.fill(2),
            Lookup::Fresh(1) => Fill::Fenced(2),
            other => panic!("{other:?}"),
        });
        let first = first.fill(1);
        let second = second.join().unwrap();
        assert_ne!(first.is_stored(), second.is_stored(), "{first:?}, {second:?}");
        assert_eq!(cache.get(&1), Some(if first.is_stored() { 1 } else { 2 }));
    });
}

/// `keep` condemns what is replaced before it can be removed.
#[test]
fn what_replaces_a_condemned_value_is_kept() {
    explore(|| {
        let cache = cache(8);
        cache.insert(1, 1).unwrap();
        cache.insert(2, 1).unwrap();
        let inserter = spawn(&cache, |cache| cache.insert(1, 2).unwrap());
        cache.retain(|_, value| *value != 1);
        inserter.join().unwrap();
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(2), None));
    });
}

/// Each update starts from what it replaces.
#[test]
fn no_update_is_lost() {
    explore(|| {
        let cache = cache(8);
        cache.insert(1, 0).unwrap();
        let updaters: Vec<_> =
            (0..2).map(|_| spawn(&cache, |cache| cache.update(&1, |value| value + 1).unwrap())).collect();
        cache.expire(&1);
        let mut made: Vec<_> = updaters.into_iter().map(|updater| updater.join().unwrap()).collect();
        made.sort_unstable();
        assert_eq!((made, cache.get(&1)), (vec![1, 2], Some(2)));
    });
}

fn all_are_explained(mix: Mix) {
    explore(move || {
        let mut random = shuttle::rand::thread_rng();
        let subject = Arc::new(Local::new(&mix.rules));
        let ticks = Arc::default();
        let threads: Vec<_> = (0..random.gen_range(THREADS))
            .map(|thread| {
                let worker = Worker::new(&subject, mix, &ticks, random.r#gen());
                let operations = random.gen_range(OPERATIONS);
                thread::spawn(move || worker.run(thread * OPERATIONS.end(), operations))
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let history = ended.into_iter().map(|(events, _claims)| events).collect();
        if let Err(violation) = checker::check(&mix.rules, &spec::State::default(), &history) {
            panic!("{mix:?}: {violation:?}");
        }
    });
}

#[test]
fn histories_without_pressure_are_explained() {
    all_are_explained(PLAIN);
}

#[test]
fn histories_under_pressure_are_explained() {
    all_are_explained(CROWDED);
}

#[test]
fn histories_with_bumps_are_explained() {
    all_are_explained(BUMPED);
}

#[test]
fn histories_with_deadlines_are_explained() {
    all_are_explained(AGEING);
}

#[test]
fn histories_with_everything_are_explained() {
    all_are_explained(EVERYTHING);
}

/// Nothing but the schedule decides what happens, or a printed one would replay nothing.
#[test]
fn a_schedule_decides_everything() {
    use shuttle::scheduler::UncontrolledNondeterminismCheckScheduler;
    let scheduler = UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new_from_seed(0, 200));
    run(scheduler, || {
        let cache = cache(2);
        let callers: Vec<_> = (0..2)
            .map(|key| {
                spawn(&cache, move |cache| {
                    cache.insert_with(key, key, EntryOptions::new().groups(["g"])).unwrap();
                    cache.invalidate_group("g");
                    cache.get_or_load(&key, |_| Ok::<_, ()>(key)).unwrap()
                })
            })
            .collect();
        for (key, caller) in (0..).zip(callers) {
            assert_eq!(caller.join().unwrap(), key);
        }
        cache.run_maintenance();
    });
}
