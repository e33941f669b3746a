//! Namespaces, tiered caches, counters.

use std::convert::Infallible;
use std::hash::Hash;
use std::time::{Duration, Instant};

use larder::{
    Action, Announce, Batch, CallOptions, Change, Clock, Command, EntryOptions, Expiry, InMemoryRemote, Load,
    LoadErrorKind, Lookup, LostTrust, Namespace, NamespaceBuilder, RawBytes, RemoteErrorKind, RemoteKey, RemoteTier,
    Route, SetMode, TieredCache, TieredCacheBuilder, WireKey, Write, WriteMode,
};

use crate::loads::Silent;
use crate::{SECOND, huge, refused};

/// A second takes none of these tests; a machine that stands still must not fail them.
const PATIENCE: Duration = Duration::from_secs(60);

fn builder(store: &InMemoryRemote) -> NamespaceBuilder {
    Namespace::builder("ns", store.clone()).timeout(PATIENCE)
}

fn namespace() -> Namespace {
    builder(&InMemoryRemote::new()).build().unwrap()
}

fn pages<K, V>(namespace: &Namespace) -> TieredCacheBuilder<K, V>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    TieredCache::builder(namespace, "pages").capacity(100)
}

fn texts(namespace: &Namespace) -> TieredCache<String, String> {
    pages(namespace).codec(RawBytes).build().unwrap()
}

#[test]
fn names_in_the_remote_tier_are_printable_and_short() {
    let long = "n".repeat(65);
    for (name, says) in [
        ("", "is empty"),
        ("a:b", "holds ':'"),
        ("a b", "holds ' '"),
        ("größe", "holds 'ö'"),
        ("a\0", "holds '\\0'"),
        (&long, "has 65 bytes, and at most 64"),
    ] {
        let quoted = format!("{name:?}");
        refused(Namespace::builder(name, InMemoryRemote::new()).build(), &["namespace name", &quoted, says]);
        if !name.is_empty() {
            refused(builder(&InMemoryRemote::new()).version(name).build(), &["version name", &quoted, says]);
        }
        let builder = TieredCache::<String, String>::builder(&namespace(), name).capacity(1).codec(RawBytes);
        refused(builder.build(), &["cache name", &quoted, says]);
    }
    let longest = "n".repeat(64);
    let namespace = Namespace::builder(&longest, InMemoryRemote::new()).version(&longest).build().unwrap();
    let cache = TieredCache::builder(&namespace, &longest).capacity(0).codec(RawBytes).build().unwrap();
    let key = huge();
    assert!(matches!(cache.insert(key.clone(), "value".to_owned()), Write::RemoteOnly(_)));
    assert_eq!(cache.get(&key).as_deref(), Some("value"), "which is behind the longest names that there are");
}

#[test]
fn a_namespaces_intervals_are_checked() {
    let builder = || builder(&InMemoryRemote::new());
    refused(builder().timeout(Duration::ZERO).build(), &["timeout is zero", "set how long"]);
    for interval in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let says = [&format!("poll_interval is {interval:?}")[..], "set 1 ms to"];
        refused(builder().poll_interval(interval).trust(Duration::MAX).build(), &says);
        refused(builder().lease(interval).build(), &[&format!("lease is {interval:?}"), "set 3s to"]);
    }
    refused(builder().trust(Duration::ZERO).build(), &["trust is 0ns", "poll_interval is 50ms", "set trust"]);
    let longest = builder().timeout(Duration::MAX).trust(Duration::MAX).on_lost_trust(LostTrust::Refuse);
    let namespace = longest.announce(Announce::Groups).clock(Clock::system()).build().unwrap();
    assert_eq!(texts(&namespace).get_or_load("k", |_| Ok::<_, ()>("v".to_owned())).unwrap(), "v");
    let shortest = builder().timeout(Duration::from_nanos(1)).build().unwrap();
    // Nothing is asked in time, and so nothing is found.
    assert_eq!(texts(&shortest).get("k"), None);
}

#[test]
fn a_queue_of_none_is_an_error_and_one_without_end_takes_no_memory() {
    let behind = |queue| builder(&InMemoryRemote::new()).write_mode(WriteMode::Behind { queue }).build();
    refused(behind(0), &["queue of 0", "set 1 or more"]);
    let namespace = behind(usize::MAX).unwrap();
    let Write::Queued(receipt) = texts(&namespace).insert("k".to_owned(), "v".to_owned()) else { panic!("it waits") };
    let _ = receipt.wait(Duration::ZERO);
    assert!(receipt.wait(Duration::MAX));
    assert!(namespace.shutdown(Duration::MAX).is_ok());
}

