//! A namespace: what the tiered caches of one application share.

mod builder;
mod bump;
pub(crate) mod core;
mod counter;
mod health;
pub(crate) mod leases;
pub(crate) mod settings;
mod threads;

use std::fmt;
use std::time::Duration;

pub use self::builder::NamespaceBuilder;
pub use self::bump::{Bump, Receipt};
use self::core::Core;
pub use self::counter::Counter;
pub use self::health::Health;
pub use self::settings::{Announce, LostTrust, WriteMode};
use self::threads::Threads;
use crate::broadcast::behind::Behind;
use crate::broadcast::outbox::Unsent;
use crate::clock::real;
use crate::group::Bump as Kind;
use crate::remote::batch::Caller;
use crate::remote::error::RemoteError;
use crate::remote::keyspace::{ROOT_GROUP, group_hash};
use crate::remote::tier::RemoteTier;
use crate::sync::Arc;

/// No shutdown takes longer, whatever its limit says.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(3_600);

/// What the tiered caches of one application share: the remote tier and the threads that talk to it, the names of what they
/// keep there, the groups, and the journal by which processes tell each other what they have invalidated.
///
/// Processes that use one namespace and version of one store share values. Groups belong to all caches, and all versions, of
/// a namespace. Cloning gives another handle to the same namespace.
///
/// # Threads
/// One thread follows the journal. Others start when there is something for them to do: up to two for each server carry
/// exchanges, one sends again what was not acknowledged, one renews the leases of long loads. They end with the last handle,
/// caches among them, or with [`shutdown`](Self::shutdown); writes that are queued keep their cache until they are sent or
/// given up, a second or two without the remote tier. Dropping the last handle never waits; what it leaves unsent is logged.
#[derive(Clone)]
pub struct Namespace(Arc<Handle>);

/// The handle that all clones share: dropping it ends the threads.
struct Handle {
    core: Arc<Core>,
    threads: Threads,
}

impl Namespace {
    /// Returns a builder for the namespace called `name` in `tier`: 1 to 64 bytes of printable ASCII without `:`.
    pub fn builder(name: &str, tier: impl RemoteTier) -> NamespaceBuilder {
        NamespaceBuilder::new(name, Arc::new(tier))
    }

    /// Makes every entry of `group` dead, in all caches of this namespace and in the remote tier, in constant time.
    ///
    /// In this process from the moment this returns; see [`Bump`] for the others. Loads under way that name the group are
    /// fenced.
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn invalidate_group(&self, group: &str) -> Bump {
        self.invalidate_groups([group])
    }

    /// Makes every entry of `group` dead: [`invalidate_group`](Self::invalidate_group) for futures.
    ///
    /// In this process from the first poll on. If the future is dropped half-way, the invalidation is carried out all the
    /// same.
    pub async fn invalidate_group_async(&self, group: &str) -> Bump {
        self.bump(Caller::Task, &[group_hash(group)], Kind::Kill).await
    }

