//! What an operation takes out of shards.

use crate::entry::Entry;
use crate::flight::Flight;
use crate::index::Unlinked;
use crate::stats::RemovalCause;
use crate::sync::Arc;

/// An entry that left, and why.
type Left<K, V> = (Unlinked<Entry<K, V>>, RemovalCause);

/// What an operation took out of shards, to be told of and dropped once no lock is held.
///
/// As a rule one entry, for which there is a place, and no flight: so an insert that evicts allocates nothing for it.
#[derive(Debug)]
pub(crate) struct Leaving<K, V> {
    first: Option<Left<K, V>>,
    others: Option<Box<Others<K, V>>>,
}

/// What leaves beside the first entry.
#[derive(Debug)]
struct Others<K, V> {
    entries: Vec<Left<K, V>>,
    flights: Vec<Arc<Flight<K, V>>>,
}

impl<K, V> Default for Leaving<K, V> {
    #[inline]
    fn default() -> Self {
        Leaving { first: None, others: None }
    }
}

impl<K, V> Leaving<K, V> {
    /// Adds an entry, which leaves for this cause.
    #[inline]
    pub(crate) fn push(&mut self, entry: Unlinked<Entry<K, V>>, cause: RemovalCause) {
        if self.first.is_none() {
            self.first = Some((entry, cause));
        } else {
            self.others().entries.push((entry, cause));
        }
    }

    /// Adds a flight.
    #[cold]
    pub(crate) fn push_flight(&mut self, flight: Arc<Flight<K, V>>) {
        self.others().flights.push(flight);
    }

    /// Returns the flights.
    #[inline]
    pub(crate) fn flights(&self) -> &[Arc<Flight<K, V>>] {
        self.others.as_ref().map_or(&[], |others| &others.flights)
    }

    /// Hands the entries over, in the order in which they left, and drops the flights after them.
    // Always, since it is called where an insert ends, and hands over what has been pushed there.
    #[inline(always)]
    pub(crate) fn hand_over(&mut self, mut to: impl FnMut(Unlinked<Entry<K, V>>, RemovalCause)) {
        if let Some((entry, cause)) = self.first.take() {
            to(entry, cause);
        }
        if let Some(others) = self.others.take() {
            others.hand_over(to);
        }
    }

    #[cold]
    fn others(&mut self) -> &mut Others<K, V> {
        self.others.get_or_insert_with(|| Box::new(Others { entries: Vec::new(), flights: Vec::new() }))
    }
}

impl<K, V> Others<K, V> {
    #[cold]
    fn hand_over(self, mut to: impl FnMut(Unlinked<Entry<K, V>>, RemovalCause)) {
        self.entries.into_iter().for_each(|(entry, cause)| to(entry, cause));
    }
}
