//! How long does a hit in memcached take that the local tier does not have, beside a bare get of as many bytes?
//!
//! Against a memcached on loopback, with one caller. A hit takes two exchanges, the value and then the tokens of its
//! groups, is checked, and is copied into the local tier; a bare get is one exchange.

#[allow(dead_code, reason = "the tests of the remote tier use the rest")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use larder::{EntryOptions, Memcached, Namespace, RawBytes, TieredCache};
use memcache::exp::MetaClient;
use support::memcached::Server;

const POPULATION: u64 = 1_000;
const VALUE_LEN: usize = 200;

fn remote_hit(criterion: &mut Criterion) {
    let server = Server::start();
    let mut group = criterion.benchmark_group("remote_hit");

    let memcached = Memcached::connect(server.addr()).expect("the server has just been started");
    let namespace = Namespace::builder("bench", memcached).build().expect("the name is valid");
    // Room for one entry: whoever goes through the keys in a circle finds none of them in the local tier.
    let cache: TieredCache<u64, Vec<u8>> = TieredCache::builder(&namespace, "values")
        .capacity(1)
        .soft_ttl(Duration::from_secs(3_600))
        .codec(RawBytes)
        .build()
        .expect("these settings agree with each other");
    for key in 0..POPULATION {
        let options = EntryOptions::new().groups(["benchmark"]);
        assert!(cache.insert_with(key, vec![1; VALUE_LEN], options).is_through());
    }
    let mut keys = (0..POPULATION).cycle();
    group.bench_function("get", |bencher| {
        bencher.iter(|| black_box(cache.get(&keys.next().expect("a cycle does not end"))));
    });
    let (local, remote) = (cache.stats(), cache.remote_stats());
    assert!(local.hits() == 0 && remote.hits_fresh == local.misses, "{local:?} {remote:?}");

    let client = MetaClient::connect(server.addr()).expect("the server has just been started");
    let names: Vec<String> = (0..POPULATION).map(|key| format!("bare:{key}")).collect();
    for name in &names {
        client.set(name, vec![1; VALUE_LEN]).send().expect("memcached takes the value");
    }
    let mut names = names.iter().cycle();
    group.bench_function("bare get", |bencher| {
        bencher.iter(|| {
            let found = client.get(names.next().expect("a cycle does not end")).send();
            assert!(black_box(found).expect("memcached answers").hit());
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    remote_hit(&mut criterion);
    criterion.final_summary();
}
