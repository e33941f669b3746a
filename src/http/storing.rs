//! What a shared cache may store, and for how long (RFC 9111, sections 3 and 4.2; RFC 5861).

use std::time::{Duration, SystemTime};

use http::header::{AGE, CONTENT_RANGE, DATE, EXPIRES, HeaderMap, LAST_MODIFIED, SET_COOKIE, VARY};
use http::{HeaderName, StatusCode};

use super::cache_control::{CacheControl, seconds};
use super::conditions::date;
use super::depends::Depends;
use super::etag::ETag;

/// By how many request headers a response may vary. One that names more is different for everybody.
pub(super) const MAX_VARY: usize = 16;

/// How many groups a response may depend on: as many as an entry of the remote tier records, but for those of larder's
/// own.
pub(super) const MAX_GROUPS: usize = 250;

/// The longest that a response is stored. An entry of the remote tier records no more than a little above this, in 32 bits;
/// and how old a response is follows from how much of its time is left.
const LONGEST_KEPT: Duration = Duration::from_secs(49 * 24 * 3_600);

/// How the cache decides where the response leaves it open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// For which part of the time since its last change a response without a word on freshness is fresh, and for how
    /// long at most.
    pub(super) heuristic: Option<(f64, Duration)>,
    /// How long a response with a tag is kept past its freshness, to be confirmed by its handler.
    pub(super) revalidate_for: Duration,
    /// How long a validator alone is known, where nothing says how long its response is fresh.
    pub(super) validators_for: Duration,
}

/// What becomes of a response.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// It is stored.
    Store(Terms),
    /// Its validator alone is remembered, for so long.
    Remember(Duration),
    /// Nothing is kept. The word says why.
    Pass(&'static str),
}

/// For how long a stored response may be used, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// How old it was already.
    pub(super) initial_age: Duration,
    /// How long it is fresh from when it is stored.
    pub(super) fresh_for: Duration,
    /// How long after that it may be served while it is refreshed.
    pub(super) while_revalidate: Duration,
    /// How long after that it may be served in the place of an error.
    pub(super) if_error: Duration,
    /// How long after that it is kept at all.
    pub(super) kept_stale: Duration,
    /// Whether a client may say that it takes it stale.
    pub(super) client_may_extend: bool,
    /// Whether the origin keeps it here by its own word, and it has no age.
    pub(super) is_origins: bool,
}

impl Terms {
    /// Returns how long the response is stored.
    pub(super) fn kept_for(&self) -> Duration {
        self.fresh_for.saturating_add(self.kept_stale).min(LONGEST_KEPT)
    }
}

impl Policy {
    /// Decides what becomes of a response to a GET, `authorized` if that had an `Authorization`.
    pub(super) fn plan(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        depends: Option<&Depends>,
        authorized: bool,
        now: SystemTime,
    ) -> Plan {
        let control = CacheControl::of(headers);
        if let Err(reason) = may_store(status, headers, &control, authorized) {
            return Plan::Pass(reason);
        }
        if depends.is_some_and(|depends| depends.groups.len() > MAX_GROUPS) {
            return Plan::Pass("groups");
        }
        let keep = depends.and_then(|depends| depends.keep);
        let has_tag = status == StatusCode::OK && ETag::of(headers).is_some();
        // Who names groups answers for the validator: it is dropped with them.
        let remember = |reason| {
            if has_tag && depends.is_some() { Plan::Remember(self.validators_for) } else { Plan::Pass(reason) }
        };
        let (lifetime, initial_age) = match keep {
            Some(keep) => (keep, Duration::ZERO),
            None if control.no_cache => return remember("no-cache"),
            None => match self.lifetime(status, headers, &control, now) {
                Some(lifetime) => (lifetime, initial_age(headers, now)),
                None => return remember("no-freshness"),
            },
        };
        let is_strict = control.must_revalidate || control.proxy_revalidate || control.no_cache;
        let window = |asked: Option<Duration>| if is_strict { Duration::ZERO } else { asked.unwrap_or_default() };
        let while_revalidate = window(control.stale_while_revalidate);
        let if_error = window(control.stale_if_error);
        let revalidate = if has_tag { self.revalidate_for } else { Duration::ZERO };
        // What was stale when it came has used up a part of its windows.
        let late = initial_age.saturating_sub(lifetime);
        let terms = Terms {
            initial_age,
            fresh_for: lifetime.saturating_sub(initial_age),
            while_revalidate: while_revalidate.saturating_sub(late),
            if_error: if_error.saturating_sub(late),
            kept_stale: while_revalidate.max(if_error).saturating_sub(late).max(revalidate),
            client_may_extend: !is_strict && control.s_maxage.is_none(),
            is_origins: keep.is_some(),
        };
        if terms.fresh_for.is_zero() && terms.while_revalidate.is_zero() {
            remember("stale")
        } else {
            Plan::Store(terms)
        }
    }

