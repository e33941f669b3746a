//! How many gets that memcached answers, and the local tier does not, do several callers get through, beside as many on the
//! meta client of the `memcache` crate?
//!
//! Against a memcached on loopback. The two take turns of half a second, so that whatever else the machine does meets both,
//! and the ratios are medians over the rounds. Below the table stand the goals: with 64 callers 3 times the throughput, with
//! one caller 1.25 times the median latency at most. The processor time of a get, of this process and of memcached, says how
//! far two cores could go that do nothing else.
//!
//! `cargo bench --features memcached --bench remote_callers -- --json FILE` also writes the medians of each number of callers to
//! a file.

#![allow(clippy::print_stdout, reason = "the table")]

#[allow(dead_code, reason = "the tests of the remote tier use the rest")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::env;
use std::fs;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use larder::{EntryOptions, Memcached, Namespace, RawBytes, TieredCache, Write};
use memcache::exp::MetaClient;
use support::memcached::Server;

const POPULATION: u64 = 1_000;
const VALUE_LEN: usize = 200;
const CALLERS: [usize; 4] = [1, 8, 64, 256];
const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_millis(500);
/// Prime to the population, so that every caller goes through all keys.
const STRIDE: u64 = 7;

/// The unit of the times in `/proc/<pid>/stat`, the same on every Linux.
const TICK_US: f64 = 1e4;

/// What the callers got through in one turn.
struct Turn {
    per_sec: f64,
    p50_us: f64,
    p99_us: f64,
    /// The processor time of this process, and of memcached, for each get; not a number where nobody tells.
    process_cpu_us: f64,
    server_cpu_us: f64,
}

/// Returns the processor time that a process has used.
fn cpu_us(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name is in brackets and may hold anything; user and system time are the 12th and 13th number behind it.
    let numbers = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(12).take(2);
    let ticks: Vec<f64> = numbers.filter_map(|ticks| ticks.parse().ok()).collect();
    if let [user, system] = ticks[..] { (user + system) * TICK_US } else { f64::NAN }
}

