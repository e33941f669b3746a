//! Events: what goes wrong where no caller is told, once each.

use std::sync::OnceLock;
use std::time::Duration;

use larder::{Cache, Clock, InMemoryRemote, Namespace, RawBytes, TieredCache, WriteMode};
use tracing::Level;

use super::log::{Log, TracedEvent};
use crate::scene::eventually;

/// How often something happens that is told of once in ten seconds; and how often it is told of at most, by a machine that needs
/// half a minute for it.
const MANY: u32 = 100;
const OFTEN: usize = 4;

/// What all threads tell that have no subscriber of their own, in this process: tests look at what concerns their own namespace
/// or cache.
fn everything() -> &'static Log {
    static EVERYTHING: OnceLock<Log> = OnceLock::new();
    EVERYTHING.get_or_init(|| {
        let log = Log::new();
        tracing::subscriber::set_global_default(log.subscriber()).unwrap();
        log
    })
}

/// Returns the levels of the events in `namespace`, with the beginnings of what they say.
fn told_of(namespace: &str) -> Vec<(Level, String)> {
    let own = |event: &TracedEvent| event.fields.get("namespace").is_some_and(|known| known == namespace);
    let events = everything().events().into_iter().filter(own).filter(|event| event.level <= Level::INFO);
    events.map(|event| (event.level, event.message)).collect()
}

#[test]
fn lost_trust_is_told_once_and_so_is_its_return() {
    everything();
    let store = InMemoryRemote::new();
    let (clock, time) = Clock::manual();
    let builder = Namespace::builder("trust", store.clone()).clock(clock);
    let namespace = builder.poll_interval(Duration::from_millis(50)).trust(Duration::from_millis(500)).build().unwrap();
    namespace.poll_now().unwrap();
    assert_eq!(told_of("trust"), []);
    store.offline(true);
    for _ in 0..3 {
        time.advance(Duration::from_millis(500));
        assert!(namespace.poll_now().is_err());
    }
    eventually("the loss is told", || !told_of("trust").is_empty());
    store.offline(false);
    // The thread of the namespace looks as well, and may have its say in between.
    eventually("trust is back", || namespace.poll_now().is_ok() && told_of("trust").len() > 1);
    let told = told_of("trust");
    assert_eq!(told.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::WARN, Level::INFO], "{told:?}");
    assert!(told[0].1.contains("the trust lease of trust is over") && told[0].1.contains("Revalidate"), "{told:?}");
    assert!(told[1].1.contains("trusted again"), "{told:?}");
}

#[test]
fn a_resync_says_why_and_the_first_look_is_none() {
    everything();
    let store = InMemoryRemote::new();
    let namespace = Namespace::builder("resync", store.clone()).build().unwrap();
    namespace.poll_now().unwrap();
    assert_eq!(told_of("resync"), []);
    store.flush();
    namespace.poll_now().unwrap();
    eventually("the resync is told", || !told_of("resync").is_empty());
    let told = told_of("resync");
    assert_eq!(told[0].0, Level::WARN);
    assert!(told[0].1.contains("the journal was gone"), "{told:?}");
}

#[test]
fn a_listener_that_panics_is_told_of_once_in_a_while() {
    let log = Log::new();
    let builder = Cache::<u32, u32>::builder().name("rows").capacity(10);
    let cache = builder.on_removal(|_, _, _| panic!("as the test wants it")).build().unwrap();
    log.during(|| {
        for key in 0..MANY {
            cache.insert(key, key).unwrap();
            cache.remove(&key);
        }
    });
    assert_eq!(cache.stats().listener_panics, MANY.into());
    let (level, times) = log.said("the removal listener of the cache rows panicked");
    assert_eq!(level, Some(Level::ERROR));
    assert!(times <= OFTEN, "{log:?}");
}

#[test]
fn too_many_pending_changes_are_told_of_when_they_become_one() {
    let log = Log::new();
    let store = InMemoryRemote::new();
    let namespace = Namespace::builder("overflow", store.clone()).build().unwrap();
    store.offline(true);
    let groups: Vec<String> = (0..=1 << 14).map(|group| group.to_string()).collect();
    log.during(|| drop(namespace.invalidate_groups(&groups)));
    assert_eq!(namespace.health().escalations, 1);
    let (level, times) = log.said("they become one, of the whole namespace");
    assert_eq!(level, Some(Level::WARN));
    assert_eq!(times, 1);
}

#[test]
fn a_full_queue_of_writes_is_told_of_once_in_a_while() {
    let log = Log::new();
    let store = InMemoryRemote::new();
    let behind = WriteMode::Behind { queue: 1 };
    let namespace = Namespace::builder("behind", store.clone()).write_mode(behind).build().unwrap();
    namespace.poll_now().unwrap();
    let pages: TieredCache<String, String> =
        TieredCache::builder(&namespace, "pages").capacity(100).codec(RawBytes).build().unwrap();
    store.offline(true);
    log.during(|| (0..MANY).for_each(|key| drop(pages.insert(key.to_string(), "text".to_owned()))));
    let (level, times) = log.said("the queue of writes is full");
    assert_eq!(level, Some(Level::WARN));
    assert!(times <= OFTEN, "{log:?}");
}

#[cfg(feature = "memcached")]
#[test]
fn a_breaker_is_told_of_when_it_opens_probes_and_closes() {
    use larder::Memcached;

    use crate::support::memcached::Server;

    let log = Log::new();
    let mut server = Server::start();
    let address = server.addr().to_string();
    let memcached = Memcached::connect(&address).unwrap();
    let breakers = |told: &Log| {
        let own = |event: &TracedEvent| event.fields.get("server") == Some(&address);
        let events = told.events().into_iter().filter(own).filter(|event| event.message.contains("breaker"));
        events.map(|event| (event.level, event.message.split(": ").last().unwrap().to_owned())).collect::<Vec<_>>()
    };
    // Alone on this thread: what the namespace's own thread finds out is told elsewhere.
    let namespace = Namespace::builder("breaker", memcached).build().unwrap();
    let count = namespace.counter("tries");
    log.during(|| {
        assert!(count.incr(1).is_ok());
        assert_eq!(breakers(&log), []);
        server.kill();
        eventually("the breaker opens", || count.incr(1).is_err() && !breakers(&log).is_empty());
        server.restart();
        eventually("the breaker closes", || count.incr(1).is_ok());
    });
    let told = breakers(&log);
    let expected = [
        (Level::WARN, "its breaker opens".to_owned()),
        (Level::INFO, "its breaker is half-open".to_owned()),
        (Level::INFO, "its breaker closes".to_owned()),
    ];
    assert_eq!((&told[..2], told.last()), (&expected[..2], expected.last()));
}
