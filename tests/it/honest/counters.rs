//! Counters, over the store in memory and over memcached.

use std::time::Duration;

use larder::{
    Action, Command, Expiry, InMemoryRemote, Namespace, RemoteErrorKind, RemoteTier, Reply, Route, SetMode, WireKey,
};

use crate::rules::HOUR;
use crate::scene::{PATIENCE, together};

fn namespace(store: impl RemoteTier) -> Namespace {
    Namespace::builder("ns", store).timeout(PATIENCE).build().unwrap()
}

fn run(store: &impl RemoteTier, action: Action<'_>) -> Reply {
    let key = WireKey::new("ns::c:n").unwrap();
    store.run(&[Command { key: &key, route: Route::ByKey, action }], PATIENCE).remove(0).unwrap()
}

fn counts(store: &(impl RemoteTier + Clone)) {
    let (a, b) = (namespace(store.clone()), namespace(store.clone()));
    let hits = a.counter("hits");
    assert_eq!(hits.get().unwrap(), None);
    assert_eq!((hits.incr(1).unwrap(), hits.incr(41).unwrap()), (1, 42));
    assert_eq!(b.counter("hits").get().unwrap(), Some(42), "of all processes");
    assert_eq!((hits.decr(2).unwrap(), hits.decr(100).unwrap()), (40, 0));
    hits.set(u64::MAX).unwrap();
    assert_eq!((hits.get().unwrap(), hits.incr(2).unwrap()), (Some(u64::MAX), 1));
    let from = a.counter("from 10").initial(10);
    assert_eq!((from.incr(5).unwrap(), from.incr(5).unwrap()), (15, 20));
    assert_eq!(a.counter("from 3").initial(3).decr(5).unwrap(), 0);
    assert_eq!(
        Namespace::builder("ns", store.clone()).version("2").build().unwrap().counter("hits").get().unwrap(),
        None
    );

    let sums = together(4, |at| {
        let counter = if at % 2 == 0 { a.counter("busy") } else { b.counter("busy") };
        (0..50).map(|_| counter.incr(1).unwrap()).collect::<Vec<_>>()
    });
    let mut sums: Vec<u64> = sums.into_iter().flatten().collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=200).collect::<Vec<_>>(), "each sum once");
}

fn lives_as_long_as_it_was_told_at_first(store: &(impl RemoteTier + Clone)) {
    let get = Action::Get { value: true, lease: None, touch: None };
    let left = || match run(store, get) {
        Reply::Hit(item) => item.expires_in,
        other => panic!("{other:?}"),
    };
    let counter = namespace(store.clone()).counter("n");
    assert_eq!((counter.incr(1).unwrap(), left()), (1, None));
    assert_eq!(run(store, Action::Delete { cas: None }), Reply::Done);
    assert_eq!(counter.clone().ttl(HOUR).incr(1).unwrap(), 1);
    let for_an_hour = |left: Option<Duration>| left.is_some_and(|left| left <= HOUR && left > HOUR - PATIENCE);
    assert!(for_an_hour(left()), "{:?}", left());
    assert_eq!(counter.ttl(10 * HOUR).incr(1).unwrap(), 2);
    assert!(for_an_hour(left()), "a change does not prolong it: {:?}", left());
}

fn what_is_no_number_is_refused(store: &(impl RemoteTier + Clone)) {
    let set = Action::Set { value: b"seven", expiry: Expiry::Never, mode: SetMode::Always, cas: None };
    assert_eq!(run(store, set), Reply::Done);
    let counter = namespace(store.clone()).counter("n");
    for refused in [counter.incr(1).map(Some), counter.decr(1).map(Some), counter.get()] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Refused, "{error}");
        assert!(!error.is_indeterminate());
    }
    counter.set(7).unwrap();
    assert_eq!(counter.incr(1).unwrap(), 8);
}

fn futures_count_too(store: &(impl RemoteTier + Clone)) {
    let counter = namespace(store.clone()).counter("async");
    ::futures::executor::block_on(async {
        assert_eq!(counter.get_async().await.unwrap(), None);
        assert_eq!(counter.incr_async(3).await.unwrap(), 3);
        assert_eq!(counter.decr_async(1).await.unwrap(), 2);
        counter.set_async(9).await.unwrap();
        assert_eq!(counter.get_async().await.unwrap(), Some(9));
    });
}

macro_rules! on_both_stores {
    ($($case:ident)*) => {
        mod in_memory {
            $(
                #[test]
                fn $case() {
                    super::$case(&larder::InMemoryRemote::new());
                }
            )*
        }

        #[cfg(feature = "memcached")]
        mod on_memcached {
            $(
                #[test]
                fn $case() {
                    let server = crate::support::memcached::Server::start();
                    super::$case(&larder::Memcached::connect(server.addr()).unwrap());
                }
            )*
        }
    };
}

on_both_stores! {
    counts
    lives_as_long_as_it_was_told_at_first
    what_is_no_number_is_refused
    futures_count_too
}

/// A change that may have been made is not made again.
#[test]
fn an_outage_is_an_error_and_nothing_is_repeated() {
    let store = InMemoryRemote::new();
    let counter = namespace(store.clone()).counter("n");
    assert_eq!(counter.incr(1).unwrap(), 1);
    store.offline(true);
    for failed in [counter.incr(1).map(Some), counter.decr(1).map(Some), counter.get(), counter.set(1).map(|()| None)] {
        assert_eq!(failed.unwrap_err().kind(), RemoteErrorKind::Unavailable);
    }
    store.offline(false);
    assert_eq!(counter.get().unwrap(), Some(1));
}
