//! What the threads of a process do.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fastrand::Rng;
use larder::sim::{self, Bell, Delay};
use larder::{Added, Announce, Batch, Bump, EntryOptions, Load, Lookup, Namespace, Receipt, TieredCache, Write};

use crate::history::note;
use crate::oracle::{Force, Oracle, What, groups_of, value_of, version_of};
use crate::plan::{MS, Plan, Verb};

pub type Cache = TieredCache<u32, Vec<u8>, ahash::RandomState>;

/// What a planned panic of a loader says.
pub const PLANNED: &str = "a planned panic";

/// Of how many counters there are.
const COUNTERS: u32 = 2;

/// A thread of a process.
pub struct Worker {
    pub process: usize,
    pub plan: Plan,
    pub oracle: Arc<Oracle>,
    pub namespace: Namespace,
    pub caches: Vec<Cache>,
    pub over: Arc<AtomicBool>,
    /// Whether nothing goes wrong any more.
    pub calm: Arc<AtomicBool>,
    /// When somebody, in whichever process, may invalidate something again.
    pub next_move: Arc<AtomicU64>,
    pub random: Rng,
    /// When the present call began.
    pub called: u64,
    /// The values that it has made.
    pub made: Arc<Mutex<Vec<u64>>>,
    /// What was pending, and the write that it stands for, if it is one.
    pub open: Vec<(Receipt, usize, Option<u64>)>,
}

/// Why a loader brought nothing.
#[derive(Debug)]
struct Failed;

/// A load under way, as the oracle sees it.
struct Loading<'w> {
    worker: &'w Shared,
    number: u64,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.worker.oracle.load_ends(self.number);
    }
}

/// What loaders need of their worker.
#[derive(Clone)]
struct Shared {
    process: usize,
    /// When the call began.
    called: u64,
    made: Arc<Mutex<Vec<u64>>>,
    plan: Plan,
    oracle: Arc<Oracle>,
}

/// How one load goes.
#[derive(Clone, Copy)]
struct Course {
    takes: u64,
    early: bool,
    ends: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Brings,
    Fails,
    Panics,
    IsNotKept,
}

impl Shared {
    fn begin(&self, key: u32) -> (Loading<'_>, u64) {
        let number = self.oracle.load_begins(self.process, key, self.called);
        let version = self.oracle.loads(self.process, key);
        self.made.lock().unwrap().push(version);
        note(Some(self.process), format!("begins to load {key}: version {version}"));
        (Loading { worker: self, number }, version)
    }

    fn options(&self, key: u32) -> EntryOptions {
        let options = EntryOptions::new().groups(self.names(key));
        match self.plan.hard_ttl.filter(|_| self.plan.own_ttl) {
            Some(ttl) => options.hard_ttl(ttl),
            None => options,
        }
    }

    fn names(&self, key: u32) -> Vec<String> {
        groups_of(&self.plan, key).into_iter().map(group_name).collect()
    }

    fn end(&self, key: u32, version: u64, ends: Ending) -> Result<Vec<u8>, Failed> {
        note(Some(self.process), format!("ends to load {key}: version {version}, {ends:?}"));
        match ends {
            Ending::Brings | Ending::IsNotKept => Ok(value_of(key, version)),
            Ending::Fails => Err(Failed),
            Ending::Panics => std::panic::panic_any(PLANNED),
        }
    }

    fn load(&self, key: u32, load: &Load<Vec<u8>>, course: Course) -> Result<Vec<u8>, Failed> {
        let (_loading, version) = self.begin(key);
        self.look_at_stale(key, load);
        if course.early {
            load.groups(self.names(key));
        }
        sim::sleep_until(sim::now() + course.takes);
        self.name_late(key, load, course);
        self.end(key, version, course.ends)
    }

    async fn load_async(self, key: u32, load: Load<Vec<u8>>, course: Course) -> Result<Vec<u8>, Failed> {
        let (_loading, version) = self.begin(key);
        self.look_at_stale(key, &load);
        if course.early {
            load.groups(self.names(key));
        }
        Delay::new(Duration::from_nanos(course.takes)).await;
        self.name_late(key, &load, course);
        self.end(key, version, course.ends)
    }

