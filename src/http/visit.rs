//! One request on its way to an answer.

use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use super::asked::{Asked, Place, Verdict};
use super::body::ResponseBody;
use super::conditions;
use super::etag::ETag;
use super::page::{Content, Page, Standing, Stored, Validator};
use super::run::{Failure, Outcome, Run};
use super::serve::{Answer, Shared};
use super::shelf::Failed;
use super::status::{CacheStatus, Forwarded};
use super::storing::Terms;
use crate::options::Load;
use crate::sync::{Arc, OnceLock};

/// One request on its way to an answer.
pub(super) struct Visit<S, B> {
    shared: Arc<Shared>,
    service: S,
    /// Until the handler has it.
    request: Option<Request<B>>,
    asked: Box<Asked>,
}

/// What a load has brought.
enum Loaded<R: Body<Data = Bytes>, E> {
    /// The handler ran for this request.
    Ran(Outcome<R, E>),
    /// It did not, and here is what there is.
    Page(Page),
    /// It is to run in the background, while this page is served.
    Deferred(Page),
    Nothing,
}

impl<S, B, R> Visit<S, B>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send, Error: Send> + Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes, Error: Send> + Send + 'static,
{
    pub(super) fn new(shared: Arc<Shared>, service: S, request: Request<B>, asked: Box<Asked>) -> Self {
        Visit { shared, service, request: Some(request), asked }
    }

    pub(super) async fn answer(mut self) -> Answer<R, S::Error> {
        let shared = self.shared.clone();
        let mut at = Place::root(&self.asked.key);
        let mut found = shared.shelf.glance(&at.key);
        let (mut has_loaded, mut has_replaced) = (false, false);
        let mut status = CacheStatus::hit(None);
        loop {
            let miss = if at.variant.is_some() { Forwarded::VaryMiss } else { Forwarded::UriMiss };
            let Some(page) = found else {
                if self.asked.control.only_if_cached {
                    match shared.shelf.get(&at.key).await {
                        Some(page) => found = Some(page),
                        None => return Ok(self.refused()),
                    }
                    continue;
                }
                if has_loaded {
                    return self.forward(&at, None, CacheStatus::forwarded(miss)).await;
                }
                has_loaded = true;
                found = match self.load(&at, None).await {
                    Loaded::Ran(outcome) => return self.end(&at, outcome, None, miss).await,
                    Loaded::Page(page) => {
                        // From the remote tier as well, where there is one: then nobody may have been asked.
                        if !shared.shelf.is_shared() {
                            status = CacheStatus { is_collapsed: true, ..CacheStatus::forwarded(miss) };
                        }
                        Some(page)
                    }
                    Loaded::Deferred(page) => {
                        has_loaded = false;
                        Some(page)
                    }
                    Loaded::Nothing => None,
                };
                continue;
            };
            let stored = match page.content() {
                Content::Uncacheable => {
                    let status = CacheStatus::forwarded(Forwarded::Miss).with_detail("uncacheable");
                    return self.forward(&at, None, status).await;
                }
                Content::Variants(variants) => {
                    let headers = self.request.as_ref().map(Request::headers);
                    let Some(place) = headers.and_then(|headers| at.select(&page, variants, headers)) else {
                        return self.forward(&at, None, CacheStatus::forwarded(Forwarded::Bypass)).await;
                    };
                    at = place;
                    found = shared.shelf.glance(&at.key);
                    // Of a list that was waited for, the variant may have to be waited for as well.
                    (has_loaded, has_replaced) = (false, false);
                    continue;
                }
                Content::Validator(validator) => {
                    let is_known = validator.is_origins || !self.asked.insists();
                    if is_known && self.asked.conditions.hold(StatusCode::OK, &validator.headers) {
                        return Ok(self.not_modified(validator, &status));
                    }
                    return self.forward(&at, Some(&page), CacheStatus::forwarded(Forwarded::Miss)).await;
                }
                Content::Response(stored) => stored,
            };
            let standing = shared.standing(&at.key, &page, stored);
            status.ttl = CacheStatus::hit(Some(&standing)).ttl;
            match self.asked.judge(stored, &standing) {
                Verdict::Serve => return Ok(self.serve(stored, &standing, &status)),
                Verdict::Refresh if self.asked.control.only_if_cached => {
                    return Ok(self.serve(stored, &standing, &status));
                }
                // It is new. From the remote tier, it need not be.
                Verdict::Ask if (has_loaded || has_replaced) && !shared.shelf.is_shared() => {
                    return Ok(self.serve(stored, &standing, &status));
                }
                Verdict::Ask | Verdict::Replace if self.asked.control.only_if_cached => return Ok(self.refused()),
                Verdict::Ask => {
                    return self.forward(&at, Some(&page), CacheStatus::forwarded(Forwarded::Request)).await;
                }
                Verdict::Refresh => {
                    let Some(refreshing) = page.refresh().filter(|_| !has_loaded && !has_replaced) else {
                        return Ok(self.serve(stored, &standing, &status));
                    };
                    if let Some(spawner) = &shared.spawner {
                        let response = self.serve(stored, &standing, &status);
                        spawner(Box::pin(async move {
                            let _refreshing = refreshing;
                            // The response is for the cache, and a failure nobody's.
                            drop(self.load(&at, Some(&page)).await);
                        }));
                        return Ok(response);
                    }
                    return match self.load(&at, Some(&page)).await {
                        Loaded::Ran(outcome) => self.end(&at, outcome, Some(&page), Forwarded::Stale).await,
                        Loaded::Page(_) | Loaded::Deferred(_) | Loaded::Nothing => {
                            Ok(self.serve(stored, &standing, &status))
                        }
                    };
                }
                Verdict::Replace if has_replaced => {
                    // It could not be replaced, here or where this request has waited for it.
                    return if standing.stale_for < stored.terms.if_error {
                        Ok(self.serve(stored, &standing, &status.with_detail("stale-if-error")))
                    } else {
                        self.forward(&at, Some(&page), CacheStatus::forwarded(Forwarded::Stale)).await
                    };
                }
                Verdict::Replace => {
                    has_replaced = true;
                    match self.replace(&at).await {
                        Loaded::Ran(outcome) => return self.end(&at, outcome, Some(&page), Forwarded::Stale).await,
                        Loaded::Page(newer) => {
                            status = CacheStatus { is_collapsed: true, ..CacheStatus::forwarded(Forwarded::Stale) };
                            found = Some(newer);
                        }
                        Loaded::Deferred(_) | Loaded::Nothing => found = Some(page),
                    }
                }
            }
        }
    }

