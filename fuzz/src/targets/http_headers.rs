//! The headers that clients and handlers write: `If-None-Match`, `ETag`, `Cache-Control`.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderName, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use larder::http::{CacheControl, ETag, IfNoneMatch};

use crate::heap;
use crate::input::Input;

/// How many tags are looked at.
const MAX_TAGS: usize = 64;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.below(3);
    let lines: Vec<HeaderValue> =
        input.rest().split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let bytes: usize = lines.iter().map(HeaderValue::len).sum();
    // The tables of headers that a target makes count, too.
    heap::within(16 * bytes + 512 * lines.len() + (64 << 10), || match kind {
        0 => if_none_match(&lines),
        1 => cache_control(&lines),
        _ => lines.iter().for_each(etag),
    });
}

fn headers<'a>(name: HeaderName, lines: impl IntoIterator<Item = &'a HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name.clone(), line.clone());
    }
    headers
}

/// Returns whether these bytes are an entity tag, by the grammar of RFC 9110, section 8.8.3.
fn is_etag(bytes: &[u8]) -> bool {
    let opaque = bytes.strip_prefix(b"W/").unwrap_or(bytes);
    opaque.len() >= 2
        && opaque.starts_with(b"\"")
        && opaque.ends_with(b"\"")
        && opaque[1..opaque.len() - 1].iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7E | 0x80..))
}

fn etag(line: &HeaderValue) {
    let bytes = line.as_bytes();
    let parsed = ETag::parse(bytes);
    assert_eq!(parsed.is_ok(), is_etag(bytes), "{}", bytes.escape_ascii());
    assert_eq!(ETag::try_from(line), parsed);
    let Ok(tag) = parsed else { return };
    assert_eq!(tag.is_weak(), bytes.starts_with(b"W/"));
    assert!(tag.matches_weakly(&tag) && tag.matches_strongly(&tag) != tag.is_weak());
    assert_eq!(HeaderValue::from(tag.clone()), line);
    let held = IfNoneMatch::of(&headers(IF_NONE_MATCH, [line])).expect("the header is there");
    assert!(held.matches(Some(&tag)), "who holds {tag} is told that it is current");
    let other = ETag::strong("another").expect("a tag");
    assert_eq!(held.matches(Some(&other)), tag.matches_weakly(&other));
    assert!(!held.matches(None));
}

fn if_none_match(lines: &[HeaderValue]) {
    let map = headers(IF_NONE_MATCH, lines);
    let Some(held) = IfNoneMatch::of(&map) else {
        assert!(lines.is_empty());
        return;
    };
    let IfNoneMatch::Tags(tags) = &held else {
        // A list of one star, and nothing else, is every tag there is.
        assert!(matches!(lines, [line] if line.as_bytes().trim_ascii() == b"*"), "{lines:?}");
        assert!(held.matches(None));
        return;
    };
    assert!(tags.len() <= MAX_TAGS);
    // Each is written there, in this order, and so is nothing but commas and white space between them.
    let all: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b","].concat()).collect();
    let mut rest = &all[..];
    for tag in tags {
        let text = HeaderValue::from(tag.clone());
        assert!(is_etag(text.as_bytes()));
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        rest = rest.strip_prefix(text.as_bytes()).unwrap_or_else(|| panic!("{tag} is not in {lines:?}"));
        assert!(held.matches(Some(tag)));
    }
    assert!(!held.matches(None));
}

fn cache_control(lines: &[HeaderValue]) {
    let read = |lines: &[HeaderValue]| CacheControl::of(&headers(CACHE_CONTROL, lines));
    let together = read(lines);
    // It is written as it is read.
    let text = together.to_string();
    assert_eq!(CacheControl::parse(&text), together, "{text}");
    if let [line] = lines
        && let Ok(text) = line.to_str()
    {
        assert_eq!(CacheControl::parse(text), together);
        // Names are told without regard to their case.
        assert_eq!(CacheControl::parse(&text.to_ascii_uppercase()), together, "{text}");
    }
    // What two headers say is what both say: no line takes back what another forbids.
    for at in 0..=lines.len().min(4) {
        let (one, other) = lines.split_at(at);
        assert_eq!(stricter(read(one), read(other)), together, "{lines:?}");
    }
    let mut reversed = lines.to_vec();
    reversed.reverse();
    assert_eq!(read(&reversed), together);
    let longest = Duration::from_secs(1 << 31);
    for interval in [together.max_age, together.s_maxage, together.stale_while_revalidate, together.stale_if_error] {
        assert!(interval <= Some(longest));
    }
}

fn stricter(one: CacheControl, other: CacheControl) -> CacheControl {
    let shorter = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
    let mut both = CacheControl::default();
    both.no_store = one.no_store | other.no_store;
    both.no_cache = one.no_cache | other.no_cache;
    both.private = one.private | other.private;
    both.public = one.public | other.public;
    both.must_revalidate = one.must_revalidate | other.must_revalidate;
    both.proxy_revalidate = one.proxy_revalidate | other.proxy_revalidate;
    both.immutable = one.immutable | other.immutable;
    both.only_if_cached = one.only_if_cached | other.only_if_cached;
    both.max_age = shorter(one.max_age, other.max_age);
    both.s_maxage = shorter(one.s_maxage, other.s_maxage);
    both.stale_while_revalidate = shorter(one.stale_while_revalidate, other.stale_while_revalidate);
    both.stale_if_error = shorter(one.stale_if_error, other.stale_if_error);
    both.max_stale = shorter(one.max_stale, other.max_stale);
    both.min_fresh = one.min_fresh.max(other.min_fresh);
    both
}