#[test]
fn a_shutdown_may_have_no_time_and_all() {
    for limit in [Duration::ZERO, Duration::MAX] {
        let namespace = namespace();
        assert!(namespace.shutdown(limit).is_ok(), "nothing is owed");
    }
    let store = InMemoryRemote::new();
    let namespace = builder(&store).build().unwrap();
    store.offline(true);
    let bump = namespace.invalidate_group("g");
    assert!(!bump.is_acknowledged());
    let unsent = namespace.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!((unsent.deletions(), unsent.bumps(), unsent.writes()), (0, 1, 0));
}

#[test]
fn a_tiered_cache_needs_capacity_and_codec_and_its_settings_are_those_of_the_local_tier() {
    let namespace = namespace();
    let pages = || pages::<String, String>(&namespace);
    refused(pages().build(), &["codec is not set", "RawBytes"]);
    let bare = TieredCache::<String, String>::builder(&namespace, "pages").codec(RawBytes);
    refused(bare.build(), &["capacity is not set"]);
    let refused_setting =
        |builder: TieredCacheBuilder<String, String>, says| refused(builder.codec(RawBytes).build(), &[says]);
    refused_setting(pages().shards(3), "shards is 3");
    refused_setting(pages().ttl(Duration::ZERO), "ttl is zero");
    refused_setting(pages().soft_ttl(Duration::ZERO), "soft_ttl is zero");
    refused_setting(pages().hard_ttl(Duration::ZERO), "hard_ttl is zero");
    refused_setting(pages().hard_ttl_factor(0), "hard_ttl_factor is 0");
    refused_setting(pages().grace(Duration::ZERO), "grace is zero");
    refused_setting(pages().jitter(f64::NAN), "jitter is NaN");
    refused_setting(pages().early_refresh(f64::NAN), "early_refresh is NaN");
    refused_setting(pages().refresh_ahead(f64::NAN), "refresh_ahead is NaN");
    let names = TieredCache::<String, Option<String>>::builder(&namespace, "names").capacity(1);
    let names = names.negative_ttl(Duration::ZERO).codec(larder::Optional(RawBytes));
    refused(names.build(), &["negative_ttl is zero"]);

    let longest =
        pages().soft_ttl(Duration::MAX).hard_ttl_factor(u32::MAX).grace(Duration::MAX).load_wait(Duration::MAX);
    let longest = longest.stale_if_error(Duration::MAX).weigher(|_, _| u64::MAX).validator(|_| Some(String::new()));
    let cache = longest.on_removal(|_, _, _| {}).hasher(std::hash::RandomState::new()).codec(RawBytes).build().unwrap();
    let Write::RemoteOnly(rejected) = cache.insert("k".to_owned(), "v".to_owned()) else { panic!("it is too heavy") };
    assert_eq!(rejected.weight, u64::MAX);
    assert_eq!(cache.get("k").as_deref(), Some("v"));
}

#[cfg(feature = "lz4")]
#[test]
fn a_compressions_limits_are_checked() {
    use larder::Compression;

    let namespace = namespace();
    let build = |compression| pages::<String, String>(&namespace).codec(RawBytes).compression(compression).build();
    let lz4 = Compression::lz4;
    refused(build(lz4().above(usize::MAX)), &["above", &usize::MAX.to_string(), "nothing would be compressed"]);
    refused(build(lz4().above(9).unpacks_to_at_most(9)), &["above 9 bytes", "at most 9", "set the latter above"]);
    refused(build(lz4().unpacks_to_at_most(0)), &["at most 0", "set the latter above"]);
    refused(build(lz4().unpacks_to_at_most(usize::MAX)), &[&usize::MAX.to_string(), "67108864", "or less"]);
    let cache = build(lz4().above(0).unpacks_to_at_most(64 << 20)).unwrap();
    for value in ["", "a", &huge()] {
        assert!(cache.insert("k".to_owned(), value.to_owned()).is_through());
        cache.set_capacity(0);
        assert_eq!(cache.get("k").as_deref(), Some(value));
        cache.set_capacity(100);
    }
}

