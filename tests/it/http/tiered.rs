//! Pages in both tiers: what processes that share a cache see of each other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use http::Method;
use larder::http::{Depends, ResponseCache, ResponseCacheBuilder};
use larder::{BoxFuture, InMemoryRemote, Namespace, RemoteTier};

use super::{CAPACITY, Door, Page, Site, depending, page, poll, request, until, with_status};

const FRESH: (&str, &str) = ("cache-control", "max-age=3600");

fn namespace(store: impl RemoteTier) -> Namespace {
    // Looks at the journal are the test's own.
    let hour = Duration::from_secs(3_600);
    Namespace::builder("site", store).poll_interval(hour).trust(hour * 2).build().unwrap()
}

fn shared(namespace: &Namespace) -> ResponseCacheBuilder {
    ResponseCache::builder().name("pages").capacity(CAPACITY).namespace(namespace)
}

/// A process whose pages say who has made them.
fn process(store: &InMemoryRemote, who: &'static str) -> (Namespace, Site) {
    process_with(store, who, &[FRESH, ("etag", "\"a\"")])
}

fn process_with(
    store: &InMemoryRemote,
    who: &'static str,
    headers: &'static [(&'static str, &'static str)],
) -> (Namespace, Site) {
    let namespace = namespace(store.clone());
    let site = Site::with(shared(&namespace), move |run, _| made_by(who, run, headers));
    (namespace, site)
}

fn made_by(who: &str, run: usize, headers: &[(&str, &str)]) -> Page {
    depending(Depends::on(["record:7"]), page(headers, &format!("{who} {run}")))
}

#[test]
fn a_page_of_one_process_is_a_hit_in_another() {
    let store = InMemoryRemote::new();
    let ((_one, one), (_other, other)) = (process(&store, "one"), process(&store, "other"));
    assert_eq!(one.get("/", &[]).body, "one 1");
    let got = other.get("/", &[]);
    assert_eq!((got.body.as_str(), got.header("etag")), ("one 1", "\"a\""));
    assert!(got.cache_status().starts_with("larder; hit") || got.cache_status().starts_with("pages; hit"), "{got:?}");
    assert_eq!(other.get("/", &[("if-none-match", "\"a\"")]).status, 304);
    assert_eq!(other.runs(), 0);
}

#[test]
fn a_record_saved_in_one_process_drops_its_pages_and_validators_in_the_other() {
    let store = InMemoryRemote::new();
    let ((_one, one), (other_namespace, other)) = (process(&store, "one"), process(&store, "other"));
    for path in ["/7", "/list", "/feed"] {
        one.get(path, &[]);
        assert_eq!(other.get(path, &[("if-none-match", "\"a\"")]).status, 304);
    }
    assert!(block_on(one.cache.invalidate_group_async("record:7")));
    other_namespace.poll_now().unwrap();
    for (path, body) in [("/7", "other 1"), ("/list", "other 2"), ("/feed", "other 3")] {
        assert_eq!(other.get(path, &[]).body, body);
        assert_eq!(one.get(path, &[]).body, body);
    }
}

#[test]
fn a_changed_address_is_dropped_everywhere() {
    let store = InMemoryRemote::new();
    let ((_one, one), (other_namespace, other)) = (process(&store, "one"), process(&store, "other"));
    one.get("/7", &[]);
    other.get("/7", &[]);
    one.send(Method::PUT, "/7", &[]);
    other_namespace.poll_now().unwrap();
    assert_eq!(other.get("/7", &[]).body, "other 1");
}

/// Its handler may have made the change by the time that the client leaves, and takes the handler along.
#[test]
fn a_change_whose_client_leaves_drops_its_address_everywhere() {
    let store = InMemoryRemote::new();
    let (other_namespace, other) = process(&store, "other");
    let namespace = namespace(store.clone());
    let one = Site::with_async(shared(&namespace), |run, request| async move {
        if request.method() == Method::PUT {
            std::future::pending::<()>().await;
        }
        Ok(made_by("one", run, &[FRESH]))
    });
    one.get("/7", &[]);
    assert_eq!(other.get("/7", &[]).body, "one 1");
    let mut change = Box::pin(one.call(request(Method::PUT, "/7", &[])));
    assert!(poll(&mut change).is_pending());
    drop(change);
    until("the other process hears of it", || {
        other_namespace.poll_now().unwrap();
        other.get("/7", &[]).body == "other 1"
    });
    assert_ne!(one.get("/7", &[]).body, "one 1");
}

