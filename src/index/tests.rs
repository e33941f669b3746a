use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;

use super::lines::LOAD;
use super::*;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How many times as much is done as under Miri, to which each step is some milliseconds.
const FOLD: usize = if cfg!(miri) { 1 } else { 50 };

/// What tells an entry that it is alive, as far as one can ask after its end.
const ALIVE: u64 = 0x0A11_CE00;

/// An entry that counts how many of its kind there are, and knows when it is dropped.
struct Counted {
    hash: u64,
    key: u64,
    weight: u64,
    pulse: AtomicU64,
    alive: Arc<AtomicUsize>,
    at_end: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Counted {
    fn new(hash: u64, key: u64, alive: &Arc<AtomicUsize>) -> Counted {
        alive.fetch_add(1, Ordering::Relaxed);
        Counted { hash, key, weight: 1, pulse: AtomicU64::new(ALIVE), alive: alive.clone(), at_end: None }
    }

    fn key(&self) -> u64 {
        assert_eq!(self.pulse.load(Ordering::Relaxed), ALIVE, "an entry is looked at after its end");
        self.key
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_eq!(self.pulse.swap(0, Ordering::Relaxed), ALIVE, "an entry is dropped twice");
        self.alive.fetch_sub(1, Ordering::Relaxed);
        if let Some(at_end) = &self.at_end {
            at_end();
        }
    }
}

impl Indexed for Counted {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

/// An index with one table, and how many entries of it are alive.
struct One {
    index: Index<Counted>,
    table: Table<Counted>,
    alive: Arc<AtomicUsize>,
}

impl One {
    fn new(capacity: u64) -> One {
        let (index, mut tables) = Index::new(1, capacity);
        One { index, table: tables.remove(0), alive: Arc::default() }
    }

    fn make(&self, hash: u64, key: u64) -> Handle<Counted> {
        self.index.make(0, Counted::new(hash, key, &self.alive))
    }

    fn insert(&mut self, hash: u64, key: u64) -> Seat {
        let entry = self.make(hash, key);
        self.table.insert(entry, || 0)
    }

    fn seat(&self, hash: u64, key: u64) -> Option<Seat> {
        Some(self.table.find(hash, |entry| entry.key() == key)?.seat())
    }

    /// Takes an entry out, and leaves it to limbo.
    fn remove(&mut self, hash: u64, key: u64) -> bool {
        self.seat(hash, key).map(|seat| drop(self.table.unlink(seat))).is_some()
    }

