//! Publishing: what is handed to the recorder of metrics, and when.

use std::hash::{BuildHasher, Hash};

use metrics::Unit;

use super::figures::{LOAD_SECONDS, Sheet};
use crate::cache::Cache;
use crate::store::Store;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Hands the cache's counters and sizes to the recorder of the `metrics` facade, under the names that
    /// [`watching`](crate::watching) lists.
    ///
    /// A cache of its own has no thread: call this from the exporter's scrape, or from a timer. The label `cache` is the
    /// cache's [name](crate::CacheBuilder::name): caches that share one also share figures, of which the largest stays. The
    /// times of loads are recorded when they happen, and need no call.
    ///
    /// # Blocking
    /// Takes one shard's read lock after another, each for a moment. Runs the recorder outside of them.
    pub fn publish_metrics(&self) {
        publish_local(&self.store);
    }
}

/// Publishes the figures of a local tier.
fn publish_local<K, V>(store: &Store<K, V>) {
    let stats = store.stats();
    let (entries, weight) = store.census();
    let groups = store.settings.groups.len();
    let watch = store.watch();
    Sheet::with(watch.labels([("tier", "local")]), |sheet| {
        stats.each(|figure| sheet.figure(&figure));
        sheet.gauge(
            "larder_entries",
            Unit::Count,
            "Entries, dead ones that are not reclaimed yet among them.",
            None,
            entries as f64,
        );
        sheet.gauge("larder_weight", Unit::Count, "What all entries weigh.", None, weight as f64);
        sheet.gauge("larder_capacity", Unit::Count, "How much weight fits.", None, store.capacity() as f64);
        // Those of a namespace belong to all of its caches.
        if watch.namespace().is_none() {
            sheet.gauge(GROUPS, Unit::Count, GROUPS_HELP, None, groups as f64);
        }
        sheet.describe(&LOAD_SECONDS);
    });
}

const GROUPS: &str = "larder_groups";
const GROUPS_HELP: &str = "Groups that an entry or a running load has named.";

#[cfg(feature = "tiered")]
mod tiered {
    use metrics::Label;

    use super::super::figures::{EXCHANGE_COMMANDS, EXCHANGE_SECONDS};
    use super::{BuildHasher, GROUPS, GROUPS_HELP, Hash, Sheet, Store, Unit, publish_local};
    use crate::namespace::core::Core;
    use crate::namespace::{Health, Namespace};
    use crate::remote::key::RemoteKey;
    use crate::remote::tier::BreakerState;
    use crate::tiered::{RemoteStats, TieredCache};

    impl<K, V, S> TieredCache<K, V, S>
    where
        K: Hash + Eq + RemoteKey + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        S: BuildHasher + Clone + Send + Sync + 'static,
    {
        /// Hands the cache's counters and sizes, of both tiers, to the recorder of the `metrics` facade, under the names that
        /// [`watching`](crate::watching) lists.
        ///
        /// The namespace's own thread does so every second for all of its caches: call this for figures of this very moment.
        ///
        /// # Blocking
        /// As [`Cache::publish_metrics`](crate::Cache::publish_metrics).
        pub fn publish_metrics(&self) {
            publish_tiers(self.local_store(), self.remote_stats());
        }
    }

    impl Namespace {
        /// Hands the figures of the namespace and of its caches to the recorder of the `metrics` facade, under the names that
        /// [`watching`](crate::watching) lists.
        ///
        /// The namespace's own thread does so every second, or every
        /// [`poll_interval`](crate::NamespaceBuilder::poll_interval) where that is longer: call this for figures of this very
        /// moment, or after a [`shutdown`](Self::shutdown).
        ///
        /// # Blocking
        /// As [`Cache::publish_metrics`](crate::Cache::publish_metrics), for one cache after another.
        pub fn publish_metrics(&self) {
            publish_namespace(self.core());
        }
    }

