//! A network between a worker and memcached that can be broken.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to the bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Network {
    Passes,
    /// Every piece is late by so much.
    Delays(Duration),
    /// Nothing arrives in either direction, as in a partition: what was sent meanwhile arrives when it ends.
    HoldsAll,
    /// Requests arrive, and answers do not until it ends.
    HoldsAnswers,
    /// All connections are closed, and so is every new one.
    Cuts,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Requests,
    Answers,
}

/// Takes connections on a loopback port of its own and passes them on; for the whole process's life.
pub(crate) struct Proxy {
    addr: SocketAddr,
    line: Arc<Line>,
}

struct Line {
    network: Mutex<Network>,
    changed: Condvar,
    /// Both ends of every connection, for them to be closed.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn to(memcached: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("the address just bound");
        let line =
            Arc::new(Line { network: Mutex::new(Network::Passes), changed: Condvar::new(), open: Mutex::default() });
        let of_proxy = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                of_proxy.connect(&client, memcached);
            }
        });
        Proxy { addr, line }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn set(&self, network: Network) {
        *self.line.network.lock().unwrap() = network;
        self.line.changed.notify_all();
        if network == Network::Cuts {
            for stream in self.line.open.lock().unwrap().drain(..) {
                // It may be closed already.
                _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Line {
    /// Passes on what a client sends to memcached, and back, on two threads. Where that fails the client is hung up on.
    fn connect(self: &Arc<Line>, client: &TcpStream, memcached: SocketAddr) {
        if *self.network.lock().unwrap() == Network::Cuts {
            return;
        }
        let Ok(server) = TcpStream::connect(memcached) else { return };
        for (from, to, direction) in [(client, &server, Direction::Requests), (&server, client, Direction::Answers)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            _ = to.set_nodelay(true);
            if let Ok(handle) = from.try_clone() {
                self.open.lock().unwrap().push(handle);
            }
            let line = Arc::clone(self);
            thread::spawn(move || line.pass_on(from, to, direction));
        }
    }

    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut bytes = [0; 16 << 10];
        // After the reading, which waits: what counts is how the network is when there is something to pass on.
        while let Ok(len @ 1..) = from.read(&mut bytes)
            && self.is_open(direction)
            && to.write_all(&bytes[..len]).is_ok()
        {}
        _ = from.shutdown(Shutdown::Both);
        _ = to.shutdown(Shutdown::Both);
    }

    /// Waits while bytes of this direction are held, and returns whether they may go on.
    fn is_open(&self, direction: Direction) -> bool {
        let network = self.network.lock().unwrap();
        let held = |network: &mut Network| match network {
            Network::HoldsAll => true,
            Network::HoldsAnswers => direction == Direction::Answers,
            Network::Passes | Network::Delays(_) | Network::Cuts => false,
        };
        let network = *self.changed.wait_while(network, held).unwrap();
        if let Network::Delays(time) = network {
            thread::sleep(time);
        }
        network != Network::Cuts
    }
}
