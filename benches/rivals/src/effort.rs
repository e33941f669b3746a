//! How much to measure.

/// The extent of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Effort {
    pub(crate) seed: u64,
    /// How often every contestant is built anew.
    pub(crate) instances: usize,
    /// Rounds of an instance that are run before any counts.
    pub(crate) warm_ups: usize,
    /// Rounds of an instance that count.
    pub(crate) rounds: usize,
    /// Operations of one thread in one round.
    pub(crate) lap: usize,
    pub(crate) threads: Vec<usize>,
    /// Lines read of each trace.
    pub(crate) trace_lines: usize,
    /// How many entries a cache grows to while hits are timed.
    pub(crate) growth: usize,
    /// How many entries memory is measured with.
    pub(crate) populations: Vec<usize>,
}

impl Effort {
    /// For figures that will be quoted.
    pub(crate) fn thorough(seed: u64) -> Self {
        Self {
            seed,
            instances: 41,
            warm_ups: 1,
            rounds: 3,
            lap: 1 << 16,
            threads: vec![1, 2, 8],
            trace_lines: usize::MAX,
            growth: 500_000,
            populations: vec![100_000, 1_000_000],
        }
    }

    /// For a first look at everything.
    pub(crate) fn moderate(seed: u64) -> Self {
        Self { instances: 9, populations: vec![100_000], ..Self::thorough(seed) }
    }

    /// To see that everything works; the figures mean nothing.
    pub(crate) fn brief(seed: u64) -> Self {
        Self {
            instances: 2,
            warm_ups: 1,
            rounds: 2,
            lap: 1 << 12,
            threads: vec![1, 2],
            trace_lines: 20_000,
            growth: 5_000,
            populations: vec![10_000],
            ..Self::thorough(seed)
        }
    }
}
