//! Invalidation by what a source of changes says: sequences of changes, and followers that keep at it.

mod follower;
mod source;
#[cfg(feature = "tiered")]
mod tiered;

use larder::{Cache, Change, EntryOptions, Groups, Lookup};

use crate::scene::{Gate, eventually, roomy};

/// Returns a cache in which each key from 0 to 9 is of the groups `record:<key>` and `all`.
fn records(groups: &Groups) -> Cache<u32, u32> {
    let cache = roomy().0.groups(groups.clone()).build().unwrap();
    (0..10).for_each(|key| store(&cache, key));
    cache
}

fn store(cache: &Cache<u32, u32>, key: u32) {
    cache.insert_with(key, key, EntryOptions::new().groups([group(key).as_str(), "all"])).unwrap();
}

fn group(key: u32) -> String {
    format!("record:{key}")
}

fn saved(keys: impl IntoIterator<Item = u32>) -> Change {
    Change::invalidate(keys.into_iter().map(group))
}

fn present(cache: &Cache<u32, u32>) -> Vec<u32> {
    (0..10).filter(|key| cache.contains(key)).collect()
}

fn is_stale(cache: &Cache<u32, u32>, key: u32) -> bool {
    matches!(cache.lookup(&key), Lookup::Stale { .. })
}

#[test]
fn changes_of_every_kind_are_applied() {
    let groups = Groups::new();
    let (cache, other) = (records(&groups), records(&groups));
    cache.invalidate_from([saved([1]), saved([2, 3]).and(Change::expire([group(4)])), Change::default()]);
    for cache in [&cache, &other] {
        assert_eq!(present(cache), [0, 4, 5, 6, 7, 8, 9]);
        assert!(is_stale(cache, 4) && !is_stale(cache, 5));
    }
    cache.invalidate_from([Change::expire(["all"])]);
    assert!(is_stale(&cache, 5) && is_stale(&other, 5));
    cache.invalidate_from([Change::everything()]);
    assert_eq!((present(&cache).len(), present(&other).len()), (0, 7), "everything is what the cache itself holds");
    groups.invalidate_from([Change::everything()]);
    assert_eq!(present(&other).len(), 0, "or all that the registry reaches");
}

#[test]
fn each_change_holds_before_the_next_is_asked_for() {
    let cache = records(&Groups::new());
    let mut next = 0;
    cache.invalidate_from(std::iter::from_fn(|| {
        assert_eq!(present(&cache).len(), 10 - next as usize);
        next += 1;
        (next <= 10).then(|| saved([next - 1]))
    }));
    assert_eq!(present(&cache).len(), 0);
}

#[test]
fn a_load_that_a_change_overtakes_leaves_nothing() {
    let (cache, gate) = (roomy::<u32>().0.build().unwrap(), Gate::new());
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            cache.get_or_load(&7, |load| {
                gate.pass();
                load.groups([group(7)]);
                Ok::<_, String>(1)
            })
        });
        gate.reached();
        cache.invalidate_from([saved([7])]);
        gate.open();
        assert_eq!(loading.join().unwrap().unwrap(), 1);
    });
    assert!(!cache.contains(&7));
}

#[test]
fn a_stream_is_applied_on_any_runtime() {
    let run_on_tokio = |future| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(runtime.spawn(future)).unwrap();
    };
    let run_anywhere = |future| futures::executor::block_on(future);
    let runners: [&dyn Fn(futures::future::BoxFuture<'static, ()>); 2] = [&run_on_tokio, &run_anywhere];
    for run in runners {
        let cache = records(&Groups::new());
        let (sender, changes) = futures::channel::mpsc::unbounded();
        let watched = cache.clone();
        let sends = std::thread::spawn(move || {
            sender.unbounded_send(saved([1])).unwrap();
            eventually("a lone change is applied", || !watched.contains(&1));
            (2..5).for_each(|key| sender.unbounded_send(saved([key])).unwrap());
        });
        let follows = cache.clone();
        run(Box::pin(async move { follows.invalidate_from_stream(changes).await }));
        sends.join().unwrap();
        assert_eq!(present(&cache), [0, 5, 6, 7, 8, 9]);
    }
    let groups = Groups::new();
    let cache = records(&groups);
    futures::executor::block_on(groups.invalidate_from_stream(futures::stream::iter([saved([0])])));
    assert!(!cache.contains(&0));
}
