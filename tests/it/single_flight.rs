//! One loader a key: who runs it, who waits, and what becomes of the others when it fails.

use std::cell::RefCell;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use larder::{BoxFuture, Cache, Claim, LoadError, LoadErrorKind, Lookup};

use crate::scene::{Gate, eventually, ms, roomy, together, within_patience};

const HOUR: Duration = Duration::from_secs(3_600);

type Failed = LoadError<String>;

fn cache() -> Cache<u32, u64> {
    roomy().0.build().unwrap()
}

fn waiting(cache: &Cache<u32, u64>, count: u64) {
    eventually("the others wait", || cache.stats().load_waits >= count);
}

fn value(found: u64) -> impl Future<Output = Result<u64, String>> {
    std::future::ready(Ok(found))
}

fn claim(cache: &Cache<u32, u64>, key: u32) -> Claim<u32, u64> {
    match cache.lookup(&key) {
        Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } => claim,
        other => panic!("{key} is taken: {other:?}"),
    }
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

#[test]
fn many_threads_on_many_cold_keys_load_each_once() {
    let cache = cache();
    let loads = AtomicU64::new(0);
    together(64, |thread| {
        for step in 0..200 {
            let key = (step + thread as u32 * 3) % 200;
            let loaded = cache.get_or_load(&key, |_| {
                loads.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
                Ok::<_, String>(u64::from(key))
            });
            assert_eq!(loaded.unwrap(), u64::from(key));
        }
    });
    let stats = cache.stats();
    assert_eq!((loads.into_inner(), stats.loads, stats.load_failures), (200, 200, 0));
    assert_eq!((cache.len(), stats.hits() + stats.misses), (200, 64 * 200));
}

