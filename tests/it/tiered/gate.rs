//! A remote tier that lets a test in between two commands: it runs what the test gives it before or after a chosen exchange,
//! changes answers, and counts.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use larder::{Action, Command, RemoteError, RemoteTier, Reply, Route, SetMode, WireKey};

use crate::support::PATIENCE;

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value is read, with or without its bytes.
    Read,
    /// A value is written.
    Write,
    Delete,
    MarkStale,
    /// The time of a value begins anew.
    Touch,
    /// The token of a group is read.
    ReadToken,
    /// The token of a group is added or replaced.
    WriteToken,
    /// The journal is read, with or without its entries.
    ReadJournal,
    /// The journal is made, appended to or replaced.
    WriteJournal,
}

impl Kind {
    pub(crate) fn of(command: &Command<'_>) -> Kind {
        let is_journal = command.key.as_bytes().ends_with(b":j");
        match (command.route, command.action) {
            (Route::Control, Action::Get { .. }) if is_journal => Kind::ReadJournal,
            (Route::Control, _) if is_journal => Kind::WriteJournal,
            (Route::Control, Action::Get { .. }) => Kind::ReadToken,
            (Route::Control, _) => Kind::WriteToken,
            (Route::ByKey, Action::Get { .. }) => Kind::Read,
            (Route::ByKey, Action::Delete { .. }) => Kind::Delete,
            (Route::ByKey, Action::MarkStale { .. }) => Kind::MarkStale,
            (Route::ByKey, Action::Touch { .. }) => Kind::Touch,
            (Route::ByKey, _) => Kind::Write,
        }
    }
}

/// When something happens: before the exchange reaches the store, or after the store answered and before the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

type Act = Box<dyn FnOnce() + Send>;
type Rewrite = Arc<dyn Fn(&Command<'_>, Result<Reply, RemoteError>) -> Result<Reply, RemoteError> + Send + Sync>;

/// One exchange: the kinds of its commands, in order.
pub(crate) type Exchange = Vec<Kind>;

#[derive(Default)]
struct State {
    log: Vec<Exchange>,
    keys: BTreeSet<Vec<u8>>,
    acts: Vec<(usize, When, Act)>,
    rewrite: Option<Rewrite>,
}

/// A remote tier with a gate before it. Clones share both.
#[derive(Clone)]
pub(crate) struct Gate {
    inner: Arc<dyn RemoteTier>,
    state: Option<Arc<Mutex<State>>>,
    looks: Arc<Looks>,
}

/// How many exchanges have gone past a gate, of the threads that follow the journal.
#[derive(Default)]
struct Looks {
    count: Mutex<u64>,
    changed: Condvar,
}

/// The way past a gate.
struct Bypass {
    inner: Arc<dyn RemoteTier>,
    looks: Arc<Looks>,
}

/// The next exchange that goes past a gate.
pub(crate) struct NextLook {
    looks: Arc<Looks>,
    after: u64,
}

impl NextLook {
    pub(crate) fn wait(self) {
        let Looks { count, changed } = &*self.looks;
        let count =
            changed.wait_timeout_while(count.lock().unwrap(), PATIENCE, |count| *count <= self.after).unwrap().0;
        assert!(*count > self.after, "nobody looks at the journal");
    }
}

impl RemoteTier for Bypass {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let replies = self.inner.run(batch, timeout);
        *self.looks.count.lock().unwrap() += 1;
        self.looks.changed.notify_all();
        replies
    }

    fn max_value_len(&self) -> usize {
        self.inner.max_value_len()
    }

    fn servers(&self) -> usize {
        self.inner.servers()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        self.inner.server_of(key, route)
    }
}

impl Gate {
    pub(crate) fn new(inner: impl RemoteTier) -> Gate {
        Gate { inner: Arc::new(inner), state: Some(Arc::default()), looks: Arc::default() }
    }

    /// Returns another gate before the same store.
    pub(crate) fn another(&self) -> Gate {
        Gate { inner: self.inner.clone(), state: Some(Arc::default()), looks: Arc::default() }
    }

    /// Returns the store without a gate.
    pub(crate) fn ungated(&self) -> Gate {
        Gate { inner: self.inner.clone(), state: None, looks: Arc::default() }
    }

