//! The caches under comparison, behind one trait.
//!
//! Each has its default hasher and, unless its file says otherwise, default settings: what a user gets who reads no
//! further than the first example. Every measured loop is compiled once per contestant; nothing virtual is timed.

mod foyer;
#[cfg(feature = "larder")]
mod larder;
mod moka;
mod quick_cache;

use std::{ops::Range, sync::Arc};

#[cfg(feature = "larder")]
pub(crate) use larder::Larder;

pub(crate) type Key = u64;
pub(crate) type Value = Arc<[u8]>;

const VALUE_BYTES: usize = 64;
/// Where the value of a group's member has [`MEMBER`] and the group; other values have ones.
const MEMBERSHIP: Range<usize> = 1..3;
const MEMBER: u8 = 2;

/// The package names of all contestants, as lock files have them.
pub(crate) const PACKAGES: &[&str] = &[
    "quick_cache",
    "moka",
    "foyer-memory",
    #[cfg(feature = "larder")]
    "larder",
];

pub(crate) trait Contestant: Sized + Send + Sync + 'static {
    const NAME: &'static str;

    /// An empty cache of at most `capacity` entries, each of weight 1.
    fn new(capacity: usize) -> Self;

    /// Looks `key` up in the way that the cache's documentation shows, reads the first byte of the value and lets go
    /// of it. `None` is a miss.
    fn get(&self, key: Key) -> Option<u8>;

    fn insert(&self, key: Key, value: Value);

    /// Carries out what earlier calls have put off, so that the cache stands as if they had done their work at once.
    fn settle(&self) {}

    /// How many entries the cache holds, those included that its own count leaves out. May walk through all of them.
    fn resident(&self) -> usize;
}

/// Numbers the groups of a workload from 0.
pub(crate) type Group = u8;

/// A cache that can drop all entries of a group at once, or by its nearest means.
pub(crate) trait Grouped: Contestant {
    /// As [`Contestant::new`], with whatever has to be switched on.
    fn new_grouped(capacity: usize) -> Self {
        Self::new(capacity)
    }

    /// Inserts a value of its own allocation that is a member of `group`.
    fn insert_into(&self, group: Group, key: Key);

    /// From here on, no member of `group` that was inserted before is found.
    fn invalidate(&self, group: Group);
}

/// Makes one entry, such as a lane of a race, out of any contestant's type.
pub(crate) trait Enlist {
    type Entry;

    fn enlist<C: Contestant>(&self) -> Self::Entry;
}

/// The same out of the type of any that is [`Grouped`].
pub(crate) trait EnlistGrouped {
    type Entry;

    fn enlist<C: Grouped>(&self) -> Self::Entry;
}

/// One entry per cache. The first is the yardstick of every ratio.
pub(crate) fn every_cache<E: Enlist>(event: &E) -> Vec<E::Entry> {
    vec![
        event.enlist::<quick_cache::QuickCache>(),
        event.enlist::<moka::Moka>(),
        event.enlist::<foyer::Foyer>(),
        event.enlist::<foyer::FoyerS3Fifo>(),
        #[cfg(feature = "larder")]
        event.enlist::<larder::Larder>(),
    ]
}

/// One entry per way to look up, where a cache has several. The first is the yardstick of every ratio.
pub(crate) fn every_lookup<E: Enlist>(event: &E) -> Vec<E::Entry> {
    #[cfg_attr(not(feature = "larder"), expect(unused_mut, reason = "only larder has a second way to look up"))]
    let mut entries = every_cache(event);
    #[cfg(feature = "larder")]
    entries.push(event.enlist::<larder::LarderWith>());
    entries
}

/// One entry per policy, where a cache's depends on how it is driven.
pub(crate) fn every_policy<E: Enlist>(event: &E) -> Vec<E::Entry> {
    let mut entries = every_cache(event);
    entries.insert(2, event.enlist::<moka::MokaSettled>());
    entries
}

/// One entry per cache that can invalidate a group, and per way to look up. The first is the yardstick of every ratio.
pub(crate) fn every_grouped<E: EnlistGrouped>(event: &E) -> Vec<E::Entry> {
    vec![
        event.enlist::<quick_cache::QuickCache>(),
        event.enlist::<moka::Moka>(),
        #[cfg(feature = "larder")]
        event.enlist::<larder::Larder>(),
        #[cfg(feature = "larder")]
        event.enlist::<larder::LarderWith>(),
    ]
}

/// A value of its own allocation, so that no two entries share a reference count.
pub(crate) fn fresh_value() -> Value {
    Arc::from([1; VALUE_BYTES])
}

/// A fresh value whose bytes tell its group, for caches that have to look there.
fn member_value(group: Group) -> Value {
    let mut bytes = [1; VALUE_BYTES];
    [bytes[MEMBERSHIP.start], bytes[MEMBERSHIP.start + 1]] = [MEMBER, group];
    Arc::from(bytes)
}

fn is_member(value: &Value, group: Group) -> bool {
    value[MEMBERSHIP] == [MEMBER, group]
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Check<F>(F);

    trait Probe {
        fn probe<C: Contestant>(&self);
    }

    impl<P: Probe> Enlist for Check<P> {
        type Entry = ();

        fn enlist<C: Contestant>(&self) {
            self.0.probe::<C>();
        }
    }

    #[test]
    fn what_was_inserted_is_found() {
        struct FillAndRead;
        impl Probe for FillAndRead {
            fn probe<C: Contestant>(&self) {
                let cache = C::new(1000);
                for key in 0..500 {
                    cache.insert(key, fresh_value());
                }
                cache.settle();
                assert_eq!(cache.resident(), 500, "{}", C::NAME);
                assert!((0..500).all(|key| cache.get(key) == Some(1)), "{}", C::NAME);
                assert_eq!(cache.get(500), None, "{}", C::NAME);
            }
        }
        every_lookup(&Check(FillAndRead));
        every_policy(&Check(FillAndRead));
    }

    #[test]
    fn capacity_is_kept() {
        struct Overfill;
        impl Probe for Overfill {
            fn probe<C: Contestant>(&self) {
                // A capacity that shards divide evenly: one of the caches rounds every shard up.
                let cache = C::new(1024);
                for key in 0..10_000 {
                    cache.insert(key, fresh_value());
                }
                cache.settle();
                assert!((900..=1024).contains(&cache.resident()), "{} holds {}", C::NAME, cache.resident());
            }
        }
        every_lookup(&Check(Overfill));
        every_policy(&Check(Overfill));
    }
}