#[test]
fn many_tasks_on_many_cold_keys_load_each_once() {
    let cache = cache();
    let loads = Arc::new(AtomicU64::new(0));
    tokio_runtime().block_on(async {
        let spawn = |task: u32| {
            let (cache, loads) = (cache.clone(), loads.clone());
            tokio::spawn(async move {
                for step in 0..50 {
                    let key = (step + task) % 50;
                    let loaded = cache.get_or_load_async(&key, |_| async {
                        loads.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        Ok::<_, String>(u64::from(key))
                    });
                    assert_eq!(loaded.await.unwrap(), u64::from(key));
                }
            })
        };
        for task in (0..64).map(spawn).collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    assert_eq!(loads.load(Ordering::Relaxed), 50);
}

#[test]
fn threads_and_tasks_wait_for_one_another() {
    for leader_is_async in [false, true] {
        let cache = cache();
        let gate = Gate::new();
        thread::scope(|scope| {
            let (cache, gate_inside) = (&cache, gate.clone());
            let leader = scope.spawn(move || {
                let load = |_| {
                    gate_inside.pass();
                    Ok::<_, String>(5)
                };
                if leader_is_async {
                    block_on(cache.get_or_load_async(&1, |load_of| async { load(load_of) }))
                } else {
                    cache.get_or_load(&1, load)
                }
            });
            gate.reached();
            let follower = |index: u32| {
                scope.spawn(move || {
                    let unused = |_| -> Result<u64, String> { panic!("somebody else loads") };
                    match index % 4 {
                        0 => cache.get_or_load(&1, unused),
                        1 => block_on(cache.get_or_load_async(&1, |load| async { unused(load) })),
                        2 => tokio_runtime().block_on(cache.get_or_load_async(&1, |load| async { unused(load) })),
                        _ => cache.get_many_or_load(&[1], |_| panic!("somebody else loads")).map(|all| all[0].unwrap()),
                    }
                })
            };
            let followers: Vec<_> = (0..8).map(follower).collect();
            waiting(cache, 8);
            gate.open();
            assert_eq!(leader.join().unwrap().unwrap(), 5);
            assert!(followers.into_iter().all(|follower| follower.join().unwrap().unwrap() == 5));
        });
    }
}

#[test]
fn an_error_is_shared_by_all_who_wait_and_tried_once() {
    let cache = cache();
    let loads = AtomicU64::new(0);
    let errors = together(16, |_| {
        let failing = |_| {
            loads.fetch_add(1, Ordering::Relaxed);
            waiting(&cache, 15);
            Err::<u64, _>("no database".to_owned())
        };
        cache.get_or_load(&1, failing).unwrap_err()
    });
    assert_eq!(loads.into_inner(), 1);
    let first = errors[0].loader().unwrap();
    assert!(errors.iter().all(|error| error.kind() == LoadErrorKind::Loader));
    assert!(errors.iter().all(|error| std::ptr::eq(error.loader().unwrap(), first)), "the error is shared, not copied");
    assert_eq!(cache.get_or_load(&1, |_| Ok::<_, String>(3)).unwrap(), 3, "the next caller tries again");
}

#[test]
fn an_error_of_another_type_makes_a_waiter_load_itself() {
    let cache = cache();
    thread::scope(|scope| {
        let gate = Gate::new();
        let (cache, inside) = (&cache, gate.clone());
        let failing = scope.spawn(move || {
            cache.get_or_load(&1, |_| {
                inside.pass();
                Err::<u64, u8>(9)
            })
        });
        gate.reached();
        let other = scope.spawn(move || cache.get_or_load(&1, |_| Ok::<_, String>(4)));
        waiting(cache, 1);
        gate.open();
        assert_eq!(failing.join().unwrap().unwrap_err().loader(), Some(&9));
        assert_eq!(other.join().unwrap().unwrap(), 4);
    });
}

#[test]
fn a_panic_reaches_the_runner_and_frees_the_key_for_the_next() {
    for asynchronous in [false, true] {
        let cache = cache();
        let loading = AtomicBool::new(false);
        thread::scope(|scope| {
            let (cache, loading) = (&cache, &loading);
            let leader = scope.spawn(move || {
                let load = |_| -> Result<u64, String> {
                    loading.store(true, Ordering::SeqCst);
                    waiting(cache, 4);
                    panic!("the loader panics")
                };
                catch_unwind(AssertUnwindSafe(|| {
                    if asynchronous {
                        block_on(cache.get_or_load_async(&1, |of| async { load(of) }))
                    } else {
                        cache.get_or_load(&1, load)
                    }
                }))
            });
            eventually("the load begins", || loading.load(Ordering::SeqCst));
            let spawn = |_| scope.spawn(move || cache.get_or_load(&1, |_| Ok::<u64, String>(8)).unwrap_err().kind());
            let waiters: Vec<_> = (0..4).map(spawn).collect();
            assert!(leader.join().unwrap().is_err(), "the panic passes through");
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() == LoadErrorKind::Panicked));
            assert_eq!(cache.get_or_load(&1, |_| Ok::<_, String>(6)).unwrap(), 6);
            assert_eq!(cache.stats().load_failures, 1);
        });
    }
}

#[test]
fn dropping_an_async_load_half_way_hands_the_key_to_a_waiter() {
    let cache = cache();
    let mut context = Context::from_waker(Waker::noop());
    let mut leader = Box::pin(cache.get_or_load_async(&1, |_| std::future::pending::<Result<u64, String>>()));
    assert!(leader.as_mut().poll(&mut context).is_pending());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.get_or_load(&1, |_| Ok::<_, String>(2)));
        waiting(&cache, 1);
        drop(leader);
        assert_eq!(waiter.join().unwrap().unwrap(), 2);
    });
}

#[test]
fn a_waiting_future_that_is_dropped_disturbs_nobody() {
    let cache = cache();
    let held = claim(&cache, 1);
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut waiter = pin!(cache.get_or_load_async(&1, |_| value(0)));
        assert!(waiter.as_mut().poll(&mut context).is_pending());
    }
    let mut waiter = pin!(cache.get_or_load_async(&1, |_| value(0)));
    assert!(waiter.as_mut().poll(&mut context).is_pending());
    assert!(held.fill(3).is_stored());
    assert!(matches!(waiter.as_mut().poll(&mut context), Poll::Ready(Ok(3))));
}

