//! The command line.

use std::ops::Range;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::history;
use crate::plan::Plan;
use crate::run::run;
use crate::theme::Theme;
use crate::work::PLANNED;

const USAGE: &str = "\
Usage: larder-sim [OPTION]...

Simulates processes whose caches share servers, with all that may go wrong, and fails on a broken promise of larder's. Each seed
is another simulation, and always the same one.

  --seed N        one simulation; prints what happened if it fails
  --seeds A..B    these, B excluded (default 0..200)
  --seconds N     as many seeds from the first one on as fit into so much time
  --processes N   so many processes in each, instead of 2 to 16
  --theme NAME    of these seeds, those whose plans are about that: mix, bumps, late, keys, restarts, losses, debts, trust,
                  deaths or crowd
  --jobs N        how many run at a time (default: as many as the machine has threads)
  --history       prints what happened in any case; with --seed
  --planted       plants known bugs into copies of the library, builds each, and says how many seeds it took to find it;
                  names after it choose some
  --digest        runs each seed twice, and fails if it did not do the same
";

/// What was asked for.
struct Asked {
    seeds: Range<u64>,
    is_one: bool,
    time: Option<Duration>,
    processes: Option<usize>,
    jobs: usize,
    history: bool,
    twice: bool,
    theme: Option<Theme>,
    /// Whether this is a process of the system for one simulation alone.
    alone: bool,
    /// Which bugs to plant; `None` for none.
    planted: Option<Vec<String>>,
    /// Whether this is one of several jobs, which the first process has started: which one.
    job: Option<u64>,
}

/// What is running, for who reports a failure.
static RUNNING: Mutex<Option<(u64, Option<usize>)>> = Mutex::new(None);

pub fn main() -> ExitCode {
    let asked = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(message) => {
            eprint!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(names) = &asked.planted {
        return crate::planted::main(names, asked.seeds.end);
    }
    if let Some(job) = asked.job {
        keep_to_one_processor(job);
    }
    std::panic::set_hook(Box::new(|info| {
        let is_planned = info.payload().downcast_ref::<&str>() == Some(&PLANNED);
        if !is_planned {
            larder::sim::fail(&format!("a panic: {info}"));
        }
    }));
    if asked.is_one || asked.job.is_some() || asked.jobs == 1 { here(&asked) } else { in_jobs(&asked) }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut asked = Asked {
        seeds: 0..200,
        is_one: false,
        time: None,
        processes: None,
        jobs,
        history: false,
        twice: false,
        theme: None,
        alone: false,
        planted: None,
        job: None,
    };
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64, String> {
            let text = args.next().ok_or(format!("{arg} needs a number"))?;
            text.parse().map_err(|_| format!("{arg} needs a number, not {text}"))
        };
        match arg.as_str() {
            "--seed" => {
                let seed = number()?;
                (asked.seeds, asked.is_one) = (seed..seed + 1, true);
            }
            "--seeds" => {
                let text = args.next().unwrap_or_default();
                let ends = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
                asked.seeds = ends.ok_or(format!("--seeds needs A..B, not {text}"))?;
            }
            "--seconds" => {
                asked.time = Some(Duration::from_secs(number()?));
                asked.seeds.end = u64::MAX;
            }
            "--processes" => asked.processes = Some(usize::try_from(number()?).unwrap_or(usize::MAX).max(1)),
            "--jobs" => asked.jobs = usize::try_from(number()?).unwrap_or(usize::MAX).max(1),
            "--job" => asked.job = Some(number()?),
            "--history" => asked.history = true,
            "--planted" => asked.planted = Some(Vec::new()),
            "--digest" => asked.twice = true,
            "--theme" => {
                let name = args.next().unwrap_or_default();
                asked.theme = Some(Theme::named(&name).ok_or(format!("--theme needs a theme, not {name}"))?);
            }
            "--alone" => asked.alone = true,
            _ => match &mut asked.planted {
                Some(names) if !arg.starts_with('-') => names.push(arg),
                _ => return Err(format!("what is {arg}?")),
            },
        }
    }
    Ok(asked)
}

