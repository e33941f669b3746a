//! What does `get_or_load` add to a hit, and to a miss whose loader costs nothing?

mod support;

use std::{convert::Infallible, hint::black_box};

use criterion::{BatchSize, Criterion};

const POPULATION: u64 = 10_000;

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");

    let cache = support::filled(POPULATION);
    let mut keys = (0..POPULATION).map(support::key).collect::<Vec<_>>().into_iter().cycle();
    group.bench_function("hit", |bencher| {
        bencher.iter(|| {
            let key = keys.next().expect("a cycle does not end");
            let loaded =
                cache.get_or_load(&key, |_| -> Result<_, Infallible> { unreachable!("every key is resident") });
            black_box(loaded.is_ok())
        });
    });

    let cache = support::cache(POPULATION);
    let mut ranks = 0..;
    let mut new_entry = || (support::key(ranks.next().expect("ranks do not run out")), support::value());
    group.bench_function("miss", |bencher| {
        bencher.iter_batched(
            &mut new_entry,
            |(key, value)| {
                let loaded = cache.get_or_load(&key, |load| {
                    load.groups([support::GROUP]);
                    Ok::<_, Infallible>(value)
                });
                black_box(loaded.is_ok())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    load(&mut criterion);
    criterion.final_summary();
}
