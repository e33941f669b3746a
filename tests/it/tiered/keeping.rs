//! What a loader says of how its value is kept, and what is known of values that are not there, over both tiers.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use larder::{
    CacheBuilder, Clock, EntryInfo, Load, ManualClock, Namespace, Optional, RawBytes, TieredCache, TieredCacheBuilder,
};

use super::ageing::Ageing;
use super::{Pages, Stand, YEARS, load, own, settled};

const SECOND: Duration = Duration::from_secs(1);

/// As old as a copy is taken to be at most, beyond what it is.
const SLACK: Duration = Duration::from_secs(2);

/// What a loader does: says how its value is to be kept, and returns it.
type Loader = fn(&Load<String>) -> String;

/// Loads a key, and returns what the caller got.
type Way = (&'static str, fn(&Pages, Loader) -> String);

const WAYS: [Way; 4] = [
    ("get_or_load", |pages, loader| pages.get_or_load("k", |load| Ok::<_, Infallible>(loader(&load))).unwrap()),
    ("get_or_load_async", |pages, loader| {
        block_on(pages.get_or_load_async("k", |load| async move { Ok::<_, Infallible>(loader(&load)) })).unwrap()
    }),
    ("get_many_or_load", |pages, loader| {
        let answers = pages.get_many_or_load(["k"], |batch| {
            Ok::<_, Infallible>(batch.iter().map(|(key, load)| (key.clone(), loader(load))).collect())
        });
        answers.unwrap().pop().flatten().unwrap()
    }),
    ("get_many_or_load_async", |pages, loader| {
        let answers = block_on(pages.get_many_or_load_async(["k"], |batch| async move {
            Ok::<_, Infallible>(batch.iter().map(|(key, load)| (key.clone(), loader(load))).collect())
        }));
        answers.unwrap().pop().flatten().unwrap()
    }),
];

/// Returns a process with a clock of its own, which no other process moves.
fn on_a_clock(
    stand: &Stand,
    name: &str,
    set: impl FnOnce(TieredCacheBuilder<String, String>) -> TieredCacheBuilder<String, String>,
) -> (Pages, ManualClock) {
    let (clock, time) = Clock::manual();
    (super::pages(&namespace_on(stand, name, clock), set), time)
}

fn namespace_on(stand: &Stand, name: &str, clock: Clock) -> Namespace {
    let gate = stand.gate.ungated();
    let look = gate.next_look();
    settled(Namespace::builder(name, gate).clock(clock).trust(YEARS), look)
}

/// Checks a copy's deadline against the one that its original was given.
fn about(found: Option<Duration>, given: Option<Duration>) -> bool {
    match (found, given) {
        (Some(found), Some(given)) => found <= given && found + SLACK >= given,
        (None, None) => true,
        _ => false,
    }
}

#[test]
fn a_loader_chooses_deadlines_groups_and_weight_by_every_way_to_load() {
    let stand = Stand::memory();
    let secs = |secs: u64| Some(Duration::from_secs(secs));
    let cases: [(Loader, _, _); 6] = [
        (|_| own("v"), secs(3_600), secs(8 * 3_600)),
        (|load| (load.soft_ttl(50 * SECOND), own("v")).1, secs(50), secs(400)),
        (|load| (load.hard_ttl(70 * SECOND), own("v")).1, secs(70), secs(70)),
        (|load| (load.ttl(60 * SECOND), own("v")).1, secs(60), secs(60)),
        (|load| (load.never_expires(), own("v")).1, None, None),
        (|load| (load.soft_ttl(20 * SECOND), load.hard_ttl(30 * SECOND), own("v")).2, secs(20), secs(30)),
    ];
    for (way, loads) in WAYS {
        for (loader, soft, hard) in cases {
            let name = stand.fresh();
            let (pages, _time) = on_a_clock(&stand, &name, |pages| pages);
            assert_eq!(loads(&pages, loader), "v", "{way}");
            let own = pages.local().inspect("k").unwrap();
            assert_eq!((own.soft_in, own.hard_in), (soft, hard), "{way}");
            let (other, _time) = on_a_clock(&stand, &name, |pages| pages);
            assert_eq!(other.get("k").as_deref(), Some("v"));
            let copy = other.local().inspect("k").unwrap();
            assert!(about(copy.soft_in, soft) && about(copy.hard_in, hard), "{way}: {copy:?}, not {soft:?} {hard:?}");
        }
        let name = stand.fresh();
        let (pages, other) = (stand.bystander(&name), stand.bystander(&name));
        let grouped: Loader = |load| {
            load.groups(["a", "b"]);
            load.weight(5);
            own("v")
        };
        assert_eq!(loads(&pages, grouped), "v", "{way}");
        assert_eq!(pages.local().inspect("k").unwrap().weight, 5, "{way}");
        assert_eq!(other.get("k").as_deref(), Some("v"), "{way}");
        assert!(other.invalidate_group("b").is_acknowledged());
        assert_eq!(stand.bystander(&name).get("k"), None, "{way}");
    }
}

#[test]
fn what_a_loader_keeps_from_being_stored_is_in_neither_tier() {
    let stand = Stand::memory();
    for (way, loads) in WAYS {
        let name = stand.fresh();
        let (pages, other) = (stand.bystander(&name), stand.bystander(&name));
        assert_eq!(loads(&pages, |load| (load.do_not_store(), own("v")).1), "v", "{way}");
        assert_eq!((pages.local().get("k"), other.get("k")), (None, None), "{way}");
        // And holds nobody up: the lease is given back.
        assert_eq!(load(&other, "k", "w", &[]), "w", "{way}");
        assert!(pages.expire("k").is_acknowledged());
        assert_eq!(loads(&pages, |load| (load.do_not_store(), own("v")).1), "v", "{way}");
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("w"), "what was to be refreshed stays, {way}");
    }
}

