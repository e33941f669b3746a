//! How long does it take to learn that a key is absent?

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput};

const POPULATION: u64 = 50_000;
const LOOKUPS: u64 = 1 << 16;

fn miss(criterion: &mut Criterion) {
    let cache = support::filled(POPULATION);
    let absent: Vec<u64> = (POPULATION..POPULATION + LOOKUPS).map(support::key).collect();
    let mut group = criterion.benchmark_group("miss");
    group.throughput(Throughput::Elements(LOOKUPS));
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            for key in &absent {
                black_box(cache.get(key));
            }
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    miss(&mut criterion);
    criterion.final_summary();
}