    /// Returns for how long a response is fresh from when it was made; `None` where nothing says so (section 4.2.1).
    fn lifetime(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        control: &CacheControl,
        now: SystemTime,
    ) -> Option<Duration> {
        if let Some(lifetime) = control.s_maxage.or(control.max_age) {
            return Some(lifetime);
        }
        let made = date(headers, &DATE).unwrap_or(now);
        if headers.contains_key(EXPIRES) {
            // Section 5.3: a date that cannot be read, as `0`, is one in the past.
            let expires = date(headers, &EXPIRES).unwrap_or(SystemTime::UNIX_EPOCH);
            return Some(expires.duration_since(made).unwrap_or_default());
        }
        let (part, most) = self.heuristic.filter(|_| is_heuristic(status) || control.public)?;
        let unchanged = made.duration_since(date(headers, &LAST_MODIFIED)?).unwrap_or_default();
        Some(unchanged.mul_f64(part).min(most))
    }
}

/// Returns why a shared cache may not store a response, if it may not (section 3).
fn may_store(
    status: StatusCode,
    headers: &HeaderMap,
    control: &CacheControl,
    authorized: bool,
) -> Result<(), &'static str> {
    if !is_understood(status) || headers.contains_key(CONTENT_RANGE) {
        Err("status")
    } else if control.no_store {
        Err("no-store")
    } else if control.private {
        Err("private")
    } else if headers.contains_key(SET_COOKIE) {
        Err("set-cookie")
    } else if vary(headers).is_none() {
        Err("vary")
    // Section 3.5.
    } else if authorized && !(control.public || control.s_maxage.is_some() || control.must_revalidate) {
        Err("authorization")
    } else {
        Ok(())
    }
}

/// Returns the request headers that a response depends on, sorted; `None` where it depends on more than can be told.
pub(super) fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in headers.get_all(VARY) {
        for name in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
        {
            // `*` is no more a name of a header than what cannot be read.
            names.push(HeaderName::from_bytes(name).ok().filter(|name| name != "*")?);
        }
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    (names.len() <= MAX_VARY).then_some(names)
}

/// Returns how old a response is when it comes (section 4.2.3): as a rule zero, unless the handler got it from
/// elsewhere.
fn initial_age(headers: &HeaderMap, now: SystemTime) -> Duration {
    let apparent = date(headers, &DATE).and_then(|made| now.duration_since(made).ok()).unwrap_or_default();
    let stated = headers.get_all(AGE).iter().filter_map(|age| seconds(age.as_bytes().trim_ascii())).max();
    apparent.max(stated.unwrap_or_default())
}

/// The statuses whose meaning this cache knows, so that it may store them with explicit freshness. Errors of the server
/// are none: the next request is to find out that it is over.
fn is_understood(status: StatusCode) -> bool {
    is_heuristic(status) || matches!(status.as_u16(), 302 | 303 | 307 | 400 | 403 | 451)
}