#[test]
fn a_loader_may_load_another_key_but_not_its_own() {
    let cache = cache();
    let loaded = cache.get_or_load(&1, |_| {
        let own = cache.get_or_load(&1, |_| Ok::<u64, String>(0)).unwrap_err();
        assert_eq!(own.kind(), LoadErrorKind::Reentrant);
        let in_batch: Failed = cache.get_many_or_load(&[3, 1], |_| Ok(vec![])).unwrap_err();
        assert_eq!(in_batch.kind(), LoadErrorKind::Reentrant);
        assert_eq!(cache.get_or_insert_with(&1, || 77), 77, "made, but not stored");
        let inner = cache.get_or_load(&2, |_| {
            let outer = cache.get_or_load(&1, |_| Ok::<u64, String>(0)).unwrap_err();
            assert_eq!(outer.kind(), LoadErrorKind::Reentrant);
            Ok::<_, String>(20)
        });
        Ok::<_, String>(inner.unwrap() + 1)
    });
    assert_eq!(loaded.unwrap(), 21);
    assert_eq!(cache.get_many(&[1, 2, 3]), [Some(21), Some(20), None]);
}

#[test]
fn an_async_loader_may_load_another_key_but_not_its_own() {
    let cache = cache();
    let loaded = tokio_runtime().block_on(cache.get_or_load_async(&1, |_| async {
        tokio::task::yield_now().await;
        let own = cache.get_or_load_async(&1, |_| value(0)).await.unwrap_err();
        assert_eq!(own.kind(), LoadErrorKind::Reentrant);
        assert_eq!(cache.get_or_load(&1, |_| Ok::<u64, String>(0)).unwrap_err().kind(), LoadErrorKind::Reentrant);
        let inner = cache.get_or_load_async(&2, |_| value(20)).await;
        Ok::<_, String>(inner.unwrap() + 1)
    }));
    assert_eq!(loaded.unwrap(), 21);
    // Two loads of one key in one task are no recursion: the second waits for the first.
    let polls = AtomicU64::new(0);
    let slow = cache.get_or_load_async(&5, |_| {
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if polls.fetch_add(1, Ordering::Relaxed) < 3 { Poll::Pending } else { Poll::Ready(Ok::<u64, String>(5)) }
        })
    });
    let both = block_on(async { futures::future::join(slow, cache.get_or_load_async(&5, |_| value(6))).await });
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (5, 5));
}

#[test]
fn a_waiter_gives_up_after_load_wait() {
    let (builder, time) = roomy::<u64>();
    let cache = builder.load_wait(ms(100)).build().unwrap();
    let held = claim(&cache, 1);
    thread::scope(|scope| {
        let sync = scope.spawn(|| cache.get_or_load(&1, |_| Ok::<u64, String>(0)).unwrap_err());
        let future = scope.spawn(|| block_on(cache.get_or_load_async(&1, |_| value(0))).unwrap_err());
        let batch = scope.spawn(|| cache.get_many_or_load(&[1, 2], |_| Ok::<_, String>(vec![(2, 2)])).unwrap_err());
        waiting(&cache, 3);
        eventually("the batch has loaded what it may", || cache.contains(&2));
        time.advance(ms(99));
        assert_eq!(cache.stats().load_timeouts, 0);
        // A waiter counts from when it begins to wait, which may be after the first advance.
        while cache.stats().load_timeouts < 3 {
            time.advance(ms(1));
            thread::yield_now();
        }
        for error in [sync.join().unwrap(), future.join().unwrap(), batch.join().unwrap()] {
            assert_eq!(error.kind(), LoadErrorKind::TimedOut);
            assert!(error.to_string().contains("100ms"));
        }
    });
    assert!(held.fill(1).is_stored());
}

