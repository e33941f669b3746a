//! What leaves the cache: why the listener is told, where values are dropped, and what a panic in the user's code leaves.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use larder::{Cache, CacheBuilder, EntryOptions, Fill, Lookup, ManualClock, RemovalCause};

use crate::scene::{ms, roomy, within_patience};

type Log = Arc<Mutex<Vec<(u32, u32, RemovalCause)>>>;

fn logged() -> (CacheBuilder<u32, u32>, ManualClock, Log) {
    let log = Log::default();
    let (builder, time) = roomy::<u32>();
    let listener = {
        let log = log.clone();
        move |key: &u32, value: &u32, cause| log.lock().unwrap().push((*key, *value, cause))
    };
    (builder.on_removal(listener), time, log)
}

fn told(log: &Log) -> Vec<(u32, u32, RemovalCause)> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// The successor of a value is as old as that, from before the other died.
#[test]
fn who_dies_before_an_update_needs_its_room_has_expired_and_was_not_evicted() {
    let (builder, time, log) = logged();
    let cache = builder.capacity(3).weigher(|_, value| u64::from(*value)).build().unwrap();
    cache.insert(1, 1).unwrap();
    cache.insert_with(2, 2, EntryOptions::new().ttl(ms(5))).unwrap();
    time.advance(ms(5));
    assert_eq!(cache.update(&1, |_| 3), Some(3));
    let mut told = told(&log);
    told.sort_unstable_by_key(|(key, ..)| *key);
    assert_eq!(told, [(1, 1, RemovalCause::Replaced), (2, 2, RemovalCause::Expired)]);
}

#[test]
fn the_listener_is_told_of_every_value_that_leaves_and_why() {
    let (builder, time, log) = logged();
    let cache = builder.capacity(10).build().unwrap();
    cache.insert(1, 10).unwrap();
    assert!(told(&log).is_empty());
    cache.insert(1, 11).unwrap();
    assert_eq!(told(&log), [(1, 10, RemovalCause::Replaced)]);
    cache.update(&1, |value| value + 1);
    assert_eq!(told(&log), [(1, 11, RemovalCause::Replaced)]);
    cache.expire(&1);
    assert!(told(&log).is_empty(), "a stale value is still there");
    let Lookup::Stale { claim: Some(claim), .. } = cache.lookup(&1) else { panic!("1 is stale") };
    assert!(claim.fill(13).is_stored());
    assert_eq!(told(&log), [(1, 12, RemovalCause::Replaced)]);
    assert_eq!(cache.remove(&1), Some(13));
    assert_eq!(told(&log), [(1, 13, RemovalCause::Removed)]);
    cache.insert(2, 20).unwrap();
    cache.retain(|_, _| false);
    assert_eq!(told(&log), [(2, 20, RemovalCause::Removed)]);

    cache.insert_with(3, 30, EntryOptions::new().ttl(ms(5))).unwrap();
    cache.insert_with(4, 40, EntryOptions::new().groups(["g"])).unwrap();
    cache.insert_with(5, 50, EntryOptions::new().ttl(ms(5))).unwrap();
    time.advance(ms(5));
    cache.invalidate_group("g");
    assert_eq!((cache.remove(&5), cache.get(&3), cache.get(&4)), (None, None, None));
    assert_eq!(
        told(&log),
        [(5, 50, RemovalCause::Expired)],
        "who removes a dead value is not told of it, the listener is"
    );
    cache.run_maintenance();
    let mut reclaimed = told(&log);
    reclaimed.sort_by_key(|(key, ..)| *key);
    assert_eq!(reclaimed, [(3, 30, RemovalCause::Expired), (4, 40, RemovalCause::Invalidated)]);

    cache.insert(6, 60).unwrap();
    cache.clear();
    cache.insert(6, 61).unwrap();
    assert_eq!(told(&log), [(6, 60, RemovalCause::Invalidated)]);
    cache.set_capacity(0);
    assert_eq!(told(&log), [(6, 61, RemovalCause::Evicted)]);
    let stats = cache.stats();
    let counted = [stats.replacements, stats.removals, stats.evictions, stats.expirations, stats.invalidations];
    assert_eq!(counted, [3, 2, 1, 2, 2]);
}

