//! Renewing a value of the remote tier: where a load has found that nothing has changed, the item is touched and not written.
//!
//! The time that an item is kept yet says how old its value is (see [`kept_for`]), so that a touch which sets it back to what
//! the header asks for makes the value as fresh as a write of the same bytes would. It is sent only where such a write would
//! differ in nothing else: the same payload, stored alike, in the same groups with the same tokens, hard and soft, for times
//! that this load could have drawn. Neither is it sent for what is marked stale, since the mark would stay.
//!
//! # Why nothing old comes back
//! A touch takes no condition. It goes out on the connection that read the item ([`Action::Touch`]), and its answer tells the
//! version of what it found there:
//!
//! - **The same version**: nobody has changed the item since it was read, and the server has not restarted, for the connection
//!   would not have lived through that. What happened to its groups meanwhile shows in their tokens, which the item records
//!   as they were before the load: a bump, before the touch or after, leaves it as dead or as stale as it would leave what a
//!   write had put there.
//! - **Another version**: of an `insert`, of a refresher that took over after the grace, of an `expire`, or the lease of a load
//!   that follows a `remove`. The load is fenced, as a write would be. The touch has begun another's time anew, though; so that
//!   item is deleted, under the version which the answer told. If it has changed again, or nobody knows, the key is owed a
//!   deletion.
//! - **Nothing**: it was removed or evicted; or the connection is gone, and nothing was sent. The load is fenced.
//! - **No answer**: the touch may be carried out yet, on whatever is there then. The key is owed a deletion. The same if the
//!   future that waits for the answer is dropped, or the thread panics.
//!
//! What remains is a process that dies between its touch of another's item and the deletion. Readers take an item that is kept
//! for longer than its header asks for as spent ([`left`](super::fetch::left)), so its time can at most begin anew at the touch.
//! The item was written after this load had read the one before it; and because that read is repeated where it is older than
//! [`RECENT`], what the touch adds is less than that, or the time of one exchange. Readers, who cannot tell seconds apart, take
//! values for up to two seconds older than they are.

use std::time::{Duration, Instant};

use super::Remote;
use super::fetch::{Located, TICK, kept_for};
use super::write::Sent;
use crate::clock::real;
use crate::options::{DefaultLifetime, Lifetime};
use crate::remote::batch::Caller;
use crate::remote::envelope::{Header, substance};
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Action, Cas, Expiry, Item, Reply, Route};
use crate::remote::unexpected;
use crate::stats::bump;

/// How long ago an item may have been read that is touched without another look: the unit of the store's clock, which nobody
/// can tell from less.
const RECENT: Duration = TICK;

/// The longest time that is reckoned by the store's clock alone. A longer one is sent as a point in time, by the clock of who
/// sends it.
pub(super) const LONGEST_INTERVAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A value of the remote tier as a load has found it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    substance: u128,
    soft: Option<Duration>,
    hard: Duration,
    /// From before the read was sent.
    asked: Instant,
}

impl Record {
    /// Returns what is to be remembered of an item that was `asked` for; `None` where a touch would not renew it.
    pub(super) fn of(item: &Item, header: &Header, asked: Instant) -> Option<Record> {
        // Without a hard deadline, a value is dated by the clock of its writer.
        let hard = header.hard_ttl.get()?;
        let renewable = !item.stale && item.expires_in.is_some() && kept_for(hard) <= LONGEST_INTERVAL;
        let record = |substance| Record { substance, soft: header.soft_ttl.get(), hard, asked };
        renewable.then(|| substance(&item.value).map(record)).flatten()
    }

    /// Returns whether the item, with its time begun anew, is what a write of `envelope` would make it, for the deadlines that a
    /// load has asked for.
    pub(super) fn stands_for(&self, envelope: &[u8], lifetime: &DefaultLifetime, asked: Lifetime) -> bool {
        // What was left of the deadlines when the value was sent is less than it was given, by what came before.
        lifetime.may_give(asked, self.soft, Some(self.hard), TICK) && substance(envelope) == Some(self.substance)
    }
}

/// A value to renew.
#[derive(Clone, Copy)]
pub(super) struct Renewal<'a> {
    pub(super) at: &'a Located,
    pub(super) cas: Cas,
    pub(super) record: Record,
}

/// A touch that may be, or become, one of another's item: dropped before that is known, it owes the store the deletion of
/// whatever is there.
struct Touching<'a, K, V: 'static> {
    remote: &'a Remote<K, V>,
    at: &'a Located,
}

