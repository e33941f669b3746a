//! Loads, registered loaders, and what tells of changes.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use larder::{
    Cache, CacheBuilder, CallOptions, Change, ChangeFeed, Connected, EntryOptions, Groups, Load, LoadErrorKind,
};

use crate::{SECOND, huge, refused};

fn builder() -> CacheBuilder<u32, u64> {
    Cache::builder().capacity(100)
}

fn load(key: &u32, _: Load<u64>) -> Result<u64, Infallible> {
    Ok(u64::from(*key))
}

#[test]
fn a_batch_loader_may_bring_nothing_too_much_and_things_twice() {
    let cache = builder().build().unwrap();
    let ran = Cell::new(0);
    let bring = |pairs: Vec<(u32, u64)>| {
        cache.get_many_or_load(&[1, 1, 2], |batch| {
            ran.set(ran.get() + 1);
            assert_eq!(batch.keys().copied().collect::<Vec<_>>(), [1, 2], "each key once");
            assert!(batch.load(&3).is_none(), "nobody has asked for it");
            batch.groups(std::iter::empty::<&str>());
            Ok::<_, ()>(pairs)
        })
    };
    assert_eq!(bring(Vec::new()).unwrap(), [None, None, None]);
    // What nobody has asked for is not stored; of what is said twice, one counts.
    let brought = bring(vec![(1, 10), (1, 11), (9, 90)]).unwrap();
    assert!(brought[0] == brought[1] && [Some(10), Some(11)].contains(&brought[0]) && brought[2].is_none());
    assert_eq!((cache.get(&9), cache.get(&1)), (None, brought[0]));
    assert_eq!(ran.get(), 2);
    let nothing: [u32; 0] = [];
    let loaded =
        cache.get_many_or_load(&nothing, |_| -> Result<Vec<(u32, u64)>, ()> { panic!("nothing is asked for") });
    assert_eq!(loaded.unwrap(), []);
}

#[test]
fn a_registered_loaders_limits_are_checked() {
    let loading = || builder().loader(load);
    refused(loading().hard_timeout(Duration::ZERO).build(), &["hard_timeout is zero", "leave it out"]);
    refused(
        loading().soft_timeout(2 * SECOND).hard_timeout(SECOND).build(),
        &["soft_timeout (2s)", "hard_timeout (1s)", "set it to 1s or less"],
    );
    for threads in [0, 1_025, usize::MAX] {
        refused(loading().load_threads(threads).build(), &[&format!("load_threads is {threads}"), "1 to 1024"]);
    }
    refused(loading().spawner(drop).build(), &["spawner is set", "blocks", "async_loader"]);
    let batches = builder().batch_loader(|_| Ok::<_, Infallible>(Vec::new()));
    refused(batches.spawner(drop).build(), &["spawner is set", "blocks", "async_batch_loader"]);
    refused(Cache::<u32, u64>::builder().loader(load).build(), &["capacity is not set"]);
    for limit in [SECOND, Duration::MAX] {
        let cache = loading().soft_timeout(limit).hard_timeout(limit).load_threads(1_024).build().unwrap();
        assert_eq!(cache.load(&7).unwrap(), 7);
    }
}

#[test]
fn a_spawner_may_drop_what_it_is_given() {
    let loader = |key: u32, _: Load<u64>| async move { Ok::<_, Infallible>(u64::from(key)) };
    let cache = builder().async_loader(loader).spawner(drop).hard_timeout(Duration::MAX).build().unwrap();
    assert_eq!(cache.load(&7).unwrap_err().kind(), LoadErrorKind::Cancelled);
    let batches = |_: larder::Batch<u32, u64>| async { Ok::<_, Infallible>(Vec::new()) };
    let cache = builder().async_batch_loader(batches).build().unwrap();
    assert_eq!(cache.load(&7).unwrap_err().kind(), LoadErrorKind::Absent, "the loader leaves the key out");
}

#[test]
fn registered_loads_of_nothing_do_nothing() {
    let cache =
        builder().batch_loader(|_| -> Result<_, Infallible> { panic!("nothing is asked for") }).build().unwrap();
    let nothing: [u32; 0] = [];
    assert_eq!(cache.load_many(&nothing).unwrap(), []);
    assert_eq!(cache.warm_up(&nothing).unwrap(), 0);
    let cache = builder().loader(load).build().unwrap();
    assert_eq!(cache.load_many(&[7, 7]).unwrap(), [Some(7), Some(7)]);
    cache.refresh(&7);
    // The load may be as fast as that.
    let loaded = cache.load_with(&8, CallOptions::new().hard_timeout(Duration::ZERO));
    match loaded {
        Ok(value) => assert_eq!(value, 8),
        Err(error) => assert_eq!(error.kind(), LoadErrorKind::TimedOut),
    }
}

#[test]
fn a_validator_may_be_empty_and_huge() {
    let huge = huge();
    for tag in ["", &huge] {
        let owned = tag.to_owned();
        let cache = builder().validator(move |_| Some(owned.clone())).build().unwrap();
        cache.insert(7, 1).unwrap();
        cache.expire(&7);
        let loaded = cache.get_or_load(&7, |load| {
            assert_eq!(load.validator().as_deref(), Some(tag));
            Ok::<_, ()>(2)
        });
        assert_eq!(loaded.unwrap(), 2);
    }
}

/// Brings nothing.
pub(crate) struct Silent;

impl ChangeFeed for Silent {
    type Position = ();
    type Error = String;

    fn connect(&mut self, _after: Option<&()>) -> Result<Connected, String> {
        Ok(Connected::Gap(Change::default()))
    }

    fn next(&mut self, _within: Duration) -> Result<Option<(Change, ())>, String> {
        Ok(None)
    }
}

#[test]
fn a_followers_name_is_printable_and_short() {
    let (cache, groups) = (builder().build().unwrap(), Groups::new());
    for name in ["", "a\0b", "größe", &"n".repeat(65), &huge()] {
        refused(cache.follow(name, Silent), &["name", "printable ASCII"]);
        refused(groups.follow(name, Silent), &["name", "printable ASCII"]);
    }
    let mut follower = cache.follow("n", Silent).unwrap();
    // It looks between two calls of the feed, and so may have ended or not.
    let _ = follower.stop(Duration::ZERO);
    assert!(follower.stop(Duration::MAX));
}

#[test]
fn changes_may_be_empty_and_name_anything() {
    let huge = huge();
    let (cache, groups) = (builder().build().unwrap(), Groups::new());
    cache.insert_with(7, 1, EntryOptions::new().groups(["", &huge])).unwrap();
    cache.invalidate_from([]);
    groups.invalidate_from([]);
    cache.invalidate_from([Change::default(), Change::invalidate([""; 0]).and(Change::expire([""; 0]))]);
    groups.invalidate_from([Change::invalidate([""])]);
    assert_eq!(cache.get(&7), Some(1), "another registry's groups are others");
    cache.invalidate_from([Change::expire([huge.as_str()]), Change::expire([""])]);
    assert_eq!(cache.get(&7), Some(1));
    cache.invalidate_from([Change::invalidate(["", ""]).and(Change::everything())]);
    assert_eq!(cache.get(&7), None);
}
