//! What must not happen.

use crate::model::{Change, Model, State, What};
use crate::process::{Call, Step, Target};
use crate::store::{Held, Set, Value};

impl Model {
    /// Returns the changes that were acknowledged so long ago that nobody may answer from before them.
    #[must_use]
    pub fn overdue(&self, state: &State) -> Set {
        let Some(trust) = self.trust else { return 0 };
        let late = |change: &Change| change.acked_at.is_some_and(|acked| acked + trust <= state.now);
        state.changes.iter().enumerate().fold(0, |all, (at, change)| all | Set::from(late(change)) << at)
    }

    /// Returns whether `value` is older than a change of its key or groups that is among `must`; than one that expires, if it
    /// is taken for fresh.
    #[must_use]
    pub fn lacks(&self, state: &State, value: Value, key: u8, must: Set, fresh: bool) -> bool {
        let beside = value.by.map_or(0, |by| state.changes[by as usize].beside);
        let missing = must & !value.knows & !beside;
        state
            .changes
            .iter()
            .enumerate()
            .any(|(at, change)| missing & (1 << at) != 0 && self.concerns(change.what, key, fresh))
    }

    fn concerns(&self, what: What, key: u8, fresh: bool) -> bool {
        match what {
            What::InvalidateGroup(group) => self.groups_of(key) & (1 << group) != 0,
            What::ExpireGroup(group) => fresh && self.groups_of(key) & (1 << group) != 0,
            What::Remove(changed) | What::Insert(changed) => changed == key,
        }
    }

    /// Returns whether a load of the key runs that nothing has fenced, of a caller that holds the lease.
    #[must_use]
    pub fn is_loaded(&self, state: &State, key: u8) -> bool {
        if !self.counts_loads(state) {
            return false;
        }
        let leads = |call: &Call| {
            call.step == Step::Load
                && call.key == key
                && call.target != Target::None
                && call.value.is_some_and(|value| !self.lacks(state, value, key, state.called(), true))
        };
        state.processes.iter().flat_map(|process| process.calls.iter().flatten()).any(|call| leads(call))
    }

    /// Returns whether a second load beside one that nothing has fenced breaks a promise.
    pub(crate) fn counts_loads(&self, state: &State) -> bool {
        // One that is under way takes the lease of a load that has begun since, and fences it by that.
        let takes_leases = |change: &Change| matches!(change.what, What::Remove(_) | What::Insert(_));
        !state.disturbed && !state.changes.iter().any(takes_leases)
    }

    pub(crate) fn checked(&self, state: State) -> Result<State, String> {
        for (at, process) in state.processes.iter().enumerate() {
            let must = process.must | self.overdue(&state);
            for key in self.keys() {
                let Some(entry) = process.entries[key as usize] else { continue };
                if self.counts(&state, at, entry.loaded_at) && self.lacks(&state, entry.value, key, must, !entry.stale)
                {
                    return Err(format!("process {at}: its local tier serves an old value of key {key}"));
                }
            }
        }
        for key in self.keys() {
            let Held::Value(_, value) = state.store.values[key as usize] else { continue };
            let agree = |kind: usize| {
                let token = |group: usize| {
                    let token = state.store.tokens[group][kind];
                    token != 0 && token == value.tokens[group][kind]
                };
                self.groups(key).all(token)
            };
            if agree(0) && self.lacks(&state, value, key, state.acked, !self.soft || agree(1)) {
                return Err(format!("the store holds an old value of key {key} under the present tokens"));
            }
        }
        Ok(state)
    }

    /// Returns whether an entry would be served now.
    pub(crate) fn counts(&self, state: &State, process: usize, loaded_at: Option<u8>) -> bool {
        let Some(trust) = self.trust else { return true };
        self.trusts(state, process) || loaded_at.is_some_and(|loaded_at| state.now < loaded_at + trust)
    }
}
