//! Does invalidating a group cost the same whatever the group holds?
//!
//! After the first bump the members are dead, but still there: whoever visited them would visit them again.

mod support;

use criterion::{BenchmarkId, Criterion};

fn group_bump(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_bump");
    for members in [1, 1_000, 100_000] {
        let cache = support::filled(members);
        group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            bencher.iter(|| cache.invalidate_group(support::GROUP));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    group_bump(&mut criterion);
    criterion.final_summary();
}
