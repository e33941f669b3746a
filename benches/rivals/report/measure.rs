//! Runs the steps, and writes down on what.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use crate::{
    results::{CONDITIONS_FILE, Conditions, Outcome},
    steps::{Effort, LARDER, Step},
};

/// Runs every step, writes their files to `directory`, and returns how many failed: one that fails keeps no other from
/// running.
pub(crate) fn run(directory: &Path, effort: Effort, traces: &[PathBuf]) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let directory = fs::canonicalize(directory)?;
    let mut conditions = conditions(effort);
    for step in Step::ALL {
        conditions.steps.push(measure(step, &directory, effort, traces));
        // Written after each, so that one who interrupts a long run has what there is.
        let text = serde_json::to_string_pretty(&conditions).map_err(io::Error::other)?;
        fs::write(directory.join(CONDITIONS_FILE), text)?;
    }
    Ok(conditions.steps.iter().filter(|step| step.failure.is_some()).count())
}

/// The traces that `paths` name: files as they are, and of a directory those that end in `.txt` or `.txt.xz`.
pub(crate) fn traces(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut traces = Vec::new();
    for path in paths {
        if !path.is_dir() {
            traces.push(path.clone());
            continue;
        }
        let files = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>()?;
        files.retain(|file| [".txt", ".txt.xz"].iter().any(|end| file.to_string_lossy().ends_with(end)));
        if files.is_empty() {
            return Err(io::Error::other(format!("{} holds no trace (*.txt, *.txt.xz)", path.display())));
        }
        files.sort();
        traces.extend(files);
    }
    // The programs that read them run in directories of their own.
    traces.iter().map(|trace| named(trace, fs::canonicalize(trace))).collect()
}

fn named<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn measure(step: Step, directory: &Path, effort: Effort, traces: &[PathBuf]) -> Outcome {
    let file = directory.join(step.file());
    // What an earlier run left must not pass for a result of this one.
    let _ = fs::remove_file(&file);
    let arguments = step.of_rivals(effort, traces);
    let shown = step.shown(arguments.as_deref().unwrap_or_default());
    let began = Instant::now();
    let failure = if step == Step::HitRatio && traces.is_empty() {
        Some("no traces were given (--traces)".to_owned())
    } else {
        println!("$ {shown}");
        command(arguments.as_deref()).and_then(|mut command| execute(command.arg("--json").arg(&file), &file)).err()
    };
    if let Some(failure) = &failure {
        eprintln!("report: no {}: {failure}", step.file());
    }
    Outcome { file: step.file().to_owned(), command: shown, seconds: began.elapsed().as_secs_f64(), failure }
}

fn command(of_rivals: Option<&[String]>) -> Result<Command, String> {
    let Some(arguments) = of_rivals else {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let bench = ["bench", "--features", "memcached", "--bench", "remote_callers", "--"];
        cargo.current_dir(LARDER).args(bench);
        return Ok(cargo);
    };
    // Both programs are built together.
    let rivals = env::current_exe().map_err(|error| error.to_string())?.with_file_name("rivals");
    let mut rivals = Command::new(rivals);
    rivals.args(arguments);
    Ok(rivals)
}

fn execute(command: &mut Command, file: &Path) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("the command does not start: {error}"))?;
    if !status.success() {
        return Err(format!("the command failed: {status}"));
    }
    if !file.exists() {
        return Err("the command wrote no results (--json)".to_owned());
    }
    Ok(())
}

fn conditions(effort: Effort) -> Conditions {
    let changed = said_by(Command::new("git").current_dir(LARDER).args(["status", "--porcelain"]));
    let commit = said_by(Command::new("git").current_dir(LARDER).args(["rev-parse", "--short=12", "HEAD"]));
    let commit = match (commit, changed) {
        (Some(commit), Some(_)) => format!("{commit}, with changes"),
        (commit, _) => commit.unwrap_or_else(unknown),
    };
    let effort = match effort {
        Effort::Full => "full measurement",
        Effort::Quick => "quick measurement",
        Effort::Brief => "brief measurement: the figures mean nothing",
    };
    Conditions {
        date: said_by(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])).unwrap_or_else(unknown),
        effort: effort.to_owned(),
        cpu: value_of_line("/proc/cpuinfo", "model name").unwrap_or_else(|| env::consts::ARCH.to_owned()),
        cores: thread::available_parallelism().map_or(1, usize::from),
        memory_gib: value_of_line("/proc/meminfo", "MemTotal").as_deref().and_then(gib),
        kernel: said_by(Command::new("uname").arg("-sr")).unwrap_or_else(unknown),
        rustc: said_by(Command::new("rustc").arg("--version")).unwrap_or_else(unknown),
        memcached: said_by(Command::new("memcached").arg("-V")).unwrap_or_else(unknown),
        commit,
        steps: Vec::new(),
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The first line that a program prints; `None` where there is none, or no such program.
fn said_by(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn value_of_line(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// From what `/proc/meminfo` says: `24690020 kB`.
fn gib(text: &str) -> Option<u64> {
    const KIB_IN_A_GIB: f64 = (1 << 20) as f64;
    let kib: f64 = text.strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / KIB_IN_A_GIB).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory_are_rounded() {
        assert_eq!(gib("24690020 kB"), Some(24));
        assert_eq!(gib("many"), None);
    }

    #[test]
    fn a_command_that_leaves_no_results_has_failed() {
        let nowhere = Path::new("no/such/results.json");
        assert!(execute(&mut Command::new("false"), nowhere).unwrap_err().contains("exit status: 1"));
        assert!(execute(&mut Command::new("true"), nowhere).unwrap_err().contains("--json"));
        assert!(execute(&mut Command::new("no/such/command"), nowhere).unwrap_err().contains("does not start"));
        assert_eq!(execute(&mut Command::new("true"), Path::new(LARDER)), Ok(()));
    }

    #[test]
    fn a_trace_that_is_not_there_is_named() {
        let error = traces(&["no/such/trace".into()]).unwrap_err();
        assert!(error.to_string().contains("no/such/trace"), "{error}");
    }
}