impl<K, V: 'static> Touching<'_, K, V> {
    /// Says that it was not, or that the item is gone.
    fn settle(self) {
        std::mem::forget(self);
    }
}

impl<K, V: 'static> Drop for Touching<'_, K, V> {
    fn drop(&mut self) {
        let _ = self.remote.core().owe_item(&self.at.key, self.at.fingerprint, Some(self.remote.inbox.sender));
    }
}

impl<K, V: 'static> Remote<K, V> {
    /// Begins the time of values anew, each as long as it is the one that its load has found.
    pub(super) async fn renew(&self, caller: Caller, renewals: &[Renewal<'_>]) -> Vec<Sent> {
        let mut sent: Vec<Option<Sent>> = vec![None; renewals.len()];
        self.look_again(caller, renewals, &mut sent).await;
        let open: Vec<usize> = (0..renewals.len()).filter(|&at| sent[at].is_none()).collect();
        let touches: Requests = open.iter().map(|&at| renewals[at].request()).collect();
        let touching: Vec<_> = open.iter().map(|&at| Touching { remote: self, at: renewals[at].at }).collect();
        let replies = self.core().run(caller, touches).await;
        let mut spoilt = Vec::new();
        for ((index, touching), reply) in open.into_iter().zip(touching).zip(replies) {
            sent[index] = Some(match reply {
                Ok(Reply::Hit(Item { cas, .. })) if cas == renewals[index].cas => {
                    touching.settle();
                    bump(&self.counters.touches);
                    Sent::Stored
                }
                Ok(Reply::Hit(Item { cas, .. }) | Reply::Won(cas) | Reply::Busy(cas)) => {
                    spoilt.push((touching, cas));
                    Sent::Fenced
                }
                Ok(Reply::Miss | Reply::Fenced) => {
                    touching.settle();
                    Sent::Fenced
                }
                Ok(_) => Sent::Failed(unexpected("to a touch")),
                Err(error) => {
                    if !error.is_indeterminate() {
                        touching.settle();
                    }
                    Sent::Failed(error)
                }
            });
        }
        self.undo(caller, spoilt).await;
        sent.into_iter().map(|sent| sent.unwrap_or_else(|| Sent::Failed(unexpected("to a touch: none")))).collect()
    }

    /// Looks at items that were read too long ago to be touched right away, and says of those that have changed what becomes
    /// of their loads.
    async fn look_again(&self, caller: Caller, renewals: &[Renewal<'_>], sent: &mut [Option<Sent>]) {
        let now = real::now();
        let old: Vec<usize> =
            (0..renewals.len()).filter(|&at| now.duration_since(renewals[at].record.asked) > RECENT).collect();
        if old.is_empty() {
            return;
        }
        let look = Action::Get { value: false, lease: None, touch: None };
        let looks = old.iter().map(|&at| Request::new(renewals[at].at.key.clone(), Route::ByKey, look));
        let replies = self.core().run(caller, looks.collect::<Requests>()).await;
        for (index, reply) in old.into_iter().zip(replies) {
            let Renewal { at, cas, .. } = renewals[index];
            // The lease of a load that an expiration has freed goes back at once.
            drop(self.hold(caller, &at.key, &reply, self.core().settings.lease));
            sent[index] = match reply {
                // On whatever connection: the touch insists on its own.
                Ok(Reply::Hit(item)) if item.cas.value == cas.value => None,
                Ok(_) => Some(Sent::Fenced),
                Err(error) => Some(Sent::Failed(error)),
            };
        }
    }

    /// Deletes items whose time was begun anew by mistake.
    async fn undo(&self, caller: Caller, spoilt: Vec<(Touching<'_, K, V>, Cas)>) {
        if spoilt.is_empty() {
            return;
        }
        let deletes: Requests =
            spoilt.iter().map(|(touching, cas)| Request::delete(touching.at.key.clone(), Some(*cas))).collect();
        let replies = self.core().run(caller, deletes).await;
        for ((touching, _), reply) in spoilt.into_iter().zip(replies) {
            match reply {
                Ok(Reply::Done | Reply::Miss) => touching.settle(),
                // Changed once more, perhaps by an expiration, which leaves the time as it is. What `touching` owes settles it.
                Ok(_) | Err(_) => drop(touching),
            }
        }
    }
}

impl Renewal<'_> {
    fn request(&self) -> Request {
        let expiry = Expiry::After(kept_for(self.record.hard));
        Request::new(self.at.key.clone(), Route::ByKey, Action::Touch { expiry, cas: self.cas })
    }
}
