//! The contract of `RemoteTier`: every implementation runs the same cases.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use larder::{
    Action, Cas, Command, Expiry, InMemoryRemote, Item, RemoteErrorKind, RemoteTier, Reply, Route, SetMode,
    SharedBytes, WireKey,
};

/// Far longer than any command takes: no outcome depends on it.
const LIMIT: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);
const PLAIN: Action<'_> = Action::Get { value: true, lease: None, touch: None };
const LEASE: Action<'_> = Action::Get { value: true, lease: Some(HOUR), touch: None };

fn key(text: &str) -> WireKey {
    WireKey::new(text).unwrap()
}

fn set(value: &[u8]) -> Action<'_> {
    Action::Set { value, expiry: Expiry::After(HOUR), mode: SetMode::Always, cas: None }
}

fn set_if(value: &[u8], cas: Cas) -> Action<'_> {
    Action::Set { value, expiry: Expiry::After(HOUR), mode: SetMode::Always, cas: Some(cas) }
}

fn append(value: &[u8]) -> Action<'_> {
    Action::Set { value, expiry: Expiry::Never, mode: SetMode::Append, cas: None }
}

fn add(value: &[u8]) -> Action<'_> {
    Action::Set { value, expiry: Expiry::Never, mode: SetMode::Add, cas: None }
}

fn try_run(remote: &dyn RemoteTier, text: &str, action: Action<'_>) -> Result<Reply, RemoteErrorKind> {
    let key = key(text);
    let mut replies = remote.run(&[Command { key: &key, route: Route::ByKey, action }], LIMIT);
    assert_eq!(replies.len(), 1);
    replies.remove(0).map_err(|error| error.kind())
}

fn run(remote: &dyn RemoteTier, text: &str, action: Action<'_>) -> Reply {
    try_run(remote, text, action).unwrap()
}

fn hit(reply: Reply) -> Item {
    let Reply::Hit(item) = reply else { panic!("{reply:?} is no hit") };
    item
}

fn read(remote: &dyn RemoteTier, text: &str) -> Item {
    hit(run(remote, text, PLAIN))
}

fn lease(remote: &dyn RemoteTier, text: &str) -> Cas {
    let reply = run(remote, text, LEASE);
    let Reply::Won(cas) = reply else { panic!("{reply:?} is no lease") };
    cas
}

fn a_batch_answers_every_command_in_its_place(remote: &dyn RemoteTier) {
    assert!(remote.run(&[], LIMIT).is_empty());
    let keys: Vec<_> = (0..2_000).map(|number| key(&format!("key:{number}"))).collect();
    let values: Vec<_> = (0..2_000).map(|number| format!("{number:0>100}").into_bytes()).collect();
    let command = |(key, action)| Command { key, route: Route::ByKey, action };
    let writes: Vec<_> = keys.iter().zip(&values).map(|(key, value)| command((key, set(value)))).collect();
    assert!(remote.run(&writes, LIMIT).iter().all(|reply| *reply.as_ref().unwrap() == Reply::Done));
    let reads: Vec<_> = keys.iter().map(|key| command((key, PLAIN))).collect();
    let replies = remote.run(&reads, LIMIT);
    assert_eq!(replies.len(), keys.len());
    let mut versions = HashSet::new();
    for (reply, value) in replies.into_iter().zip(&values) {
        let item = hit(reply.unwrap());
        assert_eq!(&item.value, value);
        assert_ne!(item.cas.value, 0);
        assert!(versions.insert(item.cas), "each change has a cas of its own");
    }
}

fn commands_of_a_batch_take_effect_in_order(remote: &dyn RemoteTier) {
    let key = key("ordered");
    for route in [Route::ByKey, Route::Control] {
        let batch =
            [set(b"a"), append(b"b"), PLAIN, Action::Delete { cas: None }, PLAIN, append(b"c"), add(b"d"), PLAIN]
                .map(|action| Command { key: &key, route, action });
        let replies: Vec<_> = remote.run(&batch, LIMIT).into_iter().map(Result::unwrap).collect();
        assert_eq!(hit(replies[2].clone()).value, b"ab");
        assert_eq!(replies[3..7], [Reply::Done, Reply::Miss, Reply::NotStored, Reply::Done]);
        assert_eq!(hit(replies[7].clone()).value, b"d");
        assert_eq!(remote.run(&batch[3..4], LIMIT)[0].as_ref().unwrap(), &Reply::Done);
    }
}

