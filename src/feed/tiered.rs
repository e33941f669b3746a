//! The verbs of caches in two tiers that apply a sequence of changes, or start who follows a feed.

use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::task::Poll;

use futures_core::Stream;

use super::target::{Remote, Target};
use super::{BATCH, Change, ChangeFeed, Follower};
use crate::clock::real;
use crate::error::BuildError;
use crate::namespace::{Bump, Namespace};
use crate::remote::batch::Caller;
use crate::remote::keyspace::ROOT_GROUP;
use crate::sync::channel::{Receiver, bounded};
use crate::sync::thread;
use crate::tiered::TieredCache;

impl Namespace {
    /// Applies changes to all caches of this namespace and to the remote tier, until `changes` ends.
    ///
    /// Those that are at hand share an exchange, and a lone one waits for no other. Each holds in this process soon after it
    /// came; the answer says whether the remote tier has acknowledged all of them. While it does not, they are owed to it,
    /// as any [`Bump`]; more than 16,384 of them become one, of the whole namespace.
    ///
    /// # Panics
    /// A panic of `changes` passes through. What came before it is applied.
    ///
    /// # Blocking
    /// On `changes`, and in the end for what has yet to be sent: for at most the namespace's timeout an exchange. A thread that
    /// lives as long as the call talks to the remote tier.
    pub fn invalidate_from(&self, changes: impl IntoIterator<Item = Change>) -> Bump {
        pump(&self.target(), changes)
    }

    /// Applies changes to all caches of this namespace and to the remote tier, until the stream ends; as
    /// [`invalidate_from`](Self::invalidate_from), on any runtime.
    ///
    /// If the future is dropped, every change that it has taken from the stream is applied all the same. A panic of the stream
    /// passes through, and changes that it brought in the same poll may not be applied.
    pub async fn invalidate_from_stream(&self, changes: impl Stream<Item = Change>) -> Bump {
        drain(&self.target(), changes).await
    }

    /// Starts a thread that follows `feed`, through failures and gaps, and applies what it says to all caches of this
    /// namespace and to the remote tier; see [`ChangeFeed`].
    ///
    /// One follower of a source is enough for all processes of a namespace, which hear of its invalidations as of any other.
    /// Where each process has one, each change is invalidated by every one of them, and a value that was loaded in between is
    /// loaded again.
    ///
    /// The thread is called `larder-feed-<name>`, and holds a handle to the namespace.
    ///
    /// # Errors
    /// If `name` is not 1 to 64 bytes of printable ASCII, or no thread can be started.
    pub fn follow(&self, name: &str, feed: impl ChangeFeed) -> Result<Follower, BuildError> {
        Follower::start(name, Target::Remote(self.target()), feed)
    }

    fn target(&self) -> Remote {
        Remote { namespace: self.clone(), root: ROOT_GROUP }
    }
}

impl<K, V, S> TieredCache<K, V, S> {
    /// Applies changes until `changes` ends: of groups in all caches of the namespace, of everything in this cache; otherwise
    /// as [`Namespace::invalidate_from`].
    ///
    /// # Panics
    /// As [`Namespace::invalidate_from`].
    ///
    /// # Blocking
    /// As [`Namespace::invalidate_from`].
    pub fn invalidate_from(&self, changes: impl IntoIterator<Item = Change>) -> Bump {
        pump(&self.target(), changes)
    }

    /// Applies changes until the stream ends; as [`invalidate_from`](Self::invalidate_from), on any runtime.
    ///
    /// Dropping the future, and panics, as for [`Namespace::invalidate_from_stream`].
    pub async fn invalidate_from_stream(&self, changes: impl Stream<Item = Change>) -> Bump {
        drain(&self.target(), changes).await
    }

    /// Starts a thread that follows `feed`, and applies what it says: of groups in all caches of the namespace, of everything in
    /// this cache; otherwise as [`Namespace::follow`].
    ///
    /// # Errors
    /// As [`Namespace::follow`].
    pub fn follow(&self, name: &str, feed: impl ChangeFeed) -> Result<Follower, BuildError> {
        Follower::start(name, Target::Remote(self.target()), feed)
    }

    fn target(&self) -> Remote {
        let (namespace, root) = self.root();
        Remote { namespace: namespace.clone(), root }
    }
}

/// Takes changes on this thread, and applies them on another: nobody else could tell whether another change is at hand while
/// `changes` makes its caller wait for it.
fn pump(target: &Remote, changes: impl IntoIterator<Item = Change>) -> Bump {
    let (sender, receiver) = bounded(BATCH);
    thread::scope(|scope| {
        let applier = thread::Builder::new().name("larder-feed".to_owned());
        let Ok(applier) = applier.spawn_scoped(scope, || apply_all(target, &receiver)) else {
            // Without a thread, one by one.
            return changes.into_iter().fold(Bump::Acknowledged, |open, change| apply_one(target, open, &change));
        };
        // Owned here, so that the other thread ends with this closure, by a panic of `changes` too.
        let sender = sender;
        for change in changes {
            if sender.send(change).is_err() {
                // It panicked, in the drop of a value perhaps.
                break;
            }
        }
        drop(sender);
        applier.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn apply_all(target: &Remote, changes: &Receiver<Change>) -> Bump {
    let mut open = Bump::Acknowledged;
    while let Ok(first) = changes.recv() {
        let batch = changes.try_iter().take(BATCH - 1).fold(first, Change::and);
        open = apply_one(target, open, &batch);
    }
    open
}

fn apply_one(target: &Remote, open: Bump, change: &Change) -> Bump {
    real::block_on(target.apply_after(Caller::Thread, open, change))
}

async fn drain(target: &Remote, changes: impl Stream<Item = Change>) -> Bump {
    let mut open = Bump::Acknowledged;
    let mut batches = Batches { changes: pin!(changes), ended: false };
    while let Some(batch) = batches.next().await {
        // It is polled in the same poll that took the batch, so that dropping this future loses no change.
        open = target.apply_after(Caller::Task, open, &batch).await;
    }
    open
}

/// What a stream has at hand, time and again.
struct Batches<'a, S> {
    changes: Pin<&'a mut S>,
    /// Whether the stream has ended, and must not be polled again.
    ended: bool,
}

impl<S: Stream<Item = Change>> Batches<'_, S> {
    /// Returns the changes at hand as one, or waits for the next; `None` once the stream has ended.
    async fn next(&mut self) -> Option<Change> {
        let mut taken = 0;
        let mut batch: Option<Change> = None;
        poll_fn(|context| {
            while !self.ended && taken < BATCH {
                match self.changes.as_mut().poll_next(context) {
                    Poll::Ready(Some(change)) => {
                        taken += 1;
                        batch = Some(batch.take().unwrap_or_default().and(change));
                    }
                    Poll::Ready(None) => self.ended = true,
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(batch.take())
        })
        .await
    }
}
