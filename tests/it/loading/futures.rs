//! Loaders by futures: on the cache's threads, on a runtime, and as part of who waits.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use futures::executor::block_on;
use larder::{Load, LoadErrorKind, LoadingCache};

use super::{HARD, Numbers, SOFT_TTL};
use crate::scene::{eventually, roomy, within_patience};

/// Lets futures wait without a thread until it is told.
#[derive(Clone, Default)]
struct Signal(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Signal {
    fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let signal = self.clone();
        poll_fn(move |context: &mut Context<'_>| {
            let mut signal = signal.0.lock().unwrap();
            signal.1.push(context.waker().clone());
            if signal.0 { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }

    fn tell(&self) {
        let mut signal = self.0.lock().unwrap();
        signal.0 = true;
        std::mem::take(&mut signal.1).into_iter().for_each(Waker::wake);
    }
}

type Loading = Pin<Box<dyn Future<Output = Result<u32, &'static str>> + Send>>;

fn waiting_loader(signal: &Signal) -> impl Fn(u32, Load<u32>) -> Loading + Send + Sync + use<> {
    let signal = signal.clone();
    move |key: u32, _: Load<u32>| {
        let wait = signal.wait();
        Box::pin(async move {
            wait.await;
            Ok(key)
        })
    }
}

#[test]
fn many_loads_by_futures_share_one_thread() {
    let signal = Signal::default();
    let (builder, time) = roomy();
    let builder = builder.soft_ttl(SOFT_TTL).async_loader(waiting_loader(&signal));
    let cache: Numbers = builder.load_threads(1).build().unwrap();
    (1..=100).for_each(|key| cache.insert(key, 0).unwrap());
    time.advance(SOFT_TTL);
    assert!((1..=100).all(|key| cache.load(&key).unwrap() == 0));
    eventually("all wait at once", || signal.waiting() == 100);
    signal.tell();
    eventually("all are refreshed", || (1..=100).all(|key| cache.get(&key) == Some(key)));
}

#[test]
fn threads_and_tasks_ask_loaders_of_either_kind() {
    within_patience("loads of all kinds", || {
        let (builder, _time) = roomy();
        let blocking: Numbers = builder.loader(|key: &u32, _: Load<u32>| Ok::<_, &str>(key + 1)).build().unwrap();
        assert_eq!((blocking.load(&1).unwrap(), block_on(blocking.load_async(&2)).unwrap()), (2, 3));
        let (builder, _time) = roomy();
        let by_futures = |key: u32, _: Load<u32>| async move { Ok::<_, &str>(key + 1) };
        let futures: Numbers = builder.async_loader(by_futures).build().unwrap();
        assert_eq!((futures.load(&1).unwrap(), block_on(futures.load_async(&2)).unwrap()), (2, 3));
        assert_eq!(block_on(futures.load_many_async(&[2, 3])).unwrap(), [Some(3), Some(4)]);
        assert_eq!(block_on(futures.warm_up_async(&[4, 5, 2])).unwrap(), 2);
    });
}

#[test]
fn a_blocking_loader_never_runs_as_part_of_a_future() {
    let (builder, _time) = roomy();
    let loader = |_: &u32, _: Load<String>| Ok::<_, &str>(thread::current().name().unwrap_or_default().to_owned());
    let cache: LoadingCache<u32, String, &str> = builder.loader(loader).build().unwrap();
    assert_eq!(block_on(cache.load_async(&1)).unwrap(), "larder-load-1");
    assert_ne!(cache.load(&2).unwrap(), "larder-load-1", "a thread runs it itself");
}

#[test]
fn a_load_that_is_part_of_a_future_is_dropped_with_it_and_one_in_the_background_is_not() {
    for hard_timeout in [None, Some(HARD)] {
        let signal = Signal::default();
        let (builder, _time) = roomy();
        let mut builder = builder.async_loader(waiting_loader(&signal));
        if let Some(timeout) = hard_timeout {
            builder = builder.hard_timeout(timeout);
        }
        let cache: Numbers = builder.build().unwrap();
        {
            let mut asking = pin!(cache.load_async(&1));
            assert!(asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            eventually("it is loading", || signal.waiting() > 0);
        }
        signal.tell();
        match hard_timeout {
            None => assert_eq!((cache.get(&1), cache.stats().load_failures), (None, 1)),
            Some(_) => eventually("it is loaded", || cache.get(&1) == Some(1)),
        }
    }
}

#[test]
fn a_spawner_runs_loads_on_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let handle = runtime.handle().clone();
    let (builder, time) = roomy();
    // Without a runtime around it, it would panic.
    let loader = |key: u32, _: Load<u32>| async move {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        Ok::<_, &str>(key)
    };
    let builder = builder.soft_ttl(SOFT_TTL).async_loader(loader);
    let cache: Numbers = builder.spawner(move |load| drop(handle.spawn(load))).build().unwrap();
    assert_eq!(cache.load(&1).unwrap(), 1, "for a thread outside of it");
    assert_eq!(block_on(cache.load_async(&2)).unwrap(), 2, "for a future outside of it");
    cache.insert(3, 0).unwrap();
    time.advance(SOFT_TTL);
    assert_eq!(cache.load(&3).unwrap(), 0);
    eventually("it is refreshed", || cache.get(&3) == Some(3));
}

#[test]
fn a_load_that_its_runtime_drops_is_cancelled_and_its_key_free() {
    let (builder, _time) = roomy();
    let loader = |key: u32, _: Load<u32>| async move { Ok::<_, &str>(key) };
    let cache: Numbers = builder.async_loader(loader).spawner(drop).build().unwrap();
    for _ in 0..2 {
        assert_eq!(cache.load(&1).unwrap_err().kind(), LoadErrorKind::Cancelled);
    }
    assert_eq!(cache.get_or_load(&1, |_| Ok::<_, ()>(7)).unwrap(), 7);
}
