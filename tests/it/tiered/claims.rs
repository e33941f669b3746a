//! Claims over both tiers: one holder among all processes, fills that an invalidation refuses, and keys that are free again.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use larder::{
    Action, CallOptions, EntryOptions, Fill, InMemoryRemote, LoadErrorKind, Lookup, LostTrust, Reply, Route,
    TieredClaim,
};

use super::gate::When;
use super::{HOUR, Stand, load, own, pages, process, settled};
use crate::rules::{Pages, Process};
use crate::scene::{PATIENCE, eventually, ms, within_patience};
use crate::support;

type PageClaim = TieredClaim<String, String>;

#[track_caller]
fn vacant(lookup: Lookup<String, PageClaim>) -> PageClaim {
    match lookup {
        Lookup::Vacant(claim) => claim,
        other => panic!("{other:?} where the key is vacant"),
    }
}

/// Returns the claim of a value that is stale.
#[track_caller]
fn stale(lookup: Lookup<String, PageClaim>, old: &str) -> PageClaim {
    match lookup {
        Lookup::Stale { value, claim: Some(claim) } if value == old => claim,
        other => panic!("{other:?} where {old} is to be refreshed"),
    }
}

#[track_caller]
fn served(lookup: Lookup<String, PageClaim>, old: &str) {
    match lookup {
        Lookup::Stale { value, claim: None } if value == old => {}
        other => panic!("{other:?} where {old} is refreshed by another"),
    }
}

#[track_caller]
fn busy(lookup: &Lookup<String, PageClaim>) {
    assert!(matches!(lookup, Lookup::Busy), "{lookup:?} where another fills the key");
}

#[track_caller]
fn fresh(lookup: &Lookup<String, PageClaim>, value: &str) {
    assert!(matches!(lookup, Lookup::Fresh(found) if found == value), "{lookup:?} where there is {value}");
}

/// Polls a future until it has come to a point, and drops it.
fn drop_at<F: Future>(point: &mpsc::Receiver<()>, future: F) {
    let mut future = pin!(future);
    support::eventually("the future to come so far", || {
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        point.try_recv().ok()
    });
}

/// Waits until a process has made so many exchanges since its log was last asked for.
fn exchanges(process: &Process, count: usize) {
    let mut made = 0;
    support::eventually("the process to ask", || {
        made += process.wire.log().len();
        (made >= count).then_some(())
    });
}

#[test]
fn a_key_has_one_claim_among_all_processes() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        let claim = vacant(a.lookup("k"));
        assert_eq!((claim.key().as_str(), claim.stale()), ("k", None));
        busy(&a.lookup("k"));
        busy(&b.lookup("k"));
        assert!(matches!(b.lookup("k").or_claim(), Err(None)));
        assert_eq!(claim.fill(own("1")), Fill::Stored);
        fresh(&a.lookup("k"), "1");
        fresh(&b.lookup("k"), "1");
        assert_eq!(b.local().get("k").as_deref(), Some("1"), "copied, {}", stand.kind());
    }
}

#[test]
fn the_first_caller_past_the_soft_deadline_gets_the_claim_and_the_others_the_old_value() {
    let store = InMemoryRemote::new();
    // In the remote tier a value is taken for a second older than it may be, so that this one is stale there at once.
    let start = || Process::with(&store, |namespace| namespace, |pages| pages.soft_ttl(ms(1_000)));
    let (a, b) = (start(), start());
    a.insert("k", "old");
    fresh(&a.pages.lookup("k"), "old");
    a.time.advance(ms(1_000));
    let Err(Some(claim)) = a.pages.lookup("k").or_claim() else { panic!("the first caller is to refresh it") };
    assert_eq!(claim.stale().map(String::as_str), Some("old"));
    for pages in [&a.pages, &b.pages, &a.pages, &b.pages] {
        assert_eq!(pages.lookup("k").or_claim().ok().as_deref(), Some("old"));
    }
    assert_eq!(claim.fill(own("new")), Fill::Stored);
    assert_eq!(a.local("k").as_deref(), Some("new"));
    assert_eq!(Process::new(&store).get("k").as_deref(), Some("new"));
}