/// One handler, however many processes miss the page at once.
#[test]
fn processes_wait_for_each_other() {
    let store = InMemoryRemote::new();
    let (open, door) = Door::new();
    let namespaces = [namespace(store.clone()), namespace(store)];
    let [one, other] = ["one", "other"].map(|who| {
        let door = door.clone();
        Site::with_async(shared(&namespaces[usize::from(who == "other")]), move |run, _| {
            let door = door.clone();
            async move {
                door.pass().await;
                Ok(made_by(who, run, &[FRESH]))
            }
        })
    });
    let mut first = Box::pin(one.call(request(Method::GET, "/", &[])));
    super::until("one runs its handler", || {
        assert!(poll(&mut first).is_pending());
        one.runs() == 1
    });
    let waiting = std::thread::spawn({
        let call = other.call(request(Method::GET, "/", &[]));
        move || block_on(call)
    });
    open.send(()).unwrap();
    assert_eq!(block_on(first).unwrap().body, "one 1");
    assert_eq!(waiting.join().unwrap().unwrap().body, "one 1");
    assert_eq!((one.runs(), other.runs()), (1, 0));
}

/// The page may show the record as it was, and is left in neither tier of either process.
#[test]
fn a_record_saved_elsewhere_while_the_handler_runs_fences_its_response() {
    for headers in [&[FRESH][..], &[FRESH, ("vary", "accept")]] {
        let store = InMemoryRemote::new();
        let (open, door) = Door::new();
        let slow = namespace(store.clone());
        let one = Site::with_async(shared(&slow), move |run, _| {
            let door = door.clone();
            async move {
                if run == 1 {
                    door.pass().await;
                }
                Ok(made_by("one", run, headers))
            }
        });
        let (_other, other) = process_with(&store, "other", headers);
        let mut early = Box::pin(one.call(request(Method::GET, "/", &[])));
        super::until("one runs its handler", || {
            assert!(poll(&mut early).is_pending());
            one.runs() == 1
        });
        assert!(other.cache.invalidate_group("record:7"));
        open.send(()).unwrap();
        let got = block_on(early).unwrap();
        assert_eq!(got.body, "one 1");
        assert_eq!(other.get("/", &[]).body, "other 1", "{headers:?}");
        slow.poll_now().unwrap();
        assert_eq!(one.get("/", &[]).body, "other 1", "{headers:?}");
    }
}

#[test]
fn variants_are_shared_as_well() {
    let store = InMemoryRemote::new();
    let headers = &[FRESH, ("vary", "accept-language")];
    let ((_one, one), (_other, other)) = (process_with(&store, "one", headers), process_with(&store, "other", headers));
    one.get("/", &[("accept-language", "en")]);
    one.get("/", &[("accept-language", "de")]);
    assert_eq!(other.get("/", &[("accept-language", "de")]).body, "one 2");
    assert_eq!(other.get("/", &[("accept-language", "EN")]).body, "one 1");
    assert_eq!(other.get("/", &[("accept-language", "fr")]).body, "other 1");
    assert_eq!(one.get("/", &[("accept-language", "fr")]).body, "other 1");
}

#[test]
fn what_may_not_be_shared_is_in_no_tier() {
    for header in [("cache-control", "private, max-age=60"), ("set-cookie", "a=b")] {
        let store = InMemoryRemote::new();
        let answer =
            move |who: &'static str| move |run: usize, _: &http::Request<()>| made_by(who, run, &[FRESH, header]);
        let namespaces = [namespace(store.clone()), namespace(store)];
        let one = Site::with(shared(&namespaces[0]), answer("one"));
        let other = Site::with(shared(&namespaces[1]), answer("other"));
        for run in 1..3 {
            assert_eq!(one.get("/", &[]).body, format!("one {run}"), "{header:?}");
            assert_eq!(other.get("/", &[]).body, format!("other {run}"), "{header:?}");
        }
    }
}

#[test]
fn a_store_that_is_down_is_nobodys_error() {
    let store = InMemoryRemote::new();
    let (_namespace, site) = process(&store, "one");
    site.get("/before", &[]);
    store.offline(true);
    assert_eq!(site.get("/", &[]).body, "one 2");
    assert_eq!(site.get("/", &[]).status, 200);
    assert!(!site.cache.invalidate_group("record:7"), "the others cannot be told yet");
    assert_eq!(site.get("/before", &[]).status, 200);
    assert_ne!(site.get("/before", &[]).body, "one 1");
    assert_eq!(site.send(Method::PUT, "/", &[]).status, 200);
    store.offline(false);
}

