//! What a request asks for, as far as it concerns the cache. All of it comes from a client, and every length has a
//! bound.

use std::time::Duration;

use http::header::{
    ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION,
    HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, PRAGMA, RANGE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Uri};

use super::cache_control::CacheControl;
use super::conditions::{self, Conditions};
use super::page::{Page, Standing, Stored, Variants};

/// The longest key of an address. Longer ones are unusual, cost memory for every caller's whim, and are not cached.
const MAX_KEY: usize = 4 << 10;

/// The longest text of the request headers that choose a variant. Longer ones are as good as unique.
const MAX_SELECTED: usize = 2 << 10;

/// Between the parts of a key: neither addresses nor headers have it.
const BETWEEN: char = '\n';

/// How one address is written by the versions of HTTP: 1.1 as a rule has no scheme, and 2 always has one.
const SCHEMES: [&str; 3] = ["", "http", "https"];

/// What is done about a request.
pub(super) enum Reading {
    /// It may be answered from the cache.
    Cacheable(Box<Asked>),
    /// It is none of the cache's business; the word says why.
    Foreign(&'static str),
    /// It may change what is under its address.
    Unsafe(Address),
}

/// Where a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    scheme: String,
    host: String,
    path: String,
}

/// A GET or a HEAD that may be answered from the cache.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) key: String,
    pub(super) is_head: bool,
    pub(super) is_authorized: bool,
    pub(super) control: CacheControl,
    pub(super) conditions: Conditions,
}

/// What a stored response is good for, for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the answer.
    Serve,
    /// It is the answer, and is to be refreshed.
    Refresh,
    /// It has to be confirmed or replaced first.
    Replace,
    /// The client wants the handler to be asked.
    Ask,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>) -> Reading {
        let headers = request.headers();
        let address = Address::of(request.uri(), headers);
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return match address {
                Some(address) if !request.method().is_safe() => Reading::Unsafe(address),
                _ => Reading::Foreign("method"),
            };
        }
        let mut control = CacheControl::of(headers);
        // RFC 9111, section 5.4: of old clients, which know no Cache-Control.
        let no_cache =
            |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().windows(8).any(|word| word == b"no-cache");
        control.no_cache |= !headers.contains_key(CACHE_CONTROL) && headers.get_all(PRAGMA).iter().any(no_cache);
        let has_content = headers.contains_key(TRANSFER_ENCODING)
            || headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
        let is_foreign = control.no_store
            || has_content
            || has_two_hosts(request.uri(), headers)
            || [RANGE, UPGRADE].iter().any(|name| headers.contains_key(name))
            || conditions::has_foreign(headers);
        let is_authorized = headers.contains_key(AUTHORIZATION);
        let key = address.map(|address| address.key(is_authorized)).filter(|key| key.len() <= MAX_KEY);
        match key {
            Some(key) if !is_foreign => Reading::Cacheable(Box::new(Asked {
                key,
                is_head: *request.method() == Method::HEAD,
                is_authorized,
                control,
                conditions: Conditions::of(headers),
            })),
            _ => Reading::Foreign("bypass"),
        }
    }

    /// Says what a stored response is good for (RFC 9111, section 4.2.4 and 5.2.1; RFC 5861).
    pub(super) fn judge(&self, stored: &Stored, standing: &Standing) -> Verdict {
        let Standing { age, fresh_for, stale_for } = *standing;
        let (control, terms) = (&self.control, &stored.terms);
        // What the origin keeps by its own word is the origin's answer, and no less than asking it.
        if !terms.is_origins {
            let is_too_old =
                control.max_age.is_some_and(|most| most.is_zero() || age > most) && control.max_stale.is_none();
            let is_too_short = control.min_fresh.is_some_and(|least| fresh_for.is_none_or(|left| left < least));
            if control.no_cache || is_too_old || is_too_short {
                return Verdict::Ask;
            }
        }
        if fresh_for.is_some() {
            return Verdict::Serve;
        }
        if terms.client_may_extend && control.max_stale.is_some_and(|most| stale_for <= most) {
            return Verdict::Serve;
        }
        if stale_for < terms.while_revalidate { Verdict::Refresh } else { Verdict::Replace }
    }

    /// Returns whether the client wants the handler to be asked, whatever is known.
    pub(super) fn insists(&self) -> bool {
        self.control.no_cache || self.control.max_age == Some(Duration::ZERO)
    }
}

