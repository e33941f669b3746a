//! `django-cache-utils`: groups by a random token, MintCache, a version prefix, long keys.

use larder::{Action, Command, EntryOptions, InMemoryRemote, Lookup, RemoteTier, Reply, Route};

use super::{SECOND, World, in_group};
use crate::rules::{HOUR, Process, own};
use crate::scene::PATIENCE;
use crate::tiered::gate::Kind;

#[test]
fn add_get_set_and_delete_with_a_group() {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    assert!(ours.pages.add_with(own("k"), own("added"), in_group("cities")).is_stored());
    assert!(!theirs.pages.add_with(own("k"), own("too late"), in_group("cities")).is_stored());
    assert_eq!(theirs.get("k").as_deref(), Some("added"));
    assert!(theirs.pages.insert_with(own("k"), own("set"), in_group("cities")).is_through());
    ours.look();
    assert_eq!(ours.get("k").as_deref(), Some("set"));
    ours.remove("k");
    theirs.look();
    assert_eq!((ours.get("k"), theirs.get("k")), (None, None));

    // What was added and what was set are in the group alike.
    assert!(ours.pages.add_with(own("a"), own("1"), in_group("cities")).is_stored());
    assert!(ours.pages.insert_with(own("b"), own("1"), in_group("cities")).is_through());
    assert!(theirs.namespace().invalidate_group("cities").is_acknowledged());
    assert_eq!((theirs.get("a"), theirs.get("b")), (None, None));
}

#[test]
fn invalidate_group_costs_the_same_whatever_the_group_holds() {
    let world = World::new();
    let process = world.process();
    let mut costs = Vec::new();
    for members in [1, 1_000] {
        for member in 0..members {
            assert!(process.pages.insert_with(format!("{member}"), own("1"), in_group("cities")).is_through());
        }
        process.wire.log();
        assert!(process.namespace().invalidate_group("cities").is_acknowledged());
        costs.push(process.wire.log());
        assert!((0..members).all(|member| process.get(&format!("{member}")).is_none()));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0].len(), 1, "{:?}", costs[0]);
}

/// MintCache: after its time a value is kept 30 s more, during which the caller that found it out of date makes another.
#[test]
fn a_value_past_its_time_is_served_while_one_caller_regenerates_it_for_30_seconds() {
    let world = World::new();
    let start = || world.process_with(|namespace| namespace, |pages| pages.soft_ttl(60 * SECOND).grace(30 * SECOND));
    let (ours, theirs) = (start(), start());
    assert!(ours.pages.insert(own("k"), own("old")).is_through());
    assert_eq!(theirs.get("k").as_deref(), Some("old"));
    world.time.advance(60 * SECOND);

    let Err(Some(claim)) = ours.pages.lookup("k").or_claim() else { panic!("the first caller is to regenerate it") };
    for process in [&ours, &theirs] {
        assert_eq!(process.pages.lookup("k").or_claim().ok().as_deref(), Some("old"));
    }
    // For 30 s it is nobody else's, whether its holder lives or not; then it is the next caller's.
    world.time.advance(29 * SECOND);
    assert_eq!(theirs.pages.lookup("k").or_claim().ok().as_deref(), Some("old"));
    std::mem::forget(claim);
    world.time.advance(3 * SECOND);
    let Err(Some(claim)) = theirs.pages.lookup("k").or_claim() else { panic!("the holder has vanished") };
    assert!(claim.fill(own("new")).is_stored());
    assert!(matches!(theirs.pages.lookup("k"), Lookup::Fresh(value) if value == "new"));
}

#[test]
fn a_version_prefix_keeps_releases_apart() {
    let world = World::new();
    let release = |version: &str| world.process_with(|namespace| namespace.version(version), |pages| pages);
    let (old, new) = (release("1"), release("2"));
    assert!(old.pages.insert(own("k"), own("old")).is_through());
    assert_eq!(new.get("k"), None);
    assert!(new.pages.insert(own("k"), own("new")).is_through());
    assert_eq!((release("1").get("k").as_deref(), release("2").get("k").as_deref()), (Some("old"), Some("new")));
}

