//! The header `Cache-Control`, of requests and of responses (RFC 9111, section 5.2; RFC 5861; RFC 8246).

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

/// The longest interval that is told apart, as RFC 9111 (section 1.2.2) has it for what is longer: 68 years.
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// The directives of a `Cache-Control` header.
///
/// What is doubtful is read as whatever allows a cache less: of directives that are given twice the stricter one, of a
/// `max-age` that is no number zero, of a qualified `private` or `no-cache` the whole, and of a header that cannot be
/// read `no-store`.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::http::CacheControl;
///
/// let parsed = CacheControl::parse("public, max-age=60, stale-while-revalidate=\"30\"");
/// assert_eq!(parsed.max_age, Some(Duration::from_secs(60)));
/// assert_eq!(parsed.to_string(), "public, max-age=60, stale-while-revalidate=30");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheControl {
    /// Nothing of request or response may be stored.
    pub no_store: bool,
    /// What is stored may only be used after the origin has confirmed it.
    pub no_cache: bool,
    /// The response is for one user alone.
    pub private: bool,
    /// Any cache may store the response.
    pub public: bool,
    /// Once stale, the response may not be used before the origin has confirmed it.
    pub must_revalidate: bool,
    /// [`must_revalidate`](Self::must_revalidate) for caches that are shared.
    pub proxy_revalidate: bool,
    /// The response will not change while it is fresh.
    pub immutable: bool,
    /// The client wants what is stored, or an error.
    pub only_if_cached: bool,
    /// How long the response is fresh; of a request, how old an answer may be.
    pub max_age: Option<Duration>,
    /// How long the response is fresh in a cache that is shared.
    pub s_maxage: Option<Duration>,
    /// How long after it has become stale the response may be served while it is refreshed.
    pub stale_while_revalidate: Option<Duration>,
    /// How long after it has become stale the response may be served in the place of an error.
    pub stale_if_error: Option<Duration>,
    /// How long past its freshness the client still takes an answer; [`Duration::MAX`] where it does not say.
    pub max_stale: Option<Duration>,
    /// How long an answer has to be fresh yet.
    pub min_fresh: Option<Duration>,
}

impl CacheControl {
    /// Reads the value of one header.
    #[must_use]
    pub fn parse(text: &str) -> CacheControl {
        let mut parsed = CacheControl::default();
        parsed.add(text.as_bytes());
        parsed
    }

    /// Reads all such headers of a message, and returns what they say together.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> CacheControl {
        let mut parsed = CacheControl::default();
        headers.get_all(CACHE_CONTROL).iter().for_each(|value| parsed.add(value.as_bytes()));
        parsed
    }

    fn add(&mut self, mut rest: &[u8]) {
        while let Some((directive, after)) = Directive::split(rest) {
            match directive {
                Some(directive) => self.apply(&directive),
                // It may have been meant to be this.
                None => self.no_store = true,
            }
            rest = after;
        }
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        let name = directive.name.to_ascii_lowercase();
        let shorter = |known: Option<Duration>, new: Duration| Some(known.map_or(new, |known| known.min(new)));
        let flag = match &name[..] {
            b"no-store" => &mut self.no_store,
            b"no-cache" => &mut self.no_cache,
            b"private" => &mut self.private,
            b"public" => &mut self.public,
            b"must-revalidate" => &mut self.must_revalidate,
            b"proxy-revalidate" => &mut self.proxy_revalidate,
            b"immutable" => &mut self.immutable,
            b"only-if-cached" => &mut self.only_if_cached,
            b"max-age" => return self.max_age = shorter(self.max_age, directive.seconds().unwrap_or_default()),
            b"s-maxage" => return self.s_maxage = shorter(self.s_maxage, directive.seconds().unwrap_or_default()),
            b"stale-while-revalidate" => {
                return self.stale_while_revalidate =
                    shorter(self.stale_while_revalidate, directive.seconds().unwrap_or_default());
            }
            b"stale-if-error" => {
                return self.stale_if_error = shorter(self.stale_if_error, directive.seconds().unwrap_or_default());
            }
            b"max-stale" => {
                let limit =
                    if directive.argument.is_some() { directive.seconds().unwrap_or_default() } else { Duration::MAX };
                return self.max_stale = shorter(self.max_stale, limit);
            }
            b"min-fresh" => return self.min_fresh = self.min_fresh.max(Some(directive.seconds().unwrap_or(LONGEST))),
            // What an extension says may be ignored.
            _ => return,
        };
        *flag = true;
    }
}

impl fmt::Display for CacheControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            ("no-store", self.no_store),
            ("no-cache", self.no_cache),
            ("private", self.private),
            ("public", self.public),
            ("must-revalidate", self.must_revalidate),
            ("proxy-revalidate", self.proxy_revalidate),
            ("immutable", self.immutable),
            ("only-if-cached", self.only_if_cached),
        ];
        let intervals = [
            ("max-age", self.max_age),
            ("s-maxage", self.s_maxage),
            ("stale-while-revalidate", self.stale_while_revalidate),
            ("stale-if-error", self.stale_if_error),
            ("max-stale", self.max_stale),
            ("min-fresh", self.min_fresh),
        ];
        let mut comma = "";
        for (name, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
            write!(f, "{comma}{name}")?;
            comma = ", ";
        }
        for (name, interval) in intervals {
            match interval {
                Some(Duration::MAX) => write!(f, "{comma}{name}")?,
                Some(interval) => write!(f, "{comma}{name}={}", interval.as_secs())?,
                None => continue,
            }
            comma = ", ";
        }
        Ok(())
    }
}

