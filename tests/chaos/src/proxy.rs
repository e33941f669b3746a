//! The network between processes and servers, and what it does to their connections.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use shared::clock::{now_ns, ns};

use crate::garble::{JournalWatch, damage};
use crate::owner::{self, LOOPBACK};

/// The longest piece that is passed on at once.
const PIECE: usize = 16 << 10;

/// How long after a request for the journal its answer may come: longer than anybody waits for it.
const JOURNAL_FOR: Duration = Duration::from_secs(2);

/// How long a new connection may be nobody's.
const ADOPTED_WITHIN: Duration = Duration::from_millis(500);

/// What happens to the bytes between a process and a server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Weather {
    #[default]
    Fair,
    /// Every piece is late by so much.
    Delay(Duration),
    Cut,
    /// Nothing arrives, in either direction.
    Hold,
    /// Answers do not arrive.
    Mute,
    /// Requests do not arrive.
    Deaf,
    /// So many bytes a second arrive.
    Throttle(u32),
    /// Answers are damaged that have nothing to do with the journal.
    Garble,
    /// Everything is damaged.
    Scramble,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Requests,
    Answers,
}

/// What is between one process and one server.
#[derive(Debug, Default)]
struct Line {
    weather: Mutex<(Weather, u8)>,
    changed: Condvar,
    /// Both ends of every connection, for them to be closed, by its number.
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
}

/// A server as processes see it: an address that stays, and lines to whatever is behind it.
pub(crate) struct Proxy {
    addr: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    /// The server behind it.
    target: Mutex<SocketAddr>,
    /// By the number of the process.
    lines: Vec<Line>,
    /// Which process has which number at present.
    processes: Arc<Mutex<Vec<u32>>>,
    /// The number of the last connection.
    last: AtomicU64,
    /// How many pieces were damaged.
    damaged: AtomicU64,
    seed: u64,
}

impl Proxy {
    /// Starts one in front of `target`, for the whole life of this process. `processes` has the ids of those that use it.
    pub(crate) fn start(target: SocketAddr, processes: &Arc<Mutex<Vec<u32>>>, seed: u64) -> io::Result<Proxy> {
        let listener = TcpListener::bind(LOOPBACK)?;
        let addr = listener.local_addr()?;
        let lines = processes.lock().unwrap().iter().map(|_| Line::default()).collect();
        let inner = Arc::new(Inner {
            target: Mutex::new(target),
            lines,
            processes: Arc::clone(processes),
            last: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            seed,
        });
        let of_thread = Arc::clone(&inner);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let inner = Arc::clone(&of_thread);
                // Finding out whose it is takes a while.
                thread::spawn(move || inner.connect(&client));
            }
        });
        Ok(Proxy { addr, inner })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns how many pieces were damaged on their way.
    pub(crate) fn damaged(&self) -> u64 {
        self.inner.damaged.load(Ordering::Relaxed)
    }

    /// Sets what becomes of so many percent of the connections of a process.
    pub(crate) fn set(&self, process: usize, weather: Weather, percent: u8) {
        let line = &self.inner.lines[process];
        *line.weather.lock().unwrap() = (weather, percent);
        line.changed.notify_all();
        if weather == Weather::Cut {
            line.close(|id| is_hit(id, percent));
        }
    }

    /// Has another server be behind it from now on: connections to the former one are closed.
    pub(crate) fn retarget(&self, target: SocketAddr) {
        *self.inner.target.lock().unwrap() = target;
        self.inner.lines.iter().for_each(|line| line.close(|_| true));
    }
}

