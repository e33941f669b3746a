//! `antidogpiling`: a soft timeout, past which the first caller gets a miss and the others the old value.

use std::time::Duration;

use larder::{
    Cache, CallOptions, Claim, EntryOptions, Fill, InMemoryRemote, Lookup, ManualClock, RemoteTier, TieredClaim,
};

use super::{SECOND, World};
use crate::rules::{HOUR, Process, own};

/// A cache of either kind, under the verbs that `antidogpiling` has.
trait AntiDogpiled {
    type Claim: Fillable;

    fn set(&self, key: &str, value: &str, options: EntryOptions);
    fn ask(&self, key: &str) -> Result<String, Option<Self::Claim>>;
    fn delete(&self, key: &str);
    fn delete_hard(&self, key: &str);
}

trait Fillable {
    fn answer(self, value: &str) -> Fill<String>;
}

impl Fillable for Claim<String, String> {
    fn answer(self, value: &str) -> Fill<String> {
        self.fill(own(value))
    }
}

impl Fillable for TieredClaim<String, String> {
    fn answer(self, value: &str) -> Fill<String> {
        self.fill(own(value))
    }
}

impl AntiDogpiled for Cache<String, String> {
    type Claim = Claim<String, String>;

    fn set(&self, key: &str, value: &str, options: EntryOptions) {
        self.insert_with(own(key), own(value), options).unwrap();
    }

    fn ask(&self, key: &str) -> Result<String, Option<Self::Claim>> {
        self.lookup(key).or_claim()
    }

    fn delete(&self, key: &str) {
        self.expire(key);
    }

    fn delete_hard(&self, key: &str) {
        self.remove(key);
    }
}

impl AntiDogpiled for Process {
    type Claim = TieredClaim<String, String>;

    fn set(&self, key: &str, value: &str, options: EntryOptions) {
        assert!(self.pages.insert_with(own(key), own(value), options).is_through());
    }

    fn ask(&self, key: &str) -> Result<String, Option<Self::Claim>> {
        self.pages.lookup(key).or_claim()
    }

    fn delete(&self, key: &str) {
        assert!(self.pages.expire(key).is_acknowledged());
    }

    fn delete_hard(&self, key: &str) {
        assert!(self.pages.remove(key).is_acknowledged());
    }
}

/// Returns what a caller has to fill.
#[track_caller]
fn missed<C>(found: Result<String, Option<C>>) -> C {
    match found {
        Err(Some(claim)) => claim,
        Err(None) => panic!("another caller fills it"),
        Ok(value) => panic!("{value} is there"),
    }
}

fn served<C>(found: Result<String, Option<C>>) -> Option<String> {
    found.ok()
}

fn local(
    set: impl FnOnce(larder::CacheBuilder<String, String>) -> larder::CacheBuilder<String, String>,
) -> (Cache<String, String>, ManualClock) {
    let world = World::new();
    let cache = set(Cache::builder().capacity(1_000).clock(world.clock()).soft_ttl(60 * SECOND)).build().unwrap();
    (cache, world.time)
}

/// Returns two processes whose values are stale after a minute, and the clock of all.
fn tiered() -> (Process, Process, ManualClock) {
    let world = World::new();
    let start = || world.process_with(|namespace| namespace, |pages| pages.soft_ttl(60 * SECOND));
    (start(), start(), world.time)
}

fn soft_and_hard(cache: &impl AntiDogpiled, time: &ManualClock) {
    cache.set("k", "old", EntryOptions::new());
    assert_eq!(served(cache.ask("k")).as_deref(), Some("old"));
    time.advance(60 * SECOND);
    // Past the soft timeout: a miss for one, the old value for all others.
    drop(missed(cache.ask("k")).answer("new"));
    assert_eq!(served(cache.ask("k")).as_deref(), Some("new"));
    // Past the hard timeout it is gone, for all.
    time.advance(8 * 60 * SECOND);
    let claim = missed(cache.ask("k"));
    assert!(matches!(cache.ask("k"), Err(None)));
    assert!(claim.answer("newer").is_stored());
}

#[test]
fn soft_and_hard_timeouts() {
    let (cache, time) = local(|cache| cache);
    soft_and_hard(&cache, &time);
}

