//! What a reader must know to judge a figure: where it was measured, and of which versions.

use std::{fs, thread};

use serde_json::{Value, json};

const LOCK_FILE: &str = include_str!("../Cargo.lock");

pub(crate) struct Machine {
    cpu: String,
    cores: usize,
}

impl Machine {
    pub(crate) fn this() -> Self {
        Self { cpu: cpu_model(), cores: thread::available_parallelism().map_or(1, usize::from) }
    }

    pub(crate) fn text(&self) -> String {
        let plural = if self.cores == 1 { "" } else { "s" };
        format!("{}, {} core{plural}, {}", self.cpu, self.cores, std::env::consts::OS)
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "cpu": self.cpu, "cores": self.cores, "os": std::env::consts::OS })
    }
}

/// The locked version of each package.
pub(crate) fn versions(packages: &[&'static str]) -> Vec<(&'static str, String)> {
    packages.iter().map(|&package| (package, locked_version(package, LOCK_FILE))).collect()
}

fn locked_version(package: &str, lock_file: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock_file.lines().skip_while(|line| *line != name);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = "));
    version.unwrap_or("unknown").trim_matches('"').to_owned()
}

fn cpu_model() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| format!("unknown {}", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_is_locked() {
        for (package, version) in versions(crate::contestants::PACKAGES) {
            assert!(version.split('.').count() == 3, "{package} {version}");
        }
    }
}
