//! What is stored and what is not, seen from outside: does the handler run again? (RFC 9111, sections 3 and 5.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body_util::Full;
use larder::http::Depends;

use super::{Site, builder, depending, page, with_status};

const SECOND: Duration = Duration::from_secs(1);

/// Returns whether a second request is answered without the handler.
fn is_stored(status: u16, headers: &'static [(&'static str, &'static str)], request: &[(&str, &str)]) -> bool {
    let site = Site::with(builder().0, move |run, _| with_status(status, page(headers, &format!("render {run}"))));
    let first = site.get("/page", request);
    let second = site.get("/page", request);
    assert_eq!((first.status, first.body.as_str()), (status, "render 1"), "{headers:?}");
    assert_eq!(site.runs() == 1, second.body == "render 1");
    assert_eq!(first.cache_status().ends_with("; stored"), site.runs() == 1, "{}", first.cache_status());
    site.runs() == 1
}

/// RFC 9111, section 3.
#[test]
fn what_must_not_be_shared_never_is() {
    assert!(is_stored(200, &[("cache-control", "max-age=60")], &[]));
    for headers in [
        &[][..],
        &[("cache-control", "private, max-age=60")],
        &[("cache-control", "no-store, max-age=60")],
        &[("cache-control", "no-cache, max-age=60")],
        &[("cache-control", "max-age=0")],
        &[("cache-control", "max-age=60"), ("set-cookie", "session=7")],
        &[("cache-control", "max-age=60, public"), ("set-cookie", "session=7")],
        &[("cache-control", "max-age=60"), ("vary", "*")],
        &[("cache-control", "max-age=60"), ("vary", "accept, *")],
        &[("cache-control", "max-age=60"), ("content-range", "bytes 0-7/100")],
        &[("cache-control", "max-age=60"), ("cache-control", "private")],
        &[("expires", "0")],
        &[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")],
        &[("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")],
    ] {
        assert!(!is_stored(200, headers, &[]), "{headers:?}");
    }
}

/// RFC 9111, section 3: only final statuses that are understood.
#[test]
fn statuses_decide() {
    let fresh = &[("cache-control", "max-age=60")];
    for (status, stored) in
        [(200, true), (404, true), (301, true), (206, false), (418, false), (500, false), (503, false)]
    {
        assert_eq!(is_stored(status, fresh, &[]), stored, "{status}");
    }
}

/// RFC 9111, section 3.5.
#[test]
fn authorization_keeps_a_response_to_its_request() {
    let authorized = &[("authorization", "Bearer 7")];
    for (control, stored) in [
        (&[("cache-control", "max-age=60")], false),
        (&[("cache-control", "max-age=60, public")], true),
        (&[("cache-control", "s-maxage=60")], true),
        (&[("cache-control", "max-age=60, must-revalidate")], true),
    ] {
        assert_eq!(is_stored(200, control, authorized), stored, "{control:?}");
    }
}

/// What the public sees is neither shown to nor decided by those who identify themselves.
#[test]
fn the_public_and_the_authorized_do_not_share() {
    let (site, _) = Site::numbered(&[("cache-control", "max-age=60")]);
    assert_eq!(site.get("/", &[("authorization", "Bearer 7")]).body, "render 1");
    assert_eq!(site.get("/", &[]).body, "render 2");
    assert_eq!(site.get("/", &[("authorization", "Bearer 7")]).body, "render 3");
    assert_eq!(site.get("/", &[]).body, "render 2");
}

/// RFC 9111, section 5.2.1 and 5.4; RFC 9110, section 14: what a request may say against being answered from the cache.
#[test]
fn requests_may_ask_for_the_handler() {
    for header in [
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("cache-control", "no-store"),
        ("cache-control", "min-fresh=61"),
        ("pragma", "no-cache"),
        ("range", "bytes=0-3"),
        ("if-match", "\"a\""),
    ] {
        let (site, _) = Site::numbered(&[("cache-control", "max-age=60")]);
        site.get("/", &[]);
        assert_eq!(site.get("/", &[header]).body, "render 2", "{header:?}");
        // What the others get is not this client's to decide.
        assert_eq!(site.get("/", &[]).body, "render 1", "{header:?}");
    }
}

/// RFC 9111, section 5.2.1.5: neither stored nor looked for.
#[test]
fn a_request_with_no_store_leaves_nothing() {
    let (site, _) = Site::numbered(&[("cache-control", "max-age=60")]);
    site.get("/", &[("cache-control", "no-store")]);
    assert_eq!(site.get("/", &[]).body, "render 2");
}

/// RFC 9111, section 5.2.1.7.
#[test]
fn only_if_cached_never_runs_the_handler() {
    let (site, time) = Site::numbered(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    let only = &[("cache-control", "only-if-cached")];
    let refused = site.get("/", only);
    assert_eq!((refused.status, refused.cache_status(), site.runs()), (504, "larder", 0));
    site.get("/", &[]);
    assert_eq!(site.get("/", only).body, "render 1");
    time.advance(60 * SECOND);
    assert_eq!((site.get("/", only).status, site.runs()), (504, 1));
    // Nor where all that is known is that nothing may be stored, or a tag.
    for headers in [&[("cache-control", "private")][..], &[("etag", "\"a\"")]] {
        let site = Site::with(builder().0, |_, _| depending(Depends::on(["a"]), page(headers, "")));
        site.get("/", &[]);
        assert_eq!((site.get("/", only).status, site.runs()), (504, 1), "{headers:?}");
    }
    // Nor to refresh what may be served stale.
    let (site, time) = Site::numbered(&[("cache-control", "max-age=60, stale-while-revalidate=60")]);
    site.get("/", &[]);
    time.advance(70 * SECOND);
    assert_eq!((site.get("/", only).status, site.runs()), (200, 1));
}

/// RFC 9111, section 4.2.3 and 5.1.
#[test]
fn age_and_date_say_when_it_was_made() {
    let (site, time) = Site::numbered(&[("cache-control", "max-age=60")]);
    let date = |got: &super::Got| httpdate::parse_http_date(got.header("date")).unwrap();
    let first = site.get("/", &[]);
    time.advance(20 * SECOND);
    let later = site.get("/", &[]);
    assert_eq!((first.header("age"), later.header("age")), ("0", "20"));
    assert_eq!(date(&first), date(&later));
    assert_eq!(later.cache_status(), "larder; hit; ttl=40");
    time.advance(40 * SECOND);
    assert_eq!(site.get("/", &[]).body, "render 2");
}

#[test]
fn what_came_old_is_fresh_for_the_rest() {
    let (site, time) = Site::numbered(&[("cache-control", "max-age=60"), ("age", "50")]);
    assert_eq!(site.get("/", &[]).header("age"), "50");
    time.advance(9 * SECOND);
    assert_eq!(site.get("/", &[]).header("age"), "59");
    time.advance(SECOND);
    assert_eq!(site.get("/", &[]).body, "render 2");
}

/// RFC 9110, section 9.3.2: a HEAD is a GET without the content.
#[test]
fn head_shares_with_get() {
    let (site, _) = Site::numbered(&[("cache-control", "max-age=60")]);
    let head = site.send(Method::HEAD, "/", &[]);
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", "8"));
    assert_eq!(site.get("/", &[]).body, "render 1");
    assert_eq!(site.send(Method::HEAD, "/", &[]).cache_status(), "larder; hit; ttl=60");
    assert_eq!(site.runs(), 1);
}

/// RFC 9110, section 8.6: also where the content is nobody else's.
#[test]
fn head_says_how_long_the_content_would_be() {
    let (site, _) = Site::numbered(&[("cache-control", "private")]);
    for _ in 0..2 {
        let head = site.send(Method::HEAD, "/", &[]);
        assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", "8"));
    }
}

/// A handler that is asked for the head alone, since nothing may be stored, and leaves out a content that has a length.
#[test]
fn no_head_says_that_there_would_be_no_content() {
    let answer = |request: &http::Request<()>| if request.method() == Method::HEAD { "" } else { "body" };
    let site = Site::with(builder().0, move |_, request| page(&[("cache-control", "private")], answer(request)));
    site.get("/", &[]);
    assert_eq!(site.send(Method::HEAD, "/", &[]).header("content-length"), "");
}

/// The date on which it was made is before those that a header can say.
#[test]
fn what_says_to_be_older_than_time_is_served() {
    let (site, _) = Site::numbered(&[("cache-control", "max-age=2147483647"), ("age", "2100000000")]);
    for _ in 0..2 {
        let got = site.get("/", &[]);
        assert_eq!((got.body.as_str(), got.header("date")), ("render 1", "Thu, 01 Jan 1970 00:00:00 GMT"));
    }
}

/// Which of the two a handler goes by, the key cannot know: what one client says of itself must not be told to the next.
#[test]
fn a_request_of_two_hosts_poisons_nothing() {
    let site = Site::with(builder().0, |_, request| {
        let host = request.headers().get_all("host").iter().next_back();
        page(&[("cache-control", "max-age=60")], host.map_or("h", |host| host.to_str().unwrap()))
    });
    site.get("https://h/", &[("host", "evil")]);
    assert_eq!(site.get("https://h/", &[]).body, "h");
    site.get("/", &[("host", "h"), ("host", "evil")]);
    assert_eq!(site.get("/", &[("host", "H")]).body, "H");
    assert_eq!(site.get("/", &[("host", "h"), ("host", "H")]).cache_status(), "larder; hit; ttl=60");
}

/// RFC 9111, section 4.4. Requests of HTTP/2 say the scheme, and those of HTTP/1.1 do not.
#[test]
fn a_change_drops_its_address_for_clients_of_every_version() {
    let (site, _) = Site::numbered(&[("cache-control", "max-age=60")]);
    let host = &[("host", "h")][..];
    for (uri, headers, other, others_headers) in [("https://h/a", &[][..], "/a", host), ("/b", host, "http://h/b", &[])]
    {
        let first = site.get(uri, headers).body;
        assert_eq!(site.get(uri, headers).body, first);
        site.send(Method::PUT, other, others_headers);
        assert_ne!(site.get(uri, headers).body, first, "{uri}");
    }
}

/// Bytes that say when they are freed.
struct Watched(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

/// A handler that hands on what it got over a connection has slices of all that it read there: what a page weighs is what
/// it holds.
#[test]
fn a_page_holds_no_more_than_it_weighs() {
    let (is_body_freed, is_value_freed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (body_freed, value_freed) = (is_body_freed.clone(), is_value_freed.clone());
    let site = Site::with(builder().0, move |_, _| {
        let read = |freed: &Arc<AtomicBool>| Bytes::from_owner(Watched(vec![b'a'; 100_000], freed.clone()));
        let mut page = page(&[("cache-control", "max-age=60")], "");
        *page.body_mut() = Full::new(read(&body_freed).slice(..10));
        let value = HeaderValue::from_maybe_shared(read(&value_freed).slice(..10)).unwrap();
        page.headers_mut().insert("x-read", value);
        page
    });
    let got = site.get("/", &[]);
    assert_eq!((got.body.as_str(), got.header("x-read")), ("aaaaaaaaaa", "aaaaaaaaaa"));
    drop(got);
    assert!((1..1_000).contains(&site.cache.weight()));
    assert!(is_body_freed.load(Ordering::SeqCst) && is_value_freed.load(Ordering::SeqCst));
    assert_eq!((site.get("/", &[]).body.len(), site.runs()), (10, 1));
}

/// RFC 9111, section 4.4.
#[test]
fn a_change_that_succeeds_drops_its_address() {
    for (method, status, dropped) in [
        (Method::POST, 200, true),
        (Method::PUT, 204, true),
        (Method::DELETE, 200, true),
        (Method::PATCH, 303, true),
        (Method::POST, 400, false),
        (Method::POST, 500, false),
        (Method::OPTIONS, 200, false),
    ] {
        let site = Site::with(builder().0, move |run, request| match *request.method() {
            Method::GET => page(&[("cache-control", "max-age=60")], &format!("render {run}")),
            _ => with_status(status, page(&[("location", "/list")], "")),
        });
        site.get("/record", &[]);
        site.get("/list", &[]);
        site.get("/other", &[]);
        let changed = site.send(method.clone(), "/record", &[]);
        assert_eq!(changed.cache_status(), format!("larder; fwd=method; fwd-status={status}"));
        assert_eq!(site.get("/record", &[]).body != "render 1", dropped, "{method} {status}");
        assert_eq!(site.get("/list", &[]).body != "render 2", dropped, "{method} {status}");
        assert_eq!(site.get("/other", &[]).body, "render 3");
    }
}

#[test]
fn what_is_too_large_passes_unharmed() {
    let site = Site::with(builder().0.max_body(7), |run, _| {
        page(&[("cache-control", "max-age=60")], &format!("render {run}"))
    });
    let first = site.get("/", &[]);
    assert_eq!(
        (first.body.as_str(), first.cache_status()),
        ("render 1", "larder; fwd=uri-miss; fwd-status=200; detail=body-size")
    );
    assert_eq!(site.get("/", &[]).body, "render 2");
}

/// RFC 9111, section 3.3.
#[test]
fn what_is_incomplete_is_not_stored() {
    assert!(!is_stored(200, &[("cache-control", "max-age=60"), ("content-length", "9")], &[]));
    assert!(is_stored(200, &[("cache-control", "max-age=60"), ("content-length", "8")], &[]));
}

#[test]
fn a_cache_of_no_capacity_stores_nothing_and_serves_all() {
    let site = Site::with(builder().0.capacity(0), |run, _| {
        page(&[("cache-control", "max-age=60")], &format!("render {run}"))
    });
    assert_eq!(site.get("/", &[]).body, "render 1");
    assert_eq!(site.get("/", &[]).body, "render 2");
}

#[test]
fn what_is_held_is_bounded_in_bytes() {
    let body = "x".repeat(10_000);
    let site = Site::with(builder().0, move |_, _| page(&[("cache-control", "max-age=60")], &body));
    for number in 0..500 {
        site.get(&format!("/{number}"), &[]);
        assert!(site.cache.weight() <= super::CAPACITY);
    }
    assert!(site.cache.weight() > super::CAPACITY / 2);
}

#[test]
fn addresses_that_are_too_long_pass() {
    let (site, _) = Site::numbered(&[("cache-control", "max-age=60")]);
    let long = format!("/{}", "a".repeat(5_000));
    assert_eq!(site.get(&long, &[]).cache_status(), "larder; fwd=bypass; fwd-status=200");
    assert_eq!(site.get(&long, &[]).body, "render 2");
}

/// A page that browsers are to ask for each time is answered from the cache until its record is saved.
#[test]
fn an_origin_keeps_its_own_pages() {
    let site = Site::with(builder().0, |run, _| {
        let depends = Depends::on(["record:7"]).keep(600 * SECOND);
        depending(depends, page(&[("cache-control", "no-cache"), ("etag", "\"7-1\"")], &format!("render {run}")))
    });
    site.get("/7", &[]);
    let held = site.get("/7", &[("cache-control", "max-age=0")]);
    assert_eq!((held.body.as_str(), held.header("cache-control"), held.header("age")), ("render 1", "no-cache", ""));
    assert_eq!(site.get("/7", &[("if-none-match", "\"7-1\"")]).status, 304);
    site.cache.invalidate_group("record:7");
    assert_eq!(site.get("/7", &[]).body, "render 2");
}

#[test]
fn one_group_drops_every_page_made_from_it() {
    let site = Site::with(builder().0, |run, request| {
        let depends = match request.uri().path() {
            "/7" => Depends::on(["record:7"]),
            "/8" => Depends::on(["record:8"]),
            _ => Depends::on(["record:7", "record:8"]),
        };
        depending(depends, page(&[("cache-control", "max-age=60")], &format!("render {run}")))
    });
    let all = || ["/7", "/8", "/list"].map(|path| site.get(path, &[]).body);
    assert_eq!(all(), ["render 1", "render 2", "render 3"]);
    site.cache.invalidate_group("record:7");
    assert_eq!(all(), ["render 4", "render 2", "render 5"]);
    site.cache.clear();
    assert_eq!(all(), ["render 6", "render 7", "render 8"]);
}

#[test]
fn the_status_can_be_left_out_and_named() {
    let quiet = Site::with(builder().0.cache_status(false), |_, _| page(&[], ""));
    assert_eq!(quiet.get("/", &[]).cache_status(), "");
    let named = Site::with(builder().0.name("pages"), |_, _| page(&[], ""));
    assert_eq!(named.get("/", &[]).cache_status(), "pages; fwd=uri-miss; fwd-status=200; detail=no-freshness");
    assert_eq!(named.get("/", &[]).cache_status(), "pages; fwd=miss; fwd-status=200; detail=uncacheable");
}

#[test]
fn bad_settings_are_refused_with_what_to_do() {
    let message = |builder: larder::http::ResponseCacheBuilder| builder.build().unwrap_err().to_string();
    assert!(message(larder::http::ResponseCache::builder()).contains("capacity is not set"));
    assert!(message(builder().0.name("two words")).contains("name is \"two words\""));
    assert!(message(builder().0.wait(Duration::ZERO)).contains("wait is zero"));
    assert!(message(builder().0.heuristic_freshness(1.5, SECOND)).contains("heuristic_freshness is 1.5"));
}
