//! The cache of HTTP responses, in front of handlers that a test writes and counts.

mod conditional;
mod flights;
mod stale;
mod storing;
#[cfg(feature = "tiered")]
mod tiered;
mod vary;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::executor::block_on;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use larder::http::{CachedService, Depends, ResponseCache, ResponseCacheBuilder};
use larder::{Clock, ManualClock};
use tower::{Layer, Service, ServiceExt};

const CAPACITY: u64 = 1 << 20;

/// An error of a handler, as opposed to a response that is one.
#[derive(Debug, PartialEq)]
struct Broken;

pub(crate) type Page = Response<Full<Bytes>>;
type Answering = Pin<Box<dyn Future<Output = Result<Page, Broken>> + Send>>;

/// The handler behind the cache.
#[derive(Clone)]
struct Handler {
    answer: Arc<dyn Fn(usize, Request<()>) -> Answering + Send + Sync>,
    runs: Arc<AtomicUsize>,
}

impl Service<Request<()>> for Handler {
    type Response = Page;
    type Error = Broken;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Answering {
        (self.answer)(self.runs.fetch_add(1, Ordering::SeqCst) + 1, request)
    }
}

/// A cache and the handler behind it.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) cache: ResponseCache,
    service: CachedService<Handler>,
    runs: Arc<AtomicUsize>,
}

/// What a client gets.
#[derive(Debug, PartialEq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn cache_status(&self) -> &str {
        self.header("cache-status")
    }
}

impl Site {
    /// `answer` is given which run this is, from 1 on.
    fn with_async<F, Fut>(builder: ResponseCacheBuilder, answer: F) -> Site
    where
        F: Fn(usize, Request<()>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Page, Broken>> + Send + 'static,
    {
        let cache = builder.build().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(move |run, request| Box::pin(answer(run, request)) as Answering);
        let service = cache.layer().layer(Handler { answer, runs: runs.clone() });
        Site { cache, service, runs }
    }

    pub(crate) fn with(
        builder: ResponseCacheBuilder,
        answer: impl Fn(usize, &Request<()>) -> Page + Send + Sync + 'static,
    ) -> Site {
        Site::with_async(builder, move |run, request| std::future::ready(Ok(answer(run, &request))))
    }

    /// A site whose page numbers its renders, and has these headers.
    fn numbered(headers: &'static [(&'static str, &'static str)]) -> (Site, ManualClock) {
        let (builder, time) = builder();
        (Site::with(builder, |run, _| page(headers, &format!("render {run}"))), time)
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    fn call(&self, request: Request<()>) -> impl Future<Output = Result<Got, Broken>> + Send + use<> {
        let service = self.service.clone();
        async move {
            let (parts, body) = service.oneshot(request).await?.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body })
        }
    }

    fn send(&self, method: Method, uri: &str, headers: &[(&str, &str)]) -> Got {
        block_on(self.call(request(method, uri, headers))).unwrap()
    }

    pub(crate) fn get(&self, uri: &str, headers: &[(&str, &str)]) -> Got {
        self.send(Method::GET, uri, headers)
    }
}

/// A builder with a manual clock.
pub(crate) fn builder() -> (ResponseCacheBuilder, ManualClock) {
    let (clock, time) = Clock::manual();
    (ResponseCache::builder().capacity(CAPACITY).clock(clock), time)
}

pub(crate) fn request(method: Method, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let builder = Request::builder().method(method).uri(uri);
    headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
}

pub(crate) fn page(headers: &[(&str, &str)], body: &str) -> Page {
    let builder = headers.iter().fold(Response::builder(), |builder, (name, value)| builder.header(*name, *value));
    builder.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

fn with_status(status: u16, mut page: Page) -> Page {
    *page.status_mut() = status.try_into().unwrap();
    page
}

pub(crate) fn depending(depends: Depends, mut page: Page) -> Page {
    page.extensions_mut().insert(depends);
    page
}

/// Polls a future once.
fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits until `condition` holds, which another thread is to bring about.
#[cfg(feature = "tiered")]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A door that handlers wait at until a test opens it.
#[derive(Clone)]
struct Door(futures::future::Shared<futures::channel::oneshot::Receiver<()>>);

impl Door {
    fn new() -> (futures::channel::oneshot::Sender<()>, Door) {
        let (open, opened) = futures::channel::oneshot::channel();
        (open, Door(futures::FutureExt::shared(opened)))
    }

    async fn pass(self) {
        let _ = self.0.await;
    }
}
