//! The client of memcached.

use std::net::TcpListener;
use std::time::Duration;

use larder::{Memcached, RemoteErrorKind, RemoteTier};

use crate::{huge, refused};

#[test]
fn an_address_is_a_host_and_a_port() {
    for (address, says) in [
        ("", "is empty"),
        (" ", "is empty"),
        ("host", "has no port"),
        ("host:0", "between 1 and 65535"),
        ("host:65536", "between 1 and 65535"),
        ("host:-1", "between 1 and 65535"),
        (":11211", "has no host"),
        ("::1:11211", "without brackets"),
        ("tcp://host:1", "is no plain host and port"),
        ("a b:1", "is no plain host and port"),
        ("a\0b:1", "is no plain host and port"),
    ] {
        let quoted = format!("{address:?}");
        for result in [Memcached::connect(address), Memcached::builder().server(address).build()] {
            assert_eq!(result.as_ref().unwrap_err().kind(), RemoteErrorKind::Config);
            refused(result, &[&quoted, says, "host:11211"]);
        }
    }
    let long = format!("{}:1", huge());
    assert!(Memcached::connect(&long).is_err());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(Memcached::connect(nobody).unwrap_err().kind(), RemoteErrorKind::Unavailable);
}

#[test]
fn servers_are_one_to_a_thousand_and_different() {
    refused(Memcached::builder().build(), &["no memcached server", "server(\"host:11211\")"]);
    let twice = Memcached::builder().server("Host:1").server("host:1");
    refused(twice.build(), &["host:1 is there twice", "remove one"]);
    let many = |count: u16| (1..=count).fold(Memcached::builder(), |builder, port| builder.server(format!("h:{port}")));
    refused(many(1_001).build(), &["1001 servers", "at most 1000"]);
    assert_eq!(many(1_000).build().unwrap().servers(), 1_000);
}

#[test]
fn a_clients_limits_are_checked() {
    let builder = || Memcached::builder().server("127.0.0.1:11211");
    for timeout in [Duration::ZERO, Duration::MAX] {
        refused(builder().connect_timeout(timeout).build(), &[&format!("connect_timeout is {timeout:?}"), "3600s"]);
    }
    for connections in [0, 1_025, usize::MAX] {
        let says = format!("max_connections is {connections}");
        refused(builder().max_connections(connections).build(), &[&says, "1 to 1024"]);
    }
    for bytes in [0, (1 << 30) + 1, usize::MAX] {
        refused(builder().max_value_len(bytes).build(), &[&format!("max_value_len is {bytes}"), "1 to 1073741824"]);
    }
    let shortest = builder().connect_timeout(Duration::from_nanos(1)).max_connections(1_024).max_value_len(1);
    assert_eq!(shortest.build().unwrap().max_value_len(), 1);
    // A batch of nothing, and one without time.
    assert_eq!(builder().build().unwrap().run(&[], Duration::MAX).len(), 0);
}
