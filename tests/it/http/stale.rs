//! Responses past their freshness: served meanwhile, served in the place of an error, or confirmed (RFC 5861; RFC 9111,
//! sections 4.2.4 and 4.3).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use http::Method;
use larder::http::Depends;
use larder::{BoxFuture, ManualClock};

use super::{Broken, Door, Page, Site, builder, depending, page, poll, request, with_status};

const SECOND: Duration = Duration::from_secs(1);

/// What was given to a spawner, for the test to run when it likes.
type Spawned = Arc<Mutex<Vec<BoxFuture>>>;

fn run_all(spawned: &Spawned) -> usize {
    let futures = std::mem::take(&mut *spawned.lock().unwrap());
    block_on(join_all(futures)).len()
}

fn revalidating(headers: &'static [(&'static str, &'static str)]) -> (Site, ManualClock, Spawned) {
    let spawned = Spawned::default();
    let (builder, time) = builder();
    let builder = builder.spawner({
        let spawned = spawned.clone();
        move |refresh| spawned.lock().unwrap().push(refresh)
    });
    (Site::with(builder, |run, _| page(headers, &format!("render {run}"))), time, spawned)
}

/// RFC 5861, section 3.
#[test]
fn a_stale_response_is_served_at_once_while_one_refresh_runs() {
    let (site, time, spawned) = revalidating(&[("cache-control", "max-age=10, stale-while-revalidate=5")]);
    site.get("/", &[]);
    time.advance(12 * SECOND);
    for _ in 0..10 {
        let got = site.get("/", &[]);
        assert_eq!(
            (got.body.as_str(), got.cache_status(), got.header("age")),
            ("render 1", "larder; hit; ttl=-2", "12")
        );
    }
    assert_eq!((site.runs(), spawned.lock().unwrap().len()), (1, 1));
    run_all(&spawned);
    assert_eq!((site.get("/", &[]).body.as_str(), site.runs()), ("render 2", 2));
}

#[test]
fn without_a_spawner_the_first_to_find_it_stale_refreshes_it() {
    let (open, door) = Door::new();
    let (builder, time) = builder();
    let site = Site::with_async(builder, move |run, _| {
        let door = door.clone();
        async move {
            if run == 2 {
                door.pass().await;
            }
            Ok(page(&[("cache-control", "max-age=10, stale-while-revalidate=5")], &format!("render {run}")))
        }
    });
    site.get("/", &[]);
    time.advance(10 * SECOND);
    let mut first = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert!(poll(&mut first).is_pending());
    assert_eq!(site.get("/", &[]).body, "render 1", "the others do not wait");
    open.send(()).unwrap();
    assert_eq!(block_on(first).unwrap().body, "render 2");
    assert_eq!((site.get("/", &[]).body.as_str(), site.runs()), ("render 2", 2));
}

#[test]
fn past_its_window_a_stale_response_is_not_served() {
    let (site, time, spawned) = revalidating(&[("cache-control", "max-age=10, stale-while-revalidate=5")]);
    site.get("/", &[]);
    time.advance(15 * SECOND);
    assert_eq!((site.get("/", &[]).body.as_str(), spawned.lock().unwrap().len()), ("render 2", 0));
}

/// RFC 9111, section 5.2.2.2 and 5.2.2.8.
#[test]
fn must_revalidate_forbids_all_of_it() {
    for control in [
        "max-age=10, must-revalidate, stale-while-revalidate=50, stale-if-error=50",
        "max-age=10, proxy-revalidate, stale-while-revalidate=50, stale-if-error=50",
    ] {
        let (builder, time) = builder();
        let site = Site::with(builder, move |run, _| match run {
            1 => page(&[("cache-control", control), ("etag", "\"a\"")], "old"),
            _ => with_status(503, page(&[], "down")),
        });
        site.get("/", &[]);
        time.advance(10 * SECOND);
        assert_eq!(site.get("/", &[]).status, 503, "{control}");
        assert_eq!(site.get("/", &[("cache-control", "max-stale")]).status, 503, "{control}");
    }
}

/// A page that fails in each of the ways that a handler can, from its second render on.
fn failing(how: usize) -> (Site, ManualClock) {
    let (builder, time) = builder();
    let site = Site::with_async(builder, move |run, _| async move {
        let control = ("cache-control", "max-age=10, stale-if-error=20");
        match (run, how) {
            (1, _) | (_, 3) => Ok(page(&[control], &format!("render {run}"))),
            (_, 0) => Ok(with_status(500, page(&[], "down"))),
            (_, 1) => Err(Broken),
            _ => panic!("handler"),
        }
    });
    (site, time)
}

