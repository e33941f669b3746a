//! What each verb costs, in exchanges with the remote tier.

use std::convert::Infallible;

use larder::EntryOptions;

use super::gate::Kind::{self, Delete, MarkStale, Read, ReadToken, Write, WriteToken};
use super::{Pages, Stand, load, own};

/// Runs `verb`, and returns what its exchanges were about: each kind once.
fn cost(stand: &Stand, verb: impl FnOnce()) -> Vec<Vec<Kind>> {
    stand.gate.reset();
    verb();
    let mut log = stand.gate.log();
    log.iter_mut().for_each(Vec::dedup);
    stand.gate.reset();
    log
}

fn insert(pages: &Pages, key: &str) {
    assert!(pages.insert_with(own(key), own("1"), EntryOptions::new().groups(["g"])).is_through());
}

#[test]
fn every_verb_takes_as_many_exchanges_as_documented() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (pages, other) = (stand.process(&name), stand.bystander(&name));
        // The tokens of the roots and of the group come into being.
        insert(&other, "warm");

        let kind = stand.kind();
        assert_eq!(cost(&stand, || assert_eq!(pages.get("none"), None)), [[Read]], "get miss, {kind}");
        insert(&other, "a");
        assert_eq!(cost(&stand, || assert!(pages.get("a").is_some())), [[Read], [ReadToken]], "get hit, {kind}");
        assert!(cost(&stand, || assert!(pages.get("a").is_some())).is_empty(), "local hit, {kind}");
        let cold = cost(&stand, || assert_eq!(load(&pages, "b", "1", &[]), "1"));
        assert_eq!(cold, [[Read], [ReadToken], [Write]], "get_or_load, {kind}");
        let grouped = cost(&stand, || assert_eq!(load(&pages, "c", "1", &["g"]), "1"));
        assert_eq!(grouped, [[Read], [ReadToken], [ReadToken], [Write]], "get_or_load with a group, {kind}");
        let new_group = cost(&stand, || assert_eq!(load(&pages, "d", "1", &["new"]), "1"));
        assert_eq!(new_group, [[Read], [ReadToken], [ReadToken], [WriteToken], [Write]], "with a new group, {kind}");
        insert(&other, "e");
        let found = cost(&stand, || assert_eq!(load(&pages, "e", "2", &[]), "1"));
        assert_eq!(found, [[Read], [ReadToken]], "get_or_load that finds a value, {kind}");
        assert_eq!(cost(&stand, || insert(&pages, "f")), [[Read], [ReadToken], [Write]], "insert, {kind}");
        let add = || assert!(pages.add(own("g"), own("1")).is_stored());
        assert_eq!(cost(&stand, add), [[Read], [ReadToken], [Write]], "add, {kind}");
        insert(&other, "h");
        let add = || assert!(!pages.add(own("h"), own("2")).is_stored());
        assert_eq!(cost(&stand, add), [[Read], [ReadToken]], "add that finds a value, {kind}");
        assert_eq!(cost(&stand, || assert!(pages.remove("a").is_acknowledged())), [[Delete]], "remove, {kind}");
        let remove = || assert!(pages.remove_many(["a", "b", "c"]).is_acknowledged());
        assert_eq!(cost(&stand, remove), [[Delete]], "remove_many, {kind}");
        assert_eq!(cost(&stand, || assert!(pages.expire("e").is_acknowledged())), [[MarkStale]], "expire, {kind}");
        for bump in [Pages::invalidate_group, Pages::expire_group] {
            assert_eq!(cost(&stand, || assert!(bump(&pages, "g").is_acknowledged())), [[WriteToken]], "bump, {kind}");
        }
        let bump = || assert!(pages.invalidate_groups(["g", "h", "i"]).is_acknowledged());
        assert_eq!(cost(&stand, bump), [[WriteToken]], "invalidate_groups, {kind}");
        assert_eq!(cost(&stand, || assert!(pages.clear().is_acknowledged())), [[WriteToken]], "clear, {kind}");
    }
}