/// The statuses that may be stored without explicit freshness (RFC 9110, section 15.1), but for 206 and 501.
fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        heuristic: None,
        revalidate_for: Duration::from_secs(300),
        validators_for: Duration::from_secs(3_600),
    };
    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    const NOW: Duration = Duration::from_secs(784_111_777);

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.trim().parse().unwrap());
        }
        headers
    }

    fn plan_with(policy: Policy, status: u16, text: &str, depends: Option<&Depends>, authorized: bool) -> Plan {
        let status = StatusCode::from_u16(status).unwrap();
        policy.plan(status, &headers(text), depends, authorized, SystemTime::UNIX_EPOCH + NOW)
    }

    fn plan(status: u16, text: &str) -> Plan {
        plan_with(POLICY, status, text, None, false)
    }

    fn terms(text: &str) -> Terms {
        match plan(200, text) {
            Plan::Store(terms) => terms,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// RFC 9111, section 3.
    #[test]
    fn what_must_not_be_shared_is_not_stored() {
        for (text, reason) in [
            ("cache-control: no-store, max-age=60", "no-store"),
            ("cache-control: private, max-age=60", "private"),
            ("cache-control: private=\"x\", max-age=60", "private"),
            ("cache-control: max-age=60\nset-cookie: a=b", "set-cookie"),
            ("cache-control: max-age=60\nvary: *", "vary"),
            ("cache-control: max-age=60\nvary: accept, *", "vary"),
            ("cache-control: max-age=60\nvary: a b", "vary"),
            ("cache-control: max-age=60\ncontent-range: bytes 0-1/2", "status"),
            ("cache-control: no-cache, max-age=60", "no-cache"),
            ("cache-control: max-age=0", "stale"),
            ("cache-control: garbage here, max-age=60", "no-store"),
            ("", "no-freshness"),
        ] {
            assert_eq!(plan(200, text), Plan::Pass(reason), "{text}");
        }
        let many: Vec<String> = (0..=MAX_VARY).map(|number| format!("x-{number}")).collect();
        assert_eq!(plan(200, &format!("cache-control: max-age=60\nvary: {}", many.join(","))), Plan::Pass("vary"));
    }

    #[test]
    fn statuses_that_are_not_understood_are_not_stored() {
        let is_stored = |status| matches!(plan(status, "cache-control: max-age=60"), Plan::Store(_));
        for status in [200, 203, 204, 301, 302, 303, 307, 308, 400, 403, 404, 410, 451] {
            assert!(is_stored(status), "{status}");
        }
        for status in [100, 101, 206, 304, 401, 407, 416, 418, 500, 502, 503, 504, 599] {
            assert!(!is_stored(status), "{status}");
        }
    }

    /// RFC 9111, section 3.5.
    #[test]
    fn authorized_responses_are_stored_where_they_allow_for_it() {
        for (control, is_stored) in [
            ("max-age=60", false),
            ("max-age=60, public", true),
            ("s-maxage=60", true),
            ("max-age=60, must-revalidate", true),
            ("max-age=60, proxy-revalidate", false),
            ("max-age=60, public, private", false),
        ] {
            let plan = plan_with(POLICY, 200, &format!("cache-control: {control}"), None, true);
            assert_eq!(matches!(plan, Plan::Store(_)), is_stored, "{control}");
        }
        let kept = Depends::on(["a"]).keep(Duration::from_secs(60));
        assert_eq!(plan_with(POLICY, 200, "", Some(&kept), true), Plan::Pass("authorization"));
    }

    /// RFC 9111, section 4.2.1.
    #[test]
    fn freshness_comes_from_the_first_that_says_it() {
        let then = "date: Sun, 06 Nov 1994 08:49:37 GMT";
        for (text, secs) in [
            ("cache-control: max-age=60", 60),
            ("cache-control: max-age=60, s-maxage=10", 10),
            ("cache-control: max-age=60\nexpires: Sun, 06 Nov 1994 08:49:39 GMT", 60),
            ("expires: Sun, 06 Nov 1994 08:50:37 GMT", 60),
            (&format!("{then}\nexpires: Sun, 06 Nov 1994 08:49:40 GMT"), 3),
        ] {
            assert_eq!(terms(text).fresh_for, Duration::from_secs(secs), "{text}");
        }
        for past in ["0", "Sun, 06 Nov 1994 08:49:37 GMT", "never", "Sun, 06 Nov 1994 08:50:37 GMT\nexpires: 0"] {
            assert_eq!(plan(200, &format!("expires: {past}")), Plan::Pass("stale"), "{past}");
        }
    }

    /// RFC 9111, section 4.2.2.
    #[test]
    fn freshness_is_never_guessed_unless_told_to() {
        let text = "last-modified: Sun, 06 Nov 1994 08:32:57 GMT";
        assert_eq!(plan(200, text), Plan::Pass("no-freshness"));
        let guess = Policy { heuristic: Some((0.1, Duration::from_secs(90))), ..POLICY };
        let fresh_for = |status, text: &str| match plan_with(guess, status, text, None, false) {
            Plan::Store(terms) => Some(terms.fresh_for.as_secs()),
            _ => None,
        };
        assert_eq!(fresh_for(200, text), Some(90));
        assert_eq!(fresh_for(200, "last-modified: Sun, 06 Nov 1994 08:47:57 GMT"), Some(10));
        assert_eq!(fresh_for(302, text), None);
        assert_eq!(fresh_for(200, ""), None);
    }

    /// RFC 9111, section 4.2.3.
    #[test]
    fn what_is_old_when_it_comes_is_fresh_for_less() {
        let fresh = |text: &str| terms(&format!("cache-control: max-age=60\n{text}")).fresh_for.as_secs();
        assert_eq!(fresh("age: 20"), 40);
        assert_eq!(fresh("age: 5\nage: 20"), 40);
        assert_eq!(fresh("age: old"), 60);
        assert_eq!(fresh("date: Sun, 06 Nov 1994 08:49:27 GMT"), 50);
        assert_eq!(fresh("date: Sun, 06 Nov 1994 08:49:27 GMT\nage: 30"), 30);
        assert_eq!(fresh("date: Sun, 06 Nov 1994 08:59:27 GMT"), 60);
        for old in ["60", "99999999999999999999999"] {
            assert_eq!(plan(200, &format!("cache-control: max-age=60\nage: {old}")), Plan::Pass("stale"));
        }
    }

    /// RFC 5861, and what forbids it: RFC 9111, sections 4.2.4 and 5.2.2.
    #[test]
    fn stale_use_has_to_be_allowed() {
        let windows = |control: &str| {
            let terms = terms(&format!("cache-control: {control}, stale-while-revalidate=5, stale-if-error=9"));
            (
                terms.while_revalidate.as_secs(),
                terms.if_error.as_secs(),
                terms.kept_stale.as_secs(),
                terms.client_may_extend,
            )
        };
        assert_eq!(windows("max-age=60"), (5, 9, 9, true));
        assert_eq!(windows("s-maxage=60"), (5, 9, 9, false));
        assert_eq!(windows("max-age=60, must-revalidate"), (0, 0, 0, false));
        assert_eq!(windows("max-age=60, proxy-revalidate"), (0, 0, 0, false));
        assert_eq!(terms("cache-control: max-age=60\netag: \"a\"").kept_stale, POLICY.revalidate_for);
        assert_eq!(terms("cache-control: max-age=0, stale-while-revalidate=5").fresh_for, Duration::ZERO);
    }

    #[test]
    fn an_origin_keeps_by_its_own_word_what_others_may_not() {
        let kept = Depends::on(["a"]).keep(Duration::from_secs(60));
        let plan = |text| plan_with(POLICY, 200, text, Some(&kept), false);
        for text in ["", "cache-control: no-cache", "cache-control: max-age=1\nage: 30", "cache-control: max-age=0"] {
            let Plan::Store(terms) = plan(text) else { panic!("{text}") };
            assert_eq!(
                (terms.fresh_for, terms.initial_age, terms.is_origins),
                (Duration::from_secs(60), Duration::ZERO, true)
            );
        }
        for text in ["cache-control: private", "cache-control: no-store", "set-cookie: a=b", "vary: *"] {
            assert!(matches!(plan(text), Plan::Pass(_)), "{text}");
        }
    }

    #[test]
    fn a_validator_alone_is_remembered_by_who_answers_for_it() {
        let depends = Depends::on(["a"]);
        let plan = |text| plan_with(POLICY, 200, text, Some(&depends), false);
        for text in ["etag: \"a\"", "etag: \"a\"\ncache-control: no-cache", "etag: W/\"a\"\ncache-control: max-age=0"] {
            assert_eq!(plan(text), Plan::Remember(POLICY.validators_for), "{text}");
        }
        assert_eq!(plan("etag: \"a\"\ncache-control: no-store"), Plan::Pass("no-store"));
        assert_eq!(plan_with(POLICY, 404, "etag: \"a\"", Some(&depends), false), Plan::Pass("no-freshness"));
        assert_eq!(plan_with(POLICY, 200, "etag: \"a\"", None, false), Plan::Pass("no-freshness"));
    }
}