#[test]
fn a_listener_may_call_the_cache_for_the_same_key() {
    within_patience("a listener that calls the cache ends", || {
        let handle = Arc::new(OnceLock::<Cache<u32, u32>>::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let (handle, seen) = (handle.clone(), seen.clone());
            move |key: &u32, value: &u32, _| {
                let cache = handle.get().unwrap();
                seen.lock().unwrap().push((cache.get(key), cache.len(), cache.weight()));
                if *value < 3 {
                    cache.insert(*key, value + 1).unwrap();
                    cache.run_maintenance();
                    cache.set_capacity(10);
                }
            }
        };
        let cache = Cache::builder().capacity(10).shards(1).on_removal(listener).build().unwrap();
        handle.set(cache.clone()).unwrap();
        cache.insert(1, 1).unwrap();
        assert_eq!(cache.remove(&1), Some(1));
        assert_eq!(cache.get(&1), Some(2));
        cache.retain(|_, _| false);
        assert_eq!(cache.get(&1), Some(3));
        cache.clear();
        cache.run_maintenance();
        assert_eq!(*seen.lock().unwrap(), [(None, 0, 0); 3], "told once it is out");
    });
}

#[test]
fn a_panicking_listener_breaks_nothing_and_is_counted() {
    let cache: Cache<u32, u32> =
        Cache::builder().capacity(3).shards(1).on_removal(|_, _, _| panic!("the listener panics")).build().unwrap();
    for key in 0..10 {
        cache.insert(key, key).unwrap();
    }
    assert_eq!((cache.len(), cache.weight(), cache.stats().listener_panics), (3, 3, 7));
    assert_eq!(cache.get_or_load(&100, |_| Ok::<_, ()>(1)).unwrap(), 1);
    cache.remove(&100);
    cache.clear();
    cache.run_maintenance();
    assert_eq!((cache.len(), cache.stats().listener_panics), (0, 11));
}

/// A part of a key or value that calls the cache when it is dropped.
struct Caller(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(call) = self.0.get() {
            call();
        }
    }
}

#[derive(Clone)]
struct Key(u32, #[expect(dead_code, reason = "held to be dropped")] Arc<Caller>);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn keys_and_values_are_dropped_outside_locks() {
    within_patience("every drop that calls the cache ends", || {
        let hook = Arc::new(OnceLock::<Box<dyn Fn() + Send + Sync>>::new());
        let drops = Arc::new(AtomicU64::new(0));
        let (builder, time) = {
            let (clock, time) = larder::Clock::manual();
            (Cache::<Key, Arc<Caller>>::builder().capacity(4).shards(1).clock(clock), time)
        };
        let cache = builder.build().unwrap();
        let caller = || Arc::new(Caller(hook.clone()));
        let key = |key| Key(key, Arc::new(Caller(hook.clone())));
        let plain = |key| Key(key, Arc::new(Caller(Arc::default())));
        hook.set({
            let (cache, drops) = (cache.clone(), drops.clone());
            Box::new(move || {
                // Needs every shard's lock, for writing and for reading.
                drops.fetch_add(1, Ordering::Relaxed);
                let plain = |key| Key(key, Arc::new(Caller(Arc::default())));
                ignore(cache.remove(&plain(99)));
                cache.expire(&plain(98));
                assert!(cache.len() <= 4);
                ignore(cache.lookup(&plain(97)));
            })
        })
        .ok()
        .unwrap();
        let ttl = || EntryOptions::new().ttl(ms(5)).groups(["g"]);
        for number in 0..10 {
            cache.insert(key(number % 6), caller()).unwrap();
        }
        cache.update(&key(3), |_| caller());
        ignore(cache.remove(&plain(3)));
        cache.insert_with(key(20), caller(), ttl()).unwrap();
        time.advance(ms(5));
        cache.insert(key(21), caller()).unwrap();
        cache.insert_with(key(22), caller(), ttl()).unwrap();
        cache.invalidate_group("g");
        cache.run_maintenance();
        ignore(cache.add(key(23), caller()));
        ignore(cache.add(key(23), caller()));
        ignore(cache.insert_with(key(24), caller(), EntryOptions::new().weight(100)));
        ignore(cache.lookup(&key(25)));
        let Lookup::Vacant(claim) = cache.lookup(&key(26)) else { panic!("26 is vacant") };
        cache.remove(&plain(26));
        assert!(matches!(claim.fill(caller()), Fill::Fenced(_)));
        let Lookup::Vacant(first) = cache.lookup(&key(27)) else { panic!("27 is vacant") };
        time.advance(ms(60_000));
        let Lookup::Vacant(second) = cache.lookup(&key(27)) else { panic!("27 is free again") };
        drop((first.fill(caller()), second.fill(caller())));
        ignore(cache.get_or_load(&key(28), |_| Ok::<_, ()>(caller())));
        ignore(cache.get_or_load(&key(28), |_| Err::<Arc<Caller>, ()>(())));
        cache.retain(|key, _| key.0 % 2 == 0);
        cache.set_capacity(1);
        cache.clear();
        cache.run_maintenance();
        assert!(drops.load(Ordering::Relaxed) > 20);
    });
}