fn metadata_come_without_the_value(remote: &dyn RemoteTier) {
    let look = Action::Get { value: false, lease: None, touch: None };
    assert_eq!(run(remote, "a", look), Reply::Miss);
    assert_eq!(run(remote, "a", set(b"value")), Reply::Done);
    let item = hit(run(remote, "a", look));
    assert_eq!((item.value.as_slice(), item.len, item.stale, item.won), (&b""[..], 5, false, false));
    assert_eq!(item.cas, read(remote, "a").cas);
    let leased_look = Action::Get { value: false, lease: Some(HOUR), touch: None };
    assert!(matches!(run(remote, "b", leased_look), Reply::Won(_)));
    assert!(matches!(run(remote, "b", leased_look), Reply::Busy(_)));
    assert!(matches!(run(remote, "b", look), Reply::Busy(_)));
}

fn values_hold_any_bytes(remote: &dyn RemoteTier) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [&b""[..], b"\r\n", b"END\r\n", b"VA 1 c1\r\n", &every_byte] {
        assert_eq!(run(remote, "a", set(value)), Reply::Done);
        let item = read(remote, "a");
        assert_eq!((item.value.as_slice(), item.len), (value, value.len()));
        // A lease reads an item that was stored empty as what it is.
        assert_eq!(hit(run(remote, "a", LEASE)).value, value);
    }
}

fn the_largest_value_fits_and_a_larger_one_is_not_sent(remote: &dyn RemoteTier) {
    let long = "k".repeat(250);
    let max = remote.max_value_len();
    let mut value: Vec<u8> = (0..=max).map(|position| (position % 251) as u8).collect();
    let key = key(&long);
    let batch =
        [set(&value[..max]), set(&value), PLAIN].map(|action| Command { key: &key, route: Route::ByKey, action });
    let replies = remote.run(&batch, LIMIT);
    assert_eq!(replies[0].as_ref().unwrap(), &Reply::Done);
    let refused = replies[1].as_ref().unwrap_err();
    assert_eq!((refused.kind(), refused.is_indeterminate()), (RemoteErrorKind::TooLarge, false));
    let kept = hit(replies[2].clone().unwrap());
    value.pop();
    assert!(kept.value == value, "the refused value has not harmed the one before it");
    // Nor does a full item grow.
    assert_eq!(run(remote, &long, append(&[0; 2_000])), Reply::NotStored);
    assert_eq!(read(remote, &long).len, max);
}

fn a_write_under_a_cas_holds_while_the_item_is_unchanged(remote: &dyn RemoteTier) {
    assert_eq!(run(remote, "a", set(b"1")), Reply::Done);
    let first = read(remote, "a").cas;
    assert_eq!(read(remote, "a").cas, first, "reading changes nothing");
    assert_eq!(run(remote, "a", set_if(b"2", first)), Reply::Done);
    assert_eq!(run(remote, "a", set_if(b"3", first)), Reply::Fenced);
    assert_eq!(run(remote, "a", Action::Delete { cas: Some(first) }), Reply::Fenced);
    let second = read(remote, "a").cas;
    assert_ne!(second, first);
    assert_eq!(run(remote, "a", Action::Delete { cas: Some(second) }), Reply::Done);
    assert_eq!(run(remote, "a", set_if(b"4", second)), Reply::Fenced);
    assert_eq!(run(remote, "a", Action::Delete { cas: Some(second) }), Reply::Miss);
    assert_eq!(run(remote, "a", PLAIN), Reply::Miss);
}

fn every_change_moves_the_cas_and_touching_does_not(remote: &dyn RemoteTier) {
    let cas = || read(remote, "a").cas.value;
    let mut seen = HashSet::new();
    let changes = [
        set(b"1"),
        append(b"0"),
        Action::Increment { delta: 1, initial: None },
        Action::MarkStale { expiry: None },
        set(b"2"),
    ];
    for change in changes {
        run(remote, "a", change);
        assert!(seen.insert(cas()), "{change:?}");
    }
    let before = cas();
    hit(run(remote, "a", Action::Get { value: false, lease: None, touch: Some(Expiry::Never) }));
    hit(run(remote, "a", Action::Touch { expiry: Expiry::After(HOUR), cas: read(remote, "a").cas }));
    assert_eq!(cas(), before);
}

