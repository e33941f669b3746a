//! Random operations against a plain model: a map with deadlines, which knows groups by name and counts no generations.
//!
//! `LARDER_MODEL_CASES` sets how many sequences of operations each test runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Cache, Claim, Clock, EntryOptions, Fill, Groups, Load, LoadErrorKind, Lookup, ManualClock, RemovalCause};
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::scene::ms;

const KEYS: u32 = 6;
const GROUPS: [&str; 4] = ["a", "b", "c", "d"];

type Names = BTreeSet<usize>;

#[derive(Clone, Debug, Default)]
struct Options {
    ttl: Option<u64>,
    soft: Option<u64>,
    hard: Option<u64>,
    never: bool,
    grace: Option<u64>,
    weight: Option<u64>,
    groups: Names,
}

#[derive(Clone, Debug)]
enum Change {
    Insert(u32),
    Remove(u32),
    Expire(u32),
    Update(u32),
    Invalidate(usize),
    ExpireGroup(usize),
    Clear,
    Advance(u64),
}

#[derive(Clone, Debug)]
struct Loading {
    /// What happens while the loader runs, after it has named its groups if `named_first`, else before.
    during: Option<Change>,
    named_first: bool,
    options: Options,
    fails: bool,
    do_not_store: bool,
    not_modified: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Change(Change),
    Get(u32),
    GetMany(Vec<u32>),
    InsertWith(u32, Options),
    InsertMany(Vec<u32>),
    Add(u32),
    RemoveMany(Vec<u32>),
    RetainOdd,
    SetCapacity(u64),
    InvalidateMany(Vec<usize>),
    Lookup { key: u32, wait: bool },
    Fill(usize, Option<Options>),
    DropClaim(usize),
    ForgetClaim(usize),
    Extend(usize, u64),
    LoadClaim(usize, Loading, bool),
    GetOrInsert(u32),
    GetOrLoad(u32, Loading, u8),
    GetManyOrLoad { keys: Vec<u32>, leaves_out: Option<u32>, fails: bool, groups: Names, asynchronous: bool },
    Maintain,
}

fn key() -> impl Strategy<Value = u32> {
    0..KEYS
}

fn names() -> impl Strategy<Value = Names> {
    prop_oneof![
        3 => Just(Names::new()),
        3 => (0..GROUPS.len()).prop_map(|group| Names::from([group])),
        1 => prop::sample::subsequence(vec![0, 1, 2, 3], 2..4).prop_map(|groups| groups.into_iter().collect()),
    ]
}