#[test]
fn a_batch_takes_as_many_exchanges_as_one() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (pages, other) = (stand.process(&name), stand.bystander(&name));
        insert(&other, "warm");
        let keys: Vec<String> = (0..500).map(|number| format!("key {number}")).collect();
        let pairs = || keys.iter().map(|key| (key.clone(), format!("value of {key}")));
        let written = cost(&stand, || {
            let writes = pages.insert_many(pairs());
            assert_eq!(writes.len(), 500);
            assert!(writes.iter().all(larder::Write::is_through));
        });
        assert_eq!(written, [[Read], [ReadToken], [Write]], "insert_many, {}", stand.kind());
        let reader = stand.process(&name);
        let read = cost(&stand, || {
            let values = reader.get_many(keys.iter().map(String::as_str).chain(["none", "key 3"]));
            assert!(values[..500].iter().zip(pairs()).all(|(value, (_, given))| value.as_ref() == Some(&given)));
            assert_eq!(values[500], None);
            assert_eq!(values[501].as_deref(), Some("value of key 3"));
        });
        assert_eq!(read, [[Read], [ReadToken]], "get_many, {}", stand.kind());
        assert_eq!(reader.local().len(), 500);
    }
}

#[test]
fn a_refresh_asks_for_the_tokens_of_the_old_groups_before_it_loads() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (pages, other) = (stand.process(&name), stand.bystander(&name));
    insert(&other, "k");
    assert!(other.expire_group("g").is_acknowledged());
    let refreshed = cost(&stand, || {
        let loaded = pages.get_or_load("k", |load| {
            assert_eq!(load.stale().map(String::as_str), Some("1"));
            load.groups(["g"]);
            Ok::<_, Infallible>(own("2"))
        });
        assert_eq!(loaded.unwrap(), "2");
    });
    assert_eq!(refreshed, [[Read], [ReadToken], [ReadToken], [Write]]);
}

/// Each write would otherwise void the version that the next one was to replace, until the attempts are used up.
#[test]
fn of_pairs_with_one_key_the_last_is_stored_in_both_tiers() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (pages, other) = (stand.process(&name), stand.bystander(&name));
        insert(&other, "warm");
        let pairs = (0..20).flat_map(|number| [("k", number), ("l", 100 + number)]);
        let written = cost(&stand, || {
            let writes = pages.insert_many(pairs.map(|(key, number)| (own(key), number.to_string())));
            assert_eq!(writes.len(), 40);
            assert!(writes.iter().all(larder::Write::is_through), "{}", stand.kind());
        });
        assert_eq!(written, [[Read], [ReadToken], [Write]], "{}", stand.kind());
        for (key, value) in [("k", "19"), ("l", "119")] {
            assert_eq!(pages.local().get(key).as_deref(), Some(value), "here, {}", stand.kind());
            assert_eq!(other.get(key).as_deref(), Some(value), "elsewhere, {}", stand.kind());
        }
        assert_eq!(pages.namespace().owed(), 0);
    }
}

/// What is to be replaced is fresh in the remote tier too: it is no answer to its own refresh.
#[test]
fn a_value_is_refreshed_ahead_of_its_deadline() {
    for stand in Stand::all() {
        let name = stand.fresh();
        // With what a load costs here, a value is due as soon as it is stored.
        let eager = || super::process(&name, stand.gate.clone(), |pages| pages.early_refresh(1e12));
        let slow = |pages: &Pages, value: &str| {
            let loaded = pages.get_or_load("k", |_| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                Ok::<_, Infallible>(own(value))
            });
            loaded.unwrap()
        };
        let (pages, other) = (eager(), eager());
        assert_eq!(slow(&pages, "1"), "1");
        assert_eq!(slow(&pages, "2"), "2", "{}", stand.kind());
        assert_eq!(other.get("k").as_deref(), Some("2"), "{}", stand.kind());
        // Also what has come from there.
        assert_eq!(slow(&other, "3"), "3", "{}", stand.kind());
    }
}

/// Otherwise every caller would load it again.
#[test]
fn a_load_that_outlives_its_lease_is_kept_in_its_process() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (clock, hand) = larder::Clock::manual();
    let namespace = larder::Namespace::builder(&name, stand.gate.clone()).version("1").clock(clock).build().unwrap();
    let pages = super::pages(&namespace, |pages| pages);
    let load = |took: u64| {
        let loaded = pages.get_or_load("k", |_| {
            hand.advance(std::time::Duration::from_secs(took));
            // The store forgets the lease.
            let lease = stand.gate.keys().into_iter().find(|key| key.as_bytes().ends_with(b":k")).unwrap();
            stand.gate.run_one(&lease, larder::Route::ByKey, larder::Action::Delete { cas: None });
            Ok::<_, Infallible>(own("1"))
        });
        loaded.unwrap()
    };
    // Too early for a lease to run out: somebody has removed the key.
    assert_eq!(load(20), "1");
    assert_eq!(pages.local().get("k"), None);
    assert_eq!(load(30), "1");
    assert_eq!(pages.local().get("k").as_deref(), Some("1"));
    assert_eq!(stand.process(&name).get("k"), None);
}
