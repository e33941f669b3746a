//! The engine of the local tier: shards behind their locks, and how entries come, are claimed, and go.
//!
//! Every operation takes one shard's lock at a time, and what leaves a shard is told of and dropped once the lock is free.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use equivalent::Equivalent;

use crate::ToKey;
use crate::budget::{Budget, Grant};
use crate::claim::Claim;
use crate::clock::{AtomicDeadline, Clock, Deadline};
use crate::compact::{HardSpan, Micros, Millis, U48};
use crate::entry::{Entry, Freshness, Handle, Judge, Meta};
use crate::error::Rejected;
use crate::flight::{Flight, Joined, Outcome};
use crate::group::{AtomicGeneration, Generation, Group, GroupSet, Groups};
use crate::index::{Hit, Index, Resident, Unlinked};
use crate::limit::Observer;
use crate::options::{Absence, DefaultLifetime, Draft, Lifetime, RefreshAhead, Spec, UsualDeadlines, Validator};
use crate::policy::{Arrival, Recency};
use crate::shard::{Leaving, Shard};
use crate::stats::{RemovalCause, Stats, StripedCounters, Tally};
use crate::sync::{Arc, Ordering, Padded, RwLock, RwLockWriteGuard, thread};
use crate::task::drop_quietly;
use crate::watch::CacheWatch;

/// One shard behind its lock.
type Lock<K, V> = Padded<RwLock<Shard<K, V>>>;

/// Says what an entry weighs.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Is told of every entry that leaves.
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, RemovalCause) + Send + Sync>;

/// How long a refresh that failed ahead of time is not tried again, unless the cache was built to say otherwise: not at every
/// call, as long as the value is fresh anyway.
const RETRY_AHEAD: Duration = Duration::from_secs(1);

/// A cache without its hasher: what claims and loads hold on to.
pub(crate) struct Store<K, V> {
    /// Finds entries without the shards' locks. Only what it finds counts: who finds none looks again under the lock.
    index: Index<Entry<K, V>>,
    shards: Box<[Lock<K, V>]>,
    budget: Budget,
    pub(crate) root: Arc<Group>,
    counters: StripedCounters,
    /// The deadlines and the grace of values that say nothing of theirs.
    usual_deadlines: Option<UsualDeadlines>,
    usual_grace: Millis,
    pub(crate) settings: Settings<K, V>,
}

/// What a cache was built with.
pub(crate) struct Settings<K, V> {
    pub(crate) name: Box<str>,
    pub(crate) groups: Groups,
    pub(crate) clock: Clock,
    pub(crate) lifetime: DefaultLifetime,
    pub(crate) grace: Duration,
    pub(crate) load_wait: Duration,
    /// `None` refreshes at the soft deadline alone.
    pub(crate) refresh_ahead: Option<RefreshAhead>,
    /// What is known of values that stand for none.
    pub(crate) absence: Option<Absence<V>>,
    pub(crate) validator: Option<Validator<V>>,
    /// Whether a stale value answers for a failed refresh, and how long no other is tried then.
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) listener: Option<Listener<K, V>>,
}

impl<K, V> Settings<K, V> {
    /// Returns what is said of the deadlines of `value`, which was stored with `own`.
    pub(crate) fn lifetime_of(&self, own: Lifetime, value: &V) -> Lifetime {
        match &self.absence {
            Some(absence) if own.is_default() && (absence.is)(value) => Lifetime::HardOnly(absence.ttl),
            _ => own,
        }
    }

    /// Returns what is to be remembered of a load that took `cost`, for the refresh ahead of the soft deadline: see [`Meta::lead`].
    fn lead_of(&self, lifetime: Lifetime, cost: Duration) -> Micros {
        match (self.refresh_ahead, lifetime) {
            #[cfg(feature = "tiered")]
            (Some(RefreshAhead::After(part)), Lifetime::Left { soft_ttl, .. }) => {
                soft_ttl.map_or(Micros::ZERO, |whole| Millis::new(whole.mul_f64(1.0 - part)).in_units())
            }
            _ if cost.is_zero() => Micros::ZERO,
            _ => Micros::new(cost),
        }
    }
}

