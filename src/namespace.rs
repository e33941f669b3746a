//! A namespace: what the tiered caches of one application share.

use std::fmt;
use std::time::Duration;

use crate::clock::{Clock, Deadline};
use crate::error::BuildError;
use crate::group::{Bump as Kind, Groups};
use crate::remote::debt::Debt;
use crate::remote::error::RemoteError;
use crate::remote::keyspace::{Keyspace, ROOT_GROUP, group_hash};
use crate::remote::link::{Link, Owed};
use crate::remote::tier::RemoteTier;
use crate::sync::Arc;

/// How long one exchange with the remote tier may take, unless the builder says otherwise.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How long a caller that waits for a receipt pauses before it tries again, at first and at most.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What the tiered caches of one application share: the remote tier, the names of what they keep there, and the groups.
///
/// Processes that use one namespace and version of one store share values. Groups belong to all caches, and all versions, of
/// a namespace. Cloning gives another handle to the same namespace.
#[derive(Clone)]
pub struct Namespace(Arc<Shared>);

struct Shared {
    link: Arc<Link>,
    groups: Groups,
    clock: Clock,
}

impl Namespace {
    /// Returns a builder for the namespace called `name` in `tier`: 1 to 64 bytes of printable ASCII without `:`.
    pub fn builder(name: &str, tier: impl RemoteTier) -> NamespaceBuilder {
        NamespaceBuilder {
            name: name.to_owned(),
            tier: Box::new(tier),
            version: String::new(),
            timeout: TIMEOUT,
            clock: Clock::system(),
        }
    }

    /// Makes every entry of `group` dead, in all caches of this namespace and in the remote tier, in constant time.
    ///
    /// In this process from the moment this returns; see [`Bump`] for the others. Loads under way that name the group are
    /// fenced.
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn invalidate_group(&self, group: &str) -> Bump {
        self.bump(group, Kind::Kill)
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
        let hashes: Vec<u64> = groups.into_iter().map(|group| group_hash(group.as_ref())).collect();
        if hashes.is_empty() {
            return Bump::Acknowledged;
        }
        let locally = || hashes.iter().for_each(|&hash| self.0.groups.bump_hash(hash, Kind::Kill));
        self.bump_with(&hashes, Kind::Kill, locally)
    }

    /// Makes every entry of `group` stale, in all caches of this namespace and in the remote tier: still served, while one
    /// caller refreshes each.
    ///
    /// # Blocking
    /// As [`invalidate_group`](Self::invalidate_group).
    pub fn expire_group(&self, group: &str) -> Bump {
        self.bump(group, Kind::Expire)
    }

    /// Makes every entry of every cache of this namespace dead, here and in the remote tier, in constant time. Other versions
    /// of the namespace lose their remote values as well.
    ///
    /// # Blocking
    /// As [`invalidate_group`](Self::invalidate_group).
    pub fn clear(&self) -> Bump {
        self.bump_with(&[ROOT_GROUP], Kind::Kill, || self.0.groups.clear())
    }

    /// Returns how many deletions and bumps this process still owes the remote tier, because it did not acknowledge them. What
    /// they concern counts as a miss until they are done, which is tried with every exchange.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.0.link.owed()
    }

    fn bump(&self, group: &str, kind: Kind) -> Bump {
        let hash = group_hash(group);
        self.bump_with(&[hash], kind, || self.0.groups.bump_hash(hash, kind))
    }

    /// Bumps groups, locally by `locally`, and remotely.
    pub(crate) fn bump_with(&self, groups: &[u64], kind: Kind, locally: impl Fn()) -> Bump {
        // Before, so that nothing old is served from here on; and after, because a value that was read from the remote tier
        // meanwhile may have been judged by the old token.
        locally();
        let bumped = self.0.link.bump(groups, kind);
        locally();
        Bump::from_result(bumped, self)
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.0.groups
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("link", &self.0.link).field("groups", &self.0.groups).finish()
    }
}

