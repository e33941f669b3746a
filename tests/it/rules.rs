//! A test for each of the rules by which processes agree, R1 to R12 of the design, that fails without it.
//!
//! The processes of a test look at the journal only when it says so, and their clocks stand still: what another one has done
//! is known where a look has brought it, and nowhere else.

mod announcing;
mod behind;
mod bumping;
#[cfg(feature = "memcached")]
mod on_memcached;
mod reading;
mod resyncing;
pub(crate) mod wire;
mod writing;

use std::convert::Infallible;
use std::time::Duration;

use larder::{
    Action, Clock, Command, EntryOptions, InMemoryRemote, ManualClock, Namespace, NamespaceBuilder, RawBytes,
    RemoteTier, Reply, Route, TieredCache, TieredCacheBuilder, WireKey,
};

use self::wire::Wire;
use crate::scene::PATIENCE;

pub(crate) type Pages = TieredCache<String, String>;

/// Longer than anything in a test takes; what waits so long by a manual clock never happens by itself.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// How long a process trusts its last look at the journal.
pub(crate) const TRUST: Duration = Duration::from_secs(2 * 3_600);

const NAME: &str = "ns";

/// One of the processes of a test. Clones are the same process.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) wire: Wire,
    pub(crate) pages: Pages,
    pub(crate) time: ManualClock,
}

impl Process {
    /// Starts a process that has looked at the journal once.
    pub(crate) fn new(store: &(impl RemoteTier + Clone)) -> Process {
        Process::with(store, |namespace| namespace, |pages| pages)
    }

    pub(crate) fn with(
        store: &(impl RemoteTier + Clone),
        namespace: impl FnOnce(NamespaceBuilder) -> NamespaceBuilder,
        pages: impl FnOnce(TieredCacheBuilder<String, String>) -> TieredCacheBuilder<String, String>,
    ) -> Process {
        let wire = Wire::new(store.clone());
        let (clock, time) = Clock::manual();
        let builder = Namespace::builder(NAME, wire.clone()).timeout(PATIENCE).clock(clock);
        let namespace = namespace(builder.poll_interval(HOUR).trust(TRUST)).build().unwrap();
        let builder = TieredCache::builder(&namespace, "pages").capacity(10_000).soft_ttl(100 * HOUR).codec(RawBytes);
        let process = Process { wire, pages: pages(builder).build().unwrap(), time };
        process.look();
        process
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.pages.namespace()
    }

    /// Looks at the journal.
    pub(crate) fn look(&self) {
        self.namespace().poll_now().unwrap();
    }

    /// Lets the trust of the last look end.
    pub(crate) fn lapse(&self) {
        self.time.advance(TRUST);
        assert!(self.namespace().health().trust_left.is_zero());
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.pages.get(key)
    }

    /// Returns what the local tier has, without a question to the store.
    pub(crate) fn local(&self, key: &str) -> Option<String> {
        self.pages.local().get(key)
    }

    /// Stores a value of the group `g` in both tiers.
    pub(crate) fn insert(&self, key: &str, value: &str) {
        let options = EntryOptions::new().groups(["g"]);
        assert!(self.pages.insert_with(own(key), own(value), options).is_through());
    }

    /// Loads `value`, of the group `g`, where there is none.
    pub(crate) fn load(&self, key: &str, value: &str) -> String {
        self.load_after(key, value, || ())
    }

    /// As [`load`](Self::load), for a loader that does something between its look at the database and its end, where it names
    /// the group.
    pub(crate) fn load_after(&self, key: &str, value: &str, work: impl FnOnce()) -> String {
        let loaded = self.pages.get_or_load(key, |load| {
            work();
            load.groups(["g"]);
            Ok::<_, Infallible>(own(value))
        });
        loaded.unwrap()
    }

    /// Invalidates the group `g`.
    pub(crate) fn bump(&self) {
        assert!(self.namespace().invalidate_group("g").is_acknowledged());
    }

    pub(crate) fn remove(&self, key: &str) {
        assert!(self.pages.remove(key).is_acknowledged());
    }
}

/// Returns what a process finds that starts now: what the store has.
fn in_store(store: &(impl RemoteTier + Clone), key: &str) -> Option<String> {
    Process::new(store).get(key)
}

fn journal_key() -> WireKey {
    WireKey::new(format!("{NAME}:j")).unwrap()
}

/// Returns the bytes of the journal.
fn journal(store: &InMemoryRemote) -> Vec<u8> {
    let get = Action::Get { value: true, lease: None, touch: None };
    let command = Command { key: &journal_key(), route: Route::Control, action: get };
    match store.run(&[command], PATIENCE).remove(0).unwrap() {
        Reply::Hit(item) => item.value.into(),
        other => panic!("{other:?} for the journal"),
    }
}

pub(crate) fn own(text: &str) -> String {
    text.to_owned()
}
