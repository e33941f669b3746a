//! Statistics of both tiers: each read of the user's counts once in each tier that is asked, and nothing that larder reads or
//! stores for itself.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::executor::block_on;
use larder::{CallOptions, Clock, InMemoryRemote, LostTrust, RemoteStats, Stats};

use super::*;

type Verb = fn(&Pages);
type Expected = fn(&mut Stats, &mut RemoteStats);

/// Returns what `verb` changes, in the local tier and the remote one.
fn change_by(pages: &Pages, verb: impl FnOnce(&Pages)) -> (Stats, RemoteStats) {
    let before = (pages.stats(), pages.remote_stats());
    verb(pages);
    let mut local = pages.stats() - before.0;
    // By the system's clock here.
    local.load_time = Duration::ZERO;
    (local, pages.remote_stats() - before.1)
}

fn figures(set: impl FnOnce(&mut Stats, &mut RemoteStats)) -> (Stats, RemoteStats) {
    let mut figures = (Stats::default(), RemoteStats::default());
    set(&mut figures.0, &mut figures.1);
    figures
}

/// Of a cache that has `here`, fresh, and `old`, stale, in both tiers, and `there` in the remote one alone.
#[test]
fn each_verb_counts_what_it_does_in_each_tier() {
    let nothing: Expected = |_, _| ();
    let here: Expected = |l, _| l.hits_fresh = 1;
    let old: Expected = |l, _| l.hits_stale = 1;
    let there: Expected = |l, r| (l.misses, r.hits_fresh, r.copies) = (1, 1, 1);
    let nowhere: Expected = |l, r| (l.misses, r.misses) = (1, 1);
    let stored: Expected = |l, r| (l.stores, r.stores) = (1, 1);
    let replaced: Expected = |l, r| (l.stores, l.replacements, r.stores) = (1, 1, 1);
    let loaded: Expected = |l, r| (l.misses, l.loads, l.stores, r.misses, r.stores) = (1, 1, 1, 1, 1);
    let refreshed: Expected = |l, r| (l.hits_stale, l.loads, l.stores, l.replacements, r.stores) = (1, 1, 1, 1, 1);
    let removed: Expected = |l, _| l.removals = 1;
    let verbs: [(&str, Verb, Expected); 47] = [
        ("get here", |p| _ = p.get("here"), here),
        ("get old", |p| _ = p.get("old"), old),
        ("get there", |p| _ = p.get("there"), there),
        ("get nowhere", |p| _ = p.get("nowhere"), nowhere),
        ("get_async there", |p| _ = block_on(p.get_async("there")), there),
        ("with there", |p| _ = p.with("there", |_| ()), there),
        (
            "get_many",
            |p| _ = p.get_many(["here", "old", "there", "nowhere"]),
            |l, r| {
                (l.hits_fresh, l.hits_stale, l.misses) = (1, 1, 2);
                (r.hits_fresh, r.misses, r.copies) = (1, 1, 1);
            },
        ),
        (
            "get_with there, read only",
            |p| _ = p.get_with("there", CallOptions::new().read_only()),
            |l, r| {
                (l.misses, r.hits_fresh) = (1, 1);
            },
        ),
        (
            "get_with, past the local tier",
            |p| _ = p.get_with("here", CallOptions::new().skip_local()),
            |_, r| {
                r.hits_fresh = 1;
            },
        ),
        (
            "get_with, past the remote tier",
            |p| _ = p.get_with("there", CallOptions::new().skip_remote()),
            |l, _| {
                l.misses = 1;
            },
        ),
        ("contains here", |p| assert!(p.contains("here")), nothing),
        ("contains there", |p| assert!(p.contains("there")), there),
        ("peek", |p| _ = p.peek("here"), nothing),
        ("inspect", |p| _ = p.inspect("here"), nothing),
        ("iter", |p| _ = p.iter().count(), nothing),
        ("local().get here", |p| _ = p.local().get("here"), here),
        ("local().get there", |p| _ = p.local().get("there"), |l, _| l.misses = 1),
        ("lookup here", |p| _ = p.lookup("here"), here),
        ("lookup there", |p| _ = p.lookup("there"), there),
        ("lookup nowhere", |p| _ = p.lookup("nowhere"), nowhere),
        ("lookup old", |p| _ = p.lookup("old"), old),
        ("lookup_wait nowhere", |p| _ = p.lookup_wait("nowhere", Duration::from_millis(1)), nowhere),
        ("lookup_with nowhere, no refresh", |p| _ = p.lookup_with("nowhere", CallOptions::new().no_refresh()), nowhere),
        (
            "fill",
            |p| _ = p.lookup("nowhere").or_claim().unwrap_err().unwrap().fill(own("text")),
            |l, r| {
                (l.misses, l.stores, r.misses, r.stores) = (1, 1, 1, 1);
            },
        ),
        ("insert", |p| _ = p.insert(own("nowhere"), own("text")), stored),
        ("insert here", |p| _ = p.insert(own("here"), own("text")), replaced),
        ("insert there", |p| _ = p.insert(own("there"), own("text")), stored),
        (
            "insert_many",
            |p| _ = p.insert_many([(own("a"), own("text")), (own("b"), own("text"))]),
            |l, r| {
                (l.stores, r.stores) = (2, 2);
            },
        ),
        ("add", |p| assert!(p.add(own("nowhere"), own("text")).is_stored()), stored),
        ("add here", |p| assert!(!p.add(own("here"), own("text")).is_stored()), nothing),
        ("add there", |p| assert!(!p.add(own("there"), own("text")).is_stored()), nothing),
        ("update here", |p| _ = p.update("here", String::clone), replaced),
        ("update there", |p| _ = p.update("there", String::clone), stored),
        ("update nowhere", |p| _ = p.update("nowhere", String::clone), nothing),
        ("remove here", |p| _ = p.remove("here"), removed),
        ("remove there", |p| _ = p.remove("there"), nothing),
        ("expire", |p| _ = p.expire("here"), nothing),
        ("clear", |p| _ = p.clear(), nothing),
        ("warm_up", |p| assert_eq!(p.warm_up([(own("nowhere"), own("text"))]), 1), |l, _| l.stores = 1),
        (
            "warm_up_from_remote",
            |p| assert_eq!(p.warm_up_from_remote(["here", "there", "nowhere"]), 1),
            |_, r| r.copies = 1,
        ),
        ("get_or_load here", |p| _ = load(p, "here", "text", &[]), here),
        ("get_or_load there", |p| _ = load(p, "there", "text", &[]), there),
        ("get_or_load nowhere", |p| _ = load(p, "nowhere", "text", &[]), loaded),
        ("get_or_load old", |p| _ = load(p, "old", "text", &[]), refreshed),
        (
            "get_or_load_async nowhere",
            |p| {
                _ = block_on(p.get_or_load_async("nowhere", |_| async { Ok::<_, ()>(own("text")) }));
            },
            loaded,
        ),
        (
            "get_or_load that fails",
            |p| _ = p.get_or_load("nowhere", |_| Err(())),
            |l, r| {
                (l.misses, l.load_failures, r.misses) = (1, 1, 1);
            },
        ),
        (
            "get_many_or_load",
            |p| {
                let loader = |_| Ok::<_, ()>(vec![(own("nowhere"), own("text")), (own("old"), own("text"))]);
                _ = p.get_many_or_load(["here", "old", "there", "nowhere"], loader);
            },
            |l, r| {
                (l.hits_fresh, l.hits_stale, l.misses) = (1, 1, 2);
                (l.loads, l.stores, l.replacements) = (1, 2, 1);
                (r.hits_fresh, r.misses, r.copies, r.stores) = (1, 1, 1, 2);
            },
        ),
    ];
    let stand = Stand::memory();
    for (verb, run, expected) in verbs {
        let name = stand.fresh();
        let pages = stand.process(&name);
        assert!(
            pages.insert(own("here"), own("text")).is_through() && pages.insert(own("old"), own("text")).is_through()
        );
        assert!(pages.expire("old").is_acknowledged());
        assert!(stand.bystander(&name).insert(own("there"), own("text")).is_through());
        pages.namespace().poll_now().unwrap();
        assert_eq!(change_by(&pages, run), figures(expected), "{verb}");
    }
}

