//! Hazards: what readers look at just now, published so that nobody frees it.
//!
//! Each thread that reads has a *record* to itself, of [`DEPTH`] hazards; each read uses one. Records are never freed, only
//! handed on to the next thread, so there are as many as there were readers at one time.

use std::cell::Cell;
use std::marker::PhantomData;

use smallvec::SmallVec;

use super::barrier::{self, Kind};
use crate::sync::model::AtomicPtr;
use crate::sync::{AtomicBool, OnceLock, Ordering, Padded, thread_local};

/// How many reads of one thread may be under way at a time: one within a `Clone`, an `Eq` or a closure that another one
/// runs, and so on. Deeper ones take the lock. With its neighbours a record fills the cache lines that it has to itself.
pub(super) const DEPTH: usize = 4;

/// All records that the readers of some tables use.
#[derive(Debug)]
pub(super) struct Domain {
    first: OnceLock<&'static Padded<Record>>,
    /// Has heavy barriers fail, as where the kernel refuses them.
    #[cfg(test)]
    pub(super) refuses: AtomicBool,
}

/// What one thread looks at.
#[derive(Debug)]
pub(super) struct Record {
    hazards: [Hazard; DEPTH],
    kind: Kind,
    /// How many records came before it.
    number: usize,
    /// Whether a thread owns it.
    taken: AtomicBool,
    next: OnceLock<&'static Padded<Record>>,
}

/// What one read looks at. Free where neither `table` nor `entry` is set.
///
/// All three are written by the record's owner alone, and every store is a Release: it pairs with the Acquire in
/// [`Domain::published`]. Whoever sees that something is published no more also sees all that was done with it.
#[derive(Debug)]
pub(super) struct Hazard {
    table: AtomicPtr<()>,
    previous: AtomicPtr<()>,
    entry: AtomicPtr<()>,
}

/// A thread that may read. Not to be kept beyond what one of its operations takes: after the thread's end another has its
/// place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    record: &'static Record,
    thread: PhantomData<*const ()>,
}

/// A read under way. Ends on the thread that began it, and lets go of table and entry unless it was told to
/// [hold](Read::hold) the entry.
pub(super) struct Read {
    hazard: &'static Hazard,
    kind: Kind,
    thread: PhantomData<*const ()>,
}

/// A look at a second table, for as long as it is published.
pub(super) struct Previous<'a>(&'a Read);

/// A look at an entry, for as long as it is published.
pub(super) struct Hold {
    hazard: &'static Hazard,
    thread: PhantomData<*const ()>,
}

/// Returns the records of this process.
#[cfg(not(larder_shuttle))]
pub(super) fn process() -> &'static Domain {
    static PROCESS: Domain = Domain::new();
    &PROCESS
}

/// Returns the records of one run, which leaves nothing to the next: else what the next one does would depend on it.
#[cfg(larder_shuttle)]
pub(super) fn process() -> &'static Domain {
    static PROCESS: crate::sync::Lazy<Domain> = crate::sync::Lazy::new(Domain::new);
    PROCESS.get()
}

thread_local! {
    /// Without a destructor, which would make every access check whether it has run.
    static MINE: Cell<Option<&'static Record>> = const { Cell::new(None) };
    static OWNED: Owned = Owned(process().join());
}

#[cold]
fn assign() -> Option<Reader> {
    let reader = OWNED.try_with(|owned| owned.0).ok();
    let _ = MINE.try_with(|mine| mine.set(reader.map(|reader| reader.record)));
    reader
}

/// Holds a thread's record until it ends.
struct Owned(Reader);

impl Drop for Owned {
    fn drop(&mut self) {
        // Reads in later destructors find no record, and take the lock.
        let _ = MINE.try_with(|mine| mine.set(None));
        self.0.leave();
    }
}

impl Domain {
    pub(super) const fn new() -> Domain {
        Domain {
            first: OnceLock::new(),
            #[cfg(test)]
            refuses: AtomicBool::new(false),
        }
    }

    /// Returns a reader that nobody else is, until it [leaves](Reader::leave).
    pub(super) fn join(&self) -> Reader {
        let mut next = &self.first;
        let mut number = 0;
        loop {
            let record = next.get_or_init(|| Box::leak(Box::new(Padded(Record::new(number)))));
            if record.take() {
                return Reader { record, thread: PhantomData };
            }
            next = &record.next;
            number += 1;
        }
    }

