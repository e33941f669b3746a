//! The verbs for futures: on any runtime, and able to move between threads.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use larder::{Bump, InMemoryRemote, Namespace};

use super::in_store;
use crate::rules::{Pages, Process, own};
use crate::scene::within_patience;

fn movable<F: Future + Send>(future: F) -> F {
    future
}

async fn acknowledged(bump: impl Future<Output = Bump> + Send) {
    assert!(bump.await.is_acknowledged());
}

/// Uses every verb, each of whose futures may move between threads.
async fn use_all(pages: Pages, namespace: Namespace) {
    let failing = pages.get_or_load_async("k", |_| async { Err::<String, _>("no") });
    assert!(movable(failing).await.is_err());
    let loaded = pages.get_or_load_async("k", |load| async move {
        load.groups(["g"]);
        Ok::<_, Infallible>(own("loaded"))
    });
    assert_eq!(movable(loaded).await.unwrap(), "loaded");
    assert_eq!(movable(pages.get_async("k")).await.as_deref(), Some("loaded"));
    assert_eq!(movable(pages.with_async("k", String::len)).await, Some(6));
    assert!(movable(pages.contains_async("k")).await);
    assert_eq!(movable(pages.update_async("k", |value| value.repeat(2))).await.as_deref(), Some("loadedloaded"));
    assert!(movable(pages.insert_async(own("k"), own("inserted"))).await.is_through());
    let options = larder::EntryOptions::new().groups(["g"]);
    assert!(movable(pages.insert_with_async(own("l"), own("1"), options)).await.is_through());
    let writes = movable(pages.insert_many_async([(own("m"), own("2")), (own("n"), own("3"))])).await;
    assert!(writes.iter().all(larder::Write::is_through));
    assert!(!movable(pages.add_async(own("m"), own("4"))).await.is_stored());
    let values = movable(pages.get_many_async(["k", "l", "m", "none"])).await;
    assert_eq!(values, [Some(own("inserted")), Some(own("1")), Some(own("2")), None]);
    let values = pages.get_many_or_load_async(["m", "o", "p"], |batch| async move {
        let keys: Vec<String> = batch.keys().cloned().collect();
        Ok::<_, Infallible>(keys.into_iter().map(|key| (key.clone(), key)).collect())
    });
    assert_eq!(movable(values).await.unwrap(), [Some(own("2")), Some(own("o")), Some(own("p"))]);

    acknowledged(pages.expire_async("m")).await;
    let refreshed = pages.get_or_load_async("m", |load| async move {
        assert_eq!(load.stale().map(String::as_str), Some("2"));
        Ok::<_, Infallible>(own("fresh"))
    });
    assert_eq!(movable(refreshed).await.unwrap(), "fresh");
    acknowledged(pages.expire_group_async("g")).await;
    assert_eq!(movable(pages.get_async("l")).await.as_deref(), Some("1"), "stale");
    acknowledged(pages.invalidate_group_async("g")).await;
    assert_eq!(movable(pages.get_async("l")).await, None);
    acknowledged(pages.remove_async("k")).await;
    acknowledged(pages.remove_many_async(["m", "n"])).await;
    assert_eq!(movable(pages.get_many_async(["k", "m", "n"])).await, [None, None, None]);
    acknowledged(pages.invalidate_groups_async(["g", "h"])).await;
    acknowledged(namespace.invalidate_group_async("g")).await;
    acknowledged(namespace.invalidate_groups_async(["g"])).await;
    acknowledged(namespace.expire_group_async("g")).await;
    assert_eq!(movable(pages.get_async("o")).await.as_deref(), Some("o"));
    acknowledged(pages.clear_async()).await;
    assert_eq!(movable(pages.get_async("o")).await, None);
    acknowledged(namespace.clear_async()).await;
    movable(namespace.poll_now_async()).await.unwrap();
}

#[test]
fn every_verb_works_on_tokio() {
    let process = Process::new(&InMemoryRemote::new());
    within_patience("every verb ends", move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        // No feature of the runtime is used: neither its timers nor its I/O.
        runtime.block_on(runtime.spawn(use_all(process.pages.clone(), process.namespace().clone()))).unwrap();
    });
}

#[test]
fn every_verb_works_without_a_runtime() {
    let process = Process::new(&InMemoryRemote::new());
    within_patience("every verb ends", move || {
        ::futures::executor::block_on(use_all(process.pages.clone(), process.namespace().clone()));
    });
}

/// Its key is free at once, in this process and in the store.
#[test]
fn a_load_that_is_dropped_frees_its_key() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    within_patience("the other loads end", move || {
        ::futures::executor::block_on(async {
            let runs = AtomicBool::new(false);
            let never = a.pages.get_or_load_async("k", |_| {
                runs.store(true, Ordering::Relaxed);
                std::future::pending::<Result<String, Infallible>>()
            });
            let mut never = Box::pin(never);
            // By the time that the loader runs, the lease has been taken.
            while !runs.load(Ordering::Relaxed) {
                assert!(never.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                std::thread::yield_now();
            }
            drop(never);
            assert_eq!(
                b.pages.get_or_load_async("k", |_| async { Ok::<_, Infallible>(own("of b")) }).await.unwrap(),
                "of b"
            );
        });
        assert_eq!(in_store(&store, "k").as_deref(), Some("of b"));
    });
}