/// RFC 5861, section 4.
#[test]
fn an_error_is_answered_with_the_stale_response() {
    for how in 0..3 {
        let (site, time) = failing(how);
        site.get("/", &[]);
        time.advance(15 * SECOND);
        let got = site.get("/", &[]);
        assert_eq!((got.status, got.body.as_str()), (200, "render 1"), "{how}");
        assert!(got.cache_status().contains("; fwd=stale") && got.cache_status().ends_with("; detail=stale-if-error"));
        // The handler has a second before it is tried again.
        assert_eq!((site.get("/", &[]).body.as_str(), site.runs()), ("render 1", 2));
        time.advance(SECOND);
        assert_eq!((site.get("/", &[]).body.as_str(), site.runs()), ("render 1", 3));
        // Past the window, the error is.
        time.advance(14 * SECOND);
        let failed = catch_unwind(AssertUnwindSafe(|| block_on(site.call(request(Method::GET, "/", &[])))));
        assert!(!matches!(failed, Ok(Ok(got)) if got.status == 200), "{how}");
    }
}

/// While its refresh runs, the page is dropped and another takes its place: how old that is says nothing of this one.
#[test]
fn a_page_that_another_has_replaced_is_as_old_as_it_is() {
    let (open, door) = Door::new();
    let (builder, time) = builder();
    let site = Site::with_async(builder, move |run, _| {
        let door = door.clone();
        async move {
            if run == 2 {
                door.pass().await;
                return Ok(with_status(500, page(&[], "")));
            }
            Ok(page(&[("cache-control", "max-age=60, stale-if-error=60")], &format!("render {run}")))
        }
    });
    site.get("/", &[]);
    time.advance(100 * SECOND);
    let mut refreshing = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert!(poll(&mut refreshing).is_pending());
    site.send(Method::PUT, "/", &[]);
    assert_eq!(site.get("/", &[]).body, "render 4");
    open.send(()).unwrap();
    let got = block_on(refreshing).unwrap();
    assert_eq!((got.body.as_str(), got.header("age")), ("render 1", "100"), "{got:?}");
}

/// The window is for errors alone: a handler that works is not spared.
#[test]
fn what_may_stand_in_for_an_error_is_not_served_without_one() {
    let (site, time) = failing(3);
    site.get("/", &[]);
    time.advance(10 * SECOND);
    assert_eq!(site.get("/", &[]).body, "render 2");
}

/// RFC 9111, section 5.2.1.2.
#[test]
fn a_client_may_take_it_stale() {
    let (site, time) = Site::numbered(&[("cache-control", "max-age=10, stale-if-error=20")]);
    site.get("/", &[]);
    time.advance(15 * SECOND);
    assert_eq!(site.get("/", &[("cache-control", "max-stale=5")]).body, "render 1");
    assert_eq!(site.get("/", &[("cache-control", "max-stale")]).body, "render 1");
    assert_eq!(site.get("/", &[("cache-control", "max-stale=4")]).body, "render 2");
}

/// Past its freshness a page is one handler's work again, however many ask, and they do wait: nobody may have it stale.
#[test]
fn a_hundred_callers_of_what_has_just_become_stale_run_one_handler() {
    for header in [("x", "y"), ("etag", "\"a\"")] {
        let (open, door) = Door::new();
        let (builder, time) = builder();
        let site = Site::with_async(builder, move |run, _| {
            let door = door.clone();
            async move {
                if run > 1 {
                    door.pass().await;
                }
                Ok(page(&[("cache-control", "max-age=10"), header], &format!("render {run}")))
            }
        });
        site.get("/", &[]);
        time.advance(10 * SECOND);
        let mut calls: Vec<_> = (0..100).map(|_| Box::pin(site.call(request(Method::GET, "/", &[])))).collect();
        assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
        assert_eq!(site.runs(), 2);
        open.send(()).unwrap();
        let got = block_on(join_all(calls));
        assert!(got.into_iter().all(|got| got.unwrap().body == "render 2"), "{header:?}");
        assert_eq!(site.runs(), 2);
    }
}

fn confirming(run: usize, request: &http::Request<()>) -> Page {
    let asked = request.headers().get("if-none-match").map(|tag| tag.to_str().unwrap().to_owned());
    match asked.as_deref() {
        Some("\"a\"") => with_status(304, page(&[("etag", "\"a\""), ("x-confirmed", &run.to_string())], "")),
        _ => page(
            &[("cache-control", "max-age=10"), ("etag", "\"a\""), ("content-type", "text/html")],
            &format!("render {run}"),
        ),
    }
}

/// RFC 9111, section 4.3.4.
#[test]
fn a_handler_that_confirms_makes_it_fresh_again() {
    let (builder, time) = builder();
    let site = Site::with(builder, confirming);
    site.get("/", &[]);
    time.advance(20 * SECOND);
    let got = site.get("/", &[]);
    assert_eq!((got.status, got.body.as_str(), got.header("x-confirmed")), (200, "render 1", "2"));
    assert_eq!((got.header("content-type"), got.header("age")), ("text/html", "0"));
    assert_eq!(got.cache_status(), "larder; fwd=stale; fwd-status=304; ttl=10; stored");
    time.advance(9 * SECOND);
    assert_eq!((site.get("/", &[]).body.as_str(), site.runs()), ("render 1", 2));
    // Past what it is kept for, it is made anew.
    time.advance(400 * SECOND);
    assert_eq!(site.get("/", &[]).body, "render 3");
}

