//! The local tier of a tiered cache, and what stands behind it, without a network.

use std::convert::Infallible;
use std::time::Duration;

use ahash::RandomState;
use larder::{CallOptions, EntryOptions, InMemoryRemote, Namespace, RawBytes, TieredCache, Write};

use super::{GROUP, HARD_TTL, POPULATION, SHARDS, SOFT_TTL, Value, hasher, key, resident, value};
use crate::meter::Meter;

/// The thread that follows the journal looks at it once, and not again while paths are counted.
const POLL_INTERVAL: Duration = Duration::from_secs(3_600);
const TRUST: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn walk(meter: &mut Meter) {
    let cache = filled();
    meter.path("LocalView::get: hit", resident, |key| cache.local().get(&key));
    meter.path("LocalView::with: hit", resident, |key| cache.local().with(&key, |value| value[0]));
    meter.path("TieredCache::get: local hit", resident, |key| cache.get(&key));
    meter.path("TieredCache::with: local hit", resident, |key| cache.with(&key, |value| value[0]));
    meter.path("TieredCache::get_or_load: local hit", resident, |key| {
        cache.get_or_load(&key, |_| -> Result<_, Infallible> { unreachable!("every key is resident") })
    });
    meter.path("TieredCache::get_with: remote hit, in memory", resident, |key| {
        cache.get_with(&key, CallOptions::new().skip_local())
    });
    let known = |number| (resident(number), value());
    meter.path("TieredCache::insert: replaces, in memory", known, |(key, value)| insert(&cache, key, value));
}

/// A cache whose entries are in both tiers.
fn filled() -> TieredCache<u64, Value, RandomState> {
    let namespace = Namespace::builder("instructions", InMemoryRemote::new())
        .poll_interval(POLL_INTERVAL)
        .trust(TRUST)
        .build()
        .expect("these settings agree with each other");
    let cache = TieredCache::builder(&namespace, "values")
        .capacity(2 * POPULATION)
        .shards(SHARDS)
        .hasher(hasher())
        .soft_ttl(SOFT_TTL)
        .hard_ttl(HARD_TTL)
        .codec(RawBytes)
        .build()
        .expect("these settings agree with each other");
    namespace.poll_now().expect("a store in memory answers");
    for number in 0..POPULATION {
        let written = insert(&cache, key(number), value());
        assert!(matches!(written, Write::Through), "{written:?}");
    }
    assert!(cache.local().contains(&key(0)), "the local tier is not trusted");
    cache
}

fn insert(cache: &TieredCache<u64, Value, RandomState>, key: u64, value: Value) -> Write {
    cache.insert_with(key, value, EntryOptions::new().groups([GROUP]))
}
