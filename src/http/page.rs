//! What the cache holds under a key: a response, a validator, what an address varies by, or that nothing may be held.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

use super::conditions;
use super::storing::Terms;
use crate::EntryInfo;
use crate::sync::{Arc, AtomicBool, Ordering};

/// How many variants of one address are stored. A client chooses the values of its headers, so that their number is its
/// to choose too; past this, the variant that came first makes room.
pub(super) const MAX_VARIANTS: usize = 32;

/// What headers take beside their bytes, roughly, and what a page takes beside them.
const HEADER_OVERHEAD: usize = 64;
const PAGE_OVERHEAD: usize = 256;

/// Headers that belong to one connection, not to the response (RFC 9110, section 7.6.1; RFC 9111, section 3.1).
const OF_CONNECTIONS: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What is held under a key. Shared by cloning.
#[derive(Clone)]
pub(super) struct Page(Arc<Inner>);

struct Inner {
    content: Content,
    /// Whether somebody of this process refreshes it in the background.
    is_refreshed: AtomicBool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Response(Stored),
    Validator(Validator),
    Variants(Variants),
    /// Nothing of it may be shared: callers do not wait for each other.
    Uncacheable,
}

/// A response that is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) status: StatusCode,
    /// Without those that are made anew when it is sent: `Date` and `Age`.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) terms: Terms,
    pub(super) groups: Vec<String>,
    /// By the wall clock, in milliseconds since 1970: for who finds it in no local tier that knows better.
    pub(super) stored_ms: u64,
}

/// A response that is not stored, and whose tag is current all the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Validator {
    /// Those of a 304.
    pub(super) headers: HeaderMap,
    /// Whether the origin answers for it by the groups that it named, so that no client's wish makes it doubtful.
    pub(super) is_origins: bool,
}

/// Which request headers the responses of an address depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variants {
    pub(super) names: Vec<HeaderName>,
    /// Part of the variants' keys, and random: who removes this entry puts all of them out of reach.
    pub(super) epoch: u64,
    /// By what the variants that are stored were selected, the oldest first.
    pub(super) listed: Vec<String>,
}

/// How old a stored response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) age: Duration,
    /// How long it is fresh yet; `None` where it is not.
    pub(super) fresh_for: Option<Duration>,
    /// How long it has been stale.
    pub(super) stale_for: Duration,
}

impl Page {
    pub(super) fn new(content: Content) -> Page {
        Page(Arc::new(Inner { content, is_refreshed: AtomicBool::new(false) }))
    }

    pub(super) fn content(&self) -> &Content {
        &self.0.content
    }

    pub(super) fn response(&self) -> Option<&Stored> {
        if let Content::Response(stored) = self.content() { Some(stored) } else { None }
    }

    pub(super) fn is(&self, other: &Page) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns what it weighs with its key, in bytes.
    pub(super) fn weight(&self, key: &str) -> u64 {
        let bytes = match self.content() {
            Content::Response(stored) => {
                let groups: usize = stored.groups.iter().map(|group| group.len() + HEADER_OVERHEAD).sum();
                weight_of(&stored.headers) + stored.body.len() + groups
            }
            Content::Validator(validator) => weight_of(&validator.headers),
            Content::Variants(variants) => {
                variants.listed.iter().map(|selected| selected.len() + HEADER_OVERHEAD).sum::<usize>()
                    + variants.names.len() * HEADER_OVERHEAD
            }
            Content::Uncacheable => 0,
        };
        (key.len() + PAGE_OVERHEAD + bytes) as u64
    }

    /// Says that the caller refreshes the page for as long as the answer lives; `None` while another does.
    pub(super) fn refresh(&self) -> Option<Refreshing> {
        // Relaxed: the flag guards nothing but the number of those who try. Who loads is decided by the claim.
        let is_first = !self.0.is_refreshed.swap(true, Ordering::Relaxed);
        is_first.then(|| Refreshing(self.clone()))
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.content().fmt(f)
    }
}

