//! Loads that an opponent would begin.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use larder::{BoxFuture, CallOptions, Load, LoadErrorKind};

use super::{Act, HARD, Numbers, SOFT_TTL, Script};
use crate::scene::{Gate, eventually, ms, roomy, within_patience};

/// With one thread, whoever waited on it for what it has yet to run would wait for ever.
#[test]
fn a_future_on_the_caches_own_thread_may_wait_for_the_load_of_another_key() {
    within_patience("both loads", || {
        let itself: Arc<OnceLock<Numbers>> = Arc::default();
        let loader = {
            let itself = itself.clone();
            move |key: u32, _: Load<u32>| {
                let itself = itself.clone();
                async move {
                    let Some(cache) = itself.get().filter(|_| key < 3) else { return Ok::<_, &'static str>(10) };
                    let others = cache.load_many(&[key + 1]).unwrap();
                    Ok(cache.load(&(key + 1)).unwrap() + others[0].unwrap())
                }
            }
        };
        let (builder, _time) = roomy();
        let cache: Numbers = builder.async_loader(loader).load_threads(1).build().unwrap();
        itself.set(cache.clone()).unwrap();
        assert_eq!(cache.load(&1).unwrap(), 40);
    });
}

/// The caller finds a stale value a second before its hard deadline, and waits for the refresh beyond that.
#[test]
fn a_value_that_dies_while_its_refresh_is_waited_for_is_not_served() {
    for many in [false, true] {
        for end in [Act::Return(2), Act::Fail("down")] {
            let (began, gate) = (Gate::new(), Gate::new());
            let script = Script::of([end.clone()]);
            let loader = {
                let (began, gate, script) = (began.clone(), gate.clone(), script.clone());
                move |_: &u32, _: Load<u32>| {
                    began.open();
                    gate.pass();
                    script.play()
                }
            };
            let (builder, time) = roomy();
            let cache: Numbers = builder.soft_ttl(SOFT_TTL).loader(loader).soft_timeout(HARD).build().unwrap();
            cache.insert(1, 1).unwrap();
            time.advance(SOFT_TTL * 8 - HARD / 2);
            let mut asking = pin!(async {
                if many {
                    cache.load_many_async(&[1]).await.map(|values| values[0])
                } else {
                    cache.load_async(&1).await.map(Some)
                }
            });
            let mut context = Context::from_waker(Waker::noop());
            assert!(asking.as_mut().poll(&mut context).is_pending());
            began.pass();
            time.advance(HARD);
            let polled = asking.as_mut().poll(&mut context);
            assert!(polled.is_pending(), "many: {many}, {polled:?}");
            gate.open();
            let answer = block_on(asking);
            match end {
                Act::Return(value) => assert_eq!(answer.unwrap(), Some(value)),
                _ => assert_eq!(answer.unwrap_err().loader(), Some(&"down")),
            }
        }
    }
}

#[test]
fn a_value_that_is_alive_when_the_soft_timeout_is_over_is_served() {
    let (gate, (builder, time)) = (Gate::new(), roomy());
    let script = Script::of([Act::Hang(gate.clone(), 2)]);
    let cache: Numbers = builder.soft_ttl(SOFT_TTL).loader(script.loader()).soft_timeout(HARD).build().unwrap();
    cache.insert(1, 1).unwrap();
    time.advance(SOFT_TTL);
    let mut asking = pin!(cache.load_async(&1));
    let mut context = Context::from_waker(Waker::noop());
    assert!(asking.as_mut().poll(&mut context).is_pending());
    time.advance(HARD);
    assert!(matches!(asking.as_mut().poll(&mut context), Poll::Ready(Ok(1))));
    gate.open();
}

/// Runs the future where it is, drops it, polls it once and keeps it, or panics.
#[test]
fn spawners_of_any_kind_leave_no_key_held() {
    type Spawn = fn(BoxFuture);
    let kinds: [(&str, Spawn); 4] = [
        ("inline", |load| block_on(load)),
        ("dropped", drop),
        ("once", |mut load| assert!(load.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending())),
        ("panics", |_| std::panic::resume_unwind(Box::new(()))),
    ];
    for (kind, spawn) in kinds {
        within_patience(kind, move || {
            let (builder, _time) = roomy();
            let loader = |key: u32, _: Load<u32>| async move {
                if key == 9 { pending().await } else { Ok::<_, &'static str>(key) }
            };
            let cache: Numbers = builder.async_loader(loader).spawner(spawn).build().unwrap();
            for key in if kind == "once" { [9, 9] } else { [1, 1] } {
                let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.load(&key)));
                match (kind, asked) {
                    ("inline", Ok(answer)) => assert_eq!(answer.unwrap(), key),
                    ("dropped" | "once", Ok(answer)) => {
                        assert_eq!(answer.unwrap_err().kind(), LoadErrorKind::Cancelled, "{kind}");
                    }
                    ("panics", Err(_)) => {}
                    (_, answer) => panic!("{kind}: {answer:?}"),
                }
            }
            let other = cache.get_or_load(&9, |_| Ok::<_, &str>(5));
            assert_eq!(other.unwrap(), 5);
        });
    }
}

