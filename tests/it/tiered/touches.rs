//! Loads that find a value unchanged: the remote tier is touched, and not written, wherever that does the same.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use larder::{
    Action, EntryOptions, Expiry, Load, RemoteError, RemoteErrorKind, RemoteStats, Reply, Route, SetMode,
    TieredCacheBuilder, WireKey, Write,
};

use super::ageing::Ageing;
use super::exchanges::cost;
use super::gate::{Kind, When};
use super::{HOUR, Pages, Stand, load, own, process};
use crate::support::eventually;

const SECOND: Duration = Duration::from_secs(1);
const SOFT: Duration = Duration::from_millis(500);
const LOOK: Action<'_> = Action::Get { value: false, lease: None, touch: None };

/// Which exchange the touch is in [`revalidate`], of a process that knows no tokens: after the value, its tokens, and the right
/// to refresh it.
const TOUCH: usize = 3;

/// Returns options of a value that is stale to all who read it from the store: they take it to be a second older than it is.
fn aged() -> EntryOptions {
    EntryOptions::new().soft_ttl(SOFT).hard_ttl(HOUR).groups(["g"])
}

fn insert(pages: &Pages, value: &str, options: EntryOptions) {
    assert!(pages.insert_with(own("k"), own(value), options).is_through());
}

/// Refreshes the key, whose value the source has not changed.
fn revalidate(pages: &Pages) -> String {
    revalidate_with(pages, |_| {})
}

fn revalidate_with(pages: &Pages, meanwhile: impl FnOnce(&Load<String>)) -> String {
    let loaded = pages.get_or_load("k", |load| {
        load.soft_ttl(SOFT);
        load.hard_ttl(HOUR);
        meanwhile(&load);
        Ok::<_, Infallible>(load.not_modified().expect("a stale value"))
    });
    loaded.unwrap()
}

fn wire_key(name: &str) -> WireKey {
    WireKey::new(format!("{name}:1:v:pages:k")).unwrap()
}

/// Returns for how long the store keeps the item.
fn kept(stand: &Stand, name: &str) -> Option<Duration> {
    match stand.gate.run_one(&wire_key(name), Route::ByKey, LOOK) {
        Reply::Hit(item) => item.expires_in,
        _ => None,
    }
}

/// Returns values stored, touched and fenced.
fn written(stats: RemoteStats) -> (u64, u64, u64) {
    (stats.stores, stats.touches, stats.fences)
}

#[test]
fn a_value_that_has_not_changed_costs_a_touch_and_no_write() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let kind = stand.kind();
        insert(&stand.bystander(&name), "1", aged());
        let pages = stand.process(&name);
        let refreshed = cost(&stand, || assert_eq!(revalidate(&pages), "1", "{kind}"));
        assert_eq!(refreshed, [[Kind::Read], [Kind::ReadToken], [Kind::Read], [Kind::Touch], [Kind::Delete]], "{kind}");
        assert_eq!(written(pages.remote_stats()), (0, 1, 0), "{kind}");
        assert_eq!(pages.local().get("k").as_deref(), Some("1"), "{kind}");
        assert_eq!((pages.namespace().owed(), pages.remote_stats().errors), (0, 0), "{kind}");
        // In its groups, for all.
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("1"), "{kind}");
        assert!(stand.bystander(&name).invalidate_group("g").is_acknowledged());
        assert_eq!(stand.bystander(&name).get("k"), None, "{kind}");
    }
}

