//! Random operations and faults against a plain model: whatever the store loses, and whenever, nothing old is alive again.

use std::collections::HashMap;
use std::time::Duration;

use larder::{Added, EntryOptions, InMemoryRemote, Write};
use proptest::prelude::*;

use super::gate::Gate;
use super::{Pages, own, process};
use crate::support::eventually;

const KEYS: [&str; 3] = ["a", "b", "a key that is digested"];
const GROUPS: [&str; 2] = ["g", "h"];

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert {
        key: usize,
        groups: u8,
    },
    Add {
        key: usize,
    },
    Load {
        key: usize,
        groups: u8,
    },
    Get {
        key: usize,
    },
    GetMany,
    Remove {
        key: usize,
    },
    Expire {
        key: usize,
    },
    Invalidate {
        group: usize,
    },
    ExpireGroup {
        group: usize,
    },
    ClearCache,
    ClearNamespace,
    /// Another process reads.
    Elsewhere {
        key: usize,
    },
    /// Another process loads the value that is current.
    LoadElsewhere {
        key: usize,
        groups: u8,
    },
    Evict {
        item: usize,
    },
    Flush,
    Restart,
    Offline(bool),
    Fail(u64),
    LoseReplies(u64),
}

fn ops() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS.len();
    let group = || 0..GROUPS.len();
    prop_oneof![
        3 => (key(), 0..4_u8).prop_map(|(key, groups)| Op::Insert { key, groups }),
        2 => key().prop_map(|key| Op::Add { key }),
        4 => (key(), 0..4_u8).prop_map(|(key, groups)| Op::Load { key, groups }),
        4 => key().prop_map(|key| Op::Get { key }),
        1 => Just(Op::GetMany),
        2 => key().prop_map(|key| Op::Remove { key }),
        1 => key().prop_map(|key| Op::Expire { key }),
        2 => group().prop_map(|group| Op::Invalidate { group }),
        1 => group().prop_map(|group| Op::ExpireGroup { group }),
        1 => Just(Op::ClearCache),
        1 => Just(Op::ClearNamespace),
        3 => key().prop_map(|key| Op::Elsewhere { key }),
        2 => (key(), 0..4_u8).prop_map(|(key, groups)| Op::LoadElsewhere { key, groups }),
        3 => (0..16_usize).prop_map(|item| Op::Evict { item }),
        1 => Just(Op::Flush),
        1 => Just(Op::Restart),
        2 => any::<bool>().prop_map(Op::Offline),
        1 => (0..4_u64).prop_map(Op::Fail),
        2 => (0..4_u64).prop_map(Op::LoseReplies),
    ]
}

fn names(groups: u8) -> Vec<&'static str> {
    (0..GROUPS.len()).filter(|at| groups >> at & 1 == 1).map(|at| GROUPS[at]).collect()
}

/// A value that some process may still serve.
#[derive(Clone, Debug)]
struct Alive {
    value: String,
    groups: Vec<&'static str>,
}

struct World {
    memory: InMemoryRemote,
    gate: Gate,
    mine: Pages,
    others: Pages,
    /// What this process may find under a key: one value at most.
    here: HashMap<usize, Vec<Alive>>,
    /// What the others may find: also what this process has invalidated, until the store has acknowledged it.
    there: HashMap<usize, Vec<Alive>>,
    last: u64,
}

impl World {
    fn new(capacity: u64) -> World {
        let memory = InMemoryRemote::new();
        let gate = Gate::new(memory.clone());
        // A lease that could not be given back is waited for; that is not what this is about.
        let patience = Duration::from_millis(2);
        let mine = process("model", gate.clone(), |pages| pages.capacity(capacity).load_wait(patience));
        let others = process("model", gate.clone(), |pages| pages.capacity(0).load_wait(patience));
        World { memory, gate, mine, others, here: HashMap::new(), there: HashMap::new(), last: 0 }
    }

    fn fresh(&mut self) -> String {
        self.last += 1;
        self.last.to_string()
    }

    fn born(&mut self, key: usize, value: &str, groups: u8) {
        let alive = Alive { value: own(value), groups: names(groups) };
        self.here.entry(key).or_default().push(alive.clone());
        self.there.entry(key).or_default().push(alive);
    }

    /// Takes out of both worlds what an invalidation reaches; out of the others' only once the store knows.
    fn kill(&mut self, acknowledged: bool, reached: impl Fn(usize, &Alive) -> bool) {
        for (world, holds) in [(&mut self.here, true), (&mut self.there, acknowledged)] {
            for (&key, values) in world.iter_mut().filter(|_| holds) {
                values.retain(|value| !reached(key, value));
            }
        }
    }

    fn check(&self, key: usize, found: Option<&str>, mine: bool) {
        let known = if mine { self.here.get(&key) } else { self.there.get(&key) };
        let may = |value: &str| known.is_some_and(|known| known.iter().any(|alive| alive.value == value));
        assert!(found.is_none_or(may), "key {key}, mine {mine}: {found:?} of {known:?}");
    }