/// One element of the header: `name`, `name=token` or `name="quoted"`.
struct Directive<'a> {
    name: &'a [u8],
    /// Without its quotes; escapes are left, which no number has.
    argument: Option<&'a [u8]>,
}

impl<'a> Directive<'a> {
    /// Reads the first element of a list, and returns it with what follows it; `None` at the end. An element that
    /// cannot be read is `None` inside.
    fn split(list: &'a [u8]) -> Option<(Option<Directive<'a>>, &'a [u8])> {
        let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let list = &list[start..];
        // Up to a comma that is not inside quotes.
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = list.iter().position(|&byte| {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                b',' if !is_quoted => return true,
                _ => {}
            }
            false
        });
        let (element, rest) = list.split_at(end.unwrap_or(list.len()));
        Some((Directive::parse(element.trim_ascii()), rest))
    }

    fn parse(element: &'a [u8]) -> Option<Directive<'a>> {
        let is_token = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte));
        let (name, argument) = match element.iter().position(|&byte| byte == b'=') {
            Some(at) => (&element[..at], Some(&element[at + 1..])),
            None => (element, None),
        };
        let argument = match argument {
            Some([b'"', quoted @ .., b'"']) => Some(quoted),
            Some(token) if !token.is_empty() && !is_token(token) => return None,
            token => token,
        };
        is_token(name).then_some(Directive { name, argument })
    }

    fn seconds(&self) -> Option<Duration> {
        seconds(self.argument?)
    }
}

/// Reads an interval (RFC 9111, section 1.2.2). A number that does not fit is long enough to be cut.
pub(super) fn seconds(digits: &[u8]) -> Option<Duration> {
    let digits = Some(digits).filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?;
    let seconds =
        digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// Returns whether a token may have this byte (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(secs: u64) -> Option<Duration> {
        Some(Duration::from_secs(secs))
    }

    #[test]
    fn each_directive_is_read_and_written() {
        let text = "no-store, no-cache, private, public, must-revalidate, proxy-revalidate, immutable, only-if-cached, \
                    max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4, max-stale=5, min-fresh=6";
        let parsed = CacheControl::parse(text);
        assert_eq!((parsed.max_age, parsed.s_maxage, parsed.min_fresh), (secs(1), secs(2), secs(6)));
        assert_eq!(parsed.to_string(), text);
        assert_eq!(CacheControl::parse("max-stale").to_string(), "max-stale");
    }

    #[test]
    fn names_have_no_case_and_arguments_may_be_quoted() {
        assert_eq!(CacheControl::parse("MAX-AGE=\"60\",\t,PubLic").to_string(), "public, max-age=60");
        assert_eq!(CacheControl::parse("x=\"a, no-store, \\\"private\", max-age=1").to_string(), "max-age=1");
        assert_eq!(CacheControl::parse("unknown, also=this, max-age=1").to_string(), "max-age=1");
    }

    #[test]
    fn doubt_allows_less() {
        for (text, read) in [
            ("max-age=60, max-age=5", "max-age=5"),
            ("max-age=5, max-age=60", "max-age=5"),
            ("max-age=x", "max-age=0"),
            ("max-age", "max-age=0"),
            ("max-age=", "max-age=0"),
            ("max-age=-1", "max-age=0"),
            ("max-age=1.5", "max-age=0"),
            ("max-age = 60", "no-store"),
            ("max-age=99999999999999999999999999", "max-age=2147483648"),
            ("stale-while-revalidate=x", "stale-while-revalidate=0"),
            ("max-stale=x", "max-stale=0"),
            ("min-fresh=1, min-fresh=7", "min-fresh=7"),
            ("min-fresh=x", "min-fresh=2147483648"),
            ("private=\"set-cookie\"", "private"),
            ("no-cache=\"set-cookie\", max-age=1", "no-cache, max-age=1"),
            ("no-store=0", "no-store"),
            ("no store", "no-store"),
            ("max-age=1 private", "no-store"),
            ("\"max-age=1", "no-store"),
            ("max-age=\"1, public", "no-store"),
            ("=", "no-store"),
        ] {
            assert_eq!(CacheControl::parse(text).to_string(), read, "{text}");
        }
    }

    #[test]
    fn headers_add_up() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, "max-age=60".parse().unwrap());
        headers.append(CACHE_CONTROL, "private, max-age=30".parse().unwrap());
        assert_eq!(CacheControl::of(&headers).to_string(), "private, max-age=30");
        assert_eq!(CacheControl::of(&HeaderMap::new()), CacheControl::default());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            flags: [bool; 8],
            intervals in proptest::array::uniform6(proptest::option::of(0..=1_u64 << 31)),
        ) {
            let [no_store, no_cache, private, public, must_revalidate, proxy_revalidate, immutable, only_if_cached] =
                flags;
            let [max_age, s_maxage, stale_while_revalidate, stale_if_error, max_stale, min_fresh] =
                intervals.map(|interval| interval.map(Duration::from_secs));
            let written = CacheControl {
                no_store, no_cache, private, public, must_revalidate, proxy_revalidate, immutable, only_if_cached,
                max_age, s_maxage, stale_while_revalidate, stale_if_error, max_stale, min_fresh,
            };
            prop_assert_eq!(CacheControl::parse(&written.to_string()), written);
        }

        /// A directive that forbids is never lost in what surrounds it.
        #[test]
        fn no_garbage_hides_a_prohibition(before in "[ -!#-~]{0,20}", after in "[ -~]{0,20}") {
            let parsed = CacheControl::parse(&format!("{before}, no-store, {after}"));
            prop_assert!(parsed.no_store);
        }
    }
}
