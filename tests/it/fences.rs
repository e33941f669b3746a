//! No stale fill: whatever invalidates a key, at whatever moment of a load, no later read takes the old value for fresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use larder::{Cache, EntryOptions, Fill, Groups, Load, Lookup};

use crate::scene::{Gate, eventually};

const KEY: u32 = 7;
/// What a load brings that began before the invalidation, and what is right after it.
const OLD: u64 = 1;
const NEW: u64 = 2;

/// Every way to invalidate [`KEY`], or a group of its value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Invalidation {
    Remove,
    RemoveMany,
    Insert,
    Add,
    Update,
    Expire,
    Retain,
    Clear,
    Group,
    Groups,
    ExpireGroup,
    Registry,
    RegistryExpire,
    RegistryClear,
}

use Invalidation::{
    Add, Clear, Expire, ExpireGroup, Group, Insert, Registry, RegistryClear, RegistryExpire, Remove, RemoveMany,
    Retain, Update,
};

const ALL: [Invalidation; 14] = [
    Remove,
    RemoveMany,
    Insert,
    Add,
    Update,
    Expire,
    Retain,
    Clear,
    Group,
    Invalidation::Groups,
    ExpireGroup,
    Registry,
    RegistryExpire,
    RegistryClear,
];

impl Invalidation {
    fn run(self, cache: &Cache<u32, u64>, groups: &Groups) {
        match self {
            Remove => drop(cache.remove(&KEY)),
            RemoveMany => cache.remove_many(&[KEY]),
            Insert => cache.insert(KEY, NEW).unwrap(),
            Add => drop(cache.add(KEY, NEW)),
            Update => drop(cache.update(&KEY, |_| NEW)),
            Expire => drop(cache.expire(&KEY)),
            Retain => cache.retain(|_, _| false),
            Clear => cache.clear(),
            Group => cache.invalidate_group("g"),
            Invalidation::Groups => cache.invalidate_groups(["other", "g"]),
            ExpireGroup => cache.expire_group("g"),
            Registry => groups.invalidate("g"),
            RegistryExpire => groups.expire("g"),
            RegistryClear => groups.clear(),
        }
    }

    /// Whether it does anything to a key that has no value yet.
    fn reaches_a_vacant_key(self) -> bool {
        !matches!(self, Update | Retain)
    }

    /// Whether it does anything to a key that has a value.
    fn reaches_a_stale_key(self) -> bool {
        self != Add
    }
}

/// When a load names the group "g".
#[derive(Clone, Copy, Debug, PartialEq)]
enum Naming {
    Early,
    Late,
    AtFill,
}

fn cache() -> (Cache<u32, u64>, Groups) {
    let groups = Groups::new();
    // On the system's clock: whoever waits for a load in vain gives up.
    (Cache::builder().capacity(1_000).groups(groups.clone()).build().unwrap(), groups)
}

/// Returns a cache whose [`KEY`] is vacant, or stale and in group "g".
fn scene(stale: bool) -> (Cache<u32, u64>, Groups) {
    let (cache, groups) = cache();
    if stale {
        cache.insert_with(KEY, OLD, EntryOptions::new().groups(["g"])).unwrap();
        cache.expire(&KEY);
    }
    (cache, groups)
}

fn cases() -> impl Iterator<Item = (Invalidation, bool)> {
    let reaches = |(kind, stale): &(Invalidation, bool)| {
        if *stale { kind.reaches_a_stale_key() } else { kind.reaches_a_vacant_key() }
    };
    ALL.into_iter().flat_map(|kind| [(kind, false), (kind, true)]).filter(reaches)
}

fn take_claim(cache: &Cache<u32, u64>) -> larder::Claim<u32, u64> {
    match cache.lookup(&KEY) {
        Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } => claim,
        other => panic!("no claim: {other:?}"),
    }
}

#[track_caller]
fn assert_old_is_not_fresh(cache: &Cache<u32, u64>) {
    if let Lookup::Fresh(value) = cache.lookup(&KEY) {
        assert_eq!(value, NEW);
    }
}

#[test]
fn an_invalidation_between_claim_and_fill_fences_the_fill() {
    for (kind, stale) in cases() {
        let (cache, groups) = scene(stale);
        let claim = take_claim(&cache);
        kind.run(&cache, &groups);
        let fill = claim.fill_with(OLD, EntryOptions::new().groups(["g"]));
        assert_eq!(fill, Fill::Fenced(OLD), "{kind:?}, stale: {stale}");
        assert_old_is_not_fresh(&cache);
        assert_eq!(cache.stats().fences, 1);
    }
}

#[test]
fn an_invalidation_before_the_claim_does_not_fence_the_fill() {
    for (kind, stale) in cases() {
        if matches!(kind, Insert | Add | Update) {
            continue;
        }
        let (cache, groups) = scene(stale);
        kind.run(&cache, &groups);
        let fill = take_claim(&cache).fill_with(NEW, EntryOptions::new().groups(["g"]));
        assert_eq!(fill, Fill::Stored, "{kind:?}, stale: {stale}");
        assert!(matches!(cache.lookup(&KEY), Lookup::Fresh(NEW)), "{kind:?}, stale: {stale}");
    }
}