#[test]
fn its_time_begins_anew_in_both_tiers() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let store = Ageing::over(stand.gate.ungated());
    let set = |pages: TieredCacheBuilder<_, _>| pages.soft_ttl(100 * SECOND).hard_ttl(400 * SECOND);
    let (pages, _gate) = store.process(&name, set);
    let (other, _gate) = store.process(&name, set);
    assert_eq!(load(&pages, "k", "1", &["g"]), "1");
    for round in 1..5 {
        store.pass(150 * SECOND);
        let unchanged = pages.get_or_load("k", |load| Ok::<_, Infallible>(load.not_modified().unwrap()));
        assert_eq!(unchanged.unwrap(), "1");
        assert_eq!(written(pages.remote_stats()), (1, round, 0));
        assert_eq!(pages.local().inspect("k").unwrap().soft_in, Some(100 * SECOND));
        let found = other.get_or_load("k", |_| -> Result<_, ()> { panic!("it is fresh") });
        assert_eq!(found.unwrap(), "1");
        let copy = other.local().inspect("k").unwrap();
        assert!(copy.soft_in.unwrap() >= 98 * SECOND && copy.hard_in.unwrap() >= 398 * SECOND, "{copy:?}");
    }
    store.pass(400 * SECOND);
    assert_eq!((other.get("k"), pages.get("k")), (None, None), "and ends");
}

#[test]
fn every_way_to_load_renews() {
    type Way = (&'static str, fn(&Pages) -> String);
    let ways: [Way; 4] = [
        ("get_or_load", revalidate),
        ("get_or_load_async", |pages| {
            let unchanged = |load: Load<String>| async move {
                load.soft_ttl(SOFT);
                load.hard_ttl(HOUR);
                Ok::<_, Infallible>(load.not_modified().unwrap())
            };
            block_on(pages.get_or_load_async("k", unchanged)).unwrap()
        }),
        ("get_many_or_load", |pages| {
            let answers = pages.get_many_or_load(["k"], |batch| {
                let load = batch.load("k").unwrap();
                load.soft_ttl(SOFT);
                load.hard_ttl(HOUR);
                Ok::<_, Infallible>(vec![(own("k"), load.not_modified().unwrap())])
            });
            answers.unwrap().pop().flatten().unwrap()
        }),
        ("get_many_or_load_async", |pages| {
            let answers = block_on(pages.get_many_or_load_async(["k"], |batch| async move {
                let load = batch.load("k").unwrap();
                load.soft_ttl(SOFT);
                load.hard_ttl(HOUR);
                Ok::<_, Infallible>(vec![(own("k"), load.not_modified().unwrap())])
            }));
            answers.unwrap().pop().flatten().unwrap()
        }),
    ];
    for stand in Stand::all() {
        for (way, loads) in ways {
            let name = stand.fresh();
            insert(&stand.bystander(&name), "1", aged());
            let pages = stand.process(&name);
            assert_eq!(loads(&pages), "1", "{way}, {}", stand.kind());
            assert_eq!(written(pages.remote_stats()), (0, 1, 0), "{way}, {}", stand.kind());
        }
    }
}

#[test]
fn of_a_batch_what_has_changed_is_written_and_the_rest_is_touched() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let writer = stand.bystander(&name);
        let keys: Vec<String> = (0..50).map(|key| format!("k{key}")).collect();
        let pairs = keys.iter().map(|key| (key.clone(), own("1")));
        for (key, value) in pairs {
            assert!(writer.insert_with(key, value, aged()).is_through());
        }
        let pages = stand.process(&name);
        let changed = |key: &str| key.ends_with('7');
        let log = cost(&stand, || {
            let loaded = pages.get_many_or_load(keys.iter().map(String::as_str), |batch| {
                let value = |(key, load): (&String, &Load<String>)| {
                    load.soft_ttl(SOFT);
                    load.hard_ttl(HOUR);
                    (key.clone(), if changed(key) { own("2") } else { load.not_modified().unwrap() })
                };
                Ok::<_, Infallible>(batch.iter().map(value).collect())
            });
            assert!(loaded.unwrap().iter().all(Option::is_some));
        });
        let all =
            [Kind::Read, Kind::ReadToken, Kind::Read, Kind::Touch, Kind::Write, Kind::Delete].map(|kind| vec![kind]);
        assert_eq!(log, all, "{}", stand.kind());
        assert_eq!(written(pages.remote_stats()), (5, 45, 0), "{}", stand.kind());
        for (key, value) in keys.iter().zip(stand.bystander(&name).get_many(keys.iter().map(String::as_str))) {
            assert_eq!(value.as_deref(), Some(if changed(key) { "2" } else { "1" }), "{key}, {}", stand.kind());
        }
    }
}

