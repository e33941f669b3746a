//! `Memcached` against servers that are old, misconfigured, dead, slow or hostile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use larder::{
    Action, BreakerState, Cas, Command, Expiry, Memcached, RemoteError, RemoteErrorKind, RemoteTier, Reply, Route,
    SetMode, WireKey,
};

use crate::support::fake_server::{After, FakeServer, opaque};
use crate::support::memcached::Server;
use crate::support::{PATIENCE, eventually};

/// The time limit of commands that have to wait it out.
const SHORT: Duration = Duration::from_millis(200);
const HOUR: Duration = Duration::from_secs(3_600);
const GET: Action<'_> = Action::Get { value: true, lease: None, touch: None };
const LEASE: Action<'_> = Action::Get { value: true, lease: Some(HOUR), touch: None };

fn set(value: &[u8], cas: Option<Cas>) -> Action<'_> {
    Action::Set { value, expiry: Expiry::Never, mode: SetMode::Always, cas }
}

fn run_for(
    remote: &Memcached,
    limit: Duration,
    route: Route,
    actions: &[(&str, Action<'_>)],
) -> Vec<Result<Reply, RemoteError>> {
    let keys: Vec<_> = actions.iter().map(|(key, _)| WireKey::new(*key).unwrap()).collect();
    let batch: Vec<_> =
        keys.iter().zip(actions).map(|(key, (_, action))| Command { key, route, action: *action }).collect();
    let replies = remote.run(&batch, limit);
    assert_eq!(replies.len(), batch.len());
    replies
}

fn run_one(remote: &Memcached, key: &str, action: Action<'_>) -> Result<Reply, RemoteError> {
    run_for(remote, PATIENCE, Route::ByKey, &[(key, action)]).remove(0)
}

fn cas_of(reply: &Reply) -> Cas {
    match reply {
        Reply::Hit(item) => item.cas,
        Reply::Won(cas) => *cas,
        other => panic!("{other:?} has no cas"),
    }
}

fn assert_says(error: &RemoteError, kind: RemoteErrorKind, parts: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

/// Runs what must come back by itself, however the server behaves.
fn in_bounded_time<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let start = Instant::now();
    let outcome = work();
    assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
    outcome
}

fn lazy(server: &FakeServer) -> Memcached {
    Memcached::builder().server(server.addr()).build().unwrap()
}

// ---- configuration ----

#[test]
fn a_configuration_that_cannot_work_names_the_value_and_the_fix() {
    let refuse = |builder: larder::MemcachedBuilder, parts: &[&str]| {
        assert_says(&builder.build().unwrap_err(), RemoteErrorKind::Config, parts);
    };
    let one = || Memcached::builder().server("localhost:11211");
    refuse(Memcached::builder(), &["no memcached server", "server(\"host:11211\")"]);
    refuse(Memcached::builder().server(""), &["\"\"", "host:11211"]);
    refuse(Memcached::builder().server("cache"), &["\"cache\"", "no port", "host:11211"]);
    refuse(one().server("LOCALHOST:11211"), &["localhost:11211", "twice"]);
    refuse(one().max_connections(0), &["max_connections is 0"]);
    refuse(one().max_value_len(0), &["max_value_len is 0"]);
    refuse(one().max_value_len(usize::MAX), &["max_value_len is"]);
    refuse(one().connect_timeout(Duration::ZERO), &["connect_timeout is 0ns"]);
    assert!(one().server("[::1]:11211").build().is_ok(), "building does no I/O");
    assert_says(&Memcached::connect("nowhere").unwrap_err(), RemoteErrorKind::Config, &["nowhere"]);
}

#[test]
fn an_old_server_is_refused_with_its_version_and_the_fix() {
    let server = FakeServer::start(|mut peer| {
        peer.read_line();
        peer.write(b"VERSION 1.6.9\r\n");
        peer.wait_for_end();
    });
    let parts = ["1.6.9", "1.6.18", "upgrade", &server.addr().to_string()];
    assert_says(&Memcached::connect(server.addr()).unwrap_err(), RemoteErrorKind::Config, &parts);
    let error = run_one(&lazy(&server), "a", GET).unwrap_err();
    assert_says(&error, RemoteErrorKind::Config, &parts);
    assert!(!error.is_indeterminate());
}

#[test]
fn a_server_without_cas_is_refused_with_the_fix() {
    let server = Server::start_with(&["-C"]);
    assert_says(&Memcached::connect(server.addr()).unwrap_err(), RemoteErrorKind::Config, &["cas", "-C"]);
    let lazy = Memcached::builder().server(server.addr()).build().unwrap();
    assert_says(&run_one(&lazy, "a", GET).unwrap_err(), RemoteErrorKind::Config, &["cas", "-C"]);
}

/// One that does not tell its settings is found out by the first item it shows.
#[test]
fn a_server_that_answers_cas_0_is_refused() {
    let server = FakeServer::start(|mut peer| {
        peer.read_line();
        peer.read_line();
        peer.write(b"VERSION 1.6.18\r\nERROR\r\n");
        while let Some(request) = peer.read_line() {
            peer.write(format!("VA 1 c0 t-1 s1 {}\r\nx\r\n", opaque(&request)).as_bytes());
        }
    });
    let remote = Memcached::connect(server.addr()).unwrap();
    assert_says(&run_one(&remote, "a", GET).unwrap_err(), RemoteErrorKind::Config, &["cas", "-C"]);
}

#[test]
fn what_is_no_memcached_is_refused() {
    let server = FakeServer::start(|mut peer| {
        peer.read_line();
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    assert_says(
        &Memcached::connect(server.addr()).unwrap_err(),
        RemoteErrorKind::Protocol,
        &["HTTP/1.1 400", "version"],
    );
}

#[test]
fn a_name_is_looked_up() {
    let server = Server::start();
    let remote = Memcached::connect(format!("localhost:{}", server.addr().port())).unwrap();
    assert_eq!(run_one(&remote, "a", GET).unwrap(), Reply::Miss);
}

// ---- servers that do not answer ----

#[test]
fn a_port_without_a_server_is_unavailable() {
    let mut server = Server::start();
    server.kill();
    let error = in_bounded_time(|| Memcached::connect(server.addr()).unwrap_err());
    assert_says(&error, RemoteErrorKind::Unavailable, &["cannot connect", &server.addr().to_string()]);
}

#[test]
fn a_server_that_never_answers_the_first_question_is_unavailable() {
    let server = FakeServer::silent();
    let error = in_bounded_time(|| Memcached::connect(server.addr()).unwrap_err());
    assert_says(&error, RemoteErrorKind::Unavailable, &["does not answer", &server.addr().to_string()]);
    let error = in_bounded_time(|| run_for(&lazy(&server), SHORT, Route::ByKey, &[("a", GET)]).remove(0).unwrap_err());
    assert_eq!(error.kind(), RemoteErrorKind::Unavailable);
}

#[test]
fn a_server_that_hangs_times_out_and_its_breaker_opens() {
    let server = FakeServer::start(|mut peer| {
        peer.greet();
        peer.wait_for_end();
    });
    let remote = Memcached::connect(server.addr()).unwrap();
    // On the connection that is there; the next ones may not even be greeted in time.
    let replies = in_bounded_time(|| run_for(&remote, SHORT, Route::ByKey, &[("a", GET), ("b", set(b"1", None))]));
    for reply in replies {
        let error = reply.unwrap_err();
        assert_says(&error, RemoteErrorKind::TimedOut, &["in time"]);
        assert!(error.is_indeterminate());
    }
    eventually("the breaker to refuse without dialling", || {
        let before = server.accepted();
        let error = run_for(&remote, SHORT, Route::ByKey, &[("a", GET)]).remove(0).unwrap_err();
        // The server may count a connection late that was dialled before.
        (error.to_string().contains("keeps failing") && server.accepted() == before).then(|| {
            assert_says(&error, RemoteErrorKind::Unavailable, &[&server.addr().to_string()]);
            assert!(!error.is_indeterminate());
        })
    });
}

#[test]
fn a_timed_out_connection_never_answers_another_request() {
    // Answers each request only when the next connection has been made.
    let (release, released) = mpsc::channel();
    let released = std::sync::Mutex::new(released);
    let connections = AtomicUsize::new(0);
    let server = FakeServer::start(move |mut peer| {
        peer.greet();
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        while let Some(request) = peer.read_line() {
            if first {
                _ = released.lock().unwrap().recv();
            }
            let value = if first { "late" } else { "good" };
            peer.write(format!("VA 4 c1 t-1 s4 {}\r\n{value}\r\n", opaque(&request)).as_bytes());
        }
    });
    let remote = Memcached::connect(server.addr()).unwrap();
    let late = run_for(&remote, SHORT, Route::ByKey, &[("a", GET)]).remove(0);
    assert_eq!(late.unwrap_err().kind(), RemoteErrorKind::TimedOut);
    release.send(()).unwrap();
    let Reply::Hit(item) = run_one(&remote, "b", GET).unwrap() else { panic!("no hit") };
    assert_eq!(item.value, b"good");
}

/// Bytes that trickle in keep a read alive, but not past the batch's time limit.
#[test]
fn a_server_that_trickles_does_not_outlast_the_time_limit() {
    let server = FakeServer::start(|mut peer| {
        if peer.greet() && peer.read_line().is_some() {
            while peer.write(b"V") {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let remote = Memcached::connect(server.addr()).unwrap();
    let error = in_bounded_time(|| run_for(&remote, SHORT, Route::ByKey, &[("a", GET)]).remove(0).unwrap_err());
    assert_eq!(error.kind(), RemoteErrorKind::TimedOut);
}

// ---- servers that answer what they should not ----

#[test]
fn garbage_is_a_protocol_error_and_ends_the_connection() {
    let zeros = vec![0; 1 << 20];
    let no_line_end = vec![b'A'; 1 << 20];
    let mut noise = Vec::new();
    let mut state = 1_u32;
    for _ in 0..1 << 16 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((state >> 24) as u8);
    }
    noise.push(b'\n');
    let answers: [&[u8]; 14] = [
        b"\r\n",
        b"garbage\r\n",
        b"VA\r\n",
        b"VA x O1\r\n",
        b"VA 4294967295 c1 t-1 s4294967295 O1\r\n",
        b"VA 18446744073709551616 O1\r\n",
        b"VA 1073741824 c1 t-1 s1073741824 O1\r\n",
        b"VA 3 c1 t-1 s3 O1\r\nabcdef\r\n",
        b"VA 3 c1 t-1 s3 O2\r\nabc\r\n",
        b"HD c1 t-1 s3\r\n",
        b"CLIENT_ERROR line too long\r\n",
        &zeros,
        &no_line_end,
        &noise,
    ];
    for answer in answers {
        let server = FakeServer::answering(answer, After::Stay);
        let remote = Memcached::connect(server.addr()).unwrap();
        let shown = answer[..answer.len().min(40)].escape_ascii();
        let error = in_bounded_time(|| run_one(&remote, "a", GET).unwrap_err());
        assert_eq!(error.kind(), RemoteErrorKind::Protocol, "{shown}: {error}");
        assert!(error.is_indeterminate(), "{shown}: the command was sent");
        assert!(error.to_string().len() < 1_000, "{shown}: a short message");
        _ = in_bounded_time(|| run_one(&remote, "a", GET));
        assert_eq!(server.accepted(), 2, "{shown}: a new connection");
    }
}

#[test]
fn a_connection_that_ends_in_the_middle_is_interrupted() {
    for answer in [&b""[..], b"V", b"VA 10 c1 t-1 s10 O1\r\n", b"VA 10 c1 t-1 s10 O1\r\nabcde", b"EN O1"] {
        let server = FakeServer::answering(answer, After::Close);
        let remote = Memcached::connect(server.addr()).unwrap();
        let error = in_bounded_time(|| run_one(&remote, "a", GET).unwrap_err());
        assert_says(&error, RemoteErrorKind::Interrupted, &["broke"]);
        assert!(error.is_indeterminate());
    }
}

/// Answers that came before the failure count, and what came after it says what became of it.
#[test]
fn a_batch_that_breaks_off_keeps_its_first_answers() {
    let server = FakeServer::answering("EN O1\r\nEN O2\r\n", After::Close);
    let remote = Memcached::connect(server.addr()).unwrap();
    let large = vec![0; 200 << 10];
    let batch = [("a", GET), ("b", GET), ("c", GET), ("d", set(&large, None)), ("e", GET)];
    let replies = run_for(&remote, PATIENCE, Route::ByKey, &batch);
    let kinds: Vec<_> = replies.into_iter().map(|reply| reply.map_err(|error| error.kind())).collect();
    assert_eq!(kinds[..3], [Ok(Reply::Miss), Ok(Reply::Miss), Err(RemoteErrorKind::Interrupted)]);
    // In the next part of the batch, which has never left.
    assert_eq!(kinds[3..], [Err(RemoteErrorKind::Unavailable), Err(RemoteErrorKind::Unavailable)]);
}

/// The refusal is the first command's own; of the second, nobody knows whether it was carried out.
#[test]
fn a_failure_of_the_server_leaves_the_rest_of_a_batch_open() {
    let server = FakeServer::answering("SERVER_ERROR backend gone\r\n", After::Stay);
    let remote = Memcached::connect(server.addr()).unwrap();
    let replies = run_for(&remote, PATIENCE, Route::ByKey, &[("a", GET), ("b", set(b"1", None))]);
    assert_says(replies[0].as_ref().unwrap_err(), RemoteErrorKind::Refused, &["backend gone"]);
    assert_says(replies[1].as_ref().unwrap_err(), RemoteErrorKind::Interrupted, &["not answered", "backend gone"]);
}

#[test]
fn a_stray_answer_in_an_idle_connection_is_found_before_use() {
    let (sent, was_sent) = mpsc::channel();
    let connections = AtomicUsize::new(0);
    let server = FakeServer::start(move |mut peer| {
        peer.greet();
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        while let Some(request) = peer.read_line() {
            peer.write(format!("EN {}\r\n", opaque(&request)).as_bytes());
            if first {
                peer.write(b"VA 1 c1 t-1 s1 O2\r\nx\r\n");
                _ = sent.send(());
            }
        }
    });
    let remote = Memcached::connect(server.addr()).unwrap();
    assert_eq!(run_one(&remote, "a", GET).unwrap(), Reply::Miss);
    was_sent.recv_timeout(PATIENCE).unwrap();
    assert_eq!(run_one(&remote, "a", GET).unwrap(), Reply::Miss);
    assert_eq!(server.accepted(), 2);
}

#[test]
fn a_store_out_of_memory_refuses_and_goes_on() {
    let server = Server::start_with(&["-M", "-m", "8"]);
    let remote = Memcached::connect(server.addr()).unwrap();
    let value = vec![b'x'; 500_000];
    let refused = (0..1_000).find_map(|number| run_one(&remote, &format!("key:{number}"), set(&value, None)).err());
    assert_says(&refused.expect("memory has an end"), RemoteErrorKind::Refused, &["out of memory"]);
    let Reply::Hit(item) = run_one(&remote, "key:0", GET).unwrap() else { panic!("no hit") };
    assert!(item.value == value);
}

/// A server with a smaller item limit than ours refuses the value alone.
#[test]
fn a_value_beyond_the_servers_limit_is_too_large_and_the_batch_goes_on() {
    let server = Server::start_with(&["-I", "512k"]);
    let remote = Memcached::connect(server.addr()).unwrap();
    let value = vec![b'x'; 700_000];
    let replies = run_for(&remote, PATIENCE, Route::ByKey, &[("a", set(&value, None)), ("b", GET), ("b", LEASE)]);
    assert_eq!(replies[0].as_ref().unwrap_err().kind(), RemoteErrorKind::TooLarge);
    assert_eq!(replies[1].as_ref().unwrap(), &Reply::Miss);
    let cas = cas_of(replies[2].as_ref().unwrap());
    assert_eq!(run_one(&remote, "b", set(b"1", Some(cas))).unwrap(), Reply::Done, "the connection lives");
}

// ---- connections and cas ----

#[test]
fn a_restart_fences_old_claims_and_the_client_recovers() {
    let mut server = Server::start();
    let remote = Memcached::connect(server.addr()).unwrap();
    let before = cas_of(&run_one(&remote, "a", LEASE).unwrap());
    server.restart();
    // Another client's claim: the restarted server gives it the same number.
    let other = Memcached::connect(server.addr()).unwrap();
    let after = cas_of(&run_one(&other, "a", LEASE).unwrap());
    assert_eq!(before.value, after.value);
    assert_ne!(before.connection, after.connection);
    assert_eq!(run_one(&remote, "a", set(b"old", Some(before))).unwrap(), Reply::Fenced);
    assert_eq!(run_one(&remote, "a", Action::Delete { cas: Some(before) }).unwrap(), Reply::Fenced);
    assert!(matches!(run_one(&remote, "a", LEASE).unwrap(), Reply::Busy(_)));
    assert_eq!(run_one(&other, "a", set(b"new", Some(after))).unwrap(), Reply::Done);
    let Reply::Hit(item) = run_one(&remote, "a", GET).unwrap() else { panic!("no hit") };
    assert_eq!(item.value, b"new");
}

#[test]
fn an_outage_opens_the_breaker_and_a_probe_closes_it() {
    let mut server = Server::start();
    let remote = Memcached::connect(server.addr()).unwrap();
    assert_eq!(run_one(&remote, "a", set(b"1", None)).unwrap(), Reply::Done);
    server.kill();
    eventually("the breaker to open", || {
        let error = run_one(&remote, "a", GET).unwrap_err();
        error.to_string().contains("keeps failing").then_some(())
    });
    server.restart();
    eventually("a probe to find the server", || run_one(&remote, "a", GET).ok());
}

/// A server that answers the key "slow" only when told to, every other read with an item, and every write with success.
fn slow_server() -> (FakeServer, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (release, released) = mpsc::channel();
    let released = std::sync::Mutex::new(released);
    let (started, has_started) = mpsc::channel();
    let server = FakeServer::start(move |mut peer| {
        peer.greet();
        while let Some(request) = peer.read_line() {
            let mark = opaque(&request);
            let answer = if request.starts_with("mg slow") {
                started.send(()).unwrap();
                _ = released.lock().unwrap().recv();
                format!("EN {mark}\r\n")
            } else if request.starts_with("mg") {
                format!("VA 1 c7 t-1 s1 {mark}\r\nx\r\n")
            } else {
                peer.read_line();
                format!("HD {mark}\r\n")
            };
            peer.write(answer.as_bytes());
        }
    });
    (server, release, has_started)
}

/// The connection that read the cas is in use by another thread: the command waits for it.
#[test]
fn a_command_waits_for_the_connection_of_its_cas() {
    let (server, release, has_started) = slow_server();
    let remote = Memcached::connect(server.addr()).unwrap();
    let cas = cas_of(&run_one(&remote, "a", GET).unwrap());
    thread::scope(|scope| {
        let slow = scope.spawn(|| run_one(&remote, "slow", GET));
        has_started.recv_timeout(PATIENCE).unwrap();
        // Its connection does not come back within this limit, and nothing was sent.
        let error = run_for(&remote, SHORT, Route::ByKey, &[("a", set(b"1", Some(cas)))]).remove(0).unwrap_err();
        assert_says(&error, RemoteErrorKind::Unavailable, &["in use"]);
        // Others go on meanwhile, on a connection of their own.
        assert_ne!(cas_of(&run_one(&remote, "a", GET).unwrap()).connection, cas.connection);
        let waiting = scope.spawn(|| run_one(&remote, "a", set(b"1", Some(cas))));
        release.send(()).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), Reply::Done);
        assert_eq!(slow.join().unwrap().unwrap(), Reply::Miss);
    });
    assert_eq!(server.accepted(), 2);
}

#[test]
fn in_a_batch_with_the_cas_of_two_connections_the_second_is_fenced() {
    let (server, release, has_started) = slow_server();
    let remote = Memcached::connect(server.addr()).unwrap();
    let first = cas_of(&run_one(&remote, "a", GET).unwrap());
    let second = thread::scope(|scope| {
        scope.spawn(|| run_one(&remote, "slow", GET));
        has_started.recv_timeout(PATIENCE).unwrap();
        let second = cas_of(&run_one(&remote, "b", GET).unwrap());
        release.send(()).unwrap();
        second
    });
    assert_ne!(first.connection, second.connection);
    let batch = [("c", GET), ("b", set(b"2", Some(second))), ("a", set(b"1", Some(first))), ("c", GET)];
    let replies: Vec<_> = run_for(&remote, PATIENCE, Route::ByKey, &batch).into_iter().map(Result::unwrap).collect();
    assert_eq!(cas_of(&replies[0]).connection, second.connection);
    assert_eq!(replies[1..3], [Reply::Done, Reply::Fenced]);
    assert_eq!(cas_of(&replies[3]).connection, second.connection);
    assert_eq!(run_one(&remote, "a", set(b"1", Some(first))).unwrap(), Reply::Done, "alone, it holds");
}

#[test]
fn no_more_connections_are_made_than_allowed() {
    let (server, release, has_started) = slow_server();
    let remote = Memcached::builder().server(server.addr()).max_connections(2).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| run_one(&remote, "slow", GET));
        }
        for _ in 0..2 {
            has_started.recv_timeout(PATIENCE).unwrap();
        }
        let error = run_for(&remote, SHORT, Route::ByKey, &[("a", GET)]).remove(0).unwrap_err();
        assert_says(&error, RemoteErrorKind::Unavailable, &["2 are in use"]);
        assert!(!error.is_indeterminate());
        let waiting = scope.spawn(|| run_one(&remote, "a", GET));
        for _ in 0..2 {
            release.send(()).unwrap();
        }
        assert!(waiting.join().unwrap().is_ok());
    });
    assert_eq!(server.accepted(), 2);
}

/// What was read on a connection that had to go is void, although the server is the same.
#[test]
fn a_failed_exchange_voids_the_cas_of_its_connection() {
    let (server, release, _has_started) = slow_server();
    let remote = Memcached::connect(server.addr()).unwrap();
    let cas = cas_of(&run_one(&remote, "a", GET).unwrap());
    let error = run_for(&remote, SHORT, Route::ByKey, &[("slow", GET)]).remove(0).unwrap_err();
    assert_eq!(error.kind(), RemoteErrorKind::TimedOut);
    assert_eq!(run_one(&remote, "a", set(b"1", Some(cas))).unwrap(), Reply::Fenced);
    assert_eq!(server.accepted(), 1, "it was not sent");
    release.send(()).unwrap();
}

/// On the wire, a cas of 0 is no condition at all: the command must not be sent, and costs nobody a connection.
#[test]
fn a_cas_of_0_is_fenced() {
    let server = Server::start();
    let remote = Memcached::connect(server.addr()).unwrap();
    let claim = cas_of(&run_one(&remote, "a", LEASE).unwrap());
    for action in [set(b"1", Some(Cas { value: 0, ..claim })), Action::Delete { cas: Some(Cas { value: 0, ..claim }) }]
    {
        assert_eq!(run_one(&remote, "a", action).unwrap(), Reply::Fenced);
    }
    assert_eq!(run_one(&remote, "a", set(b"1", Some(claim))).unwrap(), Reply::Done);
}

/// Small values are parts of the buffer that they came in, long ones are not, and a full buffer is left for another.
#[test]
fn values_of_any_length_stay_as_they_came() {
    const AROUND: [usize; 3] = [16 << 10, 32 << 10, 64 << 10];
    let server = Server::start();
    let remote = server.client();
    let lens = AROUND.iter().flat_map(|len| len - 4..len + 4).chain(0..4).chain([100, 5_000, 10_000, 200_000]);
    let values: Vec<Vec<u8>> = lens.map(|len| (0..len).map(|at| (at * 31 + len) as u8).collect()).collect();
    let names: Vec<String> = (0..values.len()).map(|number| format!("key{number}")).collect();
    for (name, value) in names.iter().zip(&values) {
        assert_eq!(run_one(&remote, name, set(value, None)).unwrap(), Reply::Done);
    }
    // Several exchanges with different values in each place, whose values are all held.
    let orders: Vec<Vec<usize>> =
        [1, 3, 5, 11].map(|step| (0..4 * values.len()).map(|at| at * step % values.len()).collect()).into();
    let read = |order: &Vec<usize>| {
        let batch: Vec<_> = order.iter().map(|&number| (&*names[number], GET)).collect();
        run_for(&remote, PATIENCE, Route::ByKey, &batch)
    };
    let held: Vec<_> = orders.iter().map(read).collect();
    for (order, replies) in orders.iter().zip(held) {
        for (&number, reply) in order.iter().zip(replies) {
            let Ok(Reply::Hit(item)) = reply else { panic!("{reply:?}") };
            assert!(item.value == values[number], "a value of {} bytes", values[number].len());
        }
    }
}

/// A large batch is split, and still goes over one connection in order.
#[test]
fn a_large_batch_goes_over_one_connection() {
    let server = Server::start();
    let remote = Memcached::connect(server.addr()).unwrap();
    let value = vec![b'x'; 1_000];
    let names: Vec<_> = (0..1_000).map(|number| format!("key:{number}")).collect();
    let batch: Vec<_> =
        names.iter().flat_map(|name| [(name.as_str(), set(&value, None)), (name.as_str(), GET)]).collect();
    let replies = run_for(&remote, PATIENCE, Route::ByKey, &batch);
    let reads = replies.into_iter().skip(1).step_by(2).map(|reply| cas_of(&reply.unwrap()));
    let cas: Vec<_> = reads.collect();
    assert!(cas.windows(2).all(|pair| pair[0].connection == pair[1].connection && pair[0].value < pair[1].value));
}

/// Answers of many megabytes, while the server still has requests to read: neither side may wait for the other.
#[test]
fn a_batch_of_large_reads_does_not_lock_up() {
    let server = Server::start();
    let remote = Memcached::connect(server.addr()).unwrap();
    let value = vec![b'x'; 900_000];
    let longest_key = "k".repeat(250);
    run_one(&remote, &longest_key, set(&value, None)).unwrap();
    let replies = run_for(&remote, PATIENCE, Route::ByKey, &[(longest_key.as_str(), GET); 200]);
    assert!(replies.iter().all(|reply| matches!(reply, Ok(Reply::Hit(item)) if item.len == value.len())));
}

// ---- several servers ----

#[test]
fn a_dead_server_is_a_miss_of_its_share_alone() {
    let mut servers = [Server::start(), Server::start(), Server::start()];
    let builder = servers.iter().fold(Memcached::builder(), |builder, server| builder.server(server.addr()));
    let remote = builder.build().unwrap();
    let names: Vec<_> = (0..100).map(|number| format!("key:{number}")).collect();
    let writes: Vec<_> = names.iter().map(|name| (name.as_str(), set(b"1", None))).collect();
    let reads: Vec<_> = names.iter().map(|name| (name.as_str(), GET)).collect();
    for reply in run_for(&remote, PATIENCE, Route::ByKey, &writes) {
        assert_eq!(reply.unwrap(), Reply::Done);
    }
    servers[0].kill();
    let (hits, errors): (Vec<_>, Vec<_>) =
        run_for(&remote, PATIENCE, Route::ByKey, &reads).into_iter().partition(Result::is_ok);
    assert!(hits.iter().all(|reply| matches!(reply, Ok(Reply::Hit(_)))));
    assert!((10..90).contains(&errors.len()), "{} of 100 keys were on the dead server", errors.len());
}

/// Each server has its part of the time limit, so that one that hangs does not starve the others.
#[test]
fn a_hanging_server_leaves_the_others_their_time() {
    let hanging = FakeServer::start(|mut peer| {
        peer.greet();
        peer.wait_for_end();
    });
    let server = Server::start();
    let remote = Memcached::builder().server(hanging.addr()).server(server.addr()).build().unwrap();
    let names: Vec<_> = (0..50).map(|number| format!("key:{number}")).collect();
    let reads: Vec<_> = names.iter().map(|name| (name.as_str(), GET)).collect();
    let replies = in_bounded_time(|| run_for(&remote, Duration::from_secs(4), Route::ByKey, &reads));
    let (answered, hung): (Vec<_>, Vec<_>) = replies.into_iter().partition(Result::is_ok);
    assert!(!answered.is_empty() && !hung.is_empty());
    assert!(hung.into_iter().all(|reply| reply.unwrap_err().kind() == RemoteErrorKind::TimedOut));
}

#[test]
fn control_commands_meet_on_one_server_whatever_the_order_of_the_list() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let client = |order: [usize; 3]| {
        let builder = order.iter().fold(Memcached::builder(), |builder, index| builder.server(servers[*index].addr()));
        builder.build().unwrap()
    };
    let (writer, reader) = (client([0, 1, 2]), client([2, 0, 1]));
    for number in 0..20 {
        let name = format!("key:{number}");
        for route in [Route::Control, Route::ByKey] {
            assert_eq!(
                run_for(&writer, PATIENCE, route, &[(&name, set(b"1", None))])[0].as_ref().unwrap(),
                &Reply::Done
            );
            let reply = run_for(&reader, PATIENCE, route, &[(&name, GET)]).remove(0).unwrap();
            assert!(matches!(reply, Reply::Hit(_)), "{name} {route:?}: {reply:?}");
        }
    }
    run_for(&writer, PATIENCE, Route::Control, &[("control", set(b"1", None))]);
    let holders = servers.iter().filter(|server| server.ask("mg control s").starts_with("HD"));
    assert_eq!(holders.count(), 1);
}

