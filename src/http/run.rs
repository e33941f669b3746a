//! The handler of one request, as the loader of a page.

use std::any::Any;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::response::Parts;
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use super::asked::{Asked, Place, Verdict};
use super::body::ResponseBody;
use super::conditions;
use super::depends::Depends;
use super::etag::ETag;
use super::page::{self, Content, Page, Stored, Validator, Variants};
use super::serve::Shared;
use super::shelf::Failed;
use super::storing::{self, Plan, Terms};
use crate::options::Load;
use crate::sync::OnceLock;

/// How long callers of an address whose response may not be shared do not wait for each other. One in that time does,
/// to find out whether it still is so.
const UNCACHEABLE_FOR: Duration = Duration::from_secs(5);

/// How long is remembered what an address varies by. After that it is found out anew.
const VARIANTS_FOR: Duration = Duration::from_secs(24 * 3_600);

/// What became of a handler that ran in a load.
pub(super) enum Outcome<R: Body<Data = Bytes>, E> {
    /// Its response is a page now, which was meant for this key.
    Kept {
        page: Page,
        key: String,
        forward_status: StatusCode,
    },
    /// Its response is for this request alone. The word says why.
    Passed(Response<ResponseBody<R>>, &'static str),
    Failed(Failure<R, E>),
}

pub(super) enum Failure<R, E> {
    Panic(Box<dyn Any + Send>),
    Error(E),
    Response(Response<R>),
}

/// The handler of one request, as the loader of a page.
pub(super) struct Run<'a, S, B, R: Body<Data = Bytes>, E> {
    pub(super) shared: &'a Shared,
    pub(super) asked: &'a Asked,
    pub(super) at: &'a Place,
    pub(super) service: &'a mut S,
    pub(super) request: &'a mut Option<Request<B>>,
    /// Where to leave a stale page that may be served, instead of running.
    pub(super) deferred: Option<&'a OnceLock<Page>>,
    pub(super) outcome: Option<Outcome<R, E>>,
}

impl<S, B, R> Run<'_, S, B, R, S::Error>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send, Error: Send> + Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes, Error: Send> + Send + 'static,
{
    /// Runs the handler, and returns what those who wait for it get.
    pub(super) async fn fill(&mut self, load: Load<Page>) -> Result<Page, Failed> {
        let stale = load.stale().cloned();
        let stored = stale.as_ref().and_then(Page::response);
        if let (Some(deferred), Some(page), Some(stored)) = (self.deferred, &stale, stored) {
            let standing = self.shared.standing(&self.at.key, page, stored);
            if self.asked.judge(stored, &standing) == Verdict::Refresh {
                let _ = deferred.set(page.clone());
                return pending().await;
            }
        }
        let mut request = self.request.take().expect("the handler has not had it yet");
        // By these the variant is chosen, if the response says that it is one.
        let asked_by = request.headers().clone();
        *request.method_mut() = Method::GET;
        conditions::strip(request.headers_mut());
        let asks = stored.is_some_and(|stored| conditions::ask_for_news(request.headers_mut(), &stored.headers));
        let service = &mut *self.service;
        let failure = match caught(|| service.call(request)).await {
            Ok(Ok(response)) if response.status().is_server_error() => Failure::Response(response),
            Ok(Ok(response)) => {
                return Ok(match stored {
                    Some(stored) if asks && response.status() == StatusCode::NOT_MODIFIED => {
                        self.confirm(&load, stored, response, &asked_by).await
                    }
                    _ => self.take(&load, response, &asked_by).await,
                });
            }
            Ok(Err(error)) => Failure::Error(error),
            Err(panic) => Failure::Panic(panic),
        };
        self.outcome = Some(Outcome::Failed(failure));
        Err(Failed)
    }

