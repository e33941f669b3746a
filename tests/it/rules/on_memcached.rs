//! The rules that are about memcached, on it: R2 as bytes, R8, and R9 where a server stalls.

use std::sync::mpsc;
use std::time::Duration;

use larder::{Action, Command, Expiry, Memcached, Namespace, RemoteTier, Reply, Route, SetMode, WireKey, Write};

use super::{HOUR, Process, in_store, own};
use crate::scene::PATIENCE;
use crate::support::eventually;
use crate::support::fake_server::{FakeServer, opaque};
use crate::support::memcached::Server;
use crate::tiered::gate::{Kind, When};

fn client(server: &Server) -> Memcached {
    Memcached::connect(server.addr()).unwrap()
}

fn run(store: &impl RemoteTier, key: &WireKey, action: Action<'_>) -> Reply {
    store.run(&[Command { key, route: Route::ByKey, action }], PATIENCE).remove(0).unwrap()
}

/// Returns the number of the version of what the store has under a key.
fn version(store: &impl RemoteTier, key: &WireKey) -> u64 {
    match run(store, key, Action::Get { value: false, lease: None, touch: None }) {
        Reply::Hit(item) => item.cas.value,
        Reply::Busy(cas) => cas.value,
        other => panic!("{other:?} under {key:?}"),
    }
}

fn set(store: &impl RemoteTier, key: &WireKey, value: &[u8]) {
    let expiry = Expiry::After(HOUR);
    assert_eq!(run(store, key, Action::Set { value, expiry, mode: SetMode::Always, cas: None }), Reply::Done);
}

/// A server that answers nothing before it has all commands, and then all at once.
#[test]
fn r2_a_bump_is_one_write_on_one_connection() {
    let (seen, commands) = mpsc::channel();
    let server = FakeServer::start(move |mut peer| {
        if !peer.greet() {
            return;
        }
        let mut sets = Vec::new();
        loop {
            match peer.read_line() {
                Some(line) if line.starts_with("ms ") => sets.push(line),
                // The journal is read behind them.
                Some(line) if line.starts_with("mg ") && sets.len() == 3 => break,
                // What is set, or the question of the thread that follows the journal.
                Some(_) => {}
                None => return,
            }
        }
        let answers: String = sets.iter().map(|set| format!("HD {}\r\n", opaque(set))).collect();
        peer.write(format!("{answers}EN\r\n").as_bytes());
        // Nobody listens for a second one.
        let _ = seen.send(sets);
        peer.wait_for_end();
    });
    let store = Memcached::builder().server(server.addr()).build().unwrap();
    let namespace = Namespace::builder("ns", store).timeout(PATIENCE).poll_interval(HOUR).trust(2 * HOUR);
    let namespace = namespace.build().unwrap();
    assert!(namespace.invalidate_group("g").is_acknowledged());
    let sets = commands.recv_timeout(PATIENCE).unwrap();
    let keys: Vec<&str> = sets.iter().map(|set| set.split(' ').nth(1).unwrap()).collect();
    assert_eq!((keys[0], keys[2]), ("ns:j", "ns:j"));
    assert!(keys[1].starts_with("ns:g:"), "{keys:?}");
    let words = |set: &str| set.split(' ').map(own).collect::<Vec<_>>();
    assert!(words(&sets[0]).contains(&own("MA")) && words(&sets[2]).contains(&own("MA")), "{sets:?}");
    assert!(!words(&sets[1]).iter().any(|word| word.starts_with('C') || word == "MA"), "{sets:?}");
}

/// A restarted server numbers its versions anew. The item that another process has put in the place of the lease, under the
/// very number of the lease, is not the lease.
#[test]
fn r8_a_lease_is_void_after_a_restart() {
    let mut server = Server::start();
    let store = client(&server);
    let key = WireKey::new("ns::v:pages:k").unwrap();
    let ballast = WireKey::new("ballast").unwrap();
    // So that the number of the lease is beyond those that a new server begins with.
    (0..200).for_each(|_| set(&store, &ballast, b"1"));
    let loader = Process::new(&store);
    let loaded = loader.load_after("k", "old", || {
        let lease = version(&store, &key);
        server.restart();
        let other = client(&server);
        while version_after_set(&other, &key) < lease {}
        assert_eq!(version(&other, &key), lease, "the number is the same");
    });
    assert_eq!(loaded, "old");
    let get = Action::Get { value: true, lease: None, touch: None };
    let Reply::Hit(item) = run(&client(&server), &key, get) else { panic!("the item is gone") };
    assert_eq!(item.value, b"of another process");
}

fn version_after_set(store: &impl RemoteTier, key: &WireKey) -> u64 {
    set(store, key, b"of another process");
    version(store, key)
}

#[test]
fn r8_a_server_that_numbers_nothing_is_refused() {
    let server = Server::start_with(&["-C"]);
    let error = Memcached::connect(server.addr()).unwrap_err();
    assert!(error.to_string().contains("-C"), "{error}");
}

/// As [`super::writing`] has it, with versions as memcached counts them.
#[test]
fn r9_a_write_that_comes_late_overwrites_nothing_in_memcached() {
    let server = Server::start();
    let store = client(&server);
    let (a, b) = (Process::new(&store), Process::new(&store));
    a.wire.stall(Kind::Write);
    let Write::LocalOnly(_, receipt) = a.pages.insert(own("k"), own("old")) else { panic!("it was not answered") };
    assert!(receipt.wait(PATIENCE), "the deletion is owed, and paid");
    b.insert("k", "new");
    a.wire.arrive();
    assert_eq!(in_store(&store, "k").as_deref(), Some("new"));
}

/// The server stops in the middle of an insert and goes on when nobody waits for it any more: what it had been sent it carries
/// out then, after newer commands or before them.
#[test]
fn r9_a_server_that_stalls_brings_nothing_old_back() {
    let server = Server::start();
    let impatient = |namespace: larder::NamespaceBuilder| namespace.timeout(Duration::from_millis(100));
    let store = client(&server);
    let a = Process::with(&store, impatient, |pages| pages);
    let b = Process::new(&client(&server));
    b.insert("k", "older");
    let pid = server.pid();
    a.wire.at(Kind::Write, When::Before, move || {
        signal(pid, "-STOP");
        eventually("every thread of the server to stand still", || is_stopped(pid).then_some(()));
    });
    let write = a.pages.insert(own("k"), own("old"));
    signal(pid, "-CONT");
    let Write::LocalOnly(_, receipt) = write else { panic!("{write:?} by a stopped server") };
    b.insert("k", "new");
    assert!(receipt.wait(PATIENCE));
    b.look();
    assert_ne!(b.get("k").as_deref(), Some("old"));
    assert_ne!(in_store(&client(&server), "k").as_deref(), Some("old"));
}

/// Returns whether a signal that stops a process has come to all its threads: it is sent, and not waited for.
fn is_stopped(pid: u32) -> bool {
    let is_stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Behind the name of the program, which is in parentheses and may be anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|thread| is_stopped(thread.unwrap()))
}

fn signal(pid: u32, signal: &str) {
    assert!(std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}
