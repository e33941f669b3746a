//! Building a cache: every setting with its default, and the checks that need all of them.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::time::Duration;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::error::BuildError;
use crate::group::Groups;
use crate::options::{Absence, DefaultLifetime, RefreshAhead, Validator};
use crate::stats::RemovalCause;
use crate::store::{Listener, Settings, Store, Weigher};
use crate::sync::Arc;

/// How many times as long as the soft deadline the hard one is, unless the builder says otherwise.
const HARD_TTL_FACTOR: u32 = 8;

/// How long a claim lasts, unless the builder says otherwise.
const GRACE: Duration = Duration::from_secs(60);

/// How long a caller waits for the load of another, unless the builder says otherwise.
const LOAD_WAIT: Duration = Duration::from_secs(10);

/// The most shards a cache may have: as many as the hash bits that choose one can tell apart.
const MAX_SHARDS: usize = 1 << 16;

/// How many entries a shard should have room for at least, when the number of shards is not given: with fewer, its eviction
/// policy sees too little to tell good from bad.
const ENTRIES_PER_SHARD: u64 = 64;

/// How many shards there are for each thread that the machine runs at once, when the number of shards is not given.
const SHARDS_PER_THREAD: usize = 4;

/// Builds a [`Cache`]. Made by [`Cache::builder`].
///
/// Without deadlines, entries live until they are removed, invalidated or evicted. Combinations that make no sense are
/// errors of [`build`](Self::build), which names the value and what to do.
#[must_use = "a builder does nothing until it is built"]
pub struct CacheBuilder<K, V, S = ahash::RandomState> {
    name: Box<str>,
    capacity: Option<u64>,
    weigher: Option<Weigher<K, V>>,
    shards: Option<usize>,
    hasher: S,
    ttl: Option<Duration>,
    soft_ttl: Option<Duration>,
    hard_ttl: Option<Duration>,
    hard_ttl_factor: Option<u32>,
    grace: Duration,
    jitter: f64,
    early_refresh: Option<f64>,
    refresh_ahead: Option<f64>,
    absence: Option<Absence<V>>,
    validator: Option<Validator<V>>,
    stale_if_error: Option<Duration>,
    load_wait: Duration,
    listener: Option<Listener<K, V>>,
    clock: Clock,
    groups: Groups,
    marker: PhantomData<fn(K, V)>,
}

impl<K, V> CacheBuilder<K, V> {
    pub(crate) fn new() -> CacheBuilder<K, V> {
        CacheBuilder {
            name: "cache".into(),
            capacity: None,
            weigher: None,
            shards: None,
            hasher: ahash::RandomState::new(),
            ttl: None,
            soft_ttl: None,
            hard_ttl: None,
            hard_ttl_factor: None,
            grace: GRACE,
            jitter: 0.0,
            early_refresh: None,
            refresh_ahead: None,
            absence: None,
            validator: None,
            stale_if_error: None,
            load_wait: LOAD_WAIT,
            listener: None,
            clock: Clock::system(),
            groups: Groups::new(),
            marker: PhantomData,
        }
    }
}

impl<K, V, S> CacheBuilder<K, V, S> {
    /// Names the cache, for debug output, metrics and spans. Default: `cache`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how much weight the cache may hold: entries, unless a weigher or the entries say otherwise. Required. Zero stores
    /// nothing: every insert is rejected, and loads are shared but not kept.
    pub fn capacity(mut self, capacity: u64) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Sets what an entry weighs. Default: 1 each. Zero counts as 1, so that the number of entries stays bounded. Runs once
    /// for each value stored, outside all locks; an entry's own weight goes before it.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Sets the number of shards, each with a lock of its own: a power of two up to 65,536. Default: four for each thread
    /// that the machine runs at once, but no more than leave room for 64 entries of weight 1 in each.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Sets how keys are hashed. Default: `ahash::RandomState`, keyed at random, which resists crafted keys. A hasher of your
    /// own has to spread over all 64 bits.
    pub fn hasher<T>(self, hasher: T) -> CacheBuilder<K, V, T> {
        CacheBuilder {
            name: self.name,
            capacity: self.capacity,
            weigher: self.weigher,
            shards: self.shards,
            hasher,
            ttl: self.ttl,
            soft_ttl: self.soft_ttl,
            hard_ttl: self.hard_ttl,
            hard_ttl_factor: self.hard_ttl_factor,
            grace: self.grace,
            jitter: self.jitter,
            early_refresh: self.early_refresh,
            refresh_ahead: self.refresh_ahead,
            absence: self.absence,
            validator: self.validator,
            stale_if_error: self.stale_if_error,
            load_wait: self.load_wait,
            listener: self.listener,
            clock: self.clock,
            groups: self.groups,
            marker: PhantomData,
        }
    }