#[test]
fn a_stale_value_is_refreshed_by_one_process() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        assert!(a.insert(own("k"), own("old")).is_through());
        assert!(a.expire("k").is_acknowledged());
        let claim = stale(b.lookup("k"), "old");
        served(b.lookup("k"), "old");
        served(a.lookup("k"), "old");
        // A third one has no copy yet.
        served(stand.bystander(&name).lookup("k"), "old");
        assert_eq!(claim.fill(own("new")), Fill::Stored);
        fresh(&b.lookup("k"), "new");
        fresh(&stand.bystander(&name).lookup("k"), "new");
    }
}

#[test]
fn after_the_grace_another_may_try() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let grace = CallOptions::new().grace(ms(400));
    let first = vacant(a.pages.lookup_with("k", grace));
    a.time.advance(ms(399));
    busy(&a.pages.lookup("k"));
    busy(&b.pages.lookup("k"));
    a.time.advance(ms(1));
    // As soon as the thread that keeps the leases has seen it. For the others as well: their clocks have nothing to do with it.
    let second = support::eventually("the claim to give way", || match b.pages.lookup_with("k", grace) {
        Lookup::Vacant(claim) => Some(claim),
        other => {
            busy(&other);
            None
        }
    });
    assert!(!first.extend(HOUR), "it is over");
    assert_eq!(first.fill(own("late")), Fill::Fenced(own("late")));
    assert_eq!(second.fill(own("new")), Fill::Stored);
    assert_eq!(a.get("k").as_deref(), Some("new"));
}

#[test]
fn the_refresh_of_a_value_gives_way_after_the_grace() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.insert("k", "old");
    assert!(a.pages.expire("k").is_acknowledged());
    let first = stale(a.pages.lookup_with("k", CallOptions::new().grace(ms(400))), "old");
    served(b.pages.lookup("k"), "old");
    a.time.advance(ms(400));
    let claimed = || {
        // It is served for a while without another look.
        b.time.advance(ms(100));
        matches!(b.pages.lookup("k"), Lookup::Stale { claim: Some(_), .. })
    };
    eventually("the claim gives way", claimed);
    // Nobody has touched the key.
    assert_eq!(first.fill(own("new")), Fill::Stored);
    fresh(&Process::new(&store).pages.lookup("k"), "new");
}

#[test]
fn a_claim_that_is_extended_outlives_its_grace() {
    // Shorter than a lease, so that it is the grace that would end it.
    let store = InMemoryRemote::new();
    let short = |namespace: larder::NamespaceBuilder| namespace.lease(Duration::from_secs(3));
    let (a, b) = (Process::with(&store, short, |pages| pages), Process::new(&store));
    let grace = CallOptions::new().grace(ms(200));
    let claim = vacant(a.pages.lookup_with("k", grace));
    assert!(claim.extend(HOUR));
    a.time.advance(HOUR - ms(1));
    busy(&a.pages.lookup("k"));
    // Until it has been renewed, and so was seen by who would have given it back.
    a.wire.log();
    exchanges(&a, 2);
    busy(&b.pages.lookup("k"));
    assert!(claim.extend(HOUR));
    a.time.advance(HOUR - ms(1));
    assert_eq!(claim.fill(own("1")), Fill::Stored);
    assert_eq!(b.get("k").as_deref(), Some("1"));
}

#[test]
fn dropping_a_claim_frees_its_key_everywhere() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        drop(vacant(a.lookup("k")));
        drop(vacant(b.lookup("k")));
        drop(vacant(a.lookup("k")));
        assert!(a.insert(own("k"), own("old")).is_through());
        assert!(a.expire("k").is_acknowledged());
        drop(stale(a.lookup("k"), "old"));
        drop(stale(b.lookup("k"), "old"));
        assert_eq!(stale(a.lookup("k"), "old").fill(own("new")), Fill::Stored);
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("new"), "{}", stand.kind());
    }
}

