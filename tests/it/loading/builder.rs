//! Settings of loading that make no sense.

use std::time::Duration;

use larder::{Cache, CacheBuilder, Load, LoadingBuilder};

type Builder = LoadingBuilder<CacheBuilder<u32, u32>, ()>;

fn blocking() -> Builder {
    Cache::builder().capacity(10).loader(|_: &u32, _: Load<u32>| Ok(1))
}

#[test]
fn settings_at_odds_are_errors_that_name_value_and_fix() {
    let second = Duration::from_secs(1);
    let by_futures = Cache::builder().capacity(10).async_loader(|_: u32, _: Load<u32>| async { Ok(1) });
    let cases: [(Builder, &[&str]); 7] = [
        (blocking().hard_timeout(Duration::ZERO), &["hard_timeout is zero", "leave it out"]),
        (
            blocking().soft_timeout(second * 2).hard_timeout(second),
            &["soft_timeout (2s)", "hard_timeout (1s)", "1s or less"],
        ),
        (blocking().load_threads(0), &["load_threads is 0", "1 to 1024"]),
        (blocking().load_threads(100_000), &["load_threads is 100000", "1 to 1024"]),
        (blocking().spawner(drop), &["spawner", "async_loader", "load_threads"]),
        (by_futures.spawner(drop).load_threads(0), &["load_threads is 0"]),
        (Cache::builder().loader(|_: &u32, _: Load<u32>| Ok(1)), &["capacity is not set"]),
    ];
    for (builder, parts) in cases {
        let message = builder.build().unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let all = blocking().soft_timeout(second).hard_timeout(second).load_threads(1_024).build();
    assert_eq!(all.unwrap().load(&1).unwrap(), 1);
}
