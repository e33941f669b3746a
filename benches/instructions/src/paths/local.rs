//! The local tier by itself.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ahash::RandomState;
use larder::{Cache, CacheBuilder, EntryOptions, Load, LoadError, Lookup};

use super::{
    ELSEWHERE, GROUP, HARD_TTL, Local, POPULATION, SECOND_GROUP, SHARDS, SOFT_TTL, Value, ageing, ageless, built,
    filled, hasher, insert, key, resident, value,
};
use crate::meter::{Meter, OPERATIONS, WARM_UP};

/// Small enough that it is full, and its ghosts are there, after a few thousand inserts.
const SMALL: u64 = 1_000;

pub(super) fn walk(meter: &mut Meter) {
    hits(meter);
    other_answers(meter);
    other_verbs(meter);
    writes(meter);
    groups(meter);
}

fn hits(meter: &mut Meter) {
    let cache = filled(ageless, &[]);
    meter.path("get: hit, no deadline, no group", resident, |key| cache.get(&key));
    let cache = filled(ageing, &[]);
    meter.path("get: hit, no group", resident, |key| cache.get(&key));
    let cache = filled(ageing, &[GROUP]);
    meter.path("get: hit", resident, |key| cache.get(&key));
    meter.path("with: hit", resident, |key| cache.with(&key, |value| value[0]));
    let cache = filled(ageing, &[GROUP, SECOND_GROUP]);
    meter.path("get: hit, two groups", resident, |key| cache.get(&key));
    let cache = filled(ageing, &[GROUP]);
    let after_a_bump = |number| {
        cache.invalidate_group(ELSEWHERE);
        resident(number)
    };
    meter.path("get: hit, first after a bump of another group", after_a_bump, |key| cache.get(&key));
    let cache = filled_by_names();
    meter.path("get: hit, String key", |number| name(number % POPULATION), |name| cache.get(name.as_str()));
}

fn other_answers(meter: &mut Meter) {
    let cache = filled(ageing, &[GROUP]);
    let absent = |number| key(POPULATION + number);
    meter.path("get: miss", absent, |key| cache.get(&key));
    for number in 0..POPULATION {
        cache.expire(&key(number));
    }
    meter.path("get: stale hit, past the soft deadline", resident, |key| cache.get(&key));
    let cache = filled(ageing, &[GROUP]);
    cache.expire_group(GROUP);
    meter.path("get: stale hit, by the group", resident, |key| cache.get(&key));
    let cache = filled(ageing, &[GROUP]);
    cache.invalidate_group(GROUP);
    meter.path("get: miss, killed by the group", resident, |key| cache.get(&key));
}

fn other_verbs(meter: &mut Meter) {
    let cache = filled(ageing, &[GROUP]);
    meter.path("contains: hit", resident, |key| cache.contains(&key));
    meter.path("peek: hit", resident, |key| cache.peek(&key));
    meter.path("lookup: hit", resident, |key| match cache.lookup(&key) {
        Lookup::Fresh(value) => value,
        other => panic!("an entry that is fresh and there came as {other:?}"),
    });
    meter.path("get_or_load: hit", resident, |key| {
        cache.get_or_load(&key, |_| -> Result<_, Infallible> { unreachable!("every key is resident") })
    });
    meter.path("get_or_load_async: hit", resident, |key| {
        at_once(cache.get_or_load_async(&key, |_| async { unreachable!("every key is resident") }))
    });
    let cache = ageing(2 * POPULATION).loader(|_: &u64, _: Load<Value>| Ok::<_, Infallible>(value())).build();
    let cache = cache.expect("these settings agree with each other");
    for number in 0..POPULATION {
        insert(&cache, key(number), value(), &[GROUP]);
    }
    meter.path("LoadingCache::load: hit", resident, |key| cache.load(&key));
    let cache = built(ageing(2 * (WARM_UP + OPERATIONS)));
    let absent = |number| (key(number), value());
    meter.path("get_or_load: miss, without eviction", absent, |(key, value)| {
        cache.get_or_load(&key, |load| {
            load.groups([GROUP]);
            Ok::<_, Infallible>(value)
        })
    });
}

fn writes(meter: &mut Meter) {
    let cache = overfull(ageless(SMALL), &[]);
    meter.path("insert: evicts, no deadline, no group", newcomer, |(key, value)| cache.insert(key, value));
    let cache = overfull(ageing(SMALL), &[]);
    meter.path("insert: evicts, no group", newcomer, |(key, value)| cache.insert(key, value));
    let cache = overfull(ageing(SMALL), &[GROUP]);
    meter.path("insert: evicts", newcomer, |(key, value)| insert(&cache, key, value, &[GROUP]));
    let cache = filled(ageing, &[GROUP]);
    let known = |number| (resident(number), value());
    meter.path("insert: replaces", known, |(key, value)| insert(&cache, key, value, &[GROUP]));
    meter.path("remove: absent", |number| key(POPULATION + number), |key| cache.remove(&key));
    let known = |number| {
        insert(&cache, resident(number), value(), &[GROUP]);
        resident(number)
    };
    meter.path("remove: resident", known, |key| cache.remove(&key));
}

fn groups(meter: &mut Meter) {
    let cache = filled(ageing, &[GROUP]);
    meter.path("invalidate_group: holds all entries", |_| GROUP, |group| cache.invalidate_group(group));
    meter.path("invalidate_group: unknown", |_| ELSEWHERE, |group| cache.invalidate_group(group));
}

/// The entries that [`overfull`] has not had.
fn newcomer(number: u64) -> (u64, Value) {
    (key(10 * SMALL + number), value())
}

/// A cache that has evicted nine times as many entries as it holds.
fn overfull(builder: CacheBuilder<u64, Value, RandomState>, groups: &[&str]) -> Local {
    let cache = built(builder);
    for number in 0..10 * SMALL {
        insert(&cache, key(number), value(), groups);
    }
    cache
}

/// Polls a future that has its answer at once.
fn at_once(future: impl Future<Output = Result<Value, LoadError<Infallible>>>) -> Value {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => value,
        other => panic!("a hit came as {other:?}"),
    }
}

fn name(number: u64) -> String {
    format!("/page/{number:08}")
}

fn filled_by_names() -> Cache<String, Value, RandomState> {
    let cache = Cache::builder()
        .capacity(2 * POPULATION)
        .shards(SHARDS)
        .hasher(hasher())
        .soft_ttl(SOFT_TTL)
        .hard_ttl(HARD_TTL)
        .build()
        .expect("these settings agree with each other");
    for number in 0..POPULATION {
        cache
            .insert_with(name(number), value(), EntryOptions::new().groups([GROUP]))
            .expect("an entry of weight 1 fits into every cache");
    }
    cache
}
