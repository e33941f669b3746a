//! The keys of a batch that one load sees to, and where their values belong.

use crate::claim::{Claim, Fallback};
use crate::flight::Joined;
use crate::sync::Arc;

/// Keys that a batch has claimed, and where the value of each belongs among its answers.
pub(crate) struct Claimed<K, V> {
    pub(crate) claims: Vec<(K, Claim<K, V>)>,
    pub(crate) places: Vec<Vec<usize>>,
}

/// Values, or their absence, with their places among the answers of a batch.
pub(crate) type Values<V> = Vec<(Vec<usize>, Option<V>)>;

/// The stale values that a batch has answers from, with their places among these.
pub(crate) type Fallbacks<K, V> = Vec<(usize, Fallback<K, V>)>;

impl<K, V> Default for Claimed<K, V> {
    fn default() -> Self {
        Claimed { claims: Vec::new(), places: Vec::new() }
    }
}

impl<K, V> Claimed<K, V> {
    pub(crate) fn push(&mut self, at: usize, key: K, claim: Claim<K, V>) {
        self.claims.push((key, claim));
        self.places.push(vec![at]);
    }

    /// Returns whether what a caller would wait for is one of these, whose value then belongs at `at` as well.
    pub(crate) fn is_joined(&mut self, joined: Option<&Joined<K, V>>, at: usize) -> bool {
        let Some(joined) = joined else { return false };
        let claim = self.claims.iter().position(|(_, claim)| Arc::ptr_eq(claim.flight(), &joined.flight));
        if let Some(claim) = claim {
            self.places[claim].push(at);
        }
        claim.is_some()
    }
}

impl<K: Eq, V: Clone> Claimed<K, V> {
    /// Returns the values that are to be refreshed, which have one place each: who asks again finds them claimed, and stale.
    pub(crate) fn fallbacks(&self) -> Fallbacks<K, V> {
        self.places.iter().zip(&self.claims).map(|(places, (_, claim))| (places[0], claim.fallback())).collect()
    }
}

/// Puts values where they belong. What has none stays as it is.
pub(crate) fn put<V: Clone>(answers: &mut [Option<V>], values: Values<V>) {
    for (places, value) in values.into_iter().filter(|(_, value)| value.is_some()) {
        places.into_iter().for_each(|at| answers[at] = value.clone());
    }
}
