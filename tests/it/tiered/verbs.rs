//! What each verb does in the two tiers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use larder::{Added, EntryOptions, LoadErrorKind, Write};

use super::gate::{Kind, When};
use super::{Stand, load, own, process};

fn in_group() -> EntryOptions {
    EntryOptions::new().groups(["g"])
}

#[test]
fn values_cross_processes() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        assert!(a.insert(own("k"), own("1")).is_through());
        assert_eq!(b.get("k").as_deref(), Some("1"));
        assert_eq!(b.local().get("k").as_deref(), Some("1"));
        assert!(a.remove("k").is_acknowledged());
        assert_eq!(a.get("k"), None);

        assert!(a.insert_with(own("g1"), own("1"), in_group()).is_through());
        assert_eq!(b.with("g1", String::len), Some(1));
        assert!(b.invalidate_group("g").is_acknowledged());
        assert_eq!(b.get("g1"), None);

        assert_eq!(load(&a, "l", "loaded", &[]), "loaded");
        assert_eq!(load(&b, "l", "again", &[]), "loaded");
        assert!(a.clear().is_acknowledged());
        assert_eq!(a.get("l"), None);
        assert_eq!(load(&a, "l", "anew", &[]), "anew");
    }
}

#[test]
fn of_several_processes_that_add_one_succeeds() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        assert!(matches!(a.add(own("k"), own("1")), Added::Stored(Write::Through)));
        assert!(matches!(b.add(own("k"), own("2")), Added::Present));
        assert_eq!(b.get("k").as_deref(), Some("1"));
        assert!(a.remove("k").is_acknowledged());
        assert!(a.add(own("k"), own("3")).is_stored());
        for key in (0..50).map(|round| format!("race {round}")) {
            let won: Vec<usize> = std::thread::scope(|scope| {
                let adders: Vec<_> = (0..3)
                    .map(|number| {
                        let (stand, name, key) = (&stand, &name, &key);
                        scope.spawn(move || stand.bystander(name).add(key.clone(), number.to_string()).is_stored())
                    })
                    .collect();
                let won = adders.into_iter().enumerate().filter_map(|(at, adder)| adder.join().unwrap().then_some(at));
                won.collect()
            });
            assert_eq!(won.len(), 1, "{key}, {}", stand.kind());
            assert_eq!(stand.bystander(&name).get(key.as_str()), Some(won[0].to_string()));
        }
    }
}

#[test]
fn an_add_needs_no_lease_that_another_process_holds() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        let loaded = a.get_or_load("k", |_| {
            assert!(matches!(b.add(own("k"), own("added")), Added::Stored(Write::Through)));
            Ok::<_, ()>(own("loaded"))
        });
        assert_eq!(loaded.unwrap(), "loaded");
        assert_eq!(a.get("k").as_deref(), Some("added"), "the load was fenced");
    }
}

/// An expiration of a key that is being loaded frees the lease, and memcached gives it to the first read, whatever that wants.
#[test]
fn a_read_gives_back_the_lease_that_an_expiration_has_freed() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        let loaded = a.get_or_load("k", |_| {
            assert!(b.expire("k").is_acknowledged());
            assert_eq!(b.get("k"), None);
            // Nobody holds the lease, so that this load need not wait, and is stored.
            assert_eq!(load(&b, "k", "new", &[]), "new");
            Ok::<_, ()>(own("old"))
        });
        assert_eq!(loaded.unwrap(), "old");
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("new"), "{}", stand.kind());
    }
}

#[test]
fn a_lease_that_is_lost_does_not_make_an_add_fail() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let pages = stand.process(&name);
        stand.gate.reset();
        stand.gate.at(0, When::After, stand.flusher());
        assert!(matches!(pages.add(own("k"), own("1")), Added::Stored(Write::Through)));
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("1"));
    }
}