#[test]
fn news_from_other_processes_count_as_what_they_do_alone() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (pages, other) = (stand.process(&name), stand.bystander(&name));
    assert!(pages.insert(own("key"), own("old")).is_through() && other.insert(own("key"), own("new")).is_through());
    let change = change_by(&pages, |pages| pages.namespace().poll_now().unwrap());
    assert_eq!(change, figures(|l, _| l.removals = 1));
}

#[test]
fn a_read_that_waits_for_another_process_counts_once() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let other = stand.bystander(&name);
    let namespace = namespace(&name, stand.gate.clone());
    let pages = pages(&namespace, |pages| pages.load_wait(Duration::from_millis(200)));
    let held = other.lookup("key").or_claim().unwrap_err().unwrap();
    stand.gate.reset();
    let (local, remote) = change_by(&pages, |pages| _ = load(pages, "key", "text", &[]));
    assert!(stand.gate.log().len() > 2, "it has asked again and again");
    assert_eq!((local, remote), figures(|l, r| (l.misses, l.loads, l.stores, r.misses) = (1, 1, 1, 1)));
    drop(held);
}

#[test]
fn an_update_that_takes_two_attempts_stores_once() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (pages, other) = (stand.process(&name), stand.bystander(&name));
    assert!(pages.insert(own("key"), own("1")).is_through());
    let is_second = AtomicBool::new(false);
    let change = change_by(&pages, |pages| {
        let updated = pages.update("key", |value| {
            if !is_second.swap(true, Ordering::Relaxed) {
                assert!(other.insert(own("key"), own("2")).is_through());
            }
            format!("{value}, updated")
        });
        assert_eq!(updated.as_deref(), Some("2, updated"));
    });
    assert_eq!(change, figures(|l, r| (l.stores, l.replacements, r.stores) = (1, 1, 1)));
}