    /// Makes every entry of each group dead, as [`invalidate_group`](Self::invalidate_group) would.
    ///
    /// # Blocking
    /// As [`invalidate_group`](Self::invalidate_group), for all groups together.
    pub fn invalidate_groups<I>(&self, groups: I) -> Bump
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        real::block_on(self.bump(Caller::Thread, &hashes(groups), Kind::Kill))
    }

    /// Makes every entry of each group dead: [`invalidate_groups`](Self::invalidate_groups) for futures.
    pub async fn invalidate_groups_async<I>(&self, groups: I) -> Bump
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let groups = hashes(groups);
        self.bump(Caller::Task, &groups, Kind::Kill).await
    }

    /// Makes every entry of `group` stale, in all caches of this namespace and in the remote tier: still served, while one
    /// caller refreshes each.
    ///
    /// # Blocking
    /// As [`invalidate_group`](Self::invalidate_group).
    pub fn expire_group(&self, group: &str) -> Bump {
        real::block_on(self.bump(Caller::Thread, &[group_hash(group)], Kind::Expire))
    }

    /// Makes every entry of `group` stale: [`expire_group`](Self::expire_group) for futures.
    pub async fn expire_group_async(&self, group: &str) -> Bump {
        self.bump(Caller::Task, &[group_hash(group)], Kind::Expire).await
    }

    /// Makes every entry of every cache of this namespace dead, here and in the remote tier, in constant time. Other versions
    /// of the namespace lose their values as well.
    ///
    /// # Blocking
    /// As [`invalidate_group`](Self::invalidate_group).
    pub fn clear(&self) -> Bump {
        real::block_on(self.bump(Caller::Thread, &[ROOT_GROUP], Kind::Kill))
    }

    /// Makes every entry of every cache of this namespace dead: [`clear`](Self::clear) for futures.
    pub async fn clear_async(&self) -> Bump {
        self.bump(Caller::Task, &[ROOT_GROUP], Kind::Kill).await
    }

    /// Returns the counter called `name`, shared by all processes that use this namespace and version. Any name will do; a
    /// counter is never a cache's key.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(self.clone(), name)
    }

    /// Looks at the journal now, in the caller's thread, and does what it says: what other processes have had acknowledged
    /// before is known here when this returns `Ok`.
    ///
    /// The namespace's own thread does so every [`poll_interval`](NamespaceBuilder::poll_interval).
    ///
    /// # Errors
    /// Why the journal could not be read.
    ///
    /// # Blocking
    /// On one or two exchanges with the remote tier, for at most the namespace's timeout each.
    pub fn poll_now(&self) -> Result<(), RemoteError> {
        real::block_on(self.core().look(Caller::Thread))
    }

    /// Looks at the journal now: [`poll_now`](Self::poll_now) for futures.
    ///
    /// # Errors
    /// As [`poll_now`](Self::poll_now).
    pub async fn poll_now_async(&self) -> Result<(), RemoteError> {
        self.core().look(Caller::Task).await
    }

    /// Returns how the namespace and its remote tier are. Does no I/O.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(self.core())
    }

    /// Sends what this process still owes the remote tier, and ends the threads of the namespace.
    ///
    /// Afterwards its caches go on as far as their local tier and the calling threads reach: the journal is followed no more,
    /// so that the trust lease lapses; nothing is sent again.
    ///
    /// # Errors
    /// [`Unsent`], if something could not be sent within `limit`: it is given up.
    ///
    /// # Blocking
    /// For `limit` and one exchange at most.
    pub fn shutdown(&self, limit: Duration) -> Result<(), Unsent> {
        let limit = limit.min(LONGEST_SHUTDOWN);
        let deadline = real::now() + limit;
        // Writes first: those that fail for good become deletions.
        let behind = self.core().behind.as_ref().map_or(Ok(()), |behind| behind.shutdown(limit));
        let owed = self.core().outbox.shutdown(deadline.saturating_duration_since(real::now()));
        self.core().behind.iter().for_each(Behind::give_up);
        self.0.threads.stop(self.core());
        let (writes, error) = behind.err().unwrap_or_default();
        Unsent::with_writes(owed.err(), writes, error).map_or(Ok(()), Err)
    }

    /// Returns how many deletions and bumps this process still owes the remote tier, because it did not acknowledge them. What
    /// they concern counts as a miss until they are done.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.core().outbox.owed()
    }

    pub(crate) async fn bump(&self, caller: Caller, groups: &[u64], kind: Kind) -> Bump {
        if groups.is_empty() {
            return Bump::Acknowledged;
        }
        Bump::from_result(self.core().bump(caller, groups, kind).await)
    }

    #[inline]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

fn hashes<I>(groups: I) -> Vec<u64>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    groups.into_iter().map(|group| group_hash(group.as_ref())).collect()
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.threads.stop(&self.core);
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace")
            .field("keys", &self.core().keys)
            .field("groups", &self.core().groups)
            .field("health", &self.health())
            .finish()
    }
}
