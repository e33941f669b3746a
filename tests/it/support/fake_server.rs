//! A server that does what no memcached should.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A TCP server that runs a script for each connection, on a thread of its own; stopped when dropped.
pub(crate) struct FakeServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    accepted: AtomicUsize,
    /// Handles to all connections, so that stopping wakes the scripts that read from them.
    open: Mutex<Vec<TcpStream>>,
}

/// The server's end of a connection.
pub(crate) struct Peer {
    reader: BufReader<TcpStream>,
}

impl FakeServer {
    pub(crate) fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("the address just bound");
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let of_acceptor = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            let mut scripts = Vec::new();
            for stream in listener.incoming() {
                if of_acceptor.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.expect("accept");
                // What a script has written is on its way when the next line of the script runs.
                stream.set_nodelay(true).expect("no delay");
                of_acceptor.accepted.fetch_add(1, Ordering::SeqCst);
                of_acceptor.open.lock().unwrap().push(stream.try_clone().expect("a second handle"));
                let script = Arc::clone(&script);
                scripts.push(thread::spawn(move || {
                    let handle = stream.try_clone();
                    script(Peer { reader: BufReader::new(stream) });
                    // The handle in `open` would keep the connection alive.
                    _ = handle.map(|stream| stream.shutdown(Shutdown::Both));
                }));
            }
            for stream in of_acceptor.open.lock().unwrap().iter() {
                _ = stream.shutdown(Shutdown::Both);
            }
            for script in scripts {
                _ = script.join();
            }
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// Accepts connections, reads what they send, and never says a word.
    pub(crate) fn silent() -> Self {
        Self::start(Peer::wait_for_end)
    }

    /// Greets as a good memcached does, reads one line, answers it with `answer`, and then as `after` says.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>, after: After) -> Self {
        let answer = answer.into();
        Self::start(move |mut peer| {
            if peer.greet() && peer.read_line().is_some() {
                peer.write(&answer);
                if after == After::Stay {
                    peer.wait_for_end();
                }
            }
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns how many connections it has taken so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            _ = acceptor.join();
        }
    }
}

/// What a fake server does with a connection once it has answered.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum After {
    Stay,
    Close,
}

impl Peer {
    /// Reads a line without its end; `None` when the other side is gone.
    pub(crate) fn read_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(1..) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            _ => None,
        }
    }

    /// Writes `bytes`. Returns whether the other side is still there.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// Answers the questions that larder asks of every new connection. Returns whether it asked them.
    pub(crate) fn greet(&mut self) -> bool {
        let asked = self.read_line().is_some_and(|line| line == "version")
            && self.read_line().is_some_and(|line| line == "stats settings");
        self.write(b"VERSION 1.6.18\r\nSTAT cas_enabled yes\r\nEND\r\n");
        asked
    }

    pub(crate) fn wait_for_end(mut self) {
        while self.read_line().is_some() {}
    }
}

/// Returns the mark of a request, with which its answer has to come.
pub(crate) fn opaque(request: &str) -> &str {
    request.split(' ').find(|token| token.starts_with('O')).expect("every request is marked")
}
