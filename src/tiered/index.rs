//! Which hash a key has in the local tier, by the fingerprint that it has on the wire.
//!
//! News from other processes name a key by its *fingerprint*, a hash that all processes agree on. The local tier knows its
//! entries and flights by another one, which the cache's hasher makes of the key. So whoever claims a key, or stores a value
//! under it, leaves a *note* here of how the two go together.
//!
//! **First stand, then note, then ask.** A flight or an entry stands in its shard before it is noted, and is noted before
//! anything is sent to the remote tier or loaded for it.
//!
//! - Stand before note, because notes of hashes that the store does not know are thrown away: one that came before its flight
//!   might be. Either a cleaning finds the flight in its shard, or the note comes after the cleaning, which holds the lock.
//!   From then on the note stays for as long as an entry or a flight with its hash stands without a gap; there is none
//!   between a flight and its fill, which change places under one lock.
//! - Note before asking, because news are about what has happened already. Either they find the note, and take out what stands
//!   under it; or the note comes later, and then what is asked for after it is answered with the news taken into account.
//!
//! **Locks.** A stripe's lock comes before a shard's, which is taken and released under it, one at a time. Nobody takes a
//! stripe's lock with a shard's in hand: the store does not know of the index.

use hashbrown::HashTable;

use crate::store::Store;
use crate::sync::Mutex;

/// How many locks the notes spread over; a power of two. Many, because a cleaning goes over all notes of a stripe under its
/// lock: 7,000 of them where the cache holds a million entries.
const STRIPES: usize = 256;

/// The lowest bit that chooses a stripe: above those that a stripe's table takes for its slots, below the seven that it takes
/// for its tags.
const STRIPE_BITS_FROM: u32 = 40;

/// Fewer notes are not worth a cleaning: as many as a table of 16 slots holds, which takes 290 bytes.
const FLOOR: usize = 14;

/// How one key is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// On the wire.
    pub(super) fingerprint: u64,
    /// In the local tier.
    pub(super) hash: u64,
}

/// The notes of one cache.
///
/// A stripe whose table is full is cleaned, and given a table that is at most three quarters full then. So a note costs up to
/// four looks at the store, averaged over all. A stripe has room for [`FLOOR`] notes, or for less than 8/3 times as many as
/// there were to keep at its last cleaning: 26 to 52 bytes for each of these.
pub(super) struct WireIndex {
    stripes: Box<[Mutex<Stripe>]>,
    /// Where notes go. A secret of this process, since everybody knows how fingerprints are made: keys that were chosen to
    /// meet in one place of a table would make it slow.
    spread: ahash::RandomState,
}

type Stripe = HashTable<Note>;

