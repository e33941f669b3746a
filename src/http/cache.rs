//! The cache of responses, and its builder.

use std::fmt;
use std::time::Duration;

use super::layer::ResponseCacheLayer;
use super::page::Page;
use super::serve::Shared;
use super::shelf::Shelf;
use super::status;
use super::storing::Policy;
use crate::error::BuildError;
use crate::load::BoxFuture;
use crate::stats::Stats;
use crate::sync::Arc;
use crate::{Cache, Clock, Groups};
#[cfg(feature = "tiered")]
use crate::{Namespace, TieredCache};

/// The largest body that is stored, unless the builder says otherwise.
const MAX_BODY: usize = 1 << 20;

/// How long a response with a tag is kept past its freshness, to be confirmed, unless the builder says otherwise.
const REVALIDATE_FOR: Duration = Duration::from_secs(300);

/// How long a validator alone is known, unless the builder says otherwise.
const VALIDATORS_FOR: Duration = Duration::from_secs(3_600);

/// How long a request waits for the handler of another, unless the builder says otherwise.
const WAIT: Duration = Duration::from_secs(10);

/// How long after a failed refresh the next is tried, unless the builder says otherwise.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A shared cache of HTTP responses in front of one's own handlers.
///
/// [`layer`](Self::layer) puts it in front of a tower service, such as a router of axum. It obeys `Cache-Control` as a
/// cache that is shared has to (RFC 9111), and answers `If-None-Match` and `If-Modified-Since` with a 304 (RFC 9110)
/// without running the handler, for as long as it knows that nothing has changed. Handlers say by
/// [`Depends`](super::Depends) what a response was made from, so that [`invalidate_group`](Self::invalidate_group)
/// drops all pages made from a record at once.
///
/// Cloning gives another handle to the same cache.
///
/// # What is stored
/// Responses to GET that say how long they are fresh (`s-maxage`, `max-age`, `Expires`, or
/// [`Depends::keep`](super::Depends::keep)). Never what says `private` or `no-store`, sets a cookie, varies by
/// everything, is partial, an error of the server, larger than [`max_body`](ResponseCacheBuilder::max_body), or answers
/// a request with `Authorization` without saying `public`, `s-maxage` or `must-revalidate`. A page that depends on a
/// cookie has to say so by `Vary`, or be `private`.
///
/// # One handler at a time
/// Of several requests for one page that is not stored one runs its handler, and the others wait. A response that may
/// not be shared goes to its own request alone: those that waited run their own handlers, and for five seconds nobody
/// waits for that address. Errors of the cache never reach a client: the handler answers.
///
/// # Where it is layered
/// The key of a page is scheme, host, path and query, as the layer sees them. A router that is nested in another sees
/// paths without their prefix: put the layer on the outermost one. A change by PUT, POST and the like drops the pages
/// of its address.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use larder::http::{Depends, ResponseCache};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let cache = ResponseCache::new(64 << 20);
/// let pages = cache.layer().layer(service_fn(|_: Request<()>| async {
///     let mut response = Response::new(Full::new(Bytes::from_static(b"Ann's page")));
///     response.headers_mut().insert("etag", "\"7-1\"".parse().unwrap());
///     response.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
///     response.extensions_mut().insert(Depends::on(["record:7"]));
///     Ok::<_, std::convert::Infallible>(response)
/// }));
///
/// let first = pages.clone().oneshot(Request::get("/7").body(()).unwrap()).await.unwrap();
/// assert_eq!(first.headers()["cache-status"], "larder; fwd=uri-miss; fwd-status=200; ttl=60; stored");
/// let held = Request::get("/7").header("if-none-match", "\"7-1\"").body(()).unwrap();
/// assert_eq!(pages.oneshot(held).await.unwrap().status(), 304);
///
/// cache.invalidate_group("record:7");
/// # });
/// ```
#[derive(Clone)]
pub struct ResponseCache {
    shared: Arc<Shared>,
}

impl ResponseCache {
    /// Returns a cache in this process that holds `capacity` bytes of responses. 0 stores nothing.
    #[must_use]
    pub fn new(capacity: u64) -> ResponseCache {
        ResponseCache::builder().capacity(capacity).build().expect("a capacity alone is always valid")
    }

    /// Returns a builder for everything else.
    pub fn builder() -> ResponseCacheBuilder {
        ResponseCacheBuilder {
            name: "larder".to_owned(),
            capacity: None,
            max_body: MAX_BODY,
            wait: WAIT,
            retry_after: RETRY_AFTER,
            policy: Policy { heuristic: None, revalidate_for: REVALIDATE_FOR, validators_for: VALIDATORS_FOR },
            spawner: None,
            shows_status: true,
            clock: None,
            groups: None,
            #[cfg(feature = "tiered")]
            namespace: None,
        }
    }

