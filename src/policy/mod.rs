//! Eviction: which entry makes room. A policy sees hashes, weights and recency, never keys or values.

mod adaptive_fifo;
mod ghost;
mod queue;
#[cfg(test)]
mod s3_fifo;

pub(crate) use self::adaptive_fifo::{AdaptiveFifo, Arrival};
#[cfg(test)]
pub(crate) use self::s3_fifo::S3Fifo;

use crate::index::Seat;
use crate::sync::{AtomicU8, Ordering};

/// Decides which resident of a shard is evicted.
///
/// A policy owns the order of a shard's residents and runs under the shard's lock; all that a hit does is
/// [`Recency::touch`]. It knows residents by their seats, and asks for the rest where it needs it. What it asks of a seat
/// stays the same, recency apart, from the resident's [`insert`](Self::insert) until the call that lets go of it returns.
pub(crate) trait EvictionPolicy: Default {
    /// How a resident that is about to come will be admitted.
    type Arrival;

    /// Notes that a key that has no resident is about to come.
    fn arrive(&mut self, hash: u64) -> Self::Arrival;

    /// Lets go of a resident whose successor under the same key is about to come, and keeps its place for it.
    fn succeed(&mut self, seat: Seat, residents: &impl Residents) -> Self::Arrival;

    /// Admits the resident that takes a seat, `newcomer`.
    fn insert(&mut self, seat: Seat, newcomer: Profile<'_>, arrival: Self::Arrival, residents: &impl Residents);

    /// Lets go of a resident that leaves for another reason than eviction.
    fn remove(&mut self, seat: Seat, residents: &impl Residents);

    /// Picks the resident that is worth the least and lets go of it, to make room for the newcomer or for something
    /// elsewhere. `None` when there is none.
    fn evict(&mut self, newcomer: Option<&mut Self::Arrival>, residents: &impl Residents) -> Option<Seat>;

    /// Returns the weight of all residents.
    fn weight(&self) -> u64;

    /// Returns how many residents there are.
    fn len(&self) -> usize;

    /// Panics unless links, lengths and weights agree.
    #[cfg(test)]
    fn validate(&self, residents: &impl Residents);
}

/// The entries of a shard, as far as a policy may know them.
pub(crate) trait Residents {
    /// Returns what there is to know of the resident at a seat, which must be taken. Finding it costs more than what is done
    /// with it, so a policy asks once.
    fn profile(&self, seat: Seat) -> Profile<'_>;
}

/// What a policy may know of an entry of its shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile<'a> {
    pub(crate) hash: u64,
    pub(crate) weight: u64,
    pub(crate) recency: &'a Recency,
}

/// How often an entry was hit of late: a counter that saturates at 3, all that a hit may write.
#[derive(Debug, Default)]
pub(crate) struct Recency(AtomicU8);

impl Recency {
    const MAX: u8 = 3;