    /// Takes a response of the handler, and keeps of it what may be kept.
    async fn take(&mut self, load: &Load<Page>, response: Response<R>, asked_by: &HeaderMap) -> Page {
        let (mut parts, body) = response.into_parts();
        let depends = parts.extensions.remove::<Depends>();
        let plan = self.plan(&parts, depends.as_ref());
        let groups = depends.as_ref().map_or(&[][..], |depends| &depends.groups);
        match plan {
            Plan::Pass(reason) => self.let_pass(load, parts, ResponseBody::passing(body), reason),
            Plan::Remember(time) => {
                self.remember(load, parts, ResponseBody::passing(body), time, depends.as_ref(), asked_by).await
            }
            Plan::Store(terms) => match ResponseBody::read(body, self.shared.max_body).await {
                Ok(body) if has_length(&parts.headers, body.len()) => {
                    let stored = self.stored(parts, body, terms, groups.to_vec());
                    self.keep(load, stored, StatusCode::OK, asked_by).await
                }
                // RFC 9111, section 3.3: what is incomplete is not stored.
                Ok(body) => self.let_pass(load, parts, ResponseBody::whole(body), "incomplete"),
                Err(body)
                    if !terms.fresh_for.is_zero()
                        && parts.status == StatusCode::OK
                        && ETag::of(&parts.headers).is_some() =>
                {
                    self.remember(load, parts, body, terms.fresh_for, depends.as_ref(), asked_by).await
                }
                Err(body) => self.let_pass(load, parts, body, "body-size"),
            },
        }
    }

    /// Takes a 304 of the handler, which confirms what is stored (RFC 9111, section 4.3.4).
    async fn confirm(
        &mut self,
        load: &Load<Page>,
        stored: &Stored,
        response: Response<R>,
        asked_by: &HeaderMap,
    ) -> Page {
        let (mut parts, _) = response.into_parts();
        let depends = parts.extensions.remove::<Depends>();
        let groups = depends.as_ref().map_or_else(|| stored.groups.clone(), |depends| depends.groups.clone());
        // What the origin keeps by its own word it keeps on, unless it says otherwise.
        let kept = stored.terms.is_origins.then(|| Depends::on(groups.clone()).keep(stored.terms.fresh_for));
        parts.headers = stored.confirmed(&parts.headers);
        parts.status = stored.status;
        match self.plan(&parts, depends.as_ref().or(kept.as_ref())) {
            Plan::Store(terms) => {
                let renewed = self.stored(parts, stored.body.clone(), terms, groups);
                self.keep(load, renewed, StatusCode::NOT_MODIFIED, asked_by).await
            }
            Plan::Remember(_) => self.let_pass(load, parts, ResponseBody::whole(stored.body.clone()), "revalidated"),
            Plan::Pass(reason) => self.let_pass(load, parts, ResponseBody::whole(stored.body.clone()), reason),
        }
    }

    fn plan(&self, parts: &Parts, depends: Option<&Depends>) -> Plan {
        let Shared { policy, .. } = self.shared;
        policy.plan(parts.status, &parts.headers, depends, self.asked.is_authorized, self.shared.now())
    }

    fn stored(&self, parts: Parts, body: Bytes, terms: Terms, groups: Vec<String>) -> Stored {
        let since_epoch = self.shared.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut headers = parts.headers;
        page::prepare(&mut headers);
        let stored_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Stored { status: parts.status, headers, body, terms, groups, stored_ms }
    }

    /// Keeps a response.
    async fn keep(
        &mut self,
        load: &Load<Page>,
        stored: Stored,
        forward_status: StatusCode,
        asked_by: &HeaderMap,
    ) -> Page {
        let forward_status = if forward_status == StatusCode::OK { stored.status } else { forward_status };
        let (terms, groups) = (stored.terms, stored.groups.clone());
        let names = storing::vary(&stored.headers).unwrap_or_default();
        let page = Page::new(Content::Response(stored));
        let (answer, key) =
            self.put(load, page.clone(), (terms.fresh_for, terms.kept_for()), &groups, names, asked_by).await;
        self.outcome = Some(Outcome::Kept { page, key, forward_status });
        answer
    }

