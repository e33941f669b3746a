//! States that are as good as the same are made the same.

use std::hash::{Hash, Hasher};

use crate::model::{Model, State};
use crate::store::{Command, Moved, Reply};

/// Stands for all states from which nothing leads to a broken promise.
const SAFE: u64 = 1;

/// Returns what tells a state from all others but those in which processes have changed places.
pub(crate) fn fingerprint_of(model: &Model, state: &State) -> u64 {
    if model.exact {
        return fingerprint(state);
    }
    if model.is_safe(state) {
        return SAFE;
    }
    let names_processes = model.budget.inserts + model.budget.queued > 0;
    if !names_processes {
        // Processes that have changed places make the same state.
        let mut processes: Vec<u64> = state.processes.iter().map(fingerprint).collect();
        processes.sort_unstable();
        let State { store, strays, changes, acked, left, now, .. } = state;
        return fingerprint(&(store, strays, changes, acked, left, now, processes));
    }
    let orders: &[&[u8]] = match model.processes {
        1 => &[&[0]],
        2 => &[&[0, 1], &[1, 0]],
        _ => &[&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2, 0], &[2, 0, 1], &[2, 1, 0]],
    };
    let named =
        |order: &&[u8]| if order.is_sorted() { fingerprint(state) } else { fingerprint(&permuted(state, order)) };
    orders.iter().map(named).min().expect("one order at least")
}

impl Model {
    /// Drops what can do nothing any more, and gives the same numbers to what differs in them alone.
    pub(crate) fn tidy(&self, state: &mut State) {
        if self.exact {
            return;
        }
        self.forget_answered(state);
        // Without it, numbers of versions come back, and are compared with those of before.
        if self.rules.r8_own_connection {
            self.renumber(state);
            self.forget_idle_strays(state);
        }
        self.forget_settled(state);
        self.forget_time(state);
        self.forget_idle_processes(state);
        if self.rules.r8_own_connection {
            self.fold_journals(state);
            // What was forgotten may have been the last of its name.
            self.renumber(state);
        }
        state.strays.sort_by_cached_key(fingerprint);
    }
}

/// Writes down what is hashed, in a byte for each small number, to hash it at once: states are many small numbers.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Hasher for Writer {
    fn finish(&self) -> u64 {
        ahash::RandomState::with_seeds(11, 22, 33, 44).hash_one(&self.0[..])
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn write_u8(&mut self, number: u8) {
        self.0.push(number);
    }
    fn write_usize(&mut self, number: usize) {
        self.0.push(number as u8);
    }
    fn write_isize(&mut self, number: isize) {
        self.0.push(number as u8);
    }
}

pub(crate) fn fingerprint(what: &impl Hash) -> u64 {
    let mut writer = Writer(Vec::with_capacity(512));
    what.hash(&mut writer);
    writer.finish()
}

/// Returns the state with its processes in another order.
fn permuted(state: &State, order: &[u8]) -> State {
    let mut other = state.clone();
    other.processes = order.iter().map(|at| state.processes[*at as usize].clone()).collect();
    let place = |process: &mut u8| {
        *process = order.iter().position(|at| at == process).expect("every process has a place") as u8;
    };
    let moved = |moved: &mut Moved| {
        if let Moved::KeyInsert(_, process) = moved {
            place(process);
        }
    };
    let in_command = |command: &mut Command| match command {
        Command::Append(news) | Command::AddJournal(news) | Command::ReplaceJournal(_, news) => {
            news.iter_mut().for_each(moved);
        }
        _ => {}
    };
    other.store.journal.iter_mut().flat_map(|journal| &mut journal.entries).for_each(moved);
    other.strays.iter_mut().flatten().for_each(in_command);
    for call in other.processes.iter_mut().flat_map(|process| process.calls.iter_mut().flatten()) {
        call.news.iter_mut().for_each(moved);
        call.sent.iter_mut().for_each(in_command);
        for reply in &mut call.replies {
            if let Reply::Journal(journal) = reply {
                journal.entries.iter_mut().for_each(moved);
            }
        }
    }
    other
}