/// Lets `callers` threads get keys from the server with this pid for a while.
fn turn(callers: usize, server: u32, get: impl Fn(u64) + Sync) -> Turn {
    let cpu = || [std::process::id(), server].map(cpu_us);
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
    let (mut latencies_ns, took, [client_us, server_us]) = thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|caller| scope.spawn(move || call(caller))).collect();
        let before = cpu();
        start.wait();
        let began = Instant::now();
        thread::sleep(TURN);
        stop.store(true, Ordering::Relaxed);
        let took = began.elapsed();
        let after = cpu();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<u128>>| thread.join().expect("a get failed");
        let latencies_ns: Vec<_> = threads.into_iter().flat_map(join).collect();
        (latencies_ns, took, [after[0] - before[0], after[1] - before[1]])
    });
    let gets = latencies_ns.len() as f64;
    latencies_ns.sort_unstable();
    let quantile_us = |part: f64| latencies_ns[((latencies_ns.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    Turn {
        per_sec: gets / took.as_secs_f64(),
        p50_us: quantile_us(0.5),
        p99_us: quantile_us(0.99),
        process_cpu_us: client_us / gets,
        server_cpu_us: server_us / gets,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the medians of turns, each part by itself.
fn typical(turns: &[Turn]) -> Turn {
    let of = |part: fn(&Turn) -> f64| median(turns.iter().map(part));
    Turn {
        per_sec: of(|turn| turn.per_sec),
        p50_us: of(|turn| turn.p50_us),
        p99_us: of(|turn| turn.p99_us),
        process_cpu_us: of(|turn| turn.process_cpu_us),
        server_cpu_us: of(|turn| turn.server_cpu_us),
    }
}

fn row(callers: usize, name: &str, turn: &Turn) {
    let Turn { per_sec, p50_us, p99_us, process_cpu_us, server_cpu_us } = turn;
    println!(
        "{callers:>7}  {name:<10}  {per_sec:>9.0}  {p50_us:>8.1}  {p99_us:>8.1}  {process_cpu_us:>9.2}  {server_cpu_us:>12.2}"
    );
}

/// Returns what a number of callers came to, as a JSON object.
fn json(callers: usize, bare: &Turn, tiered: &Turn, ratio: f64, p50_ratio: f64) -> String {
    let side = |name: &str, turn: &Turn| {
        let parts = [
            ("per_sec", turn.per_sec),
            ("p50_us", turn.p50_us),
            ("p99_us", turn.p99_us),
            ("process_cpu_us", turn.process_cpu_us),
            ("server_cpu_us", turn.server_cpu_us),
        ];
        // JSON has no number for what is not known.
        let value = |value: f64| if value.is_finite() { format!("{value:.3}") } else { "null".to_owned() };
        parts.map(|(part, known)| format!("\"{name}_{part}\": {}", value(known))).join(", ")
    };
    let sides = [side("larder", tiered), side("meta_client", bare)].join(", ");
    format!("{{\"callers\": {callers}, {sides}, \"ratio\": {ratio:.3}, \"p50_ratio\": {p50_ratio:.3}}}")
}

fn main() {
    let file = env::args().skip_while(|argument| argument != "--json").nth(1);
    let server = Server::start();
    let memcached = Memcached::connect(server.addr()).expect("the server has just been started");
    let namespace = Namespace::builder("bench", memcached).build().expect("the name is valid");
    // Room for none, so that the local tier never answers.
    let cache: TieredCache<u64, Vec<u8>> = TieredCache::builder(&namespace, "values")
        .capacity(0)
        .soft_ttl(Duration::from_secs(3_600))
        .codec(RawBytes)
        .build()
        .expect("these settings agree with each other");
    let client = MetaClient::connect(server.addr()).expect("the server has just been started");
    let names: Vec<String> = (0..POPULATION).map(|key| format!("bare:{key}")).collect();
    for (key, name) in (0..POPULATION).zip(&names) {
        let options = EntryOptions::new().groups(["benchmark"]);
        let stored = cache.insert_with(key, vec![1; VALUE_LEN], options);
        assert!(matches!(stored, Write::RemoteOnly(_)), "memcached takes the value, and the local tier does not");
        client.set(name, vec![1; VALUE_LEN]).send().expect("memcached takes the value");
    }

    println!("callers  of            gets/s    p50 µs    p99 µs  CPU µs/get  of memcached");
    let mut ratios = Vec::new();
    let mut objects = Vec::new();
    for callers in CALLERS {
        let (mut bare, mut tiered) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(turn(callers, server.pid(), |key| {
                let found = client.get(&names[usize::try_from(key).expect("a small key")]).send();
                assert!(black_box(found).expect("memcached answers").hit());
            }));
            tiered.push(turn(callers, server.pid(), |key| {
                assert_eq!(black_box(cache.get(&key)).map(|value| value.len()), Some(VALUE_LEN));
            }));
        }
        let usual = [typical(&bare), typical(&tiered)];
        row(callers, "MetaClient", &usual[0]);
        row(callers, "larder", &usual[1]);
        let ratio =
            |part: fn(&Turn) -> f64| median(tiered.iter().zip(&bare).map(|(ours, bare)| part(ours) / part(bare)));
        let (throughput, p50) = (ratio(|turn| turn.per_sec), ratio(|turn| turn.p50_us));
        ratios.push((callers, throughput, p50));
        objects.push(json(callers, &usual[0], &usual[1], throughput, p50));
    }
    for (callers, throughput, p50) in ratios {
        println!("{callers:>7} callers: {throughput:.2} times the throughput, {p50:.2} times the p50");
    }
    let (local, remote) = (cache.stats(), cache.remote_stats());
    println!("{} of {} gets were remote hits", remote.hits_fresh, local.hits() + local.misses);
    if let Some(file) = file {
        fs::write(file, format!("[\n  {}\n]\n", objects.join(",\n  "))).expect("the file can be written");
    }
}