fn add_and_append_have_conditions(remote: &dyn RemoteTier) {
    assert_eq!(run(remote, "a", append(b"x")), Reply::NotStored);
    assert_eq!(run(remote, "a", add(b"x")), Reply::Done);
    assert_eq!(run(remote, "a", add(b"y")), Reply::NotStored);
    assert_eq!(run(remote, "a", append(b"z")), Reply::Done);
    let item = read(remote, "a");
    assert_eq!(item.value, b"xz");
    let under = |mode, cas| Action::Set { value: b"!", expiry: Expiry::Never, mode, cas: Some(cas) };
    let outdated = Cas { value: item.cas.value + 1_000_000, ..item.cas };
    assert_eq!(run(remote, "a", under(SetMode::Append, outdated)), Reply::Fenced);
    assert_eq!(run(remote, "a", under(SetMode::Append, item.cas)), Reply::Done);
    assert_eq!(run(remote, "a", under(SetMode::Add, outdated)), Reply::NotStored);
    assert_eq!(read(remote, "a").value, b"xz!");
    // Of a missing item, the mode's own condition is what counts.
    assert_eq!(run(remote, "a", Action::Delete { cas: None }), Reply::Done);
    assert_eq!(run(remote, "a", under(SetMode::Append, outdated)), Reply::NotStored);
    assert_eq!(run(remote, "a", under(SetMode::Add, outdated)), Reply::Done);
}

fn one_reader_wins_the_lease_of_a_missing_item(remote: &dyn RemoteTier) {
    assert_eq!(run(remote, "a", PLAIN), Reply::Miss);
    let claim = lease(remote, "a");
    assert!(matches!(run(remote, "a", LEASE), Reply::Busy(_)));
    assert!(matches!(run(remote, "a", PLAIN), Reply::Busy(_)));
    assert_eq!(run(remote, "a", add(b"late")), Reply::NotStored);
    assert_eq!(run(remote, "a", set_if(b"filled", claim)), Reply::Done);
    let item = hit(run(remote, "a", LEASE));
    assert_eq!((item.value.as_slice(), item.stale, item.won), (&b"filled"[..], false, false));

    // Given up: the next one wins.
    let claim = lease(remote, "b");
    assert_eq!(run(remote, "b", Action::Delete { cas: Some(claim) }), Reply::Done);
    lease(remote, "b");
    // Overtaken: the fill is fenced.
    let claim = lease(remote, "c");
    assert_eq!(run(remote, "c", set(b"newer")), Reply::Done);
    assert_eq!(run(remote, "c", set_if(b"older", claim)), Reply::Fenced);
    // Deleted and won again by another: fenced too.
    let claim = lease(remote, "d");
    assert_eq!(run(remote, "d", Action::Delete { cas: None }), Reply::Done);
    lease(remote, "d");
    assert_eq!(run(remote, "d", set_if(b"older", claim)), Reply::Fenced);
}

fn a_lease_is_renewed_by_touching_it(remote: &dyn RemoteTier) {
    let claim = lease(remote, "a");
    let renew = Action::Get { value: false, lease: None, touch: Some(Expiry::After(2 * HOUR)) };
    assert!(matches!(run(remote, "a", renew), Reply::Busy(_)));
    assert_eq!(run(remote, "a", set_if(b"filled", claim)), Reply::Done);
}

fn of_many_readers_exactly_one_wins(remote: &dyn RemoteTier) {
    for round in 0..20 {
        let name = format!("round:{round}");
        let wins: usize = thread::scope(|scope| {
            let readers: Vec<_> = (0..10)
                .map(|_| scope.spawn(|| usize::from(matches!(run(remote, &name, LEASE), Reply::Won(_)))))
                .collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).sum()
        });
        assert_eq!(wins, 1);
    }
}

fn the_first_reader_of_a_stale_item_wins_its_refresh(remote: &dyn RemoteTier) {
    assert_eq!(run(remote, "a", Action::MarkStale { expiry: None }), Reply::Miss);
    for reader in [PLAIN, LEASE, Action::Get { value: false, lease: None, touch: None }] {
        run(remote, "a", set(b"old"));
        let before = read(remote, "a");
        assert_eq!(run(remote, "a", Action::MarkStale { expiry: None }), Reply::Done);
        let first = hit(run(remote, "a", reader));
        assert_eq!((first.len, first.stale, first.won), (3, true, true));
        assert_ne!(first.cas, before.cas);
        for _ in 0..2 {
            let later = hit(run(remote, "a", reader));
            assert_eq!((later.len, later.stale, later.won), (3, true, false));
        }
        // Marked again, it is anybody's again.
        assert_eq!(run(remote, "a", Action::MarkStale { expiry: None }), Reply::Done);
        let again = hit(run(remote, "a", reader));
        assert_eq!((again.stale, again.won), (true, true));
        assert_eq!(run(remote, "a", set_if(b"late", before.cas)), Reply::Fenced);
        assert_eq!(run(remote, "a", set_if(b"new", again.cas)), Reply::Done);
        let fresh = read(remote, "a");
        assert_eq!((fresh.value.as_slice(), fresh.stale, fresh.won), (&b"new"[..], false, false));
    }
}

