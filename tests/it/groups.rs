//! Groups: several an entry, shared between caches, short-lived names, and bumps whose cost does not depend on their size.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use larder::{Cache, EntryOptions, Fill, Groups, Lookup};

use crate::scene::{roomy, together};

fn within(groups: &[&str]) -> EntryOptions {
    EntryOptions::new().groups(groups)
}

#[test]
fn an_entry_dies_with_any_of_its_groups_and_with_no_other() {
    let cache = roomy().0.build().unwrap();
    for (key, groups) in [(0, &[][..]), (1, &["a"]), (2, &["b"]), (3, &["a", "b"]), (4, &["a", "b", "c", "a"])] {
        cache.insert_with(key, key, within(groups)).unwrap();
    }
    assert_eq!(cache.inspect(&4).unwrap().groups, ["a", "b", "c"]);
    cache.invalidate_group("unknown");
    cache.expire_group("b");
    let fresh = |key: u32| matches!(cache.lookup(&key), Lookup::Fresh(_));
    assert_eq!([0, 1, 2, 3, 4].map(fresh), [true, true, false, false, false]);
    assert_eq!(cache.get_many(&[0, 1, 2, 3, 4]), [0, 1, 2, 3, 4].map(Some));
    cache.invalidate_group("c");
    assert_eq!(cache.get_many(&[0, 1, 2, 3, 4]), [Some(0), Some(1), Some(2), Some(3), None]);
    cache.invalidate_groups(["a", "b"]);
    assert_eq!(cache.get_many(&[0, 1, 2, 3, 4]), [Some(0), None, None, None, None]);
    cache.insert_with(1, 1, within(&["a"])).unwrap();
    assert_eq!(cache.get(&1), Some(1), "what comes after the bump is alive");
}

#[test]
fn a_dead_entry_does_not_come_back_by_an_expiration() {
    let cache = roomy().0.build().unwrap();
    cache.insert_with(1, 1, within(&["a"])).unwrap();
    cache.invalidate_group("a");
    cache.expire_group("a");
    assert!(!cache.expire(&1));
    assert_eq!((cache.get(&1), cache.update(&1, |value| value + 1), cache.remove(&1)), (None, None, None));
}

#[test]
fn caches_share_a_registry_and_nothing_else() {
    let groups = Groups::new();
    let caches: Vec<Cache<u32, u32>> = (0..2).map(|_| roomy().0.groups(groups.clone()).build().unwrap()).collect();
    let apart: Cache<u32, u32> = roomy().0.build().unwrap();
    let fill = || caches.iter().chain([&apart]).for_each(|cache| cache.insert_with(1, 1, within(&["a"])).unwrap());
    let found = || (caches[0].get(&1), caches[1].get(&1), apart.get(&1));
    fill();
    caches[0].invalidate_group("a");
    assert_eq!(found(), (None, None, Some(1)));
    fill();
    caches[0].clear();
    assert_eq!(found(), (None, Some(1), Some(1)));
    fill();
    groups.clear();
    assert_eq!(found(), (None, None, Some(1)));
    fill();
    groups.invalidate("a");
    assert_eq!(found(), (None, None, Some(1)));
    let Lookup::Vacant(claim) = caches[0].lookup(&2) else { panic!("2 is vacant") };
    caches[1].invalidate_group("late");
    assert_eq!(claim.fill_with(5, within(&["late"])), Fill::Fenced(5));
}

#[test]
fn a_million_short_lived_names_leave_nothing_behind() {
    let groups = Groups::new();
    let cache: Cache<u32, u32> = Cache::builder().capacity(100).groups(groups.clone()).build().unwrap();
    for number in 0..1_000_000_u32 {
        let options = EntryOptions::new().groups([number.to_string()]);
        cache.insert_with(number, number, options).unwrap();
        if number % 10_000 == 0 {
            // Those of the entries, and of some that have left and wait to be dropped.
            assert!(groups.len() <= 200, "{} names for 100 entries", groups.len());
        }
    }
    cache.run_maintenance();
    assert_eq!(groups.len(), 100);
    (0..10_000_u32).for_each(|number| cache.invalidate_group(&format!("never seen {number}")));
    assert_eq!(groups.len(), 100, "a bump makes no name");
    cache.clear();
    cache.run_maintenance();
    assert!(groups.is_empty());
}