impl Inner {
    /// Passes on what a client sends to the server, and back, on two threads. Where that fails the client is hung up on.
    fn connect(self: &Arc<Inner>, client: &TcpStream) {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        // Nobody's: its process was killed meanwhile.
        let Some(process) = self.owner(client) else { return };
        let line = &self.lines[process];
        if line.weather_of(id) == Weather::Cut {
            return;
        }
        let target = *self.target.lock().unwrap();
        let Ok(server) = TcpStream::connect(target) else { return };
        let (Ok(near), Ok(far)) = (client.try_clone(), server.try_clone()) else { return };
        line.open.lock().unwrap().insert(id, [near, far]);
        // Somebody else may have taken the server's place in between, and closed what there was.
        if *self.target.lock().unwrap() != target {
            line.close(|open| open == id);
        }
        // When the journal was last asked for.
        let journal_ns = Arc::<AtomicU64>::default();
        for (from, to, direction) in [(client, &server, Direction::Requests), (&server, client, Direction::Answers)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            _ = to.set_nodelay(true);
            let (inner, journal_ns) = (Arc::clone(self), Arc::clone(&journal_ns));
            thread::spawn(move || {
                let way = Way { inner: &inner, line: &inner.lines[process], id, direction, journal_ns: &journal_ns };
                way.pass_on(&from, &to);
                _ = from.shutdown(Shutdown::Both);
                _ = to.shutdown(Shutdown::Both);
                way.line.open.lock().unwrap().remove(&id);
            });
        }
    }

    /// Returns the number of the process that a connection is of.
    fn owner(&self, client: &TcpStream) -> Option<usize> {
        let peer = client.peer_addr().ok()?;
        let give_up_ns = now_ns() + ns(ADOPTED_WITHIN);
        while now_ns() < give_up_ns {
            let socket = owner::socket(peer)?;
            let processes = self.processes.lock().unwrap().clone();
            if let Some(owner) = processes.iter().position(|process| owner::has(*process, socket)) {
                return Some(owner);
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }
}

impl Line {
    fn weather_of(&self, id: u64) -> Weather {
        let (weather, percent) = *self.weather.lock().unwrap();
        if is_hit(id, percent) { weather } else { Weather::Fair }
    }

    fn close(&self, which: impl Fn(u64) -> bool) {
        for (_, streams) in self.open.lock().unwrap().extract_if(|id, _| which(*id)) {
            for stream in streams {
                // It may be closed already.
                _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Waits while bytes of this direction are held, and returns how they go on.
    fn wait(&self, id: u64, direction: Direction) -> Weather {
        let held = |(weather, percent): &mut (Weather, u8)| {
            is_hit(id, *percent)
                && match weather {
                    Weather::Hold => true,
                    Weather::Mute => direction == Direction::Answers,
                    Weather::Deaf => direction == Direction::Requests,
                    _ => false,
                }
        };
        drop(self.changed.wait_while(self.weather.lock().unwrap(), held).unwrap());
        self.weather_of(id)
    }
}

/// Returns whether a connection is among so many percent of all.
fn is_hit(id: u64, percent: u8) -> bool {
    id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 0xFFFF < 0x1_0000 * u64::from(percent) / 100
}

/// One direction of a connection.
struct Way<'a> {
    inner: &'a Inner,
    line: &'a Line,
    id: u64,
    direction: Direction,
    journal_ns: &'a AtomicU64,
}

impl Way<'_> {
    fn pass_on(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let (mut buffer, mut watch) = ([0; PIECE], JournalWatch::default());
        let mut random = fastrand::Rng::with_seed(self.inner.seed ^ self.id << 1 ^ self.direction as u64);
        // After the reading, which waits: what counts is how the network is when there is something to pass on.
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let mut piece = buffer[..len].to_vec();
            if self.direction == Direction::Requests && watch.sees(&piece) {
                self.journal_ns.store(now_ns(), Ordering::SeqCst);
            }
            let mut is_safe = true;
            match self.line.wait(self.id, self.direction) {
                Weather::Cut => return,
                Weather::Delay(time) => thread::sleep(time),
                Weather::Throttle(rate) => thread::sleep(Duration::from_secs_f64(len as f64 / f64::from(rate))),
                Weather::Garble => is_safe = self.direction == Direction::Requests || self.carries_journal(),
                Weather::Scramble => is_safe = false,
                Weather::Fair | Weather::Hold | Weather::Mute | Weather::Deaf => {}
            }
            if !is_safe && damage(&mut piece, &mut random) {
                self.inner.damaged.fetch_add(1, Ordering::Relaxed);
            }
            if to.write_all(&piece).is_err() {
                return;
            }
        }
    }

    fn carries_journal(&self) -> bool {
        now_ns() < self.journal_ns.load(Ordering::SeqCst) + ns(JOURNAL_FOR)
    }
}
