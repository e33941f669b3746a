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
    others: Vec<Left<K, V>>,
    pub(crate) flights: Vec<Arc<Flight<K, V>>>,
}

impl<K, V> Default for Leaving<K, V> {
    #[inline]
    fn default() -> Self {
        Leaving { first: None, others: Vec::new(), flights: Vec::new() }
    }
}

impl<K, V> Leaving<K, V> {
    /// Adds an entry, which leaves for this cause.
    #[inline]
    pub(crate) fn push(&mut self, entry: Unlinked<Entry<K, V>>, cause: RemovalCause) {
        if self.first.is_none() {
            self.first = Some((entry, cause));
        } else {
            self.others.push((entry, cause));
        }
    }

    /// Hands the entries over, in the order in which they left.
    #[inline]
    pub(crate) fn hand_over(&mut self, mut to: impl FnMut(Unlinked<Entry<K, V>>, RemovalCause)) {
        if let Some((entry, cause)) = self.first.take() {
            to(entry, cause);
        }
        if !self.others.is_empty() {
            std::mem::take(&mut self.others).into_iter().for_each(|(entry, cause)| to(entry, cause));
        }
    }
}