    /// Remembers the validator of a response that passes.
    async fn remember(
        &mut self,
        load: &Load<Page>,
        parts: Parts,
        body: ResponseBody<R>,
        time: Duration,
        depends: Option<&Depends>,
        asked_by: &HeaderMap,
    ) -> Page {
        let mut headers = parts.headers.clone();
        page::prepare(&mut headers);
        conditions::not_modified(&mut headers);
        let names = storing::vary(&headers).unwrap_or_default();
        let page = Page::new(Content::Validator(Validator { headers, is_origins: depends.is_some() }));
        let groups = depends.map_or(&[][..], |depends| &depends.groups);
        let (answer, _) = self.put(load, page, (time, time), groups, names, asked_by).await;
        self.outcome = Some(Outcome::Passed(Response::from_parts(parts, body), "validator"));
        answer
    }

    /// Hands a response to this request alone, and has the others run their own handlers for a while.
    fn let_pass(&mut self, load: &Load<Page>, parts: Parts, body: ResponseBody<R>, reason: &'static str) -> Page {
        self.outcome = Some(Outcome::Passed(Response::from_parts(parts, body), reason));
        load.hard_ttl(UNCACHEABLE_FOR);
        Page::new(Content::Uncacheable)
    }

    /// Puts a page where those find it whom it is for, and returns what the load ends with and the page's key. `times`
    /// is how long it is fresh, and how long it is kept.
    async fn put(
        &mut self,
        load: &Load<Page>,
        page: Page,
        times: (Duration, Duration),
        groups: &[String],
        names: Vec<HeaderName>,
        asked_by: &HeaderMap,
    ) -> (Page, String) {
        let keep = |load: &Load<Page>| {
            load.groups(groups);
            load.soft_ttl(times.0);
            load.hard_ttl(times.1);
        };
        let known = self.at.variant.as_ref().and_then(|variant| match variant.variants.content() {
            Content::Variants(variants) => Some((variant, variants)),
            _ => None,
        });
        match known {
            None if names.is_empty() => {
                keep(load);
                (page, self.at.key.clone())
            }
            None => {
                let unlisted = Variants::new(names);
                let Some(place) = self.at.select(&page, &unlisted, asked_by) else {
                    load.hard_ttl(UNCACHEABLE_FOR);
                    return (Page::new(Content::Uncacheable), self.at.key.clone());
                };
                // In this order, for the reason that the module gives.
                let store = |inner: Load<Page>| async move {
                    keep(&inner);
                    Ok(page)
                };
                let _ = self.shared.shelf.get_or_load(&place.key, store).await;
                load.groups(groups);
                load.hard_ttl(VARIANTS_FOR);
                let selected = place.variant.map(|variant| variant.selected).unwrap_or_default();
                (Page::new(Content::Variants(unlisted.with(&selected))), place.key)
            }
            Some((_, variants)) if names.iter().all(|name| variants.names.contains(name)) => {
                keep(load);
                (page, self.at.key.clone())
            }
            Some((variant, variants)) => {
                // Requests that are the same by what was known may differ by what is known now.
                let widen = |page: &Page| match page.content() {
                    Content::Variants(present) if present.epoch == variants.epoch => {
                        Page::new(Content::Variants(present.widened(&names)))
                    }
                    _ => page.clone(),
                };
                self.shared.shelf.update(&variant.root, widen).await;
                load.do_not_store();
                (Page::new(Content::Uncacheable), self.at.key.clone())
            }
        }
    }
}

/// Returns whether a body is as long as its headers say, if they do.
fn has_length(headers: &HeaderMap, len: usize) -> bool {
    headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .all(|stated| stated.to_str().ok().and_then(|stated| stated.parse().ok()) == Some(len))
}

/// Runs a future that may panic.
async fn caught<F: Future>(start: impl FnOnce() -> F) -> Result<F::Output, Box<dyn Any + Send>> {
    // Nobody looks at what a panic has left half-done: the service is dropped, or its panic goes on.
    let mut future = pin!(catch_unwind(AssertUnwindSafe(start))?);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
