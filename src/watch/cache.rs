//! Who a cache is to those who watch it, and what is told of its loads.

use std::time::Duration;

#[cfg(feature = "tracing")]
use super::events::{Limit, event};
#[cfg(feature = "metrics")]
use super::figures::{LOAD_SECONDS, record};
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::sync::{Arc, OnceLock};

/// Who a cache is to those who watch it. Clones are handles to the same cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheWatch {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    names: Arc<Names>,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
#[derive(Debug, Default)]
struct Names {
    cache: Arc<str>,
    /// Set where the cache is the local tier of one in a namespace.
    namespace: OnceLock<Arc<str>>,
    #[cfg(feature = "tracing")]
    loader_panics: Limit,
    #[cfg(feature = "tracing")]
    listener_panics: Limit,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl CacheWatch {
    pub(crate) fn new(cache: &str) -> CacheWatch {
        CacheWatch { names: Arc::new(Names { cache: cache.into(), ..Names::default() }) }
    }

    /// Says which namespace the cache belongs to. Only the first one counts.
    #[cfg(feature = "tiered")]
    pub(crate) fn join(&self, namespace: &str) {
        self.names.namespace.get_or_init(|| namespace.into());
    }

    pub(super) fn cache(&self) -> &Arc<str> {
        &self.names.cache
    }

    pub(super) fn namespace(&self) -> Option<&Arc<str>> {
        self.names.namespace.get()
    }
}

#[cfg(not(any(feature = "metrics", feature = "tracing")))]
impl CacheWatch {
    pub(crate) fn new(_cache: &str) -> CacheWatch {
        CacheWatch {}
    }

    #[cfg(feature = "tiered")]
    pub(crate) fn join(&self, _namespace: &str) {}
}

#[cfg(feature = "metrics")]
impl CacheWatch {
    /// Records the time of a load.
    pub(crate) fn loaded(&self, took: Duration, success: bool) {
        record(&LOAD_SECONDS, self.labels([("outcome", if success { "ok" } else { "error" })]), took.as_secs_f64());
    }
}

#[cfg(not(feature = "metrics"))]
impl CacheWatch {
    #[inline]
    pub(crate) fn loaded(&self, _took: Duration, _success: bool) {}
}

#[cfg(feature = "tracing")]
impl CacheWatch {
    /// Tells of a loader that panicked.
    pub(super) fn loader_panicked(&self) {
        if let Some(others) = self.names.loader_panics.pass() {
            let cache = &**self.cache();
            event!(error, [cache = cache, others = others.0], "a loader of the cache {cache} panicked{others}");
        }
    }

    /// Tells of a removal listener that panicked.
    pub(crate) fn listener_panicked(&self) {
        if let Some(others) = self.names.listener_panics.pass() {
            let cache = &**self.cache();
            event!(
                error,
                [cache = cache, others = others.0],
                "the removal listener of the cache {cache} panicked{others}"
            );
        }
    }
}

#[cfg(not(feature = "tracing"))]
impl CacheWatch {
    #[inline]
    pub(crate) fn listener_panicked(&self) {}
}
