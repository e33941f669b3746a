//! How long does an insert take: of a new key that evicts another, and over an entry that exists?

mod support;

use criterion::{BatchSize, Criterion};

const CAPACITY: u64 = 10_000;

fn insert(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert");

    let cache = support::cache(CAPACITY);
    let mut ranks = 0..;
    let mut new_entry = || (support::key(ranks.next().expect("ranks do not run out")), support::value());
    for _ in 0..2 * CAPACITY {
        let (key, value) = new_entry();
        support::insert(&cache, key, value);
    }
    group.bench_function("evicting", |bencher| {
        bencher.iter_batched(&mut new_entry, |(key, value)| support::insert(&cache, key, value), BatchSize::SmallInput);
    });
    group.bench_function("evicting, without options", |bencher| {
        bencher.iter_batched(&mut new_entry, |(key, value)| cache.insert(key, value), BatchSize::SmallInput);
    });

    let cache = support::filled(CAPACITY);
    let mut ranks = (0..CAPACITY).cycle();
    let mut known_entry = || (support::key(ranks.next().expect("a cycle does not end")), support::value());
    group.bench_function("replacing", |bencher| {
        bencher.iter_batched(
            &mut known_entry,
            |(key, value)| support::insert(&cache, key, value),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    insert(&mut criterion);
    criterion.final_summary();
}
