//! The builder: what is an error, and that its message names the value and what to do.

use std::time::Duration;

use larder::{Cache, CacheBuilder};

use crate::scene::ms;

fn builder() -> CacheBuilder<u32, u32> {
    Cache::builder().capacity(100)
}

#[track_caller]
fn refused(builder: CacheBuilder<u32, u32>, names: &[&str]) {
    let message = builder.build().expect_err("this is an error").to_string();
    for name in names {
        assert!(message.contains(name), "{message:?} does not name {name:?}");
    }
}

#[test]
fn bad_settings_are_errors_that_name_the_value() {
    refused(Cache::builder(), &["capacity", "set"]);
    for shards in [0, 3, 100, 1 << 17, usize::MAX] {
        refused(builder().shards(shards), &["shards", &shards.to_string(), "power of two", "65536"]);
    }
    refused(builder().ttl(Duration::ZERO), &["ttl", "zero"]);
    refused(builder().soft_ttl(Duration::ZERO), &["soft_ttl", "zero"]);
    refused(builder().hard_ttl(Duration::ZERO), &["hard_ttl", "zero"]);
    refused(builder().soft_ttl(ms(20)).hard_ttl(ms(10)), &["soft_ttl", "20ms", "hard_ttl", "10ms"]);
    refused(builder().ttl(ms(20)).soft_ttl(ms(10)), &["ttl", "20ms", "soft_ttl"]);
    refused(builder().ttl(ms(20)).hard_ttl(ms(10)), &["ttl", "20ms", "hard_ttl"]);
    refused(builder().soft_ttl(ms(10)).hard_ttl_factor(0), &["hard_ttl_factor", "0", "1 or more"]);
    refused(builder().hard_ttl(ms(10)).hard_ttl_factor(3), &["hard_ttl_factor", "3", "hard_ttl", "10ms"]);
    refused(builder().grace(Duration::ZERO), &["grace", "zero"]);
    for jitter in [f64::NAN, -0.1, 1.0, 7.5, f64::INFINITY, f64::NEG_INFINITY] {
        refused(builder().jitter(jitter), &["jitter", &jitter.to_string()]);
    }
    for beta in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        refused(builder().early_refresh(beta), &["early_refresh", &beta.to_string()]);
    }
    for part in [f64::NAN, 0.0, -0.5, 1.0, 80.0, f64::INFINITY] {
        refused(builder().refresh_ahead(part), &["refresh_ahead", &part.to_string(), "above 0 and below 1"]);
    }
    refused(
        builder().refresh_ahead(0.8).early_refresh(2.5),
        &["refresh_ahead", "0.8", "early_refresh", "2.5", "leave"],
    );
    let names: CacheBuilder<u32, Option<u32>> = Cache::builder().capacity(1).negative_ttl(Duration::ZERO);
    let message = names.build().unwrap_err().to_string();
    assert!(message.contains("negative_ttl is zero"), "{message}");
}

#[test]
fn settings_at_the_ends_of_their_ranges_are_fine() {
    let fine: [CacheBuilder<u32, u32>; 13] = [
        builder().capacity(0),
        builder().capacity(u64::MAX),
        builder().shards(1),
        builder().capacity(1).shards(1 << 16),
        builder().soft_ttl(ms(10)).hard_ttl(ms(10)),
        builder().soft_ttl(Duration::MAX).hard_ttl_factor(u32::MAX),
        builder().ttl(Duration::MAX),
        builder().jitter(0.0),
        builder().ttl(Duration::MAX).jitter(0.999),
        builder().early_refresh(f64::MIN_POSITIVE),
        builder().ttl(Duration::MAX).refresh_ahead(f64::MIN_POSITIVE),
        builder().grace(Duration::MAX).load_wait(Duration::MAX).stale_if_error(Duration::MAX),
        builder().name("").grace(Duration::from_nanos(1)).load_wait(Duration::ZERO).stale_if_error(Duration::ZERO),
    ];
    for (index, builder) in fine.into_iter().enumerate() {
        let cache = builder.build().unwrap();
        if cache.capacity() > 0 {
            cache.insert(1, 1).unwrap();
            assert_eq!(cache.get(&1), Some(1), "setting {index}");
            cache.expire(&1);
            assert_eq!(cache.get_or_load(&1, |_| Ok::<_, ()>(2)).unwrap(), 2);
        }
    }
}

#[test]
fn a_cache_and_its_builder_say_who_they_are() {
    let builder = builder().name("pages").shards(4);
    assert!(format!("{builder:?}").contains("pages"));
    let cache = builder.build().unwrap();
    let debug = format!("{cache:?}");
    assert!(debug.contains("pages") && debug.contains("capacity: 100") && debug.contains("shards: 4"), "{debug}");
}

#[test]
fn any_hasher_will_do() {
    let cache: Cache<u32, u32, std::hash::RandomState> =
        Cache::builder().capacity(10).hasher(std::hash::RandomState::new()).build().unwrap();
    cache.insert(1, 1).unwrap();
    assert_eq!(cache.clone().get(&1), Some(1));
}