/// Every key is stored under what the store takes: at most 250 bytes, without spaces or control characters.
#[test]
fn keys_may_be_longer_than_250_bytes_and_have_spaces_and_control_characters() {
    any_keys(&InMemoryRemote::new());
    #[cfg(feature = "memcached")]
    {
        let server = crate::support::memcached::Server::start();
        any_keys(&server.client());
    }
}

fn any_keys(store: &(impl RemoteTier + Clone)) {
    let (ours, theirs) = (Process::new(store), Process::new(store));
    let long = "k".repeat(251);
    let mut keys = vec![long.clone(), format!("{long}2"), "k".repeat(100_000), own(""), own(" "), own("a b")];
    keys.extend((0..=32).map(|code: u8| format!("a{}b", char::from(code))));
    keys.extend([own("\u{7f}"), own("größe"), own("a\r\nflush_all\r\n")]);
    for key in &keys {
        assert!(ours.pages.insert(key.clone(), format!("value of {key}")).is_through(), "{key:?}");
    }
    for key in &keys {
        assert_eq!(theirs.get(key), Some(format!("value of {key}")), "{key:?}");
    }
}

#[test]
fn one_read_of_a_groups_token_does_for_many_operations() {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    ours.wire.log();
    for member in 0..100 {
        assert!(ours.pages.insert_with(format!("{member}"), own("1"), in_group("cities")).is_through());
    }
    let asked = |process: &Process| process.wire.log().iter().filter(|kinds| kinds.contains(&Kind::ReadToken)).count();
    assert_eq!(asked(&ours), 1);
    for member in 0..100 {
        assert!(theirs.get(&format!("{member}")).is_some());
    }
    assert_eq!(asked(&theirs), 1);
}

#[test]
fn clear_empties_the_cache_for_every_process() {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    for key in ["a", "b"] {
        ours.insert(key, "1");
        assert!(theirs.get(key).is_some());
    }
    assert!(ours.pages.clear().is_acknowledged());
    theirs.look();
    assert!([&ours, &theirs, &world.process()].iter().all(|process| process.get("a").or(process.get("b")).is_none()));
}

/// Left undone there, since MintCache stores no plain number.
#[test]
fn incr_and_decr() {
    let world = World::new();
    let count = |process: &Process| process.namespace().counter("visits").initial(10);
    let (ours, theirs) = (world.process(), world.process());
    assert_eq!(count(&ours).incr(5).unwrap(), 15);
    assert_eq!(count(&theirs).decr(3).unwrap(), 12);
    assert_eq!(count(&ours).decr(100).unwrap(), 0);
    assert_eq!(count(&theirs).get().unwrap(), Some(0));
}

/// Left undone there.
#[test]
fn get_many_with_groups() {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    for (key, group) in [("a", "odd"), ("b", "even"), ("c", "odd")] {
        assert!(ours.pages.insert_with(own(key), own(key), in_group(group)).is_through());
    }
    theirs.wire.log();
    let found = theirs.pages.get_many(["a", "b", "missing", "c"]);
    assert_eq!(found, [Some(own("a")), Some(own("b")), None, Some(own("c"))]);
    assert_eq!(theirs.wire.log(), [vec![Kind::Read; 4], vec![Kind::ReadToken; 8]], "the values, then all their tokens");
    assert!(ours.namespace().invalidate_group("odd").is_acknowledged());
    theirs.look();
    assert_eq!(theirs.pages.get_many(["a", "b", "c"]), [None, Some(own("b")), None]);
}

/// A timeout of its own, as each `set` may have there.
#[test]
fn every_set_may_have_a_timeout() {
    let world = World::new();
    let process = world.process();
    assert!(process.pages.insert_with(own("k"), own("1"), EntryOptions::new().ttl(10 * SECOND)).is_through());
    assert!(process.pages.insert_with(own("never"), own("1"), EntryOptions::new().never_expires()).is_through());
    world.time.advance(HOUR);
    process.look();
    assert_eq!((process.get("k"), process.get("never").as_deref()), (None, Some("1")));
    let key = larder::WireKey::new("ns::v:pages:k").unwrap();
    let get = Action::Get { value: false, lease: None, touch: None };
    let reply =
        world.store.run(&[Command { key: &key, route: Route::ByKey, action: get }], PATIENCE).remove(0).unwrap();
    assert_eq!(reply, Reply::Miss);
}