    /// Sets a hard deadline alone: a value is dead `ttl` after it is stored, and never stale before. Default: none. Zero is
    /// an error, as is setting another deadline beside it. Exact as [`hard_ttl`](Self::hard_ttl) is.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the soft deadline: a value is stale `ttl` after it is stored. Default: none. Zero is an error.
    ///
    /// Rounded up to a millisecond. A value whose deadlines are all 1.1 seconds away or more may meet them up to 11 ms early,
    /// since a cheaper clock says when it is stored; never late.
    pub fn soft_ttl(mut self, ttl: Duration) -> Self {
        self.soft_ttl = Some(ttl);
        self
    }

    /// Sets the hard deadline: a value is dead `ttl` after it is stored. Default: the soft deadline times
    /// [`hard_ttl_factor`](Self::hard_ttl_factor); without a soft deadline none. Zero, or less than the soft deadline, is an
    /// error.
    ///
    /// Exact as [`soft_ttl`](Self::soft_ttl) is below 24 days. From there on it is kept to the second, rounded down, and what is
    /// 68 years or more is never.
    pub fn hard_ttl(mut self, ttl: Duration) -> Self {
        self.hard_ttl = Some(ttl);
        self
    }

    /// Sets how many times as long as its soft deadline a value's hard one is, where only the former is given. Default: 8.
    /// Zero is an error, as is a `hard_ttl` beside it.
    pub fn hard_ttl_factor(mut self, factor: u32) -> Self {
        self.hard_ttl_factor = Some(factor);
        self
    }