impl Address {
    /// Returns where a request goes to; `None` where it does not say.
    fn of(uri: &Uri, headers: &HeaderMap) -> Option<Address> {
        let host = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => headers.get(HOST).map_or(Some(""), |host| host.to_str().ok())?,
        };
        Some(Address {
            scheme: uri.scheme_str().unwrap_or_default().to_owned(),
            host: host.to_ascii_lowercase(),
            path: uri.path_and_query()?.as_str().to_owned(),
        })
    }

    /// Returns the key under which the address is found. Requests with `Authorization` have keys of their own: they
    /// neither get what was made for the public nor decide what the public gets.
    fn key(&self, is_authorized: bool) -> String {
        let kind = if is_authorized { "authorized" } else { "public" };
        [kind, &self.scheme, &self.host, &self.path].join("\n")
    }

    /// Returns the keys of all that a change under this address makes doubtful (RFC 9111, section 4.4): the address
    /// itself, and those of the same host that the response names, whichever version of HTTP their clients speak.
    pub(super) fn changed_with(&self, response: &HeaderMap) -> Vec<String> {
        let named = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|name| {
            let uri: Uri = response.get(&name)?.to_str().ok()?.parse().ok()?;
            let path = uri.path_and_query().filter(|path| path.as_str().starts_with('/'))?.as_str().to_owned();
            let is_here = uri.authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(&self.host));
            is_here.then(|| Address { path, ..self.clone() })
        });
        let mut keys: Vec<String> = std::iter::once(self.clone())
            .chain(named)
            .flat_map(|address| {
                let written = SCHEMES.map(|scheme| Address { scheme: scheme.to_owned(), ..address.clone() });
                written.into_iter().chain([address])
            })
            .flat_map(|address| [false, true].map(|is_authorized| address.key(is_authorized)))
            .filter(|key| key.len() <= MAX_KEY)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Returns whether a request names its host more than once, and not the same each time. The key has one, and a handler may
/// go by another, of which the next clients are not to be told.
fn has_two_hosts(uri: &Uri, headers: &HeaderMap) -> bool {
    let named = uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = named.into_iter().chain(headers.get_all(HOST).iter().map(HeaderValue::as_bytes));
    let first = hosts.next();
    hosts.any(|host| first.is_some_and(|first| !first.eq_ignore_ascii_case(host)))
}

/// Where in the cache a response is looked for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) key: String,
    /// Which of the variants of its address it is, if it is one.
    pub(super) variant: Option<Variant>,
}

#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) root: String,
    pub(super) variants: Page,
    pub(super) selected: String,
}

impl Place {
    pub(super) fn root(key: &str) -> Place {
        Place { key: key.to_owned(), variant: None }
    }

    /// Returns the place of the variant that a request with these headers selects; `None` where they are too long, or
    /// this is one already. `page` holds `variants`.
    pub(super) fn select(&self, page: &Page, variants: &Variants, headers: &HeaderMap) -> Option<Place> {
        let selected = selected(&variants.names, headers).filter(|_| self.variant.is_none())?;
        let key = variants.key_of(&self.key, &selected);
        Some(Place { key, variant: Some(Variant { root: self.key.clone(), variants: page.clone(), selected }) })
    }

    /// Returns the key of the turn to replace what is here and may not be served any more.
    pub(super) fn turn(&self) -> String {
        format!("turn{BETWEEN}{}", self.key)
    }
}