/// Builds a [`Namespace`]. Made by [`Namespace::builder`].
#[must_use = "a builder does nothing until it is built"]
pub struct NamespaceBuilder {
    name: String,
    tier: Box<dyn RemoteTier>,
    version: String,
    timeout: Duration,
    clock: Clock,
}

impl NamespaceBuilder {
    /// Sets the version of what is stored: values of another version are not seen. Change it with the shape of a value's
    /// type. Default: empty. Up to 64 bytes of printable ASCII without `:`.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// Sets how long one exchange with the remote tier may take; a lookup takes two. Default: 500 ms. Zero is an error.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets where the local tiers take their time from. Default: the system's monotonic clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the namespace. Does no I/O.
    ///
    /// # Errors
    /// [`BuildError`], with the value and what to do, if a name or the timeout cannot be used.
    pub fn build(self) -> Result<Namespace, BuildError> {
        if self.timeout.is_zero() {
            return Err(BuildError::new(
                "timeout is zero, so every exchange with the remote tier would fail; set how long one may take",
            ));
        }
        let keys = Keyspace::new(&self.name, &self.version).map_err(|error| BuildError::new(error.to_string()))?;
        let link = Arc::new(Link::new(self.tier, self.timeout, keys));
        Ok(Namespace(Arc::new(Shared { link, groups: Groups::by_hash(group_hash), clock: self.clock })))
    }
}

impl fmt::Debug for NamespaceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceBuilder")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// How far an invalidation has come when the call that made it returns. In this process it holds in any case.
#[derive(Clone, Debug)]
#[must_use = "an invalidation that is pending has not reached the remote tier"]
#[non_exhaustive]
pub enum Bump {
    /// The remote tier has carried it out: whoever asks it from now on sees it.
    Acknowledged,
    /// The remote tier has not acknowledged it. This process takes nothing that it concerns from there until it has, and
    /// tries again with every exchange; other processes do not know of it yet.
    Pending(Receipt),
}

impl Bump {
    /// Returns whether the remote tier has carried the invalidation out.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        matches!(self, Bump::Acknowledged)
    }

    pub(crate) fn from_result(result: Result<(), Owed>, namespace: &Namespace) -> Bump {
        match result {
            Ok(()) => Bump::Acknowledged,
            Err(owed) => Bump::Pending(Receipt::new(namespace, owed)),
        }
    }
}

/// What to wait on for something that the remote tier has not acknowledged.
#[derive(Clone)]
pub struct Receipt {
    namespace: Namespace,
    debts: Vec<Debt>,
    error: RemoteError,
}

impl Receipt {
    pub(crate) fn new(namespace: &Namespace, Owed { error, debts }: Owed) -> Receipt {
        log::warn!(
            "the remote tier did not acknowledge a change; what it holds of that counts for nothing until it has: {error}"
        );
        Receipt { namespace: namespace.clone(), debts, error }
    }

    /// Returns why the remote tier did not acknowledge it at first.
    #[must_use]
    pub fn error(&self) -> &RemoteError {
        &self.error
    }

    /// Returns whether the remote tier has acknowledged it by now. Does no I/O.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.debts.iter().all(|debt| self.namespace.link().is_settled(debt))
    }

    /// Tries until the remote tier has acknowledged it, and returns whether it has within `patience`.
    ///
    /// # Blocking
    /// For `patience` and the time of one exchange at most, with growing pauses between attempts.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let clock = Clock::system();
        let deadline = Deadline::after(clock.now(), patience);
        let (mut pause, longest) = RETRY_AFTER;
        loop {
            if self.is_settled() {
                return true;
            }
            let paid = self.namespace.link().pay();
            if self.is_settled() {
                return true;
            }
            // Each exchange pays a part of what is owed: a long outage leaves more.
            if paid && !deadline.has_passed(clock.now()) {
                pause = RETRY_AFTER.0;
                continue;
            }
            match deadline.remaining(clock.now()) {
                Some(Duration::ZERO) => return false,
                remaining => std::thread::sleep(pause.min(remaining.unwrap_or(longest))),
            }
            pause = (pause * 2).min(longest);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("settled", &self.is_settled()).field("error", &self.error).finish()
    }
}
