//! One connection: dialing and checking the server, and exchanges of requests for answers.
//!
//! `memcache::exp::MetaConnection` is not used: it allocates up to 1 GiB on the word of a `VA` line and reads header lines
//! without a limit, drops the answers of a batch that were already read when a later one fails, and hides how much of a
//! batch was written. Here every length has a cap, and every command of a batch that breaks off knows whether it was sent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::input::{INPUT_LEN, Input};
use super::wire::{self, Failure, quote};
use crate::clock::real::now;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::tier::{Command, Reply};

/// The oldest memcached that marks the misses of a batch with the request they belong to.
const MIN_VERSION: [u32; 3] = [1, 6, 18];

/// The request bytes that are written before the answers are read. Both sides' socket buffers take them, so that a server
/// which waits for us to read never makes us wait for it to read. A larger request goes alone: the server reads all of it
/// before it answers.
const MAX_CHUNK_BYTES: usize = 64 << 10;

/// The commands that are written before their answers are read: beyond this, a round trip is no longer what costs.
const MAX_CHUNK_COMMANDS: usize = 256;

/// The longest header line: memcached's own are under 200 bytes with the flags that are asked for.
const MAX_LINE_LEN: usize = 2 << 10;

/// The lines of `stats settings` that are read; memcached 1.6 has about 90.
const MAX_SETTINGS: usize = 1_000;

/// The longest value that is read through the buffer, with its line end. A longer one has a buffer of its own: it would crowd out
/// others, and is worth more than the copy that its beginning takes.
const MAX_BUFFERED: usize = 16 << 10;

/// How many of a socket's own time limits may pass before a deadline, at most, before it gets another limit.
const MOST_SLICES: u32 = 16;

/// The shortest time limit of a socket, by which a deadline may be missed.
const SHORTEST_SLICE: Duration = Duration::from_millis(1);

/// What ends a line, and a value.
const LINE_END: &[u8] = b"\r\n";

const _: () = assert!(MAX_LINE_LEN < INPUT_LEN && MAX_BUFFERED <= INPUT_LEN, "what is read whole fits the buffer");

/// A checked connection to one memcached.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    stream: TcpStream,
    /// The time limits of single reads and writes.
    slices: Slices,
    input: Input,
    output: Vec<u8>,
    /// Where in the output each request ends.
    ends: Vec<usize>,
    /// How many requests it carried: the mark of each, by which its answer is told.
    requests: u64,
}