impl WireIndex {
    pub(super) fn new() -> WireIndex {
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::new())).collect();
        WireIndex { stripes, spread: ahash::RandomState::new() }
    }

    /// Notes how a key is called that stands in `store`.
    ///
    /// Of two keys with one fingerprint, all 64 bits of it, the later has the note. What stands under the earlier is removed,
    /// and the listener told: news would not find it any more. So a collision costs misses, and its odds are those of a
    /// 64-bit hash of the whole key.
    ///
    /// # Blocking
    /// On other notes of the stripe, and on one shard's lock at a time: for each note of the stripe where it is cleaned.
    pub(super) fn note<K, V>(&self, store: &Store<K, V>, note: Note) {
        let place = self.place(note.fingerprint);
        let mut stripe = self.stripe(place).lock();
        match stripe.find_mut(place, |known| known.fingerprint == note.fingerprint) {
            Some(known) if known.hash == note.hash => {}
            Some(known) => {
                // Under the lock: news that find the new note must not leave what the old one led to.
                let leaving = store.take_hash(known.hash);
                *known = note;
                drop(stripe);
                store.dispose(leaving);
            }
            None => {
                if stripe.len() == stripe.capacity() {
                    self.clean(&mut stripe, store);
                }
                stripe.insert_unique(place, note, |known| self.place(known.fingerprint));
            }
        }
    }

    /// Returns the hash in the local tier of the key with this fingerprint, if there is a note of it. What stands under that
    /// hash may have left since.
    pub(super) fn find(&self, fingerprint: u64) -> Option<u64> {
        let place = self.place(fingerprint);
        let stripe = self.stripe(place).lock();
        stripe.find(place, |known| known.fingerprint == fingerprint).map(|known| known.hash)
    }

    /// Drops the notes of what does not stand any more, and leaves room for others.
    fn clean<K, V>(&self, stripe: &mut Stripe, store: &Store<K, V>) {
        stripe.retain(|note| store.knows_hash(note.hash));
        let room = FLOOR.max((stripe.len() * 4).div_ceil(3));
        // A new table even where the old one is as large: there, what was dropped has left marks that take the place of notes.
        let notes = std::mem::replace(stripe, Stripe::with_capacity(room));
        for note in notes {
            let place_of = |known: &Note| self.place(known.fingerprint);
            stripe.insert_unique(place_of(&note), note, place_of);
        }
    }

    fn place(&self, fingerprint: u64) -> u64 {
        self.spread.hash_one(fingerprint)
    }

    fn stripe(&self, place: u64) -> &Mutex<Stripe> {
        &self.stripes[(place >> STRIPE_BITS_FROM) as usize & (STRIPES - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;
    use crate::store::Look;
    use crate::sync::{Arc, AtomicU64, Ordering};
    use crate::{Cache, Fill, RemovalCause, Stats};

    /// What stands for the fingerprint of a key on the wire.
    fn fingerprint(key: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes())
    }

    fn note(cache: &Cache<u64, u64>, key: u64) -> Note {
        Note { fingerprint: fingerprint(key), hash: cache.hash(&key) }
    }

    /// Takes the claim of a key that nobody fills, and notes it.
    fn claim(cache: &Cache<u64, u64>, index: &WireIndex, key: u64) -> Claim<u64, u64> {
        let Look::Vacant(claim) = cache.store.look(cache.hash(&key), &key) else { panic!("{key} is not vacant") };
        index.note(&cache.store, note(cache, key));
        claim
    }

    fn news(cache: &Cache<u64, u64>, index: &WireIndex, key: u64) {
        if let Some(hash) = index.find(fingerprint(key)) {
            cache.store.remove_hash(hash);
        }
    }

    impl WireIndex {
        fn len(&self) -> usize {
            self.stripes.iter().map(|stripe| stripe.lock().len()).sum()
        }

        fn clean_all<K, V>(&self, store: &Store<K, V>) {
            self.stripes.iter().for_each(|stripe| self.clean(&mut stripe.lock(), store));
        }
    }

    #[test]
    fn news_find_entries_and_flights() {
        let (cache, index) = (Cache::new(100), WireIndex::new());
        assert_eq!(index.find(fingerprint(1)), None);
        let filled = claim(&cache, &index, 1);
        assert!(filled.fill(1).is_stored());
        let flying = claim(&cache, &index, 2);
        let other = claim(&cache, &index, 3);
        assert_eq!(index.find(fingerprint(1)), Some(cache.hash(&1_u64)));
        news(&cache, &index, 1);
        news(&cache, &index, 2);
        assert_eq!(cache.get(&1), None);
        assert_eq!(flying.fill(2), Fill::Fenced(2));
        assert!(other.fill(3).is_stored());
    }

    #[test]
    fn a_cleaning_keeps_the_notes_of_what_stands() {
        let (cache, index) = (Cache::new(100), WireIndex::new());
        assert!(claim(&cache, &index, 1).fill(1).is_stored());
        let flying = claim(&cache, &index, 2);
        drop(claim(&cache, &index, 3));
        index.clean_all(&cache.store);
        let found = [1, 2, 3].map(|key| index.find(fingerprint(key)).is_some());
        assert_eq!((found, index.len()), ([true, true, false], 2));
        // From flight to entry without a gap.
        assert!(flying.fill(2).is_stored());
        index.clean_all(&cache.store);
        assert!(index.find(fingerprint(2)).is_some());
        cache.remove(&1);
        cache.remove(&2);
        index.clean_all(&cache.store);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn of_two_keys_with_one_fingerprint_the_later_stays() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let told = told.clone();
            move |key: &u64, _: &u64, cause: RemovalCause| told.lock().push((*key, cause))
        };
        let cache: Cache<u64, u64> = Cache::builder().capacity(100).on_removal(listener).build().unwrap();
        let index = WireIndex::new();
        let as_1 = |key| Note { fingerprint: fingerprint(1), hash: cache.hash(&key) };
        cache.insert(1, 1).unwrap();
        index.note(&cache.store, as_1(1));
        cache.insert(2, 2).unwrap();
        index.note(&cache.store, as_1(2));
        assert_eq!((cache.get(&1), cache.get(&2)), (None, Some(2)));
        assert_eq!(*told.lock(), [(1, RemovalCause::Removed)]);
        news(&cache, &index, 1);
        assert_eq!((cache.get(&2), index.len()), (None, 1));
    }

    #[test]
    fn a_million_keys_leave_few_more_notes_than_entries() {
        let capacity = 4_000;
        let cache: Cache<u64, u64> = Cache::new(capacity);
        let index = WireIndex::new();
        let mut most = 0;
        for key in 0..1_000_000 {
            cache.insert(key, key).unwrap();
            index.note(&cache.store, note(&cache, key));
            if key % 10_000 == 0 {
                most = most.max(index.len());
            }
        }
        let most = most.max(index.len());
        // Stripes are cleaned one by one, and what was there each time may add up to more than there ever was at once: hence
        // 3 for 8/3.
        assert!(most <= 3 * capacity as usize + STRIPES * FLOOR, "{most} notes");
        assert!(cache.len() > 1_000);
        assert!(cache.iter().all(|(key, _)| index.find(fingerprint(key)) == Some(cache.hash(&key))));
        // Memory comes back too.
        cache.clear();
        cache.run_maintenance();
        index.clean_all(&cache.store);
        let slots: usize = index.stripes.iter().map(|stripe| stripe.lock().capacity()).sum();
        assert!(slots <= STRIPES * FLOOR, "{slots} slots");
    }

    /// Ends the other threads of a test, also where it panics.
    struct End<'a>(&'a AtomicU64);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(1, Ordering::Relaxed);
        }
    }

    /// Lets other threads come in between, at random.
    fn dawdle() {
        (0..fastrand::u8(..4)).for_each(|_| std::thread::yield_now());
    }

    /// Loaders claim, note, read the truth, and fill; a writer changes the truth and brings the news of it. A fill with the old
    /// truth that outlived the news would have been noted before them, and found; or after them, and then have read the new
    /// truth. Meanwhile the notes are cleaned all the time.
    #[test]
    fn no_fill_from_before_the_news_survives_them() {
        const KEY: u64 = 0;
        let cache: Cache<u64, u64> = Cache::new(64);
        let index = WireIndex::new();
        let hash = cache.hash(&KEY);
        let (truth, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let running = || ended.load(Ordering::Relaxed) == 0;
        std::thread::scope(|scope| {
            let _end = End(&ended);
            for _ in 0..2 {
                scope.spawn(|| {
                    while running() {
                        if let Look::Vacant(claim) = cache.store.look(hash, &KEY) {
                            dawdle();
                            index.note(&cache.store, note(&cache, KEY));
                            let value = truth.load(Ordering::Relaxed);
                            dawdle();
                            let _ = claim.fill(value);
                        }
                        dawdle();
                    }
                });
            }
            scope.spawn(|| {
                while running() {
                    index.clean_all(&cache.store);
                    std::thread::yield_now();
                }
            });
            // Until enough of both has happened, whatever the scheduler does.
            let enough = |stats: Stats| stats.fences >= 100 && stats.stores >= 100;
            for version in (1..).take_while(|&version| version <= 1_000 || !enough(cache.stats())) {
                // Not only what has landed: most news are to overtake a load.
                while !cache.store.knows_hash(hash) {
                    std::thread::yield_now();
                }
                dawdle();
                truth.store(version, Ordering::Relaxed);
                news(&cache, &index, KEY);
                for _ in 0..4 {
                    let found = cache.get(&KEY);
                    assert!(found.is_none_or(|value| value >= version), "{found:?} after the news of {version}");
                    dawdle();
                }
            }
        });
    }
}
