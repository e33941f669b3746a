//! What one entry asks for: deadlines, groups, weight, given by whoever stores it or by the load that brings it.

mod name;

use std::fmt;
use std::num::NonZero;
use std::time::Duration;

use smallvec::SmallVec;

use self::name::{Name, Names};
use crate::clock::{Clock, Deadline, Timestamp};
use crate::compact::HardSpan;
use crate::group::{Generation, Group, GroupSet, Groups};
use crate::limit::Limit;
use crate::sync::{Arc, Mutex, MutexGuard};

/// What one entry asks for beside its cache's defaults.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::{Cache, EntryOptions};
///
/// let cache = Cache::new(100);
/// let options = EntryOptions::new().soft_ttl(Duration::from_secs(30)).groups(["user:7", "team:2"]);
/// cache.insert_with("/user/7", "Ann's page", options)?;
/// # Ok::<(), larder::Rejected>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EntryOptions {
    lifetime: Lifetime,
    grace: Option<Duration>,
    weight: Option<NonZero<u64>>,
    groups: Names,
}

// Moved from each setter to the next: no more than what is moved without a call.
const _: () = assert!(size_of::<EntryOptions>() <= 128);

impl EntryOptions {
    /// Returns options that leave everything to the cache's defaults: its deadlines and grace, its weigher, no group.
    #[inline]
    pub fn new() -> EntryOptions {
        EntryOptions::default()
    }

    /// Makes the value dead `ttl` after it is stored, and never stale before. Rounded up to a millisecond, and exact as
    /// [`CacheBuilder::hard_ttl`](crate::CacheBuilder::hard_ttl) is; zero stores a value that is dead at once.
    pub fn ttl(mut self, ttl: Duration) -> EntryOptions {
        self.lifetime = Lifetime::HardOnly(ttl);
        self
    }

    /// Makes the value stale `ttl` after it is stored. Unless a hard deadline is given too, the value is dead after the
    /// cache's factor times as long. Later than the hard deadline, it counts as equal to it.
    pub fn soft_ttl(mut self, ttl: Duration) -> EntryOptions {
        self.lifetime.set_soft(ttl);
        self
    }

    /// Makes the value dead `ttl` after it is stored; the cache's soft deadline holds as well.
    pub fn hard_ttl(mut self, ttl: Duration) -> EntryOptions {
        self.lifetime.set_hard(ttl);
        self
    }

    /// Sets how long a claim to refresh the value lasts, once it is stale. Default: the cache's. Rounded up to a millisecond,
    /// from four seconds on to a part in 2,048, and zero to a millisecond: a claim that is over at once would be everybody's. A
    /// copy that another process makes has its cache's.
    pub fn grace(mut self, grace: Duration) -> EntryOptions {
        self.grace = Some(claimable(grace));
        self
    }

    /// Frees the value from all deadlines: it is stale or dead by its groups alone, and leaves under pressure.
    pub fn never_expires(mut self) -> EntryOptions {
        self.lifetime = Lifetime::Never;
        self
    }

    /// Adds the entry to these groups. May be called again to add more; a name given twice counts once.
    #[inline]
    pub fn groups<I>(mut self, groups: I) -> EntryOptions
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        groups.into_iter().for_each(|group| self.groups.push(Name::new(group.as_ref())));
        self
    }

    /// Sets what the entry counts against the cache's capacity. Default: what the cache's weigher says, or 1. Zero counts
    /// as 1, so that the number of entries stays bounded. A copy that another process makes weighs what its cache says.
    pub fn weight(mut self, weight: u64) -> EntryOptions {
        self.weight = Some(NonZero::new(weight).unwrap_or(NonZero::<u64>::MIN));
        self
    }

    /// Looks the groups up.
    // Always, so that nothing of it is moved once more.
    #[inline(always)]
    pub(crate) fn resolve(self, registry: &Groups) -> Spec {
        let EntryOptions { lifetime, grace, weight, groups: names } = self;
        let intern = |name: &Name| registry.intern_utf8(name.as_bytes());
        let groups = match names.only() {
            Some(name) => GroupSet::one(intern(name)),
            None => names.iter().map(intern).collect(),
        };
        Spec { lifetime, grace, weight: weight.map(NonZero::get), groups }
    }
}

/// Returns a grace of a millisecond or more.
fn claimable(grace: Duration) -> Duration {
    grace.max(Duration::from_millis(1))
}

