//! The leases of other processes that keep this one from loading, and which of them it has waited for in vain.
//!
//! Whoever finds a key leased asks again for a while, and then loads for itself. A lease may stand for its whole term although
//! nobody fills the key: its holder has vanished, or the reply that would have said who won it was lost. So that not every caller
//! waits for such a one, only the first has to: once it has given up on this very lease, all others of the process load at
//! once. A lease of another version is another's, and is waited for.

use std::time::{Duration, Instant};

use crate::clock::real;
use crate::remote::tier::Cas;
use crate::sync::Mutex;

/// How many leases are remembered, 40 bytes each: many more than the loads of one cache that other processes have left hanging
/// at a time. Of two whose keys share a place the later is remembered, and the other is waited for once more.
const PLACES: usize = 1_024;

/// The leases of other processes that the callers of one cache have come upon. Empty until there is one.
#[derive(Default)]
pub(super) struct Sightings(Mutex<Vec<Option<Sighting>>>);

#[derive(Clone, Copy)]
struct Sighting {
    fingerprint: u64,
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
        let first = Sighting { fingerprint, cas: cas.value, since: real::now(), is_given_up: false };
        let mut places = self.0.lock();
        if places.is_empty() {
            places.resize(PLACES, None);
        }
        let sighting = places[fingerprint as usize % PLACES].get_or_insert(first);
        if (sighting.fingerprint, sighting.cas) != (fingerprint, cas.value) {
            *sighting = first;
        }
        look(sighting)
    }
}
