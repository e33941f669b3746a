//! Remembering what was not found.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use futures::executor::block_on;
use larder::{Batch, Cache, CacheBuilder, EntryInfo, EntryOptions, Lookup, ManualClock};

use crate::scene::{ms, roomy};

type Names = Cache<u32, Option<String>>;
type Found = Vec<(u32, Option<String>)>;

/// Returns names that are stale after a second, and known not to exist for 100 ms.
fn names(
    set: impl FnOnce(CacheBuilder<u32, Option<String>>) -> CacheBuilder<u32, Option<String>>,
) -> (Names, ManualClock) {
    let (builder, time) = roomy();
    (set(builder.soft_ttl(ms(1_000)).negative_ttl(ms(100))).build().unwrap(), time)
}

fn ann() -> Option<String> {
    Some("Ann".to_owned())
}

fn left(info: Option<EntryInfo>) -> (Option<Duration>, Option<Duration>) {
    let info = info.expect("an entry");
    (info.soft_in, info.hard_in)
}

const NEGATIVE: (Option<Duration>, Option<Duration>) = (Some(ms(100)), Some(ms(100)));
const POSITIVE: (Option<Duration>, Option<Duration>) = (Some(ms(1_000)), Some(ms(8_000)));

#[test]
fn what_was_not_found_is_kept_for_its_own_time() {
    let (cache, time) = names(|builder| builder);
    assert_eq!(cache.get_or_load(&1, |_| Ok::<_, Infallible>(None)).unwrap(), None);
    assert_eq!(left(cache.inspect(&1)), NEGATIVE);
    time.advance(ms(99));
    assert_eq!(cache.get(&1), Some(None));
    assert_eq!(cache.get_or_load(&1, |_| -> Result<_, ()> { panic!("it is known") }).unwrap(), None);
    time.advance(ms(1));
    assert_eq!(cache.get(&1), None, "dead, not stale");
    assert_eq!(cache.get_or_load(&1, |_| Ok::<_, Infallible>(ann())).unwrap(), ann());
    assert_eq!(left(cache.inspect(&1)), POSITIVE);

    cache.insert(2, None).unwrap();
    assert_eq!(left(cache.inspect(&2)), NEGATIVE);
    assert!(cache.add(3, None).unwrap());
    assert_eq!(left(cache.inspect(&3)), NEGATIVE);
    let Lookup::Vacant(claim) = cache.lookup(&4) else { panic!("4 is vacant") };
    assert!(claim.fill(None).is_stored());
    assert_eq!(left(cache.inspect(&4)), NEGATIVE);
    assert_eq!(block_on(cache.get_or_load_async(&5, |_| async { Ok::<_, Infallible>(None) })).unwrap(), None);
    assert_eq!(left(cache.inspect(&5)), NEGATIVE);
}

#[test]
fn whoever_stores_it_may_say_otherwise() {
    let (cache, _time) = names(|builder| builder);
    let both = |soft, hard| (Some(ms(soft)), Some(ms(hard)));
    cache.insert_with(1, None, EntryOptions::new().ttl(ms(7))).unwrap();
    assert_eq!(left(cache.inspect(&1)), both(7, 7));
    cache.insert_with(1, None, EntryOptions::new().soft_ttl(ms(5))).unwrap();
    assert_eq!(left(cache.inspect(&1)), both(5, 40));
    cache.insert_with(1, None, EntryOptions::new().never_expires()).unwrap();
    assert_eq!(left(cache.inspect(&1)), (None, None));
    cache.insert_with(1, None, EntryOptions::new().groups(["g"]).weight(3)).unwrap();
    assert_eq!(left(cache.inspect(&1)), NEGATIVE, "of deadlines that says nothing");
    let loaded = cache.get_or_load(&2, |load| {
        load.hard_ttl(ms(9));
        Ok::<_, Infallible>(None)
    });
    assert_eq!((loaded.unwrap(), left(cache.inspect(&2))), (None, both(9, 9)));
    let loaded = cache.get_or_load(&3, |load| {
        load.do_not_store();
        Ok::<_, Infallible>(None)
    });
    assert_eq!((loaded.unwrap(), cache.get(&3)), (None, None));
    // An update leaves deadlines as they are.
    cache.insert(4, ann()).unwrap();
    assert_eq!(cache.update(&4, |_| None), Some(None));
    assert_eq!(left(cache.inspect(&4)), POSITIVE);
}

#[test]
fn without_the_setting_nothing_is_remembered_that_was_not_said() {
    let (builder, _time) = roomy::<Option<String>>();
    let cache = builder.soft_ttl(ms(1_000)).build().unwrap();
    cache.insert(1, None).unwrap();
    assert_eq!(left(cache.inspect(&1)), POSITIVE);
    assert_eq!(cache.get_many_or_load(&[2], |_| Ok::<_, Infallible>(Found::new())).unwrap(), [None]);
    assert!(!cache.contains(&2));
}

#[test]
fn what_a_batch_loader_leaves_out_is_stored_as_none() {
    let found: fn(Batch<u32, Option<String>>) -> Found = |batch| {
        assert!(batch.keys().eq(&[1, 2, 3]));
        batch.load(&3).unwrap().groups(["g"]);
        vec![(2, ann())]
    };
    type Load = fn(&Names, fn(Batch<u32, Option<String>>) -> Found) -> Vec<Option<Option<String>>>;
    let ways: [Load; 2] = [
        |cache, found| cache.get_many_or_load(&[1, 2, 3, 1], |batch| Ok::<_, Infallible>(found(batch))).unwrap(),
        |cache, found| {
            let loaded = |batch| async move { Ok::<_, Infallible>(found(batch)) };
            block_on(cache.get_many_or_load_async(&[1, 2, 3, 1], loaded)).unwrap()
        },
    ];
    for load in ways {
        let (cache, time) = names(|builder| builder);
        assert_eq!(load(&cache, found), [Some(None), Some(ann()), Some(None), Some(None)]);
        assert_eq!([1, 2, 3].map(|key| left(cache.inspect(&key))), [NEGATIVE, POSITIVE, NEGATIVE]);
        let known = cache.get_many_or_load(&[1, 2, 3], |_| -> Result<_, ()> { panic!("all are known") });
        assert_eq!(known.unwrap(), [Some(None), Some(ann()), Some(None)]);
        cache.invalidate_group("g");
        assert_eq!((cache.get(&1), cache.get(&3)), (Some(None), None), "as the batch said of this key");
        time.advance(ms(100));
        assert_eq!(cache.get(&1), None);
    }
}

#[test]
fn jitter_and_refresh_ahead_are_for_none_too() {
    fastrand::seed(3);
    let (cache, time) = names(|builder| builder.jitter(0.5).refresh_ahead(0.5));
    (0..1_000).for_each(|key| cache.insert(key, None).unwrap());
    let left: BTreeMap<Duration, u32> = (0..1_000).map(|key| (left(cache.inspect(&key)).1.unwrap(), key)).collect();
    let (first, last) = (left.first_key_value().unwrap(), left.last_key_value().unwrap());
    assert!(*first.0 >= ms(50) && *first.0 < ms(53) && *last.0 <= ms(100) && *last.0 > ms(97), "{first:?} {last:?}");
    time.advance(*first.0 / 2 + ms(1));
    assert!(matches!(cache.lookup(first.1), Lookup::Stale { value: None, claim: Some(_) }), "due after half its time");
    assert!(matches!(cache.lookup(last.1), Lookup::Fresh(None)));
}