    /// What a load is to refresh is no older than what a read may find.
    fn look_at_stale(&self, key: u32, load: &Load<Vec<u8>>) {
        if let Some(stale) = load.stale() {
            self.oracle.read(self.process, key, Some(stale), self.called);
        }
    }

    fn name_late(&self, key: u32, load: &Load<Vec<u8>>, course: Course) {
        if let Some(ttl) = self.plan.hard_ttl.filter(|_| self.plan.own_ttl) {
            load.hard_ttl(ttl);
        }
        if !course.early {
            load.groups(self.names(key));
        }
        if course.ends == Ending::IsNotKept {
            load.do_not_store();
        }
    }
}

impl Worker {
    /// Works until told to stop.
    pub fn work(mut self) {
        while !self.over.load(Ordering::Relaxed) {
            sim::sleep_until(sim::now() + self.random.u64(..self.plan.pause_ns));
            let verb = self.pick();
            let key = self.random.u32(..self.plan.keys);
            self.call(verb, key);
            self.look_at_receipts();
            self.check_caps();
        }
        self.conclude();
    }

    fn pick(&mut self) -> Verb {
        let calm_ns = self.plan.calm_ns;
        if calm_ns == 0 {
            return self.plan.verbs.pick(&mut self.random, true);
        }
        let now = sim::now();
        let verb = self.plan.verbs.pick(&mut self.random, self.next_move.load(Ordering::Relaxed) <= now);
        if verb.moves() {
            self.next_move.store(now + self.random.u64(..2 * calm_ns), Ordering::Relaxed);
        }
        verb
    }

    fn call(&mut self, verb: Verb, key: u32) {
        let began = sim::now();
        self.called = began;
        note(Some(self.process), format!("{verb:?} {key}"));
        self.carry_out(verb, key, began);
        self.made.lock().unwrap().drain(..).for_each(|version| self.oracle.handed_in(version));
        self.oracle.ends(self.process, &format!("{verb:?} {key}"), began);
    }

    fn carry_out(&mut self, verb: Verb, key: u32, began: u64) {
        let cache = self.cache(key).clone();
        match verb {
            Verb::Get => {
                let value = if self.random.bool() { cache.get(&key) } else { self.drive(cache.get_async(&key)) };
                self.read(key, value.as_deref(), began);
            }
            Verb::Peek => {
                let value = cache.local().get(&key);
                self.read(key, value.as_deref(), began);
            }
            Verb::GetMany => {
                let keys = self.some_keys(key);
                let values = cache.get_many(&keys);
                keys.iter().zip(values).for_each(|(key, value)| self.read(*key, value.as_deref(), began));
            }
            Verb::Load => {
                let (shared, course) = (self.shared(), self.course());
                let loaded = quietly(|| cache.get_or_load(&key, |load| shared.load(key, &load, course)));
                self.read(key, loaded.and_then(Result::ok).as_deref(), began);
            }
            Verb::LoadAsync => self.load_async(key, began),
            Verb::LoadMany => self.load_many(key, began),
            Verb::Claim => self.claim(key, began),
            Verb::Insert => self.write(key, Force::Kills, |worker, key, value, options| {
                Some(if worker.random.bool() {
                    cache.insert_with(key, value, options)
                } else {
                    worker.drive(cache.insert_with_async(key, value, options))
                })
            }),
            Verb::Add => {
                // Where it is overtaken by an invalidation, it leaves a load alone that has begun before it.
                self.write(key, Force::Nothing, |worker, key, value, options| {
                    match worker.cache(key).add_with(key, value, options) {
                        Added::Stored(write) => Some(write),
                        Added::Present => None,
                    }
                })
            }
            Verb::Update => self.update(key, began),
            Verb::Remove => {
                let is_told = self.plan.announce != Announce::Groups;
                let number = self.oracle.moves(self.process, What::Key(key), Force::Kills, is_told);
                let bump = if self.random.bool() { cache.remove(&key) } else { self.drive(cache.remove_async(&key)) };
                self.moved(number, bump);
            }
            Verb::Expire => {
                let is_told = self.plan.announce != Announce::Groups;
                let number = self.oracle.moves(self.process, What::Key(key), Force::Expires, is_told);
                let bump = cache.expire(&key);
                self.moved(number, bump);
            }
            Verb::Bump => {
                let group = self.random.u32(..self.plan.groups);
                note(Some(self.process), format!("bumps group {group}"));
                let number = self.oracle.moves(self.process, What::Group(group), Force::Kills, true);
                let bump = if self.random.bool() {
                    self.namespace.invalidate_group(&group_name(group))
                } else {
                    self.drive(cache.invalidate_group_async(&group_name(group)))
                };
                self.moved(number, bump);
            }
            Verb::BumpSoft => {
                let group = self.random.u32(..self.plan.groups);
                let number = self.oracle.moves(self.process, What::Group(group), Force::Expires, true);
                let bump = cache.expire_group(&group_name(group));
                self.moved(number, bump);
            }
            Verb::Clear => {
                let is_of_one = self.random.bool();
                let what = if is_of_one { What::Cache(key % self.plan.caches) } else { What::All };
                let number = self.oracle.moves(self.process, what, Force::Kills, true);
                let bump = if is_of_one { cache.clear() } else { self.namespace.clear() };
                self.moved(number, bump);
            }
            Verb::Count => {
                let counter = self.random.u32(..COUNTERS);
                self.oracle.adds(counter);
                if let Ok(value) = self.namespace.counter(&counter.to_string()).initial(0).incr(1) {
                    self.oracle.added(self.process, counter, value, began);
                }
            }
        }
    }

