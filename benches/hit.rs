//! How long does a hit take, on one thread, with deadlines and a group to check?

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};

const LOOKUPS: u64 = 1 << 16;

fn hit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit");
    group.throughput(Throughput::Elements(LOOKUPS));
    for population in [1_000, 50_000] {
        let cache = support::filled(population);
        let keys = support::zipf(population, 0.99, LOOKUPS);
        assert!(keys.iter().all(|key| cache.get(key).is_some()), "entries are missing with room to spare");
        group.bench_function(BenchmarkId::new("get", population), |bencher| {
            bencher.iter(|| {
                for key in &keys {
                    black_box(cache.get(key));
                }
            });
        });
        group.bench_function(BenchmarkId::new("with", population), |bencher| {
            bencher.iter(|| {
                for key in &keys {
                    black_box(cache.with(key, |value| value[0]));
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    hit(&mut criterion);
    criterion.final_summary();
}
