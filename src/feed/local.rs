//! The verbs of caches without a remote tier that apply a sequence of changes, or start who follows a feed.

use std::future::poll_fn;
use std::pin::pin;

use futures_core::Stream;

use super::target::{Local, Target};
use super::{Change, ChangeFeed, Follower};
use crate::cache::Cache;
use crate::error::BuildError;
use crate::group::Groups;

impl Groups {
    /// Applies changes to all caches of this registry, until `changes` ends.
    ///
    /// # Blocking
    /// On `changes` alone.
    pub fn invalidate_from(&self, changes: impl IntoIterator<Item = Change>) {
        apply_each(&self.target(), changes);
    }

    /// Applies changes to all caches of this registry, until the stream ends. On any runtime.
    pub async fn invalidate_from_stream(&self, changes: impl Stream<Item = Change>) {
        apply_stream(&self.target(), changes).await;
    }

    /// Starts a thread that follows `feed`, and applies what it says to all caches of this registry; see [`ChangeFeed`].
    ///
    /// # Errors
    /// As [`Cache::follow`].
    pub fn follow(&self, name: &str, feed: impl ChangeFeed) -> Result<Follower, BuildError> {
        Follower::start(name, Target::Local(self.target()), feed)
    }

    fn target(&self) -> Local {
        Local { groups: self.clone(), root: None }
    }
}

impl<K, V, S> Cache<K, V, S> {
    /// Applies changes until `changes` ends: of groups in all caches that share this cache's registry, of everything in this
    /// cache.
    ///
    /// # Blocking
    /// On `changes` alone.
    ///
    /// # Examples
    /// ```
    /// use larder::{Cache, Change, EntryOptions};
    ///
    /// let cache: Cache<u64, String> = Cache::new(1_000);
    /// cache.insert_with(7, "Ann".into(), EntryOptions::new().groups(["record:7"])).unwrap();
    /// let saved = [6_u64, 7];
    /// cache.invalidate_from(saved.map(|id| Change::invalidate([format!("record:{id}")])));
    /// assert_eq!(cache.get(&7), None);
    /// ```
    pub fn invalidate_from(&self, changes: impl IntoIterator<Item = Change>) {
        apply_each(&self.target(), changes);
    }

    /// Applies changes until the stream ends, on any runtime; otherwise as [`invalidate_from`](Self::invalidate_from).
    pub async fn invalidate_from_stream(&self, changes: impl Stream<Item = Change>) {
        apply_stream(&self.target(), changes).await;
    }

    /// Starts a thread that follows `feed`, through failures and gaps, and applies what it says, as
    /// [`invalidate_from`](Self::invalidate_from) would; see [`ChangeFeed`].
    ///
    /// The thread is called `larder-feed-<name>`, and does not keep the cache's entries.
    ///
    /// # Errors
    /// If `name` is not 1 to 64 bytes of printable ASCII, or no thread can be started.
    pub fn follow(&self, name: &str, feed: impl ChangeFeed) -> Result<Follower, BuildError> {
        Follower::start(name, Target::Local(self.target()), feed)
    }

    fn target(&self) -> Local {
        Local { groups: self.store.settings.groups.clone(), root: Some(self.store.root.clone()) }
    }
}

fn apply_each(target: &Local, changes: impl IntoIterator<Item = Change>) {
    for change in changes {
        target.apply(&change);
    }
}

async fn apply_stream(target: &Local, changes: impl Stream<Item = Change>) {
    let mut changes = pin!(changes);
    while let Some(change) = poll_fn(|context| changes.as_mut().poll_next(context)).await {
        target.apply(&change);
    }
}
