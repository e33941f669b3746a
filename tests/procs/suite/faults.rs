//! Bumps under load while memcached, or the way to it, fails: nobody serves a value past acknowledgement + trust.

use std::thread;
use std::time::Duration;

use shared::clock::ns;
use shared::order::Settings;

use crate::bound::{Run, bumps, expect_in_time, settings};
use crate::history::History;
use crate::proxy::{Network, Proxy};
use crate::scene::{Scene, TRUST};
use crate::signals::freeze;
use crate::verdict::Bound;

/// Between two bumps of a process: a run goes on for some seconds.
const PAUSE: Duration = Duration::from_millis(5);

/// How long memcached or the network is away: several times the trust.
const OUTAGE: Duration = Duration::from_secs(2);

/// What takes no time happens several times in one run: when these parts of all bumps are made.
const TIMES: [f64; 5] = [0.2, 0.35, 0.5, 0.65, 0.8];

/// Who has the proxy between itself and memcached.
enum Behind {
    Nobody,
    Reader,
    Bumper,
}

/// Bumps and reads, and has `fault` happen in the middle of it.
fn run(scene: &mut Scene, behind: Behind, fault: impl FnOnce(&mut Run<'_>, &Proxy)) -> History {
    let proxy = Proxy::to(scene.server.addr());
    let direct = settings(scene);
    let proxied = Settings { memcached: proxy.addr().to_string(), ..direct.clone() };
    let (reader, bumper) = match behind {
        Behind::Nobody => (&direct, &direct),
        Behind::Reader => (&proxied, &direct),
        Behind::Bumper => (&direct, &proxied),
    };
    let mut run = Run::start(scene, (bumps() / 10, PAUSE), reader, bumper);
    run.wait_for(0.2);
    fault(&mut run, &proxy);
    run.finish()
}

/// Has the network be like this for a while.
fn outage(network: Network) -> impl FnOnce(&mut Run<'_>, &Proxy) {
    move |run, proxy| {
        run.note("the network breaks");
        proxy.set(network);
        thread::sleep(OUTAGE);
        proxy.set(Network::Passes);
        run.note("the network is whole");
    }
}

fn expect_pending(history: &History) {
    let bumps = || history.bumps.iter().flatten();
    assert!(bumps().any(|bump| bump.acknowledged_ns > Some(bump.returned_ns)), "no bump met the outage");
}

/// Fails unless bumps were acknowledged, and the first reader had answers, when its trust must have been over.
fn expect_cut_off(history: &History) {
    let [(broken_ns, _), (whole_ns, _)] = history.faults[..] else { panic!("there was no outage") };
    let within = broken_ns + ns(TRUST)..whole_ns;
    let bumped = history.bumps.iter().flatten().filter_map(|bump| bump.acknowledged_ns);
    assert!(bumped.into_iter().any(|at_ns| within.contains(&at_ns)), "nothing was bumped while the reader was cut off");
    let answered = history.readers[0].sightings.iter().any(|seen| within.contains(&seen.first_ns));
    assert!(answered, "the reader had no answers while it was cut off");
}

#[test]
fn memcached_is_killed_and_restarted() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Nobody, |run, _| {
        run.note("memcached is killed");
        run.scene.server.kill();
        thread::sleep(OUTAGE);
        run.scene.server.restart();
        run.note("memcached is back");
    });
    expect_in_time("killed and restarted", &history, Bound::Always(TRUST));
    expect_pending(&history);
}

#[test]
fn memcached_is_replaced_at_once_again_and_again() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Nobody, |run, _| {
        for part in TIMES {
            run.wait_for(part);
            run.note("memcached is killed and restarted");
            // So soon that its cas numbers, which begin anew, are those that are about to be used.
            run.scene.server.restart();
        }
    });
    expect_in_time("replaced", &history, Bound::Always(TRUST));
}

#[test]
fn memcached_is_flushed() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Nobody, |run, _| {
        for part in TIMES {
            run.wait_for(part);
            run.note("memcached is flushed");
            assert_eq!(run.scene.server.ask("flush_all").trim(), "OK");
        }
    });
    expect_in_time("flushed", &history, Bound::Always(TRUST));
}

#[test]
fn memcached_is_stopped_for_two_seconds() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Nobody, |run, _| {
        run.note("memcached stops");
        let frozen = freeze(&run.scene.server);
        thread::sleep(OUTAGE);
        drop(frozen);
        run.note("memcached goes on");
    });
    expect_in_time("stopped", &history, Bound::Always(TRUST));
    expect_pending(&history);
}

#[test]
fn a_reader_is_cut_off_by_a_network_that_holds_everything() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Reader, outage(Network::HoldsAll));
    expect_in_time("reader held", &history, Bound::Always(TRUST));
    expect_cut_off(&history);
}

#[test]
fn a_reader_is_cut_off_by_a_network_that_holds_answers() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Reader, outage(Network::HoldsAnswers));
    expect_in_time("reader unanswered", &history, Bound::Always(TRUST));
    expect_cut_off(&history);
}

#[test]
fn a_reader_is_cut_off_by_closed_connections() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Reader, outage(Network::Cuts));
    expect_in_time("reader cut", &history, Bound::Always(TRUST));
    expect_cut_off(&history);
}

#[test]
fn a_reader_is_far_away() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Reader, outage(Network::Delays(Duration::from_millis(100))));
    expect_in_time("reader delayed", &history, Bound::Always(TRUST));
    expect_cut_off(&history);
}

#[test]
fn a_bumper_hears_no_answers() {
    let mut scene = Scene::new();
    let history = run(&mut scene, Behind::Bumper, outage(Network::HoldsAnswers));
    expect_in_time("bumper unanswered", &history, Bound::Always(TRUST));
    expect_pending(&history);
}