#[test]
fn the_hard_timeout_is_8_times_the_soft_one() {
    let (cache, time) = local(|cache| cache);
    cache.set("default", "1", EntryOptions::new());
    cache.set("own", "1", EntryOptions::new().soft_ttl(10 * SECOND));
    time.advance(80 * SECOND - Duration::from_millis(1));
    assert!(cache.contains("own"));
    time.advance(Duration::from_millis(1));
    assert!(!cache.contains("own") && cache.contains("default"));
    time.advance(400 * SECOND - Duration::from_millis(1));
    assert!(cache.contains("default"));
    time.advance(Duration::from_millis(1));
    assert!(!cache.contains("default"));
    // Or another factor.
    let (cache, time) = local(|cache| cache.hard_ttl_factor(100));
    cache.set("k", "1", EntryOptions::new());
    time.advance(100 * 60 * SECOND - Duration::from_millis(1));
    assert!(cache.contains("k"));
}

fn grace(cache: &impl AntiDogpiled, time: &ManualClock, options: EntryOptions, grace: Duration) {
    cache.set("k", "old", options);
    time.advance(60 * SECOND);
    let vanished = missed(cache.ask("k"));
    time.advance(grace - 2 * SECOND);
    assert_eq!(served(cache.ask("k")).as_deref(), Some("old"));
    std::mem::forget(vanished);
    // What counts whole seconds may be two late.
    time.advance(4 * SECOND);
    assert!(missed(cache.ask("k")).answer("new").is_stored());
    assert_eq!(served(cache.ask("k")).as_deref(), Some("new"));
}

#[test]
fn the_grace_is_60_seconds() {
    let (cache, time) = local(|cache| cache);
    grace(&cache, &time, EntryOptions::new(), 60 * SECOND);
}

#[test]
fn the_grace_may_be_set_with_each_value() {
    let (cache, time) = local(|cache| cache);
    grace(&cache, &time, EntryOptions::new().grace(10 * SECOND), 10 * SECOND);
}

#[test]
fn the_grace_may_be_set_with_each_call() {
    let (cache, time) = local(|cache| cache);
    cache.set("k", "old", EntryOptions::new());
    time.advance(60 * SECOND);
    let vanished = missed(cache.lookup_with("k", CallOptions::new().grace(10 * SECOND)).or_claim());
    time.advance(9 * SECOND);
    assert_eq!(served(cache.ask("k")).as_deref(), Some("old"));
    std::mem::forget(vanished);
    time.advance(SECOND);
    drop(missed(cache.ask("k")));
}

fn first_and_others(first: &impl AntiDogpiled, other: &impl AntiDogpiled, time: &ManualClock) {
    first.set("k", "old", EntryOptions::new());
    assert_eq!(served(other.ask("k")).as_deref(), Some("old"));
    time.advance(60 * SECOND);
    let claim = missed(first.ask("k"));
    for _ in 0..10 {
        assert_eq!(served(other.ask("k")).as_deref(), Some("old"));
        assert_eq!(served(first.ask("k")).as_deref(), Some("old"));
    }
    assert!(claim.answer("new").is_stored());
    assert_eq!(served(first.ask("k")).as_deref(), Some("new"));
}

#[test]
fn the_first_caller_gets_a_miss_and_the_others_the_old_value() {
    let (cache, time) = local(|cache| cache);
    first_and_others(&cache, &cache, &time);
}

#[test]
fn after_the_grace_another_caller_may_try() {
    let (cache, time) = local(|cache| cache);
    cache.set("k", "old", EntryOptions::new());
    time.advance(60 * SECOND);
    let slow = missed(cache.ask("k"));
    time.advance(60 * SECOND);
    let second = missed(cache.ask("k"));
    assert_eq!(served(cache.ask("k")).as_deref(), Some("old"));
    assert!(second.answer("new").is_stored());
    // Whoever took too long is refused.
    assert!(matches!(slow.answer("late"), Fill::Fenced(_)));
    assert_eq!(served(cache.ask("k")).as_deref(), Some("new"));
}

/// With `hard=True` a value has one timeout, and is never out of date before.
fn hard_only(cache: &impl AntiDogpiled, time: &ManualClock) {
    cache.set("k", "1", EntryOptions::new().ttl(60 * SECOND));
    time.advance(57 * SECOND);
    for _ in 0..2 {
        assert_eq!(served(cache.ask("k")).as_deref(), Some("1"));
    }
    time.advance(3 * SECOND);
    drop(missed(cache.ask("k")));
}

#[test]
fn an_entry_may_have_a_hard_timeout_alone() {
    let (cache, time) = local(|cache| cache);
    hard_only(&cache, &time);
}

/// `delete` is soft there, unless told otherwise.
fn soft_delete(cache: &impl AntiDogpiled) {
    cache.set("k", "old", EntryOptions::new());
    cache.delete("k");
    let claim = missed(cache.ask("k"));
    assert_eq!(served(cache.ask("k")).as_deref(), Some("old"));
    assert!(claim.answer("new").is_stored());
    cache.delete_hard("k");
    drop(missed(cache.ask("k")));
}

