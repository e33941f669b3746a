//! What cannot matter any more is forgotten, so that states which differ in it alone are one.

use crate::model::{Model, State, What};
use crate::process::{
    BEHIND, CHANGER, Call, Look, OUTBOX, POLLER, Position, Process, READER, ROOT_BIT, Step, Target, Verb,
};
use crate::store::{Command, Held, Journal, Reply, Set, VOID, Value};

impl Model {
    /// Forgets of each call what none of its steps to come looks at.
    pub(crate) fn forget_answered(&self, state: &mut State) {
        for process in &mut state.processes {
            for slot in 0..process.calls.len() {
                let Some(call) = process.calls[slot].as_mut() else { continue };
                self.forget_in_call(call);
                let overtaken = call.moved != 0 || process.flights[call.key as usize] != Some(slot as u8);
                let rules = self.rules;
                // What it has found would not be copied, nor what it loads kept: by which of both does not matter.
                let fenced = match call.step {
                    Step::Load | Step::SendLoads => overtaken,
                    Step::TokensOfLate | Step::Look | Step::Renew => call.moved != 0,
                    _ => call.moved != 0 && rules.r6_ticket && rules.r6_old_born,
                };
                if matches!(call.verb, Verb::Read | Verb::Load) && fenced {
                    (call.moved, call.early, process.flights[call.key as usize]) = (ROOT_BIT, 0, None);
                }
            }
            for (key, queued) in process.waiting.iter_mut().enumerate() {
                queued.iter_mut().for_each(|queued| queued.moved = self.moved_of(key as u8, queued.moved));
            }
        }
    }

    /// Returns whether any group of the key is among `moved`, as a set.
    fn moved_of(&self, key: u8, moved: Set) -> Set {
        if moved & (self.groups_of(key) | ROOT_BIT) == 0 { 0 } else { ROOT_BIT }
    }

    fn forget_in_call(&self, call: &mut Call) {
        let groups = self.groups_of(call.key);
        let reads = matches!(call.verb, Verb::Read | Verb::Load);
        let writes = matches!(call.verb, Verb::Insert | Verb::SendQueued);
        let has_not_loaded =
            reads && matches!(call.step, Step::Fetch | Step::ReadTokens | Step::Replace | Step::Elect | Step::Pause);
        // Of loads that end, and of queued writes.
        let looks_late = matches!(call.step, Step::TokensOfLate | Step::Look | Step::Renew);
        let asks_tokens = matches!(call.step, Step::ReadTokens | Step::TokensOfLate | Step::TokensToRecord);
        let looks = call.verb != Verb::Compact && (looks_late || call.step == Step::Bump);
        let records = looks_late || call.step == Step::TokensToRecord;

        call.moved = if reads || writes { self.moved_of(call.key, call.moved) } else { 0 };
        call.forgotten &= if asks_tokens { groups } else { 0 };
        call.early &= if call.step == Step::Load && call.target != Target::None { groups } else { 0 };
        for owed in &mut call.owed_groups {
            *owed &= if call.step == Step::ReadTokens { groups } else { 0 };
        }
        call.found = match call.step {
            Step::ReadTokens => call.found,
            Step::Elect => call.found.map(|(cas, value)| (cas, value.map(Value::unsealed))),
            _ if writes && records => call.found.map(|(cas, _)| (cas, None)),
            _ => None,
        };
        call.value = call.value.map(|value| if records { value } else { value.unsealed() });
        call.trusted |= !has_not_loaded;
        call.must &= if has_not_loaded { Set::MAX } else { 0 };
        call.look = call.look.filter(|_| looks);
        for at in 0..call.replies.len() {
            if let Some(command) = call.sent.get_mut(at) {
                *command = command.spent();
            }
            self.forget_in_reply(call, at);
        }
    }