#[test]
fn what_the_local_tier_cannot_hold_is_in_the_remote_one() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let none = process(&name, stand.gate.ungated(), |pages| pages.capacity(0));
        let small = process(&name, stand.gate.ungated(), |pages| pages.capacity(2).weigher(|_, v| v.len() as u64));
        for (number, pages) in [none, small].into_iter().enumerate() {
            let key = |what: &str| format!("{what}{number}");
            assert!(matches!(pages.insert(key("i"), own("heavy")), Write::RemoteOnly(_)));
            assert_eq!(pages.get(key("i").as_str()).as_deref(), Some("heavy"));
            assert!(matches!(pages.add(key("a"), own("heavy")), Added::Stored(Write::RemoteOnly(_))));
            assert!(matches!(pages.add(key("a"), own("heavy")), Added::Present));
            // The group was bumped before: a load that hears of it only when it ends is not kept.
            pages.namespace().poll_now().unwrap();
            assert_eq!(load(&pages, &key("l"), "heavy", &["g"]), "heavy");
            assert_eq!(load(&pages, &key("l"), "other", &["g"]), "heavy");
            assert!(pages.local().is_empty());
            assert!(pages.expire(key("i").as_str()).is_acknowledged());
            let refreshed = pages.get_or_load(key("i").as_str(), |_| Ok::<_, ()>(own("fresh")));
            assert_eq!(refreshed.unwrap(), "fresh");
            assert!(pages.invalidate_group("g").is_acknowledged());
            assert_eq!(pages.get(key("l").as_str()), None);
        }
    }
}

#[test]
fn a_loader_may_keep_what_there_is_or_store_nothing() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let pages = stand.bystander(&name);
        let refused = pages.get_or_load("n", |load| {
            load.do_not_store();
            Ok::<_, ()>(own("1"))
        });
        assert_eq!(refused.unwrap(), "1");
        assert_eq!(pages.get("n"), None);
        // The lease was given back.
        assert_eq!(load(&stand.bystander(&name), "n", "2", &[]), "2");
        assert_eq!(pages.get("n").as_deref(), Some("2"));

        assert!(stand.bystander(&name).insert_with(own("k"), own("old"), in_group()).is_through());
        assert!(pages.expire("k").is_acknowledged());
        let kept = pages.get_or_load("k", |load| Ok::<_, ()>(load.not_modified().expect("a stale value")));
        assert_eq!(kept.unwrap(), "old");
        let before = pages.stats();
        assert_eq!(pages.get("k").as_deref(), Some("old"));
        assert_eq!((pages.stats() - before).hits_fresh, 1);
        let other = stand.bystander(&name);
        assert_eq!(other.get("k").as_deref(), Some("old"));
        assert_eq!(other.remote_stats().hits_fresh, 1);
        // It has kept its group, in both tiers.
        assert!(pages.invalidate_group("g").is_acknowledged());
        assert_eq!((pages.get("k"), stand.bystander(&name).get("k")), (None, None));
    }
}

#[test]
fn a_stale_remote_value_is_served_while_one_refreshes_it() {
    for stand in Stand::all() {
        let name = stand.fresh();
        assert!(stand.bystander(&name).insert_with(own("k"), own("old"), in_group()).is_through());
        assert!(stand.bystander(&name).expire_group("g").is_acknowledged());
        let pages = stand.bystander(&name);
        let loads = AtomicUsize::new(0);
        let loaded = pages.get_or_load("k", |load| {
            loads.fetch_add(1, Ordering::SeqCst);
            assert_eq!(load.stale().map(String::as_str), Some("old"));
            let pages = pages.clone();
            let other = std::thread::spawn(move || pages.get_or_load("k", |_| Err::<String, _>("a second load")));
            assert_eq!(other.join().unwrap().unwrap(), "old");
            Ok::<_, ()>(own("new"))
        });
        assert_eq!((loaded.unwrap().as_str(), loads.into_inner()), ("new", 1));
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("new"));
    }
}

