//! What the tests of this module share.

use std::time::Duration;

use crate::remote::batch::Batcher;
use crate::remote::error::RemoteError;
use crate::remote::in_memory::InMemoryRemote;
use crate::remote::key::WireKey;
use crate::remote::tier::{Action, Command, Expiry, Item, RemoteTier, Reply, Route, SetMode};
use crate::sync::Arc;

/// No exchange of a test takes longer, however long others hold it up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// When a test looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    BeforeCommand,
    AfterCommand,
}

/// A store whose every command somebody watches, and may do something beside.
struct Watched<F> {
    store: InMemoryRemote,
    watch: F,
}

impl<F: Fn(&Command<'_>, Moment) + Send + Sync + 'static> RemoteTier for Watched<F> {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let mut replies = Vec::new();
        for command in batch {
            (self.watch)(command, Moment::BeforeCommand);
            replies.extend(self.store.run(std::slice::from_ref(command), timeout));
            (self.watch)(command, Moment::AfterCommand);
        }
        replies
    }

    fn max_value_len(&self) -> usize {
        self.store.max_value_len()
    }
}

/// Returns a way to `store` on which `watch` is told of every command, before and after.
pub(super) fn watched(store: &InMemoryRemote, watch: impl Fn(&Command<'_>, Moment) + Send + Sync + 'static) -> Batcher {
    Batcher::new(Arc::new(Watched { store: store.clone(), watch }), TIMEOUT)
}

/// Returns a way to `store`.
pub(super) fn batcher(store: &InMemoryRemote) -> Batcher {
    Batcher::new(Arc::new(store.clone()), TIMEOUT)
}

pub(super) fn journal_key() -> WireKey {
    WireKey::new("ns:j").unwrap()
}

/// Reads an item as it is.
pub(super) fn read(store: &InMemoryRemote, key: &WireKey) -> Option<Item> {
    let get = Action::Get { value: true, lease: None, touch: None };
    match store.run(&[Command { key, route: Route::Control, action: get }], TIMEOUT).pop() {
        Some(Ok(Reply::Hit(item))) => Some(item),
        _ => None,
    }
}

/// Stores an item, whatever is there.
pub(super) fn write(store: &InMemoryRemote, key: &WireKey, value: &[u8]) {
    let action = Action::Set { value, expiry: Expiry::Never, mode: SetMode::Always, cas: None };
    let reply = store.run(&[Command { key, route: Route::Control, action }], TIMEOUT).pop();
    assert_eq!(reply.unwrap().unwrap(), Reply::Done);
}
