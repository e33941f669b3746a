//! Conditional requests: what a client holds is not sent again, and not made again (RFC 9110, section 13).

use std::time::Duration;

use http::Method;
use larder::http::Depends;

use super::{Site, builder, depending, page, with_status};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// RFC 9110, section 13.1.2.
#[test]
fn a_known_validator_is_a_304_and_the_handler_does_not_run() {
    let (site, _) = Site::numbered(&[FRESH, ("etag", "\"7-1\""), ("content-type", "text/html")]);
    site.get("/", &[]);
    for (held, status) in
        [("\"7-1\"", 304), ("W/\"7-1\"", 304), ("\"6-1\", \"7-1\"", 304), ("*", 304), ("\"6-1\"", 200), ("7-1", 200)]
    {
        let got = site.get("/", &[("if-none-match", held)]);
        assert_eq!((got.status, got.body.is_empty()), (status, status == 304), "{held}");
    }
    assert_eq!(site.runs(), 1);
}

/// RFC 9110, section 15.4.5.
#[test]
fn a_304_has_the_headers_it_must_have_and_none_of_the_content() {
    let (site, _) = Site::numbered(&[
        FRESH,
        ("etag", "\"a\""),
        ("vary", "accept"),
        ("content-location", "/there"),
        ("expires", THEN),
        ("content-type", "text/html"),
        ("content-language", "en"),
        ("last-modified", THEN),
    ]);
    site.get("/", &[]);
    let got = site.get("/", &[("if-none-match", "\"a\"")]);
    for present in ["etag", "vary", "content-location", "expires", "cache-control", "date", "age"] {
        assert!(got.headers.contains_key(present), "{present}");
    }
    for absent in ["content-type", "content-language", "content-length", "last-modified"] {
        assert!(!got.headers.contains_key(absent), "{absent}");
    }
    assert_eq!(got.cache_status(), "larder; hit; ttl=60");
}

#[test]
fn many_values_in_many_headers_are_looked_at() {
    let (site, _) = Site::numbered(&[FRESH, ("etag", "\"a\"")]);
    site.get("/", &[]);
    let headers: Vec<(&str, &str)> = vec![("if-none-match", "\"x\",\"y,z\""), ("if-none-match", "\"v\" , W/\"a\"")];
    assert_eq!(site.get("/", &headers).status, 304);
    // And no more of them than is sensible.
    let many = "\"x\",".repeat(100) + "\"a\"";
    assert_eq!(site.get("/", &[("if-none-match", &many)]).status, 200);
    assert_eq!(site.runs(), 1);
}

/// RFC 9110, section 13.1.3.
#[test]
fn dates_count_where_there_are_no_tags() {
    let (site, _) = Site::numbered(&[FRESH, ("last-modified", THEN), ("etag", "\"a\"")]);
    site.get("/", &[]);
    let later = "Sun, 06 Nov 1994 08:49:38 GMT";
    let earlier = "Sun, 06 Nov 1994 08:49:36 GMT";
    assert_eq!(site.get("/", &[("if-modified-since", THEN)]).status, 304);
    assert_eq!(site.get("/", &[("if-modified-since", later)]).status, 304);
    assert_eq!(site.get("/", &[("if-modified-since", earlier)]).status, 200);
    assert_eq!(site.get("/", &[("if-modified-since", "soon")]).status, 200);
    assert_eq!(site.get("/", &[("if-modified-since", later), ("if-none-match", "\"b\"")]).status, 200);
    assert_eq!(site.runs(), 1);
}

#[test]
fn a_head_is_not_modified_either() {
    let (site, _) = Site::numbered(&[FRESH, ("etag", "\"a\"")]);
    assert_eq!(site.send(Method::HEAD, "/", &[("if-none-match", "\"a\"")]).status, 304);
    assert_eq!(site.send(Method::HEAD, "/", &[("if-none-match", "\"a\"")]).status, 304);
    assert_eq!(site.runs(), 1);
}

/// RFC 9110, section 13.2.1.
#[test]
fn what_is_no_success_is_sent_again() {
    let site = Site::with(builder().0, |_, _| with_status(404, page(&[FRESH, ("etag", "\"a\"")], "none")));
    site.get("/", &[]);
    assert_eq!(site.get("/", &[("if-none-match", "\"a\"")]).status, 404);
    assert_eq!(site.runs(), 1);
}

/// The first request of all may be conditional: its answer is stored whole, and not sent to who holds it.
#[test]
fn a_condition_does_not_reach_a_handler_whose_response_is_stored() {
    let site = Site::with(builder().0, |_, request| {
        assert!(
            !request.headers().contains_key("if-none-match") && !request.headers().contains_key("if-modified-since")
        );
        page(&[FRESH, ("etag", "\"a\"")], "page")
    });
    assert_eq!(site.get("/", &[("if-none-match", "\"a\""), ("if-modified-since", THEN)]).status, 304);
    let whole = site.get("/", &[]);
    assert_eq!((whole.status, whole.body.as_str(), site.runs()), (200, "page", 1));
}