/// Whoever it is that invalidates, and whether it reaches the key itself or a group that only the fill names.
#[test]
fn an_invalidation_refuses_the_fill() {
    type Act = fn(&Pages);
    let acts: [(&str, Act); 6] = [
        ("remove", |pages| assert!(pages.remove("k").is_acknowledged())),
        ("insert", |pages| assert!(pages.insert(own("k"), own("inserted")).is_through())),
        ("expire", |pages| assert!(pages.expire("k").is_acknowledged())),
        ("clear", |pages| assert!(pages.clear().is_acknowledged())),
        ("a group of it", |pages| assert!(pages.invalidate_group("g").is_acknowledged())),
        ("everything", |pages| assert!(pages.namespace().clear().is_acknowledged())),
    ];
    for refreshes in [false, true] {
        for (what, act) in acts {
            for by_other in [false, true] {
                let store = InMemoryRemote::new();
                let (a, b) = (Process::new(&store), Process::new(&store));
                let claim = if refreshes {
                    assert!(a.pages.insert(own("k"), own("old")).is_through());
                    assert!(a.pages.expire("k").is_acknowledged());
                    stale(a.pages.lookup("k"), "old")
                } else {
                    vacant(a.pages.lookup("k"))
                };
                act(if by_other { &b.pages } else { &a.pages });
                let case = format!("{what}, refreshes {refreshes}, by the other {by_other}");
                let filled = claim.fill_with(own("made before"), EntryOptions::new().groups(["g"]));
                assert_eq!(filled, Fill::Fenced(own("made before")), "{case}");
                for process in [&a, &b, &Process::new(&store)] {
                    process.look();
                    assert_ne!(process.get("k").as_deref(), Some("made before"), "{case}");
                }
            }
        }
    }
}

/// The holder has heard nothing yet, and the group is named by the fill alone.
#[test]
fn a_bump_that_only_the_journal_tells_of_refuses_the_fill() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.process(&name), stand.bystander(&name));
        let claim = vacant(a.lookup("k"));
        stand.gate.reset();
        let other = b.clone();
        // So that the tokens which the fill reads are the new ones, and only the journal behind them tells.
        stand.gate.at(0, When::Before, move || assert!(other.invalidate_group("g").is_acknowledged()));
        let filled = claim.fill_with(own("1"), EntryOptions::new().groups(["g"]));
        assert_eq!(filled, Fill::Fenced(own("1")), "{}", stand.kind());
        assert_eq!((a.local().get("k"), b.get("k")), (None, None), "{}", stand.kind());
    }
}

#[test]
fn whoever_waits_gets_what_another_process_fills_in() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let (a, b) = (stand.bystander(&name), stand.bystander(&name));
        let claim = vacant(a.lookup("k"));
        busy(&b.lookup_wait("k", Duration::ZERO));
        let (pages, tasks) = (b.clone(), b.clone());
        let waits = thread::spawn(move || pages.lookup_wait("k", PATIENCE));
        let here = a.clone();
        let waits_here = thread::spawn(move || here.lookup_wait("k", PATIENCE));
        let waits_there = thread::spawn(move || futures::executor::block_on(tasks.lookup_wait_async("k", PATIENCE)));
        assert_eq!(claim.fill(own("1")), Fill::Stored);
        for waits in [waits, waits_here, waits_there] {
            fresh(&waits.join().unwrap(), "1");
        }
    }
}

#[test]
fn whoever_waits_takes_over_what_another_process_gives_up() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let claim = vacant(a.pages.lookup("k"));
    b.wire.log();
    let other = b.clone();
    let waits = thread::spawn(move || vacant(other.pages.lookup_wait("k", PATIENCE)).fill(own("of b")));
    exchanges(&b, 2);
    drop(claim);
    assert_eq!(waits.join().unwrap(), Fill::Stored);
    assert_eq!(a.get("k").as_deref(), Some("of b"));
}

#[test]
fn a_claim_runs_a_loader() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let loaded = vacant(a.pages.lookup("k")).load(|load| {
        load.groups(["g"]);
        busy(&b.pages.lookup("k"));
        Ok::<_, Infallible>(own("1"))
    });
    assert_eq!(loaded.unwrap(), "1");
    assert_eq!(b.get("k").as_deref(), Some("1"));
    assert!(b.pages.expire_group("g").is_acknowledged());
    a.look();
    let refreshed = stale(a.pages.lookup("k"), "1").load_async(|load| async move {
        assert_eq!(load.stale().map(String::as_str), Some("1"));
        Ok::<_, Infallible>(own("2"))
    });
    assert_eq!(futures::executor::block_on(refreshed).unwrap(), "2");
    assert_eq!(Process::new(&store).get("k").as_deref(), Some("2"));
    let failed = vacant(a.pages.lookup("l")).load(|_| Err::<String, _>("no"));
    assert_eq!(failed.unwrap_err().kind(), LoadErrorKind::Loader);
    drop(vacant(b.pages.lookup("l")));
}