/// Whatever a touch would not do is written.
#[test]
fn what_would_differ_in_anything_but_its_time_is_written() {
    type Say = fn(&Load<String>) -> String;
    let cases: [(&str, Say); 11] = [
        ("another value", |load| (load.soft_ttl(SOFT), load.hard_ttl(HOUR), own("2")).2),
        ("another value after all", |load| {
            load.soft_ttl(SOFT);
            load.hard_ttl(HOUR);
            load.not_modified().unwrap() + "!"
        }),
        ("the same value, without saying so", |load| (load.soft_ttl(SOFT), load.hard_ttl(HOUR), own("1")).2),
        ("another group", |load| {
            load.soft_ttl(SOFT);
            load.hard_ttl(HOUR);
            load.groups(["h"]);
            load.not_modified().unwrap()
        }),
        ("a group more", |load| {
            load.soft_ttl(SOFT);
            load.hard_ttl(HOUR);
            load.groups(["g", "h"]);
            load.not_modified().unwrap()
        }),
        ("the cache's deadlines", |load| load.not_modified().unwrap()),
        ("another soft deadline", |load| {
            load.soft_ttl(SOFT * 10);
            load.hard_ttl(HOUR);
            load.not_modified().unwrap()
        }),
        ("a shorter hard deadline", |load| {
            load.soft_ttl(SOFT);
            load.hard_ttl(HOUR - 2 * SECOND);
            load.not_modified().unwrap()
        }),
        ("a longer hard deadline", |load| {
            load.soft_ttl(SOFT);
            load.hard_ttl(HOUR + 2 * SECOND);
            load.not_modified().unwrap()
        }),
        ("a hard deadline alone", |load| (load.ttl(HOUR), load.not_modified().unwrap()).1),
        ("no deadline", |load| (load.never_expires(), load.not_modified().unwrap()).1),
    ];
    let stand = Stand::memory();
    for (case, say) in cases {
        let name = stand.fresh();
        insert(&stand.bystander(&name), "1", aged());
        let pages = stand.process(&name);
        let value = pages.get_or_load("k", |load| Ok::<_, Infallible>(say(&load))).unwrap();
        assert_eq!(written(pages.remote_stats()), (1, 0, 0), "{case}");
        assert_eq!(stand.bystander(&name).get("k"), Some(value), "{case}");
    }
}

/// A touch leaves the mark of an expiration, and the tokens that it has moved, as they are.
#[test]
fn what_was_expired_is_written() {
    type Expire = fn(&Pages) -> larder::Bump;
    let ways: [(&str, Expire); 2] =
        [("the key", |pages| pages.expire("k")), ("the group", |pages| pages.expire_group("g"))];
    for stand in Stand::all() {
        for (what, expire) in ways {
            for options in [aged(), EntryOptions::new().soft_ttl(HOUR).hard_ttl(HOUR).groups(["g"])] {
                let name = stand.fresh();
                insert(&stand.bystander(&name), "1", options);
                assert!(expire(&stand.bystander(&name)).is_acknowledged());
                let pages = stand.process(&name);
                let unchanged = pages.get_or_load("k", |load| {
                    load.soft_ttl(HOUR);
                    load.hard_ttl(HOUR);
                    Ok::<_, Infallible>(load.not_modified().unwrap())
                });
                assert_eq!(unchanged.unwrap(), "1", "{what}, {}", stand.kind());
                assert_eq!(written(pages.remote_stats()), (1, 0, 0), "{what}, {}", stand.kind());
                let newcomer = stand.bystander(&name);
                let found = newcomer.get_or_load("k", |_| -> Result<_, ()> { panic!("it is fresh") });
                assert_eq!(found.unwrap(), "1", "{what}, {}", stand.kind());
            }
        }
    }
}

