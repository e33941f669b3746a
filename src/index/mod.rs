//! The index of a cache: where its entries live, and where a key leads. Searched by any number of readers without a lock.
//!
//! A table has one writer at a time, who holds its shard's lock, and any number of readers, who hold nothing. A reader
//! finds an entry or does not. What it does not find may have been moved meanwhile, or be about to come in the place of
//! another: a version of the table tells, and whoever cannot be sure looks again under the lock ([`read`]). That leaves one
//! danger, that a reader looks at memory which somebody has freed, and one rule against it:
//!
//! - a reader publishes what it is about to look at ([`hazard`]), and then makes sure that it can still be reached;
//! - a writer makes memory unreachable, and somebody then makes sure that no reader has published it, before anybody frees
//!   it ([`limbo`]).
//!
//! Whichever comes second sees the other ([`barrier`]).
//!
//! # What there is
//!
//! - A [`Table`]'s buckets, one allocation with the tags and addresses of the entries ([`lines`]). While a table grows
//!   there are two of them, of which the newer leads to the older.
//! - Slots, which hold an entry each, with a count of its [`Handle`]s ([`pool`]). They are parts of chunks that stay as
//!   long as the index or any entry does. To *free* an entry is to drop it, and have its slot hold another.
//!
//! An entry is freed when its count comes to zero. A table has a count of each of its entries, an [`Unlinked`] has it
//! after that, and then limbo, which gives it up once it is proven that nobody looks. So an entry that is in a table, or
//! that a reader may look at, is not freed; and a reader that looks at one may add to its count.
//!
//! # Why what a reader looks at is not freed
//!
//! Let a reader look at X: it has
//!
//! 1. read the address of X in some place: of a table's buckets in its root, or in the newer buckets; of an entry in a
//!    bucket,
//! 2. published the address,
//! 3. passed its side of the barrier,
//! 4. read the same place again, and found the address of X there.
//!
//! Let a prover take X for one at which nobody looks: somebody has
//!
//! 5. removed the address of X from all places,
//! 6. put X on a list of its pool, under the pool's lock, after 5 in its own order,
//!
//! and the prover has
//!
//! 7. taken X from that list, under the same lock,
//! 8. passed its side of the barrier,
//! 9. looked at all that is published, and not found the address of X.
//!
//! Of the barriers, either 3 comes before 8 or 8 comes before 3.
//!
//! - **3 before 8:** what was stored before the one is seen by what is loaded after the other, so 9 sees what 2 has
//!   published, or a later state of the same hazard, which is one more store of the same thread. Not X by assumption, so
//!   the reader had let go of X, by a store that is a Release and that the load in 9, an Acquire, has seen: all that the
//!   reader did with X happened before the proof, and so before X is freed.
//! - **8 before 3:** 5 comes before 8, by 6 and 7, so 4 sees the place without X, or a later state of it. Not without X
//!   by assumption, so its address has been put there again. That is done with an address that is a live X's (below),
//!   so what the reader looks at is that, whatever it was when the reader began, and this proof is not about it.
//!
//! In the kind of barrier for which readers pay nothing, 3 is there in the end all the same: the kernel has each thread
//! pass one at some moment during 8, and the compiler keeps 2 before 4. If that moment is before 2, then 4 is after 8; if
//! it is after 2, then 9 sees what 2 has published.
//!
//! What remains is that a place with X's address says that X is alive, and has been made, as far as the reader can see:
//!
//! - *An entry in a bucket.* The writer stores its address there with a Release, which 4 pairs with as an Acquire, and the
//!   entry was made before. It is in at most one bucket for longer than the writer takes to move it, and is removed from
//!   there before 6. Its slot may have held others before, and readers may have published the address for their sake:
//!   then they find this one in 4, and ask whether it is the one they look for.
//! - *A reader in buckets that were replaced.* It may go on in them, since it has published their address. It finds
//!   what is there, or, as entries are moved and removed from there by the same writer as ever, nothing.
//! - *The root's buckets.* Replaced in the root before 6.
//! - *The older buckets,* to which the newer lead. The writer empties the place that leads there before 6, and never puts
//!   another address into it: so that 4 finds it says that they had not been replaced, even if the newer ones themselves
//!   have been meanwhile, and are only kept for this reader.
//! - *An entry that is put into a table once more,* after it was removed: its count then is another, which is given up
//!   after a proof of its own. Each reader that looks at it has found it in one of the two times, and keeps one of the two
//!   counts from being given up.
//! - *A thread that begins to read during 9.* Its record is found, or was made later than 9 looked; then its 4 is after 8.
//! - *A thread that ends within a read.* Its record is not given to another, and what it looked at is never freed.
//!
//! What a reader keeps from being freed is the one entry and the two tables it has published, however long it looks at
//! them, and nothing else. What waits is bounded by the number of threads and the limits of `limbo`, unless the kernel
//! refuses the barrier that it has promised: then nothing is known of the readers, and all that leaves has to wait.
//!
//! # What there is beside readers
//!
//! Handles are counted as `Arc`s are. [`Resident`]s borrow the table, and with it the writer's right to remove anything.
//! Pools end when neither index nor table nor any entry is left. No lock is held while an entry is dropped, or anything
//! else foreign runs; except that a writer compares keys under its own.
//!
//! This is the only module with unsafe code, since no safe owner fits: who may free an entry is decided by who looks at
//! it. What it hands out is safe: [`Table`], the writer's side, and [`Index`], the readers'.

#![allow(unsafe_code, reason = "readers look at entries without a lock and without a count of references")]

mod barrier;
mod handle;
mod hazard;
mod limbo;
mod lines;
mod pool;
mod read;
mod table;

#[cfg(all(test, larder_loom))]
mod model;
#[cfg(all(test, not(larder_loom)))]
mod tests;

pub(crate) use self::handle::Handle;
pub(crate) use self::hazard::Reader;
pub(crate) use self::limbo::Unlinked;
pub(crate) use self::read::{Hit, Index, Missed};
pub(crate) use self::table::{Resident, Table};

/// What an index holds.
pub(crate) trait Indexed {
    /// Returns the hash of the key. One that changes makes its entry impossible to find, and nothing worse.
    fn hash(&self) -> u64;

    /// Returns what the entry counts against the capacity: so much less may wait to be dropped.
    fn weight(&self) -> u64;
}

/// Where a shard keeps an entry: a small number, used again once the entry is gone. Below 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(u32);

impl Seat {
    /// Returns the seat of this number, which must be below 2^31.
    #[inline]
    pub(crate) fn from_index(index: usize) -> Seat {
        debug_assert!(index < 1 << 31);
        Seat(index as u32)
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