    /// Leaves of an answer what the call will look at.
    fn forget_in_reply(&self, call: &mut Call, at: usize) {
        let reads_on = call.verb != Verb::Compact;
        let (loads, elects) = (call.verb == Verb::Load, self.rules.one_lease);
        let reply = &mut call.replies[at];
        *reply = match (call.step, std::mem::replace(reply, Reply::Done)) {
            (Step::Fetch, Reply::Busy(_)) if elects || !loads => Reply::Busy(VOID),
            (Step::Replace, _) if at == 0 => Reply::Done,
            (Step::Replace, Reply::Busy(_) | Reply::Hit(..)) | (Step::Elect, Reply::Busy(_)) => Reply::Busy(VOID),
            (Step::Version, Reply::Won(cas) | Reply::Hit(cas, _)) => Reply::Busy(cas),
            (Step::Write, Reply::Miss) => Reply::Done,
            (Step::MakeJournal { .. } | Step::ReplaceFullJournal, Reply::Made(_)) => Reply::Done,
            (Step::ReadFullJournal, Reply::Journal(journal)) => Reply::Journal(version_alone(&journal)),
            (Step::Look, Reply::Journal(journal)) if !reads_on => Reply::Journal(version_alone(&journal)),
            (Step::Delete | Step::Compact, _) => Reply::Done,
            (_, reply) => reply,
        };
    }

    /// Forgets late commands that can do nothing any more: the version they name is gone, and no number comes back.
    pub(crate) fn forget_idle_strays(&self, state: &mut State) {
        let State { store, strays, .. } = state;
        strays.retain_mut(|stray| {
            stray.retain(|command| store.may_be_stored(command));
            !stray.is_empty()
        });
    }

    /// Returns the changes that no value lacks, nor will: whether they were acknowledged, and who has heard of it, says no more.
    fn settled(&self, state: &State) -> Set {
        let mut all_know = state.called();
        each_value(state, &mut |key, value| {
            if !self.is_spent(key, value) {
                all_know &= value.knows | value.by.map_or(0, |by| state.changes[by as usize].beside);
            }
        });
        // A change that comes is beside an insert which is not acknowledged.
        if self.may_change(state) {
            for (at, change) in state.changes.iter().enumerate() {
                all_know &= !(Set::from(matches!(change.what, What::Insert(_))) << at);
            }
        }
        all_know
    }

    /// Makes settled changes the same as those of which everybody has heard.
    pub(crate) fn forget_settled(&self, state: &mut State) {
        let settled = self.settled(state);
        state.acked |= settled;
        for (at, change) in state.changes.iter_mut().enumerate() {
            if settled & (1 << at) != 0 {
                change.acked_at = self.trust.map(|_| 0);
            }
        }
        for process in &mut state.processes {
            process.must |= settled;
            process.debts.iter_mut().for_each(|debt| debt.changes &= !settled);
            for call in process.calls.iter_mut().flatten() {
                call.must &= !settled;
                call.look.iter_mut().for_each(|look| look.acked &= !process.must);
            }
            for slot in [CHANGER, OUTBOX] {
                process.calls[slot].iter_mut().for_each(|call| call.changes &= !settled);
            }
        }
    }

    /// Returns whether a change may be called.
    fn may_change(&self, state: &State) -> bool {
        let left = &state.left;
        left.invalidations + left.expirations + left.removals + left.inserts + left.queued > 0
    }

    /// Returns whether nothing that may come breaks a promise: there is no value that lacks a change, none comes, and who loads
    /// may be a second.
    pub(crate) fn is_safe(&self, state: &State) -> bool {
        let elects = |call: &Call| call.verb == Verb::Load && call.value.is_none();
        let mut calls = state.processes.iter().flat_map(|process| process.calls.iter().flatten());
        let may_elect = self.counts_loads(state) && (state.left.loads > 0 || calls.any(|call| elects(call)));
        !may_elect && !self.may_change(state) && self.settled(state) == state.called()
    }

    /// Forgets moments that are before all that will be compared with them, or beyond the end.
    pub(crate) fn forget_time(&self, state: &mut State) {
        let Some(trust) = self.trust else { return };
        let (now, end) = (state.now, state.now + state.left.ticks);
        // Whoever was vouched for at this moment is so until the end.
        let latest = (end + 1).saturating_sub(trust);
        let vouched = |at: u8| (at + trust > now).then_some(at.min(latest));
        for change in &mut state.changes {
            change.acked_at =
                change.acked_at.filter(|at| at + trust <= end).map(|at| if at + trust <= now { 0 } else { at });
        }
        for process in &mut state.processes {
            process.trusted_until = if process.trusted_until <= now { 0 } else { process.trusted_until.min(end + 1) };
            for entry in process.entries.iter_mut().flatten() {
                entry.loaded_at = entry.loaded_at.and_then(vouched);
            }
            for call in process.calls.iter_mut().flatten() {
                call.loaded_at = call.loaded_at.and_then(vouched);
                if let Some(look) = &mut call.look {
                    let extends = look.noted + trust > process.trusted_until.max(now);
                    look.noted = if extends { look.noted.min(latest) } else { 0 };
                }
            }
        }
    }

