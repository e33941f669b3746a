//! What a read without a lock may say of a key that has a value all the while.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use larder::Cache;

/// How often each key is stored anew, at least.
const ROUNDS: u64 = 2_000;

/// A store takes the old entry out before it puts the new one in, and a reader may look in between: it would take the key for
/// absent, which it never was.
#[test]
fn a_key_that_is_stored_anew_is_never_missed() {
    const KEYS: u64 = 4;
    let cache: Cache<u64, u64> = Cache::builder().capacity(1_000).shards(1).build().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, 0).unwrap());
    let (over, start, read) = (AtomicBool::new(false), Barrier::new(3), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (cache, over, start, read) = (&cache, &over, &start, &read);
            scope.spawn(move || {
                start.wait();
                while !over.load(Ordering::Relaxed) {
                    for key in 0..KEYS {
                        let found = if reader == 0 { cache.get(&key).is_some() } else { cache.contains(&key) };
                        // Before the assertion, so that the writer ends if that fails.
                        read.fetch_add(1, Ordering::Relaxed);
                        assert!(found, "{key} was missed");
                    }
                }
            });
        }
        start.wait();
        let mut round = 0;
        // So that the readers have read something, however the machine divides its time.
        while round < ROUNDS || read.load(Ordering::Relaxed) < 10_000 {
            round += 1;
            for key in 0..KEYS {
                cache.insert(key, round).unwrap();
                cache.update(&key, |value| value + 1).unwrap();
            }
            // Has the table grow as well. Less than the capacity, so that nothing is evicted.
            cache.insert(KEYS + round % 900, round).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
}