/// What never expires is dated by its writer, and a time of more than a month reckoned by the sender's clock.
#[test]
fn what_the_stores_clock_does_not_date_is_written() {
    let stand = Stand::memory();
    let day = 86_400 * SECOND;
    for (hard, touched) in [(None, false), (Some(40 * day), false), (Some(30 * day), false), (Some(29 * day), true)] {
        let name = stand.fresh();
        // Due at once, and fresh.
        let eager = |pages: TieredCacheBuilder<_, _>| pages.early_refresh(1e15);
        let pages = process(&name, stand.gate.ungated(), eager);
        let load = |value: Option<&str>| {
            let loaded = pages.get_or_load("k", |load| {
                std::thread::sleep(Duration::from_millis(1));
                match hard {
                    Some(hard) => load.hard_ttl(hard),
                    None => load.never_expires(),
                }
                Ok::<_, Infallible>(value.map_or_else(|| load.not_modified().unwrap(), own))
            });
            loaded.unwrap()
        };
        assert_eq!(load(Some("1")), "1");
        if hard.is_none() {
            // Without a deadline there is nothing to be ahead of.
            assert!(pages.namespace().expire_group("none").is_acknowledged());
            assert!(pages.expire("k").is_acknowledged());
        }
        assert_eq!(load(None), "1", "{hard:?}");
        assert_eq!(written(pages.remote_stats()), if touched { (1, 1, 0) } else { (2, 0, 0) }, "{hard:?}");
    }
}

#[test]
fn jittered_deadlines_are_renewed_if_the_load_could_have_drawn_them() {
    let stand = Stand::memory();
    let jittered = |jitter: f64, soft: Duration| {
        move |pages: TieredCacheBuilder<_, _>| pages.soft_ttl(soft).hard_ttl(soft * 4).jitter(jitter)
    };
    for (jitter, soft, touched) in
        [(0.5, 100 * SECOND, true), (0.5, 300 * SECOND, false), (0.5, 40 * SECOND, false), (0.0, 120 * SECOND, false)]
    {
        for _ in 0..20 {
            let name = stand.fresh();
            let store = Ageing::over(stand.gate.ungated());
            let (first, _gate) = store.process(&name, jittered(0.5, 100 * SECOND));
            assert_eq!(load(&first, "k", "1", &[]), "1");
            store.pass(110 * SECOND);
            let (pages, _gate) = store.process(&name, jittered(jitter, soft));
            let unchanged = pages.get_or_load("k", |load| Ok::<_, Infallible>(load.not_modified().unwrap()));
            assert_eq!(unchanged.unwrap(), "1");
            let expected = if touched { (0, 1, 0) } else { (1, 0, 0) };
            assert_eq!(written(pages.remote_stats()), expected, "{jitter}, {soft:?}");
        }
    }
}

/// Of a value that two processes have refreshed to different ones, a loader speaks of the one in its own local tier.
#[test]
fn what_is_unchanged_here_does_not_renew_what_is_there() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (pages, other) = (stand.process(&name), stand.bystander(&name));
        insert(&other, "old", aged());
        assert_eq!(pages.get("k").as_deref(), Some("old"));
        // Loads are no news: this process does not hear of it.
        let loaded = stand.bystander(&name).get_or_load("k", |load| {
            load.soft_ttl(SOFT);
            load.hard_ttl(HOUR);
            load.groups(["g"]);
            Ok::<_, Infallible>(own("between"))
        });
        assert_eq!((loaded.unwrap().as_str(), pages.local().get("k").as_deref()), ("between", Some("old")));
        assert_eq!(revalidate(&pages), "old", "the source has gone back to it, {}", stand.kind());
        assert_eq!(written(pages.remote_stats()), (1, 0, 0), "{}", stand.kind());
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("old"), "{}", stand.kind());
    }
}