#[test]
fn a_loader_learns_the_validator_of_a_value_from_the_remote_tier() {
    let stand = Stand::memory();
    for (way, loads) in WAYS {
        let name = stand.fresh();
        let other = stand.bystander(&name);
        assert_eq!(load(&other, "k", "1", &["a", "b"]), "1");
        assert!(other.expire("k").is_acknowledged());
        let validated = |pages: TieredCacheBuilder<_, _>| pages.validator(|page: &String| Some(format!("v{page}")));
        let (pages, _time) = on_a_clock(&stand, &name, validated);
        let refreshed = loads(&pages, |load| {
            assert_eq!(load.validator().as_deref(), Some("v1"));
            load.not_modified().unwrap()
        });
        assert_eq!((refreshed.as_str(), pages.local().get("k").as_deref()), ("1", Some("1")), "{way}");
        // In the groups that it had, in both tiers.
        assert!(other.invalidate_group("b").is_acknowledged());
        assert_eq!(stand.bystander(&name).get("k"), None, "{way}");
        pages.namespace().poll_now().unwrap();
        assert_eq!(pages.local().get("k"), None, "{way}");
    }
}

/// The store counts whole seconds, but what it is told by two values of one moment differs by what jitter takes off.
#[test]
fn jitter_is_in_both_deadlines_of_what_is_written() {
    fastrand::seed(4);
    let stand = Stand::memory();
    let name = stand.fresh();
    let jittered = |pages: TieredCacheBuilder<_, _>| pages.soft_ttl(1_000 * SECOND).jitter(0.5);
    let (pages, _time) = on_a_clock(&stand, &name, jittered);
    let (other, _other_time) = on_a_clock(&stand, &name, |pages| pages);
    let keys: Vec<String> = (0..200).map(|key| format!("k{key}")).collect();
    for key in &keys {
        assert_eq!(load(&pages, key, "v", &[]), "v");
    }
    let found = other.get_many(keys.iter().map(String::as_str));
    assert!(found.iter().all(Option::is_some));
    let copies: Vec<EntryInfo> = keys.iter().map(|key| other.local().inspect(key.as_str()).unwrap()).collect();
    for (key, copy) in keys.iter().zip(&copies) {
        let own = pages.local().inspect(key.as_str()).unwrap();
        assert!(about(copy.soft_in, own.soft_in) && about(copy.hard_in, own.hard_in), "{copy:?} of {own:?}");
        let (soft, hard) = (copy.soft_in.unwrap().as_secs_f64(), copy.hard_in.unwrap().as_secs_f64());
        assert!((hard / soft - 8.0).abs() < 0.1, "by the same part: {copy:?}");
    }
    let soft = || copies.iter().map(|copy| copy.soft_in.unwrap().as_secs());
    assert!(soft().min().unwrap() < 520 && soft().max().unwrap() > 980, "{:?} to {:?}", soft().min(), soft().max());
}