/// [`EntryOptions`] with their groups looked up.
#[derive(Debug, Default)]
pub(crate) struct Spec {
    pub(crate) lifetime: Lifetime,
    pub(crate) grace: Option<Duration>,
    pub(crate) weight: Option<u64>,
    pub(crate) groups: GroupSet,
}

/// What an entry, or a cache, says of deadlines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lifetime {
    Never,
    HardOnly(Duration),
    Both {
        soft: Option<Duration>,
        hard: Option<Duration>,
    },
    /// What is left of deadlines that were set elsewhere: neither defaults nor jitter apply. `None` is never.
    #[cfg(feature = "tiered")]
    Left {
        soft: Option<Duration>,
        hard: Option<Duration>,
        /// How long the value was to be fresh in all.
        soft_ttl: Option<Duration>,
    },
}

impl Default for Lifetime {
    fn default() -> Self {
        Lifetime::Both { soft: None, hard: None }
    }
}

impl Lifetime {
    pub(crate) fn set_soft(&mut self, ttl: Duration) {
        *self = Lifetime::Both { soft: Some(ttl), hard: self.hard() };
    }

    pub(crate) fn set_hard(&mut self, ttl: Duration) {
        let soft = if let Lifetime::Both { soft, .. } = self { *soft } else { None };
        *self = Lifetime::Both { soft, hard: Some(ttl) };
    }

    /// Returns whether nothing was said, so that the cache's defaults hold.
    #[inline]
    pub(crate) fn is_default(self) -> bool {
        matches!(self, Lifetime::Both { soft: None, hard: None })
    }

    fn hard(self) -> Option<Duration> {
        match self {
            Lifetime::Never => None,
            Lifetime::HardOnly(hard) => Some(hard),
            Lifetime::Both { hard, .. } => hard,
            #[cfg(feature = "tiered")]
            Lifetime::Left { hard, .. } => hard,
        }
    }
}

/// When values are refreshed ahead of their soft deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RefreshAhead {
    /// At random, the sooner the longer their load took; with the beta of XFetch.
    AtRandom(f64),
    /// Once this part of their soft time has passed.
    After(f64),
}

/// What a cache knows of values that stand for none.
#[derive(Debug)]
pub(crate) struct Absence<V> {
    /// How long one is kept that says nothing else of its deadlines.
    pub(crate) ttl: Duration,
    pub(crate) make: fn() -> V,
    pub(crate) is: fn(&V) -> bool,
}

/// Tells a value's validator.
pub(crate) type Validator<V> = Arc<dyn Fn(&V) -> Option<String> + Send + Sync>;

/// A cache's own deadlines, which hold where an entry says nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DefaultLifetime {
    pub(crate) soft: Option<Duration>,
    pub(crate) hard: Option<Duration>,
    /// How many times as long as the soft deadline the hard one is, where only the former is given.
    pub(crate) hard_factor: u32,
    /// By which part of themselves deadlines are shortened at most, at random, so that what was stored together does not
    /// expire together. From 0 to 1.
    pub(crate) jitter: f64,
}

impl DefaultLifetime {
    /// Returns the time, and the soft and the hard deadline of a value that is stored now: the hard one as an entry keeps it, and
    /// the soft one never the later.
    pub(crate) fn deadlines(&self, own: Lifetime, clock: &Clock) -> (Timestamp, Deadline, HardSpan) {
        let (soft, hard, jitter) = self.longest(own);
        // Deadlines are only ever shortened: jitter must not serve a value past what was asked for. Both by the same part,
        // so that their proportion stays.
        let kept = if jitter > 0.0 { 1.0 - jitter * fastrand::f64() } else { 1.0 };
        // What is never is the longest, which no deadline can be told from.
        let shortened = |ttl: Option<Duration>| ttl.map_or(Duration::MAX, |ttl| shorten(ttl, kept));
        let hard = shortened(hard);
        let soft = shortened(soft).min(hard);
        let now = clock.about(soft);
        let hard = HardSpan::between(now, Deadline::after(now, hard));
        (now, Deadline::after(now, soft).min(hard.after(now)), hard)
    }

