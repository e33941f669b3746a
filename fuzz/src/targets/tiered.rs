//! Operations of two processes on one store that fails, forgets and garbles, while time passes: nothing that was replaced,
//! removed or invalidated is alive again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Action, Added, Clock, Command, EntryOptions, Expiry, InMemoryRemote, ManualClock, Namespace, RawBytes, RemoteError,
    RemoteErrorKind, RemoteTier, Reply, Route, SetMode, TieredCache, WireKey, Write,
};

use crate::input::Input;

const KEYS: [&str; 3] = ["a", "b", "a key that is digested"];
const GROUPS: [&str; 2] = ["g", "h"];

/// Longer than any input takes: what waits so long by a manual clock happens only where the input moves that.
const HOUR: Duration = Duration::from_secs(3_600);

/// How long a lease that nobody can give back is waited for. That is not what this is about.
const PATIENCE: Duration = Duration::from_millis(1);

/// The operations of one input, beyond which a longer one does nothing new.
const MAX_STEPS: usize = 100;

/// How far time passes at once: never as far as anything is old, past the soft deadline, past trust as well, and past the hard
/// deadline.
const PASSES: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_secs(3_601), Duration::from_secs(7_201), Duration::from_secs(9 * 3_600)];

type Pages = TieredCache<String, String>;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.one_of(&[1_000, 0, 1, 2]));
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.memory.offline(false);
    world.memory.fail_next(0);
    world.memory.lose_replies(0);
    for key in 0..KEYS.len() {
        world.read_elsewhere(key);
        world.load(key, 0, true);
    }
}

/// A store that knows which items it has been asked for.
#[derive(Clone)]
struct Noting {
    memory: InMemoryRemote,
    keys: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

impl RemoteTier for Noting {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        self.keys.lock().unwrap().extend(batch.iter().map(|command| command.key.as_bytes().to_vec()));
        self.memory.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.memory.max_value_len()
    }

    /// The thread that follows the journal never reaches it: what it found, and when, would be chance.
    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        Some(Box::new(Nowhere))
    }
}

/// A store that is never there.
struct Nowhere;

impl RemoteTier for Nowhere {
    fn run(&self, batch: &[Command<'_>], _timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        vec![Err(RemoteError::new(RemoteErrorKind::Unavailable, "nobody is there")); batch.len()]
    }

    fn max_value_len(&self) -> usize {
        0
    }
}

/// A value that some process may still serve.
#[derive(Clone, Debug)]
struct Alive {
    value: String,
    groups: usize,
}

struct World {
    time: ManualClock,
    /// Whether any time has passed: from then on threads of the namespaces pay debts beside what the input does.
    has_passed: bool,
    memory: InMemoryRemote,
    store: Noting,
    mine: Pages,
    others: Pages,
    /// What this process may find under a key.
    here: HashMap<usize, Vec<Alive>>,
    /// What the others may find: also what this process has invalidated, until the store has acknowledged it.
    there: HashMap<usize, Vec<Alive>>,
    last: u64,
}

fn process(store: &Noting, capacity: u64, clock: &Clock) -> Pages {
    let namespace = Namespace::builder("model", store.clone()).poll_interval(HOUR).trust(2 * HOUR).clock(clock.clone());
    let namespace = namespace.build().expect("a namespace");
    let builder = TieredCache::builder(&namespace, "pages").capacity(capacity).soft_ttl(HOUR).codec(RawBytes);
    let pages = builder.load_wait(PATIENCE).build().expect("a cache");
    namespace.poll_now().expect("the store answers");
    pages
}

fn names(groups: usize) -> Vec<&'static str> {
    (0..GROUPS.len()).filter(|at| groups >> at & 1 == 1).map(|at| GROUPS[at]).collect()
}

fn is_through(written: &Write) -> bool {
    matches!(written, Write::Through | Write::RemoteOnly(_))
}

impl World {
    fn new(capacity: u64) -> World {
        let (clock, time) = Clock::manual();
        let memory = InMemoryRemote::new().with_clock(clock.clone());
        let store = Noting { memory: memory.clone(), keys: Arc::default() };
        let (mine, others) = (process(&store, capacity, &clock), process(&store, 0, &clock));
        World {
            time,
            has_passed: false,
            memory,
            store,
            mine,
            others,
            here: HashMap::new(),
            there: HashMap::new(),
            last: 0,
        }
    }

    fn fresh(&mut self) -> String {
        self.last += 1;
        self.last.to_string()
    }

