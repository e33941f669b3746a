//! Time that passes for a store and for the processes before it at once, without anybody who waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Action, Clock, Command, Item, ManualClock, Namespace, RemoteError, RemoteTier, Reply, Route, TieredCacheBuilder,
    WireKey,
};

use super::gate::Gate;
use super::{Pages, YEARS, settled};

/// A store that takes its items to be older than they are, and the clocks of the processes before it.
#[derive(Clone)]
pub(super) struct Ageing {
    inner: Arc<dyn RemoteTier>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    passed: Duration,
    /// How much had passed when the time of an item began.
    begun: HashMap<Vec<u8>, Duration>,
    clocks: Vec<ManualClock>,
}

impl Ageing {
    pub(super) fn over(inner: impl RemoteTier) -> Ageing {
        Ageing { inner: Arc::new(inner), state: Arc::default() }
    }

    /// Lets time pass for the store and for all processes.
    pub(super) fn pass(&self, time: Duration) {
        let mut state = self.state.lock().unwrap();
        state.passed += time;
        state.clocks.iter().for_each(|clock| clock.advance(time));
    }

    /// Returns a process with a clock of its own, behind a gate of its own.
    pub(super) fn process(
        &self,
        name: &str,
        set: impl FnOnce(TieredCacheBuilder<String, String>) -> TieredCacheBuilder<String, String>,
    ) -> (Pages, Gate) {
        let gate = Gate::new(self.clone());
        (super::pages(&self.namespace(name, gate.clone()), set), gate)
    }

    pub(super) fn namespace(&self, name: &str, gate: Gate) -> Namespace {
        let (clock, time) = Clock::manual();
        self.state.lock().unwrap().clocks.push(time);
        let look = gate.next_look();
        settled(Namespace::builder(name, gate).clock(clock).trust(YEARS), look)
    }
}

impl State {
    fn aged(&mut self, command: &Command<'_>, reply: Reply) -> Reply {
        let key = command.key.as_bytes();
        let begins = match command.action {
            Action::Set { .. } => reply == Reply::Done,
            Action::Touch { .. } => matches!(reply, Reply::Hit(_)),
            _ => false,
        };
        if begins {
            self.begun.insert(key.to_vec(), self.passed);
        }
        let age = self.passed - self.begun.get(key).copied().unwrap_or_default();
        match reply {
            Reply::Hit(item) => match item.expires_in {
                Some(left) if left <= age => Reply::Miss,
                left => Reply::Hit(Item { expires_in: left.map(|left| left - age), ..item }),
            },
            other => other,
        }
    }
}

impl RemoteTier for Ageing {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let replies = self.inner.run(batch, timeout);
        let mut state = self.state.lock().unwrap();
        batch.iter().zip(replies).map(|(command, reply)| Ok(state.aged(command, reply?))).collect()
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

    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        self.inner.dedicated()
    }
}
