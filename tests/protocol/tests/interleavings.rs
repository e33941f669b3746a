//! Interleavings that the model has found, of the library itself.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use larder::{
    Action, Command, InMemoryRemote, Lookup, Namespace, RawBytes, RemoteError, RemoteTier, Reply, Route, TieredCache,
    WireKey, Write, WriteMode,
};

/// How long one thread waits for another, before the test has failed.
const PATIENCE: Duration = Duration::from_secs(30);

type Pages = TieredCache<String, String>;
type Act = Box<dyn FnOnce() + Send>;

/// A store that fails the writes of values, and does something before the next deletion of one.
#[derive(Clone)]
struct Gate {
    store: InMemoryRemote,
    before_deletion: Arc<Mutex<Option<Act>>>,
}

impl RemoteTier for Gate {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let of_value = |command: &&Command<'_>| command.route == Route::ByKey;
        let is_write = |action: &Action<'_>| matches!(action, Action::Get { value: false, lease: Some(_), .. });
        if batch.iter().filter(of_value).any(|command| matches!(command.action, Action::Delete { .. })) {
            let act = self.before_deletion.lock().unwrap().take();
            act.into_iter().for_each(|act| act());
        } else if batch.iter().filter(of_value).any(|command| is_write(&command.action)) {
            self.store.fail_next(batch.len() as u64);
        }
        self.store.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.store.max_value_len()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        self.store.server_of(key, route)
    }
}

/// A store that does something before the next write of a value, and something before the next claim to refresh one.
#[derive(Clone)]
struct Turnstile {
    store: InMemoryRemote,
    before_write: Arc<Mutex<Option<Act>>>,
    before_claim: Arc<Mutex<Option<Act>>>,
}

impl RemoteTier for Turnstile {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        for command in batch.iter().filter(|command| command.route == Route::ByKey) {
            let act = match command.action {
                Action::Set { .. } => self.before_write.lock().unwrap().take(),
                Action::Get { value: false, lease: Some(_), .. } => self.before_claim.lock().unwrap().take(),
                _ => None,
            };
            act.into_iter().for_each(|act| act());
        }
        self.store.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.store.max_value_len()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        self.store.server_of(key, route)
    }
}

fn pages(store: impl RemoteTier, mode: WriteMode) -> Pages {
    let namespace = Namespace::builder("interleavings", store).write_mode(mode);
    // However slow the machine is, neither an exchange nor the trust lease nor a claim runs out.
    let namespace = namespace.timeout(PATIENCE).trust(PATIENCE).build().unwrap();
    TieredCache::builder(&namespace, "pages").capacity(100).grace(2 * PATIENCE).codec(RawBytes).build().unwrap()
}

/// A queued insert has returned, and waits to be sent. Then a removal of its key takes it out of the queue, and another caller
/// of the process reads the key before the removal has reached the store: the value from before the insert is still there,
/// and must not come back. The reader finds the new value or none.
#[test]
fn a_removal_of_a_queued_insert_does_not_bring_back_what_was_before_it() {
    let store = InMemoryRemote::new();
    let old = pages(store.clone(), WriteMode::Through).insert("k".to_owned(), "old".to_owned());
    assert!(matches!(old, Write::Through));
    let gate = Gate { store, before_deletion: Arc::default() };
    let pages = pages(gate.clone(), WriteMode::Behind { queue: 10 });
    assert_eq!(pages.get("k").as_deref(), Some("old"));
    assert!(matches!(pages.insert("k".to_owned(), "new".to_owned()), Write::Queued(_)));
    let seen = Arc::new(Mutex::new(None));
    let (reader, note) = (pages.clone(), seen.clone());
    *gate.before_deletion.lock().unwrap() = Some(Box::new(move || *note.lock().unwrap() = Some(reader.get("k"))));
    assert!(pages.remove("k").is_acknowledged());
    assert_eq!(*seen.lock().unwrap(), Some(None), "what a read found while the removal was under way");
    assert_eq!(pages.get("k"), None);
}

/// A value is stale, and another process is about to refresh it. An update of it has put the new value into the local tier,
/// stale as the old one was, and has not reached the store yet. Another caller of the process takes the local claim to refresh
/// the new value, and reads the old one in the store. Then the update reaches the store, and returns. Only now does the caller
/// learn that the other process refreshes the value: what it has read is served meanwhile, and would be copied over the new
/// value. The process must not find the old one any more.
#[test]
fn an_update_of_a_stale_value_is_not_undone_by_who_was_about_to_refresh_it() {
    let store = InMemoryRemote::new();
    let elsewhere = pages(store.clone(), WriteMode::Through);
    assert!(elsewhere.insert("k".to_owned(), "old".to_owned()).is_through());
    assert!(elsewhere.expire("k").is_acknowledged());
    let Lookup::Stale { claim: Some(refresh), .. } = elsewhere.lookup("k") else { panic!("nobody else refreshes it") };
    let turnstile = Turnstile { store, before_write: Arc::default(), before_claim: Arc::default() };
    let pages = pages(turnstile.clone(), WriteMode::Through);

    let (has_read, read) = mpsc::channel();
    let (has_returned, returned) = mpsc::channel();
    *turnstile.before_claim.lock().unwrap() = Some(Box::new(move || {
        has_read.send(()).unwrap();
        returned.recv_timeout(PATIENCE).expect("the update returns");
    }));
    let begun = Arc::new(Mutex::new(None));
    let (reader, note) = (pages.clone(), begun.clone());
    *turnstile.before_write.lock().unwrap() = Some(Box::new(move || {
        *note.lock().unwrap() = Some(thread::spawn(move || match reader.lookup("k") {
            Lookup::Stale { value, claim: None } => value,
            other => panic!("{other:?}"),
        }));
        read.recv_timeout(PATIENCE).expect("the reader has read the old value");
    }));
    assert_eq!(pages.update("k", |_| "new".to_owned()).as_deref(), Some("new"));
    has_returned.send(()).unwrap();
    let reader = begun.lock().unwrap().take().expect("the update was sent");
    assert_eq!(reader.join().unwrap(), "old", "what the reader has found, who began before the update was through");
    assert_eq!(pages.get("k").as_deref(), Some("new"));
    drop(refresh);
}