    /// Returns the deadlines of all values that say nothing of theirs, unless chance has a say in them.
    pub(crate) fn usual(&self) -> Option<UsualDeadlines> {
        if self.jitter > 0.0 {
            return None;
        }
        let start = Timestamp::from_ms(0);
        let deadline = |ttl: Option<Duration>| ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(start, ttl));
        let soft = self.soft.into_iter().chain(self.hard).min();
        let hard = HardSpan::between(start, deadline(self.hard));
        let shortest = soft.unwrap_or(Duration::MAX);
        Some(UsualDeadlines { shortest, soft: deadline(soft).min(hard.after(start)), hard })
    }

    /// Returns whether a value may be given these deadlines, to the millisecond, or up to `slack` less.
    #[cfg(feature = "tiered")]
    pub(crate) fn may_give(
        &self,
        own: Lifetime,
        soft: Option<Duration>,
        hard: Option<Duration>,
        slack: Duration,
    ) -> bool {
        let (soft_longest, hard_longest, jitter) = self.longest(own);
        let soft_longest = soft_longest.into_iter().chain(hard_longest).min();
        let fits = |ttl: Option<Duration>, longest: Option<Duration>| match (ttl, longest) {
            (Some(ttl), Some(longest)) => {
                let rounded_up = longest.saturating_add(Duration::from_millis(1));
                ttl < rounded_up && ttl.saturating_add(slack) >= shorten(longest, 1.0 - jitter)
            }
            (ttl, longest) => ttl == longest,
        };
        fits(soft, soft_longest) && fits(hard, hard_longest)
    }

    /// Returns the longest time to each deadline, and by which part of themselves both may be shortened.
    fn longest(&self, own: Lifetime) -> (Option<Duration>, Option<Duration>, f64) {
        match own {
            Lifetime::Never => (None, None, 0.0),
            Lifetime::HardOnly(hard) => (None, Some(hard), self.jitter),
            Lifetime::Both { soft: Some(soft), hard: None } => {
                (Some(soft), Some(soft.saturating_mul(self.hard_factor)), self.jitter)
            }
            Lifetime::Both { soft, hard } => (soft.or(self.soft), hard.or(self.hard), self.jitter),
            #[cfg(feature = "tiered")]
            Lifetime::Left { soft, hard, .. } => (soft, hard, 0.0),
        }
    }
}

/// What [`DefaultLifetime::deadlines`] says of values that say nothing themselves: worked out once, for every insert to use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsualDeadlines {
    shortest: Duration,
    /// As if stored at the origin of time.
    soft: Deadline,
    hard: HardSpan,
}

impl UsualDeadlines {
    #[inline]
    pub(crate) fn deadlines(&self, clock: &Clock) -> (Timestamp, Deadline, HardSpan) {
        let now = clock.about(self.shortest);
        (now, self.soft.moved_by(now), self.hard)
    }
}

/// Returns the part `kept` of `ttl`; `ttl` itself where that is all of it or cannot be said in a `Duration`.
fn shorten(ttl: Duration, kept: f64) -> Duration {
    if kept < 1.0 { Duration::try_from_secs_f64(ttl.as_secs_f64() * kept).unwrap_or(ttl) } else { ttl }
}

/// What a loader is handed: the value it replaces, and a say in how its result is kept.
///
/// Setters take `&self`, so that the loader may decide at any time before it returns. Groups named here take effect at once:
/// an invalidation that comes after the load began fences it, whether the group was named before or not.
///
/// # Examples
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use larder::Cache;
///
/// let cache: Cache<u32, String> = Cache::new(100);
/// let name = cache.get_or_load(&7, |load| {
///     load.soft_ttl(Duration::from_secs(30));
///     load.groups(["user:7"]);
///     Ok::<_, Infallible>("Ann".to_owned())
/// })?;
/// assert_eq!(name, "Ann");
/// # Ok::<(), larder::LoadError<Infallible>>(())
/// ```
pub struct Load<V> {
    stale: Option<V>,
    draft: Arc<Draft>,
    limit: Option<Arc<Limit>>,
    validator: Option<Validator<V>>,
}

impl<V> Load<V> {
    pub(crate) fn new(stale: Option<V>, draft: Arc<Draft>, limit: Option<Arc<Limit>>) -> Load<V> {
        Load { stale, draft, limit, validator: None }
    }

    /// Says how the validator of the stale value is told.
    pub(crate) fn validated_by(self, validator: Option<Validator<V>>) -> Load<V> {
        Load { validator, ..self }
    }

