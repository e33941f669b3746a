//! Conditional requests: what a client holds already need not be sent again (RFC 9110, section 13).

use std::time::SystemTime;

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::etag::{ETag, IfNoneMatch};

/// What describes a representation, and is not sent without it (RFC 9110, section 15.4.5).
const OF_REPRESENTATIONS: [HeaderName; 6] =
    [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRANSFER_ENCODING];

/// The conditions of a request for what the client does not hold yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    if_none_match: Option<IfNoneMatch>,
    if_modified_since: Option<SystemTime>,
}

impl Conditions {
    pub(super) fn of(headers: &HeaderMap) -> Conditions {
        let if_none_match = IfNoneMatch::of(headers);
        // Section 13.1.3: a tag is the better validator, so the date is ignored beside it, and so is one that cannot be
        // read.
        let if_modified_since = if if_none_match.is_none() { date(headers, &IF_MODIFIED_SINCE) } else { None };
        Conditions { if_none_match, if_modified_since }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.if_none_match.is_none() && self.if_modified_since.is_none()
    }

    /// Returns whether the client holds the representation that a response with these headers has.
    pub(super) fn hold(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        if status != StatusCode::OK {
            return false;
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(held), _) => held.matches(ETag::of(headers).as_ref()),
            (None, Some(held)) => date(headers, &LAST_MODIFIED).is_some_and(|modified| modified <= held),
            (None, None) => false,
        }
    }
}

/// Returns whether a request has conditions that only the origin can judge.
pub(super) fn has_foreign(headers: &HeaderMap) -> bool {
    [IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE].iter().any(|name| headers.contains_key(name))
}

/// Takes the client's own conditions out of a request, so that its answer is one for everybody.
pub(super) fn strip(headers: &mut HeaderMap) {
    headers.remove(IF_NONE_MATCH);
    headers.remove(IF_MODIFIED_SINCE);
}

/// Asks the handler for what is not this any more. Returns whether there is a tag to ask by.
pub(super) fn ask_for_news(request: &mut HeaderMap, of: &HeaderMap) -> bool {
    let Some(tag) = ETag::of(of) else { return false };
    request.insert(IF_NONE_MATCH, HeaderValue::from(tag));
    true
}

/// Leaves of a response's headers what belongs to a 304.
pub(super) fn not_modified(headers: &mut HeaderMap) {
    for name in &OF_REPRESENTATIONS {
        headers.remove(name);
    }
    if headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
}

/// Returns a date; `None` where there is none, more than one, or what cannot be read.
pub(super) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let date = httpdate::parse_http_date(values.next()?.to_str().ok()?).ok()?;
    values.next().is_none().then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn hold(request: &[(&str, &str)], response: &[(&str, &str)]) -> bool {
        Conditions::of(&headers(request)).hold(StatusCode::OK, &headers(response))
    }

    /// RFC 9110, section 13.1.2 and 13.1.3.
    #[test]
    fn a_client_holds_what_it_names() {
        let page = [("etag", "\"a\""), ("last-modified", THEN)];
        for (request, held) in [
            (vec![("if-none-match", "\"a\"")], true),
            (vec![("if-none-match", "W/\"a\"")], true),
            (vec![("if-none-match", "\"b\"")], false),
            (vec![("if-none-match", "*")], true),
            (vec![("if-modified-since", THEN)], true),
            (vec![("if-modified-since", LATER)], true),
            (vec![("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], false),
            // The obsolete forms of section 5.6.7 are read too.
            (vec![("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], true),
            (vec![("if-modified-since", "Sun Nov  6 08:49:37 1994")], true),
            (vec![("if-modified-since", "yesterday")], false),
            (vec![("if-modified-since", LATER), ("if-modified-since", LATER)], false),
            // The tag decides, whatever the date says.
            (vec![("if-none-match", "\"b\""), ("if-modified-since", LATER)], false),
            (vec![], false),
        ] {
            assert_eq!(hold(&request, &page), held, "{request:?}");
        }
        assert!(!hold(&[("if-none-match", "\"a\"")], &[]) && !hold(&[("if-modified-since", LATER)], &[]));
        assert!(!hold(&[("if-none-match", "\"a\"")], &[("etag", "\"a\""), ("etag", "\"b\"")]));
    }

    /// RFC 9110, section 13.2.1: what is not a success is never a 304.
    #[test]
    fn only_a_success_is_not_modified() {
        let asked = Conditions::of(&headers(&[("if-none-match", "*")]));
        assert!(asked.hold(StatusCode::OK, &HeaderMap::new()) && !asked.hold(StatusCode::NOT_FOUND, &HeaderMap::new()));
    }

    /// RFC 9110, section 15.4.5.
    #[test]
    fn a_304_keeps_what_it_must_have() {
        let kept = [
            ("etag", "\"a\""),
            ("cache-control", "max-age=1"),
            ("content-location", "/a"),
            ("expires", THEN),
            ("vary", "accept"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
        ];
        let dropped = [
            ("content-type", "text/html"),
            ("content-length", "7"),
            ("content-encoding", "br"),
            ("last-modified", THEN),
        ];
        let mut left = headers(&[&kept[..], &dropped].concat());
        not_modified(&mut left);
        assert_eq!(left, headers(&kept));
        // Where it is the only validator, it stays.
        let mut left = headers(&[("last-modified", THEN)]);
        not_modified(&mut left);
        assert_eq!(left.len(), 1);
    }
}