#[test]
fn keys_of_the_remote_tier_may_be_any_bytes() {
    let namespace = namespace();
    let cache: TieredCache<Vec<u8>, String> = pages(&namespace).codec(RawBytes).build().unwrap();
    let huge = huge().into_bytes();
    let keys = [&b""[..], b"\xff\xfe", b"a b\r\nflush_all\r\n", b"~", b":", &huge];
    for (at, key) in keys.into_iter().enumerate() {
        assert!(cache.insert(key.to_vec(), at.to_string()).is_through());
    }
    // From the remote tier: the local one holds nothing any more.
    cache.set_capacity(0);
    for (at, key) in keys.into_iter().enumerate() {
        let value = Some(at.to_string());
        assert_eq!((cache.get(key), cache.contains(key), cache.local().get(key)), (value.clone(), true, None));
        assert_eq!(cache.with(key, String::clone), value);
        assert_eq!((cache.peek(key), cache.local().contains(key)), (None, false));
        assert!(cache.inspect(key).is_none() && cache.local().inspect(key).is_none());
        assert_eq!((cache.local().peek(key), cache.local().with(key, |_| ())), (None, None));
        assert!(!cache.add(key.to_vec(), String::new()).is_stored());
        assert_eq!(cache.update(key, |value| format!("{value}!")), Some(format!("{at}!")));
        assert_eq!(cache.get_or_insert_with(key, || "made".to_owned()), format!("{at}!"));
        assert!(cache.expire(key).is_acknowledged());
        assert!(cache.remove(key).is_acknowledged());
        assert_eq!(cache.get(key), None);
        assert!(matches!(cache.lookup_wait(key, Duration::MAX), Lookup::Vacant(_)));
    }
}

#[test]
fn values_may_be_empty_and_one_too_long_stays_in_the_local_tier() {
    let store = InMemoryRemote::new();
    let namespace = builder(&store).build().unwrap();
    let cache = texts(&namespace);
    assert!(cache.insert("k".to_owned(), String::new()).is_through());
    cache.set_capacity(0);
    assert_eq!(cache.get("k").as_deref(), Some(""));
    cache.set_capacity(100);
    let Write::LocalOnly(error, receipt) = cache.insert("k".to_owned(), huge()) else { panic!("it is too long") };
    assert_eq!(error.kind(), RemoteErrorKind::TooLarge);
    assert!(error.to_string().contains("larger than the store's 1048064"), "{error}");
    assert!(receipt.wait(PATIENCE), "what was there before is deleted");
    assert_eq!(cache.get("k").map(|value| value.len()), Some(1 << 20));
    let tiny = builder(&InMemoryRemote::new().with_max_value_len(0)).build().unwrap();
    let Write::LocalOnly(error, _) = texts(&tiny).insert("k".to_owned(), "v".to_owned()) else {
        panic!("nothing fits")
    };
    assert_eq!(error.kind(), RemoteErrorKind::TooLarge);
}

#[test]
fn what_is_no_value_is_a_miss() {
    let store = InMemoryRemote::new();
    let namespace = builder(&store).build().unwrap();
    let bytes: TieredCache<String, Vec<u8>> = pages(&namespace).codec(RawBytes).build().unwrap();
    assert!(bytes.insert("k".to_owned(), b"\xff".to_vec()).is_through());
    let texts = texts(&namespace);
    assert_eq!(texts.get("k"), None, "it is no text");
    let key = WireKey::new("ns::v:pages:k").unwrap();
    for garbage in [&b""[..], b"garbage", &[0; 1_000]] {
        let set = Action::Set { value: garbage, expiry: Expiry::Never, mode: SetMode::Always, cas: None };
        assert!(store.run(&[Command { key: &key, route: Route::ByKey, action: set }], PATIENCE)[0].is_ok());
        assert_eq!(texts.get("k"), None);
    }
    assert_eq!(texts.get_or_load("k", |_| Ok::<_, ()>("v".to_owned())).unwrap(), "v");
}

#[test]
fn an_entry_of_the_remote_tier_has_at_most_253_groups() {
    let namespace = namespace();
    let cache = texts(&namespace);
    let grouped = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        cache.insert_with("k".to_owned(), "v".to_owned(), EntryOptions::new().groups(names))
    };
    assert!(grouped(253).is_through());
    let Write::LocalOnly(error, _) = grouped(254) else { panic!("they are too many") };
    assert_eq!(error.kind(), RemoteErrorKind::Codec);
    assert!(error.to_string().contains("at most 255"), "{error}");
}