#[test]
fn lookup_wait_gives_up_after_its_limit() {
    let (builder, time) = roomy::<u64>();
    let cache = builder.grace(HOUR).build().unwrap();
    let held = claim(&cache, 1);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| matches!(cache.lookup_wait(&1, ms(50)), Lookup::Busy));
        eventually("it has looked", || cache.stats().misses == 2);
        // It may have looked without having read the time yet.
        while !waiter.is_finished() {
            time.advance(ms(10));
            thread::yield_now();
        }
        assert!(waiter.join().unwrap());
    });
    assert!(held.extend(HOUR));
}

#[test]
fn lookup_wait_returns_what_the_other_brings_or_the_claim_it_leaves() {
    let (builder, _time) = roomy::<u64>();
    let cache = builder.grace(HOUR).build().unwrap();
    for gives_up in [false, true] {
        let held = claim(&cache, u32::from(gives_up));
        thread::scope(|scope| {
            let misses = cache.stats().misses;
            let waiter = scope.spawn(|| cache.lookup_wait(&u32::from(gives_up), HOUR));
            eventually("it has looked", || cache.stats().misses > misses);
            if gives_up {
                drop(held);
            } else {
                assert!(held.fill(9).is_stored());
            }
            match waiter.join().unwrap() {
                Lookup::Fresh(9) => assert!(!gives_up),
                Lookup::Vacant(_) => assert!(gives_up),
                other => panic!("{other:?}"),
            }
        });
    }
    assert!(matches!(cache.lookup_wait(&2, Duration::ZERO), Lookup::Vacant(_)));
}

#[test]
fn a_holder_that_vanishes_is_replaced_after_its_grace() {
    let (builder, time) = roomy::<u64>();
    let cache = builder.grace(ms(20)).build().unwrap();
    std::mem::forget(claim(&cache, 1));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.get_or_load(&1, |_| Ok::<_, String>(3)));
        let future = scope.spawn(|| block_on(cache.get_or_load_async(&1, |_| value(3))));
        waiting(&cache, 2);
        time.advance(ms(19));
        assert!(matches!(cache.lookup(&1), Lookup::Busy));
        time.advance(ms(1));
        assert_eq!((waiter.join().unwrap().unwrap(), future.join().unwrap().unwrap()), (3, 3));
    });
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn a_claim_that_outlived_its_grace_is_refused_once_another_has_it() {
    let (builder, time) = roomy::<u64>();
    let cache = builder.grace(ms(20)).build().unwrap();
    let first = claim(&cache, 1);
    time.advance(ms(19));
    assert!(first.extend(ms(20)));
    time.advance(ms(19));
    assert!(matches!(cache.lookup(&1), Lookup::Busy));
    time.advance(ms(1));
    let second = claim(&cache, 1);
    assert!(!first.extend(ms(100)));
    assert_eq!(first.fill(1), larder::Fill::Fenced(1));
    assert!(matches!(cache.lookup(&1), Lookup::Busy), "the end of the first leaves the second alone");
    assert!(second.fill(2).is_stored());
    assert_eq!(cache.get(&1), Some(2));
}

#[test]
fn a_running_loader_keeps_its_claim_beyond_the_grace() {
    let (builder, time) = roomy::<u64>();
    let cache = builder.grace(ms(20)).build().unwrap();
    let loaded = cache.get_or_load(&1, |_| {
        time.advance(ms(1_000));
        assert!(matches!(cache.lookup(&1), Lookup::Busy));
        Ok::<_, String>(1)
    });
    assert_eq!((loaded.unwrap(), cache.get(&1)), (1, Some(1)));
}

/// Runs what is handed to it on a thread of its own.
fn on_a_thread(load: BoxFuture) {
    drop(thread::spawn(|| block_on(load)));
}

