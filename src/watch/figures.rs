//! Figures as the facade `metrics` takes them: names, units, labels.
//!
//! Names follow Prometheus: snake case, the unit at the end, `_total` behind what only grows.

use metrics::{Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

use super::cache::CacheWatch;
#[cfg(any(feature = "tiered", feature = "tracing"))]
use super::events::{Limit, event};
#[cfg(any(feature = "tiered", feature = "tracing"))]
use crate::sync::OnceLock;
use crate::task::guarded;

/// What a recorder is told of where figures come from.
const METADATA: Metadata<'static> = Metadata::new("larder", Level::INFO, Some("larder"));

/// A counter of a snapshot, by its field.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) field: &'static str,
    /// The metric's name, unless it is one of several that share a metric.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) value: u64,
}

/// Counters of snapshots that are one metric, told apart by a label: field, label, metric and what it says.
const SHARED: [(&str, (&str, &str), &str, &str); 13] = [
    ("hits_fresh", ("result", "fresh"), READS, READS_HELP),
    ("hits_stale", ("result", "stale"), READS, READS_HELP),
    ("misses", ("result", "miss"), READS, READS_HELP),
    ("dead", ("cause", "dead"), UNUSABLE, UNUSABLE_HELP),
    ("unreadable", ("cause", "unreadable"), UNUSABLE, UNUSABLE_HELP),
    ("loads", ("outcome", "ok"), LOADS, LOADS_HELP),
    ("load_failures", ("outcome", "error"), LOADS, LOADS_HELP),
    ("replacements", ("cause", "replaced"), REMOVALS, REMOVALS_HELP),
    ("removals", ("cause", "removed"), REMOVALS, REMOVALS_HELP),
    ("evictions", ("cause", "evicted"), REMOVALS, REMOVALS_HELP),
    ("expirations", ("cause", "expired"), REMOVALS, REMOVALS_HELP),
    ("invalidations", ("cause", "invalidated"), REMOVALS, REMOVALS_HELP),
    ("listener_panics", ("code", "listener"), PANICS, PANICS_HELP),
];

const READS: &str = "larder_reads_total";
const READS_HELP: &str = "Reads of a tier, by what they found.";
const UNUSABLE: &str = "larder_unusable_total";
const UNUSABLE_HELP: &str = "Reads that missed although something was there, by why it could not be used.";
const LOADS: &str = "larder_loads_total";
const LOADS_HELP: &str = "Loads, by how they ended.";
const REMOVALS: &str = "larder_removals_total";
const REMOVALS_HELP: &str = "Entries that left, by why.";
const PANICS: &str = "larder_panics_total";
const PANICS_HELP: &str = "Panics that were caught, by whose code.";

/// A distribution.
pub(super) struct Histogram {
    name: &'static str,
    unit: Unit,
    help: &'static str,
}

pub(super) const LOAD_SECONDS: Histogram = Histogram {
    name: "larder_load_duration_seconds",
    unit: Unit::Seconds,
    help: "How long loads took, by how they ended.",
};

#[cfg(feature = "tiered")]
pub(super) const EXCHANGE_SECONDS: Histogram = Histogram {
    name: "larder_remote_exchange_duration_seconds",
    unit: Unit::Seconds,
    help: "How long exchanges with a server took, by what they were for and how they ended.",
};

#[cfg(feature = "tiered")]
pub(super) const EXCHANGE_COMMANDS: Histogram = Histogram {
    name: "larder_remote_exchange_commands",
    unit: Unit::Count,
    help: "How many commands shared an exchange with a server.",
};

/// Records one value of a distribution, with whatever recorder there is by now.
pub(super) fn record(histogram: &Histogram, labels: Vec<Label>, value: f64) {
    let key = Key::from_parts(histogram.name, labels);
    tell(|| with_recorder(|recorder| recorder.register_histogram(&key, &METADATA)).record(value));
}

/// Tells a recorder of something. It is foreign code, whose panic must end neither the load that it is told of, nor a thread
/// of a namespace.
pub(super) fn tell(tell: impl FnOnce()) {
    if guarded(tell).is_none() {
        #[cfg(any(feature = "tiered", feature = "tracing"))]
        {
            static PANICS: OnceLock<Limit> = OnceLock::new();
            if let Some(others) = PANICS.get_or_init(Limit::default).pass() {
                event!(error, [others = others.0], "the recorder of metrics panicked{others}");
            }
        }
    }
}

/// Where the figures of one cache or namespace are written, with the labels that all of them have.
///
/// What a figure means is said with every value: a recorder may come at any time, and there is no way to learn that one has.
pub(super) struct Sheet<'r> {
    recorder: &'r dyn Recorder,
    labels: Vec<Label>,
}

impl Sheet<'_> {
    /// Calls `write` with a sheet for the recorder that there is by now.
    pub(super) fn with(labels: Vec<Label>, write: impl FnOnce(&Sheet<'_>)) {
        with_recorder(|recorder| write(&Sheet { recorder, labels }));
    }

    /// Writes a counter of a snapshot.
    pub(super) fn figure(&self, figure: &Figure) {
        match SHARED.iter().find(|(field, ..)| *field == figure.field) {
            Some(&(_, label, name, help)) => self.counter(name, help, Some(label), figure.value),
            None => self.counter(figure.name, figure.help, None, figure.value),
        }
    }

    pub(super) fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        label: Option<(&'static str, &'static str)>,
        value: u64,
    ) {
        self.recorder.describe_counter(name.into(), Some(Unit::Count), help.trim().into());
        self.recorder.register_counter(&self.key(name, label), &METADATA).absolute(value);
    }

    pub(super) fn gauge(
        &self,
        name: &'static str,
        unit: Unit,
        help: &'static str,
        label: Option<(&'static str, &'static str)>,
        value: f64,
    ) {
        self.recorder.describe_gauge(name.into(), Some(unit), help.into());
        self.recorder.register_gauge(&self.key(name, label), &METADATA).set(value);
    }

    /// Says what a distribution means, whose values are recorded where they arise.
    pub(super) fn describe(&self, histogram: &Histogram) {
        self.recorder.describe_histogram(histogram.name.into(), Some(histogram.unit), histogram.help.into());
    }

    fn key(&self, name: &'static str, label: Option<(&'static str, &'static str)>) -> Key {
        let own = label.into_iter().map(|(label, value)| Label::from_static_parts(label, value));
        Key::from_parts(name, self.labels.iter().cloned().chain(own).collect::<Vec<Label>>())
    }
}

impl CacheWatch {
    /// Returns the labels of a figure of this cache.
    pub(super) fn labels<const N: usize>(&self, own: [(&'static str, &'static str); N]) -> Vec<Label> {
        let namespace = self.namespace().map(|namespace| Label::new("namespace", namespace.clone()));
        let cache = Label::new("cache", self.cache().clone());
        let own = own.into_iter().map(|(label, value)| Label::from_static_parts(label, value));
        namespace.into_iter().chain([cache]).chain(own).collect()
    }
}
