//! How long does an operation take in ordinary use: look up, and insert on a miss? Ten times more keys than fit.

mod support;

use criterion::{Criterion, Throughput};

const CAPACITY: u64 = 10_000;
const LOOKUPS: u64 = 1 << 18;

fn mixed(criterion: &mut Criterion) {
    let cache = support::cache(CAPACITY);
    let keys = support::zipf(10 * CAPACITY, 0.9, LOOKUPS);
    let value = support::value();
    let mut group = criterion.benchmark_group("mixed");
    group.throughput(Throughput::Elements(LOOKUPS));
    group.bench_function("get, insert on a miss", |bencher| {
        bencher.iter(|| {
            for &key in &keys {
                if cache.get(&key).is_none() {
                    support::insert(&cache, key, value.clone());
                }
            }
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    mixed(&mut criterion);
    criterion.final_summary();
}
