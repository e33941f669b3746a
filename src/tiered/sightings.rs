//! The leases of other processes that keep this one from loading, and which of them it has waited for in vain.
//!
//! Whoever finds a key leased asks again for a while, and then loads for itself. A lease may stand for its whole term although
//! nobody fills the key: its holder has vanished, or the reply that would have said who won it was lost. So that not every caller
//! waits for such a one, only the first has to: once it has given up on this very lease, all others of the process load at
//! once. A lease of another version is another's, and is waited for.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

use crate::clock::real;
use crate::remote::tier::Cas;
use crate::sync::Mutex;

/// How many keys are remembered in each half of the list, 40 bytes each: many more in both than the loads of one cache that other
/// processes have left hanging at a time. Of more, those that nobody has asked for the longest are waited for once more.
const MAX_PER_HALF: usize = 1_024;

/// The leases of other processes that the callers of one cache have come upon. Empty until there is one.
#[derive(Default)]
pub(super) struct Sightings(Mutex<Halves>);

/// By their keys' fingerprints. Whoever is asked for comes to the young half, which takes the old one's place when it is full.
#[derive(Default)]
struct Halves {
    young: HashMap<u64, Sighting, ahash::RandomState>,
    old: HashMap<u64, Sighting, ahash::RandomState>,
}

#[derive(Clone, Copy)]
struct Sighting {
    /// Without its connection: it is one number on all of them. After a restart, a server may give the same one to another lease
    /// of the key, which is then not waited for: a load too many, and nothing worse.
    cas: u64,
    since: Instant,
    is_given_up: bool,
}

impl Sightings {
    /// Notes that a key was found to be leased, and returns whether a caller has given up on this lease.
    pub(super) fn is_given_up(&self, fingerprint: u64, cas: Cas) -> bool {
        self.see(fingerprint, cas, |sighting| sighting.is_given_up)
    }

    /// Gives up on the lease of a key, if it has been known here for as long as `patience`: a caller may have waited for others
    /// that came before it.
    pub(super) fn give_up(&self, fingerprint: u64, cas: Cas, patience: Duration) {
        let now = real::now();
        self.see(fingerprint, cas, |sighting| {
            sighting.is_given_up |= now.saturating_duration_since(sighting.since) >= patience;
        });
    }

    fn see<R>(&self, fingerprint: u64, cas: Cas, look: impl FnOnce(&mut Sighting) -> R) -> R {
        let first = Sighting { cas: cas.value, since: real::now(), is_given_up: false };
        let Halves { young, old } = &mut *self.0.lock();
        if !young.contains_key(&fingerprint) {
            let known = old.remove(&fingerprint).unwrap_or(first);
            if young.len() >= MAX_PER_HALF {
                *old = mem::take(young);
            }
            young.insert(fingerprint, known);
        }
        let sighting = young.entry(fingerprint).or_insert(first);
        if sighting.cas != cas.value {
            *sighting = first;
        }
        look(sighting)
    }
}