    /// Returns whether the load was given up, because it took longer than its hard timeout: its result will be stored nowhere,
    /// and nobody waits for it. A loader that cannot be interrupted, since it blocks its thread, asks now and then.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| limit.is_over())
    }

    /// Returns the stale value that this load refreshes; `None` where there is none.
    #[must_use]
    pub fn stale(&self) -> Option<&V> {
        self.stale.as_ref()
    }

    /// Returns the validator of the stale value: what the cache's [`validator`](crate::CacheBuilder::validator) makes of it, for
    /// the loader to ask its source whether anything has changed since. `None` where there is no stale value, or none is told.
    ///
    /// # Panics
    /// A panic of the cache's function passes through.
    #[must_use]
    pub fn validator(&self) -> Option<String> {
        self.validator.as_ref()?(self.stale.as_ref()?)
    }

    /// Makes the result dead `ttl` after it is stored, and never stale before; as [`EntryOptions::ttl`].
    pub fn ttl(&self, ttl: Duration) {
        self.draft.write().lifetime = Lifetime::HardOnly(ttl);
    }

    /// Makes the result stale `ttl` after it is stored; as [`EntryOptions::soft_ttl`].
    pub fn soft_ttl(&self, ttl: Duration) {
        self.draft.write().lifetime.set_soft(ttl);
    }

    /// Makes the result dead `ttl` after it is stored; as [`EntryOptions::hard_ttl`].
    pub fn hard_ttl(&self, ttl: Duration) {
        self.draft.write().lifetime.set_hard(ttl);
    }

    /// Frees the result from all deadlines; as [`EntryOptions::never_expires`].
    pub fn never_expires(&self) {
        self.draft.write().lifetime = Lifetime::Never;
    }

    /// Sets how long a claim to refresh the result lasts, once it is stale; as [`EntryOptions::grace`].
    pub fn grace(&self, grace: Duration) {
        self.draft.write().grace = Some(claimable(grace));
    }

    /// Adds the result to these groups. May be called again to add more; a name given twice counts once.
    pub fn groups<I>(&self, groups: I)
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        // The iterator is the caller's code, and runs before the lock is taken.
        let groups: SmallVec<[_; 4]> =
            groups.into_iter().map(|name| self.draft.registry.intern(name.as_ref())).collect();
        self.draft.write().groups.extend(groups);
    }

    /// Sets what the result counts against the cache's capacity; as [`EntryOptions::weight`].
    pub fn weight(&self, weight: u64) {
        self.draft.write().weight = Some(weight);
    }

    /// Keeps the result from being stored: it is returned to this caller and to those who wait for it, and that is all. A
    /// stale value that was to be refreshed stays as it is.
    pub fn do_not_store(&self) {
        self.draft.write().do_not_store = true;
    }
}

impl<V: Clone> Load<V> {
    /// Returns the stale value, for the loader to return when it found that nothing has changed; `None` where there is none.
    ///
    /// The entry then keeps the groups, the weight and the grace it had, unless this load names others, and its deadlines start
    /// anew. A remote tier is touched and not written, where it has that very value and nothing but its time is to change. A
    /// loader that returns another value after all has that one stored.
    #[must_use]
    pub fn not_modified(&self) -> Option<V> {
        let stale = self.stale.clone()?;
        self.draft.write().not_modified = true;
        Some(stale)
    }
}

impl<V> fmt::Debug for Load<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("refreshes", &self.stale.is_some()).field("draft", &self.draft).finish()
    }
}

/// What a running load has said of its result so far. Shared with the callers that come while it runs.
#[derive(Debug)]
pub(crate) struct Draft {
    registry: Groups,
    sketch: Mutex<Sketch>,
}

#[derive(Debug, Default)]
pub(crate) struct Sketch {
    lifetime: Lifetime,
    grace: Option<Duration>,
    weight: Option<u64>,
    groups: SmallVec<[Arc<Group>; 1]>,
    do_not_store: bool,
    not_modified: bool,
}

/// What a load has said of its result in the end.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) spec: Spec,
    pub(crate) store: bool,
    pub(crate) not_modified: bool,
}

impl Draft {
    pub(crate) fn new(registry: Groups) -> Draft {
        Draft { registry, sketch: Mutex::default() }
    }

