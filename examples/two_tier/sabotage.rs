//! What a run can be told to do wrong (`--sabotage KIND`), so that a test sees the verdict fail. Not for anything else.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::Record;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sabotage {
    /// Loads bring the record of another key.
    ForeignValue,
    /// Loads bring bytes that are not as they were written.
    DamagedValue,
    /// Loads bring a version that the source does not have yet.
    FutureValue,
    /// Groups change in the source, and are not invalidated.
    ForgottenBump,
    /// Workers do not tell each other of their writes.
    UntoldWrites,
    /// Acknowledged writes are gone before they are looked for.
    LostWrite,
    /// Reads load for themselves, whoever else loads the same.
    UnsharedLoads,
    /// One worker ends half-way.
    FailedWorker,
}

const KINDS: [(&str, Sabotage); 8] = [
    ("foreign-value", Sabotage::ForeignValue),
    ("damaged-value", Sabotage::DamagedValue),
    ("future-value", Sabotage::FutureValue),
    ("forgotten-bump", Sabotage::ForgottenBump),
    ("untold-writes", Sabotage::UntoldWrites),
    ("lost-write", Sabotage::LostWrite),
    ("unshared-loads", Sabotage::UnsharedLoads),
    ("failed-worker", Sabotage::FailedWorker),
];

impl Sabotage {
    /// Changes what a load is about to bring.
    pub(crate) fn distort(self, loaded: Record) -> Record {
        match self {
            Sabotage::ForeignValue => Record::new(&format!("{}!", loaded.key), loaded.version),
            Sabotage::FutureValue => Record::new(&loaded.key, loaded.version + 1),
            Sabotage::DamagedValue => Record { text: loaded.text.replacen('v', "w", 1), ..loaded },
            _ => loaded,
        }
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(given: &str) -> Result<Sabotage, String> {
        let names = KINDS.map(|(name, _)| name).join(", ");
        let kind = KINDS.into_iter().find(|(name, _)| *name == given);
        kind.map(|(_, kind)| kind).ok_or_else(|| format!("--sabotage is {given}: give one of {names}"))
    }
}
