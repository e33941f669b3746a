//! Loads of many keys, and loaders of batches.

use std::sync::{Arc, Mutex};
use std::thread;

use larder::{Batch, LoadErrorKind, LoadingCache};

use super::{Act, HARD, SOFT_TTL, Script};
use crate::scene::{Gate, eventually, roomy};

/// The batches that a loader was handed, each sorted.
type Batches = Arc<Mutex<Vec<Vec<u32>>>>;

type Pairs = Result<Vec<(u32, u32)>, &'static str>;

/// Returns a loader of ten times the key, which has no values for keys of 1,000 and more.
fn tenfold(batches: &Batches) -> impl Fn(Batch<u32, u32>) -> Pairs + use<> {
    let batches = batches.clone();
    move |batch: Batch<u32, u32>| {
        let mut keys: Vec<u32> = batch.keys().copied().collect();
        keys.sort_unstable();
        batches.lock().unwrap().push(keys.clone());
        if keys.contains(&666) {
            return Err("the beast");
        }
        Ok(keys.into_iter().filter(|key| *key < 1_000).map(|key| (key, key * 10)).collect())
    }
}

type Tens = LoadingCache<u32, u32, &'static str>;

#[test]
fn missing_keys_are_loaded_as_one_batch_and_stale_ones_as_another_in_the_background() {
    let batches = Batches::default();
    let (builder, time) = roomy();
    let cache: Tens = builder.soft_ttl(SOFT_TTL).batch_loader(tenfold(&batches)).build().unwrap();
    (1..=2).for_each(|key| cache.insert(key, 0).unwrap());
    time.advance(SOFT_TTL);
    cache.insert(3, 3).unwrap();
    let loaded = cache.load_many(&[1, 2, 3, 4, 5, 4, 1_000]).unwrap();
    assert_eq!(loaded, [Some(0), Some(0), Some(3), Some(40), Some(50), Some(40), None]);
    eventually("the stale ones are refreshed", || cache.get_many(&[1, 2]) == [Some(10), Some(20)]);
    let mut batches = batches.lock().unwrap();
    batches.sort();
    assert_eq!(*batches, [vec![1, 2], vec![4, 5, 1_000]]);
}

#[test]
fn with_a_hard_timeout_batches_are_loaded_in_the_background_and_given_up() {
    let (builder, time) = roomy();
    let gate = Gate::new();
    let loader = {
        let gate = gate.clone();
        move |batch: Batch<u32, u32>| {
            if batch.load(&1).is_some() {
                gate.pass();
            }
            Ok::<_, &str>(batch.into_iter().map(|(key, _)| (key, key)).collect())
        }
    };
    let cache: Tens = builder.batch_loader(loader).hard_timeout(HARD).build().unwrap();
    assert_eq!(cache.load_many(&[5, 6]).unwrap(), [Some(5), Some(6)]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.load_many(&[1, 2]));
        gate.reached();
        let joined = scope.spawn(|| cache.load(&2));
        eventually("it waits", || cache.stats().load_waits == 1);
        time.advance(HARD);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
        assert_eq!(joined.join().unwrap().unwrap_err().kind(), LoadErrorKind::TimedOut);
    });
    let stats = cache.stats();
    assert_eq!((stats.load_aborts, stats.load_failures), (1, 1), "a batch is one load");
    assert_eq!(cache.load(&2).unwrap(), 2, "its keys are free");
    gate.open();
}

#[test]
fn a_key_that_a_batch_leaves_out_is_absent_for_all_who_asked() {
    let batches = Batches::default();
    let gate = Gate::new();
    let (builder, _time) = roomy();
    let loader = {
        let (load, gate) = (tenfold(&batches), gate.clone());
        move |batch: Batch<u32, u32>| {
            gate.pass();
            load(batch)
        }
    };
    let cache: Tens = builder.batch_loader(loader).build().unwrap();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..10).map(|_| scope.spawn(|| cache.load(&1_000))).collect();
        eventually("all wait", || cache.stats().load_waits == 9);
        gate.open();
        for thread in asking {
            assert_eq!(thread.join().unwrap().unwrap_err().kind(), LoadErrorKind::Absent);
        }
    });
    assert_eq!(batches.lock().unwrap().len(), 1);
    assert_eq!(cache.load(&7).unwrap(), 70);
    assert_eq!(cache.load(&666).unwrap_err().loader(), Some(&"the beast"));
}

#[test]
fn a_loader_of_single_keys_loads_a_batch_one_after_the_other() {
    let script = Script::of([Act::Return(1), Act::Return(2), Act::Fail("down")]);
    let (builder, _time) = roomy();
    let cache: Tens = builder.loader(script.loader()).build().unwrap();
    assert_eq!(cache.load_many(&[5, 6]).unwrap(), [Some(1), Some(2)]);
    assert_eq!(cache.load_many(&[5, 7]).unwrap_err().loader(), Some(&"down"));
}

#[test]
fn a_warm_up_loads_what_is_missing_in_batches_and_counts_no_reads() {
    let batches = Batches::default();
    let (builder, time) = roomy();
    let cache: Tens = builder.soft_ttl(SOFT_TTL).batch_loader(tenfold(&batches)).build().unwrap();
    cache.insert(0, 0).unwrap();
    time.advance(SOFT_TTL);
    cache.insert(1, 1).unwrap();
    let keys: Vec<u32> = (0..250).chain([1_000]).collect();
    assert_eq!(cache.warm_up(&keys).unwrap(), 248);
    let sizes: Vec<usize> = batches.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [98, 100, 51]);
    let stats = cache.stats();
    assert_eq!((stats.hits(), stats.misses, stats.loads), (0, 0, 3));
    assert_eq!((cache.get(&0), cache.get(&1), cache.get(&249)), (Some(0), Some(1), Some(2_490)));
    assert_eq!(cache.warm_up(&[0, 1, 2]).unwrap(), 0);
    assert_eq!(cache.warm_up(&[300, 666]).unwrap_err().loader(), Some(&"the beast"));
}