#[test]
fn a_detached_load_outlives_its_caller_and_answers_with_the_stale_value_at_once() {
    let cache = cache();
    let loads: Arc<Mutex<Vec<BoxFuture>>> = Arc::default();
    let later = |loads: &Arc<Mutex<Vec<BoxFuture>>>| {
        let loads = loads.clone();
        move |load| loads.lock().unwrap().push(load)
    };
    cache.insert(1, 10).unwrap();
    cache.expire(&1);
    assert_eq!(block_on(cache.get_or_load_detached(&1, later(&loads), |_| value(11))).unwrap(), 10);
    let unused = |_: BoxFuture| panic!("the refresh is under way");
    assert_eq!(block_on(cache.get_or_load_detached(&1, unused, |_| value(0))).unwrap(), 10);
    loads.lock().unwrap().drain(..).for_each(block_on);
    assert_eq!(block_on(cache.get_or_load_detached(&1, unused, |_| value(0))).unwrap(), 11);

    let mut context = Context::from_waker(Waker::noop());
    let mut caller = Box::pin(cache.get_or_load_detached(&2, later(&loads), |_| value(20)));
    assert!(caller.as_mut().poll(&mut context).is_pending());
    drop(caller);
    assert!(matches!(cache.lookup(&2), Lookup::Busy));
    loads.lock().unwrap().drain(..).for_each(block_on);
    assert_eq!(cache.get(&2), Some(20));
}

#[test]
fn a_detached_load_answers_its_caller_with_value_error_panic_or_cancellation() {
    let cache = cache();
    assert_eq!(block_on(cache.get_or_load_detached(&1, on_a_thread, |_| value(1))).unwrap(), 1);
    let failing = |_| async { Err::<u64, _>("no".to_owned()) };
    let error = block_on(cache.get_or_load_detached(&2, on_a_thread, failing)).unwrap_err();
    assert_eq!(error.loader().map(String::as_str), Some("no"));
    let panicking = |_| async { if true { panic!("in the background") } else { Ok::<u64, String>(0) } };
    let error = block_on(cache.get_or_load_detached(&3, on_a_thread, panicking)).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Panicked);
    let error = block_on(cache.get_or_load_detached(&4, drop, |_| value(4))).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Cancelled);
    assert!(matches!(cache.lookup(&4), Lookup::Vacant(_)), "the key is free");
    let runtime = tokio_runtime();
    let spawn = |load| drop(runtime.spawn(load));
    assert_eq!(runtime.block_on(cache.get_or_load_detached(&5, spawn, |_| value(5))).unwrap(), 5);
}

#[test]
fn a_batch_loads_each_key_once_and_leaves_out_what_it_does_not_find() {
    for asynchronous in [false, true] {
        let cache = cache();
        cache.insert(1, 10).unwrap();
        let load = |batch: larder::Batch<u32, u64>| {
            assert_eq!(batch.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
            assert!(batch.load(&3).is_some() && batch.load(&1).is_none());
            batch.load(&3).unwrap().do_not_store();
            Ok::<_, String>(vec![(2, 20), (3, 30), (99, 990)])
        };
        let keys = [1, 2, 3, 2, 4];
        let loaded = if asynchronous {
            block_on(cache.get_many_or_load_async(&keys, |batch| async { load(batch) }))
        } else {
            cache.get_many_or_load(&keys, load)
        };
        assert_eq!(loaded.unwrap(), [Some(10), Some(20), Some(30), Some(20), None]);
        assert_eq!(cache.get_many(&[2, 3, 4, 99]), [Some(20), None, None, None]);
        assert!(matches!(cache.lookup(&4), Lookup::Vacant(_)), "a key that was left out is free");
    }
}

#[test]
fn a_batch_that_fails_frees_its_keys() {
    let cache = cache();
    let error = cache.get_many_or_load(&[1, 2], |_| Err("no".to_owned())).unwrap_err();
    assert_eq!(error.loader().map(String::as_str), Some("no"));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        cache.get_many_or_load(&[1, 2], |_| -> Result<Vec<(u32, u64)>, String> { panic!("the batch panics") })
    }));
    assert!(panicked.is_err());
    let loaded = cache.get_many_or_load(&[1, 2], |_| Ok::<_, String>(vec![(1, 1), (2, 2)]));
    assert_eq!(loaded.unwrap(), [Some(1), Some(2)]);
    let asked_for_none: Vec<Option<u64>> =
        cache.get_many_or_load(&[0; 0], |_| -> Result<_, String> { panic!("there is nothing to load") }).unwrap();
    assert!(asked_for_none.is_empty());
}

