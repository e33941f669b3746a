//! A memcached of a test's own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::eventually;

/// How often a port is looked for: between finding a free one and memcached taking it, another process may.
const PORT_ATTEMPTS: usize = 20;

/// A memcached on a free loopback port; killed when dropped.
pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    options: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further command line options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        for _ in 0..PORT_ATTEMPTS {
            let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
            if let Some(child) = launch(addr, &options) {
                return Self { child, addr, options };
            }
        }
        panic!("memcached ended at once, {PORT_ATTEMPTS} times: does it take the options {options:?}?");
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns a client of it.
    pub(crate) fn client(&self) -> larder::Memcached {
        larder::Memcached::connect(self.addr).expect("memcached answers")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process, as a crash would, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill memcached");
        self.child.wait().expect("wait for memcached");
    }

    /// Kills the process if it still runs, and starts an empty one on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = eventually("memcached on its old port", || launch(self.addr, &self.options));
    }

    /// Sends one line and returns the first line of the answer, as an operator would with telnet.
    pub(crate) fn ask(&self, line: &str) -> String {
        ask(self.addr, line).expect("memcached answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Starts memcached and waits until it answers; `None` if it ended instead, because the port is taken.
fn launch(addr: SocketAddr, options: &[String]) -> Option<Child> {
    let mut command = Command::new("memcached");
    command.args(["-l", "127.0.0.1", "-U", "0", "-p", &addr.port().to_string()]).args(options);
    // It refuses to run as root unless told to.
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        command.args(["-u", "root"]);
    }
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = spawned.unwrap_or_else(|error| {
        panic!("cannot start memcached ({error}): install 1.6.18 or later, e.g. `apt-get install memcached`")
    });
    let pid = child.id().to_string();
    eventually("memcached to answer", || {
        if child.try_wait().expect("look at memcached").is_some() {
            return Some(false);
        }
        // Another process that took the port would answer too, but with another pid.
        let answer = ask(addr, "stats").ok()?;
        Some(answer.strip_prefix("STAT pid ").is_some_and(|answer| answer.trim() == pid))
    })
    .then_some(child)
}

pub(crate) fn ask(addr: SocketAddr, line: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("{line}\r\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}
