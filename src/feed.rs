//! Change feeds: invalidation by what a database, a queue or a log says has changed, without the help of the code that saved.
//!
//! A [`Change`] names groups. The verbs that apply a sequence of them are in [`local`] and `tiered`, the follower that keeps at
//! it through failures in [`follower`], and what both do with one batch in [`target`].

mod change;
mod follower;
mod local;
mod target;
#[cfg(feature = "tiered")]
mod tiered;

use std::fmt::Display;
use std::time::Duration;

pub use self::change::Change;
pub use self::follower::{FeedHealth, FeedState, Follower};

/// The most changes that are applied together. In the remote tier they share an exchange, which carries 512 groups; and what
/// is held of a feed that runs ahead stays small.
const BATCH: usize = 256;

/// The first pause after a failure, halved at most by chance: a source that restarts is found within moments.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: how much later than its source's return a follower may go on, and how seldom it asks one that is gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A source of changes that a [`Follower`] follows: a database's log or its `LISTEN`, a message queue, a table of events.
///
/// The feed brings changes in their order, each with its *position*. The follower applies them, then acknowledges; after a
/// failure it pauses, connects again, and goes on after the last position it has applied. So every change is applied **at
/// least once**, and one that is applied twice does no harm.
///
/// All methods are called by the follower's one thread, which holds no lock meanwhile. An error of any of them, or a panic,
/// ends the connection; the next call is [`backoff`](Self::backoff), then [`connect`](Self::connect), which has to start
/// afresh whatever state a panic has left.
///
/// # What is fresh, and when
///
/// A change reaches the cache a little after it was committed. Until then, what was loaded before is served: that is how
/// late the feed is, and no cache can know. From the moment a change is applied, in this process, and in others from the moment
/// they hear of it (see [`Bump`](crate::Bump)):
///
/// - A load that **began before it was applied** leaves no value behind, whether it read the database before the commit or
///   after: it is fenced by the group's generation. It must name the group, early or late.
/// - A load that **begins afterwards** is taken at its word. So it must read a state of the database that has the change. It
///   does, if it reads from the place that the feed speaks of, in a transaction that begins with the load.
///
/// It does not if it reads from a replica that lags behind the feed, within a transaction or a snapshot that was opened
/// earlier, or through another cache that was not told. Such a load brings an old value that nothing tells from a new one,
/// until its deadlines. To avoid it, let the feed follow the very replica that loads read from; or let loads compare the
/// position that their replica has reached with that of the change; or let the feed bring each change once more, as late
/// as the replica may lag.
///
/// # Examples
/// A queue in this process stands for the source: it forgets nothing and is never away.
/// ```
/// use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
/// use std::time::Duration;
/// use larder::{Cache, Change, ChangeFeed, Connected, EntryOptions};
///
/// struct Saved(Receiver<u64>);
///
/// impl ChangeFeed for Saved {
///     type Position = ();
///     type Error = RecvTimeoutError;
///
///     fn connect(&mut self, _after: Option<&()>) -> Result<Connected, RecvTimeoutError> {
///         Ok(Connected::Resumed)
///     }
///
///     fn next(&mut self, within: Duration) -> Result<Option<(Change, ())>, RecvTimeoutError> {
///         match self.0.recv_timeout(within) {
///             Ok(id) => Ok(Some((Change::invalidate([format!("record:{id}")]), ()))),
///             Err(RecvTimeoutError::Timeout) => Ok(None),
///             Err(gone) => Err(gone),
///         }
///     }
/// }
///
/// let cache: Cache<u64, String> = Cache::new(1_000);
/// cache.insert_with(7, "Ann".into(), EntryOptions::new().groups(["record:7"])).unwrap();
/// let (saved, feed) = channel();
/// let mut follower = cache.follow("records", Saved(feed))?;
/// saved.send(7).unwrap();
/// while cache.contains(&7) {
///     std::thread::yield_now();
/// }
/// assert!(follower.stop(Duration::from_secs(10)));
/// # Ok::<(), larder::BuildError>(())
/// ```
pub trait ChangeFeed: Send + 'static {
    /// Where a change stands among the others: an offset, a log sequence number. The follower neither looks into it nor
    /// compares it. `()` for a feed that cannot go back.
    type Position: Send + 'static;

    /// Why the source cannot be reached, or breaks off. Its text is all that is kept.
    type Error: Display;

    /// Connects to the source, and subscribes to the changes after `after`: the last position up to which everything was
    /// applied, which may be taken for acknowledged; or `None` where this follower has applied none yet. A feed that keeps
    /// positions itself begins after the last one that it was told to [`acknowledge`](Self::acknowledge) then.
    ///
    /// When it returns, the subscription stands: whatever is committed from then on will come by [`next`](Self::next). The
    /// answer says whether anything may have been lost before.
    ///
    /// # Errors
    /// Why there is no connection. The follower tries again after a pause.
    fn connect(&mut self, after: Option<&Self::Position>) -> Result<Connected, Self::Error>;

    /// Returns the next change, and its position; `None` if none comes within `within`. Zero asks for what is at hand.
    ///
    /// It may block for that long, a quarter of a second at most, and not for much longer: the follower looks in between
    /// whether it is to stop. One that returns `None` sooner is asked again after 10 ms.
    ///
    /// # Errors
    /// Why the connection broke. What the feed has returned before is applied all the same, also after a panic.
    fn next(&mut self, within: Duration) -> Result<Option<(Change, Self::Position)>, Self::Error>;

    /// Hears that everything up to `position`, in the order in which [`next`](Self::next) returned it, has been applied: in
    /// this process, and, where there is one, in the remote tier, which has acknowledged it. A feed that keeps positions, or
    /// whose source holds back what is not acknowledged, passes it on.
    ///
    /// Called once for a batch. After an error or a panic changes may come, and be acknowledged, again. Default: nothing.
    ///
    /// # Errors
    /// Why it could not be passed on. The follower does not repeat it, but connects again, after this very position.
    fn acknowledge(&mut self, position: &Self::Position) -> Result<(), Self::Error> {
        let _ = position;
        Ok(())
    }

    /// Returns how long to pause before the next attempt to connect. `attempt` counts the failures since the follower last
    /// applied, or waited for, a change in good order: 0 after the first.
    ///
    /// Default: between half and all of 100 ms, doubled with each failure up to 30 s, at random, so that processes which lost
    /// the source at once do not come back at once.
    fn backoff(&mut self, attempt: u32) -> Duration {
        pause(attempt)
    }
}

/// How a feed has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connected {
    /// Right after the position it was asked for: nothing is missing.
    Resumed,
    /// Changes may be missing between that position and the first that will come; what they may have changed is to be
    /// invalidated: [`Change::everything`], or the groups that the feed ever speaks of.
    ///
    /// So does a feed at its first connection, unless it knows better: before it, nobody told a remote tier of changes. The
    /// follower carries it out before the first change that comes.
    Gap(Change),
}

/// Returns how long to pause after so many failures.
fn pause(attempt: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_differ() {
        for attempt in [0, 1, 5, 8, 9, 31, 32, u32::MAX] {
            let longest = LONGEST_PAUSE.min(FIRST_PAUSE * (1 << attempt.min(20)));
            let pauses: Vec<_> = (0..50).map(|_| pause(attempt)).collect();
            assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)), "{attempt}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{attempt}");
        }
    }
}
