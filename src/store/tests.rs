//! Random operations keep what the shards and the pool hold in order; and what only the engine itself shows.

use std::time::Duration;

use equivalent::Equivalent;

use super::*;
use crate::claim::Claim;
use crate::clock::Clock;
#[cfg(feature = "tiered")]
use crate::stats::RemovalCause;
use crate::{Cache, EntryOptions, Lookup, ToKey};

impl<K, V> Store<K, V> {
    /// Panics unless every shard is in order and no weight is lost or made. While nothing else runs.
    fn validate(&self) {
        let stored: u64 = self.shards.iter().map(|shard| shard.read().weight()).sum();
        self.shards.iter().for_each(|shard| shard.read().validate());
        let free = self.budget.take(u64::MAX).weight();
        assert_eq!(stored + free, self.capacity(), "{stored} are stored and {free} are free");
    }
}

/// Ends what an operation returned, of whatever type.
fn ignore<T>(_: T) {}

fn random_operation(cache: &Cache<u32, u32>, claims: &mut Vec<Claim<u32, u32>>, time: &crate::ManualClock) {
    let key = fastrand::u32(..40);
    let group = fastrand::u32(..5).to_string();
    let weight = if fastrand::u8(..20) == 0 { fastrand::u64(..200) } else { fastrand::u64(..8) };
    let ttl = Duration::from_millis(fastrand::u64(1..100));
    let options = || EntryOptions::new().weight(weight).groups([&group]);
    match fastrand::u8(..27) {
        0..6 => ignore(cache.insert_with(key, key, options())),
        6..8 => ignore(cache.insert_with(key, key, options().ttl(ttl))),
        8 => ignore(cache.remove(&key)),
        9 => ignore(cache.update(&key, |value| value + 1)),
        10 => ignore(cache.expire(&key)),
        11 => cache.invalidate_group(&group),
        12 => cache.clear(),
        13 => cache.run_maintenance(),
        14 => cache.retain(|key, _| key % 4 != 0),
        15 => cache.set_capacity(fastrand::u64(..150)),
        16 => time.advance(ttl),
        17..20 => {
            if let Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } = cache.lookup(&key) {
                claims.push(claim);
            }
        }
        20 => claims.truncate(1),
        21 => {
            if let Some(claim) = claims.pop() {
                drop(claim.fill_with(key, options()));
            }
        }
        #[cfg(feature = "tiered")]
        22 => cache.store.remove_hash(cache.hash(&key)),
        #[cfg(feature = "tiered")]
        23 => cache.store.expire_hash(cache.hash(&key)),
        // As a refresh that failed would. A pause that outlived its entry would stay for good, and there is no bound to those.
        24 => {
            if let Some((entry, _)) = cache.store.find_if(cache.hash(&key), &key, |_| true) {
                cache.store.pause(&entry, ttl);
            }
        }
        _ => ignore(cache.get(&key)),
    }
}

#[test]
fn random_operations_keep_every_shard_in_order() {
    for shards in [1, 2, 8, 64] {
        fastrand::seed(shards as u64);
        let (clock, time) = Clock::manual();
        let cache: Cache<u32, u32> = Cache::builder().capacity(100).shards(shards).clock(clock).build().unwrap();
        let mut claims = Vec::new();
        for _ in 0..20_000 {
            random_operation(&cache, &mut claims, &time);
            cache.store.validate();
        }
    }
}

#[test]
fn operations_of_many_threads_lose_no_weight() {
    for shards in [1, 8] {
        let (clock, time) = Clock::manual();
        let cache: Cache<u32, u32> = Cache::builder().capacity(100).shards(shards).clock(clock).build().unwrap();
        for round in 0..20 {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (cache, time) = (&cache, &time);
                    scope.spawn(move || {
                        fastrand::seed(round * 4 + thread);
                        let mut claims = Vec::new();
                        (0..500).for_each(|_| random_operation(cache, &mut claims, time));
                    });
                }
            });
            cache.store.validate();
        }
    }
}

/// To one caller an entry is usable, and to another it is not.
mod usable {
    use super::*;
    use crate::Fill;

    fn cache() -> (Cache<u32, u32>, crate::ManualClock) {
        let (clock, time) = Clock::manual();
        (Cache::builder().capacity(10).clock(clock).build().unwrap(), time)
    }

    fn refuse(cache: &Cache<u32, u32>, key: u32) -> Look<u32, u32> {
        cache.store.look_if(cache.hash(&key), &key, |_| false)
    }