/// Has all threads of this job run on one of the processors that it may: one thread runs at a time, and to wake one on another
/// processor takes longer than what it does.
fn keep_to_one_processor(job: u64) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let those: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut one = CpuSet::new();
    one.set(those[usize::try_from(job).unwrap_or(0) % those.len()]);
    // Where it is refused, the simulation is slower.
    _ = sched_setaffinity(None, &one);
}

/// Runs seeds in several processes of the system: each runs one simulation at a time.
fn in_jobs(asked: &Asked) -> ExitCode {
    let me = std::env::current_exe().expect("a program knows where it is");
    let start = |job: usize| {
        Command::new(&me)
            .args(std::env::args().skip(1))
            .args(["--jobs", &asked.jobs.to_string(), "--job", &job.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("the system has a process")
    };
    let mut jobs: Vec<_> = (0..asked.jobs).map(start).collect();
    let all = jobs.iter_mut().map(|job| job.wait().is_ok_and(|status| status.success()));
    if all.fold(true, |all, one| all & one) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn here(asked: &Asked) -> ExitCode {
    let began = Instant::now();
    // Not to compare: tokens and epochs are random, and decide nothing.
    if asked.is_one && !asked.twice {
        history::detail();
    }
    let (step, first) = asked.job.map_or((1, 0), |job| (asked.jobs, job));
    let mut total = crate::oracle::Counts::default();
    let (mut seeds, mut turns, mut virtual_time) = (0_u64, 0_u64, Duration::ZERO);
    for seed in asked.seeds.clone().skip(usize::try_from(first).unwrap_or(0)).step_by(step) {
        if asked.time.is_some_and(|time| began.elapsed() >= time) {
            break;
        }
        let plan = Plan::new(seed, asked.processes);
        if asked.theme.is_some_and(|theme| theme != plan.theme) {
            continue;
        }
        // The threads of processes that died stay until the system's process ends.
        if plan.has_deaths() && !asked.is_one && !asked.alone {
            if !apart(seed, asked) {
                return ExitCode::FAILURE;
            }
            seeds += 1;
            continue;
        }
        *RUNNING.lock().unwrap() = Some((seed, asked.processes));
        let (outcome, counts) = run(&plan, report);
        let digest = history::digest();
        if asked.history {
            eprintln!("{plan:#?}");
            history::print();
        }
        if asked.twice {
            let (again, _) = run(&plan, report);
            if (again, history::digest()) != (outcome, digest) {
                eprintln!("larder-sim: seed {seed} is not the same twice: {outcome:?} {again:?}");
                return ExitCode::FAILURE;
            }
        }
        if asked.is_one {
            println!("seed {seed}: {outcome:?} {counts:?}, history {digest:016x}");
        }
        seeds += 1;
        turns += outcome.turns;
        virtual_time += outcome.took;
        total.calls += counts.calls;
        total.reads += counts.reads;
        total.hits += counts.hits;
        total.loads += counts.loads;
        total.moves += counts.moves;
        total.faults += counts.faults;
    }
    println!(
        "larder-sim: {seeds} seeds, {:.0} s of {:.0} virtual, {turns} turns: {total:?}",
        began.elapsed().as_secs_f64(),
        virtual_time.as_secs_f64()
    );
    ExitCode::SUCCESS
}

/// Runs one simulation in a process of the system of its own.
fn apart(seed: u64, asked: &Asked) -> bool {
    let me = std::env::current_exe().expect("a program knows where it is");
    let mut one = Command::new(me);
    one.args(["--jobs", "1", "--alone", "--seeds", &format!("{seed}..{}", seed + 1)]).stdout(Stdio::null());
    if asked.twice {
        one.arg("--digest");
    }
    if let Some(processes) = asked.processes {
        one.args(["--processes", &processes.to_string()]);
    }
    one.status().is_ok_and(|status| status.success())
}

/// Says what broke, how it came to that, and how to see it again.
fn report(why: &str) {
    let Some((seed, processes)) = *RUNNING.lock().unwrap() else { return };
    let which = processes.map_or(String::new(), |processes| format!(" --processes {processes}"));
    eprintln!("{:#?}", Plan::new(seed, processes));
    history::print();
    eprintln!("larder-sim: seed {seed} FAILED: {why}\nlarder-sim: again with: larder-sim --seed {seed}{which}");
}
