//! The journal's item in the store, and what is done to it.

use crate::remote::batch::{Batcher, Caller};
use crate::remote::bytes::SharedBytes;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::WireKey;
use crate::remote::request::Request;
use crate::remote::tier::{Action, Cas, Expiry, Item, Reply, Route, SetMode};

use super::journal::Entry;

/// The journal's item, as one caller reaches it.
#[derive(Clone, Copy)]
pub(super) struct JournalItem<'a> {
    pub(super) batcher: &'a Batcher,
    pub(super) caller: Caller,
    pub(super) key: &'a WireKey,
}

impl JournalItem<'_> {
    /// Reads the item's metadata, or that it is missing.
    pub(super) async fn peek(self) -> Result<Option<Item>, RemoteError> {
        found(self.run(peek(self.key)).await?)
    }

    /// Reads the item, or that it is missing.
    pub(super) async fn read(self) -> Result<Option<Item>, RemoteError> {
        found(self.run(Request::get(self.key.clone(), Route::Control)).await?)
    }

    /// Returns whether the item was there and had room for `entries`, which are now its last ones.
    pub(super) async fn append(self, entries: &[Entry]) -> Result<bool, RemoteError> {
        stored(&self.run(append(self.key, entries)).await?)
    }

    /// Returns whether the item was missing, and is now `journal`.
    pub(super) async fn add(self, journal: Vec<u8>) -> Result<bool, RemoteError> {
        stored(&self.run(set(self.key, journal, SetMode::Add, None)).await?)
    }

    /// Returns whether the item was the one that `cas` was read from, and is now `journal`.
    pub(super) async fn replace(self, cas: Cas, journal: Vec<u8>) -> Result<bool, RemoteError> {
        stored(&self.run(set(self.key, journal, SetMode::Always, Some(cas))).await?)
    }

    async fn run(self, request: Request) -> Result<Reply, RemoteError> {
        let reply = self.batcher.run(self.caller, vec![request]).await.pop();
        reply.unwrap_or_else(|| Err(senseless()))
    }
}

/// Returns the request that reads the metadata of the journal under `key`, all that an unchanged one needs.
pub(super) fn peek(key: &WireKey) -> Request {
    Request::new(key.clone(), Route::Control, Action::Get { value: false, lease: None, touch: None })
}

/// Returns the request that appends `entries`, which must not be many: see [`super::announce`].
pub(super) fn append(key: &WireKey, entries: &[Entry]) -> Request {
    set(key, entries.iter().flat_map(Entry::encode).collect(), SetMode::Append, None)
}

fn set(key: &WireKey, value: Vec<u8>, mode: SetMode, cas: Option<Cas>) -> Request {
    Request::set(key.clone(), Route::Control, value, Expiry::Never, mode, cas)
}

/// Returns the item that a read answered.
pub(super) fn found(reply: Reply) -> Result<Option<Item>, RemoteError> {
    match reply {
        Reply::Hit(item) => Ok(Some(item)),
        Reply::Miss => Ok(None),
        // An empty item with a lease on it is nobody's journal, but it is in the way of one.
        Reply::Busy(cas) | Reply::Won(cas) => {
            Ok(Some(Item { value: SharedBytes::default(), len: 0, cas, expires_in: None, stale: false, won: false }))
        }
        _ => Err(senseless()),
    }
}

/// Returns whether a set was carried out.
pub(super) fn stored(reply: &Reply) -> Result<bool, RemoteError> {
    match reply {
        Reply::Done => Ok(true),
        Reply::NotStored | Reply::Fenced => Ok(false),
        _ => Err(senseless()),
    }
}

fn senseless() -> RemoteError {
    RemoteError::new(
        RemoteErrorKind::Protocol,
        "the store gave an answer that makes no sense to a command on the journal",
    )
}
