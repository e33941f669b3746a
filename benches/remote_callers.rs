//! How many gets that memcached answers, and the local tier does not, do several callers get through, beside as many on the
//! meta client of the `memcache` crate?
//!
//! Against a memcached on loopback. The two take turns of half a second, so that whatever else the machine does meets both,
//! and the ratios are medians over the rounds. Below the table stand the goals: with 64 callers 3 times the throughput, with
//! one caller 1.25 times the median latency at most.

#![allow(clippy::print_stdout, reason = "the table")]

#[allow(dead_code, reason = "the tests of the remote tier use the rest")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use larder::{EntryOptions, Memcached, Namespace, RawBytes, TieredCache};
use memcache::exp::MetaClient;
use support::memcached::Server;

const POPULATION: u64 = 1_000;
const VALUE_LEN: usize = 200;
const CALLERS: [usize; 3] = [1, 8, 64];
const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_millis(500);
/// Prime to the population, so that every caller goes through all keys.
const STRIDE: u64 = 7;

/// What the callers got through in one turn.
struct Turn {
    per_sec: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Lets `callers` threads get keys for a while.
fn turn(callers: usize, get: impl Fn(u64) + Sync) -> Turn {
    let (start, stop) = (Barrier::new(callers + 1), AtomicBool::new(false));
    let call = |caller: usize| {
        let mut latencies_ns = Vec::with_capacity(1 << 16);
        let mut key = caller as u64 * POPULATION / callers as u64;
        start.wait();
        while !stop.load(Ordering::Relaxed) {
            key = (key + STRIDE) % POPULATION;
            let began = Instant::now();
            get(key);
            latencies_ns.push(began.elapsed().as_nanos());
        }
        latencies_ns
    };
    let (mut latencies_ns, took) = thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|caller| scope.spawn(move || call(caller))).collect();
        start.wait();
        let began = Instant::now();
        thread::sleep(TURN);
        stop.store(true, Ordering::Relaxed);
        let took = began.elapsed();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<u128>>| thread.join().expect("a get failed");
        (threads.into_iter().flat_map(join).collect::<Vec<_>>(), took)
    });
    latencies_ns.sort_unstable();
    let quantile_us = |part: f64| latencies_ns[((latencies_ns.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    Turn {
        per_sec: latencies_ns.len() as f64 / took.as_secs_f64(),
        p50_us: quantile_us(0.5),
        p99_us: quantile_us(0.99),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(callers: usize, name: &str, turns: &[Turn]) {
    let of = |part: fn(&Turn) -> f64| median(turns.iter().map(part));
    println!(
        "{callers:>7}  {name:<10}  {:>9.0}  {:>8.1}  {:>8.1}",
        of(|turn| turn.per_sec),
        of(|turn| turn.p50_us),
        of(|turn| turn.p99_us),
    );
}

fn main() {
    let server = Server::start();
    let memcached = Memcached::connect(server.addr()).expect("the server has just been started");
    let namespace = Namespace::builder("bench", memcached).build().expect("the name is valid");
    // Room for one entry: whoever goes through the keys in a circle finds next to none of them in the local tier.
    let cache: TieredCache<u64, Vec<u8>> = TieredCache::builder(&namespace, "values")
        .capacity(1)
        .soft_ttl(Duration::from_secs(3_600))
        .codec(RawBytes)
        .build()
        .expect("these settings agree with each other");
    let client = MetaClient::connect(server.addr()).expect("the server has just been started");
    let names: Vec<String> = (0..POPULATION).map(|key| format!("bare:{key}")).collect();
    for (key, name) in (0..POPULATION).zip(&names) {
        let options = EntryOptions::new().groups(["benchmark"]);
        assert!(cache.insert_with(key, vec![1; VALUE_LEN], options).is_through());
        client.set(name, vec![1; VALUE_LEN]).send().expect("memcached takes the value");
    }

    println!("callers  of            gets/s    p50 µs    p99 µs");
    let mut ratios = Vec::new();
    for callers in CALLERS {
        let (mut bare, mut tiered) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(turn(callers, |key| {
                let found = client.get(&names[usize::try_from(key).expect("a small key")]).send();
                assert!(black_box(found).expect("memcached answers").hit());
            }));
            tiered.push(turn(callers, |key| {
                assert_eq!(black_box(cache.get(&key)).map(|value| value.len()), Some(VALUE_LEN));
            }));
        }
        row(callers, "MetaClient", &bare);
        row(callers, "larder", &tiered);
        let ratio =
            |part: fn(&Turn) -> f64| median(tiered.iter().zip(&bare).map(|(ours, bare)| part(ours) / part(bare)));
        ratios.push((callers, ratio(|turn| turn.per_sec), ratio(|turn| turn.p50_us)));
    }
    for (callers, throughput, p50) in ratios {
        println!("{callers:>7} callers: {throughput:.2} times the throughput, {p50:.2} times the p50");
    }
    let (local, remote) = (cache.stats(), cache.remote_stats());
    println!("{} of {} gets were remote hits", remote.hits_fresh, local.hits() + local.misses);
}
