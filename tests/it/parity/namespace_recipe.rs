//! The recipe of memcached's own documentation: a namespace is a number in its members' keys, and deleted by raising it.

use std::convert::Infallible;

use larder::{
    EntryOptions, InMemoryRemote, LoadErrorKind, Namespace, RawBytes, RemoteTier, TieredCache, WireKey, Write,
};

use super::{SECOND, World, in_group};
use crate::rules::{HOUR, Process, own};
use crate::scene::{PATIENCE, together};

#[test]
fn deleting_a_namespace_deletes_all_that_is_in_it_and_nothing_else() {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    for (key, namespace) in [("a", "user:1"), ("b", "user:1"), ("c", "user:2")] {
        assert!(ours.pages.insert_with(own(key), own(key), in_group(namespace)).is_through());
        assert_eq!(theirs.get(key).as_deref(), Some(key));
    }
    assert!(theirs.namespace().invalidate_group("user:1").is_acknowledged());
    ours.look();
    for process in [&ours, &theirs, &world.process()] {
        assert_eq!(["a", "b", "c"].map(|key| process.get(key)), [None, None, Some(own("c"))]);
    }
}

/// With the recipe as it is written, each of two that find no number sets its own, and one loses what it has stored.
#[test]
fn two_processes_that_create_a_namespace_at_once_end_with_the_same_token() {
    creates_once(&InMemoryRemote::new());
    #[cfg(feature = "memcached")]
    {
        let server = crate::support::memcached::Server::start();
        creates_once(&server.client());
    }
}

fn creates_once(store: &(impl RemoteTier + Clone)) {
    let processes = [Process::new(store), Process::new(store)];
    for round in 0..100 {
        let group = format!("group {round}");
        let stored = together(2, |index| {
            let key = format!("{round} by {index}");
            assert!(processes[index].pages.insert_with(key.clone(), own("1"), in_group(&group)).is_through());
            key
        });
        for key in &stored {
            assert!(Process::new(store).get(key).is_some(), "{key} is in a namespace that is no more");
        }
        assert!(processes[0].namespace().invalidate_group(&group).is_acknowledged());
        for key in &stored {
            assert!(Process::new(store).get(key).is_none(), "{key} is in another namespace");
        }
    }
}

#[test]
fn a_key_is_any_bytes() {
    let world = World::new();
    let namespace = Namespace::builder("bytes", world.store.clone()).build().unwrap();
    let cache = || -> TieredCache<Vec<u8>, Vec<u8>> {
        TieredCache::builder(&namespace, "bytes").capacity(1_000).codec(RawBytes).build().unwrap()
    };
    let (ours, theirs) = (cache(), cache());
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    keys.extend([vec![], vec![0; 10_000], b"a\r\nset b 0 0 1\r\n1\r\n".to_vec(), (0..=u8::MAX).collect()]);
    for key in &keys {
        assert!(ours.insert(key.clone(), key.clone()).is_through(), "{key:?}");
    }
    for key in &keys {
        assert_eq!(theirs.get(key.as_slice()), Some(key.clone()), "{key:?}");
    }
}

#[test]
fn a_failure_of_the_cache_never_reaches_the_caller() {
    let world = World::new();
    let process = world.process();
    process.insert("k", "1");
    world.store.offline(true);
    assert_eq!(process.get("other"), None);
    assert_eq!(process.pages.get_many(["k", "other"]), [Some(own("1")), None]);
    assert!(process.pages.contains("k") && !process.pages.contains("other"));
    let loaded = process.pages.get_or_load("cold", |_| Ok::<_, Infallible>(own("loaded")));
    assert_eq!(loaded.unwrap(), "loaded");
    assert_eq!(process.pages.get_or_insert_with("colder", || own("made")), "made");
    let failed = process.pages.get_or_load("failing", |_| Err::<String, _>("the database is down")).unwrap_err();
    assert_eq!((failed.kind(), failed.loader()), (LoadErrorKind::Loader, Some(&"the database is down")));
    // What changes something says how far it has come, and is seen to here at once.
    assert!(matches!(process.pages.insert(own("k"), own("2")), Write::LocalOnly(..)));
    assert_eq!(process.get("k").as_deref(), Some("2"));
    assert!(!process.pages.remove("k").is_acknowledged());
    assert!(!process.namespace().invalidate_group("g").is_acknowledged());
    assert_eq!(process.get("k"), None);
    world.store.offline(false);
    process.namespace().shutdown(PATIENCE).unwrap();
}

#[test]
fn a_cache_has_a_default_ttl() {
    let world = World::new();
    let start = || world.process_with(|namespace| namespace, |pages| pages.soft_ttl(HOUR / 2).hard_ttl(HOUR));
    let (ours, theirs) = (start(), start());
    assert!(ours.pages.insert(own("k"), own("1")).is_through());
    assert!(ours.pages.insert_with(own("own"), own("1"), EntryOptions::new().ttl(2 * HOUR)).is_through());
    assert_eq!(theirs.get("k").as_deref(), Some("1"));
    world.time.advance(HOUR + 2 * SECOND);
    for process in [&ours, &theirs] {
        assert_eq!(process.get("k"), None);
        assert_eq!(process.get("own").as_deref(), Some("1"));
    }
    // The store itself has dropped it: nobody has to look for what is out of date.
    assert!(!world.store.evict(&WireKey::new("ns::v:pages:k").unwrap()));
    assert!(world.store.evict(&WireKey::new("ns::v:pages:own").unwrap()));
}
