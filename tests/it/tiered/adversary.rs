//! Interleavings that have broken a promise once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use larder::{
    Action, Clock, Command, EntryOptions, InMemoryRemote, ManualClock, Namespace, RemoteError, RemoteErrorKind,
    RemoteTier, Reply, Route, WireKey,
};

use super::gate::{Gate, Kind, When};
use super::{HOUR, Pages, Stand, YEARS, load, own, pages, process, settled};
use crate::support::{PATIENCE, eventually};

/// Longer than the trust lease.
const LAPSE: Duration = Duration::from_secs(1);

/// The line of one process to a store that others reach by their own.
#[derive(Clone)]
struct Line {
    store: InMemoryRemote,
    cut: Arc<AtomicBool>,
}

impl RemoteTier for Line {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        if self.cut.load(Ordering::SeqCst) {
            let cut = |_: &Command<'_>| Err(RemoteError::new(RemoteErrorKind::Unavailable, "the line is cut"));
            return batch.iter().map(cut).collect();
        }
        self.store.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.store.max_value_len()
    }
}

/// Two processes, of which one can be cut off and has a clock of its own.
struct Pair {
    line: Line,
    time: ManualClock,
    pages: Pages,
    other: Pages,
}

impl Pair {
    fn new() -> Pair {
        let store = InMemoryRemote::new();
        let line = Line { store: store.clone(), cut: Arc::default() };
        let (clock, time) = Clock::manual();
        let namespace = Namespace::builder("pair", line.clone()).version("1").clock(clock).build().unwrap();
        namespace.poll_now().unwrap();
        Pair {
            line,
            time,
            pages: pages(&namespace, |pages| pages),
            other: process("pair", Gate::new(store), |pages| pages),
        }
    }

    /// Cuts the line; from here on the trust lease is over.
    fn cut_off(&self) {
        self.line.cut.store(true, Ordering::SeqCst);
        self.time.advance(LAPSE);
    }

    fn restore(&self) {
        self.line.cut.store(false, Ordering::SeqCst);
        self.pages.namespace().poll_now().unwrap();
    }
}

/// A load that asks nobody has to be known to the journal all the same.
#[test]
fn what_was_loaded_while_cut_off_hears_of_its_key_afterwards() {
    let pair = Pair::new();
    pair.cut_off();
    assert_eq!(load(&pair.pages, "k", "old", &[]), "old");
    let batch = pair.pages.get_many_or_load(["m"], |_| Ok::<_, Infallible>(vec![(own("m"), own("old"))]));
    assert_eq!(batch.unwrap(), [Some(own("old"))]);
    pair.restore();
    assert!(
        pair.other.insert_many([(own("k"), own("new")), (own("m"), own("new"))]).iter().all(larder::Write::is_through)
    );
    pair.pages.namespace().poll_now().unwrap();
    assert_eq!(pair.pages.get_many(["k", "m"]), [Some(own("new")), Some(own("new"))]);
}

/// The load began while the process was connected; who comes after the bound must not take what it brings.
#[test]
fn a_batch_of_a_process_that_is_cut_off_does_not_join_a_load_from_before_the_bound() {
    let pair = Pair::new();
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel();
    thread::scope(|scope| {
        let pages = &pair.pages;
        let early = scope.spawn(move || {
            pages.get_or_load("k", |_| {
                begun.send(()).unwrap();
                released.recv().unwrap();
                Ok::<_, Infallible>(own("old"))
            })
        });
        has_begun.recv().unwrap();
        assert!(pair.other.insert(own("k"), own("new")).is_through());
        pair.cut_off();
        let (answer, answered) = mpsc::channel();
        scope.spawn(move || {
            let loaded = pages.get_many_or_load(["k"], |_| Ok::<_, Infallible>(vec![(own("k"), own("new"))]));
            answer.send(loaded.unwrap()).unwrap();
        });
        let loaded = answered.recv_timeout(PATIENCE);
        release.send(()).unwrap();
        assert_eq!(loaded.unwrap(), [Some(own("new"))]);
        assert_eq!(early.join().unwrap().unwrap(), "old");
    });
}

