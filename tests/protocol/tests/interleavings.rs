//! Interleavings that the model has found, of the library itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Action, Command, InMemoryRemote, Namespace, RawBytes, RemoteError, RemoteTier, Reply, Route, TieredCache, WireKey,
    Write, WriteMode,
};

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

fn pages(store: impl RemoteTier, mode: WriteMode) -> Pages {
    let namespace = Namespace::builder("interleavings", store).write_mode(mode).build().unwrap();
    TieredCache::builder(&namespace, "pages").capacity(100).codec(RawBytes).build().unwrap()
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