/// Under which condition an entry is stored.
pub(crate) enum Terms<'a, K, V> {
    /// Whatever is there.
    Always,
    /// If nothing alive is there.
    IfAbsent,
    /// If this entry is still there.
    IfCurrent(&'a Handle<K, V>),
    /// If this flight still stands, and no group of the entry was bumped after it began.
    IfStands(&'a Arc<Flight<K, V>>),
    /// If this flight still stands, as above; and no refresh begins until then.
    #[cfg(feature = "tiered")]
    ToPause(&'a Arc<Flight<K, V>>, Deadline),
    /// If nothing alive is there, nobody fills the key, and there is room without another's leaving.
    ToWarm,
    /// If this flight still stands, as above, and there is room without another's leaving.
    #[cfg(feature = "tiered")]
    ToWarmUnder(&'a Arc<Flight<K, V>>),
}

impl<'a, K, V> Terms<'a, K, V> {
    /// Returns the flight under which the entry is to be stored.
    fn flight(&self) -> Option<&'a Arc<Flight<K, V>>> {
        match self {
            Terms::IfStands(flight) => Some(flight),
            #[cfg(feature = "tiered")]
            Terms::ToPause(flight, _) | Terms::ToWarmUnder(flight) => Some(flight),
            Terms::Always | Terms::IfAbsent | Terms::IfCurrent(_) | Terms::ToWarm => None,
        }
    }

    /// Returns whether no other entry may be evicted for this one.
    fn is_to_warm(&self) -> bool {
        match self {
            Terms::ToWarm => true,
            #[cfg(feature = "tiered")]
            Terms::ToWarmUnder(_) => true,
            #[cfg(feature = "tiered")]
            Terms::ToPause(..) => false,
            Terms::Always | Terms::IfAbsent | Terms::IfCurrent(_) | Terms::IfStands(_) => false,
        }
    }
}

/// Why an entry was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The terms did not hold.
    Unmet,
    /// It is too heavy.
    Rejected(Rejected),
    /// There is no room, and its terms are that nobody makes any.
    Full,
}

/// What a caller that would fill a key finds.
pub(crate) enum Look<K, V> {
    Fresh(V),
    Stale {
        value: V,
        claim: Option<Claim<K, V>>,
    },
    Vacant(Claim<K, V>),
    /// Another caller fills the key; `None` if too many wait for it already.
    Busy(Option<Joined<K, V>>),
}

impl<K, V> Store<K, V> {
    pub(crate) fn new(capacity: u64, shards: usize, settings: Settings<K, V>) -> Store<K, V> {
        debug_assert!(shards.is_power_of_two());
        let (index, tables) = Index::new(shards, capacity);
        Store {
            index,
            shards: tables.into_iter().map(|table| Padded(RwLock::new(Shard::new(table)))).collect(),
            budget: Budget::new(capacity),
            root: settings.groups.new_root(),
            counters: StripedCounters::new(CacheWatch::new(&settings.name)),
            usual_deadlines: settings.lifetime.usual(),
            usual_grace: Millis::new(settings.grace),
            settings,
        }
    }

    #[inline]
    pub(crate) fn tally(&self) -> Tally<'_> {
        self.counters.mine()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Returns who the cache is to those who watch it.
    pub(crate) fn watch(&self) -> &CacheWatch {
        self.counters.watch()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Returns the number of entries and their weight, without those from before the last clear.
    pub(crate) fn census(&self) -> (usize, u64) {
        let sum = |sum: (usize, u64), part: (usize, u64)| (sum.0 + part.0, sum.1.saturating_add(part.1));
        let (len, weight) = self.shards.iter().map(|shard| shard.read().census(&self.root)).fold((0, 0), sum);
        if weight <= self.capacity() {
            return (len, weight);
        }
        // Weight that went from one shard to another meanwhile was counted in both: once more, with all of them standing
        // still. Every thread that holds several of these locks takes them in this order.
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.read()).collect();
        shards.iter().map(|shard| shard.census(&self.root)).fold((0, 0), sum)
    }

    pub(crate) fn clear(&self) {
        self.settings.groups.bump_root(&self.root);
    }

    /// Puts the next refresh of an entry off, after one that brought nothing, and returns whether the entry answers for that
    /// one: where the cache was built so, and as long as it is alive.
    pub(crate) fn put_off(&self, entry: &Handle<K, V>) -> bool {
        let retry_after = match (self.freshness(&entry.meta), self.settings.stale_if_error) {
            (Freshness::Dead, _) | (Freshness::Stale, None) => return false,
            (Freshness::Fresh, None) => RETRY_AHEAD,
            (Freshness::Fresh | Freshness::Stale, Some(retry_after)) => retry_after,
        };
        self.pause(entry, retry_after);
        true
    }

    /// Has no refresh of an entry begin for this long, if it is still there.
    pub(crate) fn pause(&self, entry: &Handle<K, V>, interval: Duration) {
        let until = Deadline::after(self.settings.clock.now(), interval);
        let mut shard = self.shard(entry.hash).write();
        if shard.has_entry(entry) {
            shard.pause(entry.hash, until);
        }
    }

    pub(crate) fn freshness(&self, meta: &Meta) -> Freshness {
        meta.freshness(&self.settings.groups, &self.root, &self.settings.clock)
    }

    /// Returns the entries of shard `index` that are alive.
    pub(crate) fn snapshot(&self, index: usize) -> Vec<Handle<K, V>> {
        let mut entries: Vec<_> = self.shards[index].read().entries().collect();
        entries.retain(|entry| self.freshness(&entry.meta) != Freshness::Dead);
        entries
    }

    /// Reclaims every dead entry.
    pub(crate) fn run_maintenance(&self) {
        for shard in &self.shards {
            let mut leaving = Leaving::default();
            let freed = shard.write().sweep_all(&self.judge(), &mut leaving);
            self.budget.release(freed);
            self.dispose(leaving);
        }
        self.index.reclaim();
    }

    /// Changes the capacity, and evicts until what is stored fits.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        let mut leaving = Leaving::default();
        let gathering = self.budget.gathering.lock();
        let before = self.budget.capacity();
        self.budget.set_capacity(capacity);
        self.index.set_capacity(capacity);
        if let Some(more) = capacity.checked_sub(before) {
            self.budget.release(more);
        } else {
            let excess = before - capacity;
            let mut grant = self.budget.take(excess);
            // Without a bound: an operation under way may hold some of the weight, until it has stored or returned it.
            while grant.weight() < excess {
                self.collect(&mut grant, excess, &mut leaving);
            }
            grant.spend(excess);
        }
        drop(gathering);
        self.dispose(leaving);
    }

    /// Tells of what left the shards, and drops it. Called without any lock.
    pub(crate) fn dispose(&self, mut leaving: Leaving<K, V>) {
        let tally = self.tally();
        leaving.hand_over(|entry, cause| {
            tally.removed(cause);
            self.tell(&entry, cause);
        });
    }

    /// Counts an entry that has left, and tells the listener.
    fn announce(&self, entry: &Entry<K, V>, cause: RemovalCause) {
        self.tally().removed(cause);
        self.tell(entry, cause);
    }

    /// Tells the listener of an entry that has left.
    #[inline]
    fn tell(&self, entry: &Entry<K, V>, cause: RemovalCause) {
        if let Some(listener) = &self.settings.listener {
            // A listener is told of what has happened already: its panic must not look like a failure of the operation.
            let told = catch_unwind(AssertUnwindSafe(|| listener(&entry.key, &entry.value, cause)));
            if let Err(panic) = told {
                self.tally().count(|counters| &counters.listener_panics);
                self.watch().listener_panicked();
                drop_quietly(panic);
            }
        }
    }

    /// Moves weight from the pool and the shards into `grant`, a little from each shard in turn, until it holds `wanted`.
    ///
    /// Fails if the capacity has become too small for it meanwhile. Runs none of the user's code: who holds a grant must
    /// not wait for anybody, since the one that collects waits for all grants.
    fn gather(&self, grant: &mut Grant<'_>, wanted: u64, leaving: &mut Leaving<K, V>) -> Result<(), Refusal> {
        grant.give_back();
        let _gathering = self.budget.gathering.lock();
        loop {
            let capacity = self.budget.capacity();
            if wanted > capacity {
                return Err(Refusal::Rejected(Rejected { weight: wanted, capacity }));
            }
            self.collect(grant, wanted, leaving);
            if grant.weight() >= wanted {
                return Ok(());
            }
        }
    }

    /// Goes round all shards once for [`gather`](Self::gather). The caller holds `gathering`.
    fn collect(&self, grant: &mut Grant<'_>, wanted: u64, leaving: &mut Leaving<K, V>) {
        grant.top_up(wanted);
        let share = wanted.saturating_sub(grant.weight()).div_ceil(self.shards.len() as u64);
        let first = self.budget.next_shard.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.shards.len() {
            let missing = wanted.saturating_sub(grant.weight());
            if missing == 0 {
                return;
            }
            let shard = &self.shards[(first + step) % self.shards.len()];
            let freed = shard.write().make_room(share.min(missing), None, &self.judge(), leaving);
            grant.add(freed);
        }
        if grant.weight() < wanted {
            // The rest is in the hands of operations under way, which need a moment to store or return it.
            thread::yield_now();
        }
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard<K, V>> {
        &self.shards[self.index.shard_of(hash)]
    }

    fn judge(&self) -> Judge<'_> {
        // The coarse clock never runs ahead: what it takes for dead is dead.
        Judge { root: &self.root, groups: &self.settings.groups, now: self.settings.clock.coarse() }
    }

    /// Returns whether `flight` still keeps others from filling its key.
    fn is_active(&self, flight: &Flight<K, V>) -> bool {
        let until = flight.held_until.get();
        !self.settings.clock.has_passed(until)
            && !flight.is_fenced(&self.root)
            && flight.overdue(&self.settings.clock).is_none()
    }

    /// Returns whether `flight` was overtaken by a bump of its groups or of the cache.
    pub(crate) fn is_fenced(&self, flight: &Flight<K, V>) -> bool {
        flight.is_fenced(&self.root)
    }

    /// Returns whether a fresh entry should be refreshed ahead of its soft deadline: past a part of its time; or at random, the
    /// sooner the longer its load took, which is XFetch ("Optimal probabilistic cache stampede prevention", Vattani,
    /// Chierichetti and Lowenstein, VLDB 2015).
    fn is_due_early(&self, meta: &Meta) -> bool {
        let Some(ahead) = self.settings.refresh_ahead else { return false };
        let soft = meta.soft.get();
        let before = match ahead {
            RefreshAhead::After(part) => meta.ahead(part),
            // The logarithm of a number from (0, 1]: that of 0 would make every entry due.
            RefreshAhead::AtRandom(beta) => {
                let luck = -(1.0 - fastrand::f64()).ln();
                // What cannot be said in a `Duration` is due.
                Duration::try_from_secs_f64(meta.lead.get().as_secs_f64() * beta * luck).unwrap_or(Duration::MAX)
            }
        };
        !before.is_zero() && soft.remaining(self.settings.clock.near(soft)).is_some_and(|left| left <= before)
    }

    /// Returns whether an entry was overtaken by a bump of one of its groups or of the cache.
    #[cfg(feature = "tiered")]
    pub(crate) fn is_overtaken(&self, meta: &Meta) -> bool {
        let born = meta.born.get();
        self.root.moved_since(born) || meta.groups.moved_since(born)
    }

    /// Returns whether this very entry is still in its shard.
    #[cfg(feature = "tiered")]
    pub(crate) fn is_current(&self, entry: &Handle<K, V>) -> bool {
        self.shard(entry.hash).read().has_entry(entry)
    }

    /// Removes every entry with this hash and fences every flight with it, for those who do not know the key.
    ///
    /// Should two keys share all 64 bits, it removes both: a miss, never a wrong answer.
    #[cfg(feature = "tiered")]
    pub(crate) fn remove_hash(&self, hash: u64) {
        self.dispose(self.take_hash(hash));
    }

    /// Takes out what [`remove_hash`](Self::remove_hash) does and runs no code of the user's: the caller hands what it returns
    /// to [`dispose`](Self::dispose) once it holds no lock.
    #[cfg(feature = "tiered")]
    pub(crate) fn take_hash(&self, hash: u64) -> Leaving<K, V> {
        let mut leaving = Leaving::default();
        let freed = self.shard(hash).write().remove_hash(hash, &self.judge(), &mut leaving);
        self.budget.release(freed);
        leaving
    }

    /// Makes every entry with this hash stale and fences every flight with it; otherwise as [`remove_hash`](Self::remove_hash).
    #[cfg(feature = "tiered")]
    pub(crate) fn expire_hash(&self, hash: u64) {
        let mut leaving = Leaving::default();
        self.shard(hash).write().expire_hash(hash, &mut leaving);
        self.dispose(leaving);
    }

    /// Returns whether an entry, dead ones among them, or a flight with this hash stands in its shard.
    #[cfg(feature = "tiered")]
    pub(crate) fn knows_hash(&self, hash: u64) -> bool {
        self.shard(hash).read().knows_hash(hash)
    }

    /// Takes a flight out of its shard, if it still stands. From then on nobody joins it.
    pub(crate) fn retract(&self, flight: &Arc<Flight<K, V>>) {
        self.shard(flight.hash).write().end_flight(flight);
    }

    /// Returns whether `flight` still stands: nobody has invalidated its key or taken it over.
    pub(crate) fn stands(&self, flight: &Arc<Flight<K, V>>) -> bool {
        self.shard(flight.hash).read().has_flight(flight)
    }
}

