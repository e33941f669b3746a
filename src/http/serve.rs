//! How one request is answered: from the cache, by the handler, or by a handler that another request runs.
//!
//! A handler whose response may be stored runs inside a load of the cache below. So of many requests for one address
//! one runs it, an invalidation while it runs keeps its response from being stored, and the others wait for what it
//! brings: a page, or word that they may not have it. Each of them waits for one load at most. What it gets then, or
//! its own handler, is its answer.
//!
//! # Stale responses that may not be served
//! They stay in the cache to be confirmed by their handler, or to be served if that fails. The cache below would serve
//! them to all but the one that refreshes them. So that one first takes the *turn*, a key beside that of the page, for
//! which all others wait; what is loaded there is the load of the page itself, and is not stored.
//!
//! # Addresses that vary
//! Under their key is the list of headers that choose the variant, with an epoch that is part of the variants' own
//! keys. The first response is stored before that list is: its key is known to nobody until the list is stored, and
//! that is judged by the moment before the handler ran. So an invalidation while it ran makes the variant one that
//! nobody finds, and any later one kills the variant itself, whose own load began when the handler had ended. The list
//! is in the groups of that response.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::asked::{Address, Asked, Place, Reading};
use super::body::ResponseBody;
use super::page::{Content, Page, Standing, Stored};
use super::shelf::Shelf;
use super::status::{CacheStatus, Forwarded};
use super::storing::Policy;
use super::visit::Visit;
use crate::Clock;
use crate::load::BoxFuture;
use crate::sync::Arc;

/// What all requests share.
pub(super) struct Shared {
    pub(super) shelf: Shelf,
    pub(super) name: String,
    pub(super) policy: Policy,
    pub(super) max_body: usize,
    pub(super) spawner: Option<Box<dyn Fn(BoxFuture) + Send + Sync>>,
    pub(super) clock: Clock,
    pub(super) shows_status: bool,
}

impl Shared {
    pub(super) fn now(&self) -> SystemTime {
        self.clock.time_of_day()
    }

    pub(super) fn note(&self, headers: &mut HeaderMap, status: &CacheStatus) {
        if self.shows_status {
            status.append_to(headers, &self.name);
        }
    }

    /// Says how old `stored` is, which `page` holds and was found under `key`.
    pub(super) fn standing(&self, key: &str, page: &Page, stored: &Stored) -> Standing {
        // In this order: a page that is still there was there all the time. What has taken its place is younger, and says
        // nothing of it.
        let info = self.shelf.inspect(key).filter(|_| self.shelf.has(key, page));
        stored.standing(info.as_ref(), self.now())
    }

    /// Adds a variant to the list of its address, and removes those that it takes the place of.
    pub(super) async fn list(&self, at: &Place) {
        let Some(variant) = &at.variant else { return };
        let Content::Variants(known) = variant.variants.content() else { return };
        if known.listed.contains(&variant.selected) {
            return;
        }
        let shelf = &self.shelf;
        let listing = |page: &Page| match page.content() {
            Content::Variants(variants) if variants.epoch == known.epoch => {
                Page::new(Content::Variants(variants.with(&variant.selected)))
            }
            // Another list: what this one would say is not found through it.
            _ => page.clone(),
        };
        let after = shelf.update(&variant.root, listing).await;
        if let Some(Content::Variants(after)) = after.as_ref().map(Page::content)
            && after.epoch == known.epoch
        {
            let gone = known.listed.iter().filter(|selected| !after.listed.contains(selected));
            let gone: Vec<String> = gone.map(|selected| after.key_of(&variant.root, selected)).collect();
            if !gone.is_empty() {
                shelf.remove(&gone).await;
            }
        }
    }
}

pub(super) type Answer<R, E> = Result<Response<ResponseBody<R>>, E>;

/// Answers one request. `service` is ready.
pub(super) async fn answer<S, B, R>(shared: Arc<Shared>, mut service: S, request: Request<B>) -> Answer<R, S::Error>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send, Error: Send> + Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes, Error: Send> + Send + 'static,
{
    match Asked::of(&request) {
        Reading::Cacheable(asked) => Visit::new(shared, service, request, asked).answer().await,
        Reading::Foreign(why) => {
            let why = if why == "method" { Forwarded::Method } else { Forwarded::Bypass };
            let response = service.call(request).await?;
            let status = CacheStatus::forwarded(why).with_status(response.status());
            Ok(passed(&shared, response, &status))
        }
        Reading::Unsafe(address) => {
            let change = Change { shelf: &shared.shelf, address: Some(address) };
            let response = service.call(request).await?;
            let address = change.ended();
            // RFC 9111, section 4.4: a change that succeeded makes doubtful what was there before.
            if response.status().is_success() || response.status().is_redirection() {
                let changed = address.changed_with(response.headers());
                shared.shelf.remove(&changed).await;
            }
            let status = CacheStatus::forwarded(Forwarded::Method).with_status(response.status());
            Ok(passed(&shared, response, &status))
        }
    }
}

/// A change under way. Dropped before there is a response, it may have happened all the same: a client that leaves takes the
/// handler along, wherever that is by then. So its address is taken for changed.
struct Change<'a> {
    shelf: &'a Shelf,
    address: Option<Address>,
}

impl Change<'_> {
    /// Says that there is a response, and returns the address.
    fn ended(mut self) -> Address {
        self.address.take().expect("a change ends once")
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let Some(address) = self.address.take() else { return };
        let changed = address.changed_with(&HeaderMap::new());
        // From its first poll on a removal is carried out, though nobody polls it again.
        let _ = pin!(self.shelf.remove(&changed)).poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// Hands a response on as it is.
fn passed<R: Body<Data = Bytes>>(
    shared: &Shared,
    response: Response<R>,
    status: &CacheStatus,
) -> Response<ResponseBody<R>> {
    let mut response = response.map(ResponseBody::passing);
    shared.note(response.headers_mut(), status);
    response
}
