//! The way of one process to the store: it lets a test in between two commands of one exchange, fails some, and keeps some
//! back until long after their caller has given up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Action, Command, RemoteError, RemoteErrorKind, RemoteTier, Reply, Route, ServerHealth, WireKey};

use crate::scene::PATIENCE;
use crate::tiered::gate::{Kind, When};

type Act = Box<dyn FnOnce() + Send>;

/// A way to a store. Clones are the same way.
#[derive(Clone)]
pub(crate) struct Wire {
    store: Arc<dyn RemoteTier>,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    log: Vec<Vec<Kind>>,
    acts: Vec<Cue>,
    failing: Vec<Kind>,
    losing: Vec<Kind>,
    stalling: Option<Kind>,
    late: Vec<Act>,
}

/// What happens at a command, once.
struct Cue {
    kind: Kind,
    when: When,
    /// How many commands of the kind are to pass before.
    after: usize,
    act: Act,
}

impl Wire {
    pub(crate) fn new(store: impl RemoteTier) -> Wire {
        Wire { store: Arc::new(store), script: Arc::default() }
    }

    fn script<R>(&self, f: impl FnOnce(&mut Script) -> R) -> R {
        f(&mut self.script.lock().unwrap())
    }

    /// Runs `act` at the next command of this kind, on the thread that sends it.
    pub(crate) fn at(&self, kind: Kind, when: When, act: impl FnOnce() + Send + 'static) {
        self.at_nth(kind, 0, when, act);
    }

    /// Runs `act` at a command of this kind that others come before.
    pub(crate) fn at_nth(&self, kind: Kind, after: usize, when: When, act: impl FnOnce() + Send + 'static) {
        self.script(|script| script.acts.push(Cue { kind, when, after, act: Box::new(act) }));
    }

    /// Fails all commands of these kinds from here on, without carrying them out.
    pub(crate) fn fail(&self, kinds: &[Kind]) {
        self.script(|script| script.failing = kinds.to_vec());
    }

    /// Carries out all commands of these kinds from here on, and loses the answers.
    pub(crate) fn lose(&self, kinds: &[Kind]) {
        self.script(|script| script.losing = kinds.to_vec());
    }

    /// Keeps back the next exchange that has a command of this kind: its caller gives it up, and the store carries out what it
    /// writes when [`arrive`](Self::arrive) is called.
    pub(crate) fn stall(&self, kind: Kind) {
        self.script(|script| script.stalling = Some(kind));
    }

    /// Lets the store carry out what was kept back.
    pub(crate) fn arrive(&self) {
        let late = self.script(|script| std::mem::take(&mut script.late));
        assert!(!late.is_empty(), "nothing was kept back");
        late.into_iter().for_each(|act| act());
    }

    /// Returns the exchanges since this was last asked.
    pub(crate) fn log(&self) -> Vec<Vec<Kind>> {
        self.script(|script| std::mem::take(&mut script.log))
    }

    /// Takes a command that is to be carried out late. A read leaves nothing behind then.
    fn keep_back(&self, command: &Command<'_>) -> Option<Act> {
        let Action::Set { value, expiry, mode, cas } = command.action else { return None };
        let (store, key, route, value) = (self.store.clone(), command.key.clone(), command.route, value.to_vec());
        Some(Box::new(move || {
            let action = Action::Set { value: &value, expiry, mode, cas };
            store.run(&[Command { key: &key, route, action }], PATIENCE).remove(0).unwrap();
        }))
    }

    /// Runs what is to happen at a command. What that sends passes here like everything.
    fn cue(&self, kind: Kind, when: When) {
        let due = self.script(|script| {
            let (mut due, mut rest) = (Vec::new(), Vec::new());
            for mut cue in std::mem::take(&mut script.acts) {
                match (cue.kind, cue.when) == (kind, when) {
                    true if cue.after == 0 => due.push(cue.act),
                    true => {
                        cue.after -= 1;
                        rest.push(cue);
                    }
                    false => rest.push(cue),
                }
            }
            script.acts = rest;
            due
        });
        due.into_iter().for_each(|act| act());
    }

    fn carry_out(&self, command: &Command<'_>, timeout: Duration) -> Result<Reply, RemoteError> {
        let kind = Kind::of(command);
        self.cue(kind, When::Before);
        if self.script(|script| script.failing.contains(&kind)) {
            return Err(RemoteError::new(RemoteErrorKind::Interrupted, "the command was lost"));
        }
        let reply = self.store.run(&[*command], timeout).remove(0);
        self.cue(kind, When::After);
        if self.script(|script| script.losing.contains(&kind)) {
            return Err(RemoteError::new(RemoteErrorKind::Interrupted, "the answer was lost"));
        }
        reply
    }
}

impl RemoteTier for Wire {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let kinds: Vec<Kind> = batch.iter().map(Kind::of).collect();
        let stalls = self.script(|script| {
            script.log.push(kinds.clone());
            script.stalling.take_if(|kind| kinds.contains(kind)).is_some()
        });
        if stalls {
            let late: Vec<Act> = batch.iter().filter_map(|command| self.keep_back(command)).collect();
            self.script(|script| script.late.extend(late));
            let error = RemoteError::new(RemoteErrorKind::TimedOut, "no answer in time");
            return vec![Err(error); batch.len()];
        }
        batch.iter().map(|command| self.carry_out(command, timeout)).collect()
    }

    fn max_value_len(&self) -> usize {
        self.store.max_value_len()
    }

    fn servers(&self) -> usize {
        self.store.servers()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        self.store.server_of(key, route)
    }

    fn server_health(&self) -> Vec<ServerHealth> {
        self.store.server_health()
    }

    /// The thread that follows the journal hears nothing: a process looks at it when its test says so.
    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        Some(Box::new(Deaf))
    }
}

/// A way that leads nowhere.
struct Deaf;

impl RemoteTier for Deaf {
    fn run(&self, batch: &[Command<'_>], _: Duration) -> Vec<Result<Reply, RemoteError>> {
        vec![Err(RemoteError::new(RemoteErrorKind::Unavailable, "there is no way to the store")); batch.len()]
    }

    fn max_value_len(&self) -> usize {
        0
    }
}
