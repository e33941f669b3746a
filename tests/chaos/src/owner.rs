//! Which process has a connection.
//!
//! All processes must know a server by the same address, since its items are assigned by that. So one proxy serves them all,
//! and has to find out whom it is about to cut off.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

/// Returns the number of the socket that has `local` as its own end, by which the files of its process name it.
///
/// It is 0 between the connection's beginning and its process's having it.
pub(crate) fn socket(local: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(local) = local else { return None };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(local.ip().octets()), local.port());
    let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
    let line = sockets.lines().find(|line| line.split_whitespace().nth(1) == Some(&*wanted))?;
    line.split_whitespace().nth(9)?.parse().ok()
}

/// Returns whether a process has this socket.
pub(crate) fn has(process: u32, socket: u64) -> bool {
    let wanted = format!("socket:[{socket}]");
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == &*wanted)
}

/// The address at which proxies listen and servers are.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process;

    use super::*;

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = socket(stream.local_addr().unwrap()).unwrap();
        assert!(has(process::id(), socket));
        assert!(!has(1, socket) || process::id() == 1);
        drop(stream);
        assert!(!has(process::id(), socket));
    }
}