/// Who refreshes a page.
#[derive(Debug)]
pub(super) struct Refreshing(Page);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.0.is_refreshed.store(false, Ordering::Relaxed);
    }
}

impl Stored {
    /// Returns how old the response is, by what the local tier knows of its entry.
    pub(super) fn standing(&self, info: Option<&EntryInfo>, now: SystemTime) -> Standing {
        let terms = &self.terms;
        let resident = match info {
            Some(EntryInfo { hard_in: Some(left), .. }) => terms.kept_for().saturating_sub(*left),
            // It was not copied into the local tier, or has just left it.
            _ => now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_millis(self.stored_ms)).unwrap_or_default(),
        };
        // A group makes it stale before its time.
        let is_expired = info.is_some_and(|info| info.soft_in == Some(Duration::ZERO));
        let fresh_for = terms.fresh_for.checked_sub(resident).filter(|left| !left.is_zero() && !is_expired);
        Standing {
            age: terms.initial_age.saturating_add(resident),
            fresh_for,
            stale_for: resident.saturating_sub(terms.fresh_for),
        }
    }

    /// Returns the headers to send.
    pub(super) fn headers(&self, standing: &Standing, now: SystemTime) -> HeaderMap {
        let mut headers = self.headers.clone();
        // What the origin keeps by its own word is made when it is sent. Anything else says when it was.
        let age = if self.terms.is_origins { Duration::ZERO } else { standing.age };
        // An age may be a stranger's word, and older than what dates can say.
        let made = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH);
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(made)) {
            headers.insert(DATE, date);
        }
        if !self.terms.is_origins {
            headers.insert(AGE, HeaderValue::from(age.as_secs()));
        }
        if self.status != StatusCode::NO_CONTENT {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        headers
    }

    /// Returns the headers of the response after a 304 with these has confirmed it (RFC 9111, section 3.2).
    pub(super) fn confirmed(&self, by: &HeaderMap) -> HeaderMap {
        let mut by = by.clone();
        conditions::not_modified(&mut by);
        let mut headers = self.headers.clone();
        by.keys().for_each(|name| drop(headers.remove(name)));
        for (name, value) in &by {
            headers.append(name, value.clone());
        }
        headers
    }
}

impl Variants {
    pub(super) fn new(names: Vec<HeaderName>) -> Variants {
        Variants { names, epoch: fastrand::u64(..), listed: Vec::new() }
    }

    /// Returns the key of a variant of the address with the key `root`.
    pub(super) fn key_of(&self, root: &str, selected: &str) -> String {
        format!("variant\n{:016x}\n{selected}\n{root}", self.epoch)
    }

    /// Returns these with one more, which takes the place of the oldest where they are too many.
    pub(super) fn with(&self, selected: &str) -> Variants {
        let mut listed = self.listed.clone();
        if !listed.iter().any(|known| known == selected) {
            let too_many = (listed.len() + 1).saturating_sub(MAX_VARIANTS);
            listed.drain(..too_many);
            listed.push(selected.to_owned());
        }
        Variants { listed, ..self.clone() }
    }

    /// Returns what takes the place of these when a response depends on more: none of them is found any more.
    pub(super) fn widened(&self, names: &[HeaderName]) -> Variants {
        let mut all: Vec<HeaderName> = self.names.iter().chain(names).cloned().collect();
        all.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        all.dedup();
        Variants::new(all)
    }
}

/// Takes out of a response's headers what is not stored with it.
pub(super) fn prepare(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&OF_CONNECTIONS).chain(&[DATE, AGE]) {
        headers.remove(name);
    }
    // As they come from a connection, values are slices of all that it has read: a copy holds what is weighed.
    for value in headers.values_mut() {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
}