/// As `ahead::xfetch_is_due_as_often_as_its_formula_says`, of a value that another process has loaded.
#[test]
fn what_a_load_took_decides_when_its_value_is_refreshed_elsewhere() {
    const CALLS: u32 = 2_000;
    fastrand::seed(5);
    let stand = Stand::memory();
    let name = stand.fresh();
    let store = Ageing::over(stand.gate.ungated());
    let (pages, _gate) = store.process(&name, |pages| pages);
    let loaded = pages.get_or_load("k", |load| {
        store.pass(200 * SECOND);
        load.soft_ttl(1_000 * SECOND);
        Ok::<_, Infallible>(own("v"))
    });
    assert_eq!(loaded.unwrap(), "v");
    let eager = |pages: TieredCacheBuilder<_, _>| pages.early_refresh(1.0).stale_if_error(Duration::ZERO);
    let (other, _gate) = store.process(&name, eager);
    assert_eq!(other.get("k").as_deref(), Some("v"));
    for left in [800_u32, 400, 200, 100] {
        let left = Duration::from_secs(left.into());
        let next = other.local().inspect("k").unwrap().soft_in.unwrap() - left;
        store.pass(next);
        let due = AtomicU32::new(0);
        for _ in 0..CALLS {
            let answer = other.get_or_load("k", |_| {
                due.fetch_add(1, Ordering::Relaxed);
                Err::<String, _>("no")
            });
            assert_eq!(answer.unwrap(), "v");
        }
        let expected = (-left.as_secs_f64() / 200.0).exp();
        let share = f64::from(due.into_inner()) / f64::from(CALLS);
        let tolerance = 6.0 * (expected * (1.0 - expected) / f64::from(CALLS)).sqrt();
        assert!((share - expected).abs() < tolerance, "{left:?} left: {share}, not {expected}");
    }
}

#[test]
fn a_copy_is_due_after_a_part_of_the_time_of_its_original() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let store = Ageing::over(stand.gate.ungated());
    let (pages, _gate) = store.process(&name, |pages| pages.soft_ttl(1_000 * SECOND));
    assert_eq!(load(&pages, "k", "1", &[]), "1");
    let (other, _gate) = store.process(&name, |pages| pages.refresh_ahead(0.8));
    // What is left of its time then is no measure.
    store.pass(500 * SECOND);
    assert_eq!(other.get("k").as_deref(), Some("1"));
    let soft_in = other.local().inspect("k").unwrap().soft_in.unwrap();
    store.pass(soft_in - 200 * SECOND - Duration::from_millis(1));
    assert_eq!(load(&other, "k", "2", &[]), "1", "not yet");
    store.pass(Duration::from_millis(1));
    assert_eq!(load(&other, "k", "2", &[]), "2");
    assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("2"));
}

#[test]
fn a_refresh_ahead_takes_what_another_process_has_refreshed() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let set = |pages: TieredCacheBuilder<_, _>| pages.soft_ttl(1_000 * SECOND).refresh_ahead(0.5);
        let store = Ageing::over(stand.gate.ungated());
        let ((pages, _), (other, _)) = (store.process(&name, set), store.process(&name, set));
        assert_eq!(load(&pages, "k", "1", &[]), "1");
        assert_eq!(other.get("k").as_deref(), Some("1"));
        store.pass(600 * SECOND);
        assert_eq!(load(&pages, "k", "2", &[]), "2", "due here, {}", stand.kind());
        let loaded = other.get_or_load("k", |_| -> Result<_, ()> { panic!("it was refreshed elsewhere") });
        assert_eq!(loaded.unwrap(), "2", "due there, {}", stand.kind());
    }
}

type Names = TieredCache<String, Option<String>>;