#[test]
fn groups_of_a_namespace_may_be_called_anything() {
    let namespace = namespace();
    let cache = texts(&namespace);
    let huge = huge();
    for name in ["", "\0\n", "größe", "a:b", &huge] {
        let options = || EntryOptions::new().groups([name, name]);
        assert!(cache.insert_with("k".to_owned(), "v".to_owned(), options()).is_through());
        assert!(cache.expire_group(name).is_acknowledged() && namespace.expire_group(name).is_acknowledged());
        assert_eq!(cache.get("k").as_deref(), Some("v"));
        assert!(cache.invalidate_group(name).is_acknowledged());
        assert_eq!(cache.get("k"), None);
        assert!(cache.insert_with("k".to_owned(), "v".to_owned(), options()).is_through());
        assert!(namespace.invalidate_groups([name, name]).is_acknowledged());
        assert_eq!(cache.get("k"), None);
        assert!(namespace.invalidate_group(name).is_acknowledged());
        assert!(cache.invalidate_groups([name]).is_acknowledged());
    }
    assert!(namespace.invalidate_groups(std::iter::empty::<&str>()).is_acknowledged());
    assert!(cache.invalidate_groups(std::iter::empty::<&str>()).is_acknowledged());
    assert!(namespace.invalidate_from([Change::default()]).is_acknowledged());
    assert!(cache.invalidate_from([Change::invalidate(["", &huge])]).is_acknowledged());
}

