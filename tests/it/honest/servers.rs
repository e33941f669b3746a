//! Real memcached servers: restarts, long loads, and several of them.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use larder::{Memcached, RemoteTier, Route, WireKey, Write};

use super::pending;
use crate::rules::{Process, own};
use crate::scene::{Gate, PATIENCE, eventually};
use crate::support::memcached::Server;

fn client(servers: &[&Server]) -> Memcached {
    servers.iter().fold(Memcached::builder(), |client, server| client.server(server.addr())).build().unwrap()
}

#[test]
fn what_is_pending_is_settled_after_a_restart() {
    let mut server = Server::start();
    let store = client(&[&server]);
    let a = Process::new(&store);
    a.insert("k", "old");
    server.kill();
    let receipts = [pending(a.namespace().invalidate_group("g")), pending(a.pages.remove("k"))];
    let Write::LocalOnly(_, written) = a.pages.insert(own("l"), own("1")) else { panic!("nobody took it") };
    assert!(receipts.iter().chain([&written]).all(|receipt| !receipt.is_settled()));
    server.restart();
    assert!(receipts.iter().chain([&written]).all(|receipt| receipt.wait(PATIENCE)));
    assert_eq!(a.namespace().owed(), 0);
    a.look();
    assert_eq!(a.get("k"), None);
    a.insert("k", "new");
    assert_eq!(Process::new(&store).get("k").as_deref(), Some("new"));
}

/// A load that takes longer than its lease: whoever waits for it does not load.
#[test]
fn the_lease_of_a_long_load_is_renewed() {
    // Twice the shortest, so that a busy machine has four seconds to be late with a renewal.
    const LEASE: Duration = Duration::from_secs(6);
    let server = Server::start();
    let store = client(&[&server]);
    let process = || Process::with(&store, |namespace| namespace.lease(LEASE), |pages| pages.load_wait(4 * PATIENCE));
    let (a, b) = (process(), process());
    let loading = Gate::new();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            loading.reached();
            b.load_after("k", "of b", || panic!("a second load"))
        });
        let loaded = a.load_after("k", "of a", || {
            loading.open();
            loading.pass();
            // The server rounds leases up to its clock's next second.
            let over = Instant::now() + LEASE + Duration::from_secs(2);
            while Instant::now() < over {
                assert_ne!(server.ask("mg ns::v:pages:k").trim(), "EN", "the lease is there all the time");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        assert_eq!((loaded, second.join().unwrap()), (own("of a"), own("of a")));
    });
}

#[test]
fn another_server_takes_its_share_of_keys_and_no_more() {
    const KEYS: usize = 20_000;
    let address = |number: usize| format!("127.0.0.1:{}", 20_000 + number);
    let client =
        |count| (0..count).fold(Memcached::builder(), |client, at| client.server(address(at))).build().unwrap();
    let (three, four) = (client(3), client(4));
    let (mut moved, mut of_each) = (0, [0; 4]);
    for number in 0..KEYS {
        let key = WireKey::new(format!("ns:1:v:pages:{number}")).unwrap();
        let (before, after) = (three.server_of(&key, Route::ByKey), four.server_of(&key, Route::ByKey));
        assert!(after == before || after == 3, "{number} moved from {before} to {after}");
        moved += usize::from(after != before);
        of_each[after] += 1;
    }
    // A quarter each, within five standard deviations.
    let fair = |count: usize| count.abs_diff(KEYS / 4) < 310;
    assert!(fair(moved) && of_each.into_iter().all(fair), "{moved} moved, {of_each:?}");
}

/// Whichever of three it is, the one with tokens and journal among them.
#[test]
fn a_dead_server_costs_misses() {
    for dead in 0..3 {
        let mut servers: Vec<Server> = (0..3).map(|_| Server::start()).collect();
        let store = client(&servers.iter().collect::<Vec<_>>());
        let a = Process::new(&store);
        let keys: Vec<String> = (0..60).map(|number| format!("key {number}")).collect();
        assert!(a.pages.insert_many(keys.iter().map(|key| (key.clone(), own("1")))).iter().all(Write::is_through));
        // With no copies, and the tokens at hand, as a process has them that runs for long.
        let b = Process::with(&store, |namespace| namespace, |pages| pages.capacity(0));
        let all = || b.pages.get_many(keys.iter().map(String::as_str));
        assert!(all().iter().all(Option::is_some));
        servers[dead].kill();
        let found = all().iter().filter(|value| value.is_some()).count();
        assert!(found > 0 && found < keys.len(), "{found} found");
        for key in &keys {
            let loaded = b.pages.get_or_load(key.as_str(), |_| Ok::<_, Infallible>(own("2"))).unwrap();
            assert!(loaded == "1" || loaded == "2");
        }
        assert!(b.pages.remote_stats().errors > 0);
        let health = b.namespace().health();
        assert_eq!(health.servers.len(), 3);
        servers[dead].restart();
        eventually("its keys are written again", || {
            let writes = a.pages.insert_many(keys.iter().map(|key| (key.clone(), own("3"))));
            writes.iter().all(Write::is_through)
        });
    }
}
