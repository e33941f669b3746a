//! The layer and its service, for tower.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::ResponseBody;
use super::cache::ResponseCache;
use super::serve;

/// Puts a [`ResponseCache`] in front of services; see there.
#[derive(Clone, Debug)]
pub struct ResponseCacheLayer {
    cache: ResponseCache,
}

/// A service with a [`ResponseCache`] in front.
#[derive(Clone)]
pub struct CachedService<S> {
    inner: S,
    cache: ResponseCache,
}

impl ResponseCacheLayer {
    pub(super) fn new(cache: ResponseCache) -> ResponseCacheLayer {
        ResponseCacheLayer { cache }
    }
}

impl<S> Layer<S> for ResponseCacheLayer {
    type Service = CachedService<S>;

    fn layer(&self, inner: S) -> CachedService<S> {
        CachedService { inner, cache: self.cache.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for CachedService<S>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send, Error: Send> + Clone + Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes, Error: Send> + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was found ready is used; its clone may not be.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        Box::pin(serve::answer(self.cache.shared().clone(), ready, request))
    }
}

impl<S> fmt::Debug for CachedService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedService").field("cache", &self.cache).finish_non_exhaustive()
    }
}

// What axum asks of a layer.
const _: () = {
    const fn is_shared<T: Clone + Send + Sync + 'static>() {}
    is_shared::<ResponseCacheLayer>();
    is_shared::<CachedService<Infallible>>();
};
