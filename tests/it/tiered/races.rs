//! Loads against invalidations on real threads, with a database that only grows.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use larder::{EntryOptions, TieredCache};

use super::{HOUR, Stand, namespace};

/// Rounds of each kind.
const ROUNDS: u64 = 2_000;

/// The same where each exchange is a system call or several.
#[cfg(feature = "memcached")]
const ROUNDS_ON_MEMCACHED: u64 = 100;

type Numbers = TieredCache<String, u64>;

/// How a value becomes bytes here.
struct Decimal;

impl larder::Codec<u64> for Decimal {
    fn id(&self) -> larder::CodecId {
        larder::CodecId::custom::<0>()
    }

    fn encode(&self, value: &u64, out: &mut Vec<u8>) -> Result<(), larder::CodecError> {
        out.extend_from_slice(value.to_string().as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64, larder::CodecError> {
        let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        text.ok_or_else(|| larder::CodecError::new("no number"))
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Remove,
    Insert,
    Add,
    EarlyGroup,
    LateGroup,
    ExpireGroup,
    ExpireKey,
    ClearCache,
    ClearNamespace,
}

const KINDS: [Kind; 9] = [
    Kind::Remove,
    Kind::Insert,
    Kind::Add,
    Kind::EarlyGroup,
    Kind::LateGroup,
    Kind::ExpireGroup,
    Kind::ExpireKey,
    Kind::ClearCache,
    Kind::ClearNamespace,
];

fn numbers(stand: &Stand, name: &str, capacity: u64) -> Numbers {
    let namespace = namespace(name, stand.gate.ungated());
    TieredCache::builder(&namespace, "numbers").capacity(capacity).soft_ttl(HOUR).codec(Decimal).build().unwrap()
}

fn load(numbers: &Numbers, database: &AtomicU64, kind: Kind) -> u64 {
    let loaded = numbers.get_or_load("k", |load| {
        if matches!(kind, Kind::EarlyGroup) {
            load.groups(["g"]);
        }
        let value = database.load(Ordering::SeqCst);
        load.groups(["g"]);
        Ok::<_, Infallible>(value)
    });
    loaded.unwrap()
}

fn invalidate(numbers: &Numbers, value: u64, kind: Kind) -> bool {
    let options = || EntryOptions::new().groups(["g"]);
    match kind {
        Kind::Remove => numbers.remove("k").is_acknowledged(),
        Kind::Insert => matches!(
            numbers.insert_with("k".to_owned(), value, options()),
            larder::Write::Through | larder::Write::RemoteOnly(_)
        ),
        // What is added after a removal is as new as the removal.
        Kind::Add => {
            let removed = numbers.remove("k").is_acknowledged();
            let _ = numbers.add("k".to_owned(), value);
            removed
        }
        Kind::EarlyGroup | Kind::LateGroup => numbers.invalidate_group("g").is_acknowledged(),
        Kind::ExpireGroup => numbers.expire_group("g").is_acknowledged(),
        Kind::ExpireKey => numbers.expire("k").is_acknowledged(),
        Kind::ClearCache => numbers.clear().is_acknowledged(),
        Kind::ClearNamespace => numbers.namespace().clear().is_acknowledged(),
    }
}

/// What has gone wrong in a round, kept until all threads have ended it: a panic would leave them at their barrier.
#[derive(Default)]
struct Failures(Mutex<Vec<String>>);

impl Failures {
    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.lock().unwrap().push(what());
        }
    }

    fn any(&self) -> bool {
        !self.0.lock().unwrap().is_empty()
    }
}

fn race(stand: &Stand, kind: Kind, capacity: u64, rounds: u64) {
    let name = stand.fresh();
    let mine = numbers(stand, &name, capacity);
    let others = numbers(stand, &name, 0);
    let database = AtomicU64::new(0);
    let barrier = Barrier::new(3);
    let failures = Failures::default();
    let kills = !matches!(kind, Kind::ExpireGroup | Kind::ExpireKey);
    let in_rounds = |act: &dyn Fn()| {
        for _ in 0..rounds {
            barrier.wait();
            act();
            barrier.wait();
            barrier.wait();
            if failures.any() {
                break;
            }
        }
    };
    std::thread::scope(|scope| {
        // One that loads, and one that copies what the others have loaded.
        scope.spawn(|| {
            in_rounds(&|| {
                load(&mine, &database, kind);
            });
        });
        scope.spawn(|| {
            in_rounds(&|| {
                let _ = (mine.get("k"), mine.get("k"));
            });
        });
        for round in 1..=rounds {
            let fits = |found: Option<u64>, place: &str| {
                let fits = !kills || found.is_none_or(|value| value == round);
                failures.check(fits, || format!("{kind:?}, round {round}: {found:?} {place}"));
            };
            let is_new = |loaded: u64, place: &str| {
                failures.check(loaded == round, || format!("{kind:?}, round {round}: loaded {loaded} {place}"));
            };
            barrier.wait();
            if round % 3 == 0 {
                std::thread::yield_now();
            }
            database.store(round, Ordering::SeqCst);
            failures.check(invalidate(&mine, round, kind), || format!("{kind:?}: not acknowledged"));
            fits(mine.get("k"), "at once");
            // What is merely stale is served while another caller refreshes it.
            if kills && round % 2 == 0 {
                is_new(load(&mine, &database, kind), "at once");
            }
            barrier.wait();
            fits(mine.get("k"), "here");
            // What it knew of tokens may be as old as its last look at the journal.
            failures.check(others.namespace().poll_now().is_ok(), || format!("{kind:?}: no journal"));
            fits(others.get("k"), "there");
            is_new(load(&others, &database, kind), "there");
            is_new(load(&mine, &database, kind), "here");
            barrier.wait();
            if failures.any() {
                break;
            }
        }
    });
    let failures = failures.0.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn no_load_survives_an_invalidation_in_memory() {
    let stand = Stand::memory();
    for kind in KINDS {
        race(&stand, kind, 1_000, ROUNDS);
        race(&stand, kind, 0, ROUNDS / 4);
    }
}

#[cfg(feature = "memcached")]
#[test]
fn no_load_survives_an_invalidation_on_memcached() {
    for stand in [Stand::memcached(1), Stand::memcached(3)] {
        for kind in KINDS {
            race(&stand, kind, 1_000, ROUNDS_ON_MEMCACHED);
            race(&stand, kind, 0, ROUNDS_ON_MEMCACHED / 4);
        }
    }
}

/// A claim is of no use to others while its holder waits for the remote tier, however short the grace.
#[test]
fn one_load_runs_though_the_remote_tier_takes_longer_than_the_grace() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let pages = super::process(&name, stand.gate.clone(), |pages| pages.grace(Duration::from_millis(1)));
    let (second, loads) = (pages.clone(), Arc::new(AtomicU64::new(0)));
    let counted = {
        let loads = loads.clone();
        move |pages: &super::Pages| {
            pages.get_or_load("k", |_| {
                loads.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(super::own("1"))
            })
        }
    };
    let (begin, begun) = std::sync::mpsc::channel();
    let other = counted.clone();
    let joined = std::thread::spawn(move || {
        begun.recv().unwrap();
        other(&second)
    });
    stand.gate.reset();
    stand.gate.at(0, super::gate::When::After, move || {
        std::thread::sleep(Duration::from_millis(20));
        begin.send(()).unwrap();
        // For the other caller to come, and to load if it may.
        std::thread::sleep(Duration::from_millis(100));
    });
    assert_eq!(counted(&pages).unwrap(), "1");
    assert_eq!(joined.join().unwrap().unwrap(), "1");
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}