    fn born(&mut self, key: usize, value: &str, groups: usize) {
        let alive = Alive { value: value.to_owned(), groups };
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

    fn load(&mut self, key: usize, groups: usize, mine: bool) {
        let pages = if mine { self.mine.clone() } else { self.others.clone() };
        let value = self.fresh();
        let mut ran = false;
        let found = pages.get_or_load(KEYS[key], |load| {
            ran = true;
            load.groups(names(groups));
            Ok::<_, ()>(value.clone())
        });
        let found = found.expect("the loader does not fail");
        if ran {
            assert_eq!(found, value);
            // A load replaces what was there only where it is stored: the older value may come back, and is as good.
            self.born(key, &value, groups);
        } else {
            self.check(key, Some(&found), mine);
        }
    }

    fn read_elsewhere(&mut self, key: usize) {
        // Within the bound, another process answers by what it knew at its last look at the journal.
        if self.others.namespace().poll_now().is_ok() {
            let found = self.others.get(KEYS[key]);
            self.check(key, found.as_deref(), false);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (what, key) = (input.below(24), input.below(KEYS.len()));
        let mine = self.mine.clone();
        match what {
            0 | 1 => {
                let (value, groups) = (self.fresh(), input.below(4));
                // A bump that is paid late takes along what was written before.
                let nothing_owed = mine.namespace().owed() == 0;
                let options = EntryOptions::new().groups(names(groups));
                let through = is_through(&mine.insert_with(KEYS[key].to_owned(), value.clone(), options));
                self.kill(through, |at, _| at == key);
                self.born(key, &value, groups);
                // Whoever pays hears of a flush by that, and then takes along what has just been written with older tokens.
                let is_alone = nothing_owed && mine.namespace().owed() == 0 && !self.has_passed;
                if through && is_alone && self.is_well() {
                    assert_eq!(mine.get(KEYS[key]), Some(value));
                }
            }
            2 => {
                let value = self.fresh();
                if let Added::Stored(written) = mine.add(KEYS[key].to_owned(), value.clone()) {
                    self.kill(is_through(&written), |at, _| at == key);
                    self.born(key, &value, 0);
                }
            }
            3 | 4 => self.load(key, input.below(4), true),
            5 => {
                if self.others.namespace().poll_now().is_ok() {
                    self.load(key, input.below(4), false);
                }
            }
            6 => self.check(key, mine.get(KEYS[key]).as_deref(), true),
            7 => {
                for (key, found) in mine.get_many(KEYS).into_iter().enumerate() {
                    self.check(key, found.as_deref(), true);
                }
            }
            8 | 9 => self.read_elsewhere(key),
            10 => {
                let done = mine.remove(KEYS[key]).is_acknowledged();
                self.kill(done, |at, _| at == key);
            }
            11 => drop(mine.expire(KEYS[key])),
            12 => {
                let group = input.below(GROUPS.len());
                let done = mine.invalidate_group(GROUPS[group]).is_acknowledged();
                self.kill(done, |_, alive| alive.groups >> group & 1 == 1);
            }
            13 => drop(mine.expire_group(input.one_of(&GROUPS))),
            14 => {
                let done = mine.clear().is_acknowledged();
                self.kill(done, |_, _| true);
            }
            15 => {
                let done = mine.namespace().clear().is_acknowledged();
                self.kill(done, |_, _| true);
            }
            16 => drop(self.item(input).map(|item| self.memory.evict(&item))),
            17 => self.memory.flush(),
            18 => self.memory.restart(),
            19 => self.memory.offline(input.rarely(2)),
            20 => self.memory.fail_next(input.below(4) as u64),
            21 => self.memory.lose_replies(input.below(4) as u64),
            22 => {
                self.has_passed = true;
                self.time.advance(input.one_of(&PASSES));
            }
            _ => self.garble(input),
        }
        if mine.namespace().owed() == 0 {
            // The store has acknowledged all that this process has done: the others find no more than it does.
            self.there = self.here.clone();
        }
    }

    fn item(&self, input: &mut Input<'_>) -> Option<WireKey> {
        let keys = self.store.keys.lock().unwrap();
        let at = input.below(256) % keys.len().max(1);
        keys.iter().nth(at).map(|key| WireKey::new(key.as_slice()).expect("it was one"))
    }

    /// Puts something else in the place of an item: any bytes, or those of another item. A journal is never given the bytes of
    /// an older one, which would be the same journal without the latest news.
    fn garble(&self, input: &mut Input<'_>) {
        let Some(item) = self.item(input) else { return };
        let from = if input.rarely(2) { self.item(input) } else { None };
        let foreign = from.filter(|from| !from.as_bytes().ends_with(b":j")).and_then(|from| self.bytes_of(&from));
        let bytes = foreign.unwrap_or_else(|| input.chunk().to_vec());
        // A token that is another group's is any token; one that was this group's before would bring its values back.
        let set = Action::Set { value: &bytes, expiry: Expiry::Never, mode: SetMode::Always, cas: None };
        drop(self.memory.run(&[Command { key: &item, route: Route::ByKey, action: set }], HOUR));
    }

    fn bytes_of(&self, item: &WireKey) -> Option<Vec<u8>> {
        let get = Action::Get { value: true, lease: None, touch: None };
        match self.memory.run(&[Command { key: item, route: Route::ByKey, action: get }], HOUR).pop() {
            Some(Ok(Reply::Hit(item))) => Some(item.value.to_vec()),
            _ => None,
        }
    }

    /// Returns whether the store answers.
    fn is_well(&self) -> bool {
        let probe = WireKey::new("probe").expect("a key");
        let get = Action::Get { value: false, lease: None, touch: None };
        let command = Command { key: &probe, route: Route::ByKey, action: get };
        matches!(self.memory.run(&[command], HOUR).as_slice(), [Ok(Reply::Miss)])
    }
}
