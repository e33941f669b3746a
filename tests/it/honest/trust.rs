//! What the local tier does once a process has not heard of the others for too long.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Command, InMemoryRemote, LoadErrorKind, LostTrust, Namespace, RawBytes, RemoteError, RemoteTier, Reply, TieredCache,
};

use crate::rules::{Process, TRUST, own};
use crate::support::eventually;
use crate::tiered::gate::{Kind, When};

/// Returns a process that has `k` locally, and whose trust has lapsed; it can reach the store, but not the journal.
fn cut_off(policy: LostTrust) -> (InMemoryRemote, Process) {
    let store = InMemoryRemote::new();
    let process = Process::with(&store, |namespace| namespace.on_lost_trust(policy), |pages| pages);
    process.insert("k", "1");
    process.time.advance(TRUST - Duration::from_millis(1));
    assert_eq!(process.local("k").as_deref(), Some("1"), "to the last millisecond");
    process.time.advance(Duration::from_millis(1));
    process.wire.fail(&[Kind::ReadJournal]);
    process.wire.log();
    (store, process)
}

/// The journal can be read, but so slowly that this brings no trust.
#[test]
fn revalidate_asks_the_store() {
    let (store, process) = cut_off(LostTrust::Revalidate);
    process.wire.fail(&[]);
    let other = Process::new(&store);
    // While the answer is under way, the value changes.
    let slowly = |value: &'static str| {
        let (time, other) = (process.time.clone(), other.clone());
        process.wire.at(Kind::ReadJournal, When::After, move || {
            other.insert("k", value);
            time.advance(TRUST);
        });
    };
    assert_eq!(process.local("k"), None);
    slowly("2");
    assert_eq!(process.get("k").as_deref(), Some("2"));
    process.look();
    assert_eq!((process.local("k"), process.get("k")), (None, Some(own("2"))), "what is not trusted is not copied");
    process.lapse();
    slowly("3");
    assert_eq!(process.load("k", "loaded"), "3");
    assert!(process.namespace().health().trust_left.is_zero());
}

/// Without the journal there are no tokens either, by which to judge what the store has.
#[test]
fn revalidate_loads_what_the_store_cannot_be_asked_for() {
    let (_store, process) = cut_off(LostTrust::Revalidate);
    assert_eq!((process.local("k"), process.get("k")), (None, None));
    assert_eq!(process.load("k", "3"), "3");
    // What it has loaded itself it serves for as long as it would trust a look of that time.
    process.time.advance(TRUST - Duration::from_millis(1));
    assert_eq!((process.local("k"), process.load("k", "4")), (Some(own("3")), own("3")));
    process.time.advance(Duration::from_millis(1));
    assert_eq!((process.local("k"), process.load("k", "4")), (None, own("4")));
}

#[test]
fn serve_stale_goes_on() {
    let (store, process) = cut_off(LostTrust::ServeStale);
    Process::new(&store).insert("k", "2");
    store.offline(true);
    process.time.advance(10 * TRUST);
    assert_eq!((process.local("k"), process.get("k")), (Some(own("1")), Some(own("1"))));
    assert_eq!(process.load("k", "3"), "1");
    store.offline(false);
    process.wire.fail(&[]);
    process.look();
    assert_eq!(process.get("k").as_deref(), Some("2"));
}

/// A store that the thread which follows the journal reaches once `go` is dropped.
struct Late {
    store: InMemoryRemote,
    go: Arc<Mutex<Receiver<()>>>,
    follows: bool,
}

impl RemoteTier for Late {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        if self.follows {
            let _ = self.go.lock().unwrap().recv();
        }
        self.store.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.store.max_value_len()
    }

    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        Some(Box::new(Late { store: self.store.clone(), go: self.go.clone(), follows: true }))
    }
}

/// Without trust, the local tier counted from the start. So a load began before the first look at the journal, which took
/// whatever was there before it for outdated: its value was gone as soon as the thread that follows the journal had come to it.
#[test]
fn serve_stale_looks_at_the_journal_once_before_it_goes_on() {
    let (go, gone) = channel();
    let store = Late { store: InMemoryRemote::new(), go: Arc::new(Mutex::new(gone)), follows: false };
    let namespace = Namespace::builder("late", store).on_lost_trust(LostTrust::ServeStale).build().unwrap();
    let pages: TieredCache<String, String> =
        TieredCache::builder(&namespace, "pages").capacity(10).codec(RawBytes).build().unwrap();
    assert_eq!(pages.get_or_load("k", |_| Ok::<_, Infallible>(own("1"))).unwrap(), "1");
    drop(go);
    eventually("the first look", || (namespace.health().resyncs > 0).then_some(()));
    namespace.poll_now().unwrap();
    assert_eq!(pages.local().get("k").as_deref(), Some("1"));
}

#[test]
fn refuse_answers_nothing() {
    let (_store, process) = cut_off(LostTrust::Refuse);
    assert_eq!((process.local("k"), process.get("k")), (None, None));
    assert_eq!(process.pages.get_many(["k"]), [None]);
    let refused = process.pages.get_or_load("k", |_| -> Result<String, ()> { panic!("nothing is loaded") });
    assert_eq!(refused.unwrap_err().kind(), LoadErrorKind::Untrusted);
    let refused = process.pages.get_many_or_load(["k"], |_| -> Result<_, ()> { panic!("nothing is loaded") });
    assert_eq!(refused.unwrap_err().kind(), LoadErrorKind::Untrusted);
    // A read that can look at the journal again does.
    process.wire.fail(&[]);
    assert_eq!(process.get("k").as_deref(), Some("1"));
    assert_eq!(process.local("k").as_deref(), Some("1"));
}
