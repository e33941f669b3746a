//! What histories are made of: one key of a cache, among others that press on it.

use std::hash::Hash;
use std::time::Duration;

use larder::{Cache, Claim, Clock, EntryOptions, Fill, Lookup, ManualClock};

use super::pause;
use super::spec::{Rules, Seen, Written};

/// The key that histories are about.
const KEY: Key = Key(0);

/// The group that values may be in.
const GROUP: &str = "group";

/// How many entries there may be where some are to be evicted, and how many keys press on the one.
const CROWDED: u64 = 3;
const OTHERS: u32 = 6;

/// One key of a cache.
pub(crate) trait Subject: Send + Sync {
    type Claim: Send;
    fn get(&self) -> Option<Written>;
    fn insert(&self, value: Written, grouped: bool);
    fn add(&self, value: Written, grouped: bool) -> bool;
    fn update(&self, by: usize) -> Option<Written>;
    fn remove(&self) -> Option<Written>;
    fn expire(&self) -> bool;
    fn lookup(&self) -> (Seen, Option<Self::Claim>);
    fn fill(&self, claim: Self::Claim, value: Written, grouped: bool) -> bool;
    fn bump(&self);
    fn advance(&self, ms: u32);
    /// Stores another key.
    fn press(&self, key: u32);
}

/// A key whose comparisons, under the lock and without, give way to other threads.
#[derive(Clone, Debug, Eq)]
pub(crate) struct Key(u32);

impl Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        pause();
        self.0 == other.0
    }
}

/// A value whose copies give way to other threads.
#[derive(Debug)]
pub(crate) struct Value(Written);

impl Clone for Value {
    fn clone(&self) -> Value {
        pause();
        Value(self.0)
    }
}

/// Hashes alike in every run, so that what happens under a seed does not depend on it.
pub(crate) type Hasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// A cache as it is.
pub(crate) struct Local {
    cache: Cache<Key, Value, Hasher>,
    time: ManualClock,
}

impl Local {
    pub(crate) fn new(rules: &Rules) -> Local {
        let (clock, time) = Clock::manual();
        let builder = Cache::builder().clock(clock).grace(Duration::from_millis(rules.grace.into()));
        let builder = if rules.evicts { builder.capacity(CROWDED).shards(1) } else { builder.capacity(64).shards(2) };
        let builder = if rules.hard < u32::MAX {
            builder
                .soft_ttl(Duration::from_millis(rules.soft.into()))
                .hard_ttl(Duration::from_millis(rules.hard.into()))
        } else {
            builder
        };
        Local { cache: builder.hasher(Hasher::default()).build().unwrap(), time }
    }
}

fn options(grouped: bool) -> EntryOptions {
    if grouped { EntryOptions::new().groups([GROUP]) } else { EntryOptions::new() }
}

impl Subject for Local {
    type Claim = Claim<Key, Value>;

    fn get(&self) -> Option<Written> {
        self.cache.get(&KEY).map(|value| value.0)
    }

    fn insert(&self, value: Written, grouped: bool) {
        self.cache.insert_with(KEY, Value(value), options(grouped)).unwrap();
    }

    fn add(&self, value: Written, grouped: bool) -> bool {
        self.cache.add_with(KEY, Value(value), options(grouped)).unwrap()
    }

    fn update(&self, by: usize) -> Option<Written> {
        self.cache.update(&KEY, |value| Value(value.0.updated_by(by))).map(|value| value.0)
    }

    fn remove(&self) -> Option<Written> {
        self.cache.remove(&KEY).map(|value| value.0)
    }

    fn expire(&self) -> bool {
        self.cache.expire(&KEY)
    }

    fn lookup(&self) -> (Seen, Option<Self::Claim>) {
        match self.cache.lookup(&KEY) {
            Lookup::Fresh(value) => (Seen::Fresh(value.0), None),
            Lookup::Stale { value, claim } => (Seen::Stale(value.0, claim.is_some()), claim),
            Lookup::Vacant(claim) => (Seen::Vacant, Some(claim)),
            Lookup::Busy => (Seen::Busy, None),
        }
    }

    fn fill(&self, claim: Self::Claim, value: Written, grouped: bool) -> bool {
        match claim.fill_with(Value(value), options(grouped)) {
            Fill::Stored => true,
            Fill::Fenced(_) => false,
            Fill::Rejected(_) => panic!("a value of weight 1 was rejected"),
        }
    }

    fn bump(&self) {
        self.cache.invalidate_group(GROUP);
    }

    fn advance(&self, ms: u32) {
        self.time.advance(Duration::from_millis(ms.into()));
    }

    fn press(&self, key: u32) {
        self.cache.insert(Key(1 + key % OTHERS), Value(Written::by(0))).unwrap();
    }
}
