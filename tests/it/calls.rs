//! What one call asks for beside its cache's settings: lookups with options, and those of futures.

use std::thread;

use larder::{CallOptions, Claim, EntryOptions, Fill, Lookup};

use crate::scene::{PATIENCE, eventually, ms, roomy};

type Found = Lookup<u32, Claim<u32, u32>>;

#[track_caller]
fn claimed(lookup: Found) -> Claim<u32, u32> {
    match lookup {
        Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } => claim,
        other => panic!("{other:?} where the key may be claimed"),
    }
}

#[test]
fn a_call_has_its_own_grace() {
    let (builder, time) = roomy::<u32>();
    let cache = builder.grace(ms(1_000)).build().unwrap();
    let short = CallOptions::new().grace(ms(10));
    let first = claimed(cache.lookup_with(&1, short));
    time.advance(ms(9));
    assert!(matches!(cache.lookup(&1), Lookup::Busy));
    time.advance(ms(1));
    // By the cache's own, it would be the first one's yet.
    let second = claimed(cache.lookup(&1));
    assert_eq!(first.fill(1), Fill::Fenced(1));
    assert_eq!(second.fill(2), Fill::Stored);
    // Of a stale value too, whatever its entry says.
    cache.insert_with(2, 20, EntryOptions::new().soft_ttl(ms(5)).grace(ms(500))).unwrap();
    time.advance(ms(5));
    let claim = claimed(cache.lookup_with(&2, short));
    time.advance(ms(10));
    drop(claimed(cache.lookup(&2)));
    drop(claim);
}

#[test]
fn a_call_that_passes_the_cache_by_is_neither_served_nor_stored() {
    let (builder, _time) = roomy::<u32>();
    let cache = builder.build().unwrap();
    cache.insert(1, 10).unwrap();
    let past = CallOptions::new().skip_local();
    let claim = claimed(cache.lookup_with(&1, past));
    assert_eq!(claim.stale(), None);
    // One at a time, and nobody else is kept from what is there.
    assert!(matches!(cache.lookup_with(&1, past), Lookup::Busy));
    assert!(matches!(cache.lookup(&1), Lookup::Fresh(10)));
    assert_eq!(claim.fill(11), Fill::Rejected(11));
    assert_eq!(cache.peek(&1), Some(10));
    // Those who wait have the value all the same.
    let claim = claimed(cache.lookup_with(&2, past));
    let waiting = thread::spawn({
        let cache = cache.clone();
        move || cache.get_or_load(&2, |_| Err::<u32, _>("it waits")).unwrap()
    });
    eventually("the other caller waits", || cache.stats().load_waits == 1);
    assert_eq!(claim.fill(20), Fill::Rejected(20));
    assert_eq!(waiting.join().unwrap(), 20);
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_call_that_only_reads_claims_nothing() {
    let (builder, time) = roomy::<u32>();
    let cache = builder.soft_ttl(ms(5)).build().unwrap();
    let (read_only, no_refresh) = (CallOptions::new().read_only(), CallOptions::new().no_refresh());
    assert!(matches!(cache.lookup_with(&1, read_only), Lookup::Busy));
    assert_eq!(claimed(cache.lookup_with(&1, no_refresh)).fill(1), Fill::Stored);
    assert!(matches!(cache.lookup_with(&1, read_only), Lookup::Fresh(1)));
    time.advance(ms(5));
    let before = cache.stats();
    for options in [read_only, no_refresh] {
        assert!(matches!(cache.lookup_with(&1, options), Lookup::Stale { value: 1, claim: None }));
    }
    assert_eq!((cache.stats() - before).hits_stale, 2);
    drop(claimed(cache.lookup(&1)));
}

#[test]
fn a_future_waits_for_the_claim_of_another() {
    let (builder, time) = roomy::<u32>();
    let cache = builder.build().unwrap();
    let claim = claimed(cache.lookup(&1));
    let wait = |wait| futures::executor::block_on(cache.lookup_wait_async(&1, wait));
    assert!(matches!(wait(ms(0)), Lookup::Busy));
    let waiting = thread::spawn({
        let cache = cache.clone();
        move || futures::executor::block_on(cache.lookup_wait_async(&1, PATIENCE))
    });
    assert_eq!(claim.fill(1), Fill::Stored);
    assert!(matches!(waiting.join().unwrap(), Lookup::Fresh(1)));
    // Past its grace, or given up, the claim is the one's who waits.
    let claim = claimed(cache.lookup_with(&2, CallOptions::new().grace(ms(10))));
    let waiting = thread::spawn({
        let cache = cache.clone();
        move || claimed(futures::executor::block_on(cache.lookup_wait_async(&2, PATIENCE))).fill(2)
    });
    time.advance(ms(10));
    assert_eq!(waiting.join().unwrap(), Fill::Stored);
    drop(claim);
}
