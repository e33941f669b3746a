//! The cache of HTTP responses.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, IF_NONE_MATCH};
use larder::http::{CacheControl, Depends, ETag, IfNoneMatch, ResponseCache, ResponseCacheBuilder};
use larder::{Clock, Groups};

use crate::{SECOND, huge, refused};

fn builder() -> ResponseCacheBuilder {
    ResponseCache::builder().capacity(1 << 20)
}

#[test]
fn a_response_caches_name_is_a_token() {
    for name in ["", "7", "a b", "größe", "a\0", "-"] {
        refused(builder().name(name).build(), &[&format!("name is {name:?}"), "begin with a letter"]);
    }
    assert!(builder().name(&huge()).build().is_ok());
}

#[test]
fn a_response_caches_sizes_may_be_nothing_and_all() {
    refused(ResponseCache::builder().build(), &["capacity is not set"]);
    for size in [0, u64::MAX] {
        assert_eq!(ResponseCache::new(size).weight(), 0);
        assert!(builder().capacity(size).max_body(size as usize).build().is_ok());
    }
}

#[test]
fn a_response_caches_times_are_checked() {
    refused(builder().wait(Duration::ZERO).build(), &["wait is zero", "set how long"]);
    for time in [Duration::ZERO, Duration::MAX] {
        let builder = builder().retry_after(time).revalidate_for(time).validators_for(time);
        assert!(builder.wait(Duration::MAX).cache_status(false).spawner(drop).build().is_ok());
    }
    for part in [f64::NAN, 0.0, -0.1, 1.1, f64::INFINITY] {
        let says = [&format!("heuristic_freshness is {part}")[..], "up to 1"];
        refused(builder().heuristic_freshness(part, SECOND).build(), &says);
    }
    assert!(builder().heuristic_freshness(f64::MIN_POSITIVE, Duration::MAX).build().is_ok());
    assert!(
        builder().heuristic_freshness(1.0, Duration::ZERO).clock(Clock::system()).groups(Groups::new()).build().is_ok()
    );
}

#[cfg(feature = "tiered")]
#[test]
fn a_namespace_brings_clock_and_groups_of_its_own() {
    let namespace = larder::Namespace::builder("ns", larder::InMemoryRemote::new()).build().unwrap();
    refused(
        builder().namespace(&namespace).clock(Clock::system()).build(),
        &["namespace has clock and groups", "leave"],
    );
    refused(
        builder().namespace(&namespace).groups(Groups::new()).build(),
        &["namespace has clock and groups", "leave"],
    );
    refused(builder().namespace(&namespace).name("a:b").build(), &["cache name", "a:b"]);
}

#[test]
fn groups_of_pages_may_be_called_anything() {
    let cache = builder().build().unwrap();
    for name in ["", "\0", "größe", &huge()] {
        assert!(cache.invalidate_group(name) && cache.invalidate_groups([name, name]));
        let depends = Depends::on([name, name]).keep(Duration::MAX).keep(Duration::ZERO);
        assert_eq!(depends.clone(), depends);
    }
    assert!(cache.invalidate_groups(std::iter::empty::<&str>()));
}

#[test]
fn what_is_no_tag_is_an_error() {
    for opaque in ["a b", "a\"b", "\0", "\u{7f}", "\n"] {
        refused(ETag::strong(opaque), &["an entity tag is", "white space"]);
        refused(ETag::weak(opaque), &["an entity tag is", "white space"]);
    }
    for bytes in [&b""[..], b"\"", b"x", b"\"x", b"w/\"x\"", b"\"a\" \"b\"", b"\"\xff", b"\"\0\""] {
        refused(ETag::parse(bytes), &["an entity tag is"]);
    }
    let (empty, huge) = (ETag::strong("").unwrap(), ETag::weak(&huge()).unwrap());
    assert!(empty.matches_strongly(&empty) && !huge.matches_strongly(&huge) && huge.matches_weakly(&huge));
    assert_eq!(ETag::parse(b"\"\xff\"").unwrap().to_string(), "\"\u{fffd}\"");
}

#[test]
fn a_list_of_tags_is_read_as_far_as_it_can_be() {
    let tags = |value: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_bytes(value).unwrap());
        IfNoneMatch::of(&headers)
    };
    let tag = ETag::strong("a").unwrap();
    assert_eq!(IfNoneMatch::of(&HeaderMap::new()), None);
    for value in [&b""[..], b",,,", b"garbage", b"\xff", b"\"", b"*, \"a\"", "\"b\",".repeat(1 << 15).as_bytes()] {
        let held = tags(value).unwrap();
        assert!(!held.matches(Some(&tag)) && !held.matches(None), "the client is answered in full");
    }
    assert!(tags(b"*").unwrap().matches(None));
    assert!(tags(b"\"a\", garbage").unwrap().matches(Some(&tag)));
}

#[test]
fn a_doubtful_cache_control_allows_less() {
    let parse = CacheControl::parse;
    assert_eq!(parse(""), CacheControl::default());
    assert_eq!(parse(",, ,"), CacheControl::default());
    for garbage in ["max age=60", "\0", "größe", "=", "a=b c", "\"unfinished"] {
        assert!(parse(garbage).no_store, "{garbage}");
    }
    for (text, secs) in
        [("max-age", 0), ("max-age=-1", 0), ("max-age=1.5", 0), ("max-age=99999999999999999999", 1 << 31)]
    {
        assert_eq!(parse(text).max_age, Some(Duration::from_secs(secs)), "{text}");
    }
    assert_eq!(parse(&"max-age=7,".repeat(1 << 15)).max_age, Some(Duration::from_secs(7)));
    let mut headers = HeaderMap::new();
    headers.append(CACHE_CONTROL, HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    assert!(CacheControl::of(&headers).no_store);
}
