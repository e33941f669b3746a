//! Statistics: every figure counts what its name says, and nothing twice.

use larder::{EntryOptions, Lookup, Stats};

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