    /// Forgets what a process knows which reads no more, and what it keeps that will not be read.
    pub(crate) fn forget_idle_processes(&self, state: &mut State) {
        let end = state.store.journal.as_ref().map(|journal| Position { epoch: journal.epoch, seq: journal.end() });
        let end = end.unwrap_or(Position { epoch: VOID.0, seq: 0 });
        let safe_entries = !self.may_change(state);
        let may_begin = self.may_change(state) || state.left.compactions > 0;
        let called = state.called();
        let State { processes, changes, left, .. } = state;
        let reading_is_over = left.loads + left.reads + left.loads_cut_off + left.inserts + left.queued == 0;
        if !reading_is_over {
            return;
        }
        for process in processes {
            if reads(process) {
                continue;
            }
            for entry in &mut process.entries {
                let knows = |value: Value| value.knows | value.by.map_or(0, |by| changes[by as usize].beside);
                *entry = entry.filter(|entry| !safe_entries || called & !knows(entry.value) != 0);
            }
            if process.entries.iter().any(Option::is_some) {
                continue;
            }
            // One that has crashed looks before it begins anything.
            if process.position.is_some() || !may_begin {
                process.position = Some(end);
                let looks = |call: &Call| call.verb == Verb::Poll && matches!(call.replies[..], [Reply::Journal(_)]);
                process.calls[POLLER].take_if(|call| looks(call));
            }
            (process.known, process.flights, process.must, process.trusted_until) = Default::default();
            for call in process.calls.iter_mut().flatten() {
                call.look = call.look.map(|_| Look { position: None, noted: 0, acked: 0 });
                if call.step == Step::Bump
                    && let Some(Reply::Journal(journal)) = call.replies.last_mut()
                {
                    *journal = Journal { cas: VOID, ..version_alone(journal) };
                }
            }
        }
    }

    /// Returns whether the process has anything to gain from a look at the journal.
    pub(crate) fn listens(&self, state: &State, process: &Process) -> bool {
        let left = &state.left;
        let may_begin = left.loads + left.reads + left.loads_cut_off + left.compactions > 0 || self.may_change(state);
        let knows_little = process.position.is_none() && may_begin;
        let may_read = left.loads + left.reads + left.loads_cut_off + left.inserts + left.queued > 0;
        knows_little || may_read || reads(process) || process.entries.iter().any(Option::is_some)
    }
}

/// Returns whether a call of the process looks into the local tier, or will put something there.
fn reads(process: &Process) -> bool {
    let inserts = process.calls[CHANGER].as_ref().is_some_and(|call| call.verb == Verb::Insert);
    let queues = process.calls[BEHIND].is_some() || process.waiting.iter().any(Option::is_some);
    process.calls[READER].is_some() || inserts || queues
}

/// Returns what says no more of a journal than its version.
fn version_alone(journal: &Journal) -> Journal {
    Journal { epoch: VOID.0, base: 0, entries: Vec::new(), cas: journal.cas }
}

/// Visits all values, wherever they are, with their keys.
fn each_value(state: &State, f: &mut impl FnMut(u8, &Value)) {
    let mut in_command = |command: &Command| {
        if let Command::Set(key, _, value) = command {
            f(*key, value);
        }
    };
    state.strays.iter().flatten().for_each(&mut in_command);
    let calls = || state.processes.iter().flat_map(|process| process.calls.iter().flatten());
    calls().flat_map(|call| &call.sent[call.replies.len().min(call.sent.len())..]).for_each(&mut in_command);
    for (key, held) in state.store.values.iter().enumerate() {
        if let Held::Value(_, value) = held {
            f(key as u8, value);
        }
    }
    for process in &state.processes {
        for key in 0..process.entries.len() {
            process.entries[key].iter().for_each(|entry| f(key as u8, &entry.value));
            process.waiting[key].iter().for_each(|queued| f(key as u8, &queued.value));
        }
    }
    for call in calls() {
        call.value.iter().for_each(|value| f(call.key, value));
        call.found.iter().filter_map(|(_, value)| value.as_ref()).for_each(|value| f(call.key, value));
        for reply in &call.replies {
            if let Reply::Hit(_, value) = reply {
                f(call.key, value);
            }
        }
    }
}
