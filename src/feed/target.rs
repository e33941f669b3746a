//! What changes are applied to: the local tier at once, and the remote one as soon as it can be reached.

use super::Change;
#[cfg(feature = "tiered")]
use crate::clock::real;
use crate::group::{Group, Groups};
#[cfg(feature = "tiered")]
use crate::namespace::{Bump, Namespace};
#[cfg(feature = "tiered")]
use crate::remote::batch::Caller;
use crate::sync::Arc;

/// The most changes of groups, or batches of them, that wait for the remote tier before they become one, of everything: as many
/// as the namespace itself keeps apart.
pub(super) const MAX_OPEN: usize = 16_384;

/// What changes are applied to.
#[derive(Clone)]
pub(super) enum Target {
    Local(Local),
    #[cfg(feature = "tiered")]
    Remote(Remote),
}

/// Caches without a remote tier.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) groups: Groups,
    /// What everything is: one cache's entries, or, where this is `None`, all of the registry.
    pub(super) root: Option<Arc<Group>>,
}

/// Caches in two tiers.
#[cfg(feature = "tiered")]
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) namespace: Namespace,
    /// The hash of the root that stands for everything: one cache's, or the namespace's.
    pub(super) root: u64,
}

/// How far changes have come: in this process they are carried out, in the remote tier unless something is open.
#[cfg_attr(not(feature = "tiered"), derive(Default))]
pub(super) struct Standing {
    #[cfg(feature = "tiered")]
    pub(super) bump: Bump,
}

impl Target {
    /// Applies a change in this process, and tries to in the remote tier.
    ///
    /// Blocks on the remote tier alone: for every 512 groups on one exchange for what is invalidated and one for what is
    /// expired, for at most the namespace's timeout each.
    pub(super) fn apply(&self, change: &Change) -> Standing {
        match self {
            Target::Local(local) => local.apply(change),
            #[cfg(feature = "tiered")]
            Target::Remote(remote) => Standing { bump: real::block_on(remote.apply(Caller::Thread, change)) },
        }
    }

    /// Applies what covers every change of groups that there could be.
    pub(super) fn apply_to_all(&self) -> Standing {
        match self {
            Target::Local(local) => local.apply(&Change::everything()),
            #[cfg(feature = "tiered")]
            Target::Remote(remote) => Standing { bump: real::block_on(remote.apply_to_all(Caller::Thread)) },
        }
    }
}

impl Local {
    pub(super) fn apply(&self, change: &Change) -> Standing {
        match &self.root {
            Some(root) if change.everything => self.groups.bump_root(root),
            None if change.everything => self.groups.clear(),
            _ => {}
        }
        change.invalidated.iter().for_each(|group| self.groups.invalidate(group));
        change.expired.iter().for_each(|group| self.groups.expire(group));
        Standing::default()
    }
}

impl Standing {
    /// Forgets what has reached the remote tier by now, and returns how many changes of groups have not.
    #[cfg_attr(not(feature = "tiered"), expect(clippy::unused_self, reason = "without a remote tier nothing is open"))]
    pub(super) fn count_open(&mut self) -> usize {
        #[cfg(feature = "tiered")]
        return self.bump.count_open();
        #[cfg(not(feature = "tiered"))]
        0
    }
}

#[cfg(feature = "tiered")]
mod remote {
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use super::{MAX_OPEN, Remote, Standing};
    use crate::feed::Change;
    use crate::group::Bump as Kind;
    use crate::namespace::Bump;
    use crate::remote::batch::Caller;
    use crate::remote::keyspace::{ROOT_GROUP, group_hash};

    impl Default for Standing {
        fn default() -> Self {
            Standing { bump: Bump::Acknowledged }
        }
    }

    impl Remote {
        /// Applies a change in this process, with the first poll, and tries to in the remote tier. If the future is dropped
        /// half-way, all of the change is carried out all the same.
        pub(super) async fn apply(&self, caller: Caller, change: &Change) -> Bump {
            let mut killed = hashes(&change.invalidated);
            killed.extend(change.everything.then_some(self.root));
            let expired = hashes(&change.expired);
            // Both begin with the first poll, since a bump that has begun is carried out even if its future is dropped.
            let mut kill = pin!(self.namespace.bump(caller, &killed, Kind::Kill));
            let mut expire = pin!(self.namespace.bump(caller, &expired, Kind::Expire));
            let (mut kill_done, mut expire_done) = (None, None);
            poll_fn(|context| {
                if kill_done.is_none()
                    && let Poll::Ready(bump) = kill.as_mut().poll(context)
                {
                    kill_done = Some(bump);
                }
                if expire_done.is_none()
                    && let Poll::Ready(bump) = expire.as_mut().poll(context)
                {
                    expire_done = Some(bump);
                }
                if kill_done.is_some() && expire_done.is_some() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            [kill_done, expire_done].into_iter().flatten().fold(Bump::Acknowledged, Bump::and)
        }

        /// Applies a change, and returns what it and those before it are yet to reach, of which `open` was left.
        pub(in crate::feed) async fn apply_after(&self, caller: Caller, open: Bump, change: &Change) -> Bump {
            let mut open = open.and(self.apply(caller, change).await);
            if open.count_open() > MAX_OPEN { self.apply_to_all(caller).await } else { open }
        }

        pub(super) async fn apply_to_all(&self, caller: Caller) -> Bump {
            self.namespace.bump(caller, &[ROOT_GROUP], Kind::Kill).await
        }
    }

    /// Returns the hashes of groups, each once.
    fn hashes(groups: &[String]) -> Vec<u64> {
        let mut hashes: Vec<u64> = groups.iter().map(|group| group_hash(group)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}