#[test]
fn a_panic_in_a_claims_loader_frees_the_key_everywhere() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let claim = vacant(a.pages.lookup("k"));
    let panics =
        std::panic::AssertUnwindSafe(|| claim.load(|_| -> Result<String, Infallible> { panic!("the loader") }));
    assert!(std::panic::catch_unwind(panics).is_err());
    drop(vacant(b.pages.lookup("k")));
    drop(vacant(a.pages.lookup("k")));
}

#[test]
fn while_the_remote_tier_is_off_a_claim_is_that_of_the_process() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    store.offline(true);
    let claim = vacant(a.pages.lookup("k"));
    busy(&a.pages.lookup("k"));
    let other = vacant(b.pages.lookup("k"));
    assert!(claim.extend(HOUR));
    assert_eq!(claim.fill(own("of a")), Fill::Stored);
    fresh(&a.pages.lookup("k"), "of a");
    drop(other);
    store.offline(false);
    assert_eq!(b.get("k"), None, "the fill stayed where it was");
    // Taken while the remote tier answered, and filled while it does not: nothing says that the value is out of date.
    let claim = vacant(b.pages.lookup("l"));
    store.offline(true);
    assert_eq!(claim.fill(own("of b")), Fill::Stored);
    assert!(b.pages.remote_stats().errors > 0);
    assert_eq!(b.local("l").as_deref(), Some("of b"));
}

#[test]
fn once_trust_has_lapsed_lookups_do_as_loads_do() {
    let store = InMemoryRemote::new();
    let (a, refusing) = (
        Process::new(&store),
        Process::with(&store, |builder| builder.on_lost_trust(LostTrust::Refuse), |pages| pages),
    );
    a.insert("k", "1");
    assert_eq!(refusing.get("k").as_deref(), Some("1"));
    a.lapse();
    refusing.lapse();
    // A look at the journal restores it.
    fresh(&a.pages.lookup("k"), "1");
    a.lapse();
    store.offline(true);
    let claim = vacant(a.pages.lookup("k"));
    busy(&a.pages.lookup("k"));
    assert_eq!(claim.fill(own("2")), Fill::Stored);
    fresh(&a.pages.lookup("k"), "2");
    busy(&refusing.pages.lookup("k"));
}

/// It may have been read from its source when the claim was taken, and so be as old as that.
#[test]
fn what_is_filled_by_hand_is_vouched_for_from_the_moment_of_its_claim() {
    let store = InMemoryRemote::new();
    let trust = Duration::from_secs(70 * 60);
    // How long a load took is recorded to a part in 2,048, which a value is vouched for less long.
    let rounding = trust / 2_048;
    let a = Process::with(&store, |namespace| namespace.trust(trust), |pages| pages);
    a.lapse();
    store.offline(true);
    let claim = vacant(a.pages.lookup_with("k", CallOptions::new().grace(10 * HOUR)));
    a.time.advance(trust - rounding);
    assert_eq!(claim.fill(own("1")), Fill::Stored);
    fresh(&a.pages.lookup("k"), "1");
    a.time.advance(rounding);
    drop(vacant(a.pages.lookup("k")));
}

/// Whoever reads claims a key for the time of its read, and fills nothing.
#[test]
fn a_lookup_beside_a_read_gets_the_claim() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let pages = stand.process(&name);
    stand.gate.reset();
    let ((reads, reading), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    stand.gate.at(0, When::Before, move || {
        reads.send(()).unwrap();
        let _ = released.recv_timeout(PATIENCE);
    });
    let reader = thread::spawn({
        let pages = pages.clone();
        move || pages.get("k")
    });
    reading.recv_timeout(PATIENCE).unwrap();
    // The read is over by the time that the lookup, which finds somebody at the key, has asked in its turn.
    stand.gate.at(1, When::Before, move || {
        drop(release);
        assert_eq!(reader.join().unwrap(), None);
    });
    assert_eq!(vacant(pages.lookup("k")).fill(own("1")), Fill::Stored);
}