fn weight_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn stored(terms: Terms) -> Stored {
        let headers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"a\""))]);
        Stored {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(b"page"),
            terms,
            groups: Vec::new(),
            stored_ms: 0,
        }
    }

    fn terms() -> Terms {
        Terms {
            initial_age: Duration::from_secs(5),
            fresh_for: Duration::from_secs(60),
            kept_stale: Duration::from_secs(40),
            ..Terms::default()
        }
    }

    fn info(soft_in: u64, hard_in: u64) -> EntryInfo {
        let secs = |secs| Some(Duration::from_secs(secs));
        EntryInfo { age: Duration::ZERO, soft_in: secs(soft_in), hard_in: secs(hard_in), weight: 1, groups: Vec::new() }
    }

    /// RFC 9111, section 4.2.3.
    #[test]
    fn age_is_what_it_came_with_and_the_time_since() {
        let standing = |info: Option<&EntryInfo>, now| {
            let standing = stored(terms()).standing(info, now);
            (standing.age.as_secs(), standing.fresh_for.map(|left| left.as_secs()), standing.stale_for.as_secs())
        };
        assert_eq!(standing(Some(&info(60, 100)), NOW), (5, Some(60), 0));
        assert_eq!(standing(Some(&info(10, 50)), NOW), (55, Some(10), 0));
        assert_eq!(standing(Some(&info(0, 40)), NOW), (65, None, 0));
        assert_eq!(standing(Some(&info(0, 30)), NOW), (75, None, 10));
        // Stale by a group, long before its time.
        assert_eq!(standing(Some(&info(0, 90)), NOW), (15, None, 0));
        assert_eq!(standing(None, NOW + Duration::from_secs(70)), (75, None, 10));
    }

    #[test]
    fn what_is_sent_says_how_old_it_is_unless_the_origin_keeps_it() {
        let now = NOW + Duration::from_secs(1_000);
        let sent = |is_origins| {
            let stored = stored(Terms { is_origins, ..terms() });
            let headers = stored.headers(&stored.standing(Some(&info(10, 50)), now), now);
            let made = httpdate::parse_http_date(headers[DATE].to_str().unwrap()).unwrap();
            (headers.get(AGE).map(|age| age.to_str().unwrap().to_owned()), now.duration_since(made).unwrap().as_secs())
        };
        assert_eq!(sent(false), (Some("55".to_owned()), 55));
        assert_eq!(sent(true), (None, 0));
    }

    /// RFC 9111, section 3.1.
    #[test]
    fn what_belongs_to_a_connection_is_not_stored() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("age", "3"),
            ("etag", "\"a\""),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        prepare(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    }

    /// RFC 9111, section 3.2.
    #[test]
    fn a_304_renews_headers_but_not_those_of_the_content() {
        let by = HeaderMap::from_iter([
            (http::header::CACHE_CONTROL, HeaderValue::from_static("max-age=9")),
            (CONTENT_LENGTH, HeaderValue::from_static("0")),
        ]);
        let confirmed = stored(terms()).confirmed(&by);
        assert_eq!(confirmed[http::header::CACHE_CONTROL], "max-age=9");
        assert_eq!(confirmed[http::header::ETAG], "\"a\"");
        assert!(!confirmed.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn variants_are_bounded_and_the_oldest_leaves() {
        let mut variants = Variants::new(vec![http::header::ACCEPT]);
        for number in 0..=MAX_VARIANTS {
            variants = variants.with(&number.to_string()).with(&number.to_string());
        }
        assert_eq!(variants.listed.len(), MAX_VARIANTS);
        assert_eq!(variants.listed.first().map(String::as_str), Some("1"));
        let wider = variants.widened(&[http::header::ACCEPT, http::header::COOKIE]);
        assert!(wider.listed.is_empty() && wider.names.len() == 2 && wider.epoch != variants.epoch);
    }

    #[test]
    fn one_refreshes_at_a_time() {
        let page = Page::new(Content::Uncacheable);
        let refreshing = page.refresh().unwrap();
        assert!(page.clone().refresh().is_none());
        drop(refreshing);
        assert!(page.refresh().is_some());
    }
}
