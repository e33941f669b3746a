//! Numbers stand for what is random or counted in the code. Only which of them are the same matters, and so each state has the
//! smallest that do.

use crate::model::{Model, State};
use crate::process::Position;
use crate::store::{Command, Held, Journal, KEYS, Moved, Name, Reply, VOID, Value, cas_index};

/// More numbers of one name than a state has.
const NUMBERS: usize = 64;

/// Visits all numbers.
pub(crate) fn names(state: &mut State, f: &mut impl FnMut(Name, &mut u8)) {
    state.store.names(f);
    state.processes.iter_mut().for_each(|process| process.names(f));
    state.strays.iter_mut().flatten().for_each(|command| command.names(f));
}

impl Model {
    /// Gives the smallest numbers in the order in which they are come upon. None comes back once it is out of use. So a version
    /// is the present one of its item, or void; and a token that only values bear is one that no value will be found under.
    pub(crate) fn renumber(&self, state: &mut State) {
        let present = state.store.versions();
        let mut found = [[false; NUMBERS]; Name::COUNT];
        names(state, &mut |name, number| {
            if let Name::Token(..) = name
                && *number != VOID.0
            {
                found[name.index()][*number as usize] = true;
            }
        });
        let mut numbers = [[0; NUMBERS]; Name::COUNT];
        let mut last = [0; Name::COUNT];
        names(state, &mut |name, number| {
            if *number == 0 || *number == VOID.0 {
                return;
            }
            let index = name.index();
            match name {
                Name::Cas(item) if present[cas_index(item)] != *number => *number = VOID.0,
                Name::Recorded(..) if !found[index][*number as usize] => *number = VOID.0,
                _ => {
                    let small = &mut numbers[index][*number as usize];
                    if *small == 0 {
                        last[index] += 1;
                        *small = last[index];
                    }
                    *number = *small;
                }
            }
        });
        state.store.set_last(|name| last[name]);
        self.forget_spent_values(state);
    }

    /// Makes all values the same whose tokens say that they are from before a bump: nobody will take them.
    fn forget_spent_values(&self, state: &mut State) {
        let spend = |key: u8, value: &mut Value| {
            if self.is_spent(key, value) {
                let tokens = value.tokens.map(|tokens| tokens.map(|token| if token == 0 { 0 } else { VOID.0 }));
                *value = Value { knows: 0, by: None, tokens };
            }
        };
        let spend_in = |command: &mut Command| {
            if let Command::Set(key, _, value) = command {
                spend(*key, value);
            }
        };
        for key in 0..KEYS as u8 {
            if let Held::Value(_, value) = &mut state.store.values[key as usize] {
                spend(key, value);
            }
        }
        state.strays.iter_mut().flatten().for_each(spend_in);
        for call in state.processes.iter_mut().flat_map(|process| process.calls.iter_mut().flatten()) {
            let key = call.key;
            call.sent.iter_mut().for_each(spend_in);
            for reply in &mut call.replies {
                if let Reply::Hit(_, value) = reply {
                    spend(key, value);
                }
            }
            if let Some((_, Some(value))) = &mut call.found {
                spend(key, value);
            }
            // What is given back of it does nothing.
            call.refresh = call.refresh.filter(|cas| *cas != VOID);
        }
    }

    /// Returns whether nobody will find the value alive who looks at its tokens.
    pub(crate) fn is_spent(&self, key: u8, value: &Value) -> bool {
        self.groups(key).any(|group| value.tokens[group][0] == VOID.0)
    }

