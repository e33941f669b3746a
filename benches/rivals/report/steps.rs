//! What there is to measure: each step is one command that writes one file.

use std::path::{Path, PathBuf};

/// Where larder's own manifest is.
pub(crate) const LARDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// In the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Hit,
    Miss,
    Insert,
    Mixed,
    Latency,
    HitRatio,
    Memory,
    RemoteCallers,
}

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For figures that will be quoted.
    Full,
    /// A few minutes for everything.
    Quick,
    /// Some seconds, to see that it works; the figures mean nothing.
    Brief,
}

impl Step {
    pub(crate) const ALL: [Self; 8] = [
        Self::Hit,
        Self::Miss,
        Self::Insert,
        Self::Mixed,
        Self::Latency,
        Self::HitRatio,
        Self::Memory,
        Self::RemoteCallers,
    ];

    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Hit => "hit.json",
            Self::Miss => "miss.json",
            Self::Insert => "insert.json",
            Self::Mixed => "mixed.json",
            Self::Latency => "latency.json",
            Self::HitRatio => "hitratio.json",
            Self::Memory => "memory.json",
            Self::RemoteCallers => "remote_callers.json",
        }
    }

    /// What `rivals` is told, but for where to write. `None` for what another program measures.
    pub(crate) fn of_rivals(self, effort: Effort, traces: &[PathBuf]) -> Option<Vec<String>> {
        const THREADS: &[&str] = &["--threads", "1,2,4,8"];
        let (workload, options): (&str, &[&str]) = match self {
            Self::Hit => ("hit", THREADS),
            Self::Miss => ("miss", THREADS),
            Self::Insert => ("insert", THREADS),
            Self::Mixed => ("mixed", THREADS),
            Self::Latency => ("latency", &[]),
            Self::HitRatio => ("hitratio", &["--curve", "--trace"]),
            Self::Memory => ("memory", &[]),
            Self::RemoteCallers => return None,
        };
        // `--trace` and its files stay together.
        let effort: &[&str] = match effort {
            Effort::Full => &[],
            Effort::Quick => &["--instances", "5"],
            Effort::Brief => &["--brief"],
        };
        let words = [workload].into_iter().chain(effort.iter().copied()).chain(options.iter().copied());
        let mut arguments: Vec<String> = words.map(str::to_owned).collect();
        if self == Self::HitRatio {
            arguments.extend(traces.iter().map(|path| path.display().to_string()));
        }
        Some(arguments)
    }

    /// The command that a reader would enter at the root of the project.
    pub(crate) fn shown(self, arguments: &[String]) -> String {
        if self == Self::RemoteCallers {
            return "cargo bench --features memcached --bench remote_callers".to_owned();
        }
        let arguments: Vec<String> = arguments.iter().map(|argument| file_name_of_path(argument)).collect();
        format!("cargo run --release --manifest-path benches/rivals/Cargo.toml -- {}", arguments.join(" "))
    }

    /// The same where there are no results that tell their own.
    pub(crate) fn shown_in_general(self) -> String {
        let example = [PathBuf::from("TRACE...")];
        self.shown(&self.of_rivals(Effort::Full, &example).unwrap_or_default())
    }
}

/// Traces lie where each machine keeps them; their names are what matters.
fn file_name_of_path(argument: &str) -> String {
    let path = Path::new(argument);
    if path.components().count() < 2 {
        return argument.to_owned();
    }
    path.file_name().map_or_else(|| argument.to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_its_traces_but_not_where_they_lie() {
        let arguments = Step::HitRatio.of_rivals(Effort::Quick, &["/home/ann/a.xz".into()]).unwrap();
        let shown = Step::HitRatio.shown(&arguments);
        assert!(shown.ends_with("-- hitratio --instances 5 --curve --trace a.xz"), "{shown}");
    }

    #[test]
    fn every_step_has_a_file_of_its_own() {
        let files: std::collections::BTreeSet<_> = Step::ALL.map(Step::file).into();
        assert_eq!(files.len(), Step::ALL.len());
    }
}