    /// Publishes the figures of a cache in two tiers.
    pub(crate) fn publish_tiers<K, V>(local: &Store<K, V>, remote: RemoteStats) {
        publish_local(local);
        Sheet::with(local.watch().labels([("tier", "remote")]), |sheet| remote.each(|figure| sheet.figure(&figure)));
    }

    /// Publishes the figures of a namespace and of its caches.
    pub(in crate::watch) fn publish_namespace(core: &Core) {
        core.tell(|cache| cache.publish());
        let name = Label::new("namespace", core.keys.namespace().to_owned());
        let health = Health::of(core);
        Sheet::with(vec![name.clone()], |sheet| {
            publish_health(sheet, &health);
            sheet.gauge(GROUPS, Unit::Count, GROUPS_HELP, None, core.groups.len() as f64);
            sheet.describe(&EXCHANGE_SECONDS);
            sheet.describe(&EXCHANGE_COMMANDS);
        });
        for lane in core.batcher.loads() {
            let server = Label::new("server", lane.server.clone());
            Sheet::with(vec![name.clone(), server], |sheet| {
                let calls = "Calls that are queued for a server or under way to it.";
                sheet.gauge("larder_remote_calls", Unit::Count, calls, None, lane.calls as f64);
                let bytes = "Bytes that are queued for a server.";
                sheet.gauge("larder_remote_queued_bytes", Unit::Bytes, bytes, None, lane.queued_bytes as f64);
            });
        }
        for server in &health.servers {
            Sheet::with(vec![name.clone(), Label::new("server", server.address.clone())], |sheet| {
                for (state, label) in BREAKER_STATES {
                    let is = if server.breaker == state { 1.0 } else { 0.0 };
                    let help = "1 for the state that the breaker of a server is in, 0 for the others.";
                    sheet.gauge("larder_breaker_state", Unit::Count, help, Some(("state", label)), is);
                }
            });
        }
    }

    const BREAKER_STATES: [(BreakerState, &str); 3] =
        [(BreakerState::Closed, "closed"), (BreakerState::Open, "open"), (BreakerState::HalfOpen, "half_open")];

    fn publish_health(sheet: &Sheet<'_>, health: &Health) {
        let counters = [
            ("larder_resyncs_total", "How often everything local counted as invalidated.", health.resyncs),
            ("larder_failed_looks_total", "Looks at the journal that failed.", health.failed_looks),
            ("larder_escalations_total", "How often too many pending changes became one.", health.escalations),
            ("larder_writes_given_up_total", "Queued writes that were given up.", health.writes_given_up),
            ("larder_remote_exchanges_total", "Exchanges with the remote tier for callers.", health.exchanges),
            ("larder_remote_commands_total", "Commands in the exchanges for callers.", health.commands),
            ("larder_remote_refusals_total", "Calls refused because a server's queue was full.", health.queue_full),
            ("larder_remote_timeouts_total", "Calls that had no answer in time.", health.timeouts),
        ];
        for (name, help, value) in counters {
            sheet.counter(name, help, None, value);
        }
        let oldest = health.oldest_pending.unwrap_or_default().as_secs_f64();
        let gauges = [
            (
                "larder_trust_left_seconds",
                Unit::Seconds,
                "How much longer local tiers are trusted.",
                health.trust_left.as_secs_f64(),
            ),
            (
                "larder_pending_deletions",
                Unit::Count,
                "Deletions that are not acknowledged.",
                health.pending_deletions as f64,
            ),
            ("larder_pending_bumps", Unit::Count, "Bumps that are not acknowledged.", health.pending_bumps as f64),
            ("larder_oldest_pending_seconds", Unit::Seconds, "How long the oldest of them has been pending.", oldest),
            ("larder_queued_writes", Unit::Count, "Writes that wait in the queue.", health.queued_writes as f64),
        ];
        for (name, unit, help, value) in gauges {
            sheet.gauge(name, unit, help, None, value);
        }
    }
}

#[cfg(feature = "tiered")]
pub(in crate::watch) use self::tiered::publish_namespace;
#[cfg(feature = "tiered")]
pub(crate) use self::tiered::publish_tiers;