/// A key whose comparison panics on demand.
#[derive(Clone, Debug)]
struct Touchy(u32);

static EQ_PANICS: AtomicBool = AtomicBool::new(false);

impl PartialEq for Touchy {
    fn eq(&self, other: &Touchy) -> bool {
        assert!(self.0 >= 1_000 || !EQ_PANICS.load(Ordering::SeqCst), "the comparison panics");
        self.0 == other.0
    }
}

impl Eq for Touchy {}

impl Hash for Touchy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(self.0 != 666, "the hash panics");
        self.0.hash(state);
    }
}

/// Ends what a call returned, of whatever type.
fn ignore<T>(_: T) {}

fn panics(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

#[test]
fn a_panicking_comparison_loses_no_weight_and_no_key() {
    within_patience("weight is all there", || [1, 4].into_iter().for_each(panicking_comparisons));
}

fn panicking_comparisons(shards: usize) {
    let cache: Cache<Touchy, u32> = Cache::builder().capacity(10).shards(shards).build().unwrap();
    let refill = || (0..10).for_each(|key| cache.insert(Touchy(key), key).unwrap());
    let verbs: [(&str, &dyn Fn()); 11] = [
        ("get", &|| ignore(cache.get(&Touchy(1)))),
        ("insert", &|| ignore(cache.insert(Touchy(1), 2))),
        ("insert heavy", &|| ignore(cache.insert_with(Touchy(1), 2, EntryOptions::new().weight(5)))),
        ("insert too heavy", &|| ignore(cache.insert_with(Touchy(1), 2, EntryOptions::new().weight(50)))),
        ("remove", &|| ignore(cache.remove(&Touchy(1)))),
        ("expire", &|| ignore(cache.expire(&Touchy(1)))),
        ("update", &|| ignore(cache.update(&Touchy(1), |value| *value))),
        ("lookup", &|| ignore(cache.lookup(&Touchy(1)))),
        ("load", &|| ignore(cache.get_or_load(&Touchy(1), |_| Ok::<_, ()>(1)))),
        ("retain", &|| cache.retain(|_, _| false)),
        ("retain", &|| cache.retain(|key, _| key.0 < 5)),
    ];
    for (name, verb) in verbs {
        for claimed in [false, true] {
            refill();
            cache.expire(&Touchy(1));
            cache.expire(&Touchy(7));
            let held = claimed.then(|| (cache.lookup(&Touchy(1)), cache.lookup(&Touchy(7))));
            EQ_PANICS.store(true, Ordering::SeqCst);
            let _ = panics(verb);
            let _ = panics(|| {
                if let Some((Lookup::Stale { claim: Some(claim), .. }, _)) = held {
                    ignore(claim.fill(1));
                }
            });
            EQ_PANICS.store(false, Ordering::SeqCst);
            assert!(cache.weight() <= 10, "{name}");
            cache.insert(Touchy(1), 5).unwrap();
            assert_eq!(cache.get(&Touchy(1)), Some(5), "{name}");
            // Whatever weight was lost would be missed here.
            cache.set_capacity(0);
            cache.set_capacity(10);
            refill();
            assert_eq!((cache.len(), cache.weight()), (10, 10), "{name}, {shards} shards, claimed: {claimed}");
            cache.clear();
            cache.run_maintenance();
        }
    }
}

/// A key whose comparison panics once its switch is on.
struct Switched(u32, Arc<AtomicBool>);

impl PartialEq for Switched {
    fn eq(&self, other: &Switched) -> bool {
        assert!(!self.1.load(Ordering::SeqCst), "the comparison panics");
        self.0 == other.0
    }
}

impl Eq for Switched {}

impl Hash for Switched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Clone for Switched {
    fn clone(&self) -> Switched {
        Switched(self.0, self.1.clone())
    }
}

/// `retain` compares keys under the lock, to find the loads that it fences. Should that panic, nothing that it has taken out
/// may be dropped before the lock is free: what leaves has others dropped that have waited, and a `Drop` that calls the cache
/// would wait for the lock of its own thread.
#[test]
fn a_comparison_that_panics_in_retain_drops_nothing_under_the_lock() {
    within_patience("every drop that calls the cache ends", || {
        let hook = Arc::new(OnceLock::<Box<dyn Fn() + Send + Sync>>::new());
        let switch = Arc::new(AtomicBool::new(false));
        let key = |key| Switched(key, switch.clone());
        let cache: Cache<Switched, Arc<Caller>> = Cache::builder().capacity(100).shards(1).build().unwrap();
        (0..10).for_each(|number| cache.insert(key(number), Arc::new(Caller(hook.clone()))).unwrap());
        cache.expire(&key(0));
        let held = cache.lookup(&key(0));
        assert!(matches!(held, Lookup::Stale { claim: Some(_), .. }));
        // Those that leave are dropped later, and some of them by the next that leaves.
        (1..10).for_each(|number| ignore(cache.remove(&key(number))));
        let calls = Arc::new(AtomicU64::new(0));
        hook.set({
            let (cache, calls) = (cache.clone(), calls.clone());
            Box::new(move || {
                calls.fetch_add(1, Ordering::Relaxed);
                assert!(cache.len() <= 1);
            })
        })
        .ok()
        .unwrap();
        switch.store(true, Ordering::SeqCst);
        assert!(panics(|| cache.retain(|_, _| false)));
        switch.store(false, Ordering::SeqCst);
        // Still there, and its load not fenced.
        assert!(cache.contains(&key(0)));
        drop(held);
        cache.retain(|_, _| false);
        assert!(cache.is_empty());
        cache.run_maintenance();
        assert!(calls.load(Ordering::Relaxed) > 0);
    });
}

/// A thread that has a claim drops nothing of others before the claim has ended: a `Drop` that asks for the claimed key would
/// wait for what its own thread is about to store. The entry that a load has brought is made while the claim stands, and most
/// entries are made in the place of one that has left and is dropped then.
#[test]
fn a_drop_that_loads_the_key_being_filled_does_not_wait_for_itself() {
    within_patience("no load waits for its own thread", || {
        let hook = Arc::new(OnceLock::<Box<dyn Fn() + Send + Sync>>::new());
        let cache: Cache<u32, Arc<Caller>> =
            Cache::builder().capacity(4).shards(1).load_wait(std::time::Duration::from_secs(3_600)).build().unwrap();
        let caller = {
            let hook = hook.clone();
            move || Arc::new(Caller(hook.clone()))
        };
        let (calls, is_within) = (Arc::new(AtomicU64::new(0)), AtomicBool::new(false));
        hook.set({
            let (cache, calls) = (cache.clone(), calls.clone());
            Box::new(move || {
                if !is_within.swap(true, Ordering::Relaxed) {
                    calls.fetch_add(1, Ordering::Relaxed);
                    let plain = Arc::new(Caller(Arc::default()));
                    assert!(cache.get_or_load(&7, |_| Ok::<_, ()>(plain)).is_ok());
                    is_within.store(false, Ordering::Relaxed);
                }
            })
        })
        .ok()
        .unwrap();
        (100..110).for_each(|key| cache.insert(key, caller()).unwrap());
        for round in 0..10 {
            cache.remove(&7);
            if round % 2 == 0 {
                assert!(cache.get_or_load(&7, |_| Ok::<_, ()>(caller())).is_ok());
            } else if let Lookup::Vacant(claim) = cache.lookup(&7) {
                ignore(claim.fill(caller()));
            }
        }
        assert!(calls.load(Ordering::Relaxed) > 0);
    });
}

#[derive(Debug)]
struct Fragile(u32);

static CLONE_PANICS: AtomicBool = AtomicBool::new(false);

impl Clone for Fragile {
    fn clone(&self) -> Fragile {
        assert!(!CLONE_PANICS.load(Ordering::SeqCst), "the copy panics");
        Fragile(self.0)
    }
}

#[test]
fn panics_in_other_code_of_the_user_leave_the_cache_as_it_was() {
    let weigher_panics = Arc::new(AtomicBool::new(false));
    let weigher = {
        let panics = weigher_panics.clone();
        move |_: &u32, _: &Fragile| {
            assert!(!panics.load(Ordering::SeqCst), "the weigher panics");
            1
        }
    };
    let cache: Cache<u32, Fragile> = Cache::builder().capacity(5).shards(1).weigher(weigher).build().unwrap();
    let check = || {
        for key in 0..5 {
            cache.insert(key, Fragile(key)).unwrap();
        }
        assert_eq!((cache.len(), cache.weight()), (5, 5));
        assert!((0..5).all(|key| cache.get(&key).is_some_and(|value| value.0 == key)));
        let free = (10..15).all(|key| matches!(cache.lookup(&key), Lookup::Vacant(_)));
        assert!(free, "a key is stuck");
    };
    check();
    weigher_panics.store(true, Ordering::SeqCst);
    assert!(panics(|| ignore(cache.insert(10, Fragile(0)))));
    assert!(panics(|| ignore(cache.add(10, Fragile(0)))));
    assert!(panics(|| ignore(cache.update(&1, |_| Fragile(0)))));
    assert!(panics(|| ignore(cache.get_or_load(&11, |_| Ok::<_, ()>(Fragile(0))))));
    assert!(panics(|| drop(
        cache.get_many_or_load(&[11, 12], |_| Ok::<_, ()>(vec![(11, Fragile(0)), (12, Fragile(0))]))
    )));
    assert!(panics(|| match cache.lookup(&13) {
        Lookup::Vacant(claim) => ignore(claim.fill(Fragile(0))),
        _ => unreachable!(),
    }));
    weigher_panics.store(false, Ordering::SeqCst);
    check();
    CLONE_PANICS.store(true, Ordering::SeqCst);
    assert!(panics(|| ignore(cache.get(&1))));
    assert!(panics(|| ignore(cache.iter().next())));
    assert!(panics(|| ignore(cache.lookup(&1))));
    assert!(panics(|| ignore(cache.get_or_load(&14, |_| Ok::<_, ()>(Fragile(0))))));
    assert_eq!(cache.with(&1, |value| value.0), Some(1));
    CLONE_PANICS.store(false, Ordering::SeqCst);
    check();
    assert!(panics(|| ignore(cache.update(&1, |_| panic!("the update panics")))));
    assert!(panics(|| cache.retain(|_, _| panic!("the predicate panics"))));
    assert!(panics(|| cache.with(&1, |_| panic!("the closure panics")).unwrap()));
    assert!(panics(|| ignore(cache.get_or_insert_with(&14, || panic!("make panics")))));
    check();
    let touchy: Cache<Touchy, u32> = Cache::new(10);
    assert!(panics(|| ignore(touchy.insert(Touchy(666), 1))));
    touchy.insert(Touchy(1_000), 1).unwrap();
    assert_eq!(touchy.get(&Touchy(1_000)), Some(1));
}

/// A value whose drop asks the cache that it was in.
#[derive(Clone)]
struct Asking(Arc<OnceLock<Cache<u32, Asking>>>);

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(cache) = self.0.get() {
            let _ = cache.contains(&1);
        }
    }
}

