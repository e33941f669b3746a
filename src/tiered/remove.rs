//! Taking things out of both tiers.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::TieredCache;
use super::fetch::Located;
use crate::broadcast::journal::{Entry as News, Moved};
use crate::group::Bump as Kind;
use crate::namespace::core::Owed;
use crate::namespace::{Announce, Bump};
use crate::remote::batch::Caller;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::RemoteKey;
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Action, Reply, Route};
use crate::remote::unexpected;

/// How many keys that are not to be kept are removed with one exchange: what one write carries.
const REMOVED_AT_ONCE: usize = 256;

/// What a caller does to keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Remove,
    Expire,
}

/// Keys that have left the local tier, or become stale there, and are to do so in the remote one.
///
/// Dropping it half-way, because a future was, owes the remote tier their deletion.
struct Outgoing<'a, K, V: 'static> {
    remote: &'a super::Remote<K, V>,
    keys: Vec<Located>,
    concluded: bool,
}

impl<K, V: 'static> Drop for Outgoing<'_, K, V> {
    fn drop(&mut self) {
        if !self.concluded {
            for at in &self.keys {
                let _ = self.remote.core().owe_item(&at.key, at.fingerprint, None);
                // Again: the old value may have been copied before it was owed.
                self.remote.inbox.forget(at.fingerprint);
            }
        }
    }
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Removes the values for `keys` from both tiers.
    pub(super) async fn remove_all<'q, Q, I>(&self, caller: Caller, keys: I) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        self.change(caller, &keys, Change::Remove).await
    }

    /// Removes the values that the local tier has and `keep` does not want, from both tiers.
    pub(super) async fn retain_all(&self, caller: Caller, keep: impl Fn(&K, &V) -> bool) -> Bump {
        let mut bump = Bump::Acknowledged;
        for shard in 0..self.local.store.shards() {
            let mut entries = self.local.store.snapshot(shard);
            entries.retain(|entry| !keep(&entry.key, &entry.value));
            for part in entries.chunks(REMOVED_AT_ONCE) {
                bump = bump.and(self.remove_all(caller, part.iter().map(|entry| &entry.key)).await);
            }
        }
        bump
    }

    /// Makes the value for `key` stale in both tiers.
    pub(super) async fn expire_one<Q>(&self, caller: Caller, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        self.change(caller, &[key], Change::Expire).await
    }

    /// Makes every entry of the cache dead in both tiers.
    pub(super) async fn clear_all(&self, caller: Caller) -> Bump {
        self.remote.namespace.bump(caller, &[self.remote.keys.root_group()], Kind::Kill).await
    }

    async fn change<Q>(&self, caller: Caller, keys: &[&Q], change: Change) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        if keys.is_empty() {
            return Bump::Acknowledged;
        }
        let keys_at: Vec<Located> = keys.iter().map(|key| self.remote.locate(*key)).collect();
        let mut outgoing = Outgoing { remote: &self.remote, keys: keys_at, concluded: false };
        let locally = || {
            for key in keys {
                match change {
                    Change::Remove => drop(self.local.remove(*key)),
                    Change::Expire => drop(self.local.expire(*key)),
                }
            }
        };
        locally();
        // What waits to be written under the keys is older than this.
        let mut superseded = Vec::new();
        for (index, at) in outgoing.keys.iter().enumerate() {
            superseded.extend(self.core().purge(&at.key, at.fingerprint).await.map(|older| (index, older)));
        }
        // A value that is in its queue yet is not in the remote tier, to be made stale there.
        let change = if superseded.is_empty() { change } else { Change::Remove };
        let mut result = self.change_remotely(caller, &outgoing.keys, change).await;
        outgoing.concluded = true;
        // Of keys whose deletion is owed, those who wait for an older write wait for that now.
        for (index, older) in superseded {
            match &mut result {
                Err((_, failed)) if failed.contains(&index) => {}
                Err((_, failed)) if !older.is_over => failed.push(index),
                Ok(()) if !older.is_over => {
                    let message = "an older write of the key is being sent, and may end after the removal";
                    result = Err((RemoteError::new(RemoteErrorKind::Unavailable, message), vec![index]));
                }
                Err(_) | Ok(()) => older.settle(),
            }
        }
        let changed = result.map_err(|(error, failed)| {
            let owe = |&index: &usize| {
                let at = &outgoing.keys[index];
                self.core().owe_item(&at.key, at.fingerprint, None)
            };
            Owed { error, slips: failed.iter().map(owe).collect() }
        });
        // Again: the old values may have been read from the remote tier and copied meanwhile.
        locally();
        Bump::from_result(changed)
    }

    /// Changes items, then tells other processes: whoever hears of it finds it done.
    ///
    /// # Errors
    /// Why it was not done or not told, and of which keys. What is owed then is their deletion, which can be paid at any later
    /// time without making a value stale that has been refreshed since.
    async fn change_remotely(
        &self,
        caller: Caller,
        keys: &[Located],
        change: Change,
    ) -> Result<(), (RemoteError, Vec<usize>)> {
        let core = self.core();
        let request = |at: &Located| match change {
            Change::Remove => Request::delete(at.key.clone(), None),
            Change::Expire => Request::new(at.key.clone(), Route::ByKey, Action::MarkStale { expiry: None }),
        };
        let mut failure: Option<RemoteError> = None;
        let mut failed = Vec::new();
        let mut done = Vec::new();
        let requests: Requests = keys.iter().map(request).collect();
        for (index, reply) in core.run(caller, requests).await.into_iter().enumerate() {
            let error = match reply {
                Ok(Reply::Done | Reply::Miss) => {
                    done.push(index);
                    continue;
                }
                Ok(_) => unexpected("to an invalidation"),
                Err(error) => error,
            };
            failure.get_or_insert(error);
            failed.push(index);
        }
        let news = |&index: &usize| {
            let fingerprint = keys[index].fingerprint;
            let moved = match change {
                Change::Remove => Moved::KeyRemove(fingerprint),
                Change::Expire => Moved::KeyExpire(fingerprint),
            };
            News { moved, sender: self.remote.inbox.sender }
        };
        if core.settings.announce != Announce::Groups
            && let Err(error) = core.announce(caller, &done.iter().map(news).collect::<Vec<_>>()).await
        {
            failure.get_or_insert(error);
            failed.append(&mut done);
        }
        failure.map_or(Ok(()), |error| Err((error, failed)))
    }
}
