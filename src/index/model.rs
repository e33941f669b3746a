//! The protocol of readers, writers and those who prove, in every order that the memory model allows:
//! `RUSTFLAGS="--cfg larder_loom" cargo test --package larder --lib --release index::model`.

use loom::cell::UnsafeCell;
use loom::thread;

use super::hazard::{Domain, Reader};
use super::{Handle, Index, Indexed, Missed, Seat, Table};
use crate::sync::Arc;

/// An entry that notices when it is looked at while, or after, it is dropped.
struct Watched {
    key: u64,
    hash: u64,
    alive: UnsafeCell<bool>,
}

impl Watched {
    fn new(key: u64, hash: u64) -> Watched {
        Watched { key, hash, alive: UnsafeCell::new(true) }
    }

    fn look(&self) -> u64 {
        // SAFETY: loom reports whoever writes to the cell meanwhile.
        self.alive.with(|alive| assert!(unsafe { *alive }));
        self.key
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: loom reports whoever looks into the cell meanwhile, or later without knowing of this.
        self.alive.with_mut(|alive| unsafe { *alive = false });
    }
}

// SAFETY: loom checks all accesses to the cell.
unsafe impl Sync for Watched {}

impl Indexed for Watched {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn weight(&self) -> u64 {
        1
    }
}

/// How often a model takes the turn from a thread that could go on: with more, moving a table beside a reader who looks at all
/// of its entries takes hours.
const PREEMPTIONS: usize = 2;

/// The same where a table is moved beside a reader who looks at one entry.
const PREEMPTIONS_OF_A_MOVE: usize = 3;

/// Returns a hash that leads to the first bucket, where all keys have the same tag: a reader looks at every entry.
fn with_one_tag(key: u64) -> u64 {
    key
}

/// Returns a hash that leads to the first bucket, where each key has a tag of its own: a reader looks at one entry.
fn with_its_tag(key: u64) -> u64 {
    (key + 1) << 56
}

/// An index with one table that holds the keys up to a number.
struct Cache {
    index: Arc<Index<Watched>>,
    table: Table<Watched>,
    domain: &'static Domain,
    hash: fn(u64) -> u64,
}

impl Cache {
    fn new(held: u64) -> Cache {
        Cache::of_hashes(with_one_tag, held)
    }

    fn of_hashes(hash: fn(u64) -> u64, held: u64) -> Cache {
        let domain: &'static Domain = Box::leak(Box::new(Domain::new()));
        // Makes the reader's record, since the checker does not see how one is published.
        domain.join().leave();
        let (index, mut tables) = Index::new_in(domain, 1, 1 << 20);
        let mut cache = Cache { index: Arc::new(index), table: tables.remove(0), domain, hash };
        for key in 0..held {
            cache.insert(key);
        }
        cache
    }

    fn insert(&mut self, key: u64) {
        let entry = self.index.make(0, Watched::new(key, (self.hash)(key)));
        self.table.insert(entry, || 0);
    }

