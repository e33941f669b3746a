//! What a cache does about news from other processes.

use super::Counters;
use super::index::{Note, WireIndex};
use crate::broadcast::journal::Moved;
use crate::entry::Handle;
use crate::group::Bump;
use crate::namespace::core::Audience;
use crate::store::Store;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Where news for one cache arrive.
pub(super) struct Inbox<K, V> {
    store: Arc<Store<K, V>>,
    index: WireIndex,
    /// The group that every value of the cache belongs to.
    root: u64,
    /// Who this cache is in the journal: another of the same name in this process is somebody else.
    pub(super) sender: u64,
    /// How many news of keys have come.
    heard: AtomicU64,
    /// What the remote tier has done for the cache.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nobody publishes it"))]
    counters: Arc<Counters>,
}

impl<K, V> Inbox<K, V> {
    pub(super) fn new(store: Arc<Store<K, V>>, root: u64, sender: u64, counters: Arc<Counters>) -> Self {
        Inbox { store, index: WireIndex::new(), root, sender, heard: AtomicU64::new(0), counters }
    }

    /// Notes under which hash the local tier knows a key, for news to find it. What stands in the local tier for the key has
    /// to be there already, and nothing may have been sent for it yet.
    pub(super) fn note(&self, fingerprint: u64, hash: u64) {
        self.index.note(&self.store, Note { fingerprint, hash });
    }

    /// Returns how many news of keys have come so far. What is noted before this says as many as it did before the key stood was
    /// there in time for all that have come since.
    pub(super) fn heard(&self) -> u64 {
        // Relaxed: news that did not find a note are ordered before it, and so before this, by the lock they looked under.
        self.heard.load(Ordering::Relaxed)
    }

    /// Takes out of the local tier what may be older than what a write that has ended has left in the remote one, where
    /// `entry` is what it stored here.
    ///
    /// Another value than `entry`, or none, may be older: two callers that write one key at once may pass each other between
    /// the tiers, and a reader may have copied the old remote value as soon as the new one was evicted. `entry` itself stays;
    /// but it may be stale already, as what an update has made of an old value is, or have been expired. Then a reader that
    /// came since is about to refresh it, and may have read the remote tier before the write was there, or was given up and
    /// owed. Its copy would take the place of the newer value: it is fenced.
    pub(super) fn outdate(&self, entry: &Handle<K, V>) {
        self.store.outdate(entry);
    }

    /// Takes what stands under a key out of the local tier.
    pub(super) fn forget(&self, fingerprint: u64) {
        if let Some(hash) = self.index.find(fingerprint) {
            self.store.remove_hash(hash);
        }
    }
}

impl<K, V> Audience for Inbox<K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn key_moved(&self, moved: Moved, sender: u64) {
        let (Moved::KeyInsert(fingerprint) | Moved::KeyRemove(fingerprint) | Moved::KeyExpire(fingerprint)) = moved
        else {
            return;
        };
        // Before it is looked for.
        self.heard.fetch_add(1, Ordering::Relaxed);
        // What this cache has inserted is newer here than there. Its own removals count like anybody's: a value may have been
        // copied between the removal here and the one there.
        if matches!(moved, Moved::KeyInsert(_)) && sender == self.sender {
            return;
        }
        if !matches!(moved, Moved::KeyExpire(_)) {
            self.forget(fingerprint);
        } else if let Some(hash) = self.index.find(fingerprint) {
            self.store.expire_hash(hash);
        }
    }

    fn group_moved(&self, group: u64, bump: Bump) {
        // Nobody expires a root.
        if group == self.root && bump == Bump::Kill {
            self.store.clear();
        }
    }

    #[cfg(feature = "metrics")]
    fn publish(&self) {
        crate::watch::publish_tiers(&self.store, self.counters.snapshot());
    }
}
