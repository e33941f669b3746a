//! Spans: around loads and calls of the remote tier, in those of the user, and around nothing else.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use larder::{BoxFuture, Cache};
use tracing::{Level, Span, info, info_span};

use super::log::{Log, TracedSpan};
use crate::scene::{ms, roomy};

/// Resolves at the second poll.
async fn once_more() {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn poll<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn loads(log: &Log) -> Vec<TracedSpan> {
    log.spans("larder.load")
}

fn field<'s>(span: &'s TracedSpan, name: &str) -> &'s str {
    span.fields.get(name).map_or("", String::as_str)
}

#[test]
fn a_load_has_a_span_in_that_of_its_caller() {
    let log = Log::new();
    let (builder, time) = roomy::<u32>();
    let cache = builder.name("rows").build().unwrap();
    log.during(|| {
        info_span!("request").in_scope(|| {
            let loaded = cache.get_or_load(&4_711, |_| {
                info!("from the source");
                time.advance(ms(250));
                Ok::<_, ()>(1)
            });
            assert_eq!(loaded.unwrap(), 1);
        });
    });
    let [load] = &loads(&log)[..] else { panic!("one load: {log:?}") };
    assert_eq!((load.level, load.parent, load.closed), (Level::INFO, Some("request"), true));
    let fields = [("cache", "rows"), ("background", "false"), ("keys", "1"), ("outcome", "ok"), ("seconds", "0.25")];
    assert_eq!(load.fields, fields.map(|(field, value)| (field, value.to_owned())).into());
    assert_eq!(log.events()[0].span, Some("larder.load"));
    assert!(!format!("{log:?}").contains("4711"), "no key is told");
}

#[test]
fn a_span_says_how_its_load_ended() {
    let log = Log::new();
    let cache: Cache<u32, u32> = Cache::new(10);
    log.during(|| {
        assert!(cache.get_or_load(&1, |_| Err(())).is_err());
        let panicking = || cache.get_or_load(&1, |_| -> Result<u32, ()> { panic!("as the test wants it") });
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        {
            let mut dropped = pin!(cache.get_or_load_async(&1, |_| async {
                once_more().await;
                Ok::<_, ()>(1)
            }));
            assert!(poll(dropped.as_mut()).is_pending());
        }
        let refused = cache.get_or_load(&1, |load| {
            load.do_not_store();
            Ok::<_, ()>(1)
        });
        assert_eq!(refused.unwrap(), 1);
    });
    let ended: Vec<_> = loads(&log).iter().map(|load| (field(load, "outcome").to_owned(), load.closed)).collect();
    let expected = ["error", "panicked", "panicked", "dropped", "ok"].map(|outcome| (outcome.to_owned(), true));
    assert_eq!(ended, expected);
    assert_eq!(log.said("a loader of the cache cache panicked").0, Some(Level::ERROR));
}

#[test]
fn the_span_of_a_future_is_entered_while_it_is_polled_and_only_then() {
    let log = Log::new();
    let cache: Cache<u32, u32> = Cache::new(10);
    log.during(|| {
        let request = info_span!("request");
        let mut load = pin!(cache.get_or_load_async(&1, |_| async {
            info!("before");
            once_more().await;
            info!("after");
            Ok::<_, ()>(1)
        }));
        assert!(request.in_scope(|| poll(load.as_mut())).is_pending());
        assert!(Span::current().is_none(), "nothing is entered between two polls");
        assert!(request.in_scope(|| poll(load.as_mut())).is_ready());
    });
    let [load] = &loads(&log)[..] else { panic!("one load: {log:?}") };
    assert_eq!((load.parent, field(load, "outcome"), load.closed), (Some("request"), "ok", true));
    assert!(log.events().iter().all(|event| event.span == Some("larder.load")), "{log:?}");
    assert_eq!(log.events().len(), 2);
}

#[test]
fn a_batch_has_one_span_for_all_its_keys() {
    let log = Log::new();
    let cache: Cache<u32, u32> = Cache::new(10);
    log.during(|| {
        let loaded = cache.get_many_or_load(&[1, 2, 3], |_| Ok::<_, ()>(vec![(3, 3)]));
        assert_eq!(loaded.unwrap(), [None, None, Some(3)]);
        let failed = cache.get_many_or_load(&[1, 2], |_| Err(()));
        assert!(failed.is_err());
    });
    let told: Vec<_> =
        loads(&log).iter().map(|load| (field(load, "keys").to_owned(), field(load, "outcome").to_owned())).collect();
    assert_eq!(told, [("3", "ok"), ("2", "error")].map(|(keys, outcome)| (keys.to_owned(), outcome.to_owned())));
    assert!(loads(&log).iter().all(|load| load.closed));
}