    /// Returns what to wait on for the next exchange of a thread that follows the journal.
    pub(crate) fn next_look(&self) -> NextLook {
        NextLook { looks: self.looks.clone(), after: *self.looks.count.lock().unwrap() }
    }

    fn state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.as_ref().expect("a gate").lock().unwrap())
    }

    /// Forgets what has passed. The next exchange is number 0.
    pub(crate) fn reset(&self) {
        self.state(|state| *state = State::default());
    }

    /// Runs `act` at the exchange of this number since the last reset, on the thread that makes it. What it sends passes the
    /// gate like everything.
    pub(crate) fn at(&self, exchange: usize, when: When, act: impl FnOnce() + Send + 'static) {
        self.state(|state| state.acts.push((exchange, when, Box::new(act))));
    }

    /// Changes all answers from here on.
    pub(crate) fn rewrite(
        &self,
        rewrite: impl Fn(&Command<'_>, Result<Reply, RemoteError>) -> Result<Reply, RemoteError> + Send + Sync + 'static,
    ) {
        self.state(|state| state.rewrite = Some(Arc::new(rewrite)));
    }

    /// Returns the exchanges since the last reset.
    pub(crate) fn log(&self) -> Vec<Exchange> {
        self.state(|state| state.log.clone())
    }

    /// Returns every key that has been in a command since the last reset.
    pub(crate) fn keys(&self) -> Vec<WireKey> {
        self.state(|state| state.keys.iter().map(|key| WireKey::new(key.clone()).unwrap()).collect())
    }

    /// Runs one command past the gate.
    pub(crate) fn run_one(&self, key: &WireKey, route: Route, action: Action<'_>) -> Reply {
        let command = Command { key, route, action };
        self.inner.run(&[command], Duration::from_secs(20)).remove(0).unwrap()
    }

    /// Returns the bytes of an item.
    pub(crate) fn peek(&self, key: &WireKey) -> Option<Vec<u8>> {
        match self.run_one(key, Route::ByKey, Action::Get { value: true, lease: None, touch: None }) {
            Reply::Hit(item) => Some(item.value.into()),
            _ => None,
        }
    }

    /// Stores bytes under the key of a value.
    pub(crate) fn poke(&self, key: &WireKey, value: &[u8]) {
        self.store(key, Route::ByKey, value);
    }

    /// Stores bytes under the key of a token.
    pub(crate) fn poke_control(&self, key: &WireKey, value: &[u8]) {
        self.store(key, Route::Control, value);
    }

    fn store(&self, key: &WireKey, route: Route, value: &[u8]) {
        let expiry = larder::Expiry::After(super::HOUR);
        let set = Action::Set { value, expiry, mode: SetMode::Always, cas: None };
        assert_eq!(self.run_one(key, route, set), Reply::Done);
    }
}

impl RemoteTier for Gate {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let Some(state) = &self.state else { return self.inner.run(batch, timeout) };
        let number = {
            let mut state = state.lock().unwrap();
            state.log.push(batch.iter().map(Kind::of).collect());
            state.keys.extend(batch.iter().map(|command| command.key.as_bytes().to_vec()));
            state.log.len() - 1
        };
        let take = |when| -> Vec<Act> {
            let mut state = state.lock().unwrap();
            let (due, rest) =
                std::mem::take(&mut state.acts).into_iter().partition(|act| (act.0, act.1) == (number, when));
            state.acts = rest;
            Vec::into_iter(due).map(|(_, _, act)| act).collect()
        };
        take(When::Before).into_iter().for_each(|act| act());
        let mut replies = self.inner.run(batch, timeout);
        take(When::After).into_iter().for_each(|act| act());
        let rewrite = state.lock().unwrap().rewrite.clone();
        if let Some(rewrite) = rewrite {
            replies = batch.iter().zip(replies).map(|(command, reply)| rewrite(command, reply)).collect();
        }
        replies
    }

    fn max_value_len(&self) -> usize {
        self.inner.max_value_len()
    }

    fn servers(&self) -> usize {
        self.inner.servers()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        self.inner.server_of(key, route)
    }

    /// The thread that follows the journal goes past the gate: when it looks is not for a test to say.
    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        let inner = self.inner.dedicated().map_or_else(|| self.inner.clone(), Arc::from);
        Some(Box::new(Bypass { inner, looks: self.looks.clone() }))
    }
}