#[test]
fn overlapping_batches_end_and_load_each_key_once() {
    within_patience("overlapping batches end", || {
        let cache = cache();
        let loads: Vec<_> = (0..100).map(|_| AtomicU64::new(0)).collect();
        together(8, |thread| {
            for step in 0..20 {
                let mut keys: Vec<u32> =
                    (0..25).map(|index| (step * 5 + index * (1 + thread as u32 % 3)) % 100).collect();
                if thread % 2 == 1 {
                    keys.reverse();
                }
                let load = |batch: larder::Batch<u32, u64>| {
                    for key in batch.keys() {
                        loads[*key as usize].fetch_add(1, Ordering::Relaxed);
                    }
                    thread::yield_now();
                    Ok::<_, String>(batch.keys().map(|key| (*key, u64::from(*key))).collect())
                };
                let loaded = if thread % 4 < 2 {
                    cache.get_many_or_load(&keys, load)
                } else {
                    block_on(cache.get_many_or_load_async(&keys, |batch| async { load(batch) }))
                };
                let expected: Vec<_> = keys.iter().map(|key| Some(u64::from(*key))).collect();
                assert_eq!(loaded.unwrap(), expected);
            }
        });
        assert!(loads.iter().all(|loads| loads.load(Ordering::Relaxed) <= 1));
    });
}

/// What a batch is answered for a key that another caller was loading when it gave up.
fn batch_beside_a_load_that_ends_by(end: impl FnOnce(Claim<u32, u64>) + Send) -> Result<Vec<Option<u64>>, Failed> {
    let cache = cache();
    let held = claim(&cache, 1);
    thread::scope(|scope| {
        let batch = scope.spawn(|| {
            cache.get_many_or_load(&[1], |batch| {
                Ok::<_, String>(batch.keys().map(|key| (*key, u64::from(*key))).collect())
            })
        });
        waiting(&cache, 1);
        end(held);
        batch.join().unwrap()
    })
}

/// `None` means that a loader left the key out. Here no loader was asked for it.
#[test]
fn a_batch_does_not_take_a_load_that_was_given_up_for_a_key_without_a_value() {
    let answer = batch_beside_a_load_that_ends_by(drop);
    assert_eq!(answer.unwrap(), [Some(1)]);
}

#[test]
fn a_batch_does_not_take_an_error_of_another_type_for_a_key_without_a_value() {
    let answer = batch_beside_a_load_that_ends_by(|held| drop(held.load(|_| Err::<u64, u8>(1))));
    assert_eq!(answer.unwrap(), [Some(1)]);
}

#[test]
fn a_batch_does_not_take_a_load_that_was_invalidated_for_a_key_without_a_value() {
    for asynchronous in [false, true] {
        let cache = cache();
        let held = claim(&cache, 1);
        cache.invalidate_group("late");
        let load = |batch: larder::Batch<u32, u64>| Ok::<_, String>(batch.keys().map(|key| (*key, 7)).collect());
        thread::scope(|scope| {
            let batch = scope.spawn(|| {
                if asynchronous {
                    block_on(cache.get_many_or_load_async(&[1], |batch| async { load(batch) }))
                } else {
                    cache.get_many_or_load(&[1], load)
                }
            });
            waiting(&cache, 1);
            // Only now does the load that began before name the group.
            let _ = held.fill_with(1, larder::EntryOptions::new().groups(["late"]));
            assert_eq!(batch.join().unwrap().unwrap(), [Some(7)]);
        });
    }
}

