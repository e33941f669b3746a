//! Entity tags: validators of representations (RFC 9110, sections 8.8.3 and 13.1.2).

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::{HeaderValue, IF_NONE_MATCH};

/// How many tags of one request's `If-None-Match` are looked at. A client that sends more is answered in full: browsers
/// send one, and caches one for each variant they hold.
const MAX_TAGS: usize = 64;

/// A validator of a representation: strong, `"opaque"`, where equal tags mean equal bytes, or weak, `W/"opaque"`, where
/// they mean that one may stand for the other (RFC 9110, section 8.8.3).
///
/// `==` compares how tags are written. What protocols ask for is [`matches_strongly`](Self::matches_strongly) and
/// [`matches_weakly`](Self::matches_weakly).
///
/// # Examples
/// ```
/// use larder::http::ETag;
///
/// let tag = ETag::strong("v7")?;
/// assert_eq!(tag.to_string(), "\"v7\"");
/// assert!(tag.matches_weakly(&"W/\"v7\"".parse()?));
/// assert!(!tag.matches_strongly(&ETag::weak("v7")?));
/// # Ok::<(), larder::http::InvalidETag>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag {
    /// As it is written in a header.
    text: HeaderValue,
}

/// What cannot be read as an entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidETag(());

const WEAK: &[u8] = b"W/";

impl ETag {
    /// Returns the strong tag of `opaque`, the text between the quotes.
    ///
    /// # Errors
    /// If `opaque` has a quote, white space or a control character.
    pub fn strong(opaque: &str) -> Result<ETag, InvalidETag> {
        ETag::parse(format!("\"{opaque}\"").as_bytes())
    }

    /// Returns the weak tag of `opaque`, the text between the quotes.
    ///
    /// # Errors
    /// As [`strong`](Self::strong).
    pub fn weak(opaque: &str) -> Result<ETag, InvalidETag> {
        ETag::parse(format!("W/\"{opaque}\"").as_bytes())
    }

    /// Reads a tag as it is written in a header.
    ///
    /// # Errors
    /// If `bytes` are anything else than one tag.
    pub fn parse(bytes: &[u8]) -> Result<ETag, InvalidETag> {
        match ETag::split(bytes) {
            Some((tag, [])) => Ok(tag),
            _ => Err(InvalidETag(())),
        }
    }

    /// Returns whether the tag is weak.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.text.as_bytes().starts_with(WEAK)
    }

    /// Returns whether both are strong and the same: the comparison for ranges, and for changes of what a client has
    /// seen.
    #[must_use]
    pub fn matches_strongly(&self, other: &ETag) -> bool {
        !self.is_weak() && self == other
    }

    /// Returns whether both are the same, weak or not: the comparison for `If-None-Match`.
    #[must_use]
    pub fn matches_weakly(&self, other: &ETag) -> bool {
        self.quoted() == other.quoted()
    }

    /// Returns the tag of a response, if it has exactly one that can be read.
    pub(super) fn of(headers: &HeaderMap) -> Option<ETag> {
        let mut values = headers.get_all(http::header::ETAG).iter();
        let tag = ETag::try_from(values.next()?).ok()?;
        values.next().is_none().then_some(tag)
    }

    fn quoted(&self) -> &[u8] {
        let text = self.text.as_bytes();
        text.strip_prefix(WEAK).unwrap_or(text)
    }

    /// Reads the tag that `bytes` begin with, and returns it with what follows.
    fn split(bytes: &[u8]) -> Option<(ETag, &[u8])> {
        let prefix = if bytes.starts_with(WEAK) { WEAK.len() } else { 0 };
        let opaque = bytes[prefix..].strip_prefix(b"\"")?;
        let len = opaque.iter().position(|&byte| !matches!(byte, 0x21 | 0x23..=0x7E | 0x80..=0xFF))?;
        let (text, rest) = bytes.split_at(prefix + len + 2);
        let text = HeaderValue::from_bytes(text).ok().filter(|_| opaque[len] == b'"')?;
        Some((ETag { text }, rest))
    }
}

impl TryFrom<&HeaderValue> for ETag {
    type Error = InvalidETag;

    fn try_from(value: &HeaderValue) -> Result<ETag, InvalidETag> {
        ETag::parse(value.as_bytes())
    }
}

impl From<ETag> for HeaderValue {
    fn from(tag: ETag) -> HeaderValue {
        tag.text
    }
}

impl FromStr for ETag {
    type Err = InvalidETag;

    fn from_str(text: &str) -> Result<ETag, InvalidETag> {
        ETag::parse(text.as_bytes())
    }
}

impl fmt::Display for ETag {
    /// Writes the tag as a header does, but for bytes that are no UTF-8.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.text.as_bytes()))
    }
}

impl fmt::Display for InvalidETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entity tag is \"…\" or W/\"…\", without quotes, white space and control characters inside")
    }
}

impl Error for InvalidETag {}

/// What a client holds already: the value of `If-None-Match` (RFC 9110, section 13.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfNoneMatch {
    /// `*`: whatever there is.
    Any,
    /// Representations with these tags.
    Tags(Vec<ETag>),
}