    /// Counts a hit. A saturated counter is only read, so that hot entries stay in every core's cache.
    #[inline]
    pub(crate) fn touch(&self) {
        // Relaxed, and a load and a store rather than an addition: a hit that is lost to a race costs nothing but itself.
        let count = self.0.load(Ordering::Relaxed);
        if count < Self::MAX {
            self.0.store(count + 1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn count(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, count: u8) {
        self.0.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A resident that is nothing else.
    #[derive(Debug)]
    struct Plain {
        hash: u64,
        weight: u64,
        recency: Recency,
    }

    /// How many seats are made at once. They are taken from the last to the first, so that they come in no order.
    const MADE_AT_ONCE: usize = 64;

    /// The seats of a shelf.
    #[derive(Debug, Default)]
    pub(crate) struct Pool {
        seats: Vec<Option<Plain>>,
        vacant: Vec<Seat>,
    }

    impl Pool {
        fn seat(&mut self, hash: u64, weight: u64) -> Seat {
            if self.vacant.is_empty() {
                let made = self.seats.len()..self.seats.len() + MADE_AT_ONCE;
                self.vacant.extend(made.clone().map(Seat::from_index));
                self.seats.resize_with(made.end, || None);
            }
            let seat = self.vacant.pop().unwrap();
            self.seats[seat.index()] = Some(Plain { hash, weight, recency: Recency::default() });
            seat
        }

        fn vacate(&mut self, seat: Seat) -> Plain {
            self.vacant.push(seat);
            self.seats[seat.index()].take().expect("who leaves was there")
        }
    }

    impl Residents for Pool {
        fn profile(&self, seat: Seat) -> Profile<'_> {
            let Plain { hash, weight, ref recency } =
                *self.seats[seat.index()].as_ref().expect("a policy asks for residents");
            Profile { hash, weight, recency }
        }
    }

    /// A cache made of a policy, which holds it to its word.
    pub(crate) struct Shelf<P> {
        pub(crate) policy: P,
        pool: Pool,
        capacity: u64,
        seats: HashMap<u64, Seat>,
    }

    impl<P: EvictionPolicy> Shelf<P> {
        pub(crate) fn new(capacity: u64) -> Shelf<P> {
            Shelf { policy: P::default(), pool: Pool::default(), capacity, seats: HashMap::new() }
        }

        /// Looks for a key, and puts it there, as heavy as this, if it is not there. Returns whether it was.
        pub(crate) fn access(&mut self, key: u64, weight: u64) -> bool {
            if let Some(&seat) = self.seats.get(&key) {
                self.pool.profile(seat).recency.touch();
                return true;
            }
            let arrival = self.policy.arrive(key);
            self.admit(key, weight, arrival);
            false
        }

        /// Puts another resident in a key's place.
        pub(crate) fn replace(&mut self, key: u64, weight: u64) {
            let arrival = self.policy.succeed(self.seats[&key], &self.pool);
            self.forget(key);
            self.admit(key, weight, arrival);
        }

        fn admit(&mut self, key: u64, weight: u64, mut arrival: P::Arrival) {
            while self.policy.weight() + weight > self.capacity {
                let victim = self.policy.evict(Some(&mut arrival), &self.pool).unwrap();
                self.forget(self.pool.profile(victim).hash);
            }
            let seat = self.pool.seat(key, weight);
            self.policy.insert(seat, self.pool.profile(seat), arrival, &self.pool);
            assert!(self.seats.insert(key, seat).is_none());
        }

        pub(crate) fn remove(&mut self, key: u64) {
            if let Some(&seat) = self.seats.get(&key) {
                self.policy.remove(seat, &self.pool);
                self.forget(key);
            }
        }

        /// Evicts a key for nobody's sake, and returns it.
        pub(crate) fn evict(&mut self) -> Option<u64> {
            let key = self.pool.profile(self.policy.evict(None, &self.pool)?).hash;
            self.forget(key);
            Some(key)
        }

        pub(crate) fn set_capacity(&mut self, capacity: u64) {
            self.capacity = capacity;
            while self.policy.weight() > capacity {
                self.evict().unwrap();
            }
        }

        /// Notes that the policy has let a key go.
        fn forget(&mut self, key: u64) {
            let seat = self.seats.remove(&key).expect("who leaves was there");
            assert_eq!(self.pool.vacate(seat).hash, key);
        }

        pub(crate) fn seat(&self, key: u64) -> Option<Seat> {
            self.seats.get(&key).copied()
        }

        pub(crate) fn holds(&self, key: u64) -> bool {
            self.seats.contains_key(&key)
        }

        fn keys(&self) -> Vec<u64> {
            self.seats.keys().copied().collect()
        }

        fn hits(&mut self, accesses: impl Iterator<Item = u64>) -> usize {
            accesses.filter(|&key| self.access(key, 1)).count()
        }

        fn validate(&self) {
            self.policy.validate(&self.pool);
            let residents = self.seats.iter().map(|(&key, &seat)| {
                assert_eq!(self.pool.profile(seat).hash, key);
                self.pool.profile(seat).weight
            });
            assert_eq!(residents.sum::<u64>(), self.policy.weight());
            assert_eq!(self.seats.len(), self.policy.len());
            assert!(self.policy.weight() <= self.capacity);
        }
    }

    /// Keys that are the more frequent the smaller they are: half of all accesses go to the first tenth or so.
    fn skewed(keys: u64) -> u64 {
        (keys as f64).powf(fastrand::f64()) as u64
    }

    /// Runs every case for every policy.
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {
            mod s3_fifo {
                $(#[test] fn $case() { super::$case::<super::S3Fifo>(); })*
            }
            mod adaptive_fifo {
                $(#[test] fn $case() { super::$case::<super::AdaptiveFifo>(); })*
            }
        };
    }

    cases!(
        conserves_residents,
        holds_any_number,
        keeps_what_is_hit_through_a_scan,
        lets_a_heavy_one_go,
        moves_a_bounded_number_at_once,
        goes_on_after_removal_of_everything,
        follows_the_capacity,
        keeps_the_place_of_who_is_replaced,
    );

    /// Holds what it was given, hands each out once, and keeps its sums right.
    fn conserves_residents<P: EvictionPolicy>() {
        for seed in 0..20 {
            fastrand::seed(seed);
            let mut shelf = Shelf::<P>::new(fastrand::u64(1..400));
            for step in 0..4_000 {
                let key = skewed(500);
                let weight =
                    if fastrand::u8(..20) == 0 { fastrand::u64(1..=shelf.capacity) } else { fastrand::u64(1..10) };
                let weight = weight.min(shelf.capacity);
                match fastrand::u8(..20) {
                    0..14 => _ = shelf.access(key, weight),
                    14..16 => shelf.remove(key),
                    16..19 if shelf.holds(key) => shelf.replace(key, weight),
                    19 if step % 8 == 0 => shelf.set_capacity(fastrand::u64(1..400)),
                    _ => {}
                }
                if step % 50 == 0 {
                    shelf.validate();
                }
            }
            shelf.validate();
            shelf.set_capacity(0);
            assert!(shelf.seats.is_empty() && shelf.evict().is_none());
            shelf.validate();
        }
    }

    fn holds_any_number<P: EvictionPolicy>() {
        for capacity in 1..=64 {
            fastrand::seed(capacity);
            let mut shelf = Shelf::<P>::new(capacity);
            let hits = shelf.hits((0..5_000).map(|_| skewed(100)));
            shelf.validate();
            assert_eq!(shelf.policy.weight(), capacity);
            // A quarter of what the most frequent keys of this number would bring, were they always there.
            let most = (capacity as f64 + 1.0).ln() / 100_f64.ln() * 5_000.0;
            assert!(hits as f64 > most / 4.0, "{hits} hits with room for {capacity}");
        }
    }

    fn keeps_what_is_hit_through_a_scan<P: EvictionPolicy>() {
        let mut shelf = Shelf::<P>::new(100);
        // Twice while they are in the small queue, and again in main.
        for key in 0..50 {
            shelf.hits([key; 4].into_iter());
        }
        for key in 1_000..1_100 {
            shelf.access(key, 1);
        }
        assert_eq!(shelf.hits(0..50), 50);
        for key in 2_000..12_000 {
            shelf.access(key, 1);
        }
        assert!((0..50).all(|key| shelf.holds(key)));
    }

    fn lets_a_heavy_one_go<P: EvictionPolicy>() {
        fastrand::seed(3);
        let mut shelf = Shelf::<P>::new(1_000);
        shelf.hits((0..20_000).map(|_| skewed(2_000)));
        let before = shelf.hits((0..20_000).map(|_| skewed(2_000)));
        shelf.access(1 << 40, 900);
        assert_eq!(shelf.policy.weight(), 1_000);
        shelf.hits((0..20_000).map(|_| skewed(2_000)));
        assert!(!shelf.holds(1 << 40));
        let after = shelf.hits((0..20_000).map(|_| skewed(2_000)));
        assert!(after * 50 > before * 49, "{before} hits before, {after} after");
    }

    fn moves_a_bounded_number_at_once<P: EvictionPolicy>() {
        let mut shelf = Shelf::<P>::new(1_000);
        for key in 0..1_000 {
            shelf.access(key, 1);
        }
        // The keys evicted first return, with everything hit, so that a policy has most to do.
        for round in 0..20 {
            let hit = |shelf: &Shelf<P>| shelf.seats.values().for_each(|&seat| shelf.pool.profile(seat).recency.set(3));
            let unchanged = |shelf: &Shelf<P>| {
                shelf.seats.values().filter(|&&seat| shelf.pool.profile(seat).recency.count() == 3).count()
            };
            let returning = (0..2_000).find(|&key| !shelf.holds(key)).unwrap();
            hit(&shelf);
            let key = if round % 2 == 0 { returning } else { 5_000 + round };
            assert!(!shelf.access(key, 1));
            // Without the one that left and the one that came.
            assert!(unchanged(&shelf) >= 998 - 72, "{} of 1,000 are as they were", unchanged(&shelf));
        }
    }

    fn goes_on_after_removal_of_everything<P: EvictionPolicy>() {
        fastrand::seed(4);
        let mut shelf = Shelf::<P>::new(100);
        let hits = |shelf: &mut Shelf<P>| shelf.hits((0..10_000).map(|_| skewed(1_000)));
        let first = hits(&mut shelf);
        for _ in 0..20 {
            shelf.keys().into_iter().for_each(|key| shelf.remove(key));
            shelf.validate();
            assert_eq!(shelf.policy.weight(), 0);
            let again = hits(&mut shelf);
            shelf.validate();
            assert!(again * 10 > first * 9, "{first} hits, then {again}");
        }
    }

    fn follows_the_capacity<P: EvictionPolicy>() {
        let settled = |capacities: &[u64]| {
            fastrand::seed(6);
            let mut shelf = Shelf::<P>::new(capacities[0]);
            let mut hits = 0;
            for &capacity in capacities {
                shelf.set_capacity(capacity);
                shelf.hits((0..10_000).map(|_| skewed(10_000)));
                shelf.validate();
                hits = shelf.hits((0..10_000).map(|_| skewed(10_000)));
            }
            hits as f64
        };
        for capacity in [20, 1_000] {
            let (steady, grown, shrunk) =
                (settled(&[capacity]), settled(&[1, 20, capacity]), settled(&[5_000, capacity]));
            assert!((grown / steady - 1.0).abs() < 0.05, "{steady} hits with {capacity}, {grown} after it grew");
            assert!((shrunk / steady - 1.0).abs() < 0.05, "{steady} hits with {capacity}, {shrunk} after it shrank");
        }
    }

    fn keeps_the_place_of_who_is_replaced<P: EvictionPolicy>() {
        let mut shelf = Shelf::<P>::new(100);
        for key in 0..20 {
            shelf.hits([key; 4].into_iter());
        }
        shelf.hits(1_000..1_200);
        assert!((0..20).all(|key| shelf.access(key, 1)));
        for round in 0..20 {
            // As a refresh does. Nothing else is hit, and main has no reason to give way.
            (0..20).for_each(|key| shelf.replace(key, 1));
            assert_eq!(shelf.hits(2_000 + 100 * round..2_020 + 100 * round), 0);
        }
        assert!((0..20).all(|key| shelf.holds(key)));
    }

    /// The reason to prefer it, where no trace is at hand.
    #[test]
    fn the_adaptive_policy_hits_more_often() {
        fn hits<P: EvictionPolicy>(accesses: &[(u64, u64)], capacity: u64) -> usize {
            let mut shelf = Shelf::<P>::new(capacity);
            accesses.iter().filter(|&&(key, weight)| shelf.access(key, weight)).count()
        }
        fastrand::seed(8);
        let weighed = |key: u64| (key, 1 + (key * key + 7 * key) % 13 % 5);
        let skewed_with_scans: Vec<_> =
            (0..60_000).map(|now| weighed(if now % 10_000 < 8_000 { skewed(20_000) } else { 100_000 + now })).collect();
        let skewed_beside_a_loop: Vec<_> = (0..60_000)
            .map(|now| weighed(if now % 2 == 0 { skewed(20_000) } else { 100_000 + now / 2 % 2_000 }))
            .collect();
        let cases = [("with scans", &skewed_with_scans, 3_000), ("beside a loop", &skewed_beside_a_loop, 3_000)];
        for (name, accesses, capacity) in cases {
            let yardstick = hits::<S3Fifo>(accesses, capacity);
            let adaptive = hits::<AdaptiveFifo>(accesses, capacity);
            assert!(adaptive > yardstick, "{name}, {capacity}: {adaptive} hits, S3-FIFO {yardstick}");
        }
    }

    #[test]
    fn recency_saturates() {
        let recency = Recency::default();
        for expected in [1, 2, 3, 3] {
            recency.touch();
            assert_eq!(recency.count(), expected);
        }
    }
}