#[test]
fn a_load_that_brings_nothing_gives_its_lease_back() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let pages = stand.bystander(&name);
        let failed = pages.get_or_load("k", |_| Err::<String, _>("no"));
        assert_eq!(failed.unwrap_err().kind(), LoadErrorKind::Loader);
        let stored_by_another = |value: &str| {
            assert_eq!(load(&stand.bystander(&name), "k", value, &[]), value);
            assert_eq!(stand.bystander(&name).get("k").as_deref(), Some(value), "{}", stand.kind());
            assert!(pages.remove("k").is_acknowledged());
        };
        stored_by_another("1");
        let panicked =
            catch_unwind(AssertUnwindSafe(|| pages.get_or_load("k", |_| -> Result<String, ()> { panic!("p") })));
        assert!(panicked.is_err());
        stored_by_another("2");
        // And one that an invalidation of this process has overtaken.
        let overtaken = pages.get_or_load("k", |load| {
            load.groups(["g"]);
            assert!(pages.invalidate_group("g").is_acknowledged());
            Ok::<_, ()>(own("overtaken"))
        });
        assert_eq!(overtaken.unwrap(), "overtaken");
        stored_by_another("3");
    }
}

#[test]
fn groups_reach_all_caches_of_a_namespace() {
    let stand = Stand::memory();
    let namespace = super::namespace(&stand.fresh(), stand.gate.ungated());
    let cache = |name: &str| {
        let builder = larder::TieredCache::<String, String>::builder(&namespace, name).capacity(10);
        builder.codec(larder::RawBytes).build().unwrap()
    };
    let (rows, pages) = (cache("rows"), cache("pages"));
    for cache in [&rows, &pages] {
        assert!(cache.insert_with(own("k"), own("1"), in_group()).is_through());
        assert!(cache.insert(own("l"), own("1")).is_through());
    }
    assert!(namespace.invalidate_groups(["g"]).is_acknowledged());
    assert_eq!((rows.get("k"), pages.get("k")), (None, None));
    assert!(namespace.clear().is_acknowledged());
    assert_eq!((rows.get("l"), pages.get("l")), (None, None));
}

/// A read holds the key's claim while it asks the remote tier: a load meanwhile waits for it, then asks for itself.
#[test]
fn a_load_waits_for_a_read_that_is_under_way() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let pages = stand.process(&name);
    stand.gate.reset();
    let (paused, resume) = (mpsc::channel(), mpsc::channel::<()>());
    let (note, wait) = (paused.0, resume.1);
    stand.gate.at(0, When::After, move || {
        note.send(()).unwrap();
        wait.recv().unwrap();
    });
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| pages.get("k"));
        paused.1.recv().unwrap();
        let loader = scope.spawn(|| load(&pages, "k", "loaded", &[]));
        while pages.stats().load_waits == 0 {
            std::thread::yield_now();
        }
        resume.0.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), None);
        assert_eq!(loader.join().unwrap(), "loaded");
    });
    assert!(stand.gate.log().iter().flatten().any(|kind| *kind == Kind::Write));
}

#[test]
fn a_builder_refuses_what_cannot_work() {
    let stand = Stand::memory();
    let namespace = super::namespace(&stand.fresh(), stand.gate.ungated());
    for bad in ["", "a:b", "two words", &"n".repeat(65)] {
        let builder = larder::TieredCache::<String, String>::builder(&namespace, bad).capacity(1);
        assert!(builder.codec(larder::RawBytes).build().is_err(), "{bad:?}");
        assert!(larder::Namespace::builder(bad, stand.gate.ungated()).build().is_err(), "{bad:?}");
    }
    let no_codec = larder::TieredCache::<String, String>::builder(&namespace, "c").capacity(1).build();
    assert!(no_codec.unwrap_err().to_string().contains("codec"));
    let no_time = larder::Namespace::builder("ns", stand.gate.ungated()).timeout(Duration::ZERO).build();
    assert!(no_time.unwrap_err().to_string().contains("timeout"));
}