    fn load(&mut self, pages: &Pages, key: usize, groups: u8, mine: bool) {
        let value = self.fresh();
        let mut ran = false;
        let found = pages
            .get_or_load(KEYS[key], |load| {
                ran = true;
                load.groups(names(groups));
                Ok::<_, ()>(value.clone())
            })
            .unwrap();
        if ran {
            assert_eq!(found, value);
            // A load replaces what was there only where it is stored: the older value may come back, and is as good.
            self.born(key, &value, groups);
        } else {
            self.check(key, Some(&found), mine);
        }
    }

    fn apply(&mut self, op: Op) {
        let (mine, others) = (self.mine.clone(), self.others.clone());
        match op {
            Op::Insert { key, groups } => {
                let value = self.fresh();
                // A bump that is paid late takes along what was written before.
                let nothing_owed = mine.namespace().owed() == 0;
                let options = EntryOptions::new().groups(names(groups));
                let written = mine.insert_with(own(KEYS[key]), value.clone(), options);
                let through = matches!(written, Write::Through | Write::RemoteOnly(_));
                self.kill(through, |at, _| at == key);
                self.born(key, &value, groups);
                if through && nothing_owed && self.calm() {
                    assert_eq!(mine.get(KEYS[key]), Some(value));
                }
            }
            Op::Add { key } => {
                let value = self.fresh();
                if let Added::Stored(written) = mine.add(own(KEYS[key]), value.clone()) {
                    // What it could not find out about is to be deleted.
                    let through = matches!(written, Write::Through | Write::RemoteOnly(_));
                    self.kill(through, |at, _| at == key);
                    self.born(key, &value, 0);
                }
            }
            Op::Load { key, groups } => self.load(&mine, key, groups, true),
            // Within the bound, another process answers by what it knew at its last look at the journal.
            Op::LoadElsewhere { .. } | Op::Elsewhere { .. } if others.namespace().poll_now().is_err() => {}
            Op::LoadElsewhere { key, groups } => self.load(&others, key, groups, false),
            Op::Get { key } => self.check(key, mine.get(KEYS[key]).as_deref(), true),
            Op::GetMany => {
                for (key, found) in mine.get_many(KEYS).into_iter().enumerate() {
                    self.check(key, found.as_deref(), true);
                }
            }
            Op::Elsewhere { key } => self.check(key, others.get(KEYS[key]).as_deref(), false),
            Op::Remove { key } => {
                let done = mine.remove(KEYS[key]).is_acknowledged();
                self.kill(done, |at, _| at == key);
            }
            Op::Expire { key } => drop(mine.expire(KEYS[key])),
            Op::Invalidate { group } => {
                let done = mine.invalidate_group(GROUPS[group]).is_acknowledged();
                self.kill(done, |_, value| value.groups.contains(&GROUPS[group]));
            }
            Op::ExpireGroup { group } => drop(mine.expire_group(GROUPS[group])),
            Op::ClearCache => {
                let done = mine.clear().is_acknowledged();
                self.kill(done, |_, _| true);
            }
            Op::ClearNamespace => {
                let done = mine.namespace().clear().is_acknowledged();
                self.kill(done, |_, _| true);
            }
            Op::Evict { item } => {
                let keys = self.gate.keys();
                if !keys.is_empty() {
                    self.memory.evict(&keys[item % keys.len()]);
                }
            }
            Op::Flush => self.memory.flush(),
            Op::Restart => self.memory.restart(),
            Op::Offline(offline) => self.memory.offline(offline),
            Op::Fail(commands) => self.memory.fail_next(commands),
            Op::LoseReplies(commands) => self.memory.lose_replies(commands),
        }
        if self.mine.namespace().owed() == 0 {
            // The store has acknowledged all that this process has done: the others find no more than it does.
            self.there = self.here.clone();
        }
    }

    /// Returns whether nothing is owed, so that what was just written is to be found.
    fn calm(&self) -> bool {
        self.mine.namespace().owed() == 0 && !self.is_faulty()
    }

    fn is_faulty(&self) -> bool {
        // The store in memory does not say; a command that changes nothing does.
        let probe = larder::WireKey::new("probe").unwrap();
        let get = larder::Action::Get { value: false, lease: None, touch: None };
        let command = larder::Command { key: &probe, route: larder::Route::ByKey, action: get };
        let limit = Duration::from_secs(1);
        !matches!(larder::RemoteTier::run(&self.memory, &[command], limit).as_slice(), [Ok(larder::Reply::Miss)])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_old_is_alive_again_whatever_the_store_loses(
        capacity in prop_oneof![Just(0_u64), Just(1), Just(2), Just(1_000)],
        ops in proptest::collection::vec(ops(), 1..80),
    ) {
        let mut world = World::new(capacity);
        for op in ops {
            world.apply(op);
        }
        // When the store is back and all is paid, both find the same, or nothing.
        world.memory.offline(false);
        world.memory.fail_next(0);
        world.memory.lose_replies(0);
        eventually("all to be paid", || (world.mine.namespace().owed() == 0).then_some(()));
        for key in 0..KEYS.len() {
            world.apply(Op::Elsewhere { key });
            world.apply(Op::Load { key, groups: 0 });
        }
    }
}