/// Neither is it left out: the store elects, and has the old value.
#[test]
fn a_local_tier_that_stores_nothing_leaves_the_claim_to_the_remote_one() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let none = || process(&name, stand.gate.ungated(), |pages| pages.capacity(0));
        let (a, b) = (none(), none());
        let claim = vacant(a.lookup("k"));
        busy(&a.lookup("k"));
        busy(&b.lookup("k"));
        assert_eq!(claim.fill(own("old")), Fill::Stored, "{}", stand.kind());
        fresh(&a.lookup("k"), "old");
        fresh(&b.lookup("k"), "old");
        assert!(b.expire("k").is_acknowledged());
        let Err(Some(claim)) = a.lookup("k").or_claim() else { panic!("the first caller is to refresh it") };
        served(a.lookup("k"), "old");
        served(b.lookup("k"), "old");
        assert_eq!(claim.fill(own("new")), Fill::Stored);
        fresh(&b.lookup("k"), "new");
        assert!(b.remove("k").is_acknowledged());
        drop(vacant(a.lookup("k")));
        drop(vacant(b.lookup("k")));
    }
}

#[test]
fn a_value_that_fits_neither_tier_is_handed_back() {
    let store = InMemoryRemote::new();
    let a = Process::with(&store, |namespace| namespace, |pages| pages.capacity(0));
    let claim = vacant(a.pages.lookup("k"));
    store.offline(true);
    assert_eq!(claim.fill(own("1")), Fill::Rejected(own("1")));
}

#[test]
fn a_lookup_that_is_dropped_half_way_leaves_the_key_free() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (a, b) = (stand.process(&name), stand.bystander(&name));
    stand.gate.reset();
    let ((reaches, reached), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    stand.gate.at(0, When::After, move || {
        reaches.send(()).unwrap();
        let _ = released.recv_timeout(PATIENCE);
    });
    drop_at(&reached, a.lookup_async("k"));
    // Its lease is taken by now, and its answer late.
    drop(release);
    eventually("the key is free", || matches!(b.lookup("k"), Lookup::Vacant(_)));
    drop(vacant(a.lookup("k")));
}

#[test]
fn a_fill_that_is_dropped_half_way_leaves_the_key_free() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (a, b) = (stand.process(&name), stand.bystander(&name));
    let claim = within_patience("a lookup", {
        let a = a.clone();
        move || vacant(futures::executor::block_on(a.lookup_async("k")))
    });
    stand.gate.reset();
    stand.gate.rewrite(|command, reply| match command.action {
        // Nothing is written.
        Action::Set { .. } if command.route == Route::ByKey => Ok(Reply::NotStored),
        _ => reply,
    });
    drop(claim.fill_async(own("never polled")));
    eventually("the key is free", || matches!(b.lookup("k"), Lookup::Vacant(_)));
    let claim = vacant(a.lookup("k"));
    let mut load = Box::pin(claim.load_async(|_| std::future::pending::<Result<String, Infallible>>()));
    assert!(load.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    busy(&b.lookup("k"));
    drop(load);
    eventually("the key is free", || matches!(b.lookup("k"), Lookup::Vacant(_)));
    drop(vacant(a.lookup("k")));
}

#[test]
fn claims_move_between_threads_and_runtimes() {
    fn movable<T: Send + 'static>(claim: T) -> T {
        claim
    }
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    // Taken by a thread, and filled by a future: nothing blocks there.
    let claim = movable(vacant(a.pages.lookup("k")));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let filled = within_patience("the fill", move || {
        runtime.block_on(runtime.spawn(claim.fill_with_async(own("1"), EntryOptions::new())).into_future()).unwrap()
    });
    assert_eq!(filled, Fill::Stored);
    // The other way round.
    let claim = within_patience("the lookup", move || vacant(futures::executor::block_on(b.pages.lookup_async("l"))));
    assert_eq!(thread::spawn(move || claim.fill(own("2"))).join().unwrap(), Fill::Stored);
    assert_eq!((a.get("k").as_deref(), a.get("l").as_deref()), (Some("1"), Some("2")));
}