    fn load_async(&mut self, key: u32, began: u64) {
        let (shared, course, cache) = (self.shared(), self.course(), self.cache(key).clone());
        // Some are given up half-way, which frees what they hold.
        let patience = (self.random.u8(..4) == 0).then(|| self.random.u64(..2 * self.plan.load_ns));
        let load = cache.get_or_load_async(&key, |load| shared.load_async(key, load, course));
        let loaded = quietly(|| drive_for(load, patience));
        self.read(key, loaded.flatten().and_then(Result::ok).as_deref(), began);
    }

    fn load_many(&mut self, key: u32, began: u64) {
        let (shared, course, keys, cache) =
            (self.shared(), self.course(), self.some_keys(key), self.cache(key).clone());
        let loader = |batch: Batch<u32, Vec<u8>>| {
            let keys: Vec<u32> = batch.keys().copied().collect();
            let begun: Vec<_> = keys.iter().map(|key| shared.begin(*key)).collect();
            let name = |late| {
                if let Some(ttl) = self.plan.hard_ttl.filter(|_| self.plan.own_ttl) {
                    batch.iter().for_each(|(_, load)| load.hard_ttl(ttl));
                }
                if course.early != late {
                    batch.iter().for_each(|(key, load)| load.groups(shared.names(*key)));
                }
            };
            name(false);
            sim::sleep_until(sim::now() + course.takes);
            name(true);
            keys.iter()
                .zip(&begun)
                .map(|(key, (_, version))| Ok((*key, shared.end(*key, *version, course.ends)?)))
                .collect()
        };
        let loaded: Option<Result<Vec<_>, larder::LoadError<Failed>>> =
            quietly(|| cache.get_many_or_load(&keys, loader));
        let values = loaded.and_then(Result::ok).unwrap_or_default();
        keys.iter().zip(values).for_each(|(key, value)| self.read(*key, value.as_deref(), began));
    }