    fn write(&self) -> MutexGuard<'_, Sketch> {
        self.sketch.lock()
    }

    /// Returns whether a group named so far was bumped after `born`.
    pub(crate) fn moved_since(&self, born: Generation) -> bool {
        self.sketch.lock().groups.iter().any(|group| group.moved_since(born))
    }

    /// Closes the draft. What a loader says later, through a `Load` that outlives it, has no effect.
    pub(crate) fn close(&self) -> Verdict {
        let sketch = std::mem::take(&mut *self.sketch.lock());
        Verdict {
            spec: Spec {
                lifetime: sketch.lifetime,
                grace: sketch.grace,
                weight: sketch.weight,
                groups: sketch.groups.into_iter().collect(),
            },
            store: !sketch.do_not_store,
            not_modified: sketch.not_modified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn deadlines(defaults: DefaultLifetime, own: Lifetime) -> (Option<Duration>, Option<Duration>) {
        let (now, soft, hard) = defaults.deadlines(own, &Clock::manual().0);
        (soft.remaining(now), hard.after(now).remaining(now))
    }

    const CACHE: DefaultLifetime =
        DefaultLifetime { soft: Some(SECOND), hard: Some(Duration::from_secs(8)), hard_factor: 8, jitter: 0.0 };

    #[test]
    fn an_entry_overrides_what_it_names() {
        let both = |soft: Option<u64>, hard: Option<u64>| Lifetime::Both {
            soft: soft.map(Duration::from_secs),
            hard: hard.map(Duration::from_secs),
        };
        let secs = |soft, hard| (Some(Duration::from_secs(soft)), Some(Duration::from_secs(hard)));
        assert_eq!(deadlines(CACHE, both(None, None)), secs(1, 8));
        assert_eq!(deadlines(CACHE, both(Some(2), None)), secs(2, 16));
        assert_eq!(deadlines(CACHE, both(None, Some(3))), secs(1, 3));
        assert_eq!(deadlines(CACHE, both(Some(5), Some(3))), secs(3, 3));
        assert_eq!(deadlines(CACHE, Lifetime::HardOnly(SECOND * 4)), secs(4, 4));
        assert_eq!(deadlines(CACHE, Lifetime::Never), (None, None));
        assert_eq!(deadlines(CACHE, both(Some(u64::MAX), None)), (None, None));
    }

    /// An entry keeps a hard deadline that is far away in whole seconds. Its soft one has to come no later, or the entry would be
    /// served past the moment from which a sweep takes it for dead.
    #[test]
    fn a_soft_deadline_is_no_later_than_what_is_kept_of_the_hard_one() {
        let days = |days| SECOND * 86_400 * days;
        let month = days(30) + Duration::from_millis(999);
        for own in [Lifetime::HardOnly(month), Lifetime::Both { soft: Some(month), hard: Some(month) }] {
            let (clock, _time) = Clock::manual();
            let (now, soft, hard) = CACHE.deadlines(own, &clock);
            let hard = hard.after(now);
            assert!(soft <= hard && soft.remaining(now) >= Some(days(30)), "{soft:?}, {hard:?}");
        }
    }

    #[test]
    fn the_usual_deadlines_are_those_of_who_says_nothing() {
        let clock = Clock::manual().0;
        let month = SECOND * 86_400 * 30 + Duration::from_millis(999);
        let times =
            [None, Some(Duration::from_nanos(1)), Some(SECOND), Some(SECOND * 8), Some(month), Some(Duration::MAX)];
        for (soft, hard) in times.into_iter().flat_map(|soft| times.map(|hard| (soft, hard))) {
            let cache = DefaultLifetime { soft, hard, ..CACHE };
            assert_eq!(cache.usual().unwrap().deadlines(&clock), cache.deadlines(Lifetime::default(), &clock));
        }
        assert!(DefaultLifetime { jitter: 0.1, ..CACHE }.usual().is_none());
    }

    #[test]
    fn jitter_shortens_both_deadlines_alike_and_never_lengthens_them() {
        let jittered = DefaultLifetime { jitter: 0.5, ..CACHE };
        let mut seen_less = false;
        for _ in 0..100 {
            let (Some(soft), Some(hard)) = deadlines(jittered, Lifetime::default()) else { panic!("both are set") };
            assert!(soft <= SECOND && soft >= SECOND / 2);
            assert!(hard <= SECOND * 8 && hard >= SECOND * 4);
            assert!((hard.as_secs_f64() / soft.as_secs_f64() - 8.0).abs() < 0.1);
            seen_less |= soft < SECOND * 9 / 10;
        }
        assert!(seen_less);
    }
}