    /// Returns, in order, the addresses of everything that readers look at, and of which nobody else must decide that it can
    /// still be reached: so after a heavy barrier. Fails where there can be none.
    ///
    /// A record that joins meanwhile is published like a hazard: what it looks at is safe, or its reader will notice.
    pub(super) fn published(&self) -> Option<SmallVec<[usize; 16]>> {
        #[cfg(test)]
        if self.refuses.load(Ordering::Relaxed) {
            return None;
        }
        if !barrier::heavy(barrier::kind()) {
            return None;
        }
        let mut published = SmallVec::new();
        let mut next = &self.first;
        while let Some(record) = next.get() {
            for hazard in &record.hazards {
                let words = [&hazard.table, &hazard.previous, &hazard.entry];
                // Acquire pairs with the Release of every store to a hazard.
                let looked_at = words.map(|word| word.load(Ordering::Acquire).addr());
                published.extend(looked_at.into_iter().filter(|&address| address != 0));
            }
            next = &record.next;
        }
        published.sort_unstable();
        Some(published)
    }
}

impl Record {
    fn new(number: usize) -> Record {
        Record {
            hazards: std::array::from_fn(|_| Hazard::new()),
            kind: barrier::kind(),
            number,
            taken: AtomicBool::new(false),
            next: OnceLock::new(),
        }
    }

    fn take(&self) -> bool {
        // Acquire pairs with the Release in `leave`: the hazards are as the last owner left them, which is free.
        !self.taken.load(Ordering::Relaxed) && !self.taken.swap(true, Ordering::Acquire)
    }

    #[cold]
    fn nested(&'static self) -> Option<&'static Hazard> {
        self.hazards.iter().find(|hazard| hazard.is_free())
    }
}

impl Reader {
    /// Returns the calling thread; `None` while it is being torn down.
    #[inline]
    pub(crate) fn current() -> Option<Reader> {
        match MINE.try_with(Cell::get) {
            Ok(Some(record)) => Some(Reader { record, thread: PhantomData }),
            _ => assign(),
        }
    }

    /// Returns a small number that no other thread has as long as this one lives: from zero up, and used again.
    #[inline]
    pub(crate) fn number(self) -> usize {
        self.record.number
    }

    /// Hands the place on to the next thread; unless something is still looked at, by a thread that ends within a read: then
    /// nobody may have it.
    pub(super) fn leave(self) {
        if self.record.hazards.iter().all(Hazard::is_free) {
            self.record.taken.store(false, Ordering::Release);
        }
    }

    /// Begins a read by publishing the address of a table, which must not be null; `None` if too many are under way.
    ///
    /// What is at the address may be looked at if it can still be reached *after* this call.
    #[inline]
    pub(super) fn read(self, table: *mut ()) -> Option<Read> {
        let record = self.record;
        let hazard = if record.hazards[0].is_free() { &record.hazards[0] } else { record.nested()? };
        let read = Read { hazard, kind: record.kind, thread: PhantomData };
        read.publish(&hazard.table, table);
        Some(read)
    }
}

impl Read {
    #[inline]
    fn publish(&self, word: &AtomicPtr<()>, address: *mut ()) {
        word.store(address, Ordering::Release);
        barrier::light(self.kind);
    }

    /// Publishes the address of a second table, with the meaning that [`Reader::read`] has.
    pub(super) fn publish_previous(&self, table: *mut ()) -> Previous<'_> {
        self.publish(&self.hazard.previous, table);
        Previous(self)
    }

    /// Publishes the address of an entry in the place of the last one, with the meaning that [`Reader::read`] has.
    #[inline]
    pub(super) fn publish_entry(&self, entry: *mut ()) {
        self.publish(&self.hazard.entry, entry);
    }

    /// Goes on with the entry alone, which has been published.
    #[inline]
    pub(super) fn hold(self) -> Hold {
        let hazard = self.hazard;
        std::mem::forget(self);
        hazard.table.store(std::ptr::null_mut(), Ordering::Release);
        Hold { hazard, thread: PhantomData }
    }
}

impl Drop for Read {
    #[inline]
    fn drop(&mut self) {
        // The entry first, and the table, which keeps the hazard taken, last.
        self.hazard.entry.store(std::ptr::null_mut(), Ordering::Release);
        self.hazard.table.store(std::ptr::null_mut(), Ordering::Release);
    }
}

impl Drop for Previous<'_> {
    fn drop(&mut self) {
        self.0.hazard.previous.store(std::ptr::null_mut(), Ordering::Release);
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        self.hazard.entry.store(std::ptr::null_mut(), Ordering::Release);
    }
}

impl Hazard {
    fn new() -> Hazard {
        let nothing = || AtomicPtr::new(std::ptr::null_mut());
        Hazard { table: nothing(), previous: nothing(), entry: nothing() }
    }

    #[inline]
    fn is_free(&self) -> bool {
        // Relaxed: the thread that asks wrote them. Both at once, since each is set as a rule when the other is not.
        self.entry.load(Ordering::Relaxed).addr() | self.table.load(Ordering::Relaxed).addr() == 0
    }
}