impl IfNoneMatch {
    /// Reads the header of a request; `None` where there is none.
    ///
    /// A list ends where it cannot be read, and after 64 tags: what is not read does not match, and the client is
    /// answered in full.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<IfNoneMatch> {
        let mut values = headers.get_all(IF_NONE_MATCH).iter().peekable();
        let first = values.peek()?.as_bytes().trim_ascii();
        if first == b"*" {
            values.next();
            return Some(if values.next().is_none() { IfNoneMatch::Any } else { IfNoneMatch::Tags(Vec::new()) });
        }
        let mut tags = Vec::new();
        for value in values {
            let mut rest = value.as_bytes();
            loop {
                while let [b' ' | b'\t' | b',', after @ ..] = rest {
                    rest = after;
                }
                if rest.is_empty() {
                    break;
                }
                let Some((tag, after)) = ETag::split(rest).filter(|_| tags.len() < MAX_TAGS) else {
                    return Some(IfNoneMatch::Tags(tags));
                };
                tags.push(tag);
                rest = after.trim_ascii_start();
                // Without a comma between them, two tags are none.
                if !matches!(rest, [] | [b',', ..]) {
                    return Some(IfNoneMatch::Tags(tags));
                }
            }
        }
        Some(IfNoneMatch::Tags(tags))
    }

    /// Returns whether the client holds the representation with this tag, which exists.
    #[must_use]
    pub fn matches(&self, current: Option<&ETag>) -> bool {
        match self {
            IfNoneMatch::Any => true,
            IfNoneMatch::Tags(tags) => {
                current.is_some_and(|current| tags.iter().any(|tag| tag.matches_weakly(current)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn held(values: &[&str]) -> IfNoneMatch {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_NONE_MATCH, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        IfNoneMatch::of(&headers).unwrap()
    }

    fn tags(values: &[&str]) -> Vec<String> {
        match held(values) {
            IfNoneMatch::Any => vec!["any".to_owned()],
            IfNoneMatch::Tags(tags) => tags.iter().map(ToString::to_string).collect(),
        }
    }

    /// The table of RFC 9110, section 8.8.3.2.
    #[test]
    fn comparisons_are_those_of_the_rfc() {
        for (one, other, strongly, weakly) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let (one, other): (ETag, ETag) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((one.matches_strongly(&other), one.matches_weakly(&other)), (strongly, weakly));
            assert_eq!((other.matches_strongly(&one), other.matches_weakly(&one)), (strongly, weakly));
        }
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for text in [
            "",
            "x",
            "\"",
            "\"x",
            "x\"",
            "w/\"x\"",
            "W/x",
            "W/",
            "\"a b\"",
            "\"a\"b\"",
            "\"a\"\"b\"",
            "\"\u{7f}\"",
            " \"x\"",
        ] {
            assert_eq!(text.parse::<ETag>(), Err(InvalidETag(())), "{text}");
        }
        assert!("\"\"".parse::<ETag>().is_ok_and(|empty| !empty.is_weak()));
    }

    #[test]
    fn lists_have_commas_inside_tags_too() {
        assert_eq!(tags(&["\"a,b\" , W/\"c\",,\t\"d\""]), ["\"a,b\"", "W/\"c\"", "\"d\""]);
        assert_eq!(tags(&["\"a\"", "\"b\""]), ["\"a\"", "\"b\""]);
        assert_eq!(tags(&[" * "]), ["any"]);
    }

    #[test]
    fn a_list_ends_where_it_cannot_be_read() {
        assert_eq!(tags(&["\"a\", b, \"c\""]), ["\"a\""]);
        assert_eq!(tags(&["\"a\" \"c\""]), ["\"a\""]);
        assert_eq!(tags(&["\"a\", *"]), ["\"a\""]);
        assert!(tags(&["*", "\"a\""]).is_empty() && tags(&["*, \"a\""]).is_empty() && tags(&[""]).is_empty());
        assert_eq!(tags(&[&"\"a\",".repeat(10_000)]).len(), MAX_TAGS);
    }

    #[test]
    fn any_matches_what_exists_and_a_list_what_it_names() {
        let tag: ETag = "\"a\"".parse().unwrap();
        assert!(held(&["*"]).matches(None) && held(&["*"]).matches(Some(&tag)));
        assert!(held(&["\"b\", W/\"a\""]).matches(Some(&tag)));
        assert!(!held(&["\"b\""]).matches(Some(&tag)) && !held(&["\"b\""]).matches(None));
    }

    proptest! {
        #[test]
        fn tags_survive(opaque in vec(prop_oneof![Just(0x21_u8), 0x23..=0x7E_u8, 0x80..=0xFF_u8], 0..20), weak: bool) {
            let text = [if weak { WEAK } else { b"" }, b"\"", &opaque, b"\""].concat();
            let tag = ETag::parse(&text).unwrap();
            prop_assert_eq!(tag.is_weak(), weak);
            let written = HeaderValue::from(tag);
            prop_assert_eq!(written.as_bytes(), &text[..]);
        }

        #[test]
        fn lists_survive(list in vec(("[!#-~]{0,8}", any::<bool>()), 0..20), gap in "[ \t,]{0,3}") {
            let tag = |(opaque, weak): &(String, bool)| if *weak { ETag::weak(opaque) } else { ETag::strong(opaque) };
            let list: Vec<ETag> = list.iter().map(|tagged| tag(tagged).unwrap()).collect();
            let text: Vec<String> = list.iter().map(ToString::to_string).collect();
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, text.join(&format!("{gap},")).parse().unwrap());
            prop_assert_eq!(IfNoneMatch::of(&headers), Some(IfNoneMatch::Tags(list)));
        }

        /// Whatever bytes come: an answer, and never a tag that is not written there.
        #[test]
        fn any_bytes_are_read(bytes in vec(prop_oneof![select(b"\",W/*".to_vec()), 0x20..=0xFF_u8], 0..40)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, value);
            if let Some(IfNoneMatch::Tags(tags)) = IfNoneMatch::of(&headers) {
                for tag in tags {
                    prop_assert!(bytes.windows(tag.text.len()).any(|window| window == tag.text.as_bytes()));
                }
            }
        }
    }
}
