//! Bumps under load while memcached evicts whatever it holds: nobody serves a value past acknowledgement + trust.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::bound::{Run, bumps, expect_in_time, settings};
use crate::scene::{Scene, TRUST};
use crate::verdict::Bound;

/// The least memory, hence a page of 1 MiB for each size class, and without the thread that saves what is read often.
const STARVED: [&str; 6] = ["-m", "1", "-I", "512k", "-o", "no_lru_maintainer"];

/// What fills a page, and drives out whatever was in it before.
const PAGE: usize = 1 << 20;

/// The sizes of a flood: from the smallest items to a journal of hundreds of bumps, and no size class is left out.
const SHORTEST: usize = 8;
const LONGEST: usize = 20_000;
const STEP: f64 = 1.2;

/// What an item takes beside its value.
const OVERHEAD: usize = 60;

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
        scope.spawn(|| flood(addr, &over));
        let losses = count_losses(&run);
        over.store(true, Ordering::SeqCst);
        run.note("the flood ends");
        losses
    });
    let history = run.finish();
    println!("starved: {} evictions, the journal lost {losses} times", evictions(addr));
    expect_in_time("starved", &history, Bound::Always(TRUST));
    assert!(losses > 0, "the journal was never evicted");
}

/// Fills one size class after the other, until it is over.
fn flood(addr: SocketAddr, over: &AtomicBool) {
    let mut memcached = TcpStream::connect(addr).expect("connect to memcached");
    let sizes = || std::iter::successors(Some(SHORTEST), |len| Some((*len as f64 * STEP) as usize + 1));
    let mut items = 0;
    while !over.load(Ordering::SeqCst) {
        for len in sizes().take_while(|len| *len < LONGEST) {
            let (value, mut page) = ("x".repeat(len), Vec::with_capacity(2 * PAGE));
            for _ in 0..PAGE / (len + OVERHEAD) {
                items += 1;
                write!(page, "set flood:{items} 0 0 {len} noreply\r\n{value}\r\n").expect("vectors take everything");
            }
            memcached.write_all(&page).expect("write to memcached");
        }
    }
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
