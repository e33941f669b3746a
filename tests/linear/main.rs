//! Histories of one key under several threads, each checked for an order of steps that explains it.
//!
//! `LARDER_LINEAR_HISTORIES` says how many of each kind are made, and `LARDER_LINEAR_SEED` where their seeds begin. A seed
//! chooses the operations; how threads meet is up to the machine, so that one which has failed may have to be tried often.

#![allow(clippy::print_stdout, reason = "how much was searched, and what a flaw looks like")]

mod checker;
mod flawed;
mod illegal;
mod spec;
mod subject;
mod worker;

use std::ops::RangeInclusive;
use std::sync::{Arc, Barrier};

use self::checker::{History, Violation, check};
use self::flawed::{Flaw, Flawed};
use self::spec::{Op, State};
use self::subject::{Local, Subject};
use self::worker::{AGEING, BUMPED, CROWDED, EVERYTHING, Mix, PLAIN, Worker};

/// How many histories of each kind are made: with five kinds, some seconds' worth.
const HISTORIES: u64 = 500;

/// How many threads a history has, and how many operations each.
const THREADS: RangeInclusive<usize> = 2..=4;
const OPERATIONS: RangeInclusive<usize> = 4..=8;

/// Within how many histories a flaw has to show.
const ENOUGH_FOR_A_FLAW: u64 = 2_000;

/// Lets another thread go on at times.
fn pause() {
    if fastrand::u8(..8) == 0 {
        std::thread::yield_now();
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Makes the history of a seed.
fn make<S: Subject>(subject: &Arc<S>, mix: Mix, seed: u64) -> History<Op> {
    let mut random = fastrand::Rng::with_seed(seed);
    let plans: Vec<_> = (0..random.usize(THREADS)).map(|_| (random.usize(OPERATIONS), random.u64(..))).collect();
    let ticks = Arc::default();
    let start = Barrier::new(plans.len());
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = plans
            .iter()
            .enumerate()
            .map(|(thread, &(operations, seed))| {
                let worker = Worker::new(subject, mix, &ticks, seed);
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    worker.run(thread * OPERATIONS.end(), operations)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // The claims that are left are dropped here.
    ended.into_iter().map(|(events, _claims)| events).collect()
}

/// Makes histories until one has no explanation. Returns it, its seed, and how many places were searched.
fn search<S: Subject>(mix: Mix, histories: u64, make_subject: impl Fn() -> S) -> Result<usize, (u64, Violation)> {
    let first = from_environment("LARDER_LINEAR_SEED", 0);
    let mut places = 0;
    for seed in first..first + histories {
        let history = make(&Arc::new(make_subject()), mix, seed);
        places += check(&mix.rules, &State::default(), &history).map_err(|violation| (seed, violation))?;
    }
    Ok(places)
}

fn all_are_explained(mix: Mix) {
    let histories = from_environment("LARDER_LINEAR_HISTORIES", HISTORIES);
    match search(mix, histories, || Local::new(&mix.rules)) {
        Ok(places) => println!("{histories} histories, {places} places"),
        Err((seed, violation)) => panic!("seed {seed}, {mix:?}: {violation:?}"),
    }
}

#[test]
fn without_pressure_a_key_is_linearizable() {
    all_are_explained(PLAIN);
}

#[test]
fn under_pressure_a_value_may_leave_and_never_comes_back() {
    all_are_explained(CROWDED);
}

#[test]
fn deadlines_and_grace_run_out_and_are_not_forgotten() {
    all_are_explained(AGEING);
}

#[test]
fn nothing_is_seen_after_a_bump_that_came_before() {
    all_are_explained(BUMPED);
}

#[test]
fn all_of_it_at_once() {
    all_are_explained(EVERYTHING);
}

#[test]
fn every_flaw_is_found() {
    let mix = Mix { rules: PLAIN.rules, ..BUMPED };
    for flaw in Flaw::ALL {
        let found = search(mix, ENOUGH_FOR_A_FLAW, || Flawed::new(Local::new(&mix.rules), flaw));
        let Err((seed, violation)) = found else { panic!("{flaw:?} was not found") };
        println!("{flaw:?} shows in the history of seed {seed}: {violation:?}");
    }
}