/// Also what is answered from the local tier then, since that was not asked before the journal had been.
#[test]
fn a_read_counts_once_although_trust_has_lapsed() {
    for policy in [LostTrust::Revalidate, LostTrust::Refuse] {
        let (clock, time) = Clock::manual();
        let store = InMemoryRemote::new();
        let builder = Namespace::builder("lapsed", store.clone()).clock(clock).on_lost_trust(policy);
        let namespace = builder.poll_interval(HOUR).trust(2 * HOUR).build().unwrap();
        crate::scene::eventually("the journal", || namespace.poll_now().is_ok());
        let pages = pages(&namespace, |pages| pages.soft_ttl(YEARS));
        assert!(pages.insert(own("key"), own("text")).is_through());
        store.offline(true);
        time.advance(2 * HOUR);
        let misses = |misses| figures(|l, _| l.misses = misses).0;
        assert_eq!(change_by(&pages, |pages| _ = pages.get("key")).0, misses(1), "{policy:?}");
        assert_eq!(change_by(&pages, |pages| _ = pages.local().get("key")).0, misses(1), "{policy:?}");
        assert_eq!(change_by(&pages, |pages| _ = pages.get_many(["key", "other"])).0, misses(2), "{policy:?}");
        assert_eq!(change_by(&pages, |pages| _ = pages.lookup("key")).0, misses(1), "{policy:?}");
        let loads = u64::from(policy == LostTrust::Revalidate);
        let (loaded, _) = figures(|l, _| (l.misses, l.loads, l.stores, l.replacements) = (1, loads, loads, loads));
        assert_eq!(change_by(&pages, |pages| _ = pages.get_or_load("key", |_| Ok::<_, ()>(own("text")))).0, loaded);
    }
}