/// What another process does between a load and its touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Insert,
    InsertTheSame,
    Remove,
    RemoveAndLoad,
    Expire,
    Refresh,
    InvalidateGroup,
    ExpireGroup,
    Flush,
}

const ALL: [Meanwhile; 9] = [
    Meanwhile::Insert,
    Meanwhile::InsertTheSame,
    Meanwhile::Remove,
    Meanwhile::RemoveAndLoad,
    Meanwhile::Expire,
    Meanwhile::Refresh,
    Meanwhile::InvalidateGroup,
    Meanwhile::ExpireGroup,
    Meanwhile::Flush,
];

impl Meanwhile {
    fn act(self, pages: &Pages, key: &WireKey, gate: &super::gate::Gate, flush: impl Fn()) {
        let replace = |bytes: &[u8]| {
            let set = Action::Set { value: bytes, expiry: Expiry::After(HOUR), mode: SetMode::Always, cas: None };
            assert_eq!(gate.run_one(key, Route::ByKey, set), Reply::Done);
        };
        match self {
            Meanwhile::Insert => insert(pages, "2", EntryOptions::new().ttl(60 * SECOND).groups(["g"])),
            Meanwhile::InsertTheSame => insert(pages, "1", aged()),
            Meanwhile::Remove => assert!(pages.remove("k").is_acknowledged()),
            Meanwhile::RemoveAndLoad => {
                assert!(pages.remove("k").is_acknowledged());
                let lease = Action::Get { value: true, lease: Some(HOUR), touch: None };
                assert!(matches!(gate.run_one(key, Route::ByKey, lease), Reply::Won(_)));
            }
            Meanwhile::Expire => assert!(pages.expire("k").is_acknowledged()),
            // One whose claim was thought to have vanished sends what it has loaded at last: the same bytes, under another
            // version.
            Meanwhile::Refresh => replace(&gate.peek(key).unwrap()),
            Meanwhile::InvalidateGroup => assert!(pages.invalidate_group("g").is_acknowledged()),
            Meanwhile::ExpireGroup => assert!(pages.expire_group("g").is_acknowledged()),
            Meanwhile::Flush => flush(),
        }
    }

    /// Whether it changes the item itself, and leaves one.
    fn leaves_another(self) -> bool {
        match self {
            Meanwhile::Insert | Meanwhile::InsertTheSame | Meanwhile::RemoveAndLoad => true,
            Meanwhile::Expire | Meanwhile::Refresh => true,
            Meanwhile::Remove | Meanwhile::Flush | Meanwhile::InvalidateGroup | Meanwhile::ExpireGroup => false,
        }
    }
}

fn between(stand: &Stand, meanwhile: Meanwhile) {
    let case = format!("{meanwhile:?}, {}", stand.kind());
    let name = stand.fresh();
    let other = stand.bystander(&name);
    insert(&other, "1", aged());
    let pages = stand.process(&name);
    stand.gate.reset();
    let (gate, key, flush, actor) = (stand.gate.clone(), wire_key(&name), stand.flusher(), other.clone());
    stand.gate.at(TOUCH, When::Before, move || meanwhile.act(&actor, &key, &gate, flush));
    assert_eq!(revalidate(&pages), "1", "{case}");
    let log = stand.gate.log();
    assert_eq!(log[TOUCH], [Kind::Touch], "{case}");
    assert!(!log.concat().contains(&Kind::Write), "{case}");
    let stats = pages.remote_stats();
    assert_eq!((stats.stores, stats.errors), (0, 0), "{case}");
    if matches!(meanwhile, Meanwhile::InvalidateGroup | Meanwhile::ExpireGroup) {
        // The item was its own all the same, and the tokens say what it is worth.
        assert_eq!((stats.touches, stats.fences), (1, 0), "{case}");
    } else {
        assert_eq!((stats.touches, stats.fences), (0, 1), "{case}");
        assert_eq!(stand.gate.run_one(&wire_key(&name), Route::ByKey, LOOK), Reply::Miss, "{case}");
        // That of the item, and that of the claim.
        let deletions = log.concat().into_iter().filter(|kind| *kind == Kind::Delete).count();
        assert_eq!(deletions, if meanwhile.leaves_another() { 2 } else { 1 }, "{case}");
    }
    assert_eq!(pages.namespace().owed(), 0, "{case}");
    // Nobody who comes now takes the old value for fresh.
    let newcomer = stand.bystander(&name);
    assert_eq!(load(&newcomer, "k", "new", &["g"]), "new", "{case}");
    pages.namespace().poll_now().unwrap();
    assert_eq!(load(&pages, "k", "new", &["g"]), "new", "{case}");
}