/// RFC 9111, section 5.2.1.4: the handler is asked, and what it confirms need not be made.
#[test]
fn a_client_that_insists_has_it_confirmed() {
    let site = Site::with(builder().0, confirming);
    site.get("/", &[]);
    let got = site.get("/", &[("cache-control", "no-cache")]);
    assert_eq!(
        (got.body.as_str(), got.cache_status(), site.runs()),
        ("render 1", "larder; fwd=request; fwd-status=304", 2)
    );
}

/// What a client that insists finds out is not kept from the others.
#[test]
fn a_response_that_proves_wrong_is_dropped() {
    let site = Site::with(builder().0, |run, _| {
        let tag = format!("\"{}\"", run.min(2));
        page(&[("cache-control", "max-age=60"), ("etag", &tag)], &format!("render {run}"))
    });
    site.get("/", &[]);
    assert_eq!(site.get("/", &[("cache-control", "no-cache")]).body, "render 2");
    assert_eq!((site.get("/", &[]).body.as_str(), site.get("/", &[]).body.as_str()), ("render 3", "render 3"));
}

/// Confirmed while its record is saved: what the handler compared was the old record.
#[test]
fn an_invalidation_while_it_is_confirmed_drops_it() {
    let (open, door) = Door::new();
    let (builder, time) = builder();
    let site = Site::with_async(builder, move |run, request| {
        let door = door.clone();
        async move {
            if run == 2 {
                door.pass().await;
            }
            let page = confirming(run, &request);
            // A 304 need not repeat what the page depends on.
            Ok(if run == 2 { page } else { depending(Depends::on(["record:7"]), page) })
        }
    });
    site.get("/", &[]);
    time.advance(10 * SECOND);
    let mut confirmed = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert!(poll(&mut confirmed).is_pending());
    site.cache.invalidate_group("record:7");
    let mut late = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert_eq!(block_on(&mut late).unwrap().body, "render 3", "it neither waits for the old nor gets it");
    open.send(()).unwrap();
    assert_eq!(block_on(confirmed).unwrap().body, "render 1");
    assert_eq!(site.get("/", &[]).body, "render 3");
}

/// The groups of a confirmed page still drop it.
#[test]
fn a_confirmed_page_keeps_its_groups() {
    let (builder, time) = builder();
    let site = Site::with(builder, |run, request| {
        let page = confirming(run, request);
        if run == 1 { depending(Depends::on(["record:7"]), page) } else { page }
    });
    site.get("/", &[]);
    time.advance(10 * SECOND);
    assert_eq!(site.get("/", &[]).header("x-confirmed"), "2");
    site.cache.invalidate_group("record:7");
    assert_eq!(site.get("/", &[]).body, "render 3");
}

/// A page that becomes private is gone from the cache.
#[test]
fn a_refresh_that_may_not_be_shared_takes_the_old_one_away() {
    let (builder, time) = builder();
    let site = Site::with(builder, |run, _| match run {
        1 => page(&[("cache-control", "max-age=10, stale-if-error=100"), ("etag", "\"a\"")], "public"),
        _ => page(&[("cache-control", "private")], &format!("private {run}")),
    });
    site.get("/", &[]);
    time.advance(10 * SECOND);
    assert_eq!(site.get("/", &[]).body, "private 2");
    assert_eq!(site.get("/", &[]).body, "private 3");
    assert_eq!(site.get("/", &[("cache-control", "max-stale")]).body, "private 4");
}

/// Refreshes in the background obey the same fences.
#[test]
fn an_invalidation_while_it_is_refreshed_drops_it() {
    let (open, door) = Door::new();
    let spawned = Spawned::default();
    let (builder, time) = builder();
    let keeper = spawned.clone();
    let builder = builder.spawner(move |refresh| keeper.lock().unwrap().push(refresh));
    let site = Site::with_async(builder, move |run, _| {
        let door = door.clone();
        async move {
            if run == 2 {
                door.pass().await;
            }
            let control = ("cache-control", "max-age=10, stale-while-revalidate=50");
            Ok(depending(Depends::on(["record:7"]), page(&[control], &format!("render {run}"))))
        }
    });
    site.get("/", &[]);
    time.advance(10 * SECOND);
    assert_eq!(site.get("/", &[]).body, "render 1");
    let mut refresh = Box::pin(join_all(std::mem::take(&mut *spawned.lock().unwrap())));
    assert!(poll(&mut refresh).is_pending());
    site.cache.invalidate_group("record:7");
    assert_eq!(site.get("/", &[]).body, "render 3");
    open.send(()).unwrap();
    block_on(refresh);
    assert_eq!(site.get("/", &[]).body, "render 3");
}