impl<K: Send + Sync, V: Send + Sync> Observer for Store<K, V> {
    fn gave_up(&self, allowed: Duration) {
        self.tally().count(|counters| &counters.load_aborts);
        self.tally().loaded(allowed, false);
    }
}

impl<K: Eq, V> Store<K, V> {
    /// Reads as [`read`](Self::read) does for a caller, who is counted, and whose hit keeps the entry from being evicted.
    #[inline]
    pub(crate) fn hit<Q, R>(&self, hash: u64, key: &Q, f: impl FnOnce(&Entry<K, V>) -> R) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        // Once for the search and for the counters.
        let reader = self.index.reader();
        let tally = self.counters.of(reader);
        let shard = self.index.shard_of(hash);
        let found =
            reader.and_then(|reader| self.index.find_by(reader, shard, hash, |entry| key.equivalent(&entry.key)));
        let Some(entry) = found else { return self.hit_locked(tally, hash, key, f) };
        // Straight to what nearly every call is for.
        if entry.meta.is_fresh(&self.settings.groups, &self.root, &self.settings.clock) {
            entry.meta.recency.touch();
            tally.count(|counters| &counters.hits_fresh);
            return Some(f(&entry));
        }
        self.hit_entry(tally, &entry, f)
    }

    /// Reads as [`hit`](Self::hit) does what was not found without the lock: as a rule it is not there.
    #[inline(never)]
    fn hit_locked<Q, R>(&self, tally: Tally<'_>, hash: u64, key: &Q, f: impl FnOnce(&Entry<K, V>) -> R) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        match self.find_locked(hash, key) {
            Some(entry) => self.hit_entry(tally, &entry, f),
            None => {
                tally.count(|counters| &counters.misses);
                None
            }
        }
    }

    /// Reads as [`hit`](Self::hit) does what may be stale or dead.
    #[inline(never)]
    fn hit_entry<R>(&self, tally: Tally<'_>, entry: &Entry<K, V>, f: impl FnOnce(&Entry<K, V>) -> R) -> Option<R> {
        let freshness = self.freshness(&entry.meta);
        tally.count(|counters| match freshness {
            Freshness::Fresh => &counters.hits_fresh,
            Freshness::Stale => &counters.hits_stale,
            Freshness::Dead => &counters.misses,
        });
        if freshness == Freshness::Dead {
            return None;
        }
        entry.meta.recency.touch();
        Some(f(entry))
    }

    /// Calls `f` with the entry of `key`, unless it is absent or dead. Runs outside of locks.
    #[inline]
    pub(crate) fn read<Q, R>(&self, hash: u64, key: &Q, f: impl FnOnce(&Entry<K, V>, Freshness) -> R) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.read_if(hash, key, |_| true, f)
    }

    /// Reads as [`read`](Self::read) does, and takes an entry that is not `usable` for a dead one.
    #[inline]
    pub(crate) fn read_if<Q, R>(
        &self,
        hash: u64,
        key: &Q,
        usable: impl FnOnce(&Meta) -> bool,
        f: impl FnOnce(&Entry<K, V>, Freshness) -> R,
    ) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let read = |entry: &Entry<K, V>| {
            if !usable(&entry.meta) {
                return None;
            }
            match self.freshness(&entry.meta) {
                Freshness::Dead => None,
                freshness => Some(f(entry, freshness)),
            }
        };
        match self.find_unlocked(hash, key) {
            Some(entry) => read(&entry),
            None => self.find_locked(hash, key).and_then(|entry| read(&entry)),
        }
    }

    /// Returns the entry of `key`, unless it is absent, not `usable`, or dead.
    pub(crate) fn find_if<Q>(
        &self,
        hash: u64,
        key: &Q,
        usable: impl FnOnce(&Meta) -> bool,
    ) -> Option<(Handle<K, V>, Freshness)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let entry = match self.find_unlocked(hash, key) {
            Some(entry) => entry.handle(),
            None => self.find_locked(hash, key)?,
        };
        let freshness = if usable(&entry.meta) { self.freshness(&entry.meta) } else { Freshness::Dead };
        (freshness != Freshness::Dead).then_some((entry, freshness))
    }

    /// Returns the entry of `key`, if a look without the lock finds it.
    #[inline]
    fn find_unlocked<Q>(&self, hash: u64, key: &Q) -> Option<Hit<'_, Entry<K, V>>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.index.find(self.index.shard_of(hash), hash, |entry| key.equivalent(&entry.key))
    }

    /// Returns the entry of `key`, by a look under the lock: one without it may have missed it on its way to another place.
    #[cold]
    fn find_locked<Q>(&self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.shard(hash).read().find(hash, key).map(Resident::handle)
    }

    /// Makes an entry of `value`, weighed and dated now. Drops no other where it is `CLAIMED`: made by a thread that has a
    /// claim, for which a `Drop` that asks for the claimed key would wait.
    pub(crate) fn entry<const CLAIMED: bool>(
        &self,
        hash: u64,
        key: K,
        value: V,
        born: Generation,
        spec: Spec,
        cost: Duration,
    ) -> Handle<K, V> {
        let settings = &self.settings;
        let weight = spec.weight.unwrap_or_else(|| settings.weigher.as_ref().map_or(1, |weigh| weigh(&key, &value)));
        #[cfg(feature = "tiered")]
        let is_copy = matches!(spec.lifetime, Lifetime::Left { .. });
        let lifetime = settings.lifetime_of(spec.lifetime, &value);
        let (now, soft, hard) = match &self.usual_deadlines {
            Some(usual) if lifetime.is_default() => usual.deadlines(&settings.clock),
            _ => settings.lifetime.deadlines(lifetime, &settings.clock),
        };
        let meta = Meta {
            born: AtomicGeneration::new(born),
            soft: AtomicDeadline::new(soft),
            hard: HardSpan::between(now, hard),
            groups: spec.groups,
            recency: Recency::default(),
            #[cfg(feature = "tiered")]
            is_own: !is_copy,
            weight: weight.max(1),
            created_ms: U48::new(now.as_ms()),
            grace: spec.grace.map_or(self.usual_grace, Millis::new),
            lead: settings.lead_of(lifetime, cost),
        };
        let shard = self.index.shard_of(hash);
        let entry = Entry { key, value, meta, hash };
        if CLAIMED { self.index.make_without_drops(shard, entry) } else { self.index.make(shard, entry) }
    }

    /// Makes the entry that takes the place of `old` with another value: in its groups, and as old as it.
    pub(crate) fn successor(&self, old: &Meta, hash: u64, key: K, value: V) -> Handle<K, V> {
        let weight = self.settings.weigher.as_ref().map_or(old.weight, |weigh| weigh(&key, &value));
        let meta = Meta {
            born: AtomicGeneration::new(old.born.get()),
            soft: AtomicDeadline::new(old.soft.get()),
            hard: old.hard,
            groups: old.groups.clone(),
            recency: Recency::default(),
            #[cfg(feature = "tiered")]
            is_own: old.is_own,
            weight: weight.max(1),
            created_ms: old.created_ms,
            grace: old.grace,
            lead: old.lead,
        };
        self.index.make(self.index.shard_of(hash), Entry { key, value, meta, hash })
    }

    /// Stores an entry on these terms, or says why not, and counts it. Where it was not stored, the caller's is the only handle.
    pub(crate) fn admit(&self, entry: &Handle<K, V>, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        let admitted = self.place(entry, terms);
        self.count_admitted(&admitted);
        admitted
    }

    /// Counts what came of storing an entry.
    pub(crate) fn count_admitted(&self, admitted: &Result<(), Refusal>) {
        match admitted {
            Ok(()) => self.tally().count(|counters| &counters.stores),
            Err(Refusal::Rejected(_)) => self.tally().count(|counters| &counters.rejections),
            Err(Refusal::Unmet | Refusal::Full) => {}
        }
    }

    /// Stores an entry as [`admit`](Self::admit) does, without counting it: a copy, or an attempt that others may follow.
    pub(crate) fn place(&self, entry: &Handle<K, V>, terms: &Terms<'_, K, V>) -> Result<(), Refusal> {
        let mut leaving = Leaving::default();
        let admitted = self.try_admit(entry, terms, &mut leaving);
        // Whoever waits for a load that was overtaken by a value stored meanwhile finds that value.
        leaving.flights.iter().for_each(|flight| flight.land(Outcome::Abandoned));
        self.dispose(leaving);
        admitted
    }

    /// Stores an entry on terms that make no room for it, without counting it. Where there is none, reclaims the dead first, unless the caller has
    /// had that done before.
    pub(crate) fn warm(
        &self,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        reclaimed: &mut bool,
    ) -> Result<(), Refusal> {
        match self.place(entry, terms) {
            Err(Refusal::Full) if !std::mem::replace(reclaimed, true) => {
                self.run_maintenance();
                self.place(entry, terms)
            }
            admitted => admitted,
        }
    }

    fn try_admit(
        &self,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        leaving: &mut Leaving<K, V>,
    ) -> Result<(), Refusal> {
        let weight = entry.meta.weight;
        let capacity = self.budget.capacity();
        if weight > capacity {
            self.displace(entry, terms, leaving)?;
            return Err(Refusal::Rejected(Rejected { weight, capacity }));
        }
        // Dead on arrival, by a deadline of zero: it takes the place of what was there, and nothing makes room for it.
        if entry.meta.hard().has_passed(entry.meta.created()) {
            self.displace(entry, terms, leaving)?;
            // Told of after what it displaced.
            leaving.hand_over(|entry, cause| self.announce(&entry, cause));
            self.announce(entry, RemovalCause::Expired);
            return Ok(());
        }
        let mut grant = self.budget.take(weight);
        loop {
            let mut shard = self.shard(entry.hash).write();
            if !self.hold(terms, &shard, entry) {
                return Err(Refusal::Unmet);
            }
            if terms.is_to_warm() && grant.weight() < weight {
                return Err(Refusal::Full);
            }
            // Nothing is touched before it is sure that there will be room.
            if grant.weight() + shard.weight() < weight {
                drop(shard);
                if let Err(refusal) = self.gather(&mut grant, weight, leaving) {
                    self.displace(entry, terms, leaving)?;
                    return Err(refusal);
                }
                continue;
            }
            let judge = self.judge();
            let (freed, arrival) = Self::take_out(&mut shard, entry, terms, &judge, leaving);
            grant.add(freed);
            let mut arrival = arrival.unwrap_or_else(|| shard.arrive(entry.hash));
            let missing = weight.saturating_sub(grant.weight());
            grant.add(shard.make_room(missing, Some(&mut arrival), &judge, leaving));
            grant.spend(weight);
            shard.insert(entry, arrival, &judge, || capacity / self.shards.len() as u64);
            #[cfg(feature = "tiered")]
            if let Terms::ToPause(_, until) = terms {
                shard.pause(entry.hash, *until);
            }
            grant.add(shard.sweep_in_passing(&judge, leaving));
            return Ok(());
        }
    }

    /// Removes what an entry was to replace that cannot be stored itself.
    fn displace(
        &self,
        entry: &Handle<K, V>,
        terms: &Terms<'_, K, V>,
        leaving: &mut Leaving<K, V>,
    ) -> Result<(), Refusal> {
        let mut shard = self.shard(entry.hash).write();
        if !self.hold(terms, &shard, entry) {
            return Err(Refusal::Unmet);
        }
        let (freed, _) = Self::take_out(&mut shard, entry, terms, &self.judge(), leaving);
        self.budget.release(freed);
        Ok(())
    }

    /// Takes out the entry and the flight of `entry`'s key; returns what the former weighed, and how `entry` will take its
    /// place if there was one.
    fn take_out(
        shard: &mut RwLockWriteGuard<'_, Shard<K, V>>,
        entry: &Entry<K, V>,
        terms: &Terms<'_, K, V>,
        judge: &Judge<'_>,
        leaving: &mut Leaving<K, V>,
    ) -> (u64, Option<Arrival>) {
        match terms.flight() {
            // The flight is the caller's own, who lets it land.
            Some(flight) => {
                shard.end_flight(flight);
            }
            None => {
                if let Some(flight) = shard.fence(entry.hash, &entry.key) {
                    leaving.flights.push(flight);
                }
            }
        }
        if let Terms::IfCurrent(old) = terms {
            // Again, now that nobody can move it any more: it may have been expired while its successor was made.
            entry.meta.soft.set(old.meta.soft.get());
        }
        let Some((old, arrival)) = shard.succeed(entry.hash, &entry.key) else { return (0, None) };
        let weight = old.meta.weight;
        let cause = judge.cause_of_death(&old.meta).unwrap_or(RemovalCause::Replaced);
        leaving.push(old, cause);
        (weight, Some(arrival))
    }

    fn hold(&self, terms: &Terms<'_, K, V>, shard: &Shard<K, V>, entry: &Entry<K, V>) -> bool {
        let current = || shard.find(entry.hash, &entry.key);
        let is_absent = || current().is_none_or(|known| self.freshness(&known.meta) == Freshness::Dead);
        // The groups are looked at again on every hit: a bump after this look finds the entry by its generation.
        let stands = |flight| {
            shard.has_flight(flight)
                && !self.root.moved_since(flight.born)
                && !entry.meta.groups.moved_since(flight.born)
        };
        match terms {
            Terms::Always => true,
            Terms::IfAbsent => is_absent(),
            Terms::IfCurrent(old) => shard.has_entry(old),
            Terms::IfStands(flight) => stands(flight),
            #[cfg(feature = "tiered")]
            Terms::ToPause(flight, _) | Terms::ToWarmUnder(flight) => stands(flight),
            // A load that is under way will bring what is newer.
            Terms::ToWarm => {
                let flight = shard.flight(entry.hash, &entry.key);
                is_absent() && !flight.is_some_and(|flight| self.is_active(flight))
            }
        }
    }

    /// Removes the entry of `key` and fences its flight. Returns the entry, unless it was dead.
    pub(crate) fn remove<Q>(&self, hash: u64, key: &Q) -> Option<Unlinked<Entry<K, V>>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let mut shard = self.shard(hash).write();
        let flight = shard.fence(hash, key);
        let entry = shard.remove(hash, key);
        drop(shard);
        drop(flight);
        let entry = entry?;
        self.budget.release(entry.meta.weight);
        let cause = self.judge().cause_of_death(&entry.meta);
        let alive = self.freshness(&entry.meta) != Freshness::Dead;
        self.announce(&entry, cause.unwrap_or(RemovalCause::Removed));
        alive.then_some(entry)
    }

    /// Makes the entry of `key` stale and fences its flight; returns whether there is one alive.
    pub(crate) fn expire<Q>(&self, hash: u64, key: &Q) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let mut shard = self.shard(hash).write();
        let flight = shard.fence(hash, key);
        let alive = match shard.find(hash, key) {
            Some(entry) if self.freshness(&entry.meta) != Freshness::Dead => {
                entry.meta.expire();
                true
            }
            _ => false,
        };
        if alive {
            shard.end_pause(hash);
        }
        drop(shard);
        drop(flight);
        alive
    }

    /// Removes this very entry, which was [placed](Self::place) and is not to count; returns whether it was still there.
    #[cfg(feature = "tiered")]
    pub(crate) fn withdraw(&self, entry: &Handle<K, V>) -> bool {
        let withdrawn = self.shard(entry.hash).write().remove_entry(entry);
        if withdrawn.is_some() {
            self.budget.release(entry.meta.weight);
            self.tell(entry, RemovalCause::Removed);
        }
        withdrawn.is_some()
    }

    /// Removes these very entries of shard `index`, as far as they are still there, and fences their flights.
    pub(crate) fn remove_entries(&self, index: usize, entries: Vec<Handle<K, V>>) {
        let mut leaving = Leaving::default();
        // Goes back to the pool even if a comparison of keys panics half-way.
        let mut freed = self.budget.take(0);
        let mut shard = self.shards[index].write();
        // Borrowed: an entry that has left meanwhile may have its last handle here, to be dropped once the lock is free.
        for entry in &entries {
            if !shard.has_entry(entry) {
                continue;
            }
            // First, since it compares keys: should that panic, what has left by then is in `leaving`, and is dropped once the
            // lock is free as well.
            leaving.flights.extend(shard.fence(entry.hash, &entry.key));
            if let Some(entry) = shard.remove_entry(entry) {
                freed.add(entry.meta.weight);
                leaving.push(entry, RemovalCause::Removed);
            }
        }
        drop(shard);
        drop(freed);
        drop(entries);
        self.dispose(leaving);
    }
}