fn appending_makes_a_stale_item_fresh(remote: &dyn RemoteTier) {
    run(remote, "a", set(b"a"));
    run(remote, "a", Action::MarkStale { expiry: None });
    assert_eq!(run(remote, "a", append(b"b")), Reply::Done);
    let item = read(remote, "a");
    assert_eq!((item.value.as_slice(), item.stale, item.won), (&b"ab"[..], false, false));
}

fn a_placeholder_marked_stale_is_won_again(remote: &dyn RemoteTier) {
    let claim = lease(remote, "a");
    assert_eq!(run(remote, "a", Action::MarkStale { expiry: None }), Reply::Done);
    let second = lease(remote, "a");
    assert!(matches!(run(remote, "a", LEASE), Reply::Busy(_)));
    assert_eq!(run(remote, "a", set_if(b"older", claim)), Reply::Fenced);
    assert_eq!(run(remote, "a", set_if(b"newer", second)), Reply::Done);
}

fn within(item: &Item, expected: Duration) {
    let left = item.expires_in.unwrap();
    // A minute for a slow machine, a second for a clock that ticks in seconds.
    assert!(left <= expected + Duration::from_secs(1) && left + Duration::from_secs(60) >= expected, "{left:?}");
}

fn expiries_are_kept_and_moved_as_asked(remote: &dyn RemoteTier) {
    let month = 30 * 24 * HOUR;
    for expected in [HOUR, month, month + HOUR, 10 * month] {
        let expiry = Expiry::After(expected);
        run(remote, "a", Action::Set { value: b"1", expiry, mode: SetMode::Always, cas: None });
        within(&read(remote, "a"), expected);
        run(remote, "b", Action::Set { value: b"1", expiry: Expiry::Never, mode: SetMode::Always, cas: None });
        assert_eq!(read(remote, "b").expires_in, None);
        run(remote, "b", Action::Get { value: true, lease: None, touch: Some(expiry) });
        within(&read(remote, "b"), expected);
        run(remote, "b", Action::Get { value: true, lease: None, touch: Some(Expiry::Never) });
        assert_eq!(read(remote, "b").expires_in, None);
        run(remote, "b", Action::MarkStale { expiry: Some(expiry) });
        within(&read(remote, "b"), expected);
        // What grows, counts or is marked without an expiry keeps the one it has.
        run(remote, "a", append(b"0"));
        run(remote, "a", Action::Increment { delta: 1, initial: Some((5, Expiry::Never)) });
        run(remote, "a", Action::MarkStale { expiry: None });
        within(&read(remote, "a"), expected);
        assert_eq!(read(remote, "a").value, b"11");
    }
}

