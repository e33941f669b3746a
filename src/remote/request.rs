//! A command that owns what it sends, so that it can wait in a queue and go out from another thread.

use smallvec::SmallVec;

use super::key::WireKey;
use super::tier::{Action, Cas, Command, Expiry, Route, SetMode};

/// Requests that go out together; a single one costs no allocation.
pub(crate) type Requests = SmallVec<[Request; 1]>;

/// A [`Command`] that owns its key and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    key: WireKey,
    route: Route,
    /// What to do, without the bytes that a set stores.
    action: Action<'static>,
    value: Vec<u8>,
}

impl Request {
    /// Returns a request of anything but a set, whose bytes [`set`](Self::set) takes.
    pub(crate) fn new(key: WireKey, route: Route, action: Action<'static>) -> Request {
        Request { key, route, action, value: Vec::new() }
    }

    /// Returns a request that reads a whole item.
    pub(crate) fn get(key: WireKey, route: Route) -> Request {
        Request::new(key, route, Action::Get { value: true, lease: None, touch: None })
    }

    /// Returns a request that stores `value`.
    pub(crate) fn set(
        key: WireKey,
        route: Route,
        value: Vec<u8>,
        expiry: Expiry,
        mode: SetMode,
        cas: Option<Cas>,
    ) -> Request {
        Request { key, route, action: Action::Set { value: &[], expiry, mode, cas }, value }
    }

    /// Returns a request that deletes the item, or only the one that was read under `cas`.
    pub(crate) fn delete(key: WireKey, cas: Option<Cas>) -> Request {
        Request::new(key, Route::ByKey, Action::Delete { cas })
    }

    pub(crate) fn key(&self) -> &WireKey {
        &self.key
    }

    pub(crate) fn route(&self) -> Route {
        self.route
    }

    /// Returns the connection that the request insists on: the one that its cas was read on.
    pub(crate) fn connection(&self) -> Option<u64> {
        // A store never gives out 0, and fences it on any connection.
        self.action.cas().filter(|cas| cas.value != 0).map(|cas| cas.connection)
    }

    /// Returns the command to run.
    pub(crate) fn command(&self) -> Command<'_> {
        let action = match self.action {
            Action::Set { expiry, mode, cas, .. } => Action::Set { value: &self.value, expiry, mode, cas },
            other => other,
        };
        Command { key: &self.key, route: self.route, action }
    }
}