#[test]
fn names_may_be_empty_long_or_strange() {
    let cache = roomy().0.build().unwrap();
    let names = [String::new(), "x".repeat(1 << 20), "\0".into(), "ä:\n".into()];
    for (key, name) in (0..).zip(&names) {
        cache.insert_with(key, key, EntryOptions::new().groups([name])).unwrap();
    }
    for (key, name) in (0..).zip(&names) {
        cache.invalidate_group(name);
        assert_eq!(cache.iter().count(), 3 - key as usize);
    }
}

/// A bump of a group of a thousand does the work of a bump of a group of one: neither looks at an entry. The time is
/// printed, not judged.
#[test]
fn a_bump_does_not_look_at_the_entries_of_its_group() {
    let cache: Cache<u32, u32> = Cache::builder().capacity(1_000_000).build().unwrap();
    for key in 0..1_000_000 {
        let options = match key {
            0..1_000 => within(&["thousand"]),
            1_000 => within(&["one"]),
            _ => EntryOptions::new(),
        };
        cache.insert_with(key, key, options).unwrap();
    }
    let before = (cache.stats(), cache.len());
    let mut took = Vec::new();
    for group in ["one", "thousand"] {
        let start = Instant::now();
        cache.invalidate_group(group);
        took.push(start.elapsed());
    }
    assert_eq!((cache.stats(), cache.len()), before, "a bump reclaims nothing and touches nothing");
    assert!((0..=1_000).all(|key| !cache.contains(&key)));
    assert!((1_001..1_000_000).all(|key| cache.contains(&key)));
    cache.run_maintenance();
    assert_eq!((cache.len(), cache.stats().invalidations), (1_000_000 - 1_001, 1_001));
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("a bump of a group of 1: {:?}, of 1,000: {:?}\n", took[0], took[1]),
    );
}

/// A group is bumped, and the dead are swept, while an entry of the group is on its way in: it comes dead, and no later bump
/// tells the sweep of it.
#[test]
fn an_entry_that_comes_dead_is_reclaimed() {
    let handle = Arc::new(OnceLock::<Cache<u32, u32>>::new());
    let weigher = {
        let handle = handle.clone();
        move |_: &u32, value: &u32| {
            if *value == 7 {
                let cache = handle.get().unwrap();
                cache.invalidate_group("g");
                cache.run_maintenance();
            }
            1
        }
    };
    let cache = Cache::builder().capacity(10).shards(1).weigher(weigher).build().unwrap();
    handle.set(cache.clone()).unwrap();
    cache.insert_with(1, 1, within(&["g"])).unwrap();
    cache.insert_with(2, 7, within(&["g"])).unwrap();
    assert_eq!(cache.get(&2), None);
    cache.run_maintenance();
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

#[test]
fn bumps_and_fills_of_one_group_from_many_threads_agree_in_the_end() {
    let groups = Groups::new();
    let cache: Cache<u32, u32> = Cache::builder().capacity(1_000).groups(groups.clone()).build().unwrap();
    together(4, |thread| {
        for round in 0..5_000_u32 {
            let name = (round % 7).to_string();
            match thread {
                0 => cache.invalidate_group(&name),
                1 => cache.expire_group(&name),
                _ => {
                    cache.insert_with(round % 50, round, EntryOptions::new().groups([&name])).unwrap();
                    cache.remove(&(round % 13));
                }
            }
        }
    });
    (0..7).for_each(|name: u32| cache.invalidate_group(&name.to_string()));
    assert_eq!(cache.iter().count(), 0);
    cache.run_maintenance();
    assert_eq!((cache.len(), groups.len()), (0, 0));
}
