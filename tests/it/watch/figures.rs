//! Metrics: what is published, and under which names.

use std::collections::{BTreeMap, BTreeSet};

use larder::{Cache, Clock, EntryOptions};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::scene::ms;

/// What is known of one metric, or documented of it: its kind and the names of its labels.
type Metric = (&'static str, BTreeSet<String>);

/// One series: the metric with its labels.
type Series = (String, BTreeMap<String, String>);

/// What a recorder was told of one series.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Vec<f64>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
        }
    }
}

/// Returns what a recorder was told since it was last asked.
fn told(snapshotter: &Snapshotter) -> BTreeMap<Series, Value> {
    let series = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let labels = key.key().labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        let value = match value {
            DebugValue::Counter(count) => Value::Counter(count),
            DebugValue::Gauge(gauge) => Value::Gauge(*gauge),
            DebugValue::Histogram(values) => Value::Histogram(values.into_iter().map(|value| *value).collect()),
        };
        ((key.key().name().to_owned(), labels), value)
    });
    series.collect()
}

fn series<const N: usize>(name: &str, labels: [(&str, &str); N]) -> Series {
    (name.to_owned(), labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into())
}

#[test]
fn a_cache_publishes_its_figures_when_it_is_told_to() {
    let recorder = DebuggingRecorder::new();
    let (clock, time) = Clock::manual();
    let cache: Cache<u32, u32> =
        Cache::builder().name("rows").capacity(10).soft_ttl(ms(10)).clock(clock).build().unwrap();
    with_local_recorder(&recorder, || {
        cache.insert_with(1, 1, EntryOptions::new().groups(["g"]).weight(3)).unwrap();
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(1), None));
        assert_eq!(told(&recorder.snapshotter()), BTreeMap::new(), "a read tells nobody");
        time.advance(ms(10));
        assert_eq!(cache.get(&1), Some(1));
        cache.publish_metrics();
        cache.publish_metrics();
    });
    let told = told(&recorder.snapshotter());
    let read = |result| {
        told[&series("larder_reads_total", [("cache", "rows"), ("tier", "local"), ("result", result)])].clone()
    };
    assert_eq!(["fresh", "stale", "miss"].map(read), [1, 1, 1].map(Value::Counter));
    let size = |name| told[&series(name, [("cache", "rows"), ("tier", "local")])].clone();
    let sizes = ["larder_entries", "larder_weight", "larder_capacity", "larder_groups"].map(size);
    assert_eq!(sizes, [1.0, 3.0, 10.0, 1.0].map(Value::Gauge));
    assert_eq!(size("larder_stores_total"), Value::Counter(1));
}

#[test]
fn the_time_of_a_load_is_recorded_when_it_ends() {
    let recorder = DebuggingRecorder::new();
    let (clock, time) = Clock::manual();
    let cache: Cache<u32, u32> = Cache::builder().name("rows").capacity(10).clock(clock).build().unwrap();
    with_local_recorder(&recorder, || {
        cache.publish_metrics();
        let load = |key: u32, result: Result<u32, ()>| {
            cache.get_or_load(&key, |_| {
                time.advance(ms(250));
                result
            })
        };
        assert!(load(1, Ok(1)).is_ok() && load(1, Ok(1)).is_ok() && load(2, Err(())).is_err());
    });
    let told = told(&recorder.snapshotter());
    let took = |outcome| &told[&series("larder_load_duration_seconds", [("cache", "rows"), ("outcome", outcome)])];
    assert_eq!(["ok", "error"].map(took), [&Value::Histogram(vec![0.25]); 2]);
}

/// A recorder that panics, whatever it is told.
struct Panicking;

impl Recorder for Panicking {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("counter")
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("gauge")
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("histogram")
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        panic!("counter")
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("gauge")
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("histogram")
    }
}

