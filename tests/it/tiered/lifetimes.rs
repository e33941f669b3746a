//! Deadlines across processes: no value lives longer than it was given.

use std::time::{Duration, Instant};

use larder::{Clock, EntryOptions, Item, ManualClock, Namespace, RawBytes, Reply, TieredCache, TieredCacheBuilder};

use super::gate::{Gate, When};
use super::{HOUR, Pages, Stand, YEARS, load, own, process, settled};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Returns a process that finds the store `elapsed` older than it is, with the handle of its own clock.
fn later(name: &str, gate: &Gate, elapsed: Duration) -> (Pages, ManualClock) {
    let gate = gate.another();
    gate.rewrite(move |_, reply| match reply? {
        Reply::Hit(item) => Ok(match item.expires_in {
            Some(left) if left <= elapsed => Reply::Miss,
            Some(left) => Reply::Hit(Item { expires_in: Some(left - elapsed), ..item }),
            None => Reply::Hit(item),
        }),
        other => Ok(other),
    });
    let (clock, time) = Clock::manual();
    let look = gate.next_look();
    let namespace = settled(Namespace::builder(name, gate).clock(clock).trust(YEARS), look);
    (super::pages(&namespace, |pages| pages), time)
}

#[derive(Debug, PartialEq)]
enum Seen {
    Fresh,
    Stale,
    Dead,
}

/// Returns what the local tier makes of the key.
fn local(pages: &Pages) -> Seen {
    let before = pages.stats();
    match (pages.local().get("k"), (pages.stats() - before).hits_fresh) {
        (None, _) => Seen::Dead,
        (Some(_), 0) => Seen::Stale,
        (Some(_), _) => Seen::Fresh,
    }
}

#[test]
fn a_copy_becomes_stale_and_dead_no_later_than_the_original() {
    let stand = Stand::memory();
    // The last two: longer than memcached takes for an interval, and longer than the header can say.
    for (soft, hard) in [(60 * SECOND, 480 * SECOND), (5 * DAY, 40 * DAY), (10 * DAY, 80 * DAY)] {
        let name = stand.fresh();
        let options = EntryOptions::new().soft_ttl(soft).hard_ttl(hard);
        assert!(stand.bystander(&name).insert_with(own("k"), own("1"), options).is_through());
        let early = [Duration::ZERO, soft / 2, soft - SECOND, soft, soft + SECOND, soft * 3 / 2];
        for elapsed in early.into_iter().chain([hard / 2, hard - SECOND, hard, hard + SECOND]) {
            let (pages, time) = later(&name, &stand.gate, elapsed);
            let found = pages.get("k");
            assert!(found.is_none() || elapsed < hard, "{soft:?} {hard:?} after {elapsed:?}");
            if elapsed < soft / 2 + SECOND {
                assert_eq!(local(&pages), Seen::Fresh, "{soft:?} {hard:?} after {elapsed:?}");
            }
            if let Some(left) = soft.checked_sub(elapsed) {
                time.advance(left);
            }
            assert_ne!(local(&pages), Seen::Fresh, "{soft:?} {hard:?} after {elapsed:?}");
            if let Some(left) = hard.checked_sub(elapsed.max(soft)) {
                time.advance(left);
            }
            assert_eq!(local(&pages), Seen::Dead, "{soft:?} {hard:?} after {elapsed:?}");
        }
    }
}

#[test]
fn the_time_that_a_write_takes_counts() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let (clock, time) = Clock::manual();
    let namespace =
        settled(Namespace::builder(&name, stand.gate.clone()).clock(clock).trust(YEARS), stand.gate.next_look());
    let writer = super::pages(&namespace, |pages| pages);
    stand.gate.reset();
    stand.gate.at(1, When::After, move || time.advance(30 * SECOND));
    let options = EntryOptions::new().soft_ttl(60 * SECOND).hard_ttl(80 * SECOND);
    assert!(writer.insert_with(own("k"), own("1"), options).is_through());
    let (reader, time) = later(&name, &stand.gate, Duration::ZERO);
    assert_eq!(reader.get("k").as_deref(), Some("1"));
    time.advance(30 * SECOND);
    assert_eq!(local(&reader), Seen::Stale);
    time.advance(20 * SECOND);
    assert_eq!(local(&reader), Seen::Dead);
}

#[test]
fn every_kind_of_lifetime_crosses_processes() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let writer = stand.bystander(&name);
        let insert = |key: &str, options| assert!(writer.insert_with(own(key), own("1"), options).is_through());
        insert("hard", EntryOptions::new().ttl(HOUR));
        insert("both", EntryOptions::new().soft_ttl(60 * SECOND).hard_ttl(HOUR));
        insert("never", EntryOptions::new().never_expires());
        insert("long", EntryOptions::new().ttl(40 * DAY));
        insert("longer", EntryOptions::new().soft_ttl(30 * DAY).hard_ttl(365 * DAY));
        insert("endless", EntryOptions::new().ttl(Duration::MAX));
        let reader = stand.bystander(&name);
        for key in ["hard", "both", "never", "long", "longer", "endless"] {
            assert_eq!(reader.get(key).as_deref(), Some("1"), "{key}, {}", stand.kind());
        }
        assert_eq!(reader.remote_stats().hits_fresh, 6);

        // In whole seconds it may be dead already, so it is.
        insert("short", EntryOptions::new().ttl(Duration::from_millis(900)));
        insert("zero", EntryOptions::new().ttl(Duration::ZERO));
        assert_eq!(reader.get_many(["short", "zero"]), [None, None]);
        assert_eq!(writer.get("zero"), None);

        let jittered = process(&name, stand.gate.ungated(), |pages| pages.jitter(0.5));
        assert!(jittered.insert(own("jitter"), own("1")).is_through());
        assert_eq!(reader.get("jitter").as_deref(), Some("1"));
    }
}