fn time_ends_items_leases_and_counters(remote: &dyn RemoteTier) {
    let soon = Duration::from_millis(1);
    let expiry = Expiry::After(soon);
    run(remote, "set", Action::Set { value: b"1", expiry, mode: SetMode::Always, cas: None });
    run(
        remote,
        "zero",
        Action::Set { value: b"1", expiry: Expiry::After(Duration::ZERO), mode: SetMode::Add, cas: None },
    );
    run(remote, "touched", set(b"1"));
    run(remote, "touched", Action::Get { value: true, lease: None, touch: Some(expiry) });
    run(remote, "stale", set(b"1"));
    run(remote, "stale", Action::MarkStale { expiry: Some(expiry) });
    run(remote, "counter", Action::Increment { delta: 1, initial: Some((1, expiry)) });
    let short_lease = Action::Get { value: true, lease: Some(soon), touch: None };
    let Reply::Won(claim) = run(remote, "lease", short_lease) else { panic!("no lease") };
    let deadline = Instant::now() + LIMIT;
    for name in ["set", "zero", "touched", "stale", "counter", "lease"] {
        while run(remote, name, PLAIN) != Reply::Miss {
            assert!(Instant::now() < deadline, "{name} never ends");
            thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(run(remote, "lease", set_if(b"late", claim)), Reply::Fenced);
    lease(remote, "lease");
}

fn counters_start_wrap_and_floor(remote: &dyn RemoteTier) {
    let up = |delta, initial| Action::Increment { delta, initial };
    let down = |delta, initial| Action::Decrement { delta, initial };
    assert_eq!(run(remote, "a", up(1, None)), Reply::Miss);
    assert_eq!(run(remote, "a", down(1, None)), Reply::Miss);
    assert_eq!(run(remote, "a", PLAIN), Reply::Miss);
    // The first value is as given: the delta is for those that follow.
    assert_eq!(run(remote, "a", up(5, Some((7, Expiry::Never)))), Reply::Number(7));
    assert_eq!(read(remote, "a").expires_in, None);
    assert_eq!(run(remote, "a", up(5, Some((7, Expiry::Never)))), Reply::Number(12));
    assert_eq!(run(remote, "a", down(3, None)), Reply::Number(9));
    assert_eq!(read(remote, "a").value.trim_ascii_end(), b"9", "a shorter number may have spaces behind it");
    assert_eq!(run(remote, "a", up(1, None)), Reply::Number(10));
    assert_eq!(run(remote, "a", down(11, None)), Reply::Number(0));
    assert_eq!(run(remote, "a", up(u64::MAX, None)), Reply::Number(u64::MAX));
    assert_eq!(run(remote, "a", up(2, None)), Reply::Number(1));
    assert_eq!(run(remote, "b", down(1, Some((3, Expiry::After(HOUR))))), Reply::Number(3));
    within(&read(remote, "b"), HOUR);
}

fn what_is_no_counter_is_refused(remote: &dyn RemoteTier) {
    for value in [&b"text"[..], b"", b"-1", b"18446744073709551616"] {
        run(remote, "a", set(value));
        let count = Action::Increment { delta: 1, initial: Some((1, Expiry::Never)) };
        assert_eq!(try_run(remote, "a", count), Err(RemoteErrorKind::Refused), "{value:?}");
        assert_eq!(read(remote, "a").value, value);
    }
}

fn a_cas_of_another_connection_is_fenced_alone(remote: &dyn RemoteTier) {
    run(remote, "a", set(b"1"));
    let cas = read(remote, "a").cas;
    let foreign = Cas { connection: u64::MAX, ..cas };
    let zero = Cas { value: 0, ..cas };
    let key = key("a");
    let batch =
        [set_if(b"x", foreign), set_if(b"y", zero), Action::Delete { cas: Some(foreign) }, set_if(b"2", cas), PLAIN]
            .map(|action| Command { key: &key, route: Route::ByKey, action });
    let replies: Vec<_> = remote.run(&batch, LIMIT).into_iter().map(Result::unwrap).collect();
    assert_eq!(replies[..4], [Reply::Fenced, Reply::Fenced, Reply::Fenced, Reply::Done]);
    assert_eq!(hit(replies[4].clone()).value, b"2");
    assert_eq!(run(remote, "a", set_if(b"x", foreign)), Reply::Fenced);
}

fn a_touch_tells_which_version_it_found(remote: &dyn RemoteTier) {
    let touch = |cas, time| Action::Touch { expiry: Expiry::After(time), cas };
    run(remote, "a", set(b"1"));
    let cas = read(remote, "a").cas;
    let touched = hit(run(remote, "a", touch(cas, 3 * HOUR)));
    assert_eq!((touched.cas, touched.len, touched.value), (cas, 1, SharedBytes::default()));
    assert!(read(remote, "a").expires_in.unwrap() > 2 * HOUR);
    // Another version is touched as well.
    run(remote, "a", set(b"22"));
    let touched = hit(run(remote, "a", touch(cas, 5 * HOUR)));
    assert_eq!((touched.cas, touched.len), (read(remote, "a").cas, 2));
    assert_ne!(touched.cas, cas);
    assert!(read(remote, "a").expires_in.unwrap() > 4 * HOUR);
    // But not on another connection.
    let foreign = Cas { connection: u64::MAX, ..cas };
    assert_eq!(run(remote, "a", touch(foreign, 8 * HOUR)), Reply::Fenced);
    assert!(read(remote, "a").expires_in.unwrap() <= 5 * HOUR);
    run(remote, "a", Action::Delete { cas: None });
    assert_eq!(run(remote, "a", touch(cas, HOUR)), Reply::Miss);
    let Reply::Won(lease) = run(remote, "leased", LEASE) else { panic!("it is free") };
    assert_eq!(run(remote, "leased", touch(lease, HOUR)), Reply::Busy(lease));
}

fn many_threads_lose_no_update(remote: &dyn RemoteTier) {
    run(remote, "sum", set(b"0"));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    loop {
                        let item = read(remote, "sum");
                        let sum: u64 = String::from_utf8(item.value.into()).unwrap().parse().unwrap();
                        match run(remote, "sum", set_if((sum + 1).to_string().as_bytes(), item.cas)) {
                            Reply::Done => break,
                            Reply::Fenced => {}
                            other => panic!("{other:?}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(read(remote, "sum").value, b"200");
}

/// Lists the cases once, and runs each of them on each implementation.
macro_rules! contract {
    ($($case:ident)*) => {
        mod in_memory {
            $(#[test] fn $case() { super::$case(&larder::InMemoryRemote::new()); })*
        }

        #[cfg(feature = "memcached")]
        mod memcached {
            use crate::support::memcached::Server;

            $(#[test] fn $case() {
                let server = Server::start();
                super::$case(&larder::Memcached::connect(server.addr()).unwrap());
            })*
        }

        #[cfg(feature = "memcached")]
        mod three_memcached {
            use crate::support::memcached::Server;

            $(#[test] fn $case() {
                let servers = [Server::start(), Server::start(), Server::start()];
                let builder = servers.iter().fold(larder::Memcached::builder(), |all, server| all.server(server.addr()));
                super::$case(&builder.build().unwrap());
            })*
        }
    };
}

contract! {
    a_batch_answers_every_command_in_its_place
    commands_of_a_batch_take_effect_in_order
    metadata_come_without_the_value
    values_hold_any_bytes
    the_largest_value_fits_and_a_larger_one_is_not_sent
    a_write_under_a_cas_holds_while_the_item_is_unchanged
    every_change_moves_the_cas_and_touching_does_not
    add_and_append_have_conditions
    one_reader_wins_the_lease_of_a_missing_item
    a_lease_is_renewed_by_touching_it
    of_many_readers_exactly_one_wins
    the_first_reader_of_a_stale_item_wins_its_refresh
    appending_makes_a_stale_item_fresh
    a_placeholder_marked_stale_is_won_again
    expiries_are_kept_and_moved_as_asked
    time_ends_items_leases_and_counters
    counters_start_wrap_and_floor
    what_is_no_counter_is_refused
    a_cas_of_another_connection_is_fenced_alone
    a_touch_tells_which_version_it_found
    many_threads_lose_no_update
}

#[test]
fn a_memory_store_fails_as_told() {
    let remote = InMemoryRemote::new();
    let clone = remote.clone();
    run(&remote, "a", set(b"1"));
    let cas = read(&clone, "a").cas;

    remote.offline(true);
    assert_eq!(try_run(&clone, "a", PLAIN), Err(RemoteErrorKind::Unavailable));
    remote.offline(false);
    assert_eq!(read(&clone, "a").value, b"1");
    assert_eq!(run(&clone, "a", set_if(b"2", cas)), Reply::Fenced);

    remote.fail_next(1);
    assert_eq!(try_run(&clone, "a", set(b"2")), Err(RemoteErrorKind::Interrupted));
    assert_eq!(read(&clone, "a").value, b"1");
    remote.lose_replies(1);
    assert_eq!(try_run(&clone, "a", set(b"2")), Err(RemoteErrorKind::Interrupted));
    assert_eq!(read(&clone, "a").value, b"2");

    assert!(remote.evict(&key("a")));
    assert!(!remote.evict(&key("a")));
    assert_eq!(run(&clone, "a", PLAIN), Reply::Miss);
    run(&remote, "a", set(b"3"));
    remote.flush();
    assert_eq!(run(&clone, "a", PLAIN), Reply::Miss);
}

/// After a restart the same cas number comes again, for another item: without the connection in it, the old claim would
/// overwrite the new one's value.
#[test]
fn a_restarted_memory_store_repeats_cas_numbers_and_fences_old_ones() {
    let remote = InMemoryRemote::new();
    let before = lease(&remote, "a");
    remote.restart();
    let after = lease(&remote, "a");
    assert_eq!(before.value, after.value);
    assert_eq!(run(&remote, "a", set_if(b"old", before)), Reply::Fenced);
    assert_eq!(run(&remote, "a", set_if(b"new", after)), Reply::Done);
}