/// Returns the values of the headers that choose a variant, each in one form for all that mean the same as far as that
/// can be known of any header (RFC 9111, section 4.1).
fn selected(names: &[HeaderName], headers: &HeaderMap) -> Option<String> {
    let mut selected = String::new();
    for name in names {
        // Lists without case, in which space means nothing. Of any other header it may be inside of quotes.
        let is_list = [ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name);
        let mut comma = "=";
        selected.push_str(name.as_str());
        for value in headers.get_all(name) {
            for part in value.as_bytes().split(|&byte| is_list && byte == b',').map(<[u8]>::trim_ascii) {
                // Bytes beyond ASCII have no form of their own here; who sends them is answered by the handler.
                let part = std::str::from_utf8(part).ok()?;
                selected.push_str(comma);
                if is_list {
                    selected.push_str(&part.to_ascii_lowercase());
                } else {
                    selected.push_str(part);
                }
                comma = ",";
            }
        }
        selected.push(BETWEEN);
        if selected.len() > MAX_SELECTED {
            return None;
        }
    }
    Some(selected)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::super::storing::Terms;
    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri(uri);
        headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    fn asked(headers: &[(&str, &str)]) -> Asked {
        match Asked::of(&request("GET", "/a", headers)) {
            Reading::Cacheable(asked) => *asked,
            _ => panic!("{headers:?} is cacheable"),
        }
    }

    fn key(uri: &str, headers: &[(&str, &str)]) -> String {
        match Asked::of(&request("GET", uri, headers)) {
            Reading::Cacheable(asked) => asked.key,
            _ => panic!("{uri} is cacheable"),
        }
    }

    #[test]
    fn keys_tell_apart_what_may_differ() {
        let keys = [
            key("/a", &[]),
            key("/a?", &[]),
            key("/A", &[]),
            key("/a?b", &[]),
            key("/a", &[("host", "a.example")]),
            key("/a", &[("host", "b.example")]),
            key("http://a.example:8080/a", &[]),
            key("https://a.example:8080/a", &[]),
            key("/a", &[("authorization", "Bearer 1")]),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys[at + 1..].iter().all(|other| one != other), "{one:?}");
        }
        assert_eq!(key("/a", &[("host", "A.Example")]), key("/a", &[("host", "a.example")]));
    }

    #[test]
    fn what_the_cache_cannot_judge_passes() {
        let is_foreign = |request: &Request<()>| matches!(Asked::of(request), Reading::Foreign(_));
        for header in [
            ("range", "bytes=0-1"),
            ("cache-control", "no-store"),
            ("cache-control", "no store"),
            ("if-match", "\"a\""),
            ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("if-range", "\"a\""),
            ("upgrade", "websocket"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
        ] {
            assert!(is_foreign(&request("GET", "/a", &[header])), "{header:?}");
        }
        assert!(is_foreign(&request("GET", &format!("/{}", "a".repeat(MAX_KEY)), &[])));
        assert!(is_foreign(&request("OPTIONS", "/a", &[])) && is_foreign(&request("TRACE", "/a", &[])));
        assert!(!is_foreign(&request("HEAD", "/a", &[("content-length", "0")])));
    }

    /// RFC 9111, section 4.4.
    #[test]
    fn an_unsafe_method_changes_its_address_and_what_its_response_names_there() {
        let Reading::Unsafe(address) = Asked::of(&request("POST", "/a", &[("host", "h")])) else {
            panic!("POST is unsafe")
        };
        let changed = |location: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            address.changed_with(&headers).iter().filter(|key| key.starts_with("public")).count()
        };
        assert!(address.changed_with(&HeaderMap::new()).contains(&key("/a", &[("host", "h")])));
        let of_one = SCHEMES.len();
        assert_eq!([changed("/b"), changed("http://h/b")], [2 * of_one; 2]);
        assert_eq!([changed("http://other/b"), changed("b"), changed("/a")], [of_one; 3]);
    }

    /// RFC 9111, sections 4.2.4 and 5.2.1; RFC 5861.
    #[test]
    fn clients_have_a_say_in_what_they_get() {
        let secs = Duration::from_secs;
        let terms = Terms {
            fresh_for: secs(60),
            while_revalidate: secs(10),
            kept_stale: secs(100),
            client_may_extend: true,
            ..Terms::default()
        };
        let judge = |control: &str, terms: Terms, age: u64| {
            let headers = if control.is_empty() { vec![] } else { vec![("cache-control", control)] };
            let (status, body) = (StatusCode::OK, Bytes::new());
            let stored = Stored { status, headers: HeaderMap::new(), body, terms, groups: Vec::new(), stored_ms: 0 };
            let fresh_for = secs(60).checked_sub(secs(age)).filter(|left| !left.is_zero());
            asked(&headers)
                .judge(&stored, &Standing { age: secs(age), fresh_for, stale_for: secs(age.saturating_sub(60)) })
        };
        for (control, age, verdict) in [
            ("", 59, Verdict::Serve),
            ("", 60, Verdict::Refresh),
            ("", 69, Verdict::Refresh),
            ("", 70, Verdict::Replace),
            ("no-cache", 0, Verdict::Ask),
            ("max-age=0", 0, Verdict::Ask),
            ("max-age=30", 30, Verdict::Serve),
            ("max-age=30", 31, Verdict::Ask),
            ("max-age=30, max-stale=5", 31, Verdict::Serve),
            ("min-fresh=30", 30, Verdict::Serve),
            ("min-fresh=31", 30, Verdict::Ask),
            ("max-stale", 159, Verdict::Serve),
            ("max-stale=30", 90, Verdict::Serve),
            ("max-stale=30", 91, Verdict::Replace),
        ] {
            assert_eq!(judge(control, terms, age), verdict, "{control} at {age}");
        }
        assert_eq!(judge("max-stale", Terms { client_may_extend: false, ..terms }, 90), Verdict::Replace);
        assert_eq!(judge("no-cache", Terms { is_origins: true, ..terms }, 30), Verdict::Serve);
    }

    /// RFC 9111, section 5.4.
    #[test]
    fn pragma_counts_where_there_is_nothing_newer() {
        assert!(asked(&[("pragma", "x, No-Cache")]).control.no_cache);
        assert!(!asked(&[("pragma", "no-cache"), ("cache-control", "max-stale=1")]).control.no_cache);
    }

    /// RFC 9111, section 4.1.
    #[test]
    fn variants_are_selected_by_what_headers_mean() {
        let select = |headers: &[(&str, &str)]| {
            let names = [http::header::ACCEPT_ENCODING, http::header::COOKIE];
            selected(&names, request("GET", "/a", headers).headers())
        };
        let gzip = select(&[("accept-encoding", "gzip, br")]);
        assert_eq!(gzip, select(&[("accept-encoding", " GZIP ,br ")]));
        assert_eq!(gzip, select(&[("accept-encoding", "gzip"), ("accept-encoding", "br")]));
        assert_ne!(gzip, select(&[("accept-encoding", "br, gzip")]));
        assert_ne!(select(&[("cookie", "A")]), select(&[("cookie", "a")]));
        assert_ne!(select(&[("cookie", "")]), select(&[]));
        assert_eq!(select(&[("cookie", &"a".repeat(MAX_SELECTED))]), None);
    }
}
