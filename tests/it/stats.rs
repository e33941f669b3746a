//! Statistics: every figure counts what its name says, and nothing twice.

use futures::executor::block_on;
use larder::{BoxFuture, Cache, CallOptions, Claim, EntryOptions, Lookup, Stats};

use crate::scene::{ms, roomy};

#[test]
fn each_figure_counts_its_own() {
    let (builder, time) = roomy();
    let cache = builder.capacity(10).soft_ttl(ms(10)).load_wait(ms(0)).build().unwrap();
    let mut before = cache.stats();
    assert_eq!(before, Stats::default());
    let mut step = |what: &str, expected: &dyn Fn(&mut Stats)| {
        let now = cache.stats();
        let mut figures = Stats::default();
        expected(&mut figures);
        assert_eq!(now - before, figures, "{what}");
        before = now;
    };
    assert_eq!(cache.get(&1), None);
    step("miss", &|s| s.misses = 1);
    cache.insert(1, 1).unwrap();
    cache.insert_many([(2, 2), (3, 3)]).unwrap();
    step("stores", &|s| s.stores = 3);
    assert_eq!((cache.get(&1), cache.with(&1, |value| *value)), (Some(1), Some(1)));
    assert_eq!(cache.get_many(&[2, 9]), [Some(2), None]);
    step("hits", &|s| (s.hits_fresh, s.misses) = (3, 1));
    assert!(cache.peek(&1).is_some() && cache.contains(&2) && cache.inspect(&3).is_some());
    assert_eq!(cache.iter().count(), 3);
    step("what leaves no trace", &|_| ());
    assert!(!cache.add(1, 5).unwrap());
    step("an add that finds a value", &|_| ());
    cache.insert(1, 4).unwrap();
    step("replacement", &|s| (s.stores, s.replacements) = (1, 1));
    cache.update(&1, |value| value + 1);
    step("update", &|s| (s.stores, s.replacements) = (1, 1));
    cache.remove(&3);
    cache.remove(&3);
    step("removal", &|s| s.removals = 1);
    time.advance(ms(10));
    assert_eq!(cache.get(&1), Some(5));
    step("stale", &|s| s.hits_stale = 1);
    let Lookup::Stale { claim: Some(claim), .. } = cache.lookup(&1) else { panic!("1 is stale") };
    step("lookup", &|s| s.hits_stale = 1);
    cache.remove(&1);
    drop(claim.fill(7));
    step("fence", &|s| (s.removals, s.fences) = (1, 1));
    let loaded = cache.get_or_load(&4, |_| {
        time.advance(ms(3));
        Ok::<_, ()>(4)
    });
    assert_eq!(loaded.unwrap(), 4);
    step("load", &|s| (s.misses, s.loads, s.stores, s.load_time) = (1, 1, 1, ms(3)));
    assert!(cache.get_or_load(&5, |_| Err(())).is_err());
    step("failed load", &|s| (s.misses, s.load_failures) = (1, 1));
    let Lookup::Vacant(held) = cache.lookup(&5) else { panic!("5 is vacant") };
    assert!(cache.get_or_load(&5, |_| Ok::<_, ()>(5)).is_err());
    step("timeout", &|s| (s.misses, s.load_waits, s.load_timeouts) = (2, 1, 1));
    drop(held);
    assert!(cache.insert_with(6, 6, EntryOptions::new().weight(11)).is_err());
    step("rejection", &|s| s.rejections = 1);
    let batch = cache.get_many_or_load(&[4, 7, 8], |_| Ok::<_, ()>(vec![(7, 7), (8, 8)]));
    assert_eq!(batch.unwrap(), [Some(4), Some(7), Some(8)]);
    step("batch", &|s| (s.hits_fresh, s.misses, s.loads, s.stores) = (1, 2, 1, 2));
    cache.set_capacity(2);
    step("evictions", &|s| s.evictions = 2);
    time.advance(ms(70));
    cache.insert_with(9, 9, EntryOptions::new().groups(["g"])).unwrap();
    time.advance(ms(10));
    cache.invalidate_group("g");
    cache.run_maintenance();
    let since = cache.stats();
    assert_eq!((since.invalidations, since.expirations + since.evictions), (1, 4));
}