#[test]
fn the_last_handle_may_go_within_a_load_that_panics() {
    let slot: Arc<std::sync::Mutex<Option<Numbers>>> = Arc::default();
    let (began, gate, held) = (Gate::new(), Gate::new(), Arc::new(()));
    let loader = {
        let (slot, began, gate, held) = (slot.clone(), began.clone(), gate.clone(), held.clone());
        move |_: &u32, _: Load<u32>| -> Result<u32, &'static str> {
            let _held = &held;
            began.open();
            gate.pass();
            drop(slot.lock().unwrap().take());
            panic!("after the last handle");
        }
    };
    let (builder, _time) = roomy();
    let cache: Numbers = builder.loader(loader).load_threads(1).build().unwrap();
    assert!(cache.refresh(&1) && cache.refresh(&2));
    let waiting = {
        let cache = cache.clone();
        let mut asking = Box::pin(async move { cache.get_or_load_async(&2, async |_| Ok::<_, &'static str>(7)).await });
        assert!(asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        asking
    };
    began.pass();
    drop(waiting);
    *slot.lock().unwrap() = Some(cache);
    gate.open();
    eventually("all is dropped", || Arc::strong_count(&held) == 1);
}

#[test]
fn a_call_without_any_time_fails_and_leaves_the_key_free() {
    let script = Script::of([Act::Return(1)]);
    let (builder, _time) = roomy();
    let cache: Numbers = builder.loader(script.loader()).build().unwrap();
    let never = CallOptions::new().hard_timeout(Duration::ZERO);
    assert_eq!(cache.load_with(&1, never).unwrap_err().kind(), LoadErrorKind::TimedOut);
    assert_eq!(block_on(cache.load_with_async(&1, never)).unwrap_err().kind(), LoadErrorKind::TimedOut);
    assert_eq!(cache.load(&1).unwrap(), 1);
    assert_eq!(cache.load_with(&1, never).unwrap(), 1);
}

/// What loads of one key have begun, to tell whether two were under way at a time.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<([Mutex<usize>; 4], AtomicBool)>);

impl Begun {
    /// Takes a while, fails, panics or hangs, as chance has it. Notes if another load of the key has begun before this one was
    /// over or given up.
    pub(super) fn load<V>(&self, key: usize, load: &Load<V>) -> Result<usize, &'static str> {
        let (begun, overlapped) = &*self.0;
        let mine = {
            // Under the lock: a load that is given up before it has begun may begin beside the next one, and is told so. One that
            // is not told by now is there before the next one is.
            let mut begun = begun[key].lock().unwrap();
            if load.is_cancelled() {
                return Err("too late");
            }
            *begun += 1;
            *begun
        };
        let luck = fastrand::u64(..100);
        thread::sleep(ms(if luck < 10 { 40 } else { luck % 8 }));
        // In this order: a load is given up before the next one begins.
        if *begun[key].lock().unwrap() != mine && !load.is_cancelled() {
            overlapped.store(true, Ordering::SeqCst);
        }
        match luck % 4 {
            0 => Err("down"),
            // Without a message: there are many.
            1 => std::panic::resume_unwind(Box::new(())),
            _ => Ok(mine),
        }
    }

    pub(super) fn assert_one_at_a_time(&self) {
        assert!(!self.0.1.load(Ordering::SeqCst), "two loads of a key at a time");
    }
}

#[test]
fn loads_that_hang_fail_and_panic_keep_no_caller_and_are_one_at_a_time() {
    let begun = Begun::default();
    let loader = {
        let begun = begun.clone();
        move |key: &usize, load: Load<usize>| begun.load(*key, &load)
    };
    let cache = larder::Cache::builder().capacity(100).soft_ttl(ms(5)).hard_ttl(ms(25)).stale_if_error(ms(2));
    let cache = cache.loader(loader).hard_timeout(ms(20)).soft_timeout(ms(3)).load_threads(16).build().unwrap();
    let start = Instant::now();
    crate::scene::together(6, |_| {
        while start.elapsed() < ms(2_000) || cache.stats().load_aborts == 0 {
            let key = fastrand::usize(..4);
            match fastrand::u8(..4) {
                0 => drop(cache.load_many(&[key, (key + 1) % 4])),
                1 => drop(block_on(cache.load_async(&key))),
                2 => drop(cache.refresh(&key)),
                _ => drop(cache.load(&key)),
            }
        }
    });
    begun.assert_one_at_a_time();
}