#[test]
fn a_recorder_that_panics_ends_no_load() {
    let cache: Cache<u32, u32> = Cache::new(10);
    with_local_recorder(&Panicking, || {
        assert_eq!(cache.get_or_load(&1, |_| Ok::<_, ()>(1)).unwrap(), 1);
        assert!(cache.get_or_load(&2, |_| Err(())).is_err());
    });
    assert_eq!((cache.get(&1), cache.stats().loads), (Some(1), 1));
}

#[cfg(feature = "tiered")]
mod tiered {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use larder::{
        BreakerState, Command, InMemoryRemote, Namespace, RawBytes, RemoteError, RemoteTier, Reply, ServerHealth,
        TieredCache,
    };

    use metrics_util::MetricKind;

    use super::*;
    use crate::scene::eventually;

    /// A store that says how its one server is.
    #[derive(Clone)]
    struct Known(InMemoryRemote, Arc<Mutex<BreakerState>>);

    impl RemoteTier for Known {
        fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
            self.0.run(batch, timeout)
        }

        fn max_value_len(&self) -> usize {
            self.0.max_value_len()
        }

        fn server_health(&self) -> Vec<ServerHealth> {
            vec![ServerHealth::new("store:1", *self.1.lock().unwrap())]
        }
    }

    fn store() -> Known {
        Known(InMemoryRemote::new(), Arc::new(Mutex::new(BreakerState::Closed)))
    }

    fn pages(namespace: &Namespace) -> TieredCache<String, String> {
        TieredCache::builder(namespace, "pages").capacity(10).codec(RawBytes).build().unwrap()
    }

    /// The calling thread carries out its own exchange, and tells of it, while it holds a place on the way to the store.
    #[test]
    fn a_recorder_that_panics_ends_no_exchange() {
        let namespace = Namespace::builder("site", store()).build().unwrap();
        let pages = pages(&namespace);
        with_local_recorder(&Panicking, || {
            for key in ["a", "b"] {
                assert!(pages.insert(key.to_owned(), "page".to_owned()).is_through());
            }
        });
    }

    fn load(pages: &TieredCache<String, String>, key: &str) -> String {
        pages.get_or_load(key, |_| Ok::<_, Infallible>("text".to_owned())).unwrap()
    }

    /// Returns the metrics that the documentation lists, by name.
    fn documented() -> BTreeMap<String, Metric> {
        let list = include_str!("../../../src/docs/watching.md");
        let rows = list.lines().filter(|line| line.starts_with("| `larder_"));
        let metrics = rows.map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let &["", name, kind, labels, what, ""] = &cells[..] else { panic!("not a row of four cells: {row}") };
            assert!(!what.is_empty(), "{row}");
            let bare = |quoted: &str| quoted.trim().trim_matches('`').to_owned();
            (bare(name), (kind, labels.split(',').map(bare).collect()))
        });
        metrics.collect()
    }

    #[test]
    fn the_list_of_metrics_is_what_is_published() {
        let recorder = DebuggingRecorder::new();
        with_local_recorder(&recorder, || {
            let namespace = Namespace::builder("shop", store()).build().unwrap();
            let pages = pages(&namespace);
            load(&pages, "key");
            namespace.publish_metrics();
        });
        let mut published: BTreeMap<String, Metric> = BTreeMap::new();
        for ((name, mut labels), value) in told(&recorder.snapshotter()) {
            // That of a cache is said to have it where there is one.
            if labels.contains_key("cache") {
                assert_eq!(labels.remove("namespace").as_deref(), Some("shop"), "{name}");
            }
            let known = published.entry(name).or_insert((value.kind(), BTreeSet::new()));
            known.1.extend(labels.into_keys());
        }
        // Of the groups, the list speaks twice: those of a cache of its own are in another test.
        let mut documented = documented();
        documented.insert("larder_groups".to_owned(), ("gauge", BTreeSet::from(["namespace".to_owned()])));
        assert_eq!(published, documented);
    }

    #[test]
    fn every_metric_is_described_and_named_by_its_unit() {
        let recorder = DebuggingRecorder::new();
        with_local_recorder(&recorder, || {
            let namespace = Namespace::builder("shop", store()).build().unwrap();
            let pages = pages(&namespace);
            load(&pages, "key");
            namespace.publish_metrics();
        });
        for (key, unit, help, _) in recorder.snapshotter().snapshot().into_vec() {
            let (kind, name) = (key.kind(), key.key().name());
            assert!(help.is_some_and(|help| help.ends_with('.') && help.trim() == &*help), "{name} says what it is");
            let expected = match name.rsplit('_').next() {
                Some("seconds") => Unit::Seconds,
                Some("bytes") => Unit::Bytes,
                _ => Unit::Count,
            };
            assert_eq!(unit, Some(expected), "{name}");
            assert_eq!(kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
        }
    }

    #[test]
    fn both_tiers_and_the_exchanges_between_them_are_told_apart() {
        let recorder = DebuggingRecorder::new();
        let store = store();
        with_local_recorder(&recorder, || {
            let namespace = Namespace::builder("shop", store.clone()).build().unwrap();
            let pages = pages(&namespace);
            namespace.poll_now().unwrap();
            load(&pages, "key");
            assert_eq!(pages.get("key").as_deref(), Some("text"));
            *store.1.lock().unwrap() = BreakerState::Open;
            store.0.fail_next(1);
            assert_eq!(pages.get("other"), None);
            pages.publish_metrics();
            namespace.publish_metrics();
        });
        let told = told(&recorder.snapshotter());
        let reads = |tier, result| {
            let labels = [("namespace", "shop"), ("cache", "pages"), ("tier", tier), ("result", result)];
            told[&series("larder_reads_total", labels)].clone()
        };
        assert_eq!([reads("local", "fresh"), reads("local", "miss")], [1, 2].map(Value::Counter));
        assert_eq!([reads("remote", "fresh"), reads("remote", "miss")], [0, 2].map(Value::Counter));
        let exchange = |operation, outcome| {
            let labels = [("namespace", "shop"), ("server", "store:1"), ("operation", operation), ("outcome", outcome)];
            match told.get(&series("larder_remote_exchange_duration_seconds", labels)) {
                Some(Value::Histogram(times)) => times.len(),
                _ => 0,
            }
        };
        assert!(exchange("get", "ok") > 0 && exchange("set", "ok") > 0);
        assert_eq!(exchange("get", "timed_out") + exchange("get", "unavailable") + exchange("get", "interrupted"), 1);
        let breaker = |state| {
            let labels = [("namespace", "shop"), ("server", "store:1"), ("state", state)];
            told[&series("larder_breaker_state", labels)].clone()
        };
        let expected = [0.0, 1.0, 0.0].map(Value::Gauge);
        assert_eq!(["closed", "open", "half_open"].map(breaker), expected);
    }

    /// The only test that installs a recorder for the whole process, since only such a one hears of other threads. It looks at
    /// nothing but its own namespace, and others look at recorders of their own.
    #[test]
    fn a_namespace_publishes_by_itself_what_is_then_true() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        let namespace = Namespace::builder("by-itself", store()).build().unwrap();
        let pages = pages(&namespace);
        load(&pages, "key");
        let labels = [("namespace", "by-itself"), ("cache", "pages")];
        let with = |label| [labels[0], labels[1], label];
        let entries = series("larder_entries", with(("tier", "local")));
        let looks = [("server", "store:1"), ("operation", "journal"), ("outcome", "ok")];
        let looks = series("larder_remote_exchange_duration_seconds", [labels[0], looks[0], looks[1], looks[2]]);
        let seen = Mutex::new((false, false));
        eventually("the figures are published", || {
            let told = told(&snapshotter);
            let mut seen = seen.lock().unwrap();
            seen.0 |= told.get(&entries) == Some(&Value::Gauge(1.0));
            seen.1 |= matches!(told.get(&looks), Some(Value::Histogram(times)) if !times.is_empty());
            *seen == (true, true)
        });
    }
}