fn names(stand: &Stand, name: &str) -> (Names, ManualClock) {
    let (clock, time) = Clock::manual();
    let namespace = namespace_on(stand, name, clock);
    let builder = TieredCache::<String, Option<String>>::builder(&namespace, "names").capacity(1_000);
    let builder = builder.soft_ttl(1_000 * SECOND).negative_ttl(30 * SECOND).codec(Optional(RawBytes));
    (builder.build().unwrap(), time)
}

#[test]
fn what_was_not_found_is_known_to_every_process() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let ((names_here, time), (names_there, _)) = (names(&stand, &name), names(&stand, &name));
        let nobody = names_here.get_or_load("k", |_| Ok::<_, Infallible>(None)).unwrap();
        assert_eq!((nobody, names_here.local().get("k")), (None, Some(None)));
        let known = names_there.get_or_load("k", |_| -> Result<_, ()> { panic!("it is known") });
        assert_eq!(known.unwrap(), None, "{}", stand.kind());
        let copy = names_there.local().inspect("k").unwrap();
        assert!(about(copy.soft_in, Some(30 * SECOND)) && about(copy.hard_in, Some(30 * SECOND)), "{copy:?}");
        time.advance(30 * SECOND);
        assert_eq!(names_here.local().get("k"), None, "dead");

        assert!(names_here.insert(own("ann"), Some(own("Ann"))).is_through());
        assert!(names_here.insert(own("none"), None).is_through());
        assert_eq!(names_there.get("ann"), Some(Some(own("Ann"))), "{}", stand.kind());
        assert_eq!(names_there.get("none"), Some(None), "{}", stand.kind());
        let left = ["ann", "none"].map(|key| names_there.local().inspect(key).unwrap().hard_in);
        assert!(about(left[0], Some(8_000 * SECOND)) && about(left[1], Some(30 * SECOND)), "{left:?}");
    }
}

#[test]
fn what_a_batch_loader_leaves_out_is_none_in_both_tiers() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (here, _time) = names(&stand, &name);
    let found = |batch: larder::Batch<String, Option<String>>| {
        batch.load("b").unwrap().groups(["g"]);
        vec![(own("a"), Some(own("Ann")))]
    };
    let answers = here.get_many_or_load(["a", "b", "c"], |batch| Ok::<_, Infallible>(found(batch)));
    assert_eq!(answers.unwrap(), [Some(Some(own("Ann"))), Some(None), Some(None)]);
    let (there, _time) = names(&stand, &name);
    let known = there.get_many_or_load(["a", "b", "c"], |_| -> Result<_, ()> { panic!("all are known") });
    assert_eq!(known.unwrap(), [Some(Some(own("Ann"))), Some(None), Some(None)]);
    assert!(there.invalidate_group("g").is_acknowledged());
    assert_eq!(there.get_many(["b", "c"]), [None, Some(None)]);
    let answers = block_on(there.get_many_or_load_async(["b"], |_| async { Ok::<_, Infallible>(Vec::new()) }));
    assert_eq!(answers.unwrap(), [Some(None)]);
}

/// A process of before, or whose cache has no options, must not take the tag for a part of the value.
#[test]
fn a_codec_without_options_misses_what_one_with_them_has_written() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (here, _time) = names(&stand, &name);
    assert!(here.insert(own("k"), Some(own("Ann"))).is_through());
    let namespace = super::namespace(&name, stand.gate.ungated());
    let plain: TieredCache<String, String> =
        TieredCache::builder(&namespace, "names").capacity(10).codec(RawBytes).build().unwrap();
    assert_eq!((plain.get("k"), plain.remote_stats().unreadable), (None, 1));
    assert!(plain.insert(own("k"), own("Ann")).is_through());
    let (here, _time) = names(&stand, &name);
    assert_eq!((here.get("k"), here.remote_stats().unreadable), (None, 1));
}

#[test]
fn a_negative_ttl_of_nothing_is_refused() {
    let stand = Stand::memory();
    let namespace = super::namespace(&stand.fresh(), stand.gate.ungated());
    let builder = TieredCache::<String, Option<String>>::builder(&namespace, "names").capacity(10);
    let error = builder.codec(Optional(RawBytes)).negative_ttl(Duration::ZERO).build().unwrap_err();
    assert!(error.to_string().contains("negative_ttl is zero"), "{error}");
    let _: CacheBuilder<String, Option<String>> = larder::Cache::builder().negative_ttl(SECOND);
}