#[test]
fn hits_and_ratio_follow_from_the_figures() {
    let (builder, time) = roomy();
    let cache = builder.soft_ttl(ms(10)).build().unwrap();
    assert!(cache.stats().hit_ratio().abs() < f64::EPSILON);
    cache.insert(1, 1).unwrap();
    cache.get(&1);
    time.advance(ms(10));
    cache.get(&1);
    cache.get(&1);
    cache.get(&2);
    let stats = cache.stats();
    assert_eq!(stats.hits(), 3);
    assert!((stats.hit_ratio() - 0.75).abs() < f64::EPSILON);
    let copy = stats;
    assert_eq!(copy - stats, Stats::default());
}

#[test]
fn the_time_of_loads_stops_at_what_fits() {
    let (clock, time) = larder::Clock::manual();
    let cache = larder::Cache::<u32, u32>::builder().capacity(10).clock(clock).build().unwrap();
    cache.get_or_insert_with(&1, || {
        cache.get_or_insert_with(&2, || {
            time.advance(std::time::Duration::MAX);
            2
        })
    });
    assert_eq!(cache.stats().load_time, std::time::Duration::from_nanos(u64::MAX));
}

/// What one verb is expected to change.
type Expected = fn(&mut Stats);

/// Every verb of a cache that has 1, fresh, 2, stale, and nothing else: each read of the user's counts once, and nothing that
/// the cache looks at for itself.
#[test]
fn each_verb_counts_what_it_does() {
    type Verb = fn(&Cache<u32, u32>);
    let nothing: Expected = |_| ();
    let fresh: Expected = |s| s.hits_fresh = 1;
    let stale: Expected = |s| s.hits_stale = 1;
    let missed: Expected = |s| s.misses = 1;
    let stored: Expected = |s| s.stores = 1;
    let replaced: Expected = |s| (s.stores, s.replacements) = (1, 1);
    let removed: Expected = |s| s.removals = 1;
    let loaded: Expected = |s| (s.misses, s.loads, s.stores) = (1, 1, 1);
    let refreshed: Expected = |s| (s.hits_stale, s.loads, s.stores, s.replacements) = (1, 1, 1, 1);
    let verbs: [(&str, Verb, Expected); 52] = [
        ("get", |c| _ = c.get(&1), fresh),
        ("get of a stale value", |c| _ = c.get(&2), stale),
        ("get of nothing", |c| _ = c.get(&9), missed),
        ("with", |c| _ = c.with(&1, |_| ()), fresh),
        ("get_many", |c| _ = c.get_many(&[1, 2, 9]), |s| (s.hits_fresh, s.hits_stale, s.misses) = (1, 1, 1)),
        ("peek", |c| _ = c.peek(&1), nothing),
        ("contains", |c| assert!(c.contains(&1) && !c.contains(&9)), nothing),
        ("inspect", |c| _ = c.inspect(&1), nothing),
        ("iter", |c| _ = c.iter().count(), nothing),
        ("lookup", |c| _ = c.lookup(&1), fresh),
        ("lookup of a stale value", |c| _ = c.lookup(&2), stale),
        ("lookup of nothing", |c| _ = c.lookup(&9), missed),
        ("lookup_wait", |c| _ = c.lookup_wait(&9, ms(1)), missed),
        ("lookup_wait_async", |c| _ = block_on(c.lookup_wait_async(&9, ms(1))), missed),
        ("lookup_with, no refresh", |c| _ = c.lookup_with(&2, CallOptions::new().no_refresh()), stale),
        ("lookup_with, read only", |c| _ = c.lookup_with(&9, CallOptions::new().read_only()), missed),
        ("fill", |c| assert!(claim(c, 9).fill(9).is_stored()), |s| (s.misses, s.stores) = (1, 1)),
        ("a claim that is dropped", |c| _ = claim(c, 9), missed),
        ("insert", |c| c.insert(9, 9).unwrap(), stored),
        ("insert in another's place", |c| c.insert(1, 9).unwrap(), replaced),
        ("insert_with", |c| c.insert_with(9, 9, EntryOptions::new()).unwrap(), stored),
        ("insert_many", |c| c.insert_many([(8, 8), (9, 9)]).unwrap(), |s| s.stores = 2),
        (
            "insert of what is too heavy",
            |c| _ = c.insert_with(9, 9, EntryOptions::new().weight(11)),
            |s| s.rejections = 1,
        ),
        (
            "insert of what is dead at once",
            |c| c.insert_with(9, 9, EntryOptions::new().hard_ttl(ms(0))).unwrap(),
            |s| {
                (s.stores, s.expirations) = (1, 1);
            },
        ),
        ("add", |c| assert!(c.add(9, 9).unwrap()), stored),
        ("add of what is there", |c| assert!(!c.add(1, 9).unwrap()), nothing),
        ("update", |c| _ = c.update(&1, |value| value + 1), replaced),
        ("update of nothing", |c| _ = c.update(&9, |value| value + 1), nothing),
        ("remove", |c| _ = c.remove(&1), removed),
        ("remove of nothing", |c| _ = c.remove(&9), nothing),
        ("remove_many", |c| c.remove_many(&[1, 2, 9]), |s| s.removals = 2),
        ("retain", |c| c.retain(|key, _| *key != 1), removed),
        ("expire", |c| assert!(c.expire(&1)), nothing),
        ("clear", |c| c.clear(), nothing),
        ("clear and what it leaves", |c| (c.clear(), c.run_maintenance()).0, |s| s.invalidations = 2),
        ("invalidate_group", |c| c.invalidate_group("g"), nothing),
        ("expire_group", |c| c.expire_group("g"), nothing),
        ("run_maintenance", |c| c.run_maintenance(), nothing),
        ("set_capacity", |c| c.set_capacity(1), |s| s.evictions = 1),
        (
            "what describes it",
            |c| assert!((c.len(), c.weight(), c.capacity(), c.is_empty()) == (2, 2, 10, false)),
            nothing,
        ),
        ("warm_up", |c| assert_eq!(c.warm_up([(1, 9), (9, 9)]), 1), stored),
        ("get_or_insert_with", |c| _ = c.get_or_insert_with(&9, || 9), loaded),
        ("get_or_load", |c| _ = c.get_or_load(&9, |_| Ok::<_, ()>(9)), loaded),
        ("get_or_load of what is there", |c| _ = c.get_or_load(&1, |_| Ok::<_, ()>(9)), fresh),
        ("get_or_load of a stale value", |c| _ = c.get_or_load(&2, |_| Ok::<_, ()>(9)), refreshed),
        ("get_or_load that fails", |c| _ = c.get_or_load(&9, |_| Err(())), |s| (s.misses, s.load_failures) = (1, 1)),
        (
            "get_or_load, not to be stored",
            |c| _ = c.get_or_load(&9, |load| (load.do_not_store(), Ok::<_, ()>(9)).1),
            |s| {
                (s.misses, s.loads) = (1, 1);
            },
        ),
        (
            "get_or_load that is overtaken",
            |c| _ = c.get_or_load(&9, |_| (c.clear(), Ok::<_, ()>(9)).1),
            |s| {
                (s.misses, s.loads, s.fences) = (1, 1, 1);
            },
        ),
        ("get_or_load_async", |c| _ = block_on(c.get_or_load_async(&9, |_| async { Ok::<_, ()>(9) })), loaded),
        (
            "get_or_load_detached",
            |c| _ = block_on(c.get_or_load_detached(&9, spawn, |_| async { Ok::<_, ()>(9) })),
            |s| {
                // The caller waits for the load as for that of another, and finds it over.
                (s.misses, s.loads, s.stores) = (1, 1, 1);
            },
        ),
        (
            "get_many_or_load",
            |c| _ = c.get_many_or_load(&[1, 2, 8, 9], |_| Ok::<_, ()>(vec![(2, 2), (9, 9)])),
            |s| {
                (s.hits_fresh, s.hits_stale, s.misses) = (1, 1, 2);
                (s.loads, s.stores, s.replacements) = (1, 2, 1);
            },
        ),
        (
            "get_many_or_load_async",
            |c| {
                let load = |_| async { Ok::<_, ()>(vec![(9, 9)]) };
                _ = block_on(c.get_many_or_load_async(&[9], load));
            },
            loaded,
        ),
    ];
    for (verb, run, expected) in verbs {
        let (builder, _time) = roomy();
        let cache = builder.capacity(10).shards(1).soft_ttl(ms(1_000)).build().unwrap();
        cache.insert(1, 1).unwrap();
        cache.insert(2, 2).unwrap();
        cache.expire(&2);
        let before = cache.stats();
        run(&cache);
        let mut figures = Stats::default();
        expected(&mut figures);
        assert_eq!(cache.stats() - before, figures, "{verb}");
    }
}

/// Runs a load to its end, on a thread of its own.
fn spawn(load: BoxFuture) {
    std::thread::spawn(|| block_on(load)).join().unwrap();
}

fn claim(cache: &Cache<u32, u32>, key: u32) -> Claim<u32, u32> {
    match cache.lookup(&key) {
        Lookup::Vacant(claim) => claim,
        other => panic!("{key} is vacant, and not {other:?}"),
    }
}
