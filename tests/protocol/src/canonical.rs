//! States that are as good as the same are made the same.

use std::hash::{Hash, Hasher};

use crate::model::{Model, State};
use crate::process::Position;
use crate::store::{Command, Moved, Name, Reply, VOID};

/// Returns what tells a state from all others but those in which processes have changed places.
pub(crate) fn fingerprint_of(model: &Model, state: &State) -> u64 {
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
    /// Gives names that are in use the smallest numbers, and drops what can do nothing any more.
    pub(crate) fn tidy(&self, state: &mut State) {
        self.drop_idle_strays(state);
        if self.rules.r8_own_connection {
            rename(state);
        }
        self.shorten_journal(state);
    }

    /// Drops late commands that can do nothing any more: the version they name is gone, and no number comes back.
    fn drop_idle_strays(&self, state: &mut State) {
        if !self.rules.r8_own_connection {
            return;
        }
        let State { store, strays, .. } = state;
        strays.retain_mut(|stray| {
            stray.retain(|command| store.may_be_stored(command));
            !stray.is_empty()
        });
    }

    /// Forgets what every process has read, where the length of the journal says nothing.
    fn shorten_journal(&self, state: &mut State) {
        let bounded = self.room < usize::MAX || self.budget.compactions > 0;
        let rereads = state.processes.iter().flat_map(|process| process.calls.iter().flatten());
        if bounded || !self.rules.r8_own_connection {
            return;
        }
        let Some(journal) = &mut state.store.journal else { return };
        let looks = rereads.filter_map(|call| call.look).filter_map(|look| look.position);
        let snapshots: Vec<u8> = state
            .processes
            .iter()
            .flat_map(|process| process.calls.iter().flatten())
            .flat_map(|call| &call.replies)
            .filter_map(|reply| if let Reply::Journal(read) = reply { Some(read) } else { None })
            .filter(|read| read.epoch == journal.epoch)
            .map(|read| read.base)
            .collect();
        let positions = state.processes.iter().filter_map(|process| process.position).chain(looks);
        let first = positions.filter(|at| at.epoch == journal.epoch).map(|at| at.seq).min();
        let first = first.unwrap_or(journal.end()).min(journal.end());
        // Only where nobody has a reading under way, whose beginning would have to move as well.
        if !snapshots.is_empty() || first == 0 {
            return;
        }
        journal.entries.drain(..(first - journal.base) as usize);
        let epoch = journal.epoch;
        journal.base = 0;
        let shift = |at: &mut Position| {
            if at.epoch == epoch {
                at.seq -= first;
            }
        };
        for process in &mut state.processes {
            process.position.iter_mut().for_each(shift);
            for call in process.calls.iter_mut().flatten() {
                call.look.iter_mut().filter_map(|look| look.position.as_mut()).for_each(shift);
            }
        }
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

pub(crate) fn names(state: &mut State, f: &mut impl FnMut(Name, &mut u8)) {
    state.store.names(f);
    state.processes.iter_mut().for_each(|process| process.names(f));
    state.strays.iter_mut().flatten().for_each(|command| command.names(f));
}

/// Gives what is named by numbers the smallest ones, in their order.
fn rename(state: &mut State) {
    let mut in_use = [0_u128; Name::COUNT];
    names(state, &mut |name, number| {
        if *number != 0 && *number != VOID.0 {
            in_use[name.index()] |= 1 << *number;
        }
    });
    names(state, &mut |name, number| {
        if *number != 0 && *number != VOID.0 {
            *number = 1 + (in_use[name.index()] & ((1 << *number) - 1)).count_ones() as u8;
        }
    });
    state.store.set_last(|name| in_use[name].count_ones() as u8);
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
