//! What each verb costs, in exchanges with the remote tier.

use std::convert::Infallible;
use std::time::Duration;

use larder::{Action, EntryOptions, Reply, Route};

use super::gate::Kind::{self, Delete, MarkStale, Read, ReadJournal, ReadToken, Write, WriteJournal, WriteToken};
use super::{HOUR, Pages, Stand, YEARS, load, own};
use crate::support::eventually;

const GET: Action<'_> = Action::Get { value: false, lease: None, touch: None };

/// Runs `verb`, and returns what its exchanges were about: each kind once, in the order of its first command. Exchanges with
/// several servers that are under way at once count as one.
pub(super) fn cost(stand: &Stand, verb: impl FnOnce()) -> Vec<Vec<Kind>> {
    stand.gate.reset();
    verb();
    let mut log = stand.gate.log();
    for exchange in &mut log {
        let mut seen = Vec::new();
        exchange.retain(|kind| {
            !seen.contains(kind) && {
                seen.push(*kind);
                true
            }
        });
    }
    log.dedup();
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
        // The tokens of the roots, and of the group, are known from here on.
        let cold = cost(&stand, || assert_eq!(load(&pages, "b", "1", &[]), "1"));
        assert_eq!(cold, [[Read], [Write]], "get_or_load, {kind}");
        let grouped = cost(&stand, || assert_eq!(load(&pages, "c", "1", &["g"]), "1"));
        assert_eq!(grouped, [[Read], [Write]], "get_or_load with a group, {kind}");
        // Its tokens, then the journal, which has what the other process has inserted.
        let new_group = cost(&stand, || assert_eq!(load(&pages, "d", "1", &["new"]), "1"));
        let tokens = vec![WriteToken, ReadToken, ReadJournal];
        assert_eq!(new_group, [vec![Read], tokens.clone(), vec![ReadJournal], vec![Write]], "with a new group, {kind}");
        let newer_group = cost(&stand, || assert_eq!(load(&pages, "d2", "1", &["newer"]), "1"));
        assert_eq!(newer_group, [vec![Read], tokens, vec![Write]], "with a new group, nothing in the journal, {kind}");
        insert(&other, "e");
        let found = cost(&stand, || assert_eq!(load(&pages, "e", "2", &[]), "1"));
        assert_eq!(found, [[Read]], "get_or_load that finds a value, {kind}");
        assert_eq!(cost(&stand, || insert(&pages, "f")), [[Read], [Write], [WriteJournal]], "insert, {kind}");
        let add = || assert!(pages.add(own("g"), own("1")).is_stored());
        assert_eq!(cost(&stand, add), [[Read], [Write], [WriteJournal]], "add, {kind}");
        insert(&other, "h");
        let add = || assert!(!pages.add(own("h"), own("2")).is_stored());
        assert_eq!(cost(&stand, add), [[Read]], "add that finds a value, {kind}");
        let update = || assert!(pages.update("h", |value| value.repeat(2)).is_some());
        assert_eq!(cost(&stand, update), [[Read], [Write], [WriteJournal]], "update, {kind}");
        let remove = || assert!(pages.remove("a").is_acknowledged());
        assert_eq!(cost(&stand, remove), [[Delete], [WriteJournal]], "remove, {kind}");
        let remove = || assert!(pages.remove_many(["a", "b", "c"]).is_acknowledged());
        assert_eq!(cost(&stand, remove), [[Delete], [WriteJournal]], "remove_many, {kind}");
        let expire = || assert!(pages.expire("e").is_acknowledged());
        assert_eq!(cost(&stand, expire), [[MarkStale], [WriteJournal]], "expire, {kind}");
        for bump in [Pages::invalidate_group, Pages::expire_group] {
            let bump = || assert!(bump(&pages, "g").is_acknowledged());
            assert_eq!(cost(&stand, bump), [[WriteJournal, WriteToken, ReadJournal]], "bump, {kind}");
        }
        let bump = || assert!(pages.invalidate_groups(["g", "h", "i"]).is_acknowledged());
        assert_eq!(cost(&stand, bump), [[WriteJournal, WriteToken, ReadJournal]], "invalidate_groups, {kind}");
        let clear = || assert!(pages.clear().is_acknowledged());
        assert_eq!(cost(&stand, clear), [[WriteJournal, WriteToken, ReadJournal]], "clear, {kind}");
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
        let tokens = vec![WriteToken, ReadToken];
        let all = [vec![Read], tokens, vec![Write], vec![WriteJournal]];
        assert_eq!(written, all, "insert_many, {}", stand.kind());
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
    // The old value, its tokens, the right to refresh it, and giving that back.
    assert_eq!(refreshed, [[Read], [ReadToken], [Read], [Write], [Delete]]);
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
        let tokens = vec![WriteToken, ReadToken];
        assert_eq!(written, [vec![Read], tokens, vec![Write], vec![WriteJournal]], "{}", stand.kind());
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

/// A lease that is gone before its time is over says that the key was invalidated.
#[test]
fn a_load_whose_lease_is_lost_is_stored_nowhere() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let pages = stand.process(&name);
    let loaded = pages.get_or_load("k", |_| {
        let lease = stand.gate.keys().into_iter().find(|key| key.as_bytes().ends_with(b":k")).unwrap();
        assert_eq!(stand.gate.run_one(&lease, Route::ByKey, Action::Delete { cas: None }), Reply::Done);
        Ok::<_, Infallible>(own("1"))
    });
    assert_eq!(loaded.unwrap(), "1");
    assert_eq!((pages.local().get("k"), stand.process(&name).get("k")), (None, None));
}

/// Otherwise another process would load it as well.
#[test]
fn a_lease_is_renewed_while_its_load_runs() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let builder = larder::Namespace::builder(&name, stand.gate.clone()).lease(Duration::from_secs(3));
    let namespace = super::settled(builder.poll_interval(HOUR).trust(YEARS), stand.gate.next_look());
    let pages = super::pages(&namespace, |pages| pages);
    stand.gate.reset();
    let loaded = pages.get_or_load("k", |_| {
        let [lease] = stand.gate.keys().try_into().unwrap();
        eventually("the lease to be renewed twice", || {
            assert!(matches!(stand.gate.run_one(&lease, Route::ByKey, GET), Reply::Busy(_)));
            // The read that took the lease, then a look and a touch for each renewal.
            (stand.gate.log().len() >= 5).then_some(())
        });
        Ok::<_, Infallible>(own("1"))
    });
    assert_eq!(loaded.unwrap(), "1");
    assert_eq!(stand.process(&name).get("k").as_deref(), Some("1"));
}
