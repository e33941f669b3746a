//! Responses that depend on what the request says (RFC 9111, section 4.1).

use std::time::Duration;

use http::Method;
use larder::http::Depends;

use super::{Site, builder, depending, page, request};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// A page in the language that is asked for.
fn translated() -> Site {
    Site::with(builder().0, |run, request| {
        let language = request.headers().get("accept-language").map_or("none", |language| language.to_str().unwrap());
        let page =
            page(&[FRESH, ("vary", "Accept-Language"), ("etag", &format!("\"{run}\""))], &format!("{language} {run}"));
        depending(Depends::on([format!("language:{}", language.trim())]), page)
    })
}

fn in_language(site: &Site, language: &str) -> String {
    site.get("/", &[("accept-language", language)]).body
}

#[test]
fn each_variant_is_stored_for_itself() {
    let site = translated();
    assert_eq!([in_language(&site, "en"), in_language(&site, "de")], ["en 1", "de 2"]);
    assert_eq!([in_language(&site, "en"), in_language(&site, "de")], ["en 1", "de 2"]);
    assert_eq!(site.get("/", &[]).body, "none 3");
    assert_eq!(site.get("/", &[]).body, "none 3");
    // What means the same is the same.
    assert_eq!([in_language(&site, " EN "), in_language(&site, "DE")], ["en 1", "de 2"]);
    assert_eq!(site.get("/", &[("accept-language", "en"), ("if-none-match", "\"1\"")]).status, 304);
    assert_eq!(site.runs(), 3);
}

#[test]
fn the_status_tells_a_new_address_from_a_new_variant() {
    let site = translated();
    let status = |language| site.get("/", &[("accept-language", language)]).cache_status().to_owned();
    assert_eq!(status("en"), "larder; fwd=uri-miss; fwd-status=200; ttl=60; stored");
    assert_eq!(status("de"), "larder; fwd=vary-miss; fwd-status=200; ttl=60; stored");
    assert_eq!(status("de"), "larder; hit; ttl=60");
}

#[test]
fn invalidations_reach_every_variant() {
    let site = translated();
    let all = || ["en", "de", "fr"].map(|language| in_language(&site, language));
    assert_eq!(all(), ["en 1", "de 2", "fr 3"]);
    site.cache.invalidate_group("language:de");
    assert_eq!(in_language(&site, "de"), "de 4");
    assert_eq!(in_language(&site, "fr"), "fr 3");
    // RFC 9111, section 4.4: the address is changed, so all of its variants are.
    site.send(Method::PUT, "/", &[]);
    assert_eq!(all(), ["en 6", "de 7", "fr 8"]);
}

/// Several at once: one handler for each variant, once it is known that there are any.
#[test]
fn requests_wait_for_their_own_variant_alone() {
    let (open, door) = super::Door::new();
    let site = Site::with_async(builder().0, move |run, request| {
        let door = door.clone();
        async move {
            door.pass().await;
            let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
            Ok(page(&[FRESH, ("vary", "accept-language")], &format!("{language} {run}")))
        }
    });
    let languages = ["en", "en", "de", "de", "fr"];
    let mut calls: Vec<_> = languages
        .iter()
        .map(|language| Box::pin(site.call(request(Method::GET, "/", &[("accept-language", language)]))))
        .collect();
    assert!(calls.iter_mut().all(|call| super::poll(call).is_pending()));
    open.send(()).unwrap();
    let got = futures::executor::block_on(futures::future::join_all(calls));
    for (got, language) in got.into_iter().zip(languages) {
        assert!(got.unwrap().body.starts_with(language));
    }
    assert_eq!(site.runs(), 3);
}

/// A client chooses its headers: whatever it sends, an address takes a bounded part of the cache.
#[test]
fn variants_of_one_address_are_bounded() {
    let body = "x".repeat(1_000);
    let site = Site::with(builder().0, move |_, _| page(&[FRESH, ("vary", "x-whim")], &body));
    for whim in 0..200 {
        assert_eq!(site.get("/", &[("x-whim", &whim.to_string())]).status, 200);
    }
    assert!(site.cache.weight() < 32 * 2_000 + 10_000, "{}", site.cache.weight());
    // The newest are there, the oldest have made room.
    site.get("/", &[("x-whim", "199")]);
    assert_eq!(site.runs(), 200);
    site.get("/", &[("x-whim", "0")]);
    assert_eq!(site.runs(), 201);
    // And no longer ones than is sensible.
    let whim = "x".repeat(5_000);
    assert_eq!(site.get("/", &[("x-whim", &whim)]).cache_status(), "larder; fwd=bypass; fwd-status=200");
}

/// A page that turns out to depend on more than its address did so far.
#[test]
fn what_varies_by_more_is_told_apart_by_more() {
    let site = Site::with(builder().0, |_, request| {
        let header =
            |name: &str| request.headers().get(name).map_or("none", |value| value.to_str().unwrap()).to_owned();
        let vary = if header("accept-language") == "de" { "accept-language, cookie" } else { "accept-language" };
        page(&[FRESH, ("vary", vary)], &format!("{} {}", header("accept-language"), header("cookie")))
    });
    let get = |language, cookie| site.get("/", &[("accept-language", language), ("cookie", cookie)]).body;
    assert_eq!(get("en", "a=1"), "en a=1");
    assert_eq!(get("en", "a=2"), "en a=1", "it does not say that it depends on the cookie");
    for _ in 0..3 {
        assert_eq!([get("de", "a=1"), get("de", "a=2")], ["de a=1", "de a=2"]);
    }
    let runs = site.runs();
    assert_eq!([get("de", "a=1"), get("de", "a=2")], ["de a=1", "de a=2"]);
    assert_eq!(site.runs(), runs);
}

/// Of a header that this cache does not know, neither case nor space is known to mean nothing.
#[test]
fn what_may_differ_selects_differently() {
    let names = ["accept", "accept-token", "cookie"];
    let site = Site::with(builder().0, move |_, request| {
        let said = names.map(|name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()));
        page(&[FRESH, ("vary", &names.join(", "))], &said.concat())
    });
    for (name, value) in [
        ("accept", "text/html;profile=\"A\""),
        ("accept", "text/html;profile=\"a\""),
        ("accept-token", "A"),
        ("accept-token", "a"),
        ("cookie", "name=\"x, y\""),
        ("cookie", "name=\"x,y\""),
    ] {
        assert_eq!(site.get("/", &[(name, value)]).body, value);
    }
}

#[test]
fn a_variant_ages_by_itself() {
    let (builder, time) = builder();
    let site = Site::with(builder, |run, _| page(&[FRESH, ("vary", "accept")], &format!("render {run}")));
    assert_eq!(site.get("/", &[("accept", "a")]).body, "render 1");
    time.advance(Duration::from_secs(40));
    assert_eq!(site.get("/", &[("accept", "b")]).body, "render 2");
    time.advance(Duration::from_secs(20));
    assert_eq!(site.get("/", &[("accept", "a")]).body, "render 3");
    assert_eq!(site.get("/", &[("accept", "b")]).header("age"), "20");
}
