//! Caches with a registered loader: what loads is known once, so that it can run in the background.

pub(crate) mod answer;
mod builder;
mod call;
pub(crate) mod claimed;
mod local;
pub(crate) mod pool;
mod source;

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use self::answer::answer;
pub use self::builder::LoadingBuilder;
pub(crate) use self::call::{By, Call};
use self::pool::{Permit, Pool};
pub(crate) use self::source::Source;
pub use self::source::{AsyncLoader, Loader};
use crate::builder::CacheBuilder;
use crate::cache::Cache;
use crate::call::CallOptions;
use crate::clock::{Clock, Deadline};
use crate::error::LoadError;
use crate::limit::{Limited, within};
use crate::load::BoxFuture;
use crate::stats::Tally;
use crate::sync::Arc;
use crate::task::drop_quietly;
use crate::watch::Background;

/// How many keys a warm-up loads at once.
pub(crate) const WARM_UP_BATCH: usize = 100;

/// A cache that knows its loader, and refreshes stale values in the background.
///
/// Made by [`CacheBuilder::loader`](crate::CacheBuilder::loader) and its like. It is the cache as well, by `Deref`: all verbs
/// of [`Cache`] or [`TieredCache`](crate::TieredCache) are at hand. Cloning gives another handle.
///
/// # What a call waits for
/// - A *fresh* value is returned at once.
/// - Of the callers that find a *stale* value, one begins its refresh in the background, waits for that no longer than the
///   [soft timeout](LoadingBuilder::soft_timeout), which is zero by default, and is served the stale value then; the others
///   are at once. Where the value has died by then, the caller goes on like those that find none. A refresh that fails, panics
///   or takes too long leaves the stale value in service until its hard deadline, and no other is tried for a second, or for
///   what [`stale_if_error`](crate::CacheBuilder::stale_if_error) says.
/// - Of those that find *no* value, one begins a load and all wait for it: at most the
///   [hard timeout](LoadingBuilder::hard_timeout), if there is one, and those that came second at most the cache's
///   [`load_wait`](crate::CacheBuilder::load_wait) as well. Errors, panics and timeouts are shared by all who waited, and not
///   kept: the next caller may try.
///
/// # Where a load runs
/// A refresh runs on the cache's own threads, [`load_threads`](LoadingBuilder::load_threads) at most, or where the
/// [spawner](LoadingBuilder::spawner) puts a future. So does a load that somebody waits for, but in two cases: a blocking
/// loader without a hard timeout runs on the thread of the blocking caller, and a loader by futures without hard timeout and
/// spawner runs as part of the future of the async caller. There, a panic of the loader passes through, and dropping the
/// future drops the load. What a loader itself loads, by blocking one of the cache's own threads, runs on that thread too.
///
/// At most 4,096 loads of a cache are under way in the background, those that wait for a thread among them. Beyond that a
/// refresh is not begun ([`Stats::refresh_overflows`](crate::Stats::refresh_overflows)), and a load that callers wait for
/// fails with [`Overloaded`](crate::LoadErrorKind::Overloaded).
///
/// # Loads that take too long
/// A load past its hard timeout is given up: whoever waits is told so, the next caller may try, and what it brings is stored
/// nowhere, unless it was on its way to the remote tier by then and is found there later. A future is dropped. A loader that
/// blocks cannot be interrupted: it keeps its thread until it returns, and learns from
/// [`Load::is_cancelled`](crate::Load::is_cancelled) that it may as well. As many as there are threads, all hanging, keep other
/// loads from running; so give the source a time limit of its own too.
///
/// # When it ends
/// With the last handle, its threads are told to end, and the loads that wait for one are dropped; nothing is waited for.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Load};
///
/// let pages = Cache::builder()
///     .capacity(10_000)
///     .soft_ttl(Duration::from_secs(60))
///     .loader(|path: &String, _: Load<String>| Ok::<_, std::io::Error>(format!("the page {path}")))
///     .hard_timeout(Duration::from_secs(2))
///     .build()?;
/// assert_eq!(pages.load("/user/7")?, "the page /user/7");
/// assert!(pages.contains("/user/7"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Loading<C: Typed, E> {
    pub(crate) cache: C,
    pub(crate) registered: Arc<Registered<C::Key, C::Value, E>>,
}

/// A [`Cache`] with a registered loader, whose errors are `E`.
pub type LoadingCache<K, V, E, S = ahash::RandomState> = Loading<Cache<K, V, S>, E>;

/// A [`TieredCache`](crate::TieredCache) with a registered loader, whose errors are `E`.
#[cfg(feature = "tiered")]
pub type LoadingTieredCache<K, V, E, S = ahash::RandomState> = Loading<crate::TieredCache<K, V, S>, E>;

/// What has keys and values of certain types: caches and their builders. Sealed.
pub trait Typed {
    /// The type of the keys.
    type Key;
    /// The type of the values.
    type Value;
}

