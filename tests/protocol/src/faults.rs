//! What fails.

use crate::actions::Loss;
use crate::model::{Model, State};
use crate::numbers;
use crate::process::Process;
use crate::store::{GROUPS, Item, Name, VOID};

impl Model {
    pub(crate) fn all_items(&self) -> Vec<Item> {
        let groups = self.all_groups();
        let tokens = (0..GROUPS as u8).filter(|group| groups & (1 << group) != 0);
        let tokens = tokens.flat_map(|group| self.kinds().iter().map(move |kind| Item::Token(group, *kind)));
        let values = self.keys().flat_map(|key| [Item::Value(key), Item::Refresh(key)]);
        values.chain(tokens).chain([Item::Journal]).collect()
    }

    pub(crate) fn lose(&self, state: &mut State, loss: Loss) {
        state.disturbed = true;
        match loss {
            Loss::Evict(item) => {
                state.left.evictions -= 1;
                state.store.lose(item);
            }
            Loss::Flush(server) => {
                state.left.flushes -= 1;
                self.wipe(state, server);
            }
        }
    }

    fn wipe(&self, state: &mut State, server: usize) {
        for item in self.all_items().into_iter().filter(|item| self.server_of(*item) == server) {
            state.store.lose(item);
        }
    }

    /// Loses the items, the connections, and what was on its way; the versions begin anew.
    pub(crate) fn restart(&self, state: &mut State, server: usize) {
        state.left.restarts -= 1;
        state.disturbed = true;
        self.wipe(state, server);
        state.strays.retain(|stray| self.server_of(stray[0].item()) != server);
        for call in state.processes.iter_mut().flat_map(|process| process.calls.iter_mut().flatten()) {
            if let Some(command) = call.next_command()
                && self.server_of(command.item()) == server
            {
                call.failed = true;
                call.sent.clear();
                call.replies.clear();
            }
        }
        for item in self.all_items().into_iter().filter(|item| self.server_of(*item) == server) {
            state.store.forget_versions(item);
        }
        if self.rules.r8_own_connection {
            let void = |name, number: &mut u8| {
                if let Name::Cas(item) = name
                    && self.server_of(item) == server
                {
                    *number = VOID.0;
                }
            };
            numbers::names(state, &mut { void });
        }
    }

    pub(crate) fn crash(&self, state: &mut State, process: usize) {
        state.left.crashes -= 1;
        state.disturbed = true;
        let cut = state.processes[process].cut;
        let crashed = std::mem::replace(&mut state.processes[process], Process { cut, ..Process::default() });
        for call in crashed.calls.into_iter().flatten() {
            state.stray(call.sent.get(call.replies.len()..).unwrap_or_default().to_vec());
        }
    }
}