#[test]
fn a_batch_whose_loader_has_run_says_that_it_does_not_know() {
    let cache = cache();
    let held = claim(&cache, 1);
    thread::scope(|scope| {
        let batch = scope.spawn(|| cache.get_many_or_load(&[1, 2], |_| Ok::<_, String>(vec![(2, 2)])));
        waiting(&cache, 1);
        eventually("the batch has loaded what it may", || cache.contains(&2));
        drop(held);
        assert_eq!(batch.join().unwrap().unwrap_err().kind(), LoadErrorKind::Cancelled);
    });
    assert!(matches!(cache.lookup(&1), Lookup::Vacant(_)), "1 is free");
}

#[test]
fn a_batch_takes_the_word_of_another_for_a_key_without_a_value() {
    let cache = cache();
    let gate = Gate::new();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            cache.get_many_or_load(&[1], |_| {
                gate.pass();
                Ok::<_, String>(vec![])
            })
        });
        gate.reached();
        let second = scope.spawn(|| cache.get_many_or_load(&[1], |_| panic!("somebody else loads")));
        waiting(&cache, 1);
        gate.open();
        assert_eq!(first.join().unwrap().unwrap(), [None]);
        let answer: Result<_, Failed> = second.join().unwrap();
        assert_eq!(answer.unwrap(), [None]);
    });
}

/// A key; the hash of the key 2 clears the cache there is, as a bump between two looks of one batch would.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clearing(u32);

thread_local!(static CLEARED: RefCell<Option<Cache<Clearing, u64>>> = const { RefCell::new(None) });

impl Hash for Clearing {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        if self.0 == 2 {
            CLEARED.with_borrow(|cache| cache.iter().for_each(Cache::clear));
        }
    }
}

#[test]
fn a_key_asked_for_twice_has_one_answer_even_if_it_is_invalidated_in_between() {
    let cache: Cache<Clearing, u64> = Cache::new(100);
    CLEARED.set(Some(cache.clone()));
    let keys = [Clearing(1), Clearing(2), Clearing(1)];
    let loaded = cache.get_many_or_load(&keys, |_| Ok::<_, String>(vec![(Clearing(1), 1), (Clearing(2), 2)]));
    CLEARED.set(None);
    assert_eq!(loaded.unwrap(), [Some(1), Some(2), Some(1)]);
}

/// Loads through its cache when its thread ends.
struct AtExit(Cache<u32, u64>);

impl Drop for AtExit {
    fn drop(&mut self) {
        self.0.get_or_insert_with(&9, || 9);
    }
}

#[test]
fn a_thread_may_load_while_it_is_torn_down() {
    thread_local!(static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) });
    let cache = cache();
    thread::scope(|scope| {
        scope.spawn(|| {
            AT_EXIT.set(Some(AtExit(cache.clone())));
            // The library's own thread-locals come later, and go first.
            cache.get_or_insert_with(&1, || 1);
        });
    });
    eventually("the thread has ended", || cache.get(&9) == Some(9));
}

#[test]
fn lookup_wait_finds_what_landed_in_the_last_moment() {
    let (builder, time) = roomy::<u64>();
    let cache = builder.grace(HOUR).build().unwrap();
    let held = claim(&cache, 1);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.lookup_wait(&1, ms(50)));
        eventually("it has looked", || cache.stats().misses == 2);
        thread::sleep(ms(20));
        assert!(held.fill(7).is_stored());
        time.advance(ms(50));
        assert!(matches!(waiter.join().unwrap(), Lookup::Fresh(7)));
    });
}

#[test]
fn a_detached_load_that_was_overtaken_by_a_stale_value_returns_that() {
    let cache = cache();
    let overtake = |load: BoxFuture| {
        cache.insert(1, 7).unwrap();
        cache.expire(&1);
        drop(load);
    };
    let found: Result<u64, Failed> = block_on(cache.get_or_load_detached(&1, overtake, |_| value(1)));
    assert_eq!(found.unwrap(), 7);
}