    fn claim(&mut self, key: u32, began: u64) {
        let wait = self.random.bool();
        let found = if wait {
            self.cache(key).lookup_wait(&key, Duration::from_nanos(self.plan.load_ns))
        } else {
            self.cache(key).lookup(&key)
        };
        let claim = match found {
            Lookup::Fresh(value) => {
                self.oracle.read_fresh(self.process, key, &value, began);
                return self.read(key, Some(&value), began);
            }
            Lookup::Stale { value, claim: None } => return self.read(key, Some(&value), began),
            Lookup::Busy => return,
            Lookup::Stale { value, claim: Some(claim) } => {
                self.read(key, Some(&value), began);
                claim
            }
            Lookup::Vacant(claim) => claim,
        };
        let (shared, course) = (self.shared(), self.course());
        let (loading, version) = shared.begin(key);
        sim::sleep_until(sim::now() + course.takes);
        let value = value_of(key, version);
        if course.ends != Ending::Brings {
            // In this order: once the claim is given back, another process may load.
            drop(loading);
            drop(claim);
            return;
        }
        let filled = claim.fill_with(value, shared.options(key)).is_stored();
        note(Some(self.process), format!("fills {key}: version {version}, stored: {filled}"));
    }

    /// Writes a value, and notes what has become of it.
    fn write(
        &mut self,
        key: u32,
        force: Force,
        write: impl FnOnce(&mut Worker, u32, Vec<u8>, EntryOptions) -> Option<Write>,
    ) {
        let version = self.oracle.writes(self.process, key);
        self.made.lock().unwrap().push(version);
        let number = self.oracle.moves(self.process, What::Key(key), force, self.plan.announce == Announce::All);
        let options = self.shared().options(key);
        let written = write(self, key, value_of(key, version), options);
        note(Some(self.process), format!("wrote {key}: version {version}, {}", named(written.as_ref())));
        let (acknowledged, receipt) = match written {
            None => {
                self.oracle.moved_nothing(number);
                (false, None)
            }
            Some(Write::Through | Write::RemoteOnly(_)) => (true, None),
            Some(Write::Queued(receipt) | Write::LocalOnly(_, receipt) | Write::Nowhere(_, _, receipt)) => {
                (false, Some(receipt))
            }
            Some(_) => (false, None),
        };
        self.oracle.wrote(version, receipt.is_some());
        self.oracle.moved(number, acknowledged);
        self.open.extend(receipt.map(|receipt| (receipt, number, Some(version))));
    }

    fn update(&mut self, key: u32, began: u64) {
        let number = self.oracle.moves(self.process, What::Key(key), Force::Kills, self.plan.announce == Announce::All);
        let made = Mutex::new(Vec::new());
        let updated = self.cache(key).update(&key, |old| {
            self.oracle.read(self.process, key, Some(old), began);
            let version = self.oracle.writes(self.process, key);
            made.lock().unwrap().push(version);
            value_of(key, version)
        });
        let made = made.into_inner().unwrap_or_default();
        // How long it lives is what the old one's time was, or the cache's.
        made.iter().for_each(|version| self.oracle.wrote(*version, true));
        if updated.is_none() {
            self.oracle.moved_nothing(number);
        }
        // Nobody says whether the remote tier has it.
        self.oracle.moved(number, false);
        self.read(key, updated.as_deref(), began);
    }

    // ---- What was read, and what is pending ----

    fn read(&self, key: u32, value: Option<&[u8]>, began: u64) {
        note(Some(self.process), format!("reads {key}: {:?}", value.map(version_of)));
        self.oracle.read(self.process, key, value, began);
    }

    fn moved(&mut self, number: usize, bump: Bump) {
        note(Some(self.process), format!("acknowledged: {}", bump.is_acknowledged()));
        self.oracle.moved(number, bump.is_acknowledged());
        if let Bump::Pending(receipt) = bump {
            self.open.push((receipt, number, None));
        }
    }

    fn look_at_receipts(&mut self) {
        let (oracle, process) = (&self.oracle, self.process);
        self.open.retain(|(receipt, number, version)| {
            let is_settled = receipt.is_settled();
            if is_settled {
                note(Some(process), format!("invalidation {number} is settled"));
                oracle.settled(*number, *version);
            }
            !is_settled
        });
    }

