//! Operations on a cache against a model of it: a map that knows when each value is stale and dead, and what it weighs. What
//! the cache evicts, it has to tell its listener.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Cache, CallOptions, Claim, Clock, EntryOptions, Fill, Groups, LoadErrorKind, Lookup, ManualClock, RemovalCause,
};

use crate::input::Input;

const KEYS: u8 = 6;
const GROUPS: [&str; 3] = ["a", "b", "a name that is longer than what needs no allocation"];

/// The operations of one input, beyond which a longer one does nothing new.
const MAX_STEPS: usize = 400;

type Removals = Arc<Mutex<Vec<(u8, u64, RemovalCause)>>>;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut scene = Scene::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        scene.step(&mut input);
        scene.reconcile();
        scene.check();
    }
    scene.finish();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Stale,
    Dead,
}

/// A value that was stored, alive or dead.
#[derive(Clone, Debug)]
struct Known {
    value: u64,
    soft: u64,
    hard: u64,
    /// A bit for each.
    groups: u8,
    weight: u64,
    expired: bool,
    killed: bool,
    /// Whether it came before a clear, so that it is not counted.
    cleared: bool,
}

/// A claim that is held, or a load under way.
struct Ticket {
    key: u8,
    stands: bool,
    /// The groups of the value that it replaces.
    suspects: u8,
    /// The groups bumped since it was taken, and whether the cache was cleared.
    bumped: u8,
    cleared: bool,
}

/// What one entry asks for.
#[derive(Clone, Debug, Default)]
struct Options {
    ttl: Option<Duration>,
    soft: Option<Duration>,
    hard: Option<Duration>,
    never: bool,
    weight: Option<u64>,
    groups: u8,
}

/// What every entry gets that asks for nothing.
#[derive(Clone, Copy, Default)]
struct Defaults {
    ttl: Option<u64>,
    soft: Option<u64>,
    hard: Option<u64>,
    weighs: bool,
}

/// How many times as long as the soft deadline the hard one is, where nothing else is said.
const FACTOR: u32 = 8;

struct Scene {
    cache: Cache<u8, u64, BuildHasherDefault<DefaultHasher>>,
    groups: Groups,
    time: ManualClock,
    removals: Removals,
    defaults: Defaults,
    claims: BTreeMap<u64, Claim<u8, u64>>,
    now: u64,
    capacity: u64,
    last: u64,
    entries: BTreeMap<u8, Known>,
    tickets: HashMap<u64, Ticket>,
    /// What this step has taken out, and why.
    left: Vec<(u8, Known, RemovalCause)>,
    /// Whether this step may have evicted anything.
    pressed: bool,
}

fn weigh(value: u64) -> u64 {
    value % 4
}

fn ms(interval: Option<Duration>) -> u64 {
    interval.map_or(u64::MAX, |interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
}

impl Known {
    fn state(&self, now: u64) -> State {
        if self.killed || now >= self.hard {
            State::Dead
        } else if self.expired || now >= self.soft {
            State::Stale
        } else {
            State::Fresh
        }
    }
}

impl Options {
    fn read(input: &mut Input<'_>) -> Options {
        let asks = input.u8();
        let mut span = |bit: u8| {
            let longest = Duration::MAX;
            let some = (asks >> bit & 1 == 1).then(|| input.u8());
            some.map(|ms| if ms == u8::MAX { longest } else { Duration::from_millis(ms.into()) })
        };
        let (ttl, soft, hard) = (span(0), span(1), span(2));
        let never = asks >> 3 & 3 == 3;
        let weight = (asks >> 5 & 1 == 1).then(|| input.one_of(&[0, 1, 2, 5, 20, u64::MAX]));
        let groups = if asks >> 6 & 1 == 1 { input.u8() & 7 } else { 0 };
        Options { ttl, soft, hard, never, weight, groups }
    }

    fn entry(&self) -> EntryOptions {
        let mut entry = EntryOptions::new().groups(names(self.groups));
        if let Some(soft) = self.soft {
            entry = entry.soft_ttl(soft);
        }
        if let Some(hard) = self.hard {
            entry = entry.hard_ttl(hard);
        }
        if let Some(ttl) = self.ttl {
            entry = entry.ttl(ttl);
        }
        if self.never {
            entry = entry.never_expires();
        }
        if let Some(weight) = self.weight {
            entry = entry.weight(weight);
        }
        entry
    }
}

fn names(groups: u8) -> impl Iterator<Item = &'static str> {
    GROUPS.iter().enumerate().filter(move |(at, _)| groups >> at & 1 == 1).map(|(_, name)| *name)
}

