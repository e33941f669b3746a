//! Bumps under load while memcached evicts whatever it holds: nobody serves a value past acknowledgement + trust.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use shared::flood::{STARVED, flood};

use crate::bound::{Run, bumps, expect_in_time, settings};
use crate::scene::{Scene, TRUST};
use crate::verdict::Bound;

/// Long enough between two bumps that a flood of one size class fits in between: each puts the journal first again.
const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn memcached_is_starved_to_eviction() {
    let mut scene = Scene::with_memcached(&STARVED);
    let (addr, usual) = (scene.server.addr(), settings(&scene));
    let mut run = Run::start(&mut scene, (bumps() / 50, PAUSE), &usual, &usual);
    run.wait_for(0.1);
    let over = AtomicBool::new(false);
    let losses = thread::scope(|scope| {
        run.note("the flood begins");
        let flooding = scope.spawn(|| flood(addr, &over));
        let losses = count_losses(&run);
        over.store(true, Ordering::SeqCst);
        flooding.join().expect("a flood that does not panic").expect("write to memcached");
        run.note("the flood ends");
        losses
    });
    let history = run.finish();
    println!("starved: {} evictions, the journal lost {losses} times", evictions(addr));
    expect_in_time("starved", &history, Bound::Always(TRUST));
    assert!(losses > 0, "the journal was never evicted");
}

/// Returns how often the journal was seen shorter than before, until nearly all bumps are made: as many times at least was it
/// lost, and begun anew.
fn count_losses(run: &Run<'_>) -> usize {
    let (mut losses, mut last) = (0, 0);
    while !run.has_made(0.9) {
        let answer = run.scene.server.ask("mg procs:j s");
        // `HD s<length>`, or `EN` if there is none.
        let len = answer.trim().strip_prefix("HD s").map_or(0, |len| len.parse().expect("a length"));
        losses += usize::from(len < last);
        last = len;
        thread::sleep(Duration::from_millis(5));
    }
    losses
}

fn evictions(addr: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(addr).expect("connect to memcached");
    stream.write_all(b"stats\r\nquit\r\n").expect("ask memcached");
    let stats = io::read_to_string(stream).expect("memcached answers");
    let evictions = stats.lines().find_map(|line| line.strip_prefix("STAT evictions "));
    evictions.and_then(|evictions| evictions.parse().ok()).expect("memcached counts evictions")
}
