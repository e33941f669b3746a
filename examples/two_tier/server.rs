//! A memcached of this run's own, and what only memcached itself can tell.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use larder::Memcached;

/// The most memory it may use, in MiB: several times what the largest workload in reach needs, so that it evicts nothing.
const MEMORY_MIB: &str = "1024";

/// How often a port is looked for: between finding a free one and memcached taking it, another process may.
const PORT_ATTEMPTS: usize = 10;

const PATIENCE: Duration = Duration::from_secs(5);

/// A memcached on a free loopback port; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    /// Starts the memcached on the `PATH`, or says why there is none to use.
    pub(crate) fn start() -> Result<Server, String> {
        for _ in 0..PORT_ATTEMPTS {
            if let Some(server) = Server::launch()? {
                return Ok(server);
            }
        }
        Err(format!("the memcached on the PATH ended at once, {PORT_ATTEMPTS} times"))
    }

    /// Starts it once; `None` if it ended instead, because the port was taken.
    fn launch() -> Result<Option<Server>, String> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map(|address| address.port());
        let port = port.map_err(|error| format!("there is no free loopback port: {error}"))?.to_string();
        let mut command = Command::new("memcached");
        // As root it refuses to run unless it is told as whom; from others it takes no notice of `-u`.
        command.args(["-l", "127.0.0.1", "-U", "0", "-p", &port, "-m", MEMORY_MIB, "-u", "root"]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = spawned.map_err(|error| match error.kind() {
            ErrorKind::NotFound => "there is no memcached on the PATH".to_owned(),
            _ => format!("the memcached on the PATH cannot be started: {error}"),
        })?;
        let mut server = Server { child, address: format!("127.0.0.1:{port}") };
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if server.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Ok(None);
            }
            // Another process that took the port would answer too, but with another pid.
            if stat(&server.address, "pid").is_ok_and(|pid| pid == u64::from(server.child.id())) {
                return match Memcached::connect(&server.address) {
                    Ok(_) => Ok(Some(server)),
                    Err(error) => Err(format!("the memcached on the PATH cannot be used: {error}")),
                };
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("the memcached on the PATH does not answer within {PATIENCE:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Returns one of the numbers that memcached's `stats` tells.
pub(crate) fn stat(address: &str, name: &str) -> io::Result<u64> {
    let resolved = address.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&resolved, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"stats\r\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["STAT", found, value] if found == name => return value.parse().map_err(|_| ErrorKind::InvalidData.into()),
            ["END"] => break,
            _ => {}
        }
    }
    Err(ErrorKind::NotFound.into())
}