#[test]
fn whatever_happens_between_a_load_and_its_touch_fences_it() {
    for stand in Stand::all() {
        ALL.into_iter().for_each(|meanwhile| between(&stand, meanwhile));
    }
}

/// A restarted server gives the same numbers to other items. The touch is not sent on another connection.
#[test]
fn a_touch_after_a_restart_of_the_server_is_not_sent() {
    let stand = Stand::memory();
    let name = stand.fresh();
    insert(&stand.bystander(&name), "1", aged());
    let pages = stand.process(&name);
    stand.gate.reset();
    let (gate, key, memory) = (stand.gate.clone(), wire_key(&name), stand.memory.clone().unwrap());
    let cas = |reply| match reply {
        Reply::Hit(item) => item.cas.value,
        other => panic!("{other:?}"),
    };
    let before = cas(stand.gate.run_one(&key, Route::ByKey, LOOK));
    stand.gate.at(TOUCH, When::Before, move || {
        let bytes = gate.peek(&key).unwrap();
        memory.restart();
        let set = |value| Action::Set { value, expiry: Expiry::After(SECOND * 60), mode: SetMode::Always, cas: None };
        // Until the same number comes again.
        loop {
            assert_eq!(gate.run_one(&key, Route::ByKey, set(&bytes)), Reply::Done);
            if cas(gate.run_one(&key, Route::ByKey, LOOK)) == before {
                break;
            }
        }
    });
    assert_eq!(revalidate(&pages), "1");
    assert_eq!(written(pages.remote_stats()), (0, 0, 1));
    assert!(kept(&stand, &name).unwrap() <= SECOND * 60, "it was touched");
    assert_eq!(pages.local().inspect("k").unwrap().soft_in, Some(Duration::ZERO), "and stored nowhere");
}

#[cfg(feature = "memcached")]
#[test]
fn a_touch_whose_connection_has_gone_is_not_sent() {
    let stand = Stand::memcached(1);
    let name = stand.fresh();
    insert(&stand.bystander(&name), "1", aged());
    let pages = stand.process(&name);
    stand.gate.reset();
    // As if it had been read on a connection that is gone.
    stand.gate.rewrite(|command, reply| {
        let mut reply = reply?;
        if let (Reply::Hit(item), Action::Get { .. }, Route::ByKey) = (&mut reply, command.action, command.route) {
            item.cas.connection = u64::MAX;
        }
        Ok(reply)
    });
    let before = kept(&stand, &name);
    assert_eq!(revalidate(&pages), "1");
    assert_eq!(written(pages.remote_stats()), (0, 0, 1));
    assert!(kept(&stand, &name) <= before);
    assert_eq!(pages.namespace().owed(), 0);
}

fn interrupted() -> RemoteError {
    RemoteError::new(RemoteErrorKind::Interrupted, "a test has cut the wire")
}