/// Also where nothing is stored, a client does not get what it holds.
#[test]
fn what_may_not_be_shared_is_not_sent_again_either() {
    let (site, _) = Site::numbered(&[("cache-control", "private"), ("etag", "\"a\""), ("set-cookie", "a=b")]);
    for run in 1..3 {
        let got = site.get("/", &[("if-none-match", "\"a\"")]);
        assert_eq!((got.status, got.header("set-cookie"), site.runs()), (304, "a=b", run));
    }
}

fn validators() -> Site {
    Site::with(builder().0.max_body(100), |run, request| {
        let depends = Depends::on(["record:7"]);
        let body = "x".repeat(101);
        match request.uri().path() {
            "/large" => page(&[FRESH, ("etag", "\"large\""), ("content-type", "text/plain")], &body),
            "/no-cache" => depending(depends, page(&[("cache-control", "no-cache"), ("etag", "\"asked\"")], "page")),
            "/silent" => depending(depends, page(&[("etag", "\"silent\"")], "page")),
            "/unanswered-for" => page(&[("cache-control", "no-cache"), ("etag", "\"alone\"")], "page"),
            "/changing" => {
                let tag = if run == 1 { "\"first\"" } else { "\"second\"" };
                depending(depends, page(&[("etag", tag)], "page"))
            }
            other => panic!("no page {other}"),
        }
    })
}

/// The store of validators: the page is not stored, its tag is.
#[test]
fn a_validator_alone_answers_for_a_page_that_is_not_stored() {
    for (path, tag) in [("/large", "\"large\""), ("/no-cache", "\"asked\""), ("/silent", "\"silent\"")] {
        let site = validators();
        let first = site.get(path, &[]);
        assert_eq!((first.status, first.header("etag")), (200, tag), "{path}");
        assert!(first.cache_status().ends_with("detail=validator"), "{}", first.cache_status());
        let held = site.get(path, &[("if-none-match", tag), ("cache-control", "max-age=0")]);
        let held_quietly = site.get(path, &[("if-none-match", &format!("\"other\", {tag}"))]);
        assert_eq!((held_quietly.status, held_quietly.header("etag")), (304, tag), "{path}");
        assert!(!held_quietly.headers.contains_key("content-type"));
        // Who names the groups answers for the tag; what is merely fresh is doubtful to a client that insists.
        assert_eq!((held.status, site.runs()), (304, if path == "/large" { 2 } else { 1 }), "{path}");
        let runs = site.runs();
        assert_eq!(site.get(path, &[("if-none-match", "\"other\"")]).status, 200);
        assert_eq!(site.get(path, &[]).status, 200);
        assert_eq!(site.runs(), runs + 2, "{path}");
    }
}

#[test]
fn a_saved_record_drops_its_validators() {
    let site = validators();
    for (path, tag) in [("/no-cache", "\"asked\""), ("/silent", "\"silent\"")] {
        site.get(path, &[]);
        let runs = site.runs();
        assert_eq!((site.get(path, &[("if-none-match", tag)]).status, site.runs()), (304, runs));
        site.cache.invalidate_group("record:7");
        // The tag is what it was, so that it is a 304; but the handler says so.
        assert_eq!((site.get(path, &[("if-none-match", tag)]).status, site.runs()), (304, runs + 1));
    }
}

/// A response that must be confirmed each time, and whose handler names nothing that it depends on, is confirmed each
/// time.
#[test]
fn a_validator_that_nobody_answers_for_is_not_remembered() {
    let site = validators();
    for run in 1..4 {
        assert_eq!((site.get("/unanswered-for", &[("if-none-match", "\"alone\"")]).status, site.runs()), (304, run));
    }
}

#[test]
fn a_validator_that_proves_wrong_is_dropped() {
    let site = validators();
    site.get("/changing", &[]);
    assert_eq!((site.get("/changing", &[("if-none-match", "\"first\"")]).status, site.runs()), (304, 1));
    assert_eq!((site.get("/changing", &[]).header("etag"), site.runs()), ("\"second\"", 2));
    assert_eq!((site.get("/changing", &[("if-none-match", "\"first\"")]).status, site.runs()), (200, 3));
    assert_eq!((site.get("/changing", &[("if-none-match", "\"second\"")]).status, site.runs()), (304, 3));
}

#[test]
fn a_validator_is_known_for_its_time() {
    let (builder, time) = builder();
    let site = Site::with(builder.validators_for(Duration::from_secs(10)), |_, _| {
        depending(Depends::on(["a"]), page(&[("etag", "\"a\"")], "page"))
    });
    let held = || (site.get("/", &[("if-none-match", "\"a\"")]).status, site.runs());
    assert_eq!([held(), held()], [(304, 1), (304, 1)]);
    time.advance(Duration::from_secs(10));
    assert_eq!(held(), (304, 2));
}