    /// Loads what belongs to a place: `stale` is what is there and is served meanwhile.
    async fn load(&mut self, at: &Place, stale: Option<&Page>) -> Loaded<R, S::Error> {
        let shared = self.shared.clone();
        let deferred = OnceLock::new();
        let defers = stale.is_none() && shared.spawner.is_some();
        let mut run = self.run(at, defers.then_some(&deferred));
        let result = {
            let mut loading = pin!(shared.shelf.get_or_load(&at.key, |load| run.fill(load)));
            poll_fn(|context| match loading.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(result.ok()),
                // Dropping the load frees its key, for the one that runs in the background.
                Poll::Pending if deferred.get().is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        match (run.outcome.take(), deferred.into_inner(), result) {
            (Some(outcome), ..) => Loaded::Ran(outcome),
            (None, Some(page), _) => Loaded::Deferred(page),
            (None, None, Some(page)) => Loaded::Page(page),
            (None, None, None) => Loaded::Nothing,
        }
    }

    fn run<'a>(&'a mut self, at: &'a Place, deferred: Option<&'a OnceLock<Page>>) -> Run<'a, S, B, R, S::Error> {
        let Visit { shared, service, request, asked } = self;
        Run { shared, asked, at, service, request, deferred, outcome: None }
    }

    /// Loads what takes the place of a page that may not be served any more, or waits for who does. Who comes after an
    /// invalidation of that page finds it dead, and takes no turn: none that began before is joined.
    async fn replace(&mut self, at: &Place) -> Loaded<R, S::Error> {
        let shared = self.shared.clone();
        let shelf = &shared.shelf;
        let mut run = self.run(at, None);
        let result = {
            let run = &mut run;
            let load = move |turn: Load<Page>| async move {
                turn.do_not_store();
                shelf.get_or_load(&at.key, |load| run.fill(load)).await.map_err(|_| Failed)
            };
            shelf.get_or_load(&at.turn(), load).await
        };
        match (run.outcome.take(), result) {
            (Some(outcome), _) => Loaded::Ran(outcome),
            (None, Ok(page)) => Loaded::Page(page),
            (None, Err(_)) => Loaded::Nothing,
        }
    }

