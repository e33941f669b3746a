//! What a handler says of its response to the cache, and to nobody else.

use std::time::Duration;

/// The groups that a response depends on, for the handler to put into the response's extensions.
///
/// Invalidating any of them with [`ResponseCache::invalidate_group`](super::ResponseCache::invalidate_group) drops the
/// response and its validator, in all processes that share the cache; and a handler that still runs then leaves nothing
/// behind.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use http::Response;
/// use larder::http::Depends;
///
/// // In axum: `(Extension(Depends::on(["record:7"])), Html(page))`.
/// let mut response = Response::new("Ann's page");
/// response.extensions_mut().insert(Depends::on(["record:7", "team:2"]).keep(Duration::from_secs(600)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it takes effect in the extensions of a response"]
pub struct Depends {
    pub(super) groups: Vec<String>,
    pub(super) keep: Option<Duration>,
}

impl Depends {
    /// Names what the response depends on. None is allowed: the response is then invalidated with its address alone.
    pub fn on<I>(groups: I) -> Depends
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Depends { groups: groups.into_iter().map(Into::into).collect(), keep: None }
    }

    /// Keeps the response here for `time`, and for 49 days at most, whatever its `Cache-Control` allows the caches behind
    /// this one.
    ///
    /// For an origin that tells browsers `no-cache`, so that they ask each time, and answers them from here until a
    /// group is invalidated. The response counts as made when it is sent: it carries no `Age`. What is `private` or
    /// `no-store`, sets a cookie, or answers a request with `Authorization` that it does not allow for, is not kept all
    /// the same.
    pub fn keep(mut self, time: Duration) -> Depends {
        self.keep = Some(time);
        self
    }
}