#[test]
fn a_delete_is_soft_or_hard() {
    let (cache, _time) = local(|cache| cache);
    soft_delete(&cache);
}

/// Numbers that are to be counted have no deadlines packed around them, there by `hard=True`.
#[test]
fn counters_are_raw() {
    let world = World::new();
    let process = world.process();
    let hits = process.namespace().counter("hits").ttl(HOUR);
    hits.set(41).unwrap();
    assert_eq!(hits.incr(1).unwrap(), 42);
    assert_eq!(stored(&world.store, "ns::c:hits"), b"42");
    world.time.advance(HOUR + SECOND);
    assert_eq!(hits.get().unwrap(), None);
}

fn stored(store: &InMemoryRemote, key: &str) -> Vec<u8> {
    let get = larder::Action::Get { value: true, lease: None, touch: None };
    let key = larder::WireKey::new(key).unwrap();
    let command = larder::Command { key: &key, route: larder::Route::ByKey, action: get };
    match store.run(&[command], crate::scene::PATIENCE).remove(0).unwrap() {
        larder::Reply::Hit(item) => item.value.into(),
        other => panic!("{other:?}"),
    }
}

/// Left undone there.
#[test]
fn set_many_get_many_and_delete_many_are_anti_dogpiled() {
    let (ours, theirs, time) = tiered();
    let pairs = ["a", "b", "c"].map(|key| (own(key), format!("old {key}")));
    assert!(ours.pages.insert_many(pairs).iter().all(larder::Write::is_through));
    assert!(theirs.pages.get_many(["a", "b", "c"]).iter().all(Option::is_some));
    time.advance(60 * SECOND);
    // One batch refreshes all that is out of date; whoever asks meanwhile gets the old values, in whatever process.
    let renewed = ours.pages.get_many_or_load(["a", "b", "c"], |batch| {
        let stale = ["a", "b", "c"].map(|key| Some(format!("old {key}")));
        assert_eq!(batch.len(), 3);
        assert_eq!(theirs.pages.get_many_or_load(["a", "b", "c"], never).unwrap(), stale);
        assert_eq!(ours.pages.get_many_or_load(["a", "b", "c"], never).unwrap(), stale);
        Ok::<_, String>(batch.keys().map(|key| (key.clone(), format!("new {key}"))).collect())
    });
    assert_eq!(renewed.unwrap(), ["a", "b", "c"].map(|key| Some(format!("new {key}"))));

    assert!(ours.pages.remove_many(["a", "b"]).is_acknowledged());
    theirs.look();
    assert_eq!(theirs.pages.get_many(["a", "b", "c"]), [None, None, Some(own("new c"))]);
}

#[expect(clippy::needless_pass_by_value, reason = "as loaders take it")]
fn never(batch: larder::Batch<String, String>) -> Result<Vec<(String, String)>, String> {
    panic!("{batch:?} is being loaded already")
}

/// There it is Django's `dummy` backend.
#[test]
fn a_cache_of_capacity_0_stores_nothing() {
    let (cache, _time) = local(|cache| cache.capacity(0));
    assert!(cache.insert(own("k"), own("1")).is_err());
    assert_eq!(cache.ask("k").map_err(|claim| claim.is_some()), Err(true));
    assert_eq!(cache.get_or_insert_with("k", || own("made")), "made");
    assert!(missed(cache.ask("k")).fill(own("1")) != Fill::Stored);
    assert_eq!((cache.len(), cache.weight()), (0, 0));
    // Callers that come at once share one load all the same.
    let loads = crate::scene::together(8, |_| cache.get_or_insert_with("shared", || own("made")));
    assert_eq!(loads, vec!["made"; 8]);
}

#[test]
fn the_same_over_any_remote_tier() {
    let (ours, theirs, time) = tiered();
    soft_and_hard(&ours, &time);
    ours.delete_hard("k");
    theirs.look();
    grace(&ours, &time, EntryOptions::new(), 60 * SECOND);
    first_and_others(&ours, &theirs, &time);
    hard_only(&ours, &time);
    soft_delete(&ours);

    // The first of all processes gets the miss.
    ours.set("k", "old", EntryOptions::new());
    assert_eq!(served(theirs.ask("k")).as_deref(), Some("old"));
    ours.delete("k");
    theirs.look();
    let claim = missed(theirs.ask("k"));
    assert_eq!(served(ours.ask("k")).as_deref(), Some("old"));
    assert!(claim.answer("new").is_stored());
    assert!(matches!(theirs.pages.lookup("k"), Lookup::Fresh(value) if value == "new"));
}
