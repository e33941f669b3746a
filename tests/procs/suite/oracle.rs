//! The verdict on real processes finds a violation where there must be one.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use shared::order::Settings;

use crate::bound::{Run, settings};
use crate::proxy::{Network, Proxy};
use crate::scene::{Scene, TRUST};
use crate::verdict::{Bound, Verdict};

/// Few are enough to be missed.
const BUMPS: usize = 200;

/// Longer than the bound by far.
const OUTAGE: Duration = Duration::from_secs(2);

#[test]
fn a_reader_that_trusts_for_an_hour_behind_a_dead_network_is_found_out() {
    let mut scene = Scene::new();
    let proxy = Proxy::to(scene.server.addr());
    let memcached = proxy.addr().to_string();
    let trusting = Settings { memcached, trust: Duration::from_secs(3_600), ..settings(&scene) };
    let usual = settings(&scene);
    let mut run = Run::start(&mut scene, (BUMPS, Duration::from_millis(5)), &trusting, &usual);
    run.wait_for(0.2);
    run.note("the network breaks");
    proxy.set(Network::HoldsAll);
    thread::sleep(OUTAGE);
    proxy.set(Network::Passes);
    run.note("the network is whole");
    let verdict = Verdict::of(&run.finish(), Bound::Always(TRUST));
    println!("{verdict}");
    let trusting = BTreeSet::from(["reader 0".to_owned()]);
    assert_eq!(verdict.violators, trusting, "it served old values, and the others did not: {verdict}");
    assert!(verdict.to_string().contains("the network breaks"), "the history is told: {verdict}");
}