#[test]
fn a_load_in_the_background_follows_from_the_span_that_began_it() {
    let log = Log::new();
    let cache: Cache<u32, u32> = Cache::new(10);
    log.during(|| {
        let spawned: Mutex<Option<BoxFuture>> = Mutex::default();
        let request = info_span!("request");
        let spawn = |load| *spawned.lock().unwrap() = Some(load);
        let mut caller = pin!(cache.get_or_load_detached(&1, spawn, |_| async { Ok::<_, ()>(1) }));
        assert!(request.in_scope(|| poll(caller.as_mut())).is_pending());
        let mut load = spawned.lock().unwrap().take().unwrap();
        assert!(poll(load.as_mut()).is_ready());
        assert!(cache.get_or_load(&2, |_| Ok::<_, ()>(2)).is_ok());
    });
    let told = loads(&log);
    let told = told.iter().map(|load| (field(load, "background"), load.parent, load.follows.as_slice()));
    assert_eq!(told.collect::<Vec<_>>(), [("true", None, &["request"][..]), ("false", None, &[])]);
}

#[test]
fn what_the_cache_answers_by_itself_is_not_told() {
    let log = Log::new();
    let cache: Cache<u32, u32> = Cache::new(10);
    log.during(|| {
        cache.insert(1, 1).unwrap();
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(1), None));
        assert_eq!(cache.get_or_load(&1, |_| Ok::<_, ()>(2)).unwrap(), 1);
        drop(cache.lookup(&3));
        cache.remove(&1);
    });
    assert_eq!(format!("{log:?}"), format!("{:?}", Log::new()));
}

#[cfg(feature = "tiered")]
mod tiered {
    use std::time::Duration;

    use larder::{InMemoryRemote, Namespace, RawBytes, TieredCache};

    use super::*;

    fn pages(store: &InMemoryRemote) -> TieredCache<String, String> {
        let namespace = Namespace::builder("shop", store.clone()).trust(Duration::from_secs(3_600)).build().unwrap();
        namespace.poll_now().unwrap();
        TieredCache::builder(&namespace, "pages").capacity(10).codec(RawBytes).build().unwrap()
    }

    fn exchanges(log: &Log) -> Vec<TracedSpan> {
        log.spans("larder.exchange")
    }

    #[test]
    fn an_exchange_has_a_span_beside_that_of_the_load_it_serves() {
        let log = Log::new();
        let pages = pages(&InMemoryRemote::new());
        log.during(|| {
            let loaded =
                info_span!("request").in_scope(|| pages.get_or_load("secret", |_| Ok::<_, ()>("text".to_owned())));
            assert!(loaded.is_ok());
            pages.get("secret");
        });
        let [load] = &loads(&log)[..] else { panic!("one load: {log:?}") };
        assert_eq!((load.parent, field(load, "namespace"), field(load, "cache")), (Some("request"), "shop", "pages"));
        let told = exchanges(&log);
        assert!(told.iter().all(|exchange| (exchange.level, exchange.parent) == (Level::DEBUG, Some("request"))));
        let first = &told[0];
        let fields = ["namespace", "server", "operation", "commands", "outcome"].map(|name| field(first, name));
        assert_eq!((fields, first.closed), (["shop", "0", "get", "1", "ok"], true));
        assert!(told.iter().any(|exchange| field(exchange, "operation") == "set"), "{log:?}");
        assert!(!format!("{log:?}").contains("secret"), "no key is told");
    }

    #[test]
    fn an_exchange_of_a_future_says_what_came_of_it() {
        let log = Log::new();
        let store = InMemoryRemote::new();
        let pages = pages(&store);
        store.offline(true);
        log.during(|| {
            let request = info_span!("request");
            let mut get = pin!(pages.get_async("key"));
            let got = futures::executor::block_on(poll_fn(|context| request.in_scope(|| get.as_mut().poll(context))));
            assert_eq!(got, None);
        });
        let told = exchanges(&log);
        assert_eq!(
            (told[0].parent, field(&told[0], "outcome"), told[0].closed),
            (Some("request"), "unavailable", true)
        );
    }

    #[test]
    fn a_load_in_the_background_follows_from_the_span_that_began_it() {
        let log = Log::new();
        let pages = pages(&InMemoryRemote::new());
        log.during(|| {
            let spawned: Mutex<Option<BoxFuture>> = Mutex::default();
            let request = info_span!("request");
            let spawn = |load| *spawned.lock().unwrap() = Some(load);
            let loader = |_| async { Ok::<_, ()>("text".to_owned()) };
            let mut caller = pin!(pages.get_or_load_detached("key", spawn, loader));
            assert!(request.in_scope(|| poll(caller.as_mut())).is_pending());
            let load = spawned.lock().unwrap().take().unwrap();
            futures::executor::block_on(load);
        });
        let [load] = &loads(&log)[..] else { panic!("one load: {log:?}") };
        assert_eq!((field(load, "background"), load.parent, &load.follows[..]), ("true", None, &["request"][..]));
    }

    #[test]
    fn a_local_hit_is_not_told() {
        let pages = pages(&InMemoryRemote::new());
        assert!(pages.insert("key".to_owned(), "text".to_owned()).is_through());
        let log = Log::new();
        log.during(|| {
            assert!(pages.get("key").is_some() && pages.local().get("key").is_some());
            assert!(pages.get_or_load("key", |_| Err(())).is_ok());
        });
        assert_eq!(format!("{log:?}"), format!("{:?}", Log::new()));
    }
}
