//! Many requests at once: one handler for what may be shared, no waiting for what may not, and nothing stale left
//! behind.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::channel::oneshot::Sender;
use futures::executor::block_on;
use futures::future::join_all;
use http::Method;
use larder::http::Depends;

use super::{Broken, Door, Got, Page, Site, builder, depending, page, poll, request, with_status};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const CALLERS: usize = 100;

type Call = Pin<Box<dyn Future<Output = Result<Got, Broken>>>>;

/// A site whose handlers wait at a door, and one future for each of so many requests, all of them under way.
fn crowd(
    callers: usize,
    answer: impl Fn(usize) -> Result<Page, Broken> + Send + Sync + 'static,
) -> (Site, Sender<()>, Vec<Call>) {
    let (open, door) = Door::new();
    let answer = Arc::new(answer);
    let site = Site::with_async(builder().0, move |run, _| {
        let (door, answer) = (door.clone(), answer.clone());
        async move {
            door.pass().await;
            answer(run)
        }
    });
    let mut calls: Vec<Call> = Vec::new();
    for _ in 0..callers {
        let mut call = Box::pin(site.call(request(Method::GET, "/", &[])));
        assert!(poll(&mut call).is_pending());
        calls.push(call);
    }
    (site, open, calls)
}

#[test]
fn a_hundred_callers_run_one_handler() {
    let (site, open, calls) = crowd(CALLERS, |run| Ok(page(&[FRESH], &format!("render {run}"))));
    assert_eq!(site.runs(), 1);
    open.send(()).unwrap();
    let got = block_on(join_all(calls));
    assert!(got.iter().all(|got| got.as_ref().unwrap().body == "render 1"));
    let collapsed = got.iter().filter(|got| got.as_ref().unwrap().cache_status().contains("collapsed")).count();
    assert_eq!((site.runs(), collapsed), (1, CALLERS - 1));
}

/// Those who waited for what they may not have run their own handlers, all at once.
#[test]
fn what_may_not_be_shared_goes_to_its_own_caller_alone() {
    for header in [("cache-control", "private"), ("set-cookie", "a=b"), ("vary", "*"), ("cache-control", "no-store")] {
        let (site, open, calls) = crowd(CALLERS, move |run| Ok(page(&[header, FRESH], &format!("for caller {run}"))));
        assert_eq!(site.runs(), 1);
        open.send(()).unwrap();
        let mut bodies: Vec<String> = block_on(join_all(calls)).into_iter().map(|got| got.unwrap().body).collect();
        bodies.sort();
        bodies.dedup();
        assert_eq!((site.runs(), bodies.len()), (CALLERS, CALLERS), "{header:?}");
    }
}

/// The callers of an address that may not be shared do not queue behind each other.
#[test]
fn nobody_waits_where_nothing_is_shared() {
    let (open, door) = Door::new();
    let (builder, time) = builder();
    let site = Site::with_async(builder, move |run, _| {
        let door = door.clone();
        async move {
            if run > 1 {
                door.pass().await;
            }
            Ok(page(&[("cache-control", "private")], ""))
        }
    });
    site.get("/", &[]);
    let mut calls: Vec<_> = (0..CALLERS).map(|_| Box::pin(site.call(request(Method::GET, "/", &[])))).collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    assert_eq!(site.runs(), 1 + CALLERS, "all run at once");
    // After a while, one finds out whether it still is so.
    time.advance(Duration::from_secs(5));
    let mut calls: Vec<_> = (0..CALLERS).map(|_| Box::pin(site.call(request(Method::GET, "/", &[])))).collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    assert_eq!(site.runs(), 2 + CALLERS);
    drop(open);
}

/// A record that is saved while the handler runs: the page may show the record as it was before.
#[test]
fn an_invalidation_while_the_handler_runs_fences_its_response() {
    let (open, door) = Door::new();
    let site = Site::with_async(builder().0, move |run, _| {
        let door = door.clone();
        async move {
            if run == 1 {
                door.pass().await;
            }
            // Named at the end alone, long after the invalidation.
            Ok(depending(Depends::on(["record:7"]), page(&[FRESH, ("etag", "\"a\"")], &format!("render {run}"))))
        }
    });
    let mut early = Box::pin(site.call(request(Method::GET, "/", &[])));
    let mut waiting = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert!(poll(&mut early).is_pending() && poll(&mut waiting).is_pending());
    site.cache.invalidate_group("record:7");
    let mut late = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert!(poll(&mut late).is_pending());
    open.send(()).unwrap();
    let early = block_on(early).unwrap();
    assert_eq!(early.body, "render 1");
    assert!(!early.cache_status().contains("stored"), "{}", early.cache_status());
    // Who came after the invalidation does not get what began before it.
    assert_eq!(block_on(late).unwrap().body, "render 2");
    assert_eq!(site.get("/", &[]).body, "render 2");
    assert!(["render 1", "render 2"].contains(&block_on(waiting).unwrap().body.as_str()));
}