    #[test]
    fn an_entry_that_is_refused_is_vacant_for_one_caller_and_busy_for_the_next() {
        let (cache, _time) = cache();
        cache.insert(1, 1).unwrap();
        let Look::Vacant(claim) = refuse(&cache, 1) else { panic!("an unusable entry is like none") };
        assert_eq!(claim.stale(), None);
        assert!(matches!(refuse(&cache, 1), Look::Busy(Some(_))));
        assert!(matches!(cache.lookup(&1), Lookup::Fresh(1)));
        assert_eq!(cache.store.read_if(cache.hash(&1_u32), &1, |_| false, |entry, _| entry.value), None);
        assert_eq!(cache.store.read_if(cache.hash(&1_u32), &1, |_| true, |entry, _| entry.value), Some(1));

        assert!(claim.fill(2).is_stored());
        assert_eq!((cache.get(&1), cache.len()), (Some(2), 1));
        cache.store.validate();
    }

    #[test]
    fn the_groups_of_a_refused_entry_fence_the_fill_that_replaces_it() {
        let (cache, _time) = cache();
        cache.insert_with(1, 1, EntryOptions::new().groups(["g"])).unwrap();
        let Look::Vacant(claim) = refuse(&cache, 1) else { panic!("an unusable entry is like none") };
        assert!(claim.stands());
        cache.invalidate_group("g");
        assert!(!claim.stands());
        let Look::Vacant(successor) = refuse(&cache, 1) else { panic!("a fenced flight keeps nobody out") };
        assert!(matches!(claim.fill(2), Fill::Fenced(2)));
        assert!(successor.fill(3).is_stored());
    }

    #[test]
    fn a_refused_entry_waits_for_the_refresh_that_others_began() {
        let (cache, _time) = cache();
        cache.insert(1, 1).unwrap();
        cache.expire(&1);
        let Lookup::Stale { value: 1, claim: Some(claim) } = cache.lookup(&1) else { panic!("it is stale") };
        assert!(matches!(refuse(&cache, 1), Look::Busy(Some(_))));
        drop(claim);
        let Look::Vacant(claim) = refuse(&cache, 1) else { panic!("nobody is at it") };
        assert!(matches!(cache.lookup(&1), Lookup::Stale { value: 1, claim: None }));
        assert!(claim.fill(2).is_stored());
    }

    #[test]
    fn a_failed_refresh_keeps_nobody_from_replacing_a_refused_entry() {
        let (clock, _time) = Clock::manual();
        let cache: Cache<u32, u32> =
            Cache::builder().capacity(10).stale_if_error(Duration::from_secs(1)).clock(clock).build().unwrap();
        cache.insert(1, 1).unwrap();
        cache.expire(&1);
        assert_eq!(cache.get_or_load(&1, |_| Err("down")).unwrap(), 1);
        assert!(matches!(cache.lookup(&1), Lookup::Stale { value: 1, claim: None }));
        assert!(matches!(refuse(&cache, 1), Look::Vacant(_)));
    }

    /// The key 1, and what another caller does between a look at it and the claim.
    struct Meddled<F>(std::cell::Cell<Option<F>>);

    impl<F> Equivalent<u32> for Meddled<F> {
        fn equivalent(&self, key: &u32) -> bool {
            *key == 1
        }
    }

    impl<F: FnOnce()> ToKey<u32> for Meddled<F> {
        fn to_key(&self) -> u32 {
            if let Some(meddle) = self.0.take() {
                meddle();
            }
            1
        }
    }

    /// Refuses what is under key 1, while another caller comes in between.
    fn refuse_meddled(cache: &Cache<u32, u32>, meddle: impl FnOnce()) -> Look<u32, u32> {
        let key = Meddled(std::cell::Cell::new(Some(meddle)));
        cache.store.look_if(cache.hash(&1_u32), &key, |_| false)
    }

    #[test]
    fn a_refused_entry_that_changes_before_the_claim_is_looked_at_again() {
        let (cache, _time) = cache();
        cache.insert(1, 1).unwrap();
        let mut rival = None;
        assert!(matches!(refuse_meddled(&cache, || rival = Some(refuse(&cache, 1))), Look::Busy(Some(_))));
        assert!(matches!(rival.take(), Some(Look::Vacant(_))));

        let Look::Vacant(claim) = refuse_meddled(&cache, || ignore(cache.remove(&1))) else { panic!("vacant") };
        drop(claim);
        let replace = || cache.insert_with(1, 2, EntryOptions::new().groups(["late"])).unwrap();
        let Look::Vacant(claim) = refuse_meddled(&cache, replace) else { panic!("the new one is refused too") };
        cache.invalidate_group("late");
        assert!(!claim.stands(), "the groups of the entry that it replaces are known");
    }
}