    /// Answers with what the handler of this request has brought. `stale` is what it was to replace.
    async fn end(
        self,
        at: &Place,
        outcome: Outcome<R, S::Error>,
        stale: Option<&Page>,
        why: Forwarded,
    ) -> Answer<R, S::Error> {
        let status = CacheStatus::forwarded(why);
        match outcome {
            Outcome::Kept { page, key, forward_status } => {
                let is_stored = self.shared.shelf.has(&key, &page);
                if is_stored {
                    self.shared.list(at).await;
                }
                let Some(stored) = page.response() else { unreachable!("only responses are kept") };
                let Terms { initial_age, fresh_for, .. } = stored.terms;
                let standing = Standing { age: initial_age, fresh_for: Some(fresh_for), stale_for: Duration::ZERO };
                let ttl = CacheStatus::hit(Some(&standing)).ttl;
                let status = CacheStatus { is_stored, ttl, ..status.with_status(forward_status) };
                Ok(self.serve(stored, &standing, &status))
            }
            Outcome::Passed(response, detail) => {
                let status = status.with_status(response.status()).with_detail(detail);
                Ok(self.finish(response, &status))
            }
            Outcome::Failed(failure) => {
                if let Some(page) = stale
                    && let Some(stored) = page.response()
                {
                    let standing = self.shared.standing(&at.key, page, stored);
                    let window = stored.terms.if_error.max(stored.terms.while_revalidate);
                    if standing.fresh_for.is_some() || standing.stale_for < window {
                        let status = match &failure {
                            Failure::Response(response) => status.with_status(response.status()),
                            Failure::Panic(_) | Failure::Error(_) => status,
                        };
                        let ttl = CacheStatus::hit(Some(&standing)).ttl;
                        let status = CacheStatus { ttl, ..status.with_detail("stale-if-error") };
                        return Ok(self.serve(stored, &standing, &status));
                    }
                }
                match failure {
                    Failure::Panic(panic) => resume_unwind(panic),
                    Failure::Error(error) => Err(error),
                    Failure::Response(response) => {
                        let status = status.with_status(response.status());
                        Ok(self.finish(response.map(ResponseBody::passing), &status))
                    }
                }
            }
        }
    }

    /// Has the handler answer this request alone, if its client lets it. `known` is what is known of the address, and may
    /// prove wrong.
    async fn forward(mut self, at: &Place, known: Option<&Page>, status: CacheStatus) -> Answer<R, S::Error> {
        if self.asked.control.only_if_cached {
            return Ok(self.refused());
        }
        let mut request = self.request.take().expect("the handler has not had it yet");
        let stored = known.and_then(Page::response);
        // A client with conditions of its own is answered by them.
        let asks = self.asked.conditions.is_empty()
            && stored.is_some_and(|stored| conditions::ask_for_news(request.headers_mut(), &stored.headers));
        let response = self.service.call(request).await?;
        let status = status.with_status(response.status());
        if let (Some(page), Some(stored), true, StatusCode::NOT_MODIFIED) = (known, stored, asks, response.status()) {
            let standing = self.shared.standing(&at.key, page, stored);
            return Ok(self.serve(stored, &standing, &status));
        }
        let tag = match known.map(Page::content) {
            Some(Content::Response(stored)) => ETag::of(&stored.headers),
            Some(Content::Validator(validator)) => ETag::of(&validator.headers),
            _ => None,
        };
        // It is no insertion, which an invalidation could have overtaken: what is known is dropped, and that is all.
        if let Some(tag) = tag
            && response.status() == StatusCode::OK
            && ETag::of(response.headers()).is_some_and(|newer| newer != tag)
        {
            self.shared.shelf.remove(std::slice::from_ref(&at.key)).await;
        }
        Ok(self.finish(response.map(ResponseBody::passing), &status))
    }

    /// Answers with a stored response, or says that the client holds it.
    fn serve(&self, stored: &Stored, standing: &Standing, status: &CacheStatus) -> Response<ResponseBody<R>> {
        let headers = stored.headers(standing, self.shared.now());
        let mut response = Response::new(ResponseBody::whole(stored.body.clone()));
        *response.status_mut() = stored.status;
        *response.headers_mut() = headers;
        self.finish(response, status)
    }

    fn not_modified(&self, validator: &Validator, status: &CacheStatus) -> Response<ResponseBody<R>> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = validator.headers.clone();
        self.shared.note(response.headers_mut(), status);
        response
    }

    /// Leaves out of a response what this client does not want: what it holds already, or any body.
    fn finish(&self, mut response: Response<ResponseBody<R>>, status: &CacheStatus) -> Response<ResponseBody<R>> {
        if self.asked.conditions.hold(response.status(), response.headers()) {
            conditions::not_modified(response.headers_mut());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = ResponseBody::empty();
        } else if self.asked.is_head {
            // What a GET would be answered with, which the server cannot see any more. An empty body says nothing: it
            // may be that of a handler that was asked for the head alone.
            let body = std::mem::replace(response.body_mut(), ResponseBody::empty());
            let has_length = response.headers().contains_key(CONTENT_LENGTH);
            if let (Some(len @ 1..), false) = (body.size_hint().exact(), has_length) {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
            }
        }
        self.shared.note(response.headers_mut(), status);
        response
    }

    /// Answers a client that wants what is stored and nothing else (RFC 9111, section 5.2.1.7).
    fn refused(&self) -> Response<ResponseBody<R>> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
        self.shared.note(response.headers_mut(), &CacheStatus { is_refused: true, ..CacheStatus::default() });
        response
    }
}
