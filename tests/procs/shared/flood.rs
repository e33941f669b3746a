//! A memcached that is short of memory, and what fills it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// The least memory, hence a page of 1 MiB for each size class, and without the thread that saves what is read often.
pub const STARVED: [&str; 6] = ["-m", "1", "-I", "512k", "-o", "no_lru_maintainer"];

/// What fills a page, and drives out whatever was in it before.
const PAGE: usize = 1 << 20;

/// The sizes of a flood: from the smallest items to a journal of hundreds of bumps, and no size class is left out.
const SHORTEST: usize = 8;
const LONGEST: usize = 20_000;
const STEP: f64 = 1.2;

/// What an item takes beside its value.
const OVERHEAD: usize = 60;

/// Fills one size class after the other, until it is over.
pub fn flood(addr: SocketAddr, over: &AtomicBool) -> io::Result<()> {
    let mut memcached = TcpStream::connect(addr)?;
    let sizes = || std::iter::successors(Some(SHORTEST), |len| Some((*len as f64 * STEP) as usize + 1));
    let mut items = 0;
    while !over.load(Ordering::SeqCst) {
        for len in sizes().take_while(|len| *len < LONGEST) {
            let (value, mut page) = ("x".repeat(len), Vec::with_capacity(2 * PAGE));
            for _ in 0..PAGE / (len + OVERHEAD) {
                items += 1;
                write!(page, "set flood:{items} 0 0 {len} noreply\r\n{value}\r\n")?;
            }
            memcached.write_all(&page)?;
        }
    }
    Ok(())
}