#[test]
fn an_update_makes_nothing_of_what_a_process_that_is_cut_off_may_not_serve() {
    let pair = Pair::new();
    assert!(pair.other.insert(own("k"), own("old")).is_through());
    assert_eq!(pair.pages.get("k").as_deref(), Some("old"));
    assert!(pair.other.insert(own("k"), own("new")).is_through());
    pair.cut_off();
    assert_eq!(pair.pages.update("k", |value| format!("{value}er")), None);
}

fn value_key(gate: &Gate) -> WireKey {
    gate.keys().into_iter().find(|key| key.as_bytes().ends_with(b":v:pages:k")).unwrap()
}

fn leased(stand: &Stand, name: &str, grace: Duration) -> Pages {
    let look = stand.gate.next_look();
    let builder = Namespace::builder(name, stand.gate.clone()).poll_interval(HOUR).trust(YEARS);
    let namespace = settled(builder.lease(Duration::from_secs(3)), look);
    let pages = pages(&namespace, |pages| pages.grace(grace));
    stand.gate.reset();
    pages
}

/// A future that is kept and never polled again has vanished, as far as others can tell.
#[test]
fn the_lease_of_a_load_that_nobody_polls_runs_out() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let pages = leased(&stand, &name, Duration::from_millis(100));
    let (begun, has_begun) = mpsc::channel();
    let load = Mutex::new(Box::pin(pages.get_or_load_async("k", |_| {
        begun.send(()).unwrap();
        std::future::pending::<Result<String, Infallible>>()
    })));
    eventually("the loader", || {
        // Polled by hand: nobody is woken.
        let mut load = load.lock().unwrap();
        assert!(load.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        has_begun.try_recv().ok()
    });
    let key = value_key(&stand.gate);
    let look = Action::Get { value: false, lease: None, touch: None };
    assert!(matches!(stand.gate.run_one(&key, Route::ByKey, look), Reply::Busy(_)));
    eventually("the end of the lease", || (stand.gate.run_one(&key, Route::ByKey, look) == Reply::Miss).then_some(()));
    drop(load);
}

/// The touch that renews a lease cannot be told to spare a value that has come in its place.
#[test]
fn a_value_that_a_renewal_has_touched_does_not_stay() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let pages = leased(&stand, &name, HOUR);
    let other = stand.bystander(&name);
    // The read that wins the lease, the look of the renewal, and its touch.
    stand.gate.at(2, When::Before, move || {
        let short = EntryOptions::new().hard_ttl(Duration::from_millis(900));
        assert!(other.insert_with(own("k"), own("short"), short).is_through());
    });
    let loaded = pages.get_or_load("k", |_| {
        eventually("the renewal", || (stand.gate.log().len() > 3).then_some(()));
        Ok::<_, Infallible>(own("old"))
    });
    assert_eq!(loaded.unwrap(), "old");
    assert_eq!(stand.gate.log()[1..4], [[Kind::Read], [Kind::Read], [Kind::Delete]]);
}

/// What a verb was about to send is owed from then on; what was read before that counts for nothing.
#[test]
fn a_removal_or_an_insert_that_is_dropped_leaves_no_copy_of_the_old_value() {
    type Verb = for<'a> fn(&'a Pages) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;
    let verbs: [Verb; 3] = [
        |pages| Box::pin(async { drop(pages.remove_async("k").await) }),
        |pages| Box::pin(async { drop(pages.expire_async("k").await) }),
        |pages| Box::pin(async { drop(pages.insert_async(own("k"), own("new")).await) }),
    ];
    for verb in verbs {
        let stand = Stand::memory();
        let name = stand.fresh();
        assert!(stand.bystander(&name).insert(own("k"), own("old")).is_through());
        let pages = process(&name, stand.gate.clone(), |pages| pages.capacity(1));
        stand.gate.reset();
        let (sent, is_sent) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        stand.gate.at(0, When::Before, move || {
            sent.send(()).unwrap();
            // Until the end of the test, whatever becomes of it.
            let _ = released.recv();
        });
        {
            let mut verb = pin!(verb(&pages));
            assert!(verb.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            is_sent.recv().unwrap();
            // Takes the only place.
            assert_eq!(load(&pages, "x", "x", &[]), "x");
            assert_eq!(pages.get("k").as_deref(), Some("old"));
            assert_eq!(pages.local().get("k").as_deref(), Some("old"));
        }
        assert_eq!(pages.local().get("k"), None);
        assert_eq!(pages.get("k"), None);
        drop(release);
    }
}