#[test]
fn commands_go_to_the_server_that_is_said_to_have_them() {
    let mut servers = [Server::start(), Server::start()];
    let remote = Memcached::builder().server(servers[0].addr()).server(servers[1].addr()).build().unwrap();
    assert_eq!(remote.servers(), 2);
    servers[1].kill();
    for number in 0..50 {
        let key = format!("key-{number}");
        for route in [Route::ByKey, Route::Control] {
            let server = remote.server_of(&WireKey::new(key.as_str()).unwrap(), route);
            let reply = run_for(&remote, PATIENCE, route, &[(&key, GET)]).remove(0);
            assert_eq!(
                reply.map_err(|error| error.kind()),
                [Ok(Reply::Miss), Err(RemoteErrorKind::Unavailable)][server]
            );
        }
    }
}

#[test]
fn a_dedicated_way_has_one_connection_of_its_own() {
    let server = Server::start();
    let remote = Memcached::connect(server.addr()).unwrap();
    assert_eq!(run_one(&remote, "a", set(b"1", None)).unwrap(), Reply::Done);
    let shared = cas_of(&run_one(&remote, "a", GET).unwrap());
    let dedicated = remote.dedicated().unwrap();
    let key = WireKey::new("a").unwrap();
    let command = Command { key: &key, route: Route::ByKey, action: GET };
    let look = || cas_of(dedicated.run(&[command], PATIENCE)[0].as_ref().unwrap());
    let first = look();
    assert_eq!(first.value, shared.value);
    assert_ne!(first.connection, shared.connection);
    // However many look at a time: there is one only, so that what one saw can be compared with what another sees.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(look(), first)));
        }
    });
}

#[test]
fn the_health_of_a_server_shows_its_breaker() {
    let mut server = Server::start();
    let remote = Memcached::connect(server.addr()).unwrap();
    let address = server.addr().to_string();
    let health = || {
        let [health] = &remote.server_health()[..] else { panic!("one server, one record") };
        assert_eq!(health.address, address);
        health.breaker
    };
    assert_eq!(health(), BreakerState::Closed);
    server.kill();
    eventually("the breaker to open", || {
        run_one(&remote, "a", GET).unwrap_err();
        (health() == BreakerState::Open).then_some(())
    });
    server.restart();
    eventually("the breaker to close", || run_one(&remote, "a", GET).is_ok().then_some(()));
    assert_eq!(health(), BreakerState::Closed);
}