impl<K: Eq, V: Clone> Store<K, V> {
    /// Looks for the value of `key`, and claims the key if it is vacant or stale and nobody else fills it.
    pub(crate) fn look<Q>(self: &Arc<Self>, hash: u64, key: &Q) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        self.look_if(hash, key, |_| true)
    }

    /// Looks as [`look`](Self::look) does, and takes an entry that is not `usable` for a dead one.
    ///
    /// So it is vacant, or busy while another caller fills it: whoever claimed it, and for whatever reason. The claim has no
    /// stale value, its fill takes the entry's place, and a bump of the entry's groups fences it all the same. Callers to
    /// whom the entry is usable are served from it meanwhile.
    ///
    /// `usable` may run several times, also under the shard's read lock. What it says may change with the time: an entry that is
    /// usable again by the time it is claimed is refreshed early, that is all.
    pub(crate) fn look_if<Q>(self: &Arc<Self>, hash: u64, key: &Q, usable: impl Fn(&Meta) -> bool) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        // Before anything is looked at: a load that starts from what is found here is judged by this moment.
        let arrived = self.settings.groups.generation();
        let fresh = self
            .find_unlocked(hash, key)
            .filter(|entry| usable(&entry.meta) && self.freshness(&entry.meta) == Freshness::Fresh);
        // Chance is asked once for an entry: who is to refresh it does not ask again under the lock.
        let mut due = None;
        if let Some(entry) = fresh {
            if !self.is_due_early(&entry.meta) {
                entry.meta.recency.touch();
                return Look::Fresh(entry.value.clone());
            }
            due = Some(entry.handle());
        }
        self.look_closely(arrived, hash, key, usable, due.as_ref())
    }

    /// Looks as [`look_if`](Self::look_if) does, under the shard's lock, where flights and pauses are. Does not ask
    /// chance again whether the entry is due that was found to be; another one may have come in its place.
    #[cold]
    fn look_closely<Q>(
        self: &Arc<Self>,
        arrived: Generation,
        hash: u64,
        key: &Q,
        usable: impl Fn(&Meta) -> bool,
        due: Option<&Handle<K, V>>,
    ) -> Look<K, V>
    where
        Q: ToKey<K> + ?Sized,
    {
        loop {
            let shard = self.shard(hash).read();
            let found = shard.find(hash, key).map(Resident::handle);
            let alive = found.as_ref().filter(|entry| usable(&entry.meta));
            let freshness = alive.map_or(Freshness::Dead, |entry| self.freshness(&entry.meta));
            if let (Some(entry), Freshness::Fresh | Freshness::Stale) = (&found, freshness) {
                entry.meta.recency.touch();
            }
            if let (Some(entry), Freshness::Fresh) = (&found, freshness)
                && !due.is_some_and(|due| due.ptr_eq(entry))
                && !self.is_due_early(&entry.meta)
            {
                drop(shard);
                return Look::Fresh(entry.value.clone());
            }
            let flight = shard.flight(hash, key);
            if let Some(limit) = flight.and_then(|flight| flight.overdue(&self.settings.clock)) {
                // A moment before the timer: the load is given up before anybody else is let at the key.
                let limit = limit.clone();
                drop(shard);
                limit.give_up();
                continue;
            }
            let busy = flight.filter(|flight| self.is_active(flight));
            if freshness == Freshness::Dead {
                if let Some(flight) = busy {
                    return Look::Busy(flight.join(arrived));
                }
            } else if let Some(entry) = &found {
                let paused_until = shard.paused_until(hash);
                if busy.is_some() || !self.settings.clock.has_passed(paused_until) {
                    drop(shard);
                    return Self::seen(freshness, entry.value.clone(), None);
                }
            }
            drop(shard);
            if let Some(claim) = self.claim(hash, key, arrived, found.as_ref(), freshness) {
                return match found {
                    Some(entry) if freshness != Freshness::Dead => {
                        Look::Stale { value: entry.value.clone(), claim: Some(claim) }
                    }
                    _ => Look::Vacant(claim),
                };
            }
            // Another caller was faster. Every round of this loop is somebody's progress.
        }
    }

    /// Claims `key` for a load that nobody has waited for, whether its value is stale yet or not; `None` while another caller
    /// fills it.
    pub(crate) fn claim_anyway<Q>(self: &Arc<Self>, hash: u64, key: &Q) -> Option<Claim<K, V>>
    where
        Q: ToKey<K> + ?Sized,
    {
        // As in `look_if`.
        let born = self.settings.groups.generation();
        loop {
            let shard = self.shard(hash).read();
            let found = shard.find(hash, key).map(Resident::handle);
            let flight = shard.flight(hash, key).cloned();
            drop(shard);
            match flight {
                Some(flight) if self.is_active(&flight) => return None,
                Some(flight) => {
                    if let Some(limit) = flight.overdue(&self.settings.clock) {
                        limit.give_up();
                    }
                }
                None => {}
            }
            let freshness = found.as_ref().map_or(Freshness::Dead, |entry| self.freshness(&entry.meta));
            if let Some(claim) = self.claim(hash, key, born, found.as_ref(), freshness) {
                return Some(claim);
            }
        }
    }

    fn seen(freshness: Freshness, value: V, claim: Option<Claim<K, V>>) -> Look<K, V> {
        if freshness == Freshness::Fresh { Look::Fresh(value) } else { Look::Stale { value, claim } }
    }

    /// Claims `key`, unless what was `found` there has changed or another caller has claimed it meanwhile.
    fn claim<Q>(
        self: &Arc<Self>,
        hash: u64,
        key: &Q,
        born: Generation,
        found: Option<&Handle<K, V>>,
        freshness: Freshness,
    ) -> Option<Claim<K, V>>
    where
        Q: ToKey<K> + ?Sized,
    {
        let settings = &self.settings;
        let grace = found.map_or(settings.grace, |entry| entry.meta.grace.get());
        let suspects = found.map_or(GroupSet::EMPTY, |entry| entry.meta.groups.clone());
        let draft = Draft::new(settings.groups.clone());
        let begun = settings.clock.now();
        let flight = Arc::new(Flight::new(hash, key.to_key(), born, begun, grace, draft, suspects));
        let stale = found.filter(|_| freshness != Freshness::Dead).cloned();
        let entry_key = key.to_key();

        let mut shard = self.shard(hash).write();
        let unchanged = match found {
            Some(then) => shard.has_entry(then),
            None => shard.find(hash, key).is_none(),
        };
        // One that is overdue is given up before its key is claimed anew, or two loads would run: whoever looks again does it.
        let is_taken =
            |flight: &Arc<Flight<K, V>>| self.is_active(flight) || flight.overdue(&self.settings.clock).is_some();
        if !unchanged || shard.flight(hash, key).is_some_and(is_taken) {
            return None;
        }
        // A holder that seems to have vanished, or whose load was overtaken by a bump: its ticket is void from here on.
        let superseded = shard.fence(hash, key);
        shard.start_flight(flight.clone());
        drop(shard);
        if let Some(flight) = superseded {
            flight.land(Outcome::Abandoned);
        }
        Some(Claim::new(self.clone(), flight, entry_key, stale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cache, EntryOptions, Lookup};

    impl<K, V> Store<K, V> {
        /// Panics unless every shard is in order and no weight is lost or made. While nothing else runs.
        fn validate(&self) {
            let stored: u64 = self.shards.iter().map(|shard| shard.read().weight()).sum();
            self.shards.iter().for_each(|shard| shard.read().validate());
            let free = self.budget.take(u64::MAX).weight();
            assert_eq!(stored + free, self.capacity(), "{stored} are stored and {free} are free");
        }
    }

    /// Ends what an operation returned, of whatever type.
    fn ignore<T>(_: T) {}

    fn random_operation(cache: &Cache<u32, u32>, claims: &mut Vec<Claim<u32, u32>>, time: &crate::ManualClock) {
        let key = fastrand::u32(..40);
        let group = fastrand::u32(..5).to_string();
        let weight = if fastrand::u8(..20) == 0 { fastrand::u64(..200) } else { fastrand::u64(..8) };
        let ttl = Duration::from_millis(fastrand::u64(1..100));
        let options = || EntryOptions::new().weight(weight).groups([&group]);
        match fastrand::u8(..27) {
            0..6 => ignore(cache.insert_with(key, key, options())),
            6..8 => ignore(cache.insert_with(key, key, options().ttl(ttl))),
            8 => ignore(cache.remove(&key)),
            9 => ignore(cache.update(&key, |value| value + 1)),
            10 => ignore(cache.expire(&key)),
            11 => cache.invalidate_group(&group),
            12 => cache.clear(),
            13 => cache.run_maintenance(),
            14 => cache.retain(|key, _| key % 4 != 0),
            15 => cache.set_capacity(fastrand::u64(..150)),
            16 => time.advance(ttl),
            17..20 => {
                if let Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } = cache.lookup(&key) {
                    claims.push(claim);
                }
            }
            20 => claims.truncate(1),
            21 => {
                if let Some(claim) = claims.pop() {
                    drop(claim.fill_with(key, options()));
                }
            }
            #[cfg(feature = "tiered")]
            22 => cache.store.remove_hash(cache.hash(&key)),
            #[cfg(feature = "tiered")]
            23 => cache.store.expire_hash(cache.hash(&key)),
            // As a refresh that failed would. A pause that outlived its entry would stay for good, and there is no bound to those.
            24 => {
                if let Some((entry, _)) = cache.store.find_if(cache.hash(&key), &key, |_| true) {
                    cache.store.pause(&entry, ttl);
                }
            }
            _ => ignore(cache.get(&key)),
        }
    }

    #[test]
    fn random_operations_keep_every_shard_in_order() {
        for shards in [1, 2, 8, 64] {
            fastrand::seed(shards as u64);
            let (clock, time) = Clock::manual();
            let cache: Cache<u32, u32> = Cache::builder().capacity(100).shards(shards).clock(clock).build().unwrap();
            let mut claims = Vec::new();
            for _ in 0..20_000 {
                random_operation(&cache, &mut claims, &time);
                cache.store.validate();
            }
        }
    }

    #[test]
    fn operations_of_many_threads_lose_no_weight() {
        for shards in [1, 8] {
            let (clock, time) = Clock::manual();
            let cache: Cache<u32, u32> = Cache::builder().capacity(100).shards(shards).clock(clock).build().unwrap();
            for round in 0..20 {
                std::thread::scope(|scope| {
                    for thread in 0..4 {
                        let (cache, time) = (&cache, &time);
                        scope.spawn(move || {
                            fastrand::seed(round * 4 + thread);
                            let mut claims = Vec::new();
                            (0..500).for_each(|_| random_operation(cache, &mut claims, time));
                        });
                    }
                });
                cache.store.validate();
            }
        }
    }

    /// To one caller an entry is usable, and to another it is not.
    mod usable {
        use super::*;
        use crate::Fill;

        fn cache() -> (Cache<u32, u32>, crate::ManualClock) {
            let (clock, time) = Clock::manual();
            (Cache::builder().capacity(10).clock(clock).build().unwrap(), time)
        }

        fn refuse(cache: &Cache<u32, u32>, key: u32) -> Look<u32, u32> {
            cache.store.look_if(cache.hash(&key), &key, |_| false)
        }

        #[test]
        fn an_entry_that_is_refused_is_vacant_for_one_caller_and_busy_for_the_next() {
            let (cache, _time) = cache();
            cache.insert(1, 1).unwrap();
            let Look::Vacant(claim) = refuse(&cache, 1) else { panic!("an unusable entry is like none") };
            assert_eq!(claim.stale(), None);
            assert!(matches!(refuse(&cache, 1), Look::Busy(Some(_))));
            assert!(matches!(cache.lookup(&1), Lookup::Fresh(1)));
            assert_eq!(cache.store.read_if(cache.hash(&1_u32), &1, |_| false, |entry, _| entry.value), None);
            assert_eq!(cache.store.read_if(cache.hash(&1_u32), &1, |_| true, |entry, _| entry.value), Some(1));

            assert!(claim.fill(2).is_stored());
            assert_eq!((cache.get(&1), cache.len()), (Some(2), 1));
            cache.store.validate();
        }

        #[test]
        fn the_groups_of_a_refused_entry_fence_the_fill_that_replaces_it() {
            let (cache, _time) = cache();
            cache.insert_with(1, 1, EntryOptions::new().groups(["g"])).unwrap();
            let Look::Vacant(claim) = refuse(&cache, 1) else { panic!("an unusable entry is like none") };
            assert!(claim.stands());
            cache.invalidate_group("g");
            assert!(!claim.stands());
            let Look::Vacant(successor) = refuse(&cache, 1) else { panic!("a fenced flight keeps nobody out") };
            assert!(matches!(claim.fill(2), Fill::Fenced(2)));
            assert!(successor.fill(3).is_stored());
        }

        #[test]
        fn a_refused_entry_waits_for_the_refresh_that_others_began() {
            let (cache, _time) = cache();
            cache.insert(1, 1).unwrap();
            cache.expire(&1);
            let Lookup::Stale { value: 1, claim: Some(claim) } = cache.lookup(&1) else { panic!("it is stale") };
            assert!(matches!(refuse(&cache, 1), Look::Busy(Some(_))));
            drop(claim);
            let Look::Vacant(claim) = refuse(&cache, 1) else { panic!("nobody is at it") };
            assert!(matches!(cache.lookup(&1), Lookup::Stale { value: 1, claim: None }));
            assert!(claim.fill(2).is_stored());
        }

        #[test]
        fn a_failed_refresh_keeps_nobody_from_replacing_a_refused_entry() {
            let (clock, _time) = Clock::manual();
            let cache: Cache<u32, u32> =
                Cache::builder().capacity(10).stale_if_error(Duration::from_secs(1)).clock(clock).build().unwrap();
            cache.insert(1, 1).unwrap();
            cache.expire(&1);
            assert_eq!(cache.get_or_load(&1, |_| Err("down")).unwrap(), 1);
            assert!(matches!(cache.lookup(&1), Lookup::Stale { value: 1, claim: None }));
            assert!(matches!(refuse(&cache, 1), Look::Vacant(_)));
        }

        /// The key 1, and what another caller does between a look at it and the claim.
        struct Meddled<F>(std::cell::Cell<Option<F>>);

        impl<F> Equivalent<u32> for Meddled<F> {
            fn equivalent(&self, key: &u32) -> bool {
                *key == 1
            }
        }

        impl<F: FnOnce()> ToKey<u32> for Meddled<F> {
            fn to_key(&self) -> u32 {
                if let Some(meddle) = self.0.take() {
                    meddle();
                }
                1
            }
        }

        /// Refuses what is under key 1, while another caller comes in between.
        fn refuse_meddled(cache: &Cache<u32, u32>, meddle: impl FnOnce()) -> Look<u32, u32> {
            let key = Meddled(std::cell::Cell::new(Some(meddle)));
            cache.store.look_if(cache.hash(&1_u32), &key, |_| false)
        }

        #[test]
        fn a_refused_entry_that_changes_before_the_claim_is_looked_at_again() {
            let (cache, _time) = cache();
            cache.insert(1, 1).unwrap();
            let mut rival = None;
            assert!(matches!(refuse_meddled(&cache, || rival = Some(refuse(&cache, 1))), Look::Busy(Some(_))));
            assert!(matches!(rival.take(), Some(Look::Vacant(_))));

            let Look::Vacant(claim) = refuse_meddled(&cache, || ignore(cache.remove(&1))) else { panic!("vacant") };
            drop(claim);
            let replace = || cache.insert_with(1, 2, EntryOptions::new().groups(["late"])).unwrap();
            let Look::Vacant(claim) = refuse_meddled(&cache, replace) else { panic!("the new one is refused too") };
            cache.invalidate_group("late");
            assert!(!claim.stands(), "the groups of the entry that it replaces are known");
        }
    }

    /// What needs two keys with the same 64 bits, and what only the tiered cache does.
    #[cfg(feature = "tiered")]
    mod by_hash {
        use std::hash::{BuildHasherDefault, Hasher};

        use super::*;
        use crate::Fill;
        use crate::sync::Mutex;

        /// Gives keys 0 and 1 one hash, 2 and 3 another, and so on.
        #[derive(Default)]
        struct Pairs(u64);

        impl Hasher for Pairs {
            fn write(&mut self, _: &[u8]) {
                unreachable!("only `u64`s are hashed");
            }

            fn write_u64(&mut self, key: u64) {
                self.0 = (key / 2).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }

            fn finish(&self) -> u64 {
                self.0
            }
        }

        type Twins = Cache<u64, u64, BuildHasherDefault<Pairs>>;
        type Told = Arc<Mutex<Vec<(u64, RemovalCause)>>>;

        /// Returns a cache of 100, what its listener is told, and its clock.
        fn twins() -> (Twins, Told, crate::ManualClock) {
            let told = Told::default();
            let (clock, time) = Clock::manual();
            let cache = Cache::builder()
                .capacity(100)
                .shards(1)
                .clock(clock)
                .hasher(BuildHasherDefault::default())
                .on_removal({
                    let told = told.clone();
                    move |key, _, cause| told.lock().push((*key, cause))
                })
                .build()
                .unwrap();
            (cache, told, time)
        }

        fn claim(cache: &Twins, key: u64) -> Claim<u64, u64> {
            match cache.lookup(&key) {
                Lookup::Vacant(claim) | Lookup::Stale { claim: Some(claim), .. } => claim,
                found => panic!("{key} is not to be had: {found:?}"),
            }
        }

        #[test]
        fn a_removal_by_hash_takes_all_that_stands_under_it_and_nothing_else() {
            let (cache, told, _time) = twins();
            for key in 0..4_u64 {
                cache.insert_with(key, key, EntryOptions::new().weight(5 + key).groups([key.to_string()])).unwrap();
            }
            cache.invalidate_group("1");
            let before = cache.stats();
            cache.store.remove_hash(cache.hash(&0_u64));
            cache.store.validate();
            let mut told = told.lock();
            told.sort_unstable_by_key(|(key, _)| *key);
            assert_eq!(*told, [(0, RemovalCause::Removed), (1, RemovalCause::Invalidated)]);
            assert_eq!((cache.weight(), cache.get(&0), cache.get(&2), cache.get(&3)), (7 + 8, None, Some(2), Some(3)));
            let since = cache.stats() - before;
            assert_eq!((since.removals, since.invalidations), (1, 1));
        }

        #[test]
        fn a_removal_by_hash_refuses_the_fills_of_all_claims_under_it() {
            let (cache, told, _time) = twins();
            let claims = [claim(&cache, 0), claim(&cache, 1)];
            let other = claim(&cache, 2);
            let hash = cache.hash(&0_u64);
            assert!(cache.store.knows_hash(hash));
            cache.store.remove_hash(hash);
            assert!(!cache.store.knows_hash(hash));
            // Who comes now does not join what began before.
            let successor = claim(&cache, 0);
            assert!(claims.into_iter().all(|claim| matches!(claim.fill(7), Fill::Fenced(7))));
            assert!(successor.fill(8).is_stored());
            assert!(other.fill(9).is_stored());
            assert_eq!((cache.get(&0), cache.get(&1), cache.get(&2)), (Some(8), None, Some(9)));
            assert_eq!(*told.lock(), []);
            cache.store.validate();
        }

        #[test]
        fn an_expiration_by_hash_makes_entries_stale_and_refuses_fills() {
            let (cache, told, _time) = twins();
            cache.insert(0, 0).unwrap();
            cache.insert(2, 2).unwrap();
            let flying = claim(&cache, 1);
            cache.store.expire_hash(cache.hash(&0_u64));
            assert!(matches!(flying.fill(7), Fill::Fenced(7)));
            assert!(matches!(cache.lookup(&0), Lookup::Stale { value: 0, claim: Some(_) }));
            assert!(matches!(cache.lookup(&2), Lookup::Fresh(2)));
            assert_eq!(*told.lock(), []);
            cache.store.validate();
        }

        #[test]
        fn a_hash_is_known_from_the_claim_to_the_removal() {
            let (cache, _told, _time) = twins();
            let known = || [0_u64, 2].map(|key| cache.store.knows_hash(cache.hash(&key)));
            assert_eq!(known(), [false, false]);
            let taken = claim(&cache, 0);
            assert_eq!(known(), [true, false]);
            assert!(taken.fill(0).is_stored());
            assert_eq!(known(), [true, false]);
            cache.remove(&0);
            assert_eq!(known(), [false, false]);
            drop(claim(&cache, 1));
            assert_eq!(known(), [false, false]);
        }
    }
}