#[test]
fn lists_for_both_tiers_may_be_empty_and_say_things_twice() {
    let cache = texts(&namespace());
    let nothing: [&str; 0] = [];
    assert_eq!(cache.get_many(nothing), []);
    assert_eq!(cache.get_many_with(nothing, CallOptions::new()), []);
    assert_eq!(cache.insert_many([]).len(), 0);
    assert!(cache.remove_many(nothing).is_acknowledged());
    assert_eq!((cache.warm_up([]), cache.warm_up_with([]), cache.warm_up_from_remote(nothing)), (0, 0, 0));
    let loaded =
        cache.get_many_or_load(nothing, |_| -> Result<Vec<(String, String)>, ()> { panic!("nothing is asked") });
    assert_eq!(loaded.unwrap(), []);
    let twice = cache.insert_many([("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())]);
    assert!(twice.iter().all(Write::is_through));
    assert_eq!(cache.get_many(["k", "k"]), [Some("2".to_owned()), Some("2".to_owned())]);
    assert!(cache.remove_many(["k", "k"]).is_acknowledged());
    assert!(cache.retain(|_, _| panic!("nothing is there")).is_acknowledged());
}

#[test]
fn a_tiered_calls_timeout_may_be_nothing_and_forever() {
    let cache = texts(&namespace());
    for wait in [Duration::ZERO, Duration::MAX] {
        let soft = CallOptions::new().soft_timeout(wait).grace(wait);
        assert_eq!(cache.get_or_load_with("k", soft, |_| Ok::<_, ()>("v".to_owned())).unwrap(), "v");
        assert_eq!(cache.get_with("k", soft).as_deref(), Some("v"));
        assert!(matches!(cache.lookup_with("k", soft), Lookup::Fresh(_)));
    }
    let never = CallOptions::new().hard_timeout(Duration::ZERO).skip_local();
    // The remote tier may be as fast as that.
    assert!(cache.get_with("k", never).is_none_or(|value| value == "v"));
    let forever = CallOptions::new().hard_timeout(Duration::MAX).skip_local();
    assert_eq!(cache.get_with("k", forever).as_deref(), Some("v"));
}

#[test]
fn a_tiered_claim_may_be_extended_by_nothing_and_forever() {
    let cache = texts(&namespace());
    let Lookup::Vacant(claim) = cache.lookup("k") else { panic!("nobody has it") };
    assert!(claim.extend(Duration::MAX));
    assert!(claim.fill(String::new()).is_stored());
    let Lookup::Vacant(claim) = cache.lookup("l") else { panic!("nobody has it") };
    let _ = claim.extend(Duration::ZERO);
    // The lease in the remote tier is given back in the background.
    let started = Instant::now();
    let next = loop {
        if let Lookup::Vacant(next) = cache.lookup("l") {
            break next;
        }
        assert!(started.elapsed() < PATIENCE, "the claim is over");
        std::thread::yield_now();
    };
    assert!(!claim.extend(Duration::MAX) && !claim.fill("late".to_owned()).is_stored());
    assert!(next.fill_with("v".to_owned(), EntryOptions::new().ttl(Duration::MAX)).is_stored());
    assert_eq!(cache.get("l").as_deref(), Some("v"));
}

#[test]
fn deadlines_of_the_remote_tier_may_be_nothing_and_forever() {
    let cache = texts(&namespace());
    let insert = |ttl| cache.insert_with("k".to_owned(), "v".to_owned(), EntryOptions::new().ttl(ttl));
    assert!(insert(Duration::ZERO).is_through());
    assert_eq!(cache.get("k"), None);
    for ttl in [Duration::MAX, Duration::from_secs(u64::from(u32::MAX))] {
        assert!(insert(ttl).is_through());
        cache.set_capacity(0);
        assert_eq!(cache.get("k").as_deref(), Some("v"), "the store has kept it");
        cache.set_capacity(100);
    }
}

#[test]
fn a_counter_may_have_any_name_and_any_number() {
    let namespace = namespace();
    let huge = huge();
    for name in ["", "a b\r\n", "größe", ":", &huge] {
        let counter = namespace.counter(name);
        assert_eq!(counter.get().unwrap(), None);
        assert_eq!(counter.incr(0).unwrap(), 0);
        assert_eq!(counter.decr(u64::MAX).unwrap(), 0, "it stops at 0");
        assert_eq!(counter.incr(u64::MAX).unwrap(), u64::MAX);
        assert_eq!(counter.incr(2).unwrap(), 1, "it goes on from 0");
        counter.set(u64::MAX).unwrap();
        assert_eq!(counter.get().unwrap(), Some(u64::MAX));
    }
    let counter = namespace.counter("fresh").initial(u64::MAX);
    assert_eq!(counter.incr(2).unwrap(), 1);
    let (clock, time) = Clock::manual();
    let namespace = builder(&InMemoryRemote::new().with_clock(clock)).build().unwrap();
    for (ttl, lives) in [(Duration::ZERO, false), (Duration::MAX, true)] {
        let counter = namespace.counter(&format!("{ttl:?}")).ttl(ttl);
        assert_eq!((counter.incr(1).unwrap(), counter.get().unwrap()), (1, Some(1)));
        time.advance(SECOND);
        assert_eq!(counter.get().unwrap().is_some(), lives, "{ttl:?}");
    }
}

#[test]
fn a_counter_over_what_is_no_number_is_refused() {
    let store = InMemoryRemote::new();
    let counter = builder(&store).build().unwrap().counter("n");
    let key = WireKey::new("ns::c:n").unwrap();
    for garbage in [&b""[..], b"-1", b"1e9", b"99999999999999999999", b"\xff", b" 1"] {
        let set = Action::Set { value: garbage, expiry: Expiry::Never, mode: SetMode::Always, cas: None };
        assert!(store.run(&[Command { key: &key, route: Route::ByKey, action: set }], SECOND)[0].is_ok());
        let error = counter.get().unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Refused);
        assert!(error.to_string().contains("ns::c:n") && error.to_string().contains("no number"), "{error}");
        assert_eq!(counter.incr(1).unwrap_err().kind(), RemoteErrorKind::Refused, "{}", garbage.escape_ascii());
    }
}

#[test]
fn registered_loads_of_both_tiers_are_checked() {
    let namespace = namespace();
    let load = |key: &String, _: Load<String>| Ok::<_, Infallible>(key.clone());
    let builder = || pages::<String, String>(&namespace).codec(RawBytes);
    refused(builder().shards(3).loader(load).build(), &["shards is 3"]);
    refused(builder().loader(load).hard_timeout(Duration::ZERO).build(), &["hard_timeout is zero"]);
    let futures = builder().async_loader(|key: String, _: Load<String>| async { Ok::<_, Infallible>(key) });
    refused(futures.load_threads(0).build(), &["load_threads is 0"]);
    let batches = |_: Batch<String, String>| async { Ok::<_, Infallible>(Vec::new()) };
    refused(builder().async_batch_loader(batches).load_threads(2_000).build(), &["load_threads is 2000"]);

    let silent =
        builder().batch_loader(|_| -> Result<_, Infallible> { panic!("nothing is asked for") }).build().unwrap();
    let nothing: [&str; 0] = [];
    assert_eq!(silent.load_many(nothing).unwrap(), []);
    assert_eq!(silent.warm_up(nothing).unwrap(), 0);
    let cache = builder().loader(load).hard_timeout(Duration::MAX).build().unwrap();
    assert_eq!(cache.load("").unwrap(), "");
    assert_eq!(cache.load_many(["k", "k"]).unwrap(), [Some("k".to_owned()), Some("k".to_owned())]);
    cache.refresh("k");
    // The load may be as fast as that.
    match cache.load_with("other", CallOptions::new().hard_timeout(Duration::ZERO)) {
        Ok(value) => assert_eq!(value, "other"),
        Err(error) => assert_eq!(error.kind(), LoadErrorKind::TimedOut),
    }
}

#[test]
fn a_followers_name_is_printable_in_both_tiers() {
    let namespace = namespace();
    let cache = texts(&namespace);
    for name in ["", "a\0b", "größe", &"n".repeat(65)] {
        refused(cache.follow(name, Silent), &["name", "printable ASCII"]);
        refused(namespace.follow(name, Silent), &["name", "printable ASCII"]);
    }
}