    /// Returns the layer that puts this cache in front of a service.
    ///
    /// The service's bodies have to be of [`Bytes`](bytes::Bytes), as axum's and hyper's are.
    #[must_use]
    pub fn layer(&self) -> ResponseCacheLayer {
        ResponseCacheLayer::new(self.clone())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Drops every page and validator that depends on `group`, whatever their number, in constant time. Handlers that
    /// run leave nothing behind that depends on it.
    ///
    /// Returns whether all processes that share the cache are told, so that none answers from what was there before for
    /// longer than its namespace's bound; always, without a namespace. Where that has to wait, this process knows at
    /// once, and the others are told as soon as the store can be reached: see [`Bump`](crate::Bump).
    ///
    /// # Blocking
    /// In a namespace on one exchange with the remote tier; otherwise never. In a future, use
    /// [`invalidate_group_async`](Self::invalidate_group_async).
    pub fn invalidate_group(&self, group: &str) -> bool {
        self.shared.shelf.invalidate(&[group])
    }

    /// Drops what depends on any of these groups, with one exchange for all; as
    /// [`invalidate_group`](Self::invalidate_group).
    ///
    /// # Blocking
    /// As [`invalidate_group`](Self::invalidate_group).
    pub fn invalidate_groups<I>(&self, groups: I) -> bool
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let groups: Vec<I::Item> = groups.into_iter().collect();
        self.shared.shelf.invalidate(&groups.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }

    /// Drops what depends on `group`: [`invalidate_group`](Self::invalidate_group) for futures. Dropping the future
    /// half-way leaves the invalidation to be carried out.
    pub async fn invalidate_group_async(&self, group: &str) -> bool {
        self.shared.shelf.invalidate_async(&[group]).await
    }

    /// Drops what depends on any of these groups: [`invalidate_groups`](Self::invalidate_groups) for futures, as
    /// [`invalidate_group_async`](Self::invalidate_group_async).
    pub async fn invalidate_groups_async<I>(&self, groups: I) -> bool
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let groups: Vec<I::Item> = groups.into_iter().collect();
        self.shared.shelf.invalidate_async(&groups.iter().map(AsRef::as_ref).collect::<Vec<_>>()).await
    }

    /// Drops everything, in constant time; otherwise as [`invalidate_group`](Self::invalidate_group).
    ///
    /// # Blocking
    /// As [`invalidate_group`](Self::invalidate_group).
    pub fn clear(&self) -> bool {
        self.shared.shelf.clear()
    }

    /// Drops everything: [`clear`](Self::clear) for futures.
    pub async fn clear_async(&self) -> bool {
        self.shared.shelf.clear_async().await
    }

    /// Returns what the cache has done in this process. Loads are handlers that ran; pages of addresses that vary are
    /// looked for in two steps, each of which counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.shelf.stats()
    }

    /// Hands its figures to the recorder of the `metrics` facade; as [`Cache::publish_metrics`]. With a namespace, that
    /// does so by itself.
    ///
    /// # Blocking
    /// As [`Cache::publish_metrics`].
    #[cfg(feature = "metrics")]
    pub fn publish_metrics(&self) {
        self.shared.shelf.publish_metrics();
    }

    /// Returns how many bytes of responses are stored in this process.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.shared.shelf.weight()
    }
}

impl fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache").field("name", &self.shared.name).field("shelf", &self.shared.shelf).finish()
    }
}

/// Builds a [`ResponseCache`].
#[must_use = "a builder does nothing until it is built"]
pub struct ResponseCacheBuilder {
    name: String,
    capacity: Option<u64>,
    max_body: usize,
    wait: Duration,
    retry_after: Duration,
    policy: Policy,
    spawner: Option<Box<dyn Fn(BoxFuture) + Send + Sync>>,
    shows_status: bool,
    clock: Option<Clock>,
    groups: Option<Groups>,
    #[cfg(feature = "tiered")]
    namespace: Option<Namespace>,
}

impl ResponseCacheBuilder {
    /// Sets the name: in `Cache-Status`, in statistics, and in the remote tier. Default: `larder`.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Sets how many bytes of responses are held in this process: bodies, headers, keys, and 256 for each. Required; 0
    /// stores nothing.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets the largest body, in bytes, that is stored. Default: 1 MiB. A longer one passes, and no more than this of
    /// it is ever held; of a response with a tag the tag is remembered.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Shares the cache with other processes through the remote tier of a namespace. Default: it is this process's own.
    #[cfg(feature = "tiered")]
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Shares a registry of groups with other caches of this process. Default: one of its own. A namespace has its own.
    pub fn groups(mut self, groups: Groups) -> Self {
        self.groups = Some(groups);
        self
    }