impl Scene {
    fn new(input: &mut Input<'_>) -> Scene {
        let capacity = input.one_of(&[4, 1, 2, 12, 40, 1_000]);
        let shards = input.one_of(&[1, 2, 8]);
        let setup = input.u8();
        let (ttl, soft, hard) = match setup % 5 {
            0 => (None, None, None),
            1 => (Some(80), None, None),
            2 => (None, Some(20), None),
            3 => (None, Some(20), Some(50)),
            _ => (None, None, Some(50)),
        };
        let defaults = Defaults { ttl, soft, hard, weighs: setup >= 128 };
        let (clock, time) = Clock::manual();
        let (groups, removals) = (Groups::new(), Removals::default());
        let log = removals.clone();
        let mut builder = Cache::builder()
            .capacity(capacity)
            .shards(shards)
            .hasher(BuildHasherDefault::default())
            .clock(clock)
            .groups(groups.clone())
            .grace(Duration::MAX)
            .load_wait(Duration::ZERO)
            .on_removal(move |key: &u8, value: &u64, cause| log.lock().unwrap().push((*key, *value, cause)));
        if let Some(ttl) = ttl {
            builder = builder.ttl(Duration::from_millis(ttl));
        }
        if let Some(soft) = soft {
            builder = builder.soft_ttl(Duration::from_millis(soft));
        }
        if let Some(hard) = hard {
            builder = builder.hard_ttl(Duration::from_millis(hard));
        }
        if defaults.weighs {
            builder = builder.weigher(|_, value| weigh(*value));
        }
        Scene {
            cache: builder.build().expect("the settings agree"),
            groups,
            time,
            removals,
            defaults,
            claims: BTreeMap::new(),
            now: 0,
            capacity,
            last: 0,
            entries: BTreeMap::new(),
            tickets: HashMap::new(),
            left: Vec::new(),
            pressed: false,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (what, key) = (input.below(20), input.u8() % KEYS);
        match what {
            0 | 1 => self.insert(key, &Options::default()),
            2 | 3 => self.insert(key, &Options::read(input)),
            4 => assert_eq!(self.cache.get(&key), self.alive(key)),
            5 => self.add(key, &Options::read(input)),
            6 => self.remove(key),
            7 => self.expire(key),
            8 => self.update(key),
            9 | 10 => self.bump(input.below(GROUPS.len()), what == 9),
            11 => self.clear(),
            12 => self.advance(input.u8()),
            13 => self.set_capacity(input.one_of(&[4, 0, 1, 2, 12, 40, u64::MAX])),
            14 | 15 => self.look(key),
            16 => self.fill(input),
            17 => drop(self.take_claim(input.u8())),
            18 => self.load(key, input),
            _ => {
                self.cache.run_maintenance();
                let now = self.now;
                let (live, dead) = std::mem::take(&mut self.entries)
                    .into_iter()
                    .partition(|(_, known)| known.state(now) != State::Dead);
                self.entries = live;
                for (key, known) in dead {
                    self.leave(key, known, RemovalCause::Invalidated);
                }
            }
        }
    }

    fn alive(&self, key: u8) -> Option<u64> {
        let known = self.entries.get(&key)?;
        (known.state(self.now) != State::Dead).then_some(known.value)
    }

    fn new_value(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// What the model expects of a value that is stored now.
    fn known(&self, value: u64, options: &Options) -> Known {
        let Defaults { ttl, soft, hard, weighs } = self.defaults;
        let default = |interval: Option<u64>| interval.map(Duration::from_millis);
        let own_hard = default(ttl.or(hard)).or(default(soft).map(|soft| soft * FACTOR));
        let (soft, hard) = if options.never {
            (None, None)
        } else if let Some(ttl) = options.ttl {
            (None, Some(ttl))
        } else {
            match (options.soft, options.hard) {
                (Some(soft), None) => (Some(soft), Some(soft.saturating_mul(FACTOR))),
                (soft, hard) => (soft.or(default(self.defaults.soft)), hard.or(own_hard)),
            }
        };
        let at = |interval| self.now.saturating_add(ms(interval));
        let usual = if weighs { weigh(value) } else { 1 };
        Known {
            value,
            soft: at(soft).min(at(hard)),
            hard: at(hard),
            groups: options.groups,
            weight: options.weight.unwrap_or(usual).max(1),
            expired: false,
            killed: false,
            cleared: false,
        }
    }

    fn leave(&mut self, key: u8, known: Known, cause: RemovalCause) {
        let cause = match known.state(self.now) {
            State::Dead if self.now >= known.hard => RemovalCause::Expired,
            State::Dead => RemovalCause::Invalidated,
            _ => cause,
        };
        self.left.push((key, known, cause));
    }

    fn take_out(&mut self, key: u8, cause: RemovalCause) {
        if let Some(known) = self.entries.remove(&key) {
            self.leave(key, known, cause);
        }
    }

    /// Stores a value in the place of what is there; returns whether it fits.
    fn store(&mut self, key: u8, known: Known) -> bool {
        self.take_out(key, RemovalCause::Replaced);
        if known.weight > self.capacity {
            return false;
        }
        let stored: u64 = self.entries.values().map(|known| known.weight).sum();
        self.pressed |= stored.checked_add(known.weight).is_none_or(|weight| weight > self.capacity);
        self.entries.insert(key, known);
        true
    }

    /// A change of the key takes its ticket away.
    fn void(&mut self, key: u8) {
        self.tickets.values_mut().filter(|ticket| ticket.key == key).for_each(|ticket| ticket.stands = false);
    }

    fn is_active(&self, key: u8) -> bool {
        let mut standing = self.tickets.values().filter(|ticket| ticket.key == key && ticket.stands);
        standing.any(|ticket| !ticket.cleared && ticket.suspects & ticket.bumped == 0)
    }

    fn ticket(&mut self, key: u8) -> u64 {
        self.void(key);
        let id = self.new_value();
        let suspects = self.entries.get(&key).map_or(0, |known| known.groups);
        self.tickets.insert(id, Ticket { key, stands: true, suspects, bumped: 0, cleared: false });
        id
    }

    fn insert(&mut self, key: u8, options: &Options) {
        let value = self.new_value();
        let known = self.known(value, options);
        let weight = known.weight;
        self.void(key);
        let fits = self.store(key, known);
        let stored = self.cache.insert_with(key, value, options.entry());
        assert_eq!(stored.is_ok(), fits);
        if let Err(rejected) = stored {
            assert_eq!((rejected.weight, rejected.capacity), (weight, self.capacity));
        }
    }

    fn add(&mut self, key: u8, options: &Options) {
        let value = self.new_value();
        let added = self.cache.add_with(key, value, options.entry());
        if self.alive(key).is_some() {
            assert_eq!(added, Ok(false));
            return;
        }
        self.void(key);
        let known = self.known(value, options);
        let fits = self.store(key, known);
        assert_eq!(added.ok(), fits.then_some(true));
    }

    fn remove(&mut self, key: u8) {
        assert_eq!(self.cache.remove(&key), self.alive(key));
        self.void(key);
        self.take_out(key, RemovalCause::Removed);
    }

    fn expire(&mut self, key: u8) {
        let is_alive = self.alive(key).is_some();
        assert_eq!(self.cache.expire(&key), is_alive);
        self.void(key);
        if is_alive && let Some(known) = self.entries.get_mut(&key) {
            known.expired = true;
        }
    }

    fn update(&mut self, key: u8) {
        let value = self.new_value();
        let updated = self.cache.update(&key, |_| value);
        let Some(old) = self.alive(key) else {
            assert_eq!(updated, None);
            return;
        };
        let mut known = self.entries[&key].clone();
        if updated.is_none() {
            // To make room for a heavier value, the cache has evicted the very entry that was to be updated.
            assert!(self.removals.lock().unwrap().contains(&(key, old, RemovalCause::Evicted)));
            self.pressed = true;
            return;
        }
        assert_eq!(updated, Some(value));
        self.void(key);
        known.value = value;
        if self.defaults.weighs {
            known.weight = weigh(value).max(1);
        }
        self.store(key, known);
    }

    fn bump(&mut self, group: usize, kills: bool) {
        if self.now.is_multiple_of(2) {
            let bump = if kills { Groups::invalidate } else { Groups::expire };
            bump(&self.groups, GROUPS[group]);
        } else {
            let bump = if kills { Cache::invalidate_group } else { Cache::expire_group };
            bump(&self.cache, GROUPS[group]);
        }
        let bit = 1 << group;
        for known in self.entries.values_mut().filter(|known| known.groups & bit != 0) {
            known.killed |= kills;
            known.expired = true;
        }
        self.tickets.values_mut().for_each(|ticket| ticket.bumped |= bit);
    }

    fn clear(&mut self) {
        self.cache.clear();
        self.entries.values_mut().for_each(|known| (known.killed, known.cleared) = (true, true));
        self.tickets.values_mut().for_each(|ticket| ticket.cleared = true);
    }

    fn advance(&mut self, by: u8) {
        // Small steps meet deadlines, large ones pass many.
        let by = if by >= 240 { u64::from(by) * 1_000 } else { u64::from(by % 64) };
        self.time.advance(Duration::from_millis(by));
        self.now += by;
    }

    fn set_capacity(&mut self, capacity: u64) {
        self.cache.set_capacity(capacity);
        self.capacity = capacity;
        self.pressed |= self.entries.values().map(|known| known.weight).sum::<u64>() > capacity;
    }

    fn look(&mut self, key: u8) {
        let state = self.entries.get(&key).map_or(State::Dead, |known| known.state(self.now));
        let (value, is_active) = (self.alive(key), self.is_active(key));
        let claim = match self.cache.lookup(&key) {
            Lookup::Fresh(found) => {
                assert_eq!((state, Some(found)), (State::Fresh, value));
                None
            }
            Lookup::Stale { value: found, claim } => {
                assert_eq!((state, Some(found), claim.is_some()), (State::Stale, value, !is_active));
                claim
            }
            Lookup::Vacant(claim) => {
                assert_eq!((state, is_active), (State::Dead, false));
                Some(claim)
            }
            Lookup::Busy => {
                assert_eq!((state, is_active), (State::Dead, true));
                None
            }
        };
        if let Some(claim) = claim {
            assert_eq!((claim.key(), claim.stale().copied()), (&key, value));
            let id = self.ticket(key);
            self.claims.insert(id, claim);
        }
    }

    /// Takes one of the claims out of both worlds.
    fn take_claim(&mut self, number: u8) -> Option<(Ticket, Claim<u8, u64>)> {
        let at = usize::from(number) % self.claims.len().max(1);
        let id = *self.claims.keys().nth(at)?;
        Some((self.tickets.remove(&id)?, self.claims.remove(&id)?))
    }

    fn fill(&mut self, input: &mut Input<'_>) {
        let Some((ticket, claim)) = self.take_claim(input.u8()) else { return };
        let options = Options::read(input);
        let value = self.new_value();
        let known = self.known(value, &options);
        let weight = known.weight;
        match claim.fill_with(value, options.entry()) {
            Fill::Stored => {
                self.assert_fenced(&ticket, options.groups, false);
                assert!(self.store(ticket.key, known), "it weighs {weight}");
            }
            Fill::Rejected(back) => {
                assert_eq!(back, value);
                self.assert_fenced(&ticket, options.groups, false);
                assert!(!self.store(ticket.key, known), "it weighs {weight}");
            }
            Fill::Fenced(back) => {
                assert_eq!(back, value);
                self.assert_fenced(&ticket, options.groups, true);
            }
        }
    }

    /// Checks whether a fill by this ticket had to be refused, or might be.
    fn assert_fenced(&self, ticket: &Ticket, groups: u8, fenced: bool) {
        let must = !ticket.stands || ticket.cleared || groups & ticket.bumped != 0;
        // Groups that come into being share floors: a bump of one may fence a fill that names another.
        let may = groups != 0 && ticket.bumped != 0;
        assert!(fenced == must || (fenced && may), "fenced: {fenced}, and had to be: {must}");
    }

    fn load(&mut self, key: u8, input: &mut Input<'_>) {
        // A claim that is held would be waited for in vain.
        let held: Vec<u64> = self.claims.keys().filter(|id| self.tickets[id].key == key).copied().collect();
        for id in held {
            drop((self.claims.remove(&id), self.tickets.remove(&id)));
        }
        let (meanwhile, fails, names_first) = (input.below(8), input.rarely(6), input.rarely(2));
        let group = input.below(GROUPS.len());
        let options = Options { groups: input.u8() & 7, soft: None, ..Options::default() };
        let state = self.entries.get(&key).map_or(State::Dead, |known| known.state(self.now));
        let before = self.alive(key);
        let value = self.new_value();
        let cache = self.cache.clone();
        let mut loaded = None;
        let answer = cache.get_or_load(&key, |load| {
            assert_eq!(load.stale().copied(), before);
            let id = self.ticket(key);
            if names_first {
                load.groups(names(options.groups));
            }
            match meanwhile {
                0 => self.insert(key, &Options::default()),
                1 => self.remove(key),
                2 => self.bump(group, true),
                3 => self.bump(group, false),
                4 => self.clear(),
                5 => self.advance(30),
                _ => {}
            }
            if !names_first {
                load.groups(names(options.groups));
            }
            loaded = self.tickets.remove(&id);
            if fails { Err(()) } else { Ok(value) }
        });
        let Some(ticket) = loaded else {
            assert_eq!((answer.ok(), state), (before, State::Fresh));
            return;
        };
        assert_ne!(state, State::Fresh, "nothing was to be loaded");
        if fails {
            assert_eq!(answer.map_err(|error| error.kind()), Err(LoadErrorKind::Loader));
            return;
        }
        assert_eq!(answer.ok(), Some(value));
        let stored = cache.peek(&key) == Some(value);
        let known = self.known(value, &options);
        if stored {
            self.assert_fenced(&ticket, options.groups, false);
            assert!(self.store(key, known));
        } else if known.weight > self.capacity && ticket.stands && !ticket.cleared {
            // Too heavy for the cache, which takes out what was there, or fenced by a group, which leaves it.
            let old = self.entries.get(&key).map(|known| known.value);
            if self.removals.lock().unwrap().iter().any(|(left, value, _)| *left == key && Some(*value) == old) {
                self.take_out(key, RemovalCause::Replaced);
            }
        } else if !self.removals.lock().unwrap().contains(&(key, value, RemovalCause::Evicted)) {
            self.assert_fenced(&ticket, options.groups, true);
        } else {
            // It was stored, and made room at once.
            self.store(key, known);
        }
    }

    /// Matches what the listener was told with what the model says has left, and takes over what was reclaimed or evicted.
    fn reconcile(&mut self) {
        let mut left = std::mem::take(&mut self.left);
        let pressed = std::mem::take(&mut self.pressed);
        for (key, value, cause) in std::mem::take(&mut *self.removals.lock().unwrap()) {
            let expected = left.iter().position(|(left, known, expected)| {
                let was_dead = matches!(expected, RemovalCause::Expired | RemovalCause::Invalidated);
                let pressed_out = pressed && cause == RemovalCause::Evicted && !was_dead;
                (*left, known.value) == (key, value) && (*expected == cause || pressed_out)
            });
            if let Some(at) = expected {
                left.swap_remove(at);
                continue;
            }
            let known = self.entries.remove(&key);
            let known = known.unwrap_or_else(|| panic!("{key} left twice, or was never there ({cause:?} {value})"));
            assert_eq!(known.value, value, "{key} left, but had another value");
            match known.state(self.now) {
                State::Dead if self.now >= known.hard => assert_eq!(cause, RemovalCause::Expired),
                State::Dead => assert_eq!(cause, RemovalCause::Invalidated),
                _ => assert!(pressed && cause == RemovalCause::Evicted, "{key} left for no reason: {cause:?}"),
            }
        }
        assert!(left.is_empty(), "the listener was not told of {left:?}");
    }

    fn check(&self) {
        let counted = || self.entries.values().filter(|known| !known.cleared);
        assert_eq!(self.cache.len(), counted().count());
        assert_eq!(self.cache.weight(), counted().map(|known| known.weight).sum::<u64>());
        assert!(self.entries.values().map(|known| known.weight).sum::<u64>() <= self.capacity);
        assert_eq!(self.cache.capacity(), self.capacity);
        for key in 0..KEYS {
            let alive = self.alive(key);
            assert_eq!(self.cache.peek(&key), alive);
            assert_eq!(self.cache.contains(&key), alive.is_some());
            let options = CallOptions::new().read_only();
            let read = self.cache.get_or_load_with(&key, options, |_| Ok::<_, Infallible>(0));
            assert_eq!(read.ok(), alive);
            if let Some(info) = self.cache.inspect(&key) {
                let known = &self.entries[&key];
                let left = (known.hard != u64::MAX).then(|| Duration::from_millis(known.hard - self.now));
                assert_eq!((info.weight, info.hard_in), (known.weight, left));
            }
        }
        let alive = (0..KEYS).filter_map(|key| Some((key, self.alive(key)?)));
        assert_eq!(self.cache.iter().collect::<BTreeMap<_, _>>(), alive.collect());
    }

    fn finish(mut self) {
        self.claims.clear();
        self.cache.clear();
        self.cache.run_maintenance();
        assert_eq!((self.cache.len(), self.cache.weight(), self.groups.len()), (0, 0, 0), "something stays behind");
        let told = self.removals.lock().unwrap().len();
        assert_eq!(told, self.entries.len());
    }
}