/// The time limits that the socket has at present, for one read and one write.
///
/// A system call sets them, and deadlines are always others. So a limit is a part of the time that is left: whoever meets it
/// before the deadline waits on, and exchanges that take about as long as the last one find it good as it is.
#[derive(Debug, Default)]
struct Slices {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl Connection {
    /// Dials the first of `addresses` that answers, and refuses a server that larder cannot work with.
    ///
    /// Whatever goes wrong, no command has left this process.
    pub(super) fn open(id: u64, name: &str, addresses: &[SocketAddr], deadline: Instant) -> Result<Self, RemoteError> {
        let stream = dial(name, addresses, deadline)?;
        let (slices, input) = (Slices::default(), Input::new());
        let mut connection = Self { id, stream, slices, input, output: Vec::new(), ends: Vec::new(), requests: 0 };
        connection.check_server(name, deadline).map_err(|error| match error.kind() {
            RemoteErrorKind::TimedOut | RemoteErrorKind::Interrupted => {
                let message = format!("{name} takes connections but does not answer: {error}");
                RemoteError::with_source(RemoteErrorKind::Unavailable, message, error)
            }
            _ => error,
        })?;
        Ok(connection)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Returns whether nothing arrived since the last answer. Anything that did is the server's goodbye, or an answer to
    /// nobody's request.
    pub(super) fn is_quiet(&self) -> bool {
        self.input.unread().is_empty()
            && matches!(peek(&self.stream), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Runs `commands` in order, and returns an answer for each; the error beside them says that the connection has to go.
    pub(super) fn exchange(
        &mut self,
        commands: &[Command<'_>],
        max_value_len: usize,
        deadline: Instant,
    ) -> (Vec<Result<Reply, RemoteError>>, Option<RemoteError>) {
        let mut answers = Vec::with_capacity(commands.len());
        while answers.len() < commands.len() {
            let rest = &commands[answers.len()..];
            let exchanged = self.exchange_chunk(rest, max_value_len, deadline, &mut answers);
            self.input.hand_out(|at, value| {
                if let Some(Ok(Reply::Hit(item))) = answers.get_mut(at) {
                    item.value = value;
                }
            });
            if let Err(broken) = exchanged {
                answers.extend(broken.answers(commands.len() - answers.len()));
                return (answers, Some(broken.error));
            }
        }
        (answers, None)
    }

    /// Sends as many of `commands` as may be under way at once, and appends their answers, but for the bytes of items.
    fn exchange_chunk(
        &mut self,
        commands: &[Command<'_>],
        max_value_len: usize,
        deadline: Instant,
        answers: &mut Vec<Result<Reply, RemoteError>>,
    ) -> Result<(), Broken> {
        let first = self.requests;
        self.ends.clear();
        for command in commands.iter().take(MAX_CHUNK_COMMANDS) {
            let len = self.output.len() + wire::request_len_bound(command);
            if !self.ends.is_empty() && len > MAX_CHUNK_BYTES {
                break;
            }
            self.requests += 1;
            wire::encode(command, self.requests, &mut self.output);
            self.ends.push(self.output.len());
        }
        let written = self.write(deadline);
        self.output.clear();
        self.output.shrink_to(MAX_CHUNK_BYTES);
        written.map_err(|(written, error)| {
            // memcached carries out no part of a request, so that one cut short was not sent.
            let sent = self.ends.iter().take_while(|end| **end <= written).count();
            Broken { sent, error }
        })?;
        let sent = self.ends.len();
        for (position, command) in commands.iter().take(sent).enumerate() {
            let opaque = first + 1 + position as u64;
            let answer = match self.read_reply(command, opaque, max_value_len, deadline, answers.len()) {
                Ok(reply) => Ok(reply),
                Err(Failure::Command(error)) => Err(error),
                Err(Failure::Connection(error)) => return Err(Broken { sent: sent - position, error }),
            };
            answers.push(answer);
        }
        Ok(())
    }

    /// Reads the answer to `command`, which is the one with number `at`, but for the bytes of an item.
    fn read_reply(
        &mut self,
        command: &Command<'_>,
        opaque: u64,
        max_value_len: usize,
        deadline: Instant,
        at: usize,
    ) -> Result<Reply, Failure> {
        let line = self.read_line(deadline).map_err(Failure::Connection)?;
        let header = wire::header(line, opaque, max_value_len)?;
        let Some(len) = header.value_len else { return wire::reply(&command.action, &header, None, self.id) };
        let block_len = len + LINE_END.len();
        if block_len > MAX_BUFFERED {
            let value = self.read_long_value(len, deadline)?;
            let reply = wire::reply(&command.action, &header, Some(&value), self.id)?;
            self.input.keep(at, value);
            return Ok(reply);
        }
        while self.input.unread().len() < block_len {
            self.fill(block_len, deadline).map_err(Failure::Connection)?;
        }
        let Some(value) = self.input.consume(block_len).strip_suffix(LINE_END) else { return Err(endless()) };
        let reply = wire::reply(&command.action, &header, Some(value), self.id)?;
        if matches!(reply, Reply::Hit(_)) {
            self.input.mark(at, len, LINE_END.len());
        }
        Ok(reply)
    }

    /// Asks what the server is and how it is set up: a look at its settings, so that nothing is written to it.
    fn check_server(&mut self, name: &str, deadline: Instant) -> Result<(), RemoteError> {
        self.output.extend_from_slice(b"version\r\nstats settings\r\n");
        self.write(deadline).map_err(|(_, error)| error)?;
        self.output.clear();
        check_version(name, self.read_line(deadline)?)?;
        for _ in 0..MAX_SETTINGS {
            match self.read_line(deadline)? {
                b"STAT cas_enabled no" => return Err(wire::no_cas()),
                line if line.starts_with(b"STAT ") => {}
                b"END" => return Ok(()),
                // One that keeps its settings to itself shows a cas of 0 when the first item is read.
                line if line.starts_with(b"ERROR") => return Ok(()),
                line => {
                    let message = format!("{name} answered {} to \"stats settings\"", quote(line));
                    return Err(RemoteError::new(RemoteErrorKind::Protocol, message));
                }
            }
        }
        let message = format!("{name} has more than {MAX_SETTINGS} settings");
        Err(RemoteError::new(RemoteErrorKind::Protocol, message))
    }

    /// Writes the output, or says how much of it was written.
    fn write(&mut self, deadline: Instant) -> Result<(), (usize, RemoteError)> {
        let mut written = 0;
        while written < self.output.len() {
            let Self { stream, slices, output, .. } = self;
            let attempt = limit(&mut slices.write, deadline, |slice| stream.set_write_timeout(slice))
                .and_then(|()| stream.write(&output[written..]));
            match attempt {
                Ok(0) => return Err((written, broken_off(io::ErrorKind::WriteZero.into()))),
                Ok(len) => written += len,
                Err(error) if may_go_on(&error, deadline) => {}
                Err(error) => return Err((written, broken_off(error))),
            }
        }
        Ok(())
    }

    /// Reads a line and returns it without its end.
    fn read_line(&mut self, deadline: Instant) -> Result<&[u8], RemoteError> {
        let mut searched = 0;
        let len = loop {
            let unread = self.input.unread();
            if let Some(position) = unread[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + position;
            }
            searched = unread.len();
            if searched > MAX_LINE_LEN {
                let message = format!("a line of more than {MAX_LINE_LEN} bytes: {}", quote(unread));
                return Err(RemoteError::new(RemoteErrorKind::Protocol, message));
            }
            self.fill(MAX_LINE_LEN + 1, deadline)?;
        };
        let line = self.input.consume(len + 1);
        let line = &line[..len];
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Reads a data block of `len` bytes, which is not above the cap, and its line end, past the buffer straight to where it
    /// belongs.
    fn read_long_value(&mut self, len: usize, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let block_len = len + LINE_END.len();
        let mut value = Vec::with_capacity(block_len);
        let buffered = self.input.unread().len().min(block_len);
        value.extend_from_slice(self.input.consume(buffered));
        value.resize(block_len, 0);
        let mut filled = buffered;
        while filled < block_len {
            let rest = &mut value[filled..];
            filled += receive(&mut self.stream, &mut self.slices, rest, deadline).map_err(Failure::Connection)?;
        }
        if !value.ends_with(LINE_END) {
            return Err(endless());
        }
        value.truncate(len);
        Ok(value)
    }

    /// Reads what there is, so that `len` bytes have room from where the unread begin.
    fn fill(&mut self, len: usize, deadline: Instant) -> Result<(), RemoteError> {
        let room = self.input.room(len);
        let len = receive(&mut self.stream, &mut self.slices, room, deadline)?;
        self.input.advance(len);
        Ok(())
    }
}

fn endless() -> Failure {
    wire::protocol("a value without its line end".to_owned())
}

/// An exchange that broke off.
struct Broken {
    /// How many of the commands without an answer were sent in full.
    sent: usize,
    /// What the first of them met.
    error: RemoteError,
}

impl Broken {
    /// Returns the answers of the `count` commands that have none.
    fn answers(&self, count: usize) -> impl Iterator<Item = Result<Reply, RemoteError>> {
        let behind = |kind, what| {
            let message = format!("{what}, since the connection broke before: {}", self.error);
            RemoteError::with_source(kind, message, self.error.clone())
        };
        (0..count).map(move |position| {
            Err(if position >= self.sent {
                behind(RemoteErrorKind::Unavailable, "not sent")
            } else if position == 0 || self.error.is_indeterminate() {
                self.error.clone()
            } else {
                behind(RemoteErrorKind::Interrupted, "not answered")
            })
        })
    }
}

fn dial(name: &str, addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, RemoteError> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in addresses.iter().enumerate() {
        let untried = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        // One that does not answer leaves the others their share of the time.
        let attempt = time_left(deadline)
            .and_then(|left| TcpStream::connect_timeout(address, (left / untried).max(Duration::from_micros(1))))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    let message = format!("cannot connect to memcached at {name}: {failure}");
    Err(RemoteError::with_source(RemoteErrorKind::Unavailable, message, failure))
}

fn check_version(name: &str, line: &[u8]) -> Result<(), RemoteError> {
    let [major, minor, patch] = MIN_VERSION;
    let Some(version) = line.strip_prefix(b"VERSION ") else {
        let message = format!("{name} answered {} to \"version\": is it a memcached?", quote(line));
        return Err(RemoteError::new(RemoteErrorKind::Protocol, message));
    };
    if parse_version(version).is_some_and(|found| found >= MIN_VERSION) {
        return Ok(());
    }
    let message = format!(
        "memcached at {name} has version {}, and larder needs {major}.{minor}.{patch} or later: upgrade the server",
        quote(version)
    );
    Err(RemoteError::new(RemoteErrorKind::Config, message))
}

/// Reads `1.6.18`, also with something behind it, as builds from a repository have.
fn parse_version(version: &[u8]) -> Option<[u32; 3]> {
    let mut numbers = std::str::from_utf8(version).ok()?.splitn(3, '.');
    let (major, minor, patch) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let digits = patch.find(|c: char| !c.is_ascii_digit()).unwrap_or(patch.len());
    Some([major.parse().ok()?, minor.parse().ok()?, patch[..digits].parse().ok()?])
}

fn receive(
    stream: &mut TcpStream,
    slices: &mut Slices,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<usize, RemoteError> {
    loop {
        let attempt = limit(&mut slices.read, deadline, |slice| stream.set_read_timeout(slice))
            .and_then(|()| stream.read(buffer));
        match attempt {
            Ok(0) => return Err(broken_off(io::ErrorKind::UnexpectedEof.into())),
            Ok(len) => return Ok(len),
            Err(error) if may_go_on(&error, deadline) => {}
            Err(error) => return Err(broken_off(error)),
        }
    }
}

/// Looks at the next byte without waiting for it, in one system call.
#[cfg(target_os = "linux")]
fn peek(stream: &TcpStream) -> io::Result<usize> {
    use rustix::net::{RecvFlags, recv};

    let (len, _) = recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(len)
}

/// Looks at the next byte without waiting for it.
#[cfg(not(target_os = "linux"))]
fn peek(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    peeked
}

/// Sees to it that the next system call waits no longer than until `deadline`. Only where the present limit is too long for
/// that, or far too short, `set` gives the socket another one.
fn limit(
    slice: &mut Option<Duration>,
    deadline: Instant,
    set: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> io::Result<()> {
    let left = time_left(deadline)?;
    if slice.is_some_and(|slice| slice <= left && left / MOST_SLICES <= slice) {
        return Ok(());
    }
    let fitting = (left / 2).max(SHORTEST_SLICE);
    // One that could not be set says nothing about the limit that holds now.
    *slice = None;
    set(Some(fitting))?;
    *slice = Some(fitting);
    Ok(())
}

/// Returns whether a system call that failed is only to be tried again.
fn may_go_on(error: &io::Error, deadline: Instant) -> bool {
    error.kind() == io::ErrorKind::Interrupted || (is_timeout(error) && time_left(deadline).is_ok())
}

fn is_timeout(error: &io::Error) -> bool {
    // A socket's own time limit shows as `WouldBlock` on most platforms.
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Returns how long a system call may wait. Never zero, which would mean forever.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn broken_off(error: io::Error) -> RemoteError {
    if is_timeout(&error) {
        return RemoteError::with_source(RemoteErrorKind::TimedOut, "memcached did not answer in time", error);
    }
    let message = format!("the connection to memcached broke: {error}");
    RemoteError::with_source(RemoteErrorKind::Interrupted, message, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for good in ["1.6.18", "1.6.100", "1.7.0", "2.0.0-rc1", "1.6.18_11_gabcdef", "10.0.0"] {
            assert!(check_version("a:1", format!("VERSION {good}").as_bytes()).is_ok(), "{good}");
        }
        for bad in ["1.6.9", "1.6.17", "1.5.99", "0.9.99", "1.6", "one", "", "1.6.x", "1.6.99999999999"] {
            let error = check_version("a:1", format!("VERSION {bad}").as_bytes()).unwrap_err();
            assert_eq!(error.kind(), RemoteErrorKind::Config);
            let message = error.to_string();
            assert!(["a:1", bad, "1.6.18", "upgrade"].iter().all(|part| message.contains(part)), "{message}");
        }
        let error = check_version("a:1", b"HTTP/1.1 400 Bad Request").unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Protocol);
    }
}