    /// Sets who runs the handlers that refresh a page while its stale response is served (`stale-while-revalidate`),
    /// such as `|refresh| drop(tokio::spawn(refresh))`. Default: the first request that finds it stale, which waits for
    /// it.
    pub fn spawner(mut self, spawn: impl Fn(BoxFuture) + Send + Sync + 'static) -> Self {
        self.spawner = Some(Box::new(spawn));
        self
    }

    /// Sets how long a request waits for the handler of another before it runs its own. Default: 10 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets how long after a handler has failed to refresh a page the next tries, while the stale page is served
    /// (`stale-if-error`). Default: 1 s.
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = time;
        self
    }

    /// Guesses the freshness of responses that do not say, but have a `Last-Modified`: this part of the time since
    /// then, and `most` at most (RFC 9111, section 4.2.2, which thinks of 0.1). Default: never; such responses are not
    /// stored.
    pub fn heuristic_freshness(mut self, part: f64, most: Duration) -> Self {
        self.policy.heuristic = Some((part, most));
        self
    }

    /// Sets how long a response with an `ETag` is kept once it is stale: a handler that then answers 304 to
    /// `If-None-Match` makes it fresh again. Default: 5 minutes. Zero keeps none.
    pub fn revalidate_for(mut self, time: Duration) -> Self {
        self.policy.revalidate_for = time;
        self
    }

    /// Sets how long the `ETag` of a response that is not stored, but names its groups, is answered for with a 304.
    /// Default: an hour. Zero remembers none.
    pub fn validators_for(mut self, time: Duration) -> Self {
        self.policy.validators_for = time;
        self
    }

    /// Sets whether responses say in `Cache-Status` how the cache came by them (RFC 9211). Default: they do.
    pub fn cache_status(mut self, shows: bool) -> Self {
        self.shows_status = shows;
        self
    }

    /// Sets the clock, for tests. Default: the system's. A namespace has its own.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Builds the cache. Does no I/O.
    ///
    /// # Errors
    /// [`BuildError`] if a setting is missing or cannot be used; the message says which, and what to do.
    pub fn build(self) -> Result<ResponseCache, BuildError> {
        let refuse = |message: String| Err(BuildError::new(message));
        if !status::is_name(&self.name) {
            return refuse(format!(
                "name is {:?}; set letters, digits, `-` and `_`, and begin with a letter",
                self.name
            ));
        }
        if self.wait.is_zero() {
            return refuse(
                "wait is zero, so each request would run its own handler; set how long one may wait".to_owned(),
            );
        }
        if let Some((part, _)) = self.policy.heuristic
            && !(part > 0.0 && part <= 1.0)
        {
            return refuse(format!(
                "heuristic_freshness is {part} of the time since the last change; set a part, up to 1"
            ));
        }
        let weigh = |key: &String, page: &Page| page.weight(key);
        #[cfg(feature = "tiered")]
        if let Some(namespace) = &self.namespace {
            if self.clock.is_some() || self.groups.is_some() {
                return refuse("namespace has clock and groups of its own; leave those of the cache out".to_owned());
            }
            let mut builder = TieredCache::builder(namespace, &self.name).codec(super::codec::Pages).weigher(weigh);
            if let Some(capacity) = self.capacity {
                builder = builder.capacity(capacity);
            }
            let cache = builder.load_wait(self.wait).stale_if_error(self.retry_after).build()?;
            let clock = namespace.core().clock.clone();
            return Ok(self.with(Shelf::Tiered(cache), clock));
        }
        let clock = self.clock.clone().unwrap_or_default();
        let mut builder = Cache::builder().name(&self.name).clock(clock.clone()).weigher(weigh);
        if let Some(capacity) = self.capacity {
            builder = builder.capacity(capacity);
        }
        if let Some(groups) = &self.groups {
            builder = builder.groups(groups.clone());
        }
        let cache = builder.load_wait(self.wait).stale_if_error(self.retry_after).build()?;
        Ok(self.with(Shelf::Local(cache), clock))
    }

    fn with(self, shelf: Shelf, clock: Clock) -> ResponseCache {
        let ResponseCacheBuilder { name, policy, max_body, spawner, shows_status, .. } = self;
        ResponseCache { shared: Arc::new(Shared { shelf, name, policy, max_body, spawner, clock, shows_status }) }
    }
}

impl fmt::Debug for ResponseCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCacheBuilder")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}