#[test]
fn a_value_is_gone_in_time_in_the_store_itself() {
    const TTL: Duration = Duration::from_secs(3);
    for stand in Stand::all() {
        let name = stand.fresh();
        let writer = stand.bystander(&name);
        let reader = process(&name, stand.gate.ungated(), |pages| pages.capacity(0));
        let start = Instant::now();
        assert!(writer.insert_with(own("k"), own("1"), EntryOptions::new().ttl(TTL)).is_through());
        assert_eq!(reader.get("k").as_deref(), Some("1"), "at once");
        while reader.get("k").is_some() {
            assert!(start.elapsed() < TTL + Duration::from_millis(50), "{}", stand.kind());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_loader_says_how_long_its_value_lives_in_both_tiers() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let loaded = stand.bystander(&name).get_or_load("k", |load| {
        load.soft_ttl(10 * SECOND);
        load.hard_ttl(20 * SECOND);
        load.groups(["g"]);
        Ok::<_, ()>(own("1"))
    });
    assert_eq!(loaded.unwrap(), "1");
    let (reader, time) = later(&name, &stand.gate, Duration::ZERO);
    assert_eq!((reader.get("k").as_deref(), local(&reader)), (Some("1"), Seen::Fresh));
    time.advance(10 * SECOND);
    assert_eq!(local(&reader), Seen::Stale);
    time.advance(10 * SECOND);
    assert_eq!(local(&reader), Seen::Dead);
    assert!(stand.bystander(&name).invalidate_group("g").is_acknowledged());
    assert_eq!(stand.bystander(&name).get("k"), None);
}

fn cache<K>(namespace: &Namespace, name: &str) -> TieredCacheBuilder<K, String>
where
    K: std::hash::Hash + Eq + larder::RemoteKey + Send + Sync + 'static,
{
    TieredCache::builder(namespace, name).capacity(100).ttl(HOUR).codec(RawBytes)
}

#[test]
fn namespaces_versions_and_caches_are_apart() {
    for stand in Stand::all() {
        let names = [stand.fresh(), stand.fresh()];
        let mut all: Vec<TieredCache<String, String>> = Vec::new();
        for name in &names {
            for version in ["1", "2"] {
                let builder = Namespace::builder(name, stand.gate.ungated()).version(version);
                let namespace = builder.timeout(20 * SECOND).build().unwrap();
                all.extend(["rows", "pages"].map(|name| cache(&namespace, name).build().unwrap()));
            }
        }
        for (number, cache) in all.iter().enumerate() {
            assert_eq!(cache.get("k"), None);
            assert!(cache.insert(own("k"), number.to_string()).is_through());
        }
        for (number, cache) in all.iter().enumerate() {
            assert!(cache.remove_many(["none"]).is_acknowledged());
            assert_eq!(cache.get("k"), Some(number.to_string()));
        }
        assert!(all[0].clear().is_acknowledged());
        let left = all.iter().filter(|cache| cache.get("k").is_some()).count();
        assert_eq!(left, all.len() - 1);
    }
}

#[test]
fn any_bytes_may_be_a_key() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let caches = [(); 2].map(|()| cache::<Vec<u8>>(&super::namespace(&name, stand.gate.ungated()), "bytes"));
        let [writer, reader] = caches.map(|builder| builder.build().unwrap());
        let keys: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"plain".to_vec(),
            b"two words".to_vec(),
            b"a\r\nset b 0 0 1".to_vec(),
            vec![0],
            vec![0xFF, 0xFE],
            b"~a03f1d611645eb53ad16c1af546ca079".to_vec(),
            b"k:v".to_vec(),
            vec![b'k'; 200],
            vec![b'k'; 251],
            vec![b' '; 251],
            vec![b'k'; 100_000],
            [vec![b'k'; 100_000], vec![b'l']].concat(),
        ];
        let values: Vec<String> = (0..keys.len()).map(|number| number.to_string()).collect();
        let written = writer.insert_many(keys.iter().cloned().zip(values.iter().cloned()));
        assert!(written.iter().all(larder::Write::is_through));
        let read = reader.get_many(keys.iter().map(Vec::as_slice));
        assert_eq!(read, values.iter().cloned().map(Some).collect::<Vec<_>>());
        for key in &keys {
            assert!(writer.remove(key).is_acknowledged());
        }
        assert!(caches_empty(&stand, &name, &keys));
        // And through the loader.
        let _ = load(&stand.bystander(&name), "a b", "1", &[]);
        assert_eq!(stand.bystander(&name).get("a b").as_deref(), Some("1"));
    }
}

fn caches_empty(stand: &Stand, name: &str, keys: &[Vec<u8>]) -> bool {
    let namespace = super::namespace(name, stand.gate.ungated());
    let reader = cache::<Vec<u8>>(&namespace, "bytes").build().unwrap();
    reader.get_many(keys.iter().map(Vec::as_slice)).iter().all(Option::is_none)
}