#[test]
fn an_invalidation_after_the_fill_reaches_the_value() {
    for (kind, stale) in cases() {
        let (cache, groups) = scene(stale);
        if kind == Add {
            continue;
        }
        assert_eq!(take_claim(&cache).fill_with(OLD, EntryOptions::new().groups(["g"])), Fill::Stored);
        kind.run(&cache, &groups);
        assert_old_is_not_fresh(&cache);
        let served = cache.peek(&KEY);
        match kind {
            Expire | ExpireGroup | RegistryExpire => assert_eq!(served, Some(OLD), "{kind:?}"),
            Insert | Update => assert_eq!(served, Some(NEW), "{kind:?}"),
            _ => assert_eq!(served, None, "{kind:?}"),
        }
    }
}

/// While a loader is held up, an invalidation comes; its value goes to its caller and nowhere else.
#[test]
fn an_invalidation_during_a_load_fences_it_however_the_load_names_its_groups() {
    for (kind, stale) in cases() {
        for naming in [Naming::Early, Naming::Late] {
            let (cache, groups) = scene(stale);
            let loaded = cache.get_or_load(&KEY, |load: Load<u64>| {
                if naming == Naming::Early {
                    load.groups(["g"]);
                }
                kind.run(&cache, &groups);
                load.groups(["g"]);
                Ok::<_, ()>(OLD)
            });
            assert_eq!(loaded.unwrap(), OLD, "the value is returned even where it is not stored");
            assert_eq!(cache.stats().fences, 1, "{kind:?}, stale: {stale}, {naming:?}");
            assert_old_is_not_fresh(&cache);
        }
    }
}

#[test]
fn a_group_that_comes_into_being_and_goes_during_a_load_still_fences_it() {
    let (cache, groups) = cache();
    let claim = take_claim(&cache);
    cache.insert_with(1, 0, EntryOptions::new().groups(["g"])).unwrap();
    groups.invalidate("g");
    cache.remove(&1);
    cache.run_maintenance();
    assert!(groups.is_empty());
    (0..10_000).for_each(|name| groups.invalidate(&name.to_string()));
    assert_eq!(claim.fill_with(OLD, EntryOptions::new().groups(["g"])), Fill::Fenced(OLD));
}

/// The caller that comes after an invalidation runs its own loader while the old one is still held up.
#[test]
fn a_caller_after_an_invalidation_does_not_join_the_old_load() {
    for (kind, stale) in cases() {
        if matches!(kind, Insert | Add | Update) {
            continue;
        }
        let (cache, groups) = scene(stale);
        let gate = Gate::new();
        thread::scope(|scope| {
            let (cache, old_gate) = (&cache, gate.clone());
            let old = scope.spawn(move || {
                cache.get_or_load(&KEY, |load| {
                    load.groups(["g"]);
                    old_gate.pass();
                    Ok::<_, ()>(OLD)
                })
            });
            gate.reached();
            kind.run(cache, &groups);
            let new = cache.get_or_load(&KEY, |load| {
                load.groups(["g"]);
                Ok::<_, ()>(NEW)
            });
            assert_eq!(new.unwrap(), NEW, "{kind:?}, stale: {stale}");
            gate.open();
            assert_eq!(old.join().unwrap().unwrap(), OLD);
        });
        assert!(matches!(cache.lookup(&KEY), Lookup::Fresh(NEW)), "{kind:?}, stale: {stale}");
    }
}

/// A caller joins a load that has not named its group yet, after that group was invalidated. What the load brings is from
/// before, so this caller must not get it.
#[test]
fn a_caller_that_joined_after_a_late_groups_invalidation_loads_again() {
    let (cache, groups) = cache();
    let gate = Gate::new();
    thread::scope(|scope| {
        let (cache, old_gate) = (&cache, gate.clone());
        let old = scope.spawn(move || {
            cache.get_or_load(&KEY, |load| {
                old_gate.pass();
                load.groups(["g"]);
                Ok::<_, ()>(OLD)
            })
        });
        gate.reached();
        groups.invalidate("g");
        let new = scope.spawn(move || cache.get_or_load(&KEY, |_| Ok::<_, ()>(NEW)));
        eventually("the second caller waits", || cache.stats().load_waits == 1);
        gate.open();
        assert_eq!(old.join().unwrap().unwrap(), OLD);
        assert_eq!(new.join().unwrap().unwrap(), NEW);
    });
}