    /// Sets how long a claim lasts before another caller may take it: the time after which a holder counts as vanished.
    /// Default: 60 s. Zero is an error. A claim whose loader runs on its holder's stack does not run out.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Shortens the deadlines of each value by a random part of themselves, up to `part`, so that what was stored together
    /// does not expire together. From 0, the default, up to but not including 1.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = part;
        self
    }

    /// Refreshes values ahead of their soft deadline, at random, the sooner the longer their load took (XFetch: Vattani,
    /// Chierichetti and Lowenstein, VLDB 2015). `beta` scales how soon: 1 is the paper's choice, more is earlier. Default:
    /// off. Must be positive and finite. Of values that were loaded, not inserted.
    pub fn early_refresh(mut self, beta: f64) -> Self {
        self.early_refresh = Some(beta);
        self
    }

    /// Refreshes values ahead of their soft deadline, once `part` of the time until then has passed: whoever looks for one to
    /// load it then refreshes it, and the others are served from it. Default: off. Above 0 and below 1; not beside
    /// [`early_refresh`](Self::early_refresh). The time counts from when the value was stored, in whichever process; at most 49
    /// days ahead.
    pub fn refresh_ahead(mut self, part: f64) -> Self {
        self.refresh_ahead = Some(part);
        self
    }

    /// Sets how a value's validator is told: what its source can be asked by whether it has changed since, such as an entity
    /// tag, a version, or a date that the value carries. Default: none is told. A loader that refreshes a value reads it from
    /// [`Load::validator`](crate::Load::validator), and says [`not_modified`](crate::Load::not_modified) if nothing has changed.
    ///
    /// # Examples
    /// ```
    /// use std::convert::Infallible;
    /// use larder::Cache;
    ///
    /// #[derive(Clone)]
    /// struct Page { etag: String, body: String }
    ///
    /// let pages: Cache<u32, Page> = Cache::builder()
    ///     .capacity(100)
    ///     .validator(|page: &Page| Some(page.etag.clone()))
    ///     .build()?;
    /// pages.insert(7, Page { etag: "v1".into(), body: "Ann's page".into() })?;
    /// pages.expire(&7);
    ///
    /// let page = pages.get_or_load(&7, |load| {
    ///     assert_eq!(load.validator().as_deref(), Some("v1"));
    ///     // The source is asked for anything but v1 here, and has nothing else.
    ///     Ok::<_, Infallible>(load.not_modified().unwrap())
    /// })?;
    /// assert_eq!(page.body, "Ann's page");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn validator(mut self, validator: impl Fn(&V) -> Option<String> + Send + Sync + 'static) -> Self {
        self.validator = Some(Arc::new(validator));
        self
    }

    /// Answers with the stale value when its refresh fails, and tries no other for `retry_after`. Default: off; the caller
    /// that ran the loader gets its error. Zero tries again at once.
    pub fn stale_if_error(mut self, retry_after: Duration) -> Self {
        self.stale_if_error = Some(retry_after);
        self
    }

    /// Sets the same for a cache whose refreshes have no caller that could be told of an error, unless it is set already.
    pub(crate) fn stale_if_error_by_default(mut self, retry_after: Duration) -> Self {
        self.stale_if_error.get_or_insert(retry_after);
        self
    }

    /// Sets how long a caller waits for the load of another, before it gets an error. Default: 10 s. Zero never waits.
    pub fn load_wait(mut self, wait: Duration) -> Self {
        self.load_wait = wait;
        self
    }

    /// Sets who is told of every entry that leaves, and why. Default: nobody. Runs outside all locks on the thread whose
    /// operation took the entry out, and may call the cache; a panic in it is caught and counted.
    pub fn on_removal(mut self, listener: impl Fn(&K, &V, RemovalCause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Sets where time comes from. Default: the system's monotonic clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the registry of groups, which caches may share. Default: one of its own.
    pub fn groups(mut self, groups: Groups) -> Self {
        self.groups = groups;
        self
    }

    fn lifetime(&self) -> Result<DefaultLifetime, BuildError> {
        let deadlines = [("ttl", self.ttl), ("soft_ttl", self.soft_ttl), ("hard_ttl", self.hard_ttl)];
        for (name, ttl) in deadlines {
            if ttl == Some(Duration::ZERO) {
                return Err(BuildError::new(format!(
                    "{name} is zero, so every value would be past it at once; leave it out for no deadline, or set the \
                     capacity to 0 to store nothing"
                )));
            }
        }
        if let (Some(ttl), true) = (self.ttl, self.soft_ttl.is_some() || self.hard_ttl.is_some()) {
            return Err(BuildError::new(format!(
                "ttl ({ttl:?}) is a hard deadline alone; leave it out, and set soft_ttl and hard_ttl"
            )));
        }
        if let (Some(soft), Some(hard)) = (self.soft_ttl, self.hard_ttl)
            && soft > hard
        {
            return Err(BuildError::new(format!(
                "soft_ttl ({soft:?}) is longer than hard_ttl ({hard:?}), so no value would ever be stale; swap them, or set ttl \
                 alone"
            )));
        }
        if let (Some(factor), Some(hard)) = (self.hard_ttl_factor, self.hard_ttl) {
            return Err(BuildError::new(format!(
                "hard_ttl_factor ({factor}) and hard_ttl ({hard:?}) both set the hard deadline; leave one out"
            )));
        }
        let hard_factor = self.hard_ttl_factor.unwrap_or(HARD_TTL_FACTOR);
        if hard_factor == 0 {
            return Err(BuildError::new("hard_ttl_factor is 0, so every value would be dead at once; set 1 or more"));
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return Err(BuildError::new(format!(
                "jitter is {}; set a part of the deadlines, from 0 up to but not including 1",
                self.jitter
            )));
        }
        let hard = self.ttl.or(self.hard_ttl).or(self.soft_ttl.map(|soft| soft.saturating_mul(hard_factor)));
        Ok(DefaultLifetime { soft: self.soft_ttl, hard, hard_factor, jitter: self.jitter })
    }

    fn shard_count(&self, capacity: u64) -> Result<usize, BuildError> {
        match self.shards {
            Some(shards) if shards.is_power_of_two() && shards <= MAX_SHARDS => Ok(shards),
            Some(shards) => {
                Err(BuildError::new(format!("shards is {shards}; set a power of two from 1 to {MAX_SHARDS}")))
            }
            None => {
                let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                let for_threads = (SHARDS_PER_THREAD * threads).next_power_of_two();
                let for_policy = usize::try_from(capacity / ENTRIES_PER_SHARD).unwrap_or(MAX_SHARDS).max(1);
                // Rounded down to a power of two.
                Ok(for_threads.min(1 << for_policy.ilog2()).min(MAX_SHARDS))
            }
        }
    }

    fn check(&self) -> Result<u64, BuildError> {
        if self.grace.is_zero() {
            return Err(BuildError::new(
                "grace is zero, so every claim would be taken over at once; set how long a fill may take",
            ));
        }
        if let Some(beta) = self.early_refresh
            && !(beta.is_finite() && beta > 0.0)
        {
            return Err(BuildError::new(format!(
                "early_refresh is {beta}; set a positive number, or leave it out to refresh at the soft deadline"
            )));
        }
        if let Some(part) = self.refresh_ahead {
            if !(part > 0.0 && part < 1.0) {
                return Err(BuildError::new(format!(
                    "refresh_ahead is {part}; set a part of the time to the soft deadline, above 0 and below 1"
                )));
            }
            if let Some(beta) = self.early_refresh {
                return Err(BuildError::new(format!(
                    "refresh_ahead ({part}) and early_refresh ({beta}) both say when values are refreshed ahead of their soft \
                     deadline; leave one out"
                )));
            }
        }
        if self.absence.as_ref().is_some_and(|absence| absence.ttl.is_zero()) {
            return Err(BuildError::new(
                "negative_ttl is zero, so every None would be dead at once; leave it out to keep None like other values, or \
                 let loaders say do_not_store",
            ));
        }
        self.capacity
            .ok_or_else(|| BuildError::new("capacity is not set; set how many entries, or how much weight, fit"))
    }
}

impl<K, T, S> CacheBuilder<K, Option<T>, S> {
    /// Keeps the knowledge that there is no value: a `None` is dead `ttl` after it is stored, and never stale before, unless
    /// whoever stores it says otherwise ([`EntryOptions`](crate::EntryOptions), [`Load`](crate::Load)). Default: `None` is
    /// kept like any other value. Jitter applies. Zero is an error.
    ///
    /// A batch loader then need not speak of what it did not find: a key that it leaves out is stored as `None`, and the answer
    /// for it is `Some(None)`. A value that [`update`](Cache::update) changes keeps the deadlines it had, whichever it is.
    ///
    /// # Examples
    /// ```
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use larder::Cache;
    ///
    /// let users: Cache<u32, Option<String>> = Cache::builder()
    ///     .capacity(1_000)
    ///     .soft_ttl(Duration::from_secs(600))
    ///     .negative_ttl(Duration::from_secs(5))
    ///     .build()?;
    ///
    /// let nobody = users.get_or_load(&7, |_| Ok::<_, Infallible>(None))?;
    /// assert_eq!(nobody, None);
    /// assert_eq!(users.get(&7), Some(None)); // known not to exist, for five seconds
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.absence = Some(Absence { ttl, make: || None, is: Option::is_none });
        self
    }
}

impl<K, V, S> CacheBuilder<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Builds the cache.
    ///
    /// # Errors
    /// [`BuildError`] if a setting is missing, out of range, or at odds with another; the message says which, and what to do.
    pub fn build(self) -> Result<Cache<K, V, S>, BuildError> {
        let capacity = self.check()?;
        let lifetime = self.lifetime()?;
        let shards = self.shard_count(capacity)?;
        let settings = Settings {
            name: self.name,
            groups: self.groups,
            clock: self.clock,
            lifetime,
            grace: self.grace,
            load_wait: self.load_wait,
            refresh_ahead: self
                .early_refresh
                .map(RefreshAhead::AtRandom)
                .or(self.refresh_ahead.map(RefreshAhead::After)),
            absence: self.absence,
            validator: self.validator,
            stale_if_error: self.stale_if_error,
            weigher: self.weigher,
            listener: self.listener,
        };
        Ok(Cache::from_parts(Store::new(capacity, shards, settings), self.hasher))
    }
}

impl<K, V, S> fmt::Debug for CacheBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("shards", &self.shards)
            .field("ttl", &self.ttl)
            .field("soft_ttl", &self.soft_ttl)
            .field("hard_ttl", &self.hard_ttl)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
