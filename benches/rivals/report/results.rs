//! Reads what was measured. Nothing else on the page comes from anywhere but these files.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::steps::Step;

/// Where it is written on what the steps ran, and how each of them ended.
pub(crate) const CONDITIONS_FILE: &str = "conditions.json";

/// The machine and the programs, as they were when the steps ran.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Conditions {
    pub(crate) date: String,
    pub(crate) effort: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: Option<u64>,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) memcached: String,
    pub(crate) commit: String,
    pub(crate) steps: Vec<Outcome>,
}

/// How one step ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) file: String,
    pub(crate) command: String,
    pub(crate) seconds: f64,
    /// Why there is no result.
    pub(crate) failure: Option<String>,
}

/// The middle of a series of measurements and how far it scatters.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Spread {
    pub(crate) p10: f64,
    pub(crate) median: f64,
    pub(crate) p90: f64,
}

/// What `rivals --json` writes.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) contestants: BTreeMap<String, String>,
    pub(crate) seed: u64,
    pub(crate) command: Vec<String>,
    pub(crate) optimised: bool,
    results: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) os: String,
}

/// One timed workload with one number of keys and threads.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Timing {
    pub(crate) keys: usize,
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    pub(crate) contestants: Vec<Timed>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Timed {
    pub(crate) name: String,
    pub(crate) ns_per_operation: Spread,
    pub(crate) ratio_to_first: Spread,
}

/// Hits, each timed alone, beside one disturbance. Spreads are by the percentile's name.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Latency {
    pub(crate) under: String,
    pub(crate) setting: String,
    pub(crate) rounds: usize,
    pub(crate) contestants: Vec<Delayed>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Delayed {
    pub(crate) name: String,
    pub(crate) ns: BTreeMap<String, Spread>,
    pub(crate) ratio_to_first: BTreeMap<String, Spread>,
    pub(crate) ratio_to_moka: Option<BTreeMap<String, Spread>>,
    pub(crate) miss_ratio: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Trace {
    pub(crate) trace: String,
    pub(crate) requests: usize,
    pub(crate) distinct: usize,
    pub(crate) cells: Vec<TraceCell>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TraceCell {
    pub(crate) capacity: usize,
    /// Whether the means are taken over it.
    pub(crate) counts: bool,
    pub(crate) contestants: Vec<Policy>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) hit_ratio: f64,
    pub(crate) kept_within_capacity: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Overall {
    pub(crate) cells: usize,
    pub(crate) means: Vec<Mean>,
    pub(crate) worst_cell: Option<WorstCell>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mean {
    pub(crate) name: String,
    pub(crate) hit_ratio: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct WorstCell {
    pub(crate) trace: String,
    pub(crate) capacity: usize,
    pub(crate) best_rival: String,
    /// A share, negative when the rival is ahead.
    pub(crate) lead: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Memory {
    pub(crate) entries: usize,
    pub(crate) contestants: Vec<Footprint>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Footprint {
    pub(crate) name: String,
    pub(crate) empty_bytes: i64,
    pub(crate) bytes_per_entry: f64,
    pub(crate) bytes_per_entry_churned: f64,
}

/// What a result is missing for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Absent {
    pub(crate) step: Step,
    pub(crate) reason: String,
}

/// All files of a directory.
pub(crate) struct Results {
    pub(crate) conditions: Option<Conditions>,
    files: Vec<(Step, Result<Value, Absent>)>,
}

impl Results {
    /// # Errors
    /// If `directory` cannot be read at all. What is wrong with one file is told where it is asked for.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        fs::read_dir(directory)?;
        let conditions: Option<Conditions> =
            fs::read(directory.join(CONDITIONS_FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let failure = |step: Step| {
            let outcomes = conditions.iter().flat_map(|conditions| &conditions.steps);
            outcomes.filter(|outcome| outcome.file == step.file()).find_map(|outcome| outcome.failure.clone())
        };
        let read = |step: Step| {
            let bytes = fs::read(directory.join(step.file()));
            let value = bytes.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => failure(step).unwrap_or_else(|| "it has not been measured".to_owned()),
                _ => error.to_string(),
            });
            let value = value.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
            (step, value.map_err(|reason| Absent { step, reason }))
        };
        Ok(Self { files: Step::ALL.map(read).into(), conditions })
    }

    /// The file of `step`, of whatever form.
    pub(crate) fn file<T: DeserializeOwned>(&self, step: Step) -> Result<T, Absent> {
        let (_, file) = self.files.iter().find(|(of, _)| *of == step).expect("every step has been looked for");
        file.clone().and_then(|value| parse(step, value))
    }

    /// The run of `step` and its results of one workload, of which there is at least one.
    pub(crate) fn of<T: DeserializeOwned>(&self, step: Step, workload: &str) -> Result<(Run, Vec<T>), Absent> {
        let run: Run = self.file(step)?;
        let of_workload = run.results.iter().filter(|result| result["workload"] == workload);
        let results: Vec<T> = of_workload.map(|result| parse(step, result.clone())).collect::<Result<_, _>>()?;
        if results.is_empty() {
            return Err(Absent { step, reason: format!("it holds no result of '{workload}'") });
        }
        Ok((run, results))
    }
}

fn parse<T: DeserializeOwned>(step: Step, value: Value) -> Result<T, Absent> {
    serde_json::from_value(value).map_err(|error| Absent { step, reason: format!("it cannot be understood: {error}") })
}

impl Run {
    /// What its command was told, but for the program's name and where to write.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = self.command.iter().skip(1);
        let mut kept = Vec::new();
        while let Some(argument) = arguments.next() {
            if argument == "--json" {
                arguments.next();
            } else {
                kept.push(argument.clone());
            }
        }
        kept
    }

    pub(crate) fn machine(&self) -> String {
        let Machine { cpu, cores, os } = &self.machine;
        format!("{cpu}, {cores} cores, {os}")
    }
}
