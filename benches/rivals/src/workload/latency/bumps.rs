//! The other thread invalidates groups that the hot keys are not in: a storm that should not concern them.
//!
//! After each invalidation the thread puts one member of the group back, so that none is ever hit while it is empty. The
//! storm has a pace, the same for all: what it costs to invalidate differs by orders of magnitude, and so would the number
//! of invalidations. larder takes part a second time, without pause.
//!
//! A cache without groups does the nearest thing that it offers, by a predicate that looks into the values: moka's
//! `invalidate_entries_if`, quick_cache's `retain`. foyer's memory tier offers nothing, and is left out.

use std::{
    hint,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Latency, Tail, beside, compare, hot_keys, insert_hot, time_hits};
use crate::{
    contestants::{EnlistGrouped, Group, Grouped, Key, every_grouped},
    effort::Effort,
    random::scatter,
    rotation::Lane,
};

const CAPACITY: usize = 10_000;
const GROUPS: Group = 100;
/// Members of each group at the start: half of the cache, so that a cache of shards has room for all of them.
const MEMBERS: u64 = (CAPACITY / 2) as u64 / GROUPS as u64;
/// From one invalidation to the next: ten thousand in a second.
const PACE: Duration = Duration::from_micros(100);

struct UnderBumps {
    keys: Arc<Vec<Key>>,
    pace: Duration,
}

pub(super) fn measure(effort: &Effort) -> Latency {
    let keys = Arc::new(hot_keys(effort));
    let storm = UnderBumps { keys: Arc::clone(&keys), pace: PACE };
    #[cfg(feature = "larder")]
    let without_pause = UnderBumps { keys, pace: Duration::ZERO };
    let series = compare(effort, || {
        #[cfg_attr(not(feature = "larder"), expect(unused_mut, reason = "larder alone takes part a second time"))]
        let mut lanes = every_grouped(&storm);
        #[cfg(feature = "larder")]
        lanes.push(Lane { name: "larder, no pause", ..without_pause.enlist::<crate::contestants::Larder>() });
        lanes
    });
    Latency {
        under: "bumps",
        setting: format!("another thread invalidating other groups, one every {} µs", PACE.as_micros()),
        capacity: CAPACITY,
        series,
    }
}

impl EnlistGrouped for UnderBumps {
    type Entry = Lane<Tail>;

    fn enlist<C: Grouped>(&self) -> Self::Entry {
        let cache = C::new_grouped(CAPACITY);
        insert_hot(&cache);
        for group in 0..GROUPS {
            for member in 0..MEMBERS {
                cache.insert_into(group, key_of_member(group, member));
            }
        }
        cache.settle();
        let (keys, pace) = (Arc::clone(&self.keys), self.pace);
        let mut next = 0;
        let round = move || {
            let disturb = || {
                let due = Instant::now() + pace;
                let (group, member) = (next % u64::from(GROUPS), next / u64::from(GROUPS) % MEMBERS);
                let group = Group::try_from(group).expect("a remainder is below its divisor");
                next += 1;
                cache.invalidate(group);
                cache.insert_into(group, key_of_member(group, member));
                while Instant::now() < due {
                    hint::spin_loop();
                }
            };
            beside(disturb, || time_hits(&cache, keys.iter().copied()))
        };
        Lane { name: C::NAME, round: Box::new(round) }
    }
}

/// Apart from the hot keys, which number from 1 before they are scattered.
fn key_of_member(group: Group, member: u64) -> Key {
    scatter(((u64::from(group) + 1) << 32) + member)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct InvalidateOne;

    impl EnlistGrouped for InvalidateOne {
        type Entry = ();

        fn enlist<C: Grouped>(&self) {
            let cache = C::new_grouped(CAPACITY);
            insert_hot(&cache);
            cache.insert_into(0, key_of_member(0, 0));
            cache.insert_into(1, key_of_member(1, 0));
            cache.invalidate(0);
            assert_eq!(cache.get(key_of_member(0, 0)), None, "{}", C::NAME);
            assert_eq!(cache.get(key_of_member(1, 0)), Some(1), "{}", C::NAME);
            assert!((0..super::super::HOT).all(|rank| cache.get(crate::zipf::key_of_rank(rank)) == Some(1)));
            cache.insert_into(0, key_of_member(0, 0));
            assert_eq!(cache.get(key_of_member(0, 0)), Some(1), "{} takes it back", C::NAME);
        }
    }

    #[test]
    fn an_invalidation_concerns_its_group_alone() {
        every_grouped(&InvalidateOne);
    }
}
