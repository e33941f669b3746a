//! Where pages are held: in this process, or in both tiers.

use std::future::Future;

use super::page::Page;
use crate::error::LoadError;
use crate::options::Load;
use crate::stats::Stats;
#[cfg(feature = "tiered")]
use crate::{Bump, TieredCache};
use crate::{Cache, EntryInfo};

/// A load that brought no page: the handler failed, or said nothing that may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

/// The cache below the layer.
#[derive(Clone, Debug)]
pub(super) enum Shelf {
    Local(Cache<String, Page>),
    #[cfg(feature = "tiered")]
    Tiered(TieredCache<String, Page>),
}

impl Shelf {
    /// Returns what the local tier has, without waiting.
    pub(super) fn glance(&self, key: &str) -> Option<Page> {
        match self {
            Shelf::Local(cache) => cache.get(key),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.local().get(key),
        }
    }

    /// Returns what either tier has.
    pub(super) async fn get(&self, key: &str) -> Option<Page> {
        match self {
            Shelf::Local(cache) => cache.get(key),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.get_async(key).await,
        }
    }

    /// Returns what the local tier knows of an entry, without a trace.
    pub(super) fn inspect(&self, key: &str) -> Option<EntryInfo> {
        match self {
            Shelf::Local(cache) => cache.inspect(key),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.local().inspect(key),
        }
    }

    /// Returns whether the local tier has this very page.
    pub(super) fn has(&self, key: &str, page: &Page) -> bool {
        let found = match self {
            Shelf::Local(cache) => cache.peek(key),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.local().peek(key),
        };
        found.is_some_and(|found| found.is(page))
    }

    /// Returns whether a page that came without a load may be from elsewhere than this process.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self, Shelf::Local(_))
    }

    pub(super) async fn get_or_load<F, Fut>(&self, key: &str, loader: F) -> Result<Page, LoadError<Failed>>
    where
        F: FnOnce(Load<Page>) -> Fut,
        Fut: Future<Output = Result<Page, Failed>>,
    {
        match self {
            Shelf::Local(cache) => cache.get_or_load_async(key, loader).await,
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.get_or_load_async(key, loader).await,
        }
    }

    pub(super) async fn update(&self, key: &str, f: impl Fn(&Page) -> Page) -> Option<Page> {
        match self {
            Shelf::Local(cache) => cache.update(key, f),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.update_async(key, f).await,
        }
    }

    pub(super) async fn remove(&self, keys: &[String]) -> bool {
        match self {
            Shelf::Local(cache) => {
                cache.remove_many(keys);
                true
            }
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => is_told(cache.remove_many_async(keys).await),
        }
    }

    pub(super) fn invalidate(&self, groups: &[&str]) -> bool {
        match self {
            Shelf::Local(cache) => {
                cache.invalidate_groups(groups);
                true
            }
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => is_told(cache.invalidate_groups(groups)),
        }
    }

    pub(super) async fn invalidate_async(&self, groups: &[&str]) -> bool {
        match self {
            Shelf::Local(cache) => {
                cache.invalidate_groups(groups);
                true
            }
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => is_told(cache.invalidate_groups_async(groups).await),
        }
    }

    pub(super) fn clear(&self) -> bool {
        match self {
            Shelf::Local(cache) => {
                cache.clear();
                true
            }
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => is_told(cache.clear()),
        }
    }

    pub(super) async fn clear_async(&self) -> bool {
        match self {
            Shelf::Local(cache) => {
                cache.clear();
                true
            }
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => is_told(cache.clear_async().await),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        match self {
            Shelf::Local(cache) => cache.stats(),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.stats(),
        }
    }

    #[cfg(feature = "metrics")]
    pub(super) fn publish_metrics(&self) {
        match self {
            Shelf::Local(cache) => cache.publish_metrics(),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.publish_metrics(),
        }
    }

    pub(super) fn weight(&self) -> u64 {
        match self {
            Shelf::Local(cache) => cache.weight(),
            #[cfg(feature = "tiered")]
            Shelf::Tiered(cache) => cache.local().weight(),
        }
    }
}

#[cfg(feature = "tiered")]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a receipt that is not kept changes nothing: the bump is tried until it is through"
)]
fn is_told(bump: Bump) -> bool {
    matches!(bump, Bump::Acknowledged)
}