/// What needs two keys with the same 64 bits, and what only the tiered cache does.
#[cfg(feature = "tiered")]
mod by_hash {
    use std::hash::{BuildHasherDefault, Hasher};

    use super::*;
    use crate::Fill;
    use crate::sync::Mutex;

    /// Gives keys 0 and 1 one hash, 2 and 3 another, and so on.
    #[derive(Default)]
    struct Pairs(u64);

    impl Hasher for Pairs {
        fn write(&mut self, _: &[u8]) {
            unreachable!("only `u64`s are hashed");
        }

        fn write_u64(&mut self, key: u64) {
            self.0 = (key / 2).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    type Twins = Cache<u64, u64, BuildHasherDefault<Pairs>>;
    type Told = Arc<Mutex<Vec<(u64, RemovalCause)>>>;

    /// Returns a cache of 100, what its listener is told, and its clock.
    fn twins() -> (Twins, Told, crate::ManualClock) {
        let told = Told::default();
        let (clock, time) = Clock::manual();
        let cache = Cache::builder()
            .capacity(100)
            .shards(1)
            .clock(clock)
            .hasher(BuildHasherDefault::default())
            .on_removal({
                let told = told.clone();
                move |key, _, cause| told.lock().push((*key, cause))
            })
            .build()
            .unwrap();
        (cache, told, time)
    }

    fn claim(cache: &Twins, key: u64) -> Claim<u64, u64> {
        match cache.lookup(&key) {
            Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } => claim,
            found => panic!("{key} is not to be had: {found:?}"),
        }
    }

    #[test]
    fn a_removal_by_hash_takes_all_that_stands_under_it_and_nothing_else() {
        let (cache, told, _time) = twins();
        for key in 0..4_u64 {
            cache.insert_with(key, key, EntryOptions::new().weight(5 + key).groups([key.to_string()])).unwrap();
        }
        cache.invalidate_group("1");
        let before = cache.stats();
        cache.store.remove_hash(cache.hash(&0_u64));
        cache.store.validate();
        let mut told = told.lock();
        told.sort_unstable_by_key(|(key, _)| *key);
        assert_eq!(*told, [(0, RemovalCause::Removed), (1, RemovalCause::Invalidated)]);
        assert_eq!((cache.weight(), cache.get(&0), cache.get(&2), cache.get(&3)), (7 + 8, None, Some(2), Some(3)));
        let since = cache.stats() - before;
        assert_eq!((since.removals, since.invalidations), (1, 1));
    }

    #[test]
    fn a_removal_by_hash_refuses_the_fills_of_all_claims_under_it() {
        let (cache, told, _time) = twins();
        let claims = [claim(&cache, 0), claim(&cache, 1)];
        let other = claim(&cache, 2);
        let hash = cache.hash(&0_u64);
        assert!(cache.store.knows_hash(hash));
        cache.store.remove_hash(hash);
        assert!(!cache.store.knows_hash(hash));
        // Who comes now does not join what began before.
        let successor = claim(&cache, 0);
        assert!(claims.into_iter().all(|claim| matches!(claim.fill(7), Fill::Fenced(7))));
        assert!(successor.fill(8).is_stored());
        assert!(other.fill(9).is_stored());
        assert_eq!((cache.get(&0), cache.get(&1), cache.get(&2)), (Some(8), None, Some(9)));
        assert_eq!(*told.lock(), []);
        cache.store.validate();
    }

    #[test]
    fn an_expiration_by_hash_makes_entries_stale_and_refuses_fills() {
        let (cache, told, _time) = twins();
        cache.insert(0, 0).unwrap();
        cache.insert(2, 2).unwrap();
        let flying = claim(&cache, 1);
        cache.store.expire_hash(cache.hash(&0_u64));
        assert!(matches!(flying.fill(7), Fill::Fenced(7)));
        assert!(matches!(cache.lookup(&0), Lookup::Stale { value: 0, claim: Some(_) }));
        assert!(matches!(cache.lookup(&2), Lookup::Fresh(2)));
        assert_eq!(*told.lock(), []);
        cache.store.validate();
    }

    #[test]
    fn a_hash_is_known_from_the_claim_to_the_removal() {
        let (cache, _told, _time) = twins();
        let known = || [0_u64, 2].map(|key| cache.store.knows_hash(cache.hash(&key)));
        assert_eq!(known(), [false, false]);
        let taken = claim(&cache, 0);
        assert_eq!(known(), [true, false]);
        assert!(taken.fill(0).is_stored());
        assert_eq!(known(), [true, false]);
        cache.remove(&0);
        assert_eq!(known(), [false, false]);
        drop(claim(&cache, 1));
        assert_eq!(known(), [false, false]);
    }
}