fn options(ttls: bool) -> impl Strategy<Value = Options> {
    let span = || prop::option::weighted(0.25, 0..120_u64);
    let weight = prop::option::weighted(0.3, prop_oneof![9 => 0..5_u64, 1 => 5..20_u64]);
    let never = prop::bool::weighted(0.1);
    (span(), span(), span(), never, span(), weight, names()).prop_map(
        move |(ttl, soft, hard, never, grace, weight, groups)| {
            if ttls {
                Options { ttl, soft, hard, never, grace, weight, groups }
            } else {
                Options { soft, hard, weight, groups, ..Options::default() }
            }
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => key().prop_map(Change::Insert),
        2 => key().prop_map(Change::Remove),
        2 => key().prop_map(Change::Expire),
        2 => key().prop_map(Change::Update),
        3 => (0..GROUPS.len()).prop_map(Change::Invalidate),
        3 => (0..GROUPS.len()).prop_map(Change::ExpireGroup),
        1 => Just(Change::Clear),
        6 => (1..40_u64).prop_map(Change::Advance),
        1 => (100..1_000_u64).prop_map(Change::Advance),
    ]
}

fn loading() -> impl Strategy<Value = Loading> {
    let flag = |weight| prop::bool::weighted(weight);
    (prop::option::weighted(0.4, change()), any::<bool>(), options(false), flag(0.2), flag(0.1), flag(0.2)).prop_map(
        |(during, named_first, options, fails, do_not_store, not_modified)| Loading {
            during,
            named_first,
            options,
            fails,
            do_not_store,
            not_modified,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let keys = || prop::collection::vec(key(), 0..5);
    prop_oneof![
        12 => change().prop_map(Op::Change),
        6 => key().prop_map(Op::Get),
        1 => keys().prop_map(Op::GetMany),
        8 => (key(), options(true)).prop_map(|(key, options)| Op::InsertWith(key, options)),
        1 => keys().prop_map(Op::InsertMany),
        2 => key().prop_map(Op::Add),
        1 => keys().prop_map(Op::RemoveMany),
        1 => Just(Op::RetainOdd),
        1 => (0..12_u64).prop_map(Op::SetCapacity),
        1 => prop::collection::vec(0..GROUPS.len(), 0..3).prop_map(Op::InvalidateMany),
        8 => (key(), any::<bool>()).prop_map(|(key, wait)| Op::Lookup { key, wait }),
        5 => (0..8_usize, prop::option::of(options(true))).prop_map(|(claim, options)| Op::Fill(claim, options)),
        1 => (0..8_usize).prop_map(Op::DropClaim),
        1 => (0..8_usize).prop_map(Op::ForgetClaim),
        1 => (0..8_usize, 0..100_u64).prop_map(|(claim, grace)| Op::Extend(claim, grace)),
        3 => (0..8_usize, loading(), any::<bool>()).prop_map(|(claim, load, form)| Op::LoadClaim(claim, load, form)),
        2 => key().prop_map(Op::GetOrInsert),
        6 => (key(), loading(), 0..3_u8).prop_map(|(key, load, form)| Op::GetOrLoad(key, load, form)),
        3 => (keys(), prop::option::of(key()), prop::bool::weighted(0.2), names(), any::<bool>()).prop_map(
            |(keys, leaves_out, fails, groups, asynchronous)| {
                Op::GetManyOrLoad { keys, leaves_out, fails, groups, asynchronous }
            }
        ),
        1 => Just(Op::Maintain),
    ]
}

/// How a cache under test is built.
#[derive(Clone, Debug)]
struct Setup {
    shards: Option<usize>,
    capacity: u64,
    roomy: bool,
    ttl: Option<u64>,
    soft: Option<u64>,
    hard: Option<u64>,
    factor: Option<u32>,
    stale_if_error: Option<u64>,
    weigher: bool,
}

const GRACE: u64 = 30;

fn setup(roomy: bool) -> impl Strategy<Value = Setup> {
    let shards = prop_oneof![Just(Some(1)), Just(Some(2)), Just(Some(8)), Just(None)];
    let lifetime = prop_oneof![
        Just((None, None, None, None)),
        Just((Some(80), None, None, None)),
        Just((None, Some(20), None, None)),
        Just((None, Some(20), None, Some(3))),
        Just((None, Some(20), Some(50), None)),
        Just((None, None, Some(50), None)),
    ];
    let capacity = if roomy { (1_000_000..1_000_001_u64).boxed() } else { (1..12_u64).boxed() };
    (shards, capacity, lifetime, prop::option::weighted(0.3, 0..50_u64), any::<bool>()).prop_map(
        move |(shards, capacity, (ttl, soft, hard, factor), stale_if_error, weigher)| Setup {
            shards,
            capacity,
            roomy,
            ttl,
            soft,
            hard,
            factor,
            stale_if_error,
            weigher,
        },
    )
}

fn weigh(value: u64) -> u64 {
    1 + value % 3
}

/// What the model knows of a stored value, alive or dead.
#[derive(Clone, Debug)]
struct Known {
    /// Tells apart two storings of one value.
    serial: u64,
    value: u64,
    /// From here stale, from here dead, in milliseconds.
    soft: u64,
    hard: u64,
    groups: Names,
    weight: u64,
    grace: u64,
    stored_at: u64,
    retry_at: u64,
    expired: bool,
    killed: bool,
    /// Whether it came before a clear, so that it is not counted.
    cleared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Stale,
    Dead,
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

/// What the model knows of a claim that was taken.
#[derive(Clone, Debug)]
struct Ticket {
    key: u32,
    held_until: u64,
    /// The groups of the value that it refreshes or replaces, and those that its load has named.
    suspects: Names,
    /// The groups bumped since it was taken, and whether the cache was cleared.
    bumped: Names,
    cleared: bool,
    /// The value it refreshes, kept up to date even when it has left the cache.
    stale: Option<Known>,
}

struct Harness {
    setup: Setup,
    /// Hashed alike in every run, so that a failure is found again.
    cache: Cache<u32, u64, BuildHasherDefault<DefaultHasher>>,
    groups: Groups,
    time: ManualClock,
    log: Arc<Mutex<Vec<(u32, u64, RemovalCause)>>>,
    claims: Vec<(u64, Claim<u32, u64>)>,
    /// Whether a claim was leaked, and its groups with it.
    forgot: bool,
    model: Model,
}

struct Model {
    now: u64,
    capacity: u64,
    last_value: u64,
    last_serial: u64,
    entries: BTreeMap<u32, Known>,
    tickets: HashMap<u64, Ticket>,
    flights: HashMap<u32, u64>,
    /// The values that this operation has taken out, and why.
    left: Vec<(u32, Known, RemovalCause)>,
    /// The most that has been stored at once in this operation, and whether it may have evicted anything.
    pressed: bool,
}

impl Model {
    fn serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    fn value(&mut self) -> u64 {
        self.last_value += 1;
        self.last_value
    }

    fn state(&self, key: u32) -> State {
        self.entries.get(&key).map_or(State::Dead, |known| known.state(self.now))
    }

    fn alive(&self, key: u32) -> Option<u64> {
        self.entries.get(&key).filter(|known| known.state(self.now) != State::Dead).map(|known| known.value)
    }

    fn is_active(&self, key: u32) -> bool {
        let Some(ticket) = self.flights.get(&key).map(|id| &self.tickets[id]) else { return false };
        self.now < ticket.held_until && !ticket.cleared && ticket.suspects.is_disjoint(&ticket.bumped)
    }

    fn take_out(&mut self, key: u32, cause: RemovalCause) {
        if let Some(known) = self.entries.remove(&key) {
            let cause = match known.state(self.now) {
                State::Dead if self.now >= known.hard => RemovalCause::Expired,
                State::Dead => RemovalCause::Invalidated,
                _ => cause,
            };
            self.left.push((key, known, cause));
        }
    }

    /// Stores what `known` says in the place of what is there; returns whether it fits.
    fn store(&mut self, key: u32, mut known: Known) -> bool {
        known.serial = self.serial();
        self.take_out(key, RemovalCause::Replaced);
        if known.weight > self.capacity {
            return false;
        }
        let stored: u64 = self.entries.values().map(|known| known.weight).sum();
        self.pressed |= stored + known.weight > self.capacity;
        self.entries.insert(key, known);
        true
    }

    fn claim(&mut self, key: u32) -> u64 {
        let id = self.serial();
        let known = self.entries.get(&key);
        let ticket = Ticket {
            key,
            held_until: self.now + known.map_or(GRACE, |known| known.grace),
            suspects: known.map(|known| known.groups.clone()).unwrap_or_default(),
            bumped: Names::new(),
            cleared: false,
            stale: known.filter(|known| known.state(self.now) != State::Dead).cloned(),
        };
        self.tickets.insert(id, ticket);
        self.flights.insert(key, id);
        id
    }

    fn stands(&self, id: u64) -> bool {
        self.flights.get(&self.tickets[&id].key) == Some(&id)
    }

    fn end(&mut self, id: u64) {
        if self.stands(id) {
            self.flights.remove(&self.tickets[&id].key);
        }
    }

    /// Applies `change` to every version of a value that the model keeps.
    fn each_known(&mut self, change: impl Fn(&mut Known)) {
        self.entries.values_mut().for_each(&change);
        self.tickets.values_mut().filter_map(|ticket| ticket.stale.as_mut()).for_each(&change);
    }

    fn same_as(&mut self, serial: u64, change: impl Fn(&mut Known)) {
        self.each_known(|known| {
            if known.serial == serial {
                change(known);
            }
        });
    }

    fn bump(&mut self, group: usize, kill: bool) {
        self.each_known(|known| {
            if known.groups.contains(&group) {
                known.killed |= kill;
                known.expired = true;
            }
        });
        self.tickets.values_mut().for_each(|ticket| ticket.bumped.extend([group]));
    }

    fn clear(&mut self) {
        self.each_known(|known| (known.killed, known.cleared) = (true, true));
        self.tickets.values_mut().for_each(|ticket| ticket.cleared = true);
    }
}

#[derive(Debug, PartialEq)]
struct Failure;

impl Harness {
    fn new(setup: Setup) -> Harness {
        let (clock, time) = Clock::manual();
        let log = Arc::new(Mutex::new(Vec::new()));
        let groups = Groups::new();
        let mut builder = Cache::builder()
            .capacity(setup.capacity)
            .hasher(BuildHasherDefault::default())
            .clock(clock)
            .groups(groups.clone())
            .grace(ms(GRACE))
            .load_wait(Duration::ZERO)
            .on_removal({
                let log = log.clone();
                move |key: &u32, value: &u64, cause| log.lock().unwrap().push((*key, *value, cause))
            });
        if let Some(shards) = setup.shards {
            builder = builder.shards(shards);
        }
        if let Some(ttl) = setup.ttl {
            builder = builder.ttl(ms(ttl));
        }
        if let Some(soft) = setup.soft {
            builder = builder.soft_ttl(ms(soft));
        }
        if let Some(hard) = setup.hard {
            builder = builder.hard_ttl(ms(hard));
        }
        if let Some(factor) = setup.factor {
            builder = builder.hard_ttl_factor(factor);
        }
        if let Some(retry_after) = setup.stale_if_error {
            builder = builder.stale_if_error(ms(retry_after));
        }
        if setup.weigher {
            builder = builder.weigher(|_, value| weigh(*value));
        }
        let model = Model {
            now: 0,
            capacity: setup.capacity,
            last_value: 0,
            last_serial: 0,
            entries: BTreeMap::new(),
            tickets: HashMap::new(),
            flights: HashMap::new(),
            left: Vec::new(),
            pressed: false,
        };
        Harness { cache: builder.build().unwrap(), setup, groups, time, log, claims: Vec::new(), forgot: false, model }
    }

    /// Returns what the model expects of a value stored now with these options.
    fn known(&self, value: u64, options: &Options) -> Known {
        let setup = &self.setup;
        let factor = u64::from(setup.factor.unwrap_or(8));
        let cache_hard = setup.ttl.or(setup.hard).or(setup.soft.map(|soft| soft * factor));
        let (soft, hard) = if options.never {
            (None, None)
        } else if let Some(ttl) = options.ttl {
            (None, Some(ttl))
        } else {
            match (options.soft, options.hard) {
                (Some(soft), None) => (Some(soft), Some(soft * factor)),
                (soft, hard) => (soft.or(setup.soft), hard.or(cache_hard)),
            }
        };
        let at = |ttl: Option<u64>| ttl.map_or(u64::MAX, |ttl| self.model.now + ttl);
        let default_weight = if setup.weigher { weigh(value) } else { 1 };
        Known {
            serial: 0,
            value,
            soft: at(soft).min(at(hard)),
            hard: at(hard),
            groups: options.groups.clone(),
            weight: options.weight.unwrap_or(default_weight).max(1),
            grace: options.grace.unwrap_or(GRACE).max(1),
            stored_at: self.model.now,
            retry_at: 0,
            expired: false,
            killed: false,
            cleared: false,
        }
    }

    /// Does what changes the cache without a claim, in cache and model alike.
    fn change(&mut self, change: &Change) {
        match *change {
            Change::Insert(key) => self.insert(key, None),
            Change::Remove(key) => {
                assert_eq!(self.cache.remove(&key), self.model.alive(key));
                self.remove(key);
            }
            Change::Expire(key) => {
                assert_eq!(self.cache.expire(&key), self.model.alive(key).is_some());
                self.model.flights.remove(&key);
                if self.model.alive(key).is_some() {
                    let serial = self.model.entries[&key].serial;
                    self.model.same_as(serial, |known| (known.expired, known.retry_at) = (true, 0));
                }
            }
            Change::Update(key) => {
                let new = self.model.value();
                let expected = self.model.alive(key).map(|_| new);
                let answer = self.cache.update(&key, |_| new);
                if answer.is_none() && expected.is_some() {
                    // To make room for the larger value, the cache has evicted the very entry that was to be updated.
                    let old = self.model.entries[&key].value;
                    assert!(self.log.lock().unwrap().contains(&(key, old, RemovalCause::Evicted)));
                    self.model.pressed = true;
                    return;
                }
                assert_eq!(answer, expected);
                if expected.is_some() {
                    self.model.flights.remove(&key);
                    let mut known = self.model.entries[&key].clone();
                    known.value = new;
                    known.retry_at = 0;
                    if self.setup.weigher {
                        known.weight = weigh(new);
                    }
                    self.model.store(key, known);
                }
            }
            Change::Invalidate(group) => {
                if self.model.now.is_multiple_of(2) {
                    self.cache.invalidate_group(GROUPS[group]);
                } else {
                    self.groups.invalidate(GROUPS[group]);
                }
                self.model.bump(group, true);
            }
            Change::ExpireGroup(group) => {
                if self.model.now.is_multiple_of(2) {
                    self.cache.expire_group(GROUPS[group]);
                } else {
                    self.groups.expire(GROUPS[group]);
                }
                self.model.bump(group, false);
            }
            Change::Clear => {
                self.cache.clear();
                self.model.clear();
            }
            Change::Advance(millis) => {
                self.time.advance(ms(millis));
                self.model.now += millis;
            }
        }
    }

    fn remove(&mut self, key: u32) {
        self.model.flights.remove(&key);
        self.model.take_out(key, RemovalCause::Removed);
    }

    fn insert(&mut self, key: u32, options: Option<&Options>) {
        let value = self.model.value();
        let result = match options {
            Some(options) => self.cache.insert_with(key, value, entry_options(options)),
            None => self.cache.insert(key, value),
        };
        let known = self.known(value, options.unwrap_or(&Options::default()));
        let weight = known.weight;
        self.model.flights.remove(&key);
        let fits = self.model.store(key, known);
        assert_eq!(result.map_err(|rejected| (rejected.weight, rejected.capacity)), {
            if fits { Ok(()) } else { Err((weight, self.model.capacity)) }
        });
    }

    /// Brings what a claim was filled with into the model. `fenced` is what the cache said.
    fn filled(&mut self, id: u64, known: Known, fenced: bool) -> bool {
        let model = &mut self.model;
        let ticket = &model.tickets[&id];
        let must = !model.stands(id) || ticket.cleared || !known.groups.is_disjoint(&ticket.bumped);
        // Groups that come into being share floors: a bump of one may fence a fill that names another.
        let may = !known.groups.is_empty() && !ticket.bumped.is_empty();
        assert!(fenced == must || (fenced && may), "fenced: {fenced}, expected: {must}; {ticket:?} {known:?}");
        let key = ticket.key;
        model.end(id);
        if fenced {
            return false;
        }
        model.store(key, known)
    }

    /// What a loader does, in cache and model alike.
    fn run_loader(&mut self, id: u64, load: &Load<u64>, plan: &Loading) -> Result<u64, Failure> {
        let ticket = self.model.tickets.get_mut(&id).unwrap();
        ticket.held_until = u64::MAX;
        let stale = ticket.stale.as_ref().map(|known| known.value);
        assert_eq!(load.stale().copied(), stale);
        let name = |harness: &mut Harness| {
            load.groups(plan.options.groups.iter().map(|group| GROUPS[*group]));
            harness.model.tickets.get_mut(&id).unwrap().suspects.extend(&plan.options.groups);
        };
        if plan.named_first {
            name(self);
        }
        if let Some(change) = &plan.during {
            self.change(change);
        }
        if !plan.named_first {
            name(self);
        }
        if let Some(soft) = plan.options.soft {
            load.soft_ttl(ms(soft));
        }
        if let Some(hard) = plan.options.hard {
            load.hard_ttl(ms(hard));
        }
        if let Some(weight) = plan.options.weight {
            load.weight(weight);
        }
        if plan.do_not_store {
            load.do_not_store();
        }
        if plan.fails {
            return Err(Failure);
        }
        if plan.not_modified {
            let value = load.not_modified();
            assert_eq!(value, stale);
            if let Some(value) = value {
                return Ok(value);
            }
        }
        Ok(self.model.value())
    }

    /// Brings the end of a load into the model, and checks what its caller got. `fences` is what the cache counted.
    fn loaded(
        &mut self,
        id: u64,
        plan: &Loading,
        loaded: &Result<u64, Failure>,
        answer: Result<u64, LoadErrorKind>,
        fences: u64,
    ) {
        let ticket = self.model.tickets[&id].clone();
        match loaded {
            Ok(value) => {
                assert_eq!(answer, Ok(*value));
                if plan.do_not_store {
                    self.model.end(id);
                    return;
                }
                let mut options = plan.options.clone();
                if let (true, Some(stale)) = (plan.not_modified, &ticket.stale) {
                    if options.groups.is_empty() {
                        options.groups = stale.groups.clone();
                    }
                    options.weight = options.weight.or(Some(stale.weight));
                }
                let known = self.known(*value, &options);
                self.filled(id, known, fences == 1);
            }
            Err(Failure) => {
                self.model.end(id);
                assert_eq!(fences, 0);
                assert_eq!(answer, self.failed(&ticket).ok_or(LoadErrorKind::Loader));
            }
        }
    }

    /// Returns the stale value that answers for a failed load.
    fn failed(&mut self, ticket: &Ticket) -> Option<u64> {
        let retry_after = self.setup.stale_if_error?;
        let stale = ticket.stale.clone().filter(|known| known.state(self.model.now) != State::Dead)?;
        let retry_at = self.model.now + retry_after;
        self.model.same_as(stale.serial, |known| known.retry_at = retry_at);
        Some(stale.value)
    }

    fn take_claim(&mut self, index: usize) -> Option<(u64, Claim<u32, u64>)> {
        let count = self.claims.len();
        (count > 0).then(|| self.claims.swap_remove(index % count))
    }

    /// Returns whether a caller that may fill `key` gets a claim.
    fn may_claim(&self, key: u32) -> bool {
        match self.model.state(key) {
            State::Fresh => false,
            State::Stale => !self.model.is_active(key) && self.model.now >= self.model.entries[&key].retry_at,
            State::Dead => !self.model.is_active(key),
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Change(change) => self.change(change),
            Op::Get(key) => self.read(*key),
            Op::GetMany(keys) => {
                let expected: Vec<_> = keys.iter().map(|key| self.model.alive(*key)).collect();
                assert_eq!(self.cache.get_many(keys), expected);
            }
            Op::InsertWith(key, options) => self.insert(*key, Some(options)),
            Op::InsertMany(keys) => {
                let pairs: Vec<_> = keys.iter().map(|key| (*key, self.model.value())).collect();
                let result = self.cache.insert_many(pairs.clone());
                let mut all_fit = true;
                for (key, value) in pairs {
                    self.model.flights.remove(&key);
                    let known = self.known(value, &Options::default());
                    all_fit &= self.model.store(key, known);
                }
                assert_eq!(result.is_ok(), all_fit);
            }
            Op::Add(key) => {
                let value = self.model.value();
                let result = self.cache.add(*key, value).map_err(drop);
                if self.model.alive(*key).is_some() {
                    assert_eq!(result, Ok(false));
                } else {
                    self.model.flights.remove(key);
                    let known = self.known(value, &Options::default());
                    let fits = self.model.store(*key, known);
                    assert_eq!(result, if fits { Ok(true) } else { Err(()) });
                }
            }
            Op::RemoveMany(keys) => {
                self.cache.remove_many(keys);
                keys.iter().for_each(|key| self.remove(*key));
            }
            Op::RetainOdd => {
                self.cache.retain(|_, value| value % 2 == 1);
                for key in 0..KEYS {
                    if self.model.alive(key).is_some_and(|value| value % 2 == 0) {
                        self.remove(key);
                    }
                }
            }
            Op::SetCapacity(capacity) => {
                let capacity = if self.setup.roomy { 1_000_000 + capacity } else { *capacity };
                self.cache.set_capacity(capacity);
                let stored: u64 = self.model.entries.values().map(|known| known.weight).sum();
                self.model.capacity = capacity;
                self.model.pressed |= stored > capacity;
            }
            Op::InvalidateMany(groups) => {
                self.cache.invalidate_groups(groups.iter().map(|group| GROUPS[*group]));
                groups.iter().for_each(|group| self.model.bump(*group, true));
            }
            Op::Lookup { key, wait } => self.lookup(*key, *wait),
            Op::Fill(index, options) => {
                let Some((id, claim)) = self.take_claim(*index) else { return };
                let value = self.model.value();
                let stale = self.model.tickets[&id].stale.as_ref().map(|known| known.value);
                assert_eq!((*claim.key(), claim.stale().copied()), (self.model.tickets[&id].key, stale));
                let fill = match options {
                    Some(options) => claim.fill_with(value, entry_options(options)),
                    None => claim.fill(value),
                };
                let known = self.known(value, options.as_ref().unwrap_or(&Options::default()));
                let fits = self.filled(id, known, matches!(fill, Fill::Fenced(_)));
                match fill {
                    Fill::Stored => assert!(fits),
                    Fill::Fenced(back) => assert_eq!(back, value),
                    Fill::Rejected(back) => assert!(!fits && back == value),
                }
            }
            Op::DropClaim(index) => {
                let Some((id, claim)) = self.take_claim(*index) else { return };
                drop(claim);
                self.model.end(id);
            }
            Op::ForgetClaim(index) => {
                if let Some((_, claim)) = self.take_claim(*index) {
                    mem::forget(claim);
                    self.forgot = true;
                }
            }
            Op::Extend(index, grace) => {
                if self.claims.is_empty() {
                    return;
                }
                let (id, claim) = &self.claims[index % self.claims.len()];
                let holds = claim.extend(ms(*grace));
                let until = self.model.now + grace;
                let ticket = self.model.tickets.get_mut(id).unwrap();
                ticket.held_until = until;
                let fenced = ticket.cleared || !ticket.suspects.is_disjoint(&ticket.bumped);
                assert_eq!(holds, self.model.stands(*id) && !fenced);
            }
            Op::LoadClaim(index, plan, asynchronous) => {
                let Some((id, claim)) = self.take_claim(*index) else { return };
                let before = self.cache.stats();
                let mut loaded = None;
                let mut loader = |load: Load<u64>| {
                    let result = self.run_loader(id, &load, plan);
                    loaded = Some(result.as_ref().map(|value| *value).map_err(|_| Failure));
                    result
                };
                let answer = if *asynchronous {
                    futures::executor::block_on(claim.load_async(|load| async { loader(load) }))
                } else {
                    claim.load(loader)
                };
                let fences = (self.cache.stats() - before).fences;
                self.loaded(id, plan, &loaded.unwrap(), answer.map_err(|error| error.kind()), fences);
            }
            Op::GetOrInsert(key) => {
                let value = self.model.value();
                let (may_claim, known) = (self.may_claim(*key), self.model.alive(*key));
                let answer = self.cache.get_or_insert_with(key, || value);
                if may_claim {
                    assert_eq!(answer, value);
                    let id = self.model.claim(*key);
                    let entry = self.known(value, &Options::default());
                    self.filled(id, entry, false);
                } else {
                    assert_eq!(answer, known.unwrap_or(value));
                }
            }
            Op::GetOrLoad(key, plan, form) => self.get_or_load(*key, plan, *form),
            Op::GetManyOrLoad { keys, leaves_out, fails, groups, asynchronous } => {
                self.get_many_or_load(keys, *leaves_out, *fails, groups, *asynchronous);
            }
            Op::Maintain => {
                self.cache.run_maintenance();
                let now = self.model.now;
                let dead: Vec<_> =
                    self.model.entries.iter().filter(|(_, known)| known.state(now) == State::Dead).collect();
                let keys: Vec<u32> = dead.into_iter().map(|(key, _)| *key).collect();
                keys.into_iter().for_each(|key| self.model.take_out(key, RemovalCause::Removed));
            }
        }
    }

    fn read(&self, key: u32) {
        let expected = self.model.alive(key);
        assert_eq!(self.cache.get(&key), expected);
        assert_eq!(self.cache.with(&key, |value| *value), expected);
        assert_eq!(self.cache.peek(&key), expected);
        assert_eq!(self.cache.contains(&key), expected.is_some());
        let info = self.cache.inspect(&key);
        assert_eq!(info.is_some(), expected.is_some());
        let Some(info) = info else { return };
        let (known, now) = (&self.model.entries[&key], self.model.now);
        let left = |deadline: u64| (deadline != u64::MAX).then(|| ms(deadline.saturating_sub(now)));
        let names: BTreeSet<_> = info.groups.iter().map(String::as_str).collect();
        assert_eq!(info.weight, known.weight);
        assert_eq!(info.age, ms(now - known.stored_at));
        assert_eq!(names, known.groups.iter().map(|group| GROUPS[*group]).collect());
        assert_eq!(info.hard_in, left(known.hard));
        match known.state(now) {
            State::Fresh => assert_eq!(info.soft_in, left(known.soft)),
            _ => assert_eq!(info.soft_in, Some(Duration::ZERO)),
        }
    }

    fn lookup(&mut self, key: u32, wait: bool) {
        let found = if wait { self.cache.lookup_wait(&key, Duration::ZERO) } else { self.cache.lookup(&key) };
        let (state, known, may_claim) = (self.model.state(key), self.model.alive(key), self.may_claim(key));
        match found {
            Lookup::Fresh(value) => assert_eq!((state, known), (State::Fresh, Some(value))),
            Lookup::Stale { value, claim } => {
                assert_eq!((state, known), (State::Stale, Some(value)));
                assert_eq!(claim.is_some(), may_claim);
                if let Some(claim) = claim {
                    let id = self.model.claim(key);
                    self.claims.push((id, claim));
                }
            }
            Lookup::Vacant(claim) => {
                assert_eq!((state, may_claim), (State::Dead, true));
                let id = self.model.claim(key);
                self.claims.push((id, claim));
            }
            Lookup::Busy => assert_eq!((state, may_claim), (State::Dead, false)),
        }
    }

    fn get_or_load(&mut self, key: u32, plan: &Loading, form: u8) {
        let (state, known, may_claim) = (self.model.state(key), self.model.alive(key), self.may_claim(key));
        let id = may_claim.then(|| self.model.claim(key));
        let before = self.cache.stats();
        let cache = self.cache.clone();
        let mut loaded = None;
        let mut loader = |load: Load<u64>| {
            let result = self.run_loader(id.expect("nobody else fills the key"), &load, plan);
            loaded = Some(result.as_ref().map(|value| *value).map_err(|_| Failure));
            result
        };
        let answer = match form {
            0 => cache.get_or_load(&key, loader),
            1 => futures::executor::block_on(cache.get_or_load_async(&key, |load| async { loader(load) })),
            _ => match cache.lookup(&key) {
                Lookup::Fresh(value) | Lookup::Stale { value, claim: None } => Ok(value),
                Lookup::Stale { claim: Some(claim), .. } | Lookup::Vacant(claim) => claim.load(loader),
                Lookup::Busy => cache.get_or_load(&key, |_| unreachable!("another caller fills the key")),
            },
        };
        let answer = answer.map_err(|error| error.kind());
        let fences = (self.cache.stats() - before).fences;
        match (id, state) {
            (Some(id), _) => self.loaded(id, plan, &loaded.expect("the loader runs"), answer, fences),
            (None, State::Dead) => assert_eq!(answer, Err(LoadErrorKind::TimedOut)),
            (None, _) => assert_eq!(answer.ok(), known),
        }
    }

    fn get_many_or_load(
        &mut self,
        keys: &[u32],
        leaves_out: Option<u32>,
        fails: bool,
        groups: &Names,
        asynchronous: bool,
    ) {
        let mut expected_batch = Vec::new();
        let mut ids = HashMap::new();
        // Where the answer for each place comes from: a known value, this batch, or another caller.
        let mut sources = Vec::new();
        for key in keys {
            if self.may_claim(*key) {
                expected_batch.push(*key);
                ids.insert(*key, self.model.claim(*key));
                sources.push(None);
            } else if let Some(value) = self.model.alive(*key) {
                sources.push(Some(Ok(value)));
            } else if ids.contains_key(key) {
                sources.push(None);
            } else {
                sources.push(Some(Err(LoadErrorKind::TimedOut)));
            }
        }
        let pairs: Vec<_> = expected_batch
            .iter()
            .filter(|key| Some(**key) != leaves_out)
            .map(|key| (*key, self.model.last_value + 1 + u64::from(*key)))
            .collect();
        self.model.last_value += u64::from(KEYS) + 1;
        let loader = |batch: larder::Batch<u32, u64>| {
            assert_eq!(batch.keys().copied().collect::<Vec<_>>(), expected_batch);
            assert_eq!(batch.len(), expected_batch.len());
            batch.groups(groups.iter().map(|group| GROUPS[*group]));
            if fails { Err(Failure) } else { Ok(pairs.clone()) }
        };
        let answer = if asynchronous {
            futures::executor::block_on(self.cache.get_many_or_load_async(keys, |batch| async { loader(batch) }))
        } else {
            self.cache.get_many_or_load(keys, loader)
        };
        let mut failed = None;
        let mut brought = HashMap::new();
        for key in &expected_batch {
            let id = ids[key];
            let ticket = self.model.tickets[&id].clone();
            if fails {
                self.model.end(id);
                match self.failed(&ticket) {
                    Some(value) => drop(brought.insert(*key, value)),
                    None => failed = Some(LoadErrorKind::Loader),
                }
            } else if let Some((_, value)) = pairs.iter().find(|(known, _)| known == key) {
                brought.insert(*key, *value);
                let options = Options { groups: groups.clone(), ..Options::default() };
                let known = self.known(*value, &options);
                self.filled(id, known, false);
            } else {
                self.model.end(id);
                // Nothing answers for it, but no other refresh is tried for a while.
                let _ = self.failed(&ticket);
            }
        }
        let values = sources.into_iter().zip(keys).map(|(source, key)| match source {
            Some(known) => known.map(Some),
            None => Ok(brought.get(key).copied()),
        });
        let expected = failed.map_or_else(|| values.collect::<Result<Vec<_>, _>>(), Err);
        assert_eq!(answer.map_err(|error| error.kind()), expected);
    }

    /// Matches what the listener was told with what the model says has left, and takes over what was reclaimed or evicted.
    fn reconcile(&mut self) {
        let model = &mut self.model;
        let mut left = mem::take(&mut model.left);
        let pressed = mem::take(&mut model.pressed);
        let mut evicted_alive = false;
        for (key, value, cause) in mem::take(&mut *self.log.lock().unwrap()) {
            let pressed_out = cause == RemovalCause::Evicted && pressed;
            if let Some(at) = left.iter().position(|(k, known, c)| {
                let dead = matches!(c, RemovalCause::Expired | RemovalCause::Invalidated);
                (*k, known.value) == (key, value) && (*c == cause || (pressed_out && !dead))
            }) {
                left.swap_remove(at);
                continue;
            }
            let known = model.entries.remove(&key);
            let known = known.unwrap_or_else(|| panic!("{key} left twice, or was never there ({cause:?} {value})"));
            assert_eq!(known.value, value, "{key} left, but had another value");
            match known.state(model.now) {
                State::Dead if model.now >= known.hard => assert_eq!(cause, RemovalCause::Expired),
                State::Dead => assert_eq!(cause, RemovalCause::Invalidated),
                _ => {
                    assert_eq!(cause, RemovalCause::Evicted);
                    assert!(pressed, "{key} was evicted although there was room");
                    evicted_alive = true;
                }
            }
        }
        assert!(left.is_empty(), "the listener was not told of {left:?}");
        if evicted_alive && self.setup.shards == Some(1) {
            let dead: Vec<_> = model.entries.values().filter(|known| known.state(model.now) == State::Dead).collect();
            assert!(dead.is_empty(), "a live entry left before {dead:?}");
        }
    }

    fn check(&self) {
        let model = &self.model;
        let counted = || model.entries.values().filter(|known| !known.cleared);
        assert_eq!(self.cache.len(), counted().count());
        assert_eq!(self.cache.weight(), counted().map(|known| known.weight).sum::<u64>());
        assert!(self.cache.weight() <= self.cache.capacity());
        assert!(model.entries.values().map(|known| known.weight).sum::<u64>() <= model.capacity);
        assert_eq!(self.cache.capacity(), model.capacity);
        let alive = (0..KEYS).filter_map(|key| Some((key, model.alive(key)?)));
        assert_eq!(self.cache.iter().collect::<BTreeMap<_, _>>(), alive.collect());
        for key in 0..KEYS {
            assert_eq!(self.cache.peek(&key), model.alive(key));
        }
    }

    fn finish(mut self) {
        self.claims.clear();
        self.cache.run_maintenance();
        self.apply(&Op::Maintain);
        self.reconcile();
        self.check();
        let used: BTreeSet<_> = self.model.entries.values().flat_map(|known| &known.groups).collect();
        assert!(self.forgot || self.groups.len() == used.len(), "groups outlive their entries");
        self.cache.clear();
        self.cache.run_maintenance();
        assert_eq!((self.cache.len(), self.cache.weight()), (0, 0));
    }
}

fn entry_options(options: &Options) -> EntryOptions {
    let mut entry = EntryOptions::new().groups(options.groups.iter().map(|group| GROUPS[*group]));
    if let Some(soft) = options.soft {
        entry = entry.soft_ttl(ms(soft));
    }
    if let Some(hard) = options.hard {
        entry = entry.hard_ttl(ms(hard));
    }
    if let Some(ttl) = options.ttl {
        entry = entry.ttl(ms(ttl));
    }
    if options.never {
        entry = entry.never_expires();
    }
    if let Some(grace) = options.grace {
        entry = entry.grace(ms(grace));
    }
    if let Some(weight) = options.weight {
        entry = entry.weight(weight);
    }
    entry
}

fn run(setup: Setup, ops: &[Op]) {
    let mut harness = Harness::new(setup);
    for op in ops {
        harness.apply(op);
        harness.reconcile();
        harness.check();
    }
    harness.finish();
}

fn config() -> Config {
    let cases = std::env::var("LARDER_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(600);
    Config { cases, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_roomy_cache_is_its_model(setup in setup(true), ops in prop::collection::vec(op(), 1..80)) {
        run(setup, &ops);
    }

    #[test]
    fn a_small_cache_is_its_model_but_for_what_it_evicts(
        setup in setup(false),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        run(setup, &ops);
    }
}