impl<K, V, S> Typed for Cache<K, V, S> {
    type Key = K;
    type Value = V;
}

impl<K, V, S> Typed for CacheBuilder<K, V, S> {
    type Key = K;
    type Value = V;
}

#[cfg(feature = "tiered")]
impl<K, V, S> Typed for crate::TieredCache<K, V, S> {
    type Key = K;
    type Value = V;
}

#[cfg(feature = "tiered")]
impl<K, V, S> Typed for crate::TieredCacheBuilder<K, V, S> {
    type Key = K;
    type Value = V;
}

impl<C: Typed, E> Deref for Loading<C, E> {
    type Target = C;

    #[inline]
    fn deref(&self) -> &C {
        &self.cache
    }
}

impl<C: Typed + Clone, E> Clone for Loading<C, E> {
    /// Returns another handle to the same cache, with the same loader.
    fn clone(&self) -> Self {
        Loading { cache: self.cache.clone(), registered: self.registered.clone() }
    }
}

impl<C: Typed + fmt::Debug, E> fmt::Debug for Loading<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loading")
            .field("cache", &self.cache)
            .field("soft_timeout", &self.registered.soft_timeout)
            .field("hard_timeout", &self.registered.hard_timeout)
            .field("pool", &self.registered.pool)
            .finish_non_exhaustive()
    }
}

/// Hands a future to a runtime.
type Spawner = Box<dyn Fn(BoxFuture) + Send + Sync>;

/// A loader, and how its loads run. Loads under way do not hold on to it, so that it ends with the last handle.
pub(crate) struct Registered<K, V, E> {
    /// That of the cache.
    name: Arc<str>,
    pub(crate) source: Arc<Source<K, V, E>>,
    pub(crate) soft_timeout: Duration,
    pub(crate) hard_timeout: Option<Duration>,
    spawner: Option<Spawner>,
    pub(crate) pool: Pool,
}

/// What a background load comes to.
pub(crate) type Outcome<T, E> = Result<T, LoadError<E>>;

impl<K, V, E: Send + Sync + 'static> Registered<K, V, E> {
    pub(crate) fn call(&self, by: By, options: CallOptions, clock: &Clock) -> Call {
        let hard_timeout = options.hard_timeout.or(self.hard_timeout);
        let until = hard_timeout.map_or(Deadline::NEVER, |timeout| Deadline::after(clock.now(), timeout));
        let soft_timeout = options.soft_timeout.unwrap_or(self.soft_timeout);
        Call { by, options, soft_timeout, hard_timeout, until }
    }

    /// Returns whether a load that the caller waits for runs where the caller is.
    pub(crate) fn runs_here(&self, call: &Call) -> bool {
        match (call.by, self.source.blocks()) {
            // One of the pool's own threads must not wait for another, which may wait in its turn.
            (By::Thread, true) => call.hard_timeout.is_none() || self.pool.is_mine(),
            (By::Thread, false) => self.pool.is_mine(),
            (By::Task, false) => call.hard_timeout.is_none() && self.spawner.is_none(),
            (By::Task, true) => false,
        }
    }

    /// Returns the right to refresh a value in the background; `None` where there are too many loads. Both are counted.
    pub(crate) fn refresh_permit(&self, tally: Tally<'_>) -> Option<Permit> {
        let permit = self.pool.permit();
        tally.count(|counters| match permit {
            Some(_) => &counters.refreshes,
            None => &counters.refresh_overflows,
        });
        permit
    }

    /// Begins a load in the background, and returns its answer to come. The load goes on without who waits for that.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        permit: Permit,
        limited: Option<Limited>,
        load: impl Future<Output = Outcome<T, E>> + Send + 'static,
    ) -> answer::Answer<Outcome<T, E>> {
        let (promise, answer) = answer();
        let name = self.name.clone();
        let job: BoxFuture = Box::pin(Background::new().follow(async move {
            // Declared before the load, so dropped after it: until then it is under way.
            let _permit = permit;
            let outcome = caught(within(limited, load)).await;
            promise.give(outcome.unwrap_or_else(|| {
                report(format_args!("a loader of the cache {name} panicked in the background"));
                Err(LoadError::panicked())
            }));
        }));
        match &self.spawner {
            Some(spawn) if !self.source.blocks() => spawn(job),
            _ => self.pool.spawn(job),
        }
        answer
    }
}

/// Runs a future to its end, or to its panic: then there is nothing.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(panic) => {
            drop_quietly(panic);
            Poll::Ready(None)
        }
    })
    .await
}

/// Reports what no caller is told of, where there is a log. A span tells of it by itself.
fn report(what: fmt::Arguments<'_>) {
    #[cfg(all(feature = "tiered", not(feature = "tracing")))]
    let _ = crate::task::guarded(|| log::error!("{what}"));
    #[cfg(not(all(feature = "tiered", not(feature = "tracing"))))]
    let _ = what;
}