/// What another process has made, and is stale, is served at once where it may be, and refreshed in the background.
#[test]
fn a_stale_page_of_another_process_is_served_at_once() {
    let store = InMemoryRemote::new();
    let headers = &[("cache-control", "max-age=3600, stale-while-revalidate=3600")];
    let (one_namespace, one) = process_with(&store, "one", headers);
    one.get("/", &[]);
    let _ = one_namespace.expire_group("record:7");
    let spawned: Arc<Mutex<Vec<BoxFuture>>> = Arc::default();
    let keeper = spawned.clone();
    let namespace = namespace(store);
    let builder = shared(&namespace).spawner(move |refresh| keeper.lock().unwrap().push(refresh));
    let other = Site::with(builder, move |run, _| made_by("other", run, headers));
    assert_eq!((other.get("/", &[]).body.as_str(), other.runs()), ("one 1", 0));
    assert_eq!((other.get("/", &[]).body.as_str(), other.runs()), ("one 1", 0));
    let refreshes = std::mem::take(&mut *spawned.lock().unwrap());
    assert_eq!(refreshes.len(), 1);
    block_on(futures::future::join_all(refreshes));
    assert_eq!((other.get("/", &[]).body.as_str(), other.runs()), ("other 1", 1));
}

/// What is stale and may not be served is replaced by one process, and the others wait for it.
#[test]
fn processes_wait_for_who_replaces_a_stale_page() {
    let store = InMemoryRemote::new();
    let (open, door) = Door::new();
    let namespaces = [namespace(store.clone()), namespace(store)];
    let [one, other] = [0, 1].map(|at| {
        let door = door.clone();
        Site::with_async(shared(&namespaces[at]), move |run, request| {
            let door = door.clone();
            async move {
                if request.headers().contains_key("if-none-match") {
                    door.pass().await;
                    return Ok(with_status(304, page(&[("x-confirmed-by", ["one", "other"][at])], "")));
                }
                Ok(made_by(["one", "other"][at], run, &[FRESH, ("etag", "\"a\"")]))
            }
        })
    });
    one.get("/", &[]);
    assert_eq!(other.get("/", &[]).body, "one 1");
    let _ = namespaces[0].expire_group("record:7");
    namespaces[1].poll_now().unwrap();
    let mut first = Box::pin(one.call(request(Method::GET, "/", &[])));
    super::until("one asks its handler", || {
        assert!(poll(&mut first).is_pending());
        one.runs() == 2
    });
    let waiting = std::thread::spawn({
        let call = other.call(request(Method::GET, "/", &[]));
        move || block_on(call)
    });
    open.send(()).unwrap();
    for got in [block_on(first).unwrap(), waiting.join().unwrap().unwrap()] {
        assert_eq!((got.body.as_str(), got.header("x-confirmed-by")), ("one 1", "one"));
    }
    assert_eq!((one.runs(), other.runs()), (2, 0));
}

#[test]
fn settings_at_odds_are_refused() {
    let namespace = namespace(InMemoryRemote::new());
    let error = shared(&namespace).clock(larder::Clock::manual().0).build().unwrap_err();
    assert!(error.to_string().contains("namespace has clock and groups of its own"), "{error}");
    assert!(shared(&namespace).name("a:b").build().is_err());
}

/// How old a page is follows from how much of its time is left, of which the remote tier records 49 days.
#[test]
fn a_page_for_a_year_is_as_old_as_it_is() {
    let store = InMemoryRemote::new();
    let headers = &[("cache-control", "max-age=31536000")];
    let ((_one, one), (_other, other)) = (process_with(&store, "one", headers), process_with(&store, "other", headers));
    for site in [&one, &one, &other, &other] {
        let got = site.get("/", &[]);
        let age: u64 = got.header("age").parse().unwrap();
        assert!(got.body == "one 1" && age < 3_600, "{got:?}");
    }
}

/// The same on a real memcached, where values are bytes that travel.
#[cfg(feature = "memcached")]
#[test]
fn pages_travel_through_memcached() {
    let server = crate::support::memcached::Server::start();
    let store = larder::Memcached::connect(server.addr()).unwrap();
    let namespaces = [namespace(store.clone()), namespace(store)];
    let headers = &[FRESH, ("etag", "\"a\""), ("content-type", "text/html"), ("x-many", "1"), ("x-many", "2")];
    let [one, other] =
        [0, 1].map(|at| Site::with(shared(&namespaces[at]), move |run, _| made_by(["one", "other"][at], run, headers)));
    one.get("/", &[]);
    let got = other.get("/", &[]);
    assert_eq!((got.body.as_str(), got.header("content-type"), other.runs()), ("one 1", "text/html", 0));
    assert_eq!(got.headers.get_all("x-many").iter().count(), 2);
    assert_eq!(other.get("/", &[("if-none-match", "\"a\"")]).status, 304);
    assert!(one.cache.invalidate_group("record:7"));
    namespaces[1].poll_now().unwrap();
    assert_eq!(other.get("/", &[]).body, "other 1");
}