/// It may be carried out yet, on whatever is there then.
#[test]
fn a_touch_whose_answer_is_lost_owes_the_deletion_of_the_key() {
    for stand in Stand::all() {
        let name = stand.fresh();
        insert(&stand.bystander(&name), "1", aged());
        let pages = stand.process(&name);
        stand.gate.reset();
        stand.gate.rewrite(|command, reply| match command.action {
            Action::Touch { .. } => Err(interrupted()),
            _ => reply,
        });
        assert_eq!(revalidate(&pages), "1");
        let stats = pages.remote_stats();
        assert_eq!((written(stats), stats.errors), ((0, 0, 0), 1), "{}", stand.kind());
        // As after a write that failed: nothing says that the value is out of date.
        assert_eq!(pages.local().get("k").as_deref(), Some("1"), "{}", stand.kind());
        eventually("the deletion", || (pages.namespace().owed() == 0).then_some(()));
        assert_eq!(kept(&stand, &name), None, "{}", stand.kind());
        assert_eq!(stand.bystander(&name).get("k"), None, "{}", stand.kind());
        assert_eq!(load(&pages, "k", "2", &[]), "1", "it has its time here, {}", stand.kind());
    }
}

#[test]
fn a_touch_that_was_never_sent_owes_nothing() {
    let stand = Stand::memory();
    let name = stand.fresh();
    insert(&stand.bystander(&name), "1", aged());
    let pages = stand.process(&name);
    stand.gate.rewrite(|command, reply| match command.action {
        Action::Touch { .. } => Err(RemoteError::new(RemoteErrorKind::Unavailable, "a test has let nothing through")),
        _ => reply,
    });
    assert_eq!(revalidate(&pages), "1");
    let stats = pages.remote_stats();
    assert_eq!((written(stats), stats.errors, pages.namespace().owed()), ((0, 0, 0), 1, 0));
    assert_eq!(pages.local().get("k").as_deref(), Some("1"));
    assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("1"));
}

/// The other's item keeps the time that the touch has given it, until the deletion is through.
#[test]
fn a_deletion_that_fails_is_owed() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let other = stand.bystander(&name);
        insert(&other, "1", aged());
        let pages = stand.process(&name);
        stand.gate.reset();
        stand.gate.at(TOUCH, When::Before, move || insert(&other, "2", aged()));
        let key = wire_key(&name);
        let failures = std::sync::atomic::AtomicU64::new(0);
        let undone = key.clone();
        stand.gate.rewrite(move |command, reply| match command.action {
            Action::Delete { cas: Some(_) }
                if *command.key == undone && failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 =>
            {
                Err(interrupted())
            }
            _ => reply,
        });
        // The reply alone is lost: put the item back, as if the command had been.
        let (gate, bytes) = (stand.gate.clone(), std::sync::Arc::new(std::sync::Mutex::new(None)));
        let (saved, saver, saved_key) = (bytes.clone(), gate.clone(), key.clone());
        stand.gate.at(TOUCH + 1, When::Before, move || *saved.lock().unwrap() = saver.peek(&saved_key));
        let restored = key.clone();
        stand.gate.at(TOUCH + 1, When::After, move || {
            let bytes = bytes.lock().unwrap().take().expect("what was touched");
            gate.poke(&restored, &bytes);
        });
        assert_eq!(revalidate(&pages), "1", "{}", stand.kind());
        assert_eq!(pages.remote_stats().fences, 1, "{}", stand.kind());
        eventually("the deletion", || (pages.namespace().owed() == 0).then_some(()));
        assert_eq!(stand.gate.run_one(&key, Route::ByKey, LOOK), Reply::Miss, "{}", stand.kind());
    }
}

#[test]
fn a_future_that_is_dropped_during_its_touch_owes_the_deletion_of_the_key() {
    let stand = Stand::memory();
    let name = stand.fresh();
    insert(&stand.bystander(&name), "1", aged());
    let pages = stand.process(&name);
    stand.gate.reset();
    let (begun, begins) = mpsc::channel();
    let (go, going) = mpsc::channel::<()>();
    stand.gate.at(TOUCH, When::Before, move || {
        begun.send(()).unwrap();
        // Until the future is gone.
        let _ = going.recv();
    });
    {
        let mut refresh = pin!(pages.get_or_load_async("k", |load: Load<String>| async move {
            load.soft_ttl(SOFT);
            load.hard_ttl(HOUR);
            Ok::<_, Infallible>(load.not_modified().unwrap())
        }));
        let mut context = Context::from_waker(Waker::noop());
        eventually("the touch", || {
            assert!(refresh.as_mut().poll(&mut context).is_pending());
            begins.try_recv().ok()
        });
    }
    drop(go);
    eventually("the deletion", || kept(&stand, &name).is_none().then_some(()));
    assert_eq!(load(&pages, "k", "2", &[]), "2", "and the key is free");
}