#[test]
fn a_lease_is_renewed_while_its_claim_is_held() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let builder = larder::Namespace::builder(&name, stand.gate.clone()).lease(Duration::from_secs(3));
    let namespace = settled(builder.poll_interval(HOUR).trust(super::YEARS), stand.gate.next_look());
    let pages = pages(&namespace, |pages| pages);
    stand.gate.reset();
    let claim = vacant(pages.lookup("k"));
    let [lease] = stand.gate.keys().try_into().unwrap();
    let look = Action::Get { value: false, lease: None, touch: None };
    // The read that took the lease, then a look and a touch for each renewal. The second touch has been carried out before the
    // fill: it would be the value that it touches, and spoils.
    let (touched, renewed) = mpsc::channel();
    stand.gate.at(4, When::After, move || touched.send(()).unwrap());
    eventually("the lease is renewed twice", || {
        assert!(matches!(stand.gate.run_one(&lease, Route::ByKey, look), Reply::Busy(_)));
        renewed.try_recv().is_ok()
    });
    assert_eq!(claim.fill(own("1")), Fill::Stored);
    assert_eq!(load(&stand.process(&name), "k", "again", &[]), "1");
}

#[test]
fn a_call_says_which_tier_it_passes_by() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let options = CallOptions::new();
    // Not asked, and not written to.
    let claim = vacant(a.pages.lookup_with("k", options.skip_remote()));
    drop(vacant(b.pages.lookup("k")));
    busy(&a.pages.lookup("k"));
    assert_eq!(claim.fill(own("of a")), Fill::Stored);
    assert_eq!(b.get("k"), None);
    fresh(&a.pages.lookup_with("k", options.skip_remote()), "of a");
    // Neither served from nor stored to; there is one claim all the same.
    let claim = vacant(a.pages.lookup_with("k", options.skip_local()));
    busy(&b.pages.lookup("k"));
    busy(&a.pages.lookup_with("k", options.skip_local()));
    fresh(&a.pages.lookup("k"), "of a");
    assert_eq!(claim.fill(own("of both")), Fill::Stored);
    assert_eq!(a.local("k").as_deref(), Some("of a"));
    fresh(&a.pages.lookup_with("k", options.skip_local()), "of both");
    assert_eq!(a.local("k").as_deref(), Some("of a"), "not copied");
    fresh(&b.pages.lookup("k"), "of both");
    // What is to be refreshed there is claimed, whatever is here.
    assert!(b.pages.expire("k").is_acknowledged());
    let Err(Some(claim)) = a.pages.lookup_with("k", options.skip_local()).or_claim() else { panic!("it is stale") };
    assert_eq!(claim.fill(own("newer")), Fill::Stored);
    assert_eq!(a.local("k").as_deref(), Some("of a"));
    assert_eq!(Process::new(&store).get("k").as_deref(), Some("newer"));
}

#[test]
fn a_call_that_only_reads_claims_nothing() {
    let store = InMemoryRemote::new();
    let (a, b) = (Process::new(&store), Process::new(&store));
    let (read_only, no_refresh) = (CallOptions::new().read_only(), CallOptions::new().no_refresh());
    busy(&a.pages.lookup_with("k", read_only));
    let claim = vacant(a.pages.lookup_with("k", no_refresh));
    busy(&b.pages.lookup_with("k", no_refresh));
    assert_eq!(claim.fill(own("1")), Fill::Stored);
    fresh(&b.pages.lookup_with("k", read_only), "1");
    assert_eq!(b.local("k"), None, "not copied");
    fresh(&b.pages.lookup_with("k", no_refresh), "1");
    assert_eq!(b.local("k").as_deref(), Some("1"), "copied");
    assert!(a.pages.expire("k").is_acknowledged());
    let c = Process::new(&store);
    for options in [read_only, no_refresh] {
        served(a.pages.lookup_with("k", options), "1");
        served(c.pages.lookup_with("k", options), "1");
    }
    // It is left to whoever may.
    drop(stale(c.pages.lookup("k"), "1"));
}

#[test]
fn a_lookup_goes_on_without_a_remote_tier_that_takes_too_long() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (a, b) = (stand.process(&name), stand.bystander(&name));
    assert!(b.insert(own("k"), own("1")).is_through());
    stand.gate.reset();
    let (release, released) = mpsc::channel::<()>();
    stand.gate.at(0, When::Before, move || {
        let _ = released.recv_timeout(PATIENCE);
    });
    let claim = vacant(a.lookup_with("k", CallOptions::new().hard_timeout(ms(20))));
    assert_eq!(claim.fill(own("of a")), Fill::Stored);
    assert_eq!(a.local().get("k").as_deref(), Some("of a"));
    drop(release);
    assert_eq!(b.get("k").as_deref(), Some("1"), "it was not written");
}
