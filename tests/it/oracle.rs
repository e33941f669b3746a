//! `InMemoryRemote` against memcached: any sequence of commands has the same answers.
//!
//! But for one thing that memcached leaves open. A counter is changed in place, which keeps its stale mark and pads a shorter
//! number with spaces, unless the LRU's thread happens to refer to the item: then a new item takes its place. So counters
//! have a key of their own, which is neither marked stale nor appended to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{
    Action, Cas, Command, Expiry, InMemoryRemote, Memcached, RemoteErrorKind, RemoteTier, Reply, Route, SetMode,
    WireKey,
};
use proptest::prelude::*;

use crate::support::PATIENCE;
use crate::support::memcached::Server;

const HOUR: Duration = Duration::from_secs(3_600);

/// A command on one of a few keys; a cas is one that was read before, by how many reads ago.
#[derive(Clone, Debug)]
struct Step {
    key: &'static str,
    cas: Option<usize>,
    verb: Verb,
}

#[derive(Clone, Debug)]
enum Verb {
    Get { value: bool, lease: bool, touch: Option<Expiry> },
    Touch { expiry: Expiry },
    Set { value: &'static [u8], expiry: Expiry, mode: SetMode },
    Delete,
    MarkStale { expiry: Option<Expiry> },
    Increment { delta: u64, initial: Option<(u64, Expiry)> },
    Decrement { delta: u64, initial: Option<(u64, Expiry)> },
}

impl Verb {
    fn action(&self, cas: Option<Cas>) -> Action<'_> {
        match *self {
            Verb::Get { value, lease, touch } => Action::Get { value, lease: lease.then_some(HOUR), touch },
            Verb::Touch { expiry } => match cas {
                Some(cas) => Action::Touch { expiry, cas },
                None => Action::Get { value: false, lease: None, touch: Some(expiry) },
            },
            Verb::Set { value, expiry, mode } => Action::Set { value, expiry, mode, cas },
            Verb::Delete => Action::Delete { cas },
            Verb::MarkStale { expiry } => Action::MarkStale { expiry },
            Verb::Increment { delta, initial } => Action::Increment { delta, initial },
            Verb::Decrement { delta, initial } => Action::Decrement { delta, initial },
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expiry = || prop_oneof![Just(Expiry::Never), Just(Expiry::After(HOUR)), Just(Expiry::After(1_000 * HOUR))];
    let text = prop::sample::select(vec![&b""[..], b"0", b"text", b"\r\n"]);
    let number = prop::sample::select(vec![&b"0"[..], b"9", b"10", b"18446744073709551615", b"no number"]);
    let mode = prop::sample::select(vec![SetMode::Always, SetMode::Add, SetMode::Append]);
    let delta = || prop::sample::select(vec![0, 1, 5, 90, u64::MAX]);
    let initial = || prop::option::of((prop::sample::select(vec![0, 8, 1_000]), expiry()));
    let get = || {
        (any::<bool>(), any::<bool>(), prop::option::of(expiry())).prop_map(|(value, lease, touch)| Verb::Get {
            value,
            lease,
            touch,
        })
    };
    let on_text = prop_oneof![
        4 => get(),
        1 => expiry().prop_map(|expiry| Verb::Touch { expiry }),
        3 => (text, expiry(), mode).prop_map(|(value, expiry, mode)| Verb::Set { value, expiry, mode }),
        1 => Just(Verb::Delete),
        2 => prop::option::of(expiry()).prop_map(|expiry| Verb::MarkStale { expiry }),
    ];
    let on_counter = prop_oneof![
        2 => get(),
        1 => (number, expiry()).prop_map(|(value, expiry)| Verb::Set { value, expiry, mode: SetMode::Always }),
        1 => Just(Verb::Delete),
        2 => (delta(), initial()).prop_map(|(delta, initial)| Verb::Increment { delta, initial }),
        2 => (delta(), initial()).prop_map(|(delta, initial)| Verb::Decrement { delta, initial }),
    ];
    let target = prop_oneof![
        on_text.clone().prop_map(|verb| ("a", verb)),
        on_text.prop_map(|verb| ("b", verb)),
        on_counter.prop_map(|verb| ("counter", verb)),
    ];
    let step = (prop::option::of(0..3_usize), target).prop_map(|(cas, (key, verb))| Step { key, cas, verb });
    prop::collection::vec(step, 1..40)
}

/// Returns what must be the same: everything but the cas numbers and the exact time.
fn comparable(key: &str, reply: Result<Reply, RemoteErrorKind>) -> Result<Reply, RemoteErrorKind> {
    let no_cas = Cas { value: 0, connection: 0 };
    reply.map(|reply| match reply {
        Reply::Hit(mut item) => {
            item.cas = no_cas;
            if key == "counter" {
                item.value = item.value.slice(0..item.value.trim_ascii_end().len());
                item.len = 0;
            }
            // Rounded to the hour; the sequence itself takes far less than half of one.
            let hours = item.expires_in.map(|left| (left.as_secs() + 1_800) / 3_600);
            item.expires_in = hours.map(|hours| Duration::from_secs(hours * 3_600));
            Reply::Hit(item)
        }
        Reply::Won(_) => Reply::Won(no_cas),
        Reply::Busy(_) => Reply::Busy(no_cas),
        other => other,
    })
}

fn cas_in(reply: &Result<Reply, RemoteErrorKind>) -> Option<Cas> {
    match reply {
        Ok(Reply::Hit(item)) => Some(item.cas),
        Ok(Reply::Won(cas)) => Some(*cas),
        _ => None,
    }
}

#[test]
fn the_store_in_memory_answers_as_memcached_does() {
    let server = Server::start();
    let stores: [&dyn RemoteTier; 2] = [&InMemoryRemote::new(), &Memcached::connect(server.addr()).unwrap()];
    let sequences = AtomicU64::new(0);
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        // Keys of their own, since the stores live on.
        let sequence = sequences.fetch_add(1, Ordering::Relaxed);
        let mut seen: Vec<[Cas; 2]> = Vec::new();
        for step in &steps {
            let key = WireKey::new(format!("{sequence}:{}", step.key)).unwrap();
            let cas = step.cas.and_then(|ago| seen.iter().rev().nth(ago).copied());
            let answer = |store: usize| {
                let action = step.verb.action(cas.map(|cas| cas[store]));
                let mut replies = stores[store].run(&[Command { key: &key, route: Route::ByKey, action }], PATIENCE);
                replies.remove(0).map_err(|error| error.kind())
            };
            let answers = [answer(0), answer(1)];
            if let [Some(memory), Some(memcached)] = [cas_in(&answers[0]), cas_in(&answers[1])] {
                seen.push([memory, memcached]);
            }
            let [memory, memcached] = answers.map(|answer| comparable(step.key, answer));
            prop_assert_eq!(memory, memcached, "{:?}", step);
        }
    });
}
