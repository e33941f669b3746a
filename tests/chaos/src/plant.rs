//! Bugs that can be planted in the first process, for the oracle to find.

use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Serves local values whether or not the journal can be reached.
    ServeStale,
    /// Says of every other bump that it is acknowledged, and does not send it.
    LostBump,
    /// Loads without asking others.
    LoneLoads,
    /// Returns now and then a value with a wrong byte.
    WrongByte,
    /// Serves its own old value after a bump now and then.
    OwnStale,
    /// A call never returns.
    Stuck,
    /// A thread panics.
    Panic,
    /// Memory is never given back.
    Leak,
    /// Never recovers: holds a bump that was not sent for pending.
    Limp,
}

impl Plant {
    pub(crate) const ALL: &[(&str, Plant)] = &[
        ("serve-stale", Plant::ServeStale),
        ("lost-bump", Plant::LostBump),
        ("lone-loads", Plant::LoneLoads),
        ("wrong-byte", Plant::WrongByte),
        ("own-stale", Plant::OwnStale),
        ("stuck", Plant::Stuck),
        ("panic", Plant::Panic),
        ("leak", Plant::Leak),
        ("limp", Plant::Limp),
    ];

    pub(crate) fn name(self) -> &'static str {
        Plant::ALL.iter().find(|(_, plant)| *plant == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(name: &str) -> Result<Plant, String> {
        let known = Plant::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, plant)| *plant).ok_or_else(|| format!("there is no bug {name:?} to plant: see --help"))
    }
}