    /// Runs a thread that reads.
    fn reads(&self, read: impl FnOnce(&Index<Watched>, Reader) + Send + 'static) -> thread::JoinHandle<()> {
        let (index, domain) = (self.index.clone(), self.domain);
        thread::spawn(move || {
            let reader = domain.join();
            read(&index, reader);
            reader.leave();
        })
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    check_with(PREEMPTIONS, model);
}

fn check_with(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Runs a reader that looks for `key` beside a writer, whose table holds the keys up to `held`.
fn race(held: u64, key: u64, write: impl Fn(&mut Cache) + Sync + Send + Copy + 'static) {
    check(move || {
        let mut cache = Cache::new(held);
        let reader = cache.reads(move |index, reader| {
            if let Ok(hit) = index.find_by(reader, 0, key, |entry| entry.look() == key) {
                assert_eq!(hit.look(), key);
            }
        });
        write(&mut cache);
        cache.index.reclaim();
        reader.join().unwrap();
    });
}

/// Runs a reader that takes a handle of an entry beside a writer.
fn race_with_a_handle(write: impl Fn(&mut Cache) + Sync + Send + Copy + 'static) {
    check(move || {
        let mut cache = Cache::new(1);
        let reader = cache.reads(|index, reader| {
            let hit = index.find_by(reader, 0, 0, |entry| entry.look() == 0);
            let handle: Option<Handle<Watched>> = hit.as_ref().ok().map(|hit| hit.handle());
            drop(hit);
            if let Some(handle) = handle {
                assert_eq!(handle.look(), 0);
            }
        });
        write(&mut cache);
        cache.index.reclaim();
        reader.join().unwrap();
    });
}

/// Runs a reader that looks for `key`, which is there all the while, beside a writer, whose table holds the keys up to `held`.
/// It finds the key, or does not know.
fn race_for_one_that_stays(
    preemptions: usize,
    hash: fn(u64) -> u64,
    held: u64,
    key: u64,
    write: impl Fn(&mut Cache) + Sync + Send + Copy + 'static,
) {
    check_with(preemptions, move || {
        let mut cache = Cache::of_hashes(hash, held);
        let reader = cache.reads(move |index, reader| {
            let missed = index.find_by(reader, 0, hash(key), |entry| entry.look() == key).err();
            assert_ne!(missed, Some(Missed::Absent));
        });
        write(&mut cache);
        reader.join().unwrap();
    });
}

#[test]
fn an_entry_that_is_succeeded_is_not_said_to_be_absent() {
    race_for_one_that_stays(PREEMPTIONS, with_one_tag, 1, 0, |cache| {
        cache.table.expect_successor();
        let old = cache.table.unlink(Seat::from_index(0));
        cache.insert(0);
        drop(old);
    });
}

/// The sixth key moves while the seventh comes, which makes the table grow. One turn taken from either is what it needs to be missed
/// in both tables: the reader has looked into the new one, and the writer moves on.
#[test]
fn an_entry_that_is_moved_is_not_said_to_be_absent() {
    race_for_one_that_stays(PREEMPTIONS_OF_A_MOVE, with_its_tag, 6, 5, |cache| cache.insert(6));
}

/// What the reader knows to have come, and what leaves beside it does not hide that.
#[test]
fn an_entry_is_not_said_to_be_absent_for_others_that_come_and_go() {
    race_for_one_that_stays(PREEMPTIONS, with_one_tag, 2, 0, |cache| {
        drop(cache.table.unlink(Seat::from_index(1)));
        cache.insert(2);
    });
}

#[test]
fn an_entry_that_is_removed_is_dropped_when_nobody_looks() {
    race(1, 0, |cache| drop(cache.table.unlink(Seat::from_index(0))));
}

/// The successor may get the slot of what it succeeds.
#[test]
fn an_entry_that_is_replaced_is_dropped_when_nobody_looks() {
    race(1, 0, |cache| {
        drop(cache.table.unlink(Seat::from_index(0)));
        cache.index.reclaim();
        cache.insert(0);
    });
}

/// The successor gets the slot where what it succeeds is proven, and drops that itself.
#[test]
fn an_entry_whose_slot_is_taken_is_dropped_when_nobody_looks() {
    race(1, 0, |cache| {
        cache.index.set_capacity(0);
        drop(cache.table.unlink(Seat::from_index(0)));
        cache.insert(0);
    });
}

/// The seventh key does not fit into one bucket: the six before it move to a table of two, and the first is freed.
#[test]
fn a_table_that_is_replaced_is_freed_when_nobody_looks() {
    race(6, 5, |cache| cache.insert(6));
}

/// A handle is taken from a hit while the entry is removed and proven: whichever comes last drops it.
#[test]
fn a_handle_taken_from_a_hit_keeps_an_entry_that_is_removed() {
    race_with_a_handle(|cache| drop(cache.table.unlink(Seat::from_index(0))));
}

/// The same where it may be dropped for its slot.
#[test]
fn a_handle_taken_from_a_hit_keeps_an_entry_whose_slot_is_wanted() {
    race_with_a_handle(|cache| {
        cache.index.set_capacity(0);
        drop(cache.table.unlink(Seat::from_index(0)));
        cache.insert(1);
    });
}

/// What leaves while another thread proves is taken along, or waits: and a reader looks at it.
#[test]
fn an_entry_may_leave_while_another_thread_proves() {
    check(|| {
        let mut cache = Cache::new(2);
        let first = cache.table.unlink(Seat::from_index(0));
        let prover = thread::spawn({
            let index = cache.index.clone();
            move || {
                drop(first);
                index.reclaim();
            }
        });
        let second = cache.table.unlink(Seat::from_index(1));
        let held = second.handle();
        drop(second);
        prover.join().unwrap();
        assert_eq!(held.look(), 1);
        cache.index.reclaim();
        assert!(held.into_inner().is_some());
    });
}