#[test]
fn retain_drops_what_has_left_meanwhile_outside_the_lock() {
    within_patience("the value's drop waits for the lock that retain holds", || {
        let slot = Arc::new(OnceLock::new());
        let cache: Cache<u32, Asking> = Cache::builder().capacity(100).shards(1).build().unwrap();
        assert!(slot.set(cache.clone()).is_ok());
        cache.insert(1, Asking(slot.clone())).unwrap();
        cache.retain(|key, _| {
            drop(cache.remove(key));
            false
        });
        assert!(cache.is_empty());
    });
}

/// A value whose next clone panics once it is armed.
struct PanicsOnce(Arc<AtomicBool>);

impl Clone for PanicsOnce {
    fn clone(&self) -> Self {
        assert!(!self.0.swap(false, Ordering::SeqCst), "the clone panics");
        PanicsOnce(self.0.clone())
    }
}

#[test]
fn a_panic_in_the_copy_for_those_who_wait_leaves_nobody_waiting() {
    within_patience("the waiter waits for a claim that is over", || {
        let (builder, _time) = roomy::<PanicsOnce>();
        let cache = builder.build().unwrap();
        let Lookup::Vacant(claim) = cache.lookup(&1) else { panic!("1 is vacant") };
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| cache.get_or_load(&1, |_| Err::<PanicsOnce, _>("it is there")).is_ok());
            crate::scene::eventually("it waits", || cache.stats().load_waits == 1);
            let armed = Arc::new(AtomicBool::new(true));
            let filled = catch_unwind(AssertUnwindSafe(|| claim.fill(PanicsOnce(armed)).is_stored()));
            assert!(filled.is_err());
            assert!(waiter.join().unwrap());
        });
    });
}
