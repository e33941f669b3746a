//! The header `Cache-Status`: how the cache came by an answer (RFC 9211).

use std::fmt::Write;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::page::Standing;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// How the cache came by an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CacheStatus {
    /// Why the handler was asked; `None` where it was not.
    pub(super) forwarded: Option<Forwarded>,
    pub(super) forward_status: Option<StatusCode>,
    /// In seconds, and less than nothing once stale.
    pub(super) ttl: Option<i64>,
    pub(super) is_stored: bool,
    /// Whether the handler was asked by another request, which this one has waited for.
    pub(super) is_collapsed: bool,
    /// Whether the client forbade to ask the handler, and there was nothing for it.
    pub(super) is_refused: bool,
    pub(super) detail: Option<&'static str>,
}

/// Why a request was forwarded to the handler (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    Bypass,
    Method,
    UriMiss,
    VaryMiss,
    Miss,
    Request,
    Stale,
}

impl CacheStatus {
    pub(super) fn hit(standing: Option<&Standing>) -> CacheStatus {
        let secs = |interval: std::time::Duration| i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
        let ttl = standing.map(|standing| standing.fresh_for.map_or_else(|| -secs(standing.stale_for), secs));
        CacheStatus { ttl, ..CacheStatus::default() }
    }

    pub(super) fn forwarded(why: Forwarded) -> CacheStatus {
        CacheStatus { forwarded: Some(why), ..CacheStatus::default() }
    }

    pub(super) fn with_status(self, status: StatusCode) -> CacheStatus {
        CacheStatus { forward_status: Some(status), ..self }
    }

    pub(super) fn with_detail(self, detail: &'static str) -> CacheStatus {
        CacheStatus { detail: Some(detail), ..self }
    }

    /// Adds the status to those of caches that are nearer to the origin.
    pub(super) fn append_to(&self, headers: &mut HeaderMap, name: &str) {
        let mut text = name.to_owned();
        // Writing to a `String` does not fail.
        let _ = match self.forwarded {
            Some(why) => write!(text, "; fwd={}", why.name()),
            None if self.is_refused => Ok(()),
            None => write!(text, "; hit"),
        };
        if let Some(status) = self.forward_status {
            let _ = write!(text, "; fwd-status={}", status.as_u16());
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        if self.is_stored {
            text.push_str("; stored");
        }
        if self.is_collapsed {
            text.push_str("; collapsed");
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(CACHE_STATUS, value);
        }
    }
}

impl Forwarded {
    fn name(self) -> &'static str {
        match self {
            Forwarded::Bypass => "bypass",
            Forwarded::Method => "method",
            Forwarded::UriMiss => "uri-miss",
            Forwarded::VaryMiss => "vary-miss",
            Forwarded::Miss => "miss",
            Forwarded::Request => "request",
            Forwarded::Stale => "stale",
        }
    }
}

/// Returns whether a name is a token of structured fields (RFC 9651, section 3.3.4), as the status begins with one.
pub(super) fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'*') && name.bytes().all(is_inner)
}