/// As above, for an address that is changed.
#[test]
fn a_change_while_the_handler_runs_fences_its_response() {
    let (open, door) = Door::new();
    let site = Site::with_async(builder().0, move |run, request| {
        let door = door.clone();
        async move {
            if run == 1 {
                door.pass().await;
            }
            Ok(page(if request.method() == Method::GET { &[FRESH] } else { &[] }, &format!("render {run}")))
        }
    });
    let mut early = Box::pin(site.call(request(Method::GET, "/7", &[])));
    assert!(poll(&mut early).is_pending());
    assert_eq!(site.send(Method::PUT, "/7", &[]).body, "render 2");
    open.send(()).unwrap();
    assert_eq!(block_on(early).unwrap().body, "render 1");
    assert_eq!(site.get("/7", &[]).body, "render 3");
    assert_eq!(site.get("/7", &[]).body, "render 3");
}

/// The same for the first response of an address that varies, which is stored by way of a list of its variants.
#[test]
fn an_invalidation_while_the_handler_runs_fences_a_variant() {
    let (open, door) = Door::new();
    let site = Site::with_async(builder().0, move |run, _| {
        let door = door.clone();
        async move {
            if run == 1 {
                door.pass().await;
            }
            Ok(depending(Depends::on(["record:7"]), page(&[FRESH, ("vary", "accept")], &format!("render {run}"))))
        }
    });
    let mut early = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert!(poll(&mut early).is_pending());
    site.cache.invalidate_group("record:7");
    open.send(()).unwrap();
    assert_eq!(block_on(early).unwrap().body, "render 1");
    assert_eq!(site.get("/", &[]).body, "render 2");
    assert_eq!(site.get("/", &[]).body, "render 2");
    site.cache.invalidate_group("record:7");
    assert_eq!(site.get("/", &[]).body, "render 3");
}

/// A client that leaves takes its handler with it, and another request runs its own.
#[test]
fn a_client_that_leaves_does_not_strand_the_others() {
    let (site, open, mut calls) = crowd(3, |run| Ok(page(&[FRESH], &format!("render {run}"))));
    drop(calls.remove(0));
    open.send(()).unwrap();
    let bodies: Vec<String> = block_on(join_all(calls)).into_iter().map(|got| got.unwrap().body).collect();
    assert_eq!((bodies, site.runs()), (vec!["render 2".to_owned(), "render 2".to_owned()], 2));
}

#[test]
fn errors_and_failures_are_each_callers_own_and_leave_nothing() {
    let failures: [fn() -> Result<Page, Broken>; 2] =
        [|| Err(Broken), || Ok(with_status(500, page(&[FRESH], "failed")))];
    for failure in failures {
        let (site, open, calls) = crowd(3, move |run| if run <= 3 { failure() } else { Ok(page(&[FRESH], "well")) });
        open.send(()).unwrap();
        for got in block_on(join_all(calls)) {
            assert!(matches!(got, Err(Broken)) || matches!(&got, Ok(got) if got.status == 500 && got.body == "failed"));
        }
        assert_eq!(
            (site.runs(), site.get("/", &[]).body.as_str(), site.get("/", &[]).body.as_str()),
            (3, "well", "well")
        );
        assert_eq!(site.runs(), 4);
    }
}

#[test]
fn a_panic_reaches_its_caller_and_frees_the_address() {
    let (site, open, mut calls) = crowd(2, |run| if run == 1 { panic!("handler") } else { Ok(page(&[FRESH], "well")) });
    open.send(()).unwrap();
    let first = calls.remove(0);
    assert!(catch_unwind(AssertUnwindSafe(|| block_on(first))).is_err());
    assert_eq!(block_on(calls.remove(0)).unwrap().body, "well");
    assert_eq!((site.get("/", &[]).body.as_str(), site.get("/", &[]).body.as_str()), ("well", "well"));
}

/// A handler that asks for its own page would wait for itself; it is answered by itself.
#[test]
fn a_handler_that_asks_for_its_own_page_does_not_wait_for_itself() {
    let inner: Arc<std::sync::OnceLock<Site>> = Arc::default();
    let depth = Arc::new(AtomicUsize::new(0));
    let site = Site::with_async(builder().0, {
        let inner = inner.clone();
        move |run, _| {
            let (inner, depth) = (inner.clone(), depth.clone());
            async move {
                if depth.fetch_add(1, Ordering::SeqCst) == 0 {
                    let own = inner.get().unwrap().call(request(Method::GET, "/", &[]));
                    return Ok(page(&[FRESH], &format!("{run} around {}", own.await?.body)));
                }
                Ok(page(&[FRESH], &run.to_string()))
            }
        }
    });
    assert!(inner.set(site.clone()).is_ok());
    assert_eq!(site.get("/", &[]).body, "1 around 2");
    assert_eq!(site.get("/", &[]).body, "1 around 2");
}

/// Who has waited as long as it may runs its own handler, and is answered.
#[test]
fn a_handler_that_hangs_does_not_hold_up_the_others_for_good() {
    let (builder, time) = builder();
    let site = Site::with_async(builder.wait(Duration::from_secs(3)), |run, _| async move {
        if run == 1 {
            std::future::pending::<()>().await;
        }
        Ok(page(&[FRESH], &format!("render {run}")))
    });
    let mut hanging = Box::pin(site.call(request(Method::GET, "/", &[])));
    let mut waiting = Box::pin(site.call(request(Method::GET, "/", &[])));
    assert!(poll(&mut hanging).is_pending() && poll(&mut waiting).is_pending());
    time.advance(Duration::from_secs(3));
    let Poll::Ready(Ok(got)) = poll(&mut waiting) else { panic!("it has waited long enough") };
    assert_eq!(got.body, "render 2");
}