    /// Promise 6, as far as it shows from outside.
    fn check_caps(&self) {
        for cache in &self.caches {
            let (weight, capacity) = (cache.local().weight(), cache.local().capacity());
            if weight > capacity {
                self.oracle.fail(self.process, &format!("a weight of {weight} is above the capacity of {capacity}"));
            }
        }
        let health = self.namespace.health();
        let owed = health.pending_bumps + health.pending_deletions;
        if owed > 16_384 || self.plan.behind.is_some_and(|queue| health.queued_writes > queue) {
            self.oracle.fail(self.process, &format!("too much is kept: {health:?}"));
        }
    }

    /// Waits until nothing is pending, once nothing goes wrong any more, and reads everything once more.
    fn conclude(mut self) {
        while !self.calm.load(Ordering::Relaxed) {
            sim::sleep_until(sim::now() + 50 * MS);
        }
        let patience = sim::now() + 60_000 * MS;
        while !self.open.is_empty() {
            if sim::now() > patience {
                let health = self.namespace.health();
                self.oracle.fail(self.process, &format!("{} receipts never settle: {health:?}", self.open.len()));
            }
            sim::sleep_until(sim::now() + 50 * MS);
            self.look_at_receipts();
        }
        sim::sleep_until(sim::now() + 3 * self.plan.trust.as_nanos() as u64 + 1_000 * MS);
        for key in 0..self.plan.keys {
            self.call(Verb::Get, key);
        }
        let health = self.namespace.health();
        if !health.is_good() {
            self.oracle.fail(self.process, &format!("not well although nothing goes wrong: {health:?}"));
        }
    }

    // ---- Choices ----

    fn shared(&self) -> Shared {
        let Worker { process, called, ref made, ref plan, ref oracle, .. } = *self;
        Shared { process, called, made: made.clone(), plan: plan.clone(), oracle: oracle.clone() }
    }

    fn cache(&self, key: u32) -> &Cache {
        &self.caches[(key % self.plan.caches) as usize]
    }

    fn course(&mut self) -> Course {
        let ends = match self.random.u8(..40) {
            kept if kept >= self.plan.spoilt => Ending::Brings,
            spoilt => [Ending::Fails, Ending::Fails, Ending::Panics, Ending::IsNotKept][usize::from(spoilt % 4)],
        };
        // A few take as long as a lease of trust, or longer.
        let longest = if self.random.u8(..20) == 0 { 2 * self.plan.trust.as_nanos() as u64 } else { self.plan.load_ns };
        Course { takes: self.random.u64(..longest), early: self.random.u8(..8) >= self.plan.late, ends }
    }

    /// Returns keys of one cache.
    fn some_keys(&mut self, first: u32) -> Vec<u32> {
        let Plan { keys, caches, .. } = self.plan;
        let steps = 0..self.random.u32(1..5);
        steps.map(|step| (first + step * caches) % keys).filter(|key| key % caches == first % caches).collect()
    }

    fn drive<F: Future>(&self, future: F) -> F::Output {
        drive_for(future, None).expect("a future without a time limit ends")
    }
}

fn group_name(group: u32) -> String {
    format!("group-{group}")
}

fn named(write: Option<&Write>) -> &'static str {
    match write {
        None => "not at all",
        Some(Write::Through) => "through",
        Some(Write::Queued(_)) => "queued",
        Some(Write::LocalOnly(..)) => "locally only",
        Some(Write::RemoteOnly(_)) => "remotely only",
        Some(_) => "nowhere",
    }
}

/// Runs what may panic as planned.
fn quietly<R>(work: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
}

/// Polls a future on this thread to its end, or for so long.
fn drive_for<F: Future>(future: F, patience: Option<u64>) -> Option<F::Output> {
    #[derive(Default)]
    struct Woken {
        bell: Bell,
        woken: AtomicBool,
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.woken.store(true, Ordering::Relaxed);
            self.bell.ring();
        }
    }

    let woken = Arc::<Woken>::default();
    let waker = Waker::from(woken.clone());
    let until = patience.map(|patience| sim::now() + patience);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        while !woken.woken.swap(false, Ordering::Relaxed) {
            if until.is_some_and(|until| until <= sim::now()) {
                return None;
            }
            woken.bell.wait(until);
        }
    }
}
