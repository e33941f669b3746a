//! What a memcached tells of itself, and what it takes it to answer those who follow a journal.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Sub;
use std::time::Duration;

use crate::support::memcached::Server;

/// As many as look at once.
const CONNECTIONS: usize = 16;

/// How often each of them looks: for some tenths of a second in all.
const ROUNDS: usize = 1_000;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a memcached has done, in all or by second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// Bytes that it sent.
    pub(super) bytes: f64,
    /// Seconds for which it has used a processor.
    pub(super) busy: f64,
}

impl Figures {
    pub(super) fn of(server: &Server) -> Result<Figures, Box<dyn Error>> {
        let mut stream = TcpStream::connect(server.addr())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"stats\r\nquit\r\n")?;
        let stats = io::read_to_string(stream)?;
        let figure = |name: &str| -> Result<f64, Box<dyn Error>> {
            let line = stats.lines().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
            Ok(line.ok_or_else(|| format!("memcached does not tell its {name}"))?.parse()?)
        };
        Ok(Figures { bytes: figure("bytes_written")?, busy: figure("rusage_user")? + figure("rusage_system")? })
    }

    pub(super) fn per(self, time: Duration) -> Figures {
        let seconds = time.as_secs_f64();
        Figures { bytes: self.bytes / seconds, busy: self.busy / seconds }
    }
}

impl Sub for Figures {
    type Output = Figures;

    fn sub(self, earlier: Figures) -> Figures {
        Figures { bytes: self.bytes - earlier.bytes, busy: self.busy - earlier.busy }
    }
}

/// Returns the seconds of a processor that a look takes: at the version of a journal alone, or at all of one of `len` bytes.
///
/// Nobody sends a second request before the answer to its first, as those who follow a journal do not either.
pub(super) fn look_cost(len: Option<usize>) -> Result<f64, Box<dyn Error>> {
    let server = Server::start_with(&["-t", "1"]);
    let mut streams = (0..CONNECTIONS).map(|_| connect(&server)).collect::<io::Result<Vec<_>>>()?;
    let journal = "x".repeat(len.unwrap_or_default());
    let first = streams[0].get_mut();
    write!(first, "set scale:j 0 0 {} noreply\r\n{journal}\r\n", journal.len())?;
    // An answer to this comes behind it.
    write!(first, "mn\r\n")?;
    read_answer(&mut streams[0])?;
    let request: &[u8] = if len.is_some() { b"mg scale:j O1 v c t s\r\n" } else { b"mg scale:j O1 c t s\r\n" };
    let before = Figures::of(&server)?;
    for _ in 0..ROUNDS {
        for stream in &mut streams {
            stream.get_mut().write_all(request)?;
        }
        for stream in &mut streams {
            read_answer(stream)?;
        }
    }
    let used = Figures::of(&server)? - before;
    Ok(used.busy / (ROUNDS * CONNECTIONS) as f64)
}

fn connect(server: &Server) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(server.addr())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Reads the answer to one request, and what it holds.
fn read_answer(from: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    if let Some(rest) = line.strip_prefix("VA ") {
        let len: u64 = rest.split(' ').next().and_then(|len| len.trim().parse().ok()).unwrap_or_default();
        io::copy(&mut from.take(len + 2), &mut io::sink())?;
    }
    Ok(())
}