/// A value whose copies can be watched.
struct Watched {
    value: u64,
    on_clone: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Clone for Watched {
    fn clone(&self) -> Watched {
        if let Some(on_clone) = &self.on_clone {
            on_clone();
        }
        Watched { value: self.value, on_clone: None }
    }
}

/// A load that stores nothing was judged before its key was free: a caller that came in between, after an invalidation,
/// joined it and got the old value.
#[test]
fn a_value_that_is_not_stored_is_no_answer_to_those_who_came_after_an_invalidation() {
    let cache: Cache<u32, Watched> = Cache::new(1_000);
    let joined = Arc::new(std::sync::Mutex::new(None));
    let on_clone: Arc<dyn Fn() + Send + Sync> = {
        let (cache, joined) = (cache.clone(), joined.clone());
        Arc::new(move || {
            cache.invalidate_group("g");
            let before = cache.stats();
            let late = cache.clone();
            let thread = thread::spawn(move || {
                late.get_or_load(&KEY, |_| Ok::<_, ()>(Watched { value: NEW, on_clone: None })).unwrap().value
            });
            // It either waits for the load that is ending, or has a value of its own by now.
            eventually("the late caller has come", || {
                let since = cache.stats() - before;
                since.load_waits > 0 || thread.is_finished()
            });
            *joined.lock().unwrap() = Some(thread);
        })
    };
    let loaded = cache.get_or_load(&KEY, |load| {
        load.groups(["g"]);
        load.do_not_store();
        Ok::<_, ()>(Watched { value: OLD, on_clone: Some(on_clone) })
    });
    assert_eq!(loaded.unwrap().value, OLD);
    let late = joined.lock().unwrap().take().expect("the value was copied for those who wait");
    assert_eq!(late.join().unwrap(), NEW);
}

/// An update took over the deadline that it had read before an expiration came, and the value was fresh again.
#[test]
fn an_update_does_not_undo_an_expiration_that_races_it() {
    let (cache, _) = cache();
    let (turn, expired) = (Turn::default(), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                turn.meet();
                while expired.load(Ordering::SeqCst) < round {
                    cache.update(&KEY, |value| value + 1);
                }
                turn.meet();
            }
        });
        for round in 1..=ROUNDS {
            cache.insert(KEY, round).unwrap();
            turn.meet();
            (0..20).for_each(|_| assert!(cache.contains(&KEY)));
            assert!(cache.expire(&KEY));
            expired.store(round, Ordering::SeqCst);
            turn.meet();
            assert!(matches!(cache.lookup(&KEY), Lookup::Stale { .. }), "round {round}");
        }
    });
}

/// One thread loads what the database holds, another changes the database and then invalidates. Afterwards a fresh value is
/// what the database holds.
fn race(kind: Invalidation, naming: Naming, rounds: u64) {
    let (cache, groups) = cache();
    let database = AtomicU64::new(0);
    let turn = Turn::default();
    let read = || database.load(Ordering::SeqCst);
    let options = || EntryOptions::new().groups(["g"]);
    let load = || match naming {
        Naming::AtFill => {
            if let Err(Some(claim)) = cache.lookup(&KEY).or_claim() {
                drop(claim.fill_with(read(), options()));
            }
        }
        naming => {
            let loaded = cache.get_or_load(&KEY, |load| {
                if naming == Naming::Early {
                    load.groups(["g"]);
                }
                let value = read();
                load.groups(["g"]);
                Ok::<_, ()>(value)
            });
            loaded.unwrap();
        }
    };
    let prepare = |round| match kind {
        Update => {
            cache.insert(KEY, read()).unwrap();
            cache.expire(&KEY);
        }
        Remove | Insert if round % 2 == 0 => drop(cache.remove(&KEY)),
        _ => {
            cache.insert_with(KEY, read(), options()).unwrap();
            cache.expire(&KEY);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                turn.meet();
                load();
                turn.meet();
            }
        });
        for round in 1..=rounds {
            prepare(round);
            turn.meet();
            database.store(round, Ordering::SeqCst);
            match kind {
                Insert => cache.insert_with(KEY, round, options()).unwrap(),
                Update => drop(cache.update(&KEY, |_| round)),
                kind => kind.run(&cache, &groups),
            }
            turn.meet();
            if let Lookup::Fresh(value) = cache.lookup(&KEY) {
                assert_eq!(value, read(), "{kind:?}, {naming:?}, round {round}");
            }
        }
    });
}

/// Lets two threads meet as close together as can be: by spinning, so that neither has to be woken.
#[derive(Default)]
struct Turn(AtomicU64);

impl Turn {
    fn meet(&self) {
        let came = self.0.fetch_add(1, Ordering::SeqCst);
        let both = (came / 2 + 1) * 2;
        for _ in 0..200 {
            std::hint::spin_loop();
        }
        // With an end, for where the other thread has failed.
        eventually("the other thread comes", || self.0.load(Ordering::SeqCst) >= both);
    }
}

const ROUNDS: u64 = 10_000;

#[test]
fn loads_race_invalidations_of_the_key() {
    for kind in [Remove, Insert, Expire, Update, Clear] {
        race(kind, Naming::Early, ROUNDS);
    }
}

#[test]
fn loads_race_invalidations_of_a_group() {
    for kind in [Group, ExpireGroup, Registry, RegistryClear] {
        for naming in [Naming::Early, Naming::Late, Naming::AtFill] {
            race(kind, naming, ROUNDS);
        }
    }
}