/// Another's item that was touched by a process which died before it could delete it: its time is longer than it asked for.
#[test]
fn what_is_kept_for_longer_than_it_asks_for_is_spent() {
    for stand in Stand::all() {
        for (ttl, touched, spent) in [
            (60 * SECOND, HOUR, true),
            (60 * SECOND, 65 * SECOND, true),
            (60 * SECOND, 62 * SECOND, false),
            (60 * SECOND, 30 * SECOND, false),
            // By the sender's clock, which nobody else's agrees with.
            (40 * 24 * HOUR, 41 * 24 * HOUR, false),
        ] {
            let name = stand.fresh();
            insert(&stand.bystander(&name), "1", EntryOptions::new().ttl(ttl));
            let touch = Action::Get { value: false, lease: None, touch: Some(Expiry::After(touched)) };
            assert!(matches!(stand.gate.run_one(&wire_key(&name), Route::ByKey, touch), Reply::Hit(_)));
            let reader = stand.bystander(&name);
            let case = format!("{ttl:?} for {touched:?}, {}", stand.kind());
            assert_eq!(reader.get("k").is_none(), spent, "{case}");
            assert_eq!(reader.remote_stats().dead, u64::from(spent), "{case}");
            assert_eq!(load(&reader, "k", "2", &[]), if spent { "2" } else { "1" }, "{case}");
        }
    }
}

/// A touch that is sent long after the item was read could begin the time of one anew that is as old as that. So there is
/// another look before it, and where the item has changed no touch.
#[test]
fn an_item_that_was_read_long_ago_is_looked_at_again() {
    for stand in Stand::all() {
        let long = |_: &Load<String>| {
            let begun = Instant::now();
            eventually("more than a second to pass", || (begun.elapsed() > SECOND).then_some(()));
        };
        let kind = stand.kind();
        let name = stand.fresh();
        insert(&stand.bystander(&name), "1", aged());
        let pages = stand.process(&name);
        stand.gate.reset();
        assert_eq!(revalidate_with(&pages, long), "1");
        assert_eq!(stand.gate.log()[TOUCH..], [[Kind::Read], [Kind::Touch], [Kind::Delete]], "{kind}");
        assert_eq!(written(pages.remote_stats()), (0, 1, 0), "{kind}");

        let name = stand.fresh();
        let other = stand.bystander(&name);
        insert(&other, "1", aged());
        let pages = stand.process(&name);
        stand.gate.reset();
        let unchanged = revalidate_with(&pages, |load| {
            long(load);
            insert(&other, "2", EntryOptions::new().ttl(60 * SECOND));
        });
        assert_eq!(unchanged, "1");
        assert_eq!(stand.gate.log()[TOUCH..], [[Kind::Read], [Kind::Delete]], "the claim alone is given back, {kind}");
        assert_eq!(written(pages.remote_stats()), (0, 0, 1), "{kind}");
        assert!(kept(&stand, &name).unwrap() <= 62 * SECOND, "{kind}");
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("2"), "{kind}");
    }
}

#[test]
fn what_is_renewed_is_news_to_nobody() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (pages, other) = (stand.process(&name), stand.bystander(&name));
    insert(&other, "1", aged());
    pages.namespace().poll_now().unwrap();
    assert_eq!(revalidate(&pages), "1");
    other.namespace().poll_now().unwrap();
    assert_eq!(other.local().get("k").as_deref(), Some("1"), "the copy is as good as it was");
    assert!(matches!(pages.insert(own("k"), own("2")), Write::Through));
}
