//! The tiered cache over the store in memory and over a real memcached.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::{EntryOptions, InMemoryRemote, Namespace, RawBytes, RemoteTier, TieredCache, Write};

fn process(tier: impl RemoteTier) -> TieredCache<String, String> {
    let namespace = Namespace::builder("test", tier).version("1").build().unwrap();
    TieredCache::builder(&namespace, "pages")
        .capacity(1_000)
        .soft_ttl(Duration::from_secs(60))
        .codec(RawBytes)
        .build()
        .unwrap()
}

fn two_processes<T: RemoteTier + Clone>(tier: &T) {
    let (a, b) = (process(tier.clone()), process(tier.clone()));
    assert!(a.insert("k".to_owned(), "1".to_owned()).is_through());
    assert_eq!(b.get("k").as_deref(), Some("1"));
    assert_eq!(b.local().get("k").as_deref(), Some("1"));
    assert!(a.remove("k").is_acknowledged());
    assert_eq!(a.get("k"), None);

    let options = EntryOptions::new().groups(["g"]);
    assert!(matches!(a.insert_with("g1".to_owned(), "1".to_owned(), options), Write::Through));
    assert_eq!(b.get("g1").as_deref(), Some("1"));
    assert!(b.invalidate_group("g").is_acknowledged());
    assert_eq!(b.get("g1"), None);

    let loads = AtomicUsize::new(0);
    let load = |cache: &TieredCache<String, String>| {
        cache.get_or_load("l", |_| {
            loads.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ()>("loaded".to_owned())
        })
    };
    assert_eq!(load(&a).unwrap(), "loaded");
    assert_eq!(load(&b).unwrap(), "loaded");
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert!(a.clear().is_acknowledged());
    assert_eq!(a.get("l"), None);
    assert_eq!(load(&a).unwrap(), "loaded");
    assert_eq!(loads.load(Ordering::Relaxed), 2);
    assert!(a.add("n".to_owned(), "1".to_owned()).is_stored());
    assert!(!b.add("n".to_owned(), "2".to_owned()).is_stored());
}

#[test]
fn values_cross_processes_in_memory() {
    two_processes(&InMemoryRemote::new());
}

#[cfg(feature = "memcached")]
#[test]
fn values_cross_processes_through_memcached() {
    let server = crate::support::memcached::Server::start();
    two_processes(&larder::Memcached::connect(server.addr()).unwrap());
}