    fn read(&self, hash: u64, key: u64) -> Option<u64> {
        Some(self.index.find(0, hash, |entry| entry.key() == key).ok()?.key())
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }
}

/// Spreads keys over all bits, as a hasher would.
fn spread(key: u64) -> u64 {
    let hash = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash ^ hash >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// With good hashes, with ones that all lead to the same bucket, and with ones that are all the same.
#[test]
fn random_changes_are_found_by_readers_and_writers_alike() {
    const STEPS: usize = 120 * FOLD;
    for hash in [spread, |key| key << 50, |_| 7] as [fn(u64) -> u64; 3] {
        let mut random = fastrand::Rng::with_seed(3);
        let mut one = One::new(400);
        let mut model = HashMap::new();
        let mut kept = Vec::new();
        for step in 0..STEPS {
            // Waxes and wanes, so that the table grows and shrinks.
            let most = if (step / (STEPS / 4)).is_multiple_of(2) { 400 } else { 20 };
            let key = random.u64(..400);
            let seat = one.seat(hash(key), key);
            assert_eq!(seat, model.remove(&key));
            let replaced = seat.map(|seat| one.table.unlink(seat));
            assert_eq!(one.read(hash(key), key), None);
            if model.len() < most {
                let entry = one.make(hash(key), key);
                let seat = one.table.insert(entry.clone(), || random.usize(..500));
                assert!(!model.values().any(|&other| other == seat), "no two at one seat");
                model.insert(key, seat);
                assert_eq!(one.read(hash(key), key), Some(key));
                kept.push(if random.bool() { entry } else { replaced.as_ref().map_or(entry, Unlinked::handle) });
            }
            drop(replaced);
            if step % 50 == 0 {
                one.table.validate();
            }
            if step % 150 == 0 {
                kept.clear();
                one.table.shrink();
                one.index.reclaim();
                assert_eq!(one.alive(), model.len(), "nobody looks, so all that left is gone");
                validate(&one, &model, hash);
            }
        }
        assert!(one.table.seats() < 700, "seats are used again");
        let alive = one.alive.clone();
        drop((one, kept));
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

/// Compares a table with what should be in it: by key, by seat, by hash and one by one, for its writer and for readers.
fn validate(one: &One, model: &HashMap<u64, Seat>, hash: fn(u64) -> u64) {
    let table = &one.table;
    table.validate();
    assert_eq!(table.len(), model.len());
    for (&key, &seat) in model {
        assert_eq!(one.seat(hash(key), key), Some(seat));
        assert_eq!(one.read(hash(key), key), Some(key));
        let resident = table.at(seat).unwrap();
        assert_eq!((resident.key(), resident.seat()), (key, seat));
        assert_eq!(table.seat_of(&resident.handle()), Some(seat));
        assert_eq!(table.with_hash(hash(key)).filter(|entry| entry.key() == key).count(), 1);
    }
    let mut all: Vec<_> = table.iter().map(|entry| entry.key()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), model.len());
    let taken = (0..table.seats() + 200).filter(|&seat| table.at(Seat::from_index(seat)).is_some());
    assert_eq!(taken.count(), model.len());
}

#[test]
fn seats_are_used_again() {
    let mut one = One::new(1_000);
    let first = one.insert(1, 1);
    assert_eq!((first.index(), one.table.seats()), (0, 1));
    let second = one.insert(2, 2);
    assert_eq!((second.index(), one.table.seats()), (1, 2));
    one.remove(1, 1);
    assert!(one.table.at(first).is_none());
    one.index.reclaim();
    assert_eq!(one.insert(3, 3), first);
    assert_eq!(one.table.at(first).unwrap().key(), 3);
    assert_eq!(one.table.seats(), 2);
}

#[test]
fn a_vacancy_that_nothing_fills_is_vacant_again() {
    let mut one = One::new(1_000);
    let first = one.insert(1, 1);
    drop((one.index.vacancy(0), one.index.vacancy_without_drops(0)));
    let seats = [2, 3].map(|key| one.insert(key, key).index());
    assert_eq!((first.index(), seats.iter().sum::<usize>(), one.table.seats()), (0, 3, 3));
    drop(one.index.vacancy(0).fill(Counted::new(4, 4, &one.alive)));
    assert_eq!(one.insert(5, 5).index(), 3);
}

/// Chunks are as large as suits the shard.
#[test]
fn seats_follow_each_other_whatever_the_size_of_chunks() {
    for capacity in [0, 1, 8, 9, 63, 64, 65, 300, 1_000, 5_000, u64::MAX] {
        let mut one = One::new(capacity);
        for key in 0..300 {
            let seat = one.insert(spread(key), key);
            assert_eq!((seat.index(), one.table.seats()), (key as usize, key as usize + 1));
        }
        for key in 0..300 {
            assert_eq!(one.table.at(Seat::from_index(key as usize)).unwrap().key(), key);
        }
        assert!(one.table.at(Seat::from_index(300)).is_none());
    }
}

#[test]
fn a_slot_takes_eight_bytes_beside_its_entry() {
    assert_eq!(size_of::<pool::Slot<u64>>(), 16);
    assert_eq!(size_of::<pool::Slot<[u64; 10]>>(), 88);
    assert_eq!((size_of::<Handle<u64>>(), size_of::<Option<Handle<u64>>>()), (8, 8));
}

#[test]
fn entries_under_one_hash_are_told_apart() {
    let mut one = One::new(1_000);
    // More than a bucket holds, more than two of them, and others among them that only share the tag.
    for key in 0..40 {
        one.insert(7 << 56 | (key % 2) << 40, key);
    }
    for key in 0..40 {
        assert_eq!(one.read(7 << 56 | (key % 2) << 40, key), Some(key));
    }
    let odd = |one: &One| {
        let mut keys: Vec<_> = one.table.with_hash(7 << 56 | 1 << 40).map(|entry| entry.key()).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(odd(&one), (0..20).map(|key| 2 * key + 1).collect::<Vec<_>>());
    for key in 0..20 {
        assert!(one.remove(7 << 56 | 1 << 40, 2 * key + 1));
    }
    assert!(odd(&one).is_empty());
    assert_eq!(one.table.with_hash(7 << 56).count(), 20);
    assert_eq!(one.table.with_hash(8 << 56).count(), 0);
}

#[test]
fn a_handle_outlives_table_and_index() {
    let mut one = One::new(1_000);
    for key in 0..200 {
        one.insert(spread(key), key);
    }
    let of_table = one.table.at(one.seat(spread(1), 1).unwrap()).unwrap().handle();
    let of_hit = one.index.find(0, spread(2), |entry| entry.key() == 2).unwrap().handle();
    let unlinked = one.table.unlink(one.seat(spread(3), 3).unwrap());
    let of_unlinked = unlinked.handle();
    let never_in = one.make(spread(300), 300);
    let clone = of_hit.clone();
    assert!(clone.ptr_eq(&of_hit) && !clone.ptr_eq(&of_table));
    let alive = one.alive.clone();
    drop(one);
    assert_eq!(alive.load(Ordering::Relaxed), 4, "what nobody has is gone");
    assert_eq!([&of_table, &of_hit, &of_unlinked, &never_in].map(|handle| handle.key()), [1, 2, 3, 300]);
    assert_eq!(unlinked.key(), 3);
    drop(unlinked);
    assert_eq!(alive.load(Ordering::Relaxed), 4);
    for handle in [of_table, of_unlinked, never_in] {
        drop(handle);
    }
    assert_eq!((alive.load(Ordering::Relaxed), clone.key()), (1, 2));
    drop((clone, of_hit));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn the_entry_of_the_last_handle_can_be_taken_or_changed() {
    let mut one = One::new(1_000);
    let mut handle = one.make(1, 1);
    handle.get_mut().unwrap().key = 2;
    let mut clone = handle.clone();
    assert!(clone.get_mut().is_none());
    assert!(clone.into_inner().is_none());
    assert_eq!(handle.into_inner().unwrap().key(), 2);
    assert_eq!(one.alive(), 0);

    let mut handle = one.make(3, 3);
    let seat = one.table.insert(handle.clone(), || 0);
    assert_eq!(seat.index(), 0, "what was taken is vacant again");
    assert!(handle.get_mut().is_none(), "the table has a handle, too");
    let clone = handle.clone();
    assert!(clone.into_inner().is_none());
    drop(one.table.unlink(seat));
    assert!(handle.get_mut().is_none(), "somebody may look at it");
    one.index.reclaim();
    assert_eq!(handle.into_inner().unwrap().key(), 3);
}

#[test]
fn only_an_entry_of_this_table_has_a_seat_in_it() {
    let (index, mut tables) = Index::new(2, 1_000);
    let alive = Arc::default();
    let (mut second, mut first) = (tables.pop().unwrap(), tables.pop().unwrap());
    let of_first = index.make(0, Counted::new(1, 1, &alive));
    let of_second = index.make(1, Counted::new(1, 1, &alive));
    let seat = first.insert(of_first.clone(), || 0);
    assert_eq!(second.insert(of_second.clone(), || 0), seat);
    assert_eq!(first.seat_of(&of_first), Some(seat));
    assert_eq!(first.seat_of(&of_second), None);
    drop(first.unlink(seat));
    assert_eq!(first.seat_of(&of_first), None);
    assert_eq!(second.seat_of(&of_second), Some(seat));

    // What would leave readers with an address of nothing.
    let insert = |table: &mut Table<Counted>, entry: &Handle<Counted>| {
        let entry = entry.clone();
        catch_unwind(AssertUnwindSafe(|| table.insert(entry, || 0))).is_err()
    };
    assert!(insert(&mut first, &of_second) && insert(&mut second, &of_second));
    assert!(catch_unwind(AssertUnwindSafe(|| first.unlink(seat))).is_err());
    drop((of_first, of_second, index, first, second));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn what_a_reader_looks_at_outlives_its_removal_and_nothing_else_does() {
    let mut one = One::new(1_000);
    for key in 0..1_000 {
        one.insert(spread(key), key);
    }
    let alive = one.alive.clone();
    let mut one_table = std::mem::replace(&mut one.table, One::new(1).table);
    let held = one.index.find(0, spread(5), |entry| entry.key() == 5).unwrap();
    for seat in 0..1_000 {
        drop(one_table.unlink(Seat::from_index(seat)));
    }
    one_table.shrink();
    one.index.reclaim();
    assert_eq!((held.key(), alive.load(Ordering::Relaxed)), (5, 1));

    // A flood of others changes nothing, however long it looks: what waits is bounded.
    for key in 0..400 * FOLD as u64 {
        let seat = one_table.insert(one.make(spread(key), key), || 0);
        drop(one_table.unlink(seat));
        assert!(alive.load(Ordering::Relaxed) < 1_000 / 8, "{} wait", alive.load(Ordering::Relaxed));
    }
    assert_eq!(held.key(), 5);
    drop(held);
    one.index.reclaim();
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Whatever the capacity, and however it is spread: what waits, for a proof or to be dropped, is a small part of it.
#[test]
#[cfg_attr(miri, ignore = "goes through as many entries as may wait, for each of many shards")]
fn what_waits_is_bounded_by_number_and_weight() {
    for (shards, capacity, weight, most) in [
        (1, 1 << 20, 1, 700),
        (64, 1 << 20, 1, 1_300),
        (8, 10_000, 1, 1_300),
        (8, 160, 1, 100),
        (8, 8, 1, 8),
        (8, 1 << 30, 1 << 23, 16),
        (8, 1 << 30, 1 << 28, 2),
    ] {
        let (index, mut tables) = Index::new(shards, capacity);
        let alive = Arc::default();
        // One after the other, so that each leaves what it can behind.
        for (shard, table) in tables.iter_mut().enumerate() {
            for key in 0..2_000 {
                let mut entry = Counted::new(spread(key), key, &alive);
                entry.weight = weight;
                let seat = table.insert(index.make(shard, entry), || 10);
                drop(table.unlink(seat));
                let waiting = alive.load(Ordering::Relaxed);
                assert!(waiting <= most, "{shards} {capacity} {weight}: {waiting} wait");
            }
        }
        index.reclaim();
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "goes through many times as many entries as may wait")]
fn entries_are_dropped_at_the_pace_at_which_others_come() {
    let mut one = One::new(1 << 20);
    for key in 0..1_000 {
        one.insert(spread(key), key);
        one.remove(spread(key), key);
    }
    // From here on each that leaves is one more, and each that comes takes the place of one that has left.
    for key in 1_000..10_000 {
        let before = one.alive();
        one.insert(spread(key), key);
        assert_eq!(one.alive(), before);
        one.remove(spread(key), key);
        assert_eq!(one.alive(), before);
    }
    // Where none come, each that leaves takes another along.
    for key in 0..10_000 {
        one.insert(spread(key), key);
    }
    for key in 0..10_000 {
        let before = one.alive();
        one.remove(spread(key), key);
        assert!(before - one.alive() <= 1);
    }
    assert!(one.alive() <= 1_024, "{} wait", one.alive());
}

#[test]
fn an_entry_gets_the_slot_of_one_that_left_unless_somebody_has_it() {
    // With a capacity of nothing, each is proven as it leaves.
    let mut one = One::new(0);
    let seat = one.insert(spread(0), 0);
    let held = one.table.at(seat).unwrap().handle();
    one.remove(spread(0), 0);
    assert_eq!(one.insert(spread(1), 1).index(), 1);
    assert_eq!((held.key(), one.alive()), (0, 2));
    drop(held);
    one.remove(spread(1), 1);
    assert_eq!(one.alive(), 1, "it waits for whoever takes its slot");
    assert_eq!(one.insert(spread(2), 2).index(), 1, "rather than one that is vacant");
    assert_eq!(one.alive(), 1);
    assert_eq!(one.insert(spread(3), 3), seat);
}

#[test]
fn reads_within_reads_find_as_well_until_they_are_too_deep() {
    let mut one = One::new(1_000);
    for key in 0..10 {
        one.insert(spread(key), key);
    }
    let find = |key| one.index.find(0, spread(key), |entry| entry.key() == key);
    let mut held: Vec<_> = (0..4).map(|key| find(key).unwrap()).collect();
    assert_eq!(find(5).err(), Some(Missed::Unsure));
    // In whatever order they end.
    drop(held.remove(1));
    held.push(find(5).unwrap());
    assert_eq!(held.iter().map(|hit| hit.key()).collect::<Vec<_>>(), [0, 2, 3, 5]);
    drop(held);

    fn deep(one: &One, depth: u64) -> u64 {
        let inner = std::cell::Cell::new(0);
        let hit = one.index.find(0, spread(depth), |_| {
            inner.set(deep(one, depth + 1));
            true
        });
        inner.get() + u64::from(hit.is_ok())
    }
    assert_eq!(deep(&one, 0), hazard::DEPTH as u64);
    assert_eq!(one.read(spread(1), 1), Some(1));
}

#[test]
fn a_miss_is_certain_unless_a_successor_is_to_come() {
    let mut one = One::new(1_000);
    let missed = |one: &One, key| one.index.find(0, spread(key), |entry| entry.key() == key).err();
    assert_eq!(missed(&one, 0), Some(Missed::Absent), "before there is a table");
    let seat = one.insert(spread(0), 0);
    assert_eq!((missed(&one, 0), missed(&one, 1)), (None, Some(Missed::Absent)));
    one.table.expect_successor();
    let old = one.table.unlink(seat);
    assert_eq!((missed(&one, 0), missed(&one, 1)), (Some(Missed::Unsure), Some(Missed::Unsure)));
    one.insert(spread(0), 0);
    drop(old);
    assert_eq!((missed(&one, 0), missed(&one, 1)), (None, Some(Missed::Absent)));
    one.remove(spread(0), 0);
    assert_eq!(missed(&one, 0), Some(Missed::Absent));
    let seat = one.insert(spread(0), 0);
    one.table.expect_successor();
    drop(one.table.unlink(seat));
    one.table.expect_none();
    assert_eq!(missed(&one, 0), Some(Missed::Absent), "nothing has come in its place");

    // While a table grows, and where more keys than one have met in a bucket.
    for key in 0..1_000 {
        one.insert(spread(key), key);
        assert_eq!(missed(&one, key + 1), Some(Missed::Absent));
    }
    for key in 1_000..1_020 {
        one.insert(5, key);
    }
    assert_eq!(one.index.find(0, 5, |entry| entry.key() == 1).err(), Some(Missed::Absent));
}

/// Returns an index with one table, whose readers are those of `domain`.
fn one_in(domain: &'static hazard::Domain) -> One {
    let (index, mut tables) = Index::new_in(domain, 1, 1_000);
    One { index, table: tables.remove(0), alive: Arc::default() }
}

#[test]
fn without_a_barrier_all_has_to_wait() {
    static DOMAIN: hazard::Domain = hazard::Domain::new();
    let mut one = one_in(&DOMAIN);
    DOMAIN.refuses.store(true, Ordering::Relaxed);
    for key in 0..500 {
        one.insert(spread(key), key);
    }
    for key in 0..500 {
        assert!(one.remove(spread(key), key));
    }
    one.index.reclaim();
    assert_eq!(one.alive(), 500);
    DOMAIN.refuses.store(false, Ordering::Relaxed);
    one.index.reclaim();
    assert_eq!(one.alive(), 0);
}

#[test]
fn what_a_thread_looked_at_as_it_ended_is_kept_as_long_as_the_index() {
    static DOMAIN: hazard::Domain = hazard::Domain::new();
    let mut one = one_in(&DOMAIN);
    one.insert(1, 1);
    let reader = DOMAIN.join();
    std::mem::forget(one.index.find_by(reader, 0, 1, |entry| entry.key() == 1).unwrap());
    reader.leave();
    let other = DOMAIN.join();
    assert_eq!((reader.number(), other.number()), (0, 1), "its place is not another's");
    other.leave();
    assert_eq!(DOMAIN.join().number(), 1);
    one.remove(1, 1);
    one.index.reclaim();
    assert_eq!(one.alive(), 1);
    let alive = one.alive.clone();
    drop(one);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_comparison_that_panics_holds_on_to_nothing() {
    let mut one = One::new(1_000);
    one.insert(1, 1);
    for _ in 0..10 {
        let find = AssertUnwindSafe(|| one.index.find(0, 1, |_| panic!("not comparable")).is_ok());
        assert!(catch_unwind(find).is_err());
    }
    one.remove(1, 1);
    one.index.reclaim();
    assert_eq!(one.alive(), 0);
}

#[test]
fn a_drop_that_panics_keeps_no_other_from_being_dropped() {
    let panics = |one: &One, key: u64| {
        let mut entry = Counted::new(spread(key), key, &one.alive);
        entry.at_end = Some(Box::new(|| panic!("not to be dropped")));
        one.index.make(0, entry)
    };
    let mut one = One::new(1_000);
    for key in 0..100 {
        let entry = if key == 50 { panics(&one, key) } else { one.make(spread(key), key) };
        one.table.insert(entry, || 0);
    }
    let index = &one.index;
    let mut caught = 0;
    for seat in 0..100 {
        let unlinked = one.table.unlink(Seat::from_index(seat));
        caught += usize::from(catch_unwind(AssertUnwindSafe(|| drop(unlinked))).is_err());
    }
    while one.alive() > 0 {
        caught += usize::from(catch_unwind(AssertUnwindSafe(|| index.reclaim())).is_err());
    }
    assert_eq!(caught, 1);
    for key in 0..100 {
        one.insert(spread(key), key);
    }
    assert!(one.table.seats() <= 100 + 70, "its slot is used again");

    // In a table that is dropped as well.
    let entry = panics(&one, 200);
    one.table.insert(entry, || 0);
    let alive = one.alive.clone();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(one))).is_err());
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_drop_that_panics_leaves_its_slot_to_the_next() {
    let mut one = One::new(0);
    let mut entry = Counted::new(spread(0), 0, &one.alive);
    entry.at_end = Some(Box::new(|| panic!("not to be dropped")));
    let entry = one.index.make(0, entry);
    let seat = one.table.insert(entry, || 0);
    one.remove(spread(0), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| one.make(spread(1), 1))).is_err());
    assert_eq!(one.alive(), 0);
    assert_eq!(one.insert(spread(2), 2), seat);
}

/// Each entry reads another, takes a third one out, and makes one, as it is dropped: under no lock of the index.
#[test]
fn an_entry_may_use_the_index_as_it_is_dropped() {
    let alive = Arc::default();
    let (index, mut tables) = Index::<Counted>::new(1, 1_000);
    let cache = Arc::new((index, crate::sync::Mutex::new(tables.remove(0))));
    let read = Arc::new(AtomicUsize::new(0));
    for key in 0..1_000 {
        let mut entry = Counted::new(spread(key), key, &alive);
        let (cache_then, alive_then, read) = (Arc::downgrade(&cache), alive.clone(), read.clone());
        entry.at_end = Some(Box::new(move || {
            let Some(cache) = cache_then.upgrade() else { return };
            let (index, table) = &*cache;
            let other = (key + 500) % 1_000;
            let hit = index.find(0, spread(other), |entry| entry.key() == other);
            read.fetch_add(usize::from(hit.is_ok()), Ordering::Relaxed);
            drop(hit);
            let made = index.make(0, Counted::new(spread(key), key, &alive_then));
            let mut table = table.lock();
            let seat = table.find(spread(other), |entry| entry.key() == other).map(Resident::seat);
            let unlinked = seat.map(|seat| table.unlink(seat));
            drop(table);
            drop((made, unlinked));
        }));
        let entry = cache.0.make(0, entry);
        cache.1.lock().insert(entry, || 1_000);
    }
    for seat in 0..1_000 {
        let mut table = cache.1.lock();
        let seat = Seat::from_index(seat);
        let unlinked = table.at(seat).map(Resident::seat).map(|seat| table.unlink(seat));
        drop(table);
        drop(unlinked);
    }
    for _ in 0..10 {
        cache.0.reclaim();
    }
    assert_eq!((cache.1.lock().len(), alive.load(Ordering::Relaxed)), (0, 0));
    assert!(read.load(Ordering::Relaxed) > 100);
}

/// Each entry that is dropped takes out the next. That goes on within each other no deeper than a few, and yet all are
/// dropped in the end.
#[test]
fn drops_that_lead_to_further_ones_do_not_go_deep() {
    // Many times as many as may wait where there is room for twice as many.
    const ENTRIES: usize = 200 * FOLD;
    let alive = Arc::default();
    let (index, mut tables) = Index::<Counted>::new(1, 2 * ENTRIES as u64);
    let cache = Arc::new((index, crate::sync::Mutex::new(tables.remove(0))));
    let (depth, deepest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for key in 0..ENTRIES as u64 {
        let mut entry = Counted::new(spread(key), key, &alive);
        let (cache_then, depth, deepest) = (Arc::downgrade(&cache), depth.clone(), deepest.clone());
        entry.at_end = Some(Box::new(move || {
            let Some(cache) = cache_then.upgrade() else { return };
            deepest.fetch_max(depth.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            let seat = Seat::from_index((key as usize + ENTRIES / 2) % ENTRIES);
            let mut table = cache.1.lock();
            let unlinked = table.at(seat).map(Resident::seat).map(|seat| table.unlink(seat));
            drop(table);
            drop(unlinked);
            depth.fetch_sub(1, Ordering::Relaxed);
        }));
        let entry = cache.0.make(0, entry);
        cache.1.lock().insert(entry, || ENTRIES);
    }
    for seat in 0..ENTRIES {
        let mut table = cache.1.lock();
        let unlinked = table.at(Seat::from_index(seat)).map(Resident::seat).map(|seat| table.unlink(seat));
        drop(table);
        drop(unlinked);
    }
    while alive.load(Ordering::Relaxed) > 0 {
        cache.0.reclaim();
    }
    assert!((1..16).contains(&deepest.load(Ordering::Relaxed)), "{deepest:?} within each other");
}

/// Grown to what is expected, a table spends little more on an entry than a pointer and a tag.
#[test]
fn a_table_is_made_for_the_entries_that_are_expected() {
    let all = [1_000, 10_000, 16_384, 30_000];
    for &expected in if cfg!(miri) { &all[..1] } else { &all } {
        let mut one = One::new(1 << 20);
        for key in 0..expected as u64 {
            let entry = one.make(spread(key), key);
            one.table.insert(entry, || expected);
            assert_eq!(one.read(spread(key / 2), key / 2), Some(key / 2));
        }
        let bytes = 64.0 * one.table.room_now() as f64 / LOAD as f64 / expected as f64;
        assert!((11.8..12.2).contains(&bytes), "{bytes} bytes an entry of {expected}");
        for key in expected as u64..2 * expected as u64 {
            let entry = one.make(spread(key), key);
            one.table.insert(entry, || expected);
        }
        assert!((0..2 * expected as u64).all(|key| one.read(spread(key), key).is_some()));
        let bytes = 64.0 * one.table.room_now() as f64 / LOAD as f64 / (2 * expected) as f64;
        assert!(bytes < 64.0 / 6.0 * 1.3, "{bytes} bytes an entry of twice {expected}");
    }
}

/// Also where nothing ever leaves, and so nothing else would have it freed.
#[test]
fn a_table_that_was_replaced_goes_with_the_next_entry() {
    let mut one = One::new(1 << 20);
    let mut replaced = 0;
    for key in 0..1_000 {
        let entry = one.make(spread(key), key);
        assert!(!one.table.has_replaced());
        one.table.insert(entry, || 0);
        replaced += u32::from(one.table.has_replaced());
    }
    assert!((5..20).contains(&replaced), "{replaced} tables");
}

#[test]
fn threads_have_numbers_of_their_own_that_are_used_again() {
    let mine = Reader::current().map(Reader::number).unwrap();
    assert_eq!(Reader::current().map(Reader::number), Some(mine));
    let (start, end) = (Barrier::new(4), Barrier::new(4));
    let numbers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let number = Reader::current().map(Reader::number).unwrap();
                    end.wait();
                    number
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = [&numbers[..], &[mine]].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 5);
}

/// Two readers find what never leaves while a writer makes the table grow and shrink around it, and drops what leaves, and
/// another takes handles. An entry says so where it is looked at after its end: under ThreadSanitizer, a race is an error.
#[test]
fn stress_readers_beside_a_writer_see_what_is_alive() {
    const FIXED: u64 = 50;
    let mut one = One::new(2_000);
    for key in 0..FIXED {
        one.insert(spread(key), key);
    }
    let One { index, mut table, alive } = one;
    let (over, start) = (AtomicBool::new(false), Barrier::new(4));
    let found = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let readers = [0, 1, 2].map(|seed| {
            let (index, over, start, found) = (&index, &over, &start, &found);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut kept = Vec::new();
                start.wait();
                while !over.load(Ordering::Relaxed) {
                    let key = random.u64(..4 * FIXED);
                    let Ok(hit) = index.find(0, spread(key), |entry| entry.key() == key) else { continue };
                    assert_eq!(hit.key(), key);
                    found.fetch_add(1, Ordering::Relaxed);
                    if seed == 2 {
                        kept.push(hit.handle());
                        drop(hit);
                        if kept.len() > 10 {
                            let handle = kept.swap_remove(random.usize(..kept.len()));
                            assert!(handle.key() < 4 * FIXED);
                        }
                    }
                }
            })
        });
        start.wait();
        let mut round = 0;
        // So that the readers have found something, however the machine divides its time.
        while round < 4 * FOLD || found.load(Ordering::Relaxed) < 20 * FOLD {
            round += 1;
            let most = FIXED + 40 * (round as u64 % 9);
            let insert = |table: &mut Table<Counted>, key| {
                let entry = index.make(0, Counted::new(spread(key), key, &alive));
                table.insert(entry, || 100)
            };
            let mut seats: Vec<_> = (FIXED..most).map(|key| insert(&mut table, key)).collect();
            // Some are replaced.
            for (at, key) in (FIXED..most).enumerate().step_by(3) {
                let unlinked = table.unlink(seats[at]);
                seats[at] = insert(&mut table, key);
                drop(unlinked);
            }
            for seat in seats {
                drop(table.unlink(seat));
            }
            table.shrink();
            assert!(alive.load(Ordering::Relaxed) < 1_000);
        }
        over.store(true, Ordering::Relaxed);
        // ThreadSanitizer knows of a join, and not of the end of a scope.
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    index.reclaim();
    assert_eq!(alive.load(Ordering::Relaxed), FIXED as usize);
    drop((index, table));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Some keys are there all the while: the table grows and shrinks around them, others come and go, and they themselves are
/// succeeded by others time and again. No reader that misses one takes that for an answer.
#[test]
fn stress_what_stays_is_never_said_to_be_absent() {
    const STAY: u64 = 20;
    let mut one = One::new(2_000);
    let mut stay: Vec<_> = (0..STAY).map(|key| one.insert(spread(key), key)).collect();
    let One { index, mut table, alive } = one;
    let (over, start) = (AtomicBool::new(false), Barrier::new(3));
    let sure = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|seed| {
            let (index, over, start, sure) = (&index, &over, &start, &sure);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                start.wait();
                while !over.load(Ordering::Relaxed) {
                    let key = random.u64(..2 * STAY);
                    match index.find(0, spread(key), |entry| entry.key() == key) {
                        Ok(hit) => assert_eq!(hit.key(), key),
                        Err(Missed::Absent) => {
                            assert!(key >= STAY, "{key} is said to be absent");
                            sure.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Missed::Unsure) => {}
                    }
                }
            })
        });
        start.wait();
        let mut round = 0;
        // So that the readers have missed something, however the machine divides its time.
        while round < 4 * FOLD || sure.load(Ordering::Relaxed) < 20 * FOLD {
            round += 1;
            let most = 2 * STAY + 40 * (round as u64 % 9);
            let mut insert = |key, replaced: Option<Seat>| {
                let entry = index.make(0, Counted::new(spread(key), key, &alive));
                let old = replaced.map(|seat| {
                    table.expect_successor();
                    table.unlink(seat)
                });
                let seat = table.insert(entry, || 100);
                drop(old);
                seat
            };
            let mut others = Vec::new();
            for key in STAY..most {
                others.push(insert(key, None));
                let replaced = (key % STAY) as usize;
                stay[replaced] = insert(replaced as u64, Some(stay[replaced]));
            }
            for seat in others {
                drop(table.unlink(seat));
            }
            table.shrink();
        }
        over.store(true, Ordering::Relaxed);
        // ThreadSanitizer knows of a join, and not of the end of a scope.
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    drop((index, table));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Writers, each of a table of its own, prove in turns what all of them leave behind, while each reads what the next one has
/// and keeps handles of it beyond its removal. What waits stays bounded, and in the end everything is gone.
#[test]
fn stress_writers_beside_each_other_prove_in_turns() {
    const WRITERS: usize = 3;
    const KEYS: u64 = 300;
    let alive: Arc<AtomicUsize> = Arc::default();
    let (index, tables) = Index::<Counted>::new(WRITERS, 2_000);
    let start = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        let writers = tables.into_iter().enumerate().map(|(shard, mut table)| {
            let (index, start, alive) = (&index, &start, &alive);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(shard as u64);
                let mut kept = std::collections::VecDeque::new();
                start.wait();
                for step in 0..400 * FOLD {
                    let key = random.u64(..KEYS);
                    let entry = index.make(shard, Counted::new(spread(key), key, alive));
                    let seat = table.find(spread(key), |entry| entry.key() == key).map(Resident::seat);
                    let unlinked = seat.map(|seat| table.unlink(seat));
                    table.insert(entry, || KEYS as usize);
                    drop(unlinked);
                    let next = (shard + 1) % WRITERS;
                    let hit = index.find(next, spread(key), |entry| entry.key() == key);
                    kept.extend(hit.as_ref().ok().map(Hit::handle));
                    drop(hit);
                    if kept.len() > 20 {
                        assert!(kept.pop_front().is_some_and(|handle| handle.key() < KEYS));
                    }
                    if step % (80 * FOLD) == 0 {
                        index.reclaim();
                    }
                    let most = WRITERS * (KEYS as usize + 22) + 2 * 2_000 / 4;
                    assert!(alive.load(Ordering::Relaxed) < most, "what waits is bounded");
                }
            })
        });
        // ThreadSanitizer knows of a join, and not of the end of a scope.
        writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
    });
    drop(index);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}
