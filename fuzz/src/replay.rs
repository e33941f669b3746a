//! Runs the corpora, and then mutations of them, through the targets: what `tests/run` does where there is no cargo-fuzz.
//!
//! `replay [--seconds N] [--seed N] [TARGET]...` mutates for so many seconds a target, 0 by default; `replay TARGET FILE` runs
//! one input. An input that fails is written to `artifacts/<target>`, where cargo-fuzz puts its own.

use std::collections::HashMap;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, abort};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fastrand::Rng;
use larder_fuzz::{TARGETS, Target};

/// The longest input that is made: libFuzzer's own default.
const MAX_LEN: usize = 4 << 10;

/// How many changes are made to one input at most.
const MAX_CHANGES: usize = 8;

/// What is run at present: panics of any thread are about it.
static RUNNING: Mutex<(&str, Vec<u8>)> = Mutex::new(("", Vec::new()));

fn main() -> ExitCode {
    let (mut seconds, mut seed) = (0, fastrand::u64(..));
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|number| number.parse().ok());
        match &*argument {
            "--seconds" | "--seed" => {
                let Some(number) = number() else { return usage(&format!("{argument} takes a number")) };
                *(if argument == "--seed" { &mut seed } else { &mut seconds }) = number;
            }
            _ => names.push(argument),
        }
    }
    let target = |name: &String| TARGETS.iter().find(|(known, _)| known == name).copied();
    stop_at_panics();
    if let [name, file] = &*names
        && let (Some((name, target)), None) = (target(name), self::target(file))
    {
        let Ok(input) = fs::read(file) else { return usage(&format!("{file} is neither a target nor a file")) };
        run(name, target, &input);
        return ExitCode::SUCCESS;
    }
    let chosen: Option<Vec<_>> = names.iter().map(target).collect();
    let chosen = match chosen {
        Some(chosen) if !chosen.is_empty() => chosen,
        Some(_) => TARGETS.to_vec(),
        None => return usage("no such target"),
    };
    println!("seed {seed}");
    for (name, target) in chosen {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for input in &corpus {
            run(name, target, input);
        }
        let ran = mutate(name, target, &corpus, Duration::from_secs(seconds), &mut Rng::with_seed(seed));
        println!("{name}: {} inputs of the corpus, {ran} mutations", corpus.len());
    }
    ExitCode::SUCCESS
}

fn target(name: &str) -> Option<Target> {
    HashMap::from(TARGETS).get(name).copied()
}

fn usage(problem: &str) -> ExitCode {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    eprintln!("{problem}\nreplay [--seconds N] [--seed N] [TARGET]..., or replay TARGET FILE\n{}", names.join(" "));
    ExitCode::FAILURE
}

fn folder(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder("corpus", name)).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))).collect()
}

/// Ends the process at the first panic, also one that larder would catch: no target makes any code of larder's or its own
/// panic on purpose.
fn stop_at_panics() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        report(panicked);
        // Whoever panics may hold the lock only by panicking in `run` itself, which does not.
        let (name, input) = &*RUNNING.lock().unwrap();
        let folder = folder("artifacts", name);
        let file = folder.join(format!("replay-{:016x}", Rng::with_seed(fastrand::u64(..)).u64(..)));
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input));
        eprintln!("{name} failed ({written:?}); again: cargo run --release --bin replay -- {name} {}", file.display());
        abort();
    }));
}

fn run(name: &'static str, target: Target, input: &[u8]) {
    let mut running = RUNNING.lock().unwrap();
    running.0 = name;
    input.clone_into(&mut running.1);
    drop(running);
    target(input);
}

/// Runs mutations for so long, and returns how many.
fn mutate(name: &'static str, target: Target, corpus: &[Vec<u8>], limit: Duration, random: &mut Rng) -> u64 {
    let started = Instant::now();
    let mut ran = 0;
    while started.elapsed() < limit {
        let mut input = corpus[random.usize(..corpus.len())].clone();
        for _ in 0..random.usize(1..=MAX_CHANGES) {
            change(&mut input, &corpus[random.usize(..corpus.len())], random);
        }
        input.truncate(MAX_LEN);
        run(name, target, &input);
        ran += 1;
    }
    ran
}

/// Changes an input at one place, by a part of `other` if need be.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    let at = random.usize(..=input.len());
    let len = random.usize(..=16.min(input.len() - at));
    match random.u8(..8) {
        0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        1 if at < input.len() => input[at] = random.u8(..),
        2 if at < input.len() => input[at] = [0, 1, 0x7F, 0x80, 0xFF, b' ', b'\n', b':'][random.usize(..8)],
        3 => drop(input.drain(at..at + len)),
        4 => {
            let part = input[at..at + len].to_vec();
            input.splice(at..at, part);
        }
        5 => {
            let random_bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            input.splice(at..at, random_bytes);
        }
        6 => {
            let from = random.usize(..=other.len());
            let to = random.usize(from..=other.len());
            input.splice(at..at + len, other[from..to].iter().copied());
        }
        _ => {
            let from = random.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}