    /// Makes journals the same which say the same to all who read them. Whoever reads on from a position reads to the end: so
    /// the order and the number of the entries from one position that anybody knows to the next do not matter, nor does what
    /// stands before all of them.
    pub(crate) fn fold_journals(&self, state: &mut State) {
        let has_room = self.room == usize::MAX && self.budget.compactions == 0;
        let mut epochs: Vec<u8> = Vec::new();
        each_journal(state, &mut |journal| epochs.push(journal.epoch));
        each_position(state, &mut |position| epochs.push(position.epoch));
        epochs.sort_unstable();
        epochs.dedup();
        for epoch in epochs {
            let mut points = Vec::new();
            let mut longest: Option<Journal> = None;
            each_position(state, &mut |position| points.extend((position.epoch == epoch).then_some(position.seq)));
            each_journal(state, &mut |journal| {
                if journal.epoch == epoch {
                    points.push(journal.end());
                    if longest.as_ref().is_none_or(|longest| longest.end() < journal.end()) {
                        longest = Some(journal.clone());
                    }
                }
            });
            // Whoever has made it adopts its beginning.
            if is_being_made(state, epoch) {
                points.push(0);
            }
            points.sort_unstable();
            points.dedup();
            if has_room {
                fold(state, epoch, &points, longest.as_ref());
            } else {
                blank(state, epoch, &points);
            }
        }
    }
}

/// Leaves out what nobody tells from nothing.
fn fold(state: &mut State, epoch: u8, points: &[u8], longest: Option<&Journal>) {
    // The entries, and where each position comes to be.
    let (mut entries, mut places): (Vec<Moved>, Vec<(u8, u8)>) = (Vec::new(), Vec::new());
    for (at, point) in points.iter().enumerate() {
        if let (Some(journal), Some(before)) = (longest, at.checked_sub(1).map(|before| points[before]))
            && *point <= journal.end()
        {
            let mut said = journal.entries[(before - journal.base) as usize..(*point - journal.base) as usize].to_vec();
            said.sort_unstable();
            said.dedup();
            entries.extend(said);
            places.push((*point, entries.len() as u8));
        } else {
            let last = places.last().map_or(0, |(_, place)| place + 1);
            places.push((*point, last));
        }
    }
    let place = |seq: u8| places.iter().find(|(point, _)| *point == seq).expect("each position is a point").1;
    each_position(state, &mut |position| {
        if position.epoch == epoch {
            position.seq = place(position.seq);
        }
    });
    each_journal(state, &mut |journal| {
        if journal.epoch == epoch {
            let end = place(journal.end());
            journal.base = 0;
            journal.entries = entries[..end as usize].to_vec();
        }
    });
}

/// Leaves as many entries as there are, where the room that they take matters or which of them a compaction drops.
fn blank(state: &mut State, epoch: u8, points: &[u8]) {
    // An entry of a key that nobody has.
    const NOTHING: Moved = Moved::KeyRemove(KEYS as u8 - 1);
    each_journal(state, &mut |journal| {
        if journal.epoch != epoch {
            return;
        }
        let (base, end) = (journal.base, journal.end());
        let mut from = base;
        for point in points.iter().copied().filter(|point| (base..=end).contains(point)) {
            let said = &mut journal.entries[(from - base) as usize..(point - base) as usize];
            if point == points[0] || !points.contains(&from) {
                said.fill(NOTHING);
            } else {
                said.sort_unstable();
                for at in (1..said.len()).rev() {
                    if said[at] == said[at - 1] {
                        said[at] = NOTHING;
                    }
                }
                said.sort_unstable();
            }
            from = point;
        }
    });
}

fn is_being_made(state: &State, epoch: u8) -> bool {
    let mut replies =
        state.processes.iter().flat_map(|process| process.calls.iter().flatten()).flat_map(|call| &call.replies);
    replies.any(|reply| *reply == Reply::Made(epoch))
}

fn each_position(state: &mut State, f: &mut impl FnMut(&mut Position)) {
    for process in &mut state.processes {
        process.position.iter_mut().for_each(&mut *f);
        let looks = process.calls.iter_mut().flatten().filter_map(|call| call.look.as_mut());
        looks.filter_map(|look| look.position.as_mut()).for_each(&mut *f);
    }
}

/// Visits the journal, and all that was read of one and is on its way.
fn each_journal(state: &mut State, f: &mut impl FnMut(&mut Journal)) {
    state.store.journal.iter_mut().for_each(&mut *f);
    let calls = state.processes.iter_mut().flat_map(|process| process.calls.iter_mut().flatten());
    for reply in calls.flat_map(|call| &mut call.replies) {
        if let Reply::Journal(journal) = reply {
            f(journal);
        }
    }
}
