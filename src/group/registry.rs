//! The registry that interns the names of groups, numbers their bumps, and tells what no bump has touched.

use std::fmt;

use hashbrown::HashTable;

use super::{AtomicGeneration, Bump, Generation, Group, GroupSet, Interned, Kind, recent};
use crate::sync::{Arc, AtomicU64, Mutex, OnceLock, Ordering, Padded, Weak};

/// How many locks the names of a registry spread over.
const STRIPES: usize = 32;

/// How many floors (see [`Floor`]) a registry has: a load whose new group shares one with a bumped name is fenced for
/// nothing, so there are many. Under shuttle each run makes its own.
const FLOORS: usize = if cfg!(larder_shuttle) { 16 } else { 4_096 };

/// A registry of groups, which caches may share: a bump here reaches the entries of all of them.
///
/// Names come into being when an entry or a load first names them, and are forgotten when the last one that did is gone, so
/// short-lived names leave nothing behind. Cloning gives another handle to the same registry.
///
/// # Examples
/// ```
/// use larder::{Cache, EntryOptions, Groups};
///
/// let groups = Groups::new();
/// let pages: Cache<String, String> = Cache::builder().capacity(100).groups(groups.clone()).build()?;
/// let rows: Cache<u32, String> = Cache::builder().capacity(100).groups(groups.clone()).build()?;
/// pages.insert_with("/user/7".into(), "Ann's page".into(), EntryOptions::new().groups(["user:7"])).unwrap();
/// rows.insert_with(7, "Ann".into(), EntryOptions::new().groups(["user:7"])).unwrap();
///
/// groups.invalidate("user:7");
/// assert_eq!((pages.get("/user/7"), rows.get(&7)), (None, None));
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Groups(Arc<Registry>);

impl Groups {
    /// Returns a new registry without any group.
    #[must_use]
    pub fn new() -> Groups {
        Groups(Arc::new(Registry::new(Naming::ByName(ahash::RandomState::new()))))
    }

    /// Makes every entry of `group`, in all caches of this registry, dead.
    ///
    /// Costs the same whatever the group holds, and whether it is known or not. A load that began before never leaves a
    /// value in the group, even if it names the group only after this call.
    pub fn invalidate(&self, group: &str) {
        self.0.bump(self.0.naming.hash(group.as_bytes()), Some(group.as_bytes()), Bump::Kill);
    }

    /// Makes every entry of `group`, in all caches of this registry, stale: still served, while one caller refreshes each.
    ///
    /// Costs and fences as [`invalidate`](Self::invalidate) does.
    pub fn expire(&self, group: &str) {
        self.0.bump(self.0.naming.hash(group.as_bytes()), Some(group.as_bytes()), Bump::Expire);
    }

    /// Makes every entry of every cache of this registry dead, whatever groups it is in.
    pub fn clear(&self) {
        self.0.roots.lock().retain(|root| {
            let Some(root) = root.upgrade() else { return false };
            self.bump_root(&root);
            true
        });
    }

    /// Returns how many groups are known: those that an entry or a running load has named. A snapshot.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }

    /// Returns whether no group is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the group called `name`, which comes into being if need be.
    pub(crate) fn intern(&self, name: &str) -> Arc<Group> {
        self.intern_utf8(name.as_bytes())
    }

    /// Interns a name that is told in UTF-8.
    pub(crate) fn intern_utf8(&self, name: &[u8]) -> Arc<Group> {
        self.0.intern(self.0.naming.hash(name), Some(name), || String::from_utf8_lossy(name).into())
    }

    /// Returns the generation that a load which begins now is judged by.
    #[inline]
    pub(crate) fn generation(&self) -> Generation {
        // Acquire pairs with the Release in `Counters::begin`: a load that is born after a bump sees all that the bumper
        // wrote before it.
        Generation(self.0.counters.begun.load(Ordering::Acquire))
    }

    /// Returns whether no bump has come to an entry's groups, or to its root, since it was `born`; if so, remembers for how
    /// long that is known. A bump that is under way may or may not be noticed, one that has returned is.
    #[inline]
    pub(crate) fn settled(&self, born: &AtomicGeneration, root: &Group, set: &GroupSet) -> bool {
        // Acquire pairs with the Release in `Counters::settle`: who sees a bump's number here sees its group raised. That is
        // why this is read before the groups are: found untouched after it, they were not meant by any bump up to it.
        let settled = Generation(self.0.counters.settled.load(Ordering::Acquire));
        born.get() >= settled || Self::settle(settled, born, root, set)
    }

    /// Looks whether all bumps up to `settled` have left an entry alone. Once for each entry and each bump that did.
    #[inline(never)]
    fn settle(settled: Generation, born: &AtomicGeneration, root: &Group, set: &GroupSet) -> bool {
        let judged = born.get();
        let untouched = !root.moved_since(judged) && !set.moved_since(judged);
        // Where many threads read one entry, as a rule the first of them alone writes to its cache line.
        if untouched && born.get() < settled {
            born.confirm(settled);
        }
        untouched
    }

    /// Returns how many bumps have touched what can have entries: a group that was known, or a root.
    #[inline]
    pub(crate) fn effective_bumps(&self) -> u64 {
        // Acquire pairs with the Release in `count_effective`: a sweep that sees a bump here sees its group moved, and so does
        // whoever asks `settled` of an entry that comes after the sweep, which will not hear of that bump again.
        self.0.counters.effective_bumps.load(Ordering::Acquire)
    }

    /// Returns a new root: the nameless group that every entry of one cache belongs to.
    pub(crate) fn new_root(&self) -> Arc<Group> {
        let root = Arc::new(Group::new(0, 0, Kind::Root));
        let mut roots = self.0.roots.lock();
        roots.retain(|root| root.strong_count() > 0);
        roots.push(Arc::downgrade(&root));
        root
    }

    /// Makes every entry under `root` dead.
    pub(crate) fn bump_root(&self, root: &Group) {
        let counters = &self.0.counters;
        let _turn = self.0.turn.lock();
        let generation = counters.next();
        // Before the bump begins, for `last_kill`: an entry that is born with this generation comes from who can see it.
        root.mark(Bump::Kill, generation);
        counters.begin(generation);
        root.touch(generation);
        counters.settle(generation);
        counters.count_effective();
    }
}

impl Default for Groups {
    fn default() -> Self {
        Groups::new()
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("generation", &self.generation()).field("len", &self.len()).finish()
    }
}

/// The groups of a registry that knows them by a hash that all processes share, because that is all that a remote value
/// tells of its groups.
#[cfg(feature = "tiered")]
impl Groups {
    pub(crate) fn by_hash(hash: fn(&str) -> u64) -> Groups {
        Groups(Arc::new(Registry::new(Naming::ByHash(hash))))
    }

    pub(crate) fn intern_hash(&self, hash: u64) -> Arc<Group> {
        self.0.intern(hash, None, || format!("#{hash:016x}").into())
    }

    pub(crate) fn bump_hash(&self, hash: u64, bump: Bump) {
        self.0.bump(hash, None, bump);
    }
}

/// How a registry tells groups apart.
enum Naming {
    /// By their names; the hash finds them.
    ByName(ahash::RandomState),
    /// By the hash of their names alone.
    #[cfg(feature = "tiered")]
    ByHash(fn(&str) -> u64),
}

impl Naming {
    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        match self {
            Naming::ByName(state) => state.hash_one(name),
            #[cfg(feature = "tiered")]
            Naming::ByHash(hash) => hash(&String::from_utf8_lossy(name)),
        }
    }

    /// Returns whether a known group is the one with this hash, and this name where names count.
    #[inline]
    fn is(&self, known: (u64, &str), hash: u64, name: Option<&[u8]>) -> bool {
        known.0 == hash
            && match self {
                Naming::ByName(_) => name == Some(known.1.as_bytes()),
                #[cfg(feature = "tiered")]
                Naming::ByHash(_) => true,
            }
    }
}

pub(super) struct Registry {
    /// All that a hit reads of a registry, away from what changes more often than by bumps.
    counters: Padded<Counters>,
    /// Bumps take turns, so that each finds all before it settled. Locked before a stripe.
    turn: Mutex<()>,
    naming: Naming,
    stripes: [Mutex<HashTable<Name>>; STRIPES],
    /// Made by the first bump: a registry that never sees one stays small.
    floors: OnceLock<Box<[Floor]>>,
    roots: Mutex<Vec<Weak<Group>>>,
}

/// The counters of a registry, which a bump moves at its turn.
struct Counters {
    /// The number of the last bump that has begun: what a load is born with.
    begun: AtomicU64,
    /// The number of the last bump that has raised its group, as all before it have.
    settled: AtomicU64,
    effective_bumps: AtomicU64,
}

impl Counters {
    /// Returns the number of the bump whose turn it is.
    fn next(&self) -> Generation {
        // Relaxed, as the stores need be no read-modify-writes: the lock of the turn orders bumps.
        Generation(self.begun.load(Ordering::Relaxed) + 1)
    }

    fn begin(&self, bump: Generation) {
        // Release pairs with the Acquire in `Groups::generation`.
        self.begun.store(bump.0, Ordering::Release);
    }

    fn count_effective(&self) {
        // After the bump has settled; Release pairs with the Acquire in `Groups::effective_bumps`.
        self.effective_bumps.store(self.effective_bumps.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    fn settle(&self, bump: Generation) {
        // Release pairs with the Acquire in `Groups::settled`.
        self.settled.store(bump.0, Ordering::Release);
    }
}

/// A known name. The group lives while an entry or a load holds it.
struct Name {
    hash: u64,
    name: Arc<str>,
    group: Weak<Group>,
}

/// Where the generations of a group start that comes into being: at the last bump of any name that shares this floor, since
/// a load from before that bump may be the one that names the group now.
#[derive(Default)]
struct Floor {
    killed: AtomicU64,
    expired: AtomicU64,
}

fn floor_index(hash: u64) -> usize {
    (hash >> 40) as usize % FLOORS
}

impl Registry {
    fn new(naming: Naming) -> Registry {
        Registry {
            counters: Padded(Counters {
                begun: AtomicU64::new(1),
                settled: AtomicU64::new(1),
                effective_bumps: AtomicU64::new(0),
            }),
            turn: Mutex::new(()),
            naming,
            stripes: std::array::from_fn(|_| Mutex::new(HashTable::new())),
            floors: OnceLock::new(),
            roots: Mutex::new(Vec::new()),
        }
    }

    fn stripe(&self, hash: u64) -> &Mutex<HashTable<Name>> {
        &self.stripes[(hash >> 32) as usize % STRIPES]
    }

    fn raise_floor(&self, hash: u64, bump: Bump, to: Generation) {
        let floors = self.floors.get_or_init(|| (0..FLOORS).map(|_| Floor::default()).collect());
        let floor = &floors[floor_index(hash)];
        let kind = match bump {
            Bump::Kill => &floor.killed,
            Bump::Expire => &floor.expired,
        };
        // Relaxed: the lock of the stripe orders this before who interns the name after the bump has looked for it there.
        kind.store(to.0, Ordering::Relaxed);
    }

    fn bump(&self, hash: u64, name: Option<&[u8]>, bump: Bump) {
        let turn = self.turn.lock();
        let generation = self.counters.next();
        self.counters.begin(generation);
        // The floor moves whether the group is known or not, and before the look at the names: a group that dies between
        // two looks takes its generations with it, and one that is interned meanwhile starts from the floor.
        self.raise_floor(hash, bump, generation);
        let names = self.stripe(hash).lock();
        let known = names
            .find(hash, |known| self.naming.is((known.hash, &known.name), hash, name))
            .and_then(|known| known.group.upgrade());
        if let Some(group) = &known {
            group.mark(bump, generation);
            group.touch(generation);
        }
        // Under the lock: a bump of a name that is not known counts for nothing below, and so who interns it from here on, and
        // adds an entry from before the bump, has to see that it has settled.
        self.counters.settle(generation);
        drop(names);
        if known.is_some() {
            self.counters.count_effective();
        }
        // Before `known`, which may be the last holder of the group by now and has it forgotten.
        drop(turn);
    }

    /// Returns the group with this hash, and this name where names count; `call` names one that is not known.
    #[inline]
    fn intern(self: &Arc<Self>, hash: u64, name: Option<&[u8]>, call: impl FnOnce() -> Arc<str>) -> Arc<Group> {
        let is_it = |group: &Group| {
            group.interned().is_some_and(|known| {
                std::ptr::eq(&*known.registry, &**self) && self.naming.is((known.hash, &known.name), hash, name)
            })
        };
        recent::recall(hash, is_it).unwrap_or_else(|| {
            let group = self.find_or_make(hash, name, call);
            recent::remember(hash, &group);
            group
        })
    }

    #[inline(never)]
    fn find_or_make(self: &Arc<Self>, hash: u64, name: Option<&[u8]>, call: impl FnOnce() -> Arc<str>) -> Arc<Group> {
        let mut names = self.stripe(hash).lock();
        if let Some(known) = names.find_mut(hash, |known| self.naming.is((known.hash, &known.name), hash, name)) {
            if let Some(group) = known.group.upgrade() {
                return group;
            }
            // The last holder has just let go, and its `forget` waits for this lock: it will see that the name is taken.
            let group = self.new_group(hash, known.name.clone());
            known.group = Arc::downgrade(&group);
            return group;
        }
        let name = call();
        let group = self.new_group(hash, name.clone());
        names.insert_unique(hash, Name { hash, name, group: Arc::downgrade(&group) }, |known| known.hash);
        group
    }

    /// Returns a group at its floor. Called under the name's stripe, so that a bump either finds the group or came before.
    fn new_group(self: &Arc<Self>, hash: u64, name: Arc<str>) -> Arc<Group> {
        let floor = self.floors.get().map(|floors| &floors[floor_index(hash)]);
        // Relaxed, for the reason that `raise_floor` has.
        let at = |kind: &AtomicU64| kind.load(Ordering::Relaxed);
        let (killed, expired) = floor.map_or((0, 0), |floor| (at(&floor.killed), at(&floor.expired)));
        Arc::new(Group::new(killed, expired, Kind::Named(Interned { name, hash, registry: self.clone() })))
    }

    pub(super) fn forget(&self, hash: u64, group: *const Group) {
        let mut names = self.stripe(hash).lock();
        if let Ok(known) = names.find_entry(hash, |known| std::ptr::eq(known.group.as_ptr(), group)) {
            known.remove();
        }
        // A burst of names gives its memory back; the factor keeps the table from shrinking and growing in turns.
        if names.capacity() > 32 && names.len() < names.capacity() / 8 {
            let room = names.len() * 2;
            names.shrink_to(room, |known| known.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bump_touches_what_was_born_before_it_and_nothing_else() {
        let groups = Groups::new();
        let (a, b) = (groups.intern("a"), groups.intern("b"));
        let before = groups.generation();
        groups.invalidate("a");
        let after = groups.generation();
        assert!(a.moved_since(before) && a.killed_since(before) && !a.moved_since(after));
        assert!(!b.moved_since(before));
        groups.expire("b");
        assert!(b.moved_since(after) && !b.killed_since(after));
    }

    #[test]
    fn a_name_is_interned_once_and_dropped_with_its_last_holder() {
        let groups = Groups::new();
        let first = groups.intern("a");
        assert!(Arc::ptr_eq(&first, &groups.intern("a")));
        assert_eq!(groups.len(), 1);
        drop(first);
        assert!(groups.is_empty());
    }

    #[test]
    fn a_name_that_a_thread_asks_for_again_leads_to_its_group_in_the_registry_that_is_asked() {
        let (one, other) = (Groups::new(), Groups::new());
        let group = |groups: &Groups| groups.0.intern(7, Some(b"a"), || "a".into());
        for _ in 0..3 {
            let (first, second) = (group(&one), group(&other));
            assert!(Arc::ptr_eq(&first, &group(&one)) && Arc::ptr_eq(&second, &group(&other)));
            assert!(!Arc::ptr_eq(&first, &second));
            assert_eq!((one.len(), other.len()), (1, 1));
            drop((first, second));
            assert!(one.is_empty() && other.is_empty(), "a thread keeps a group known");
        }
    }

    #[test]
    fn a_name_that_a_thread_asks_for_again_is_not_mistaken_for_another_of_its_hash() {
        let groups = Groups::new();
        let group = |name: &str| groups.0.intern(7, Some(name.as_bytes()), || name.into());
        let first = group("a");
        for _ in 0..3 {
            let second = group("b");
            assert!(Arc::ptr_eq(&first, &group("a")) && Arc::ptr_eq(&second, &group("b")));
            assert!(!Arc::ptr_eq(&first, &second));
        }
    }

    #[test]
    fn a_bump_of_an_unknown_or_dropped_group_reaches_a_load_that_began_before() {
        let groups = Groups::new();
        let born = groups.generation();
        groups.invalidate("late");
        assert!(groups.intern("late").killed_since(born));

        let born = groups.generation();
        let known = groups.intern("known");
        groups.invalidate("known");
        drop(known);
        assert!(groups.intern("known").killed_since(born));
        assert!(!groups.intern("known").moved_since(groups.generation()));
    }

    #[test]
    fn short_lived_names_leave_no_growth_behind() {
        let groups = Groups::new();
        for name in 0..100_000 {
            drop(groups.intern(&name.to_string()));
        }
        // However many there were at once: the guide says how much is kept for those to come.
        for names in [100, 500, 1_000, 1_400, 2_000, 3_000, 100_000] {
            let held: Vec<_> = (0..names).map(|name| groups.intern(&name.to_string())).collect();
            drop(held);
            assert!(groups.is_empty());
            let kept: usize = groups.0.stripes.iter().map(|stripe| stripe.lock().allocation_size()).sum();
            assert!(kept <= 48 << 10, "{kept} bytes are kept of {names} names");
        }
    }

    #[test]
    fn an_entry_that_others_bumps_leave_alone_is_as_young_as_they_are() {
        let groups = Groups::new();
        let (root, mine) = (groups.new_root(), [groups.intern("mine")].into_iter().collect::<GroupSet>());
        let born = AtomicGeneration::new(groups.generation());
        groups.invalidate("other");
        assert!(groups.settled(&born, &root, &mine));
        assert_eq!(born.get(), groups.generation());
        groups.expire("mine");
        assert!(!groups.settled(&born, &root, &mine) && !mine.killed_since(born.get()));
        groups.invalidate("other");
        assert!(!groups.settled(&born, &root, &mine));

        let born = AtomicGeneration::new(groups.generation());
        groups.bump_root(&root);
        assert!(!groups.settled(&born, &root, &mine) && root.killed_since(born.get()));
    }

    /// One reader has looked at the groups before a bump of them, and says so only after it.
    #[test]
    fn a_late_confirmation_brings_nothing_back() {
        let groups = Groups::new();
        let (root, mine) = (groups.new_root(), [groups.intern("mine")].into_iter().collect::<GroupSet>());
        let born = AtomicGeneration::new(groups.generation());
        groups.invalidate("other");
        let seen = groups.generation();
        groups.invalidate("other");
        assert!(groups.settled(&born, &root, &mine));
        groups.invalidate("mine");
        born.confirm(seen);
        assert!(!groups.settled(&born, &root, &mine) && mine.killed_since(born.get()));
    }

    /// A bump that moved the registry before its group would let a reader between the two take the entry for untouched by it.
    #[test]
    fn a_bump_that_has_returned_is_noticed_whatever_readers_confirm_meanwhile() {
        let groups = Groups::new();
        let root = groups.new_root();
        let mine: GroupSet = [groups.intern("mine")].into_iter().collect();
        let born = Mutex::new(Arc::new(AtomicGeneration::new(groups.generation())));
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    let entry = born.lock().clone();
                    groups.settled(&entry, &root, &mine);
                }
            });
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    groups.invalidate("other");
                }
            });
            let resurrected = (0..20_000).find(|_| {
                let entry = Arc::new(AtomicGeneration::new(groups.generation()));
                *born.lock() = entry.clone();
                groups.invalidate("mine");
                groups.settled(&entry, &root, &mine)
            });
            done.store(1, Ordering::Relaxed);
            assert_eq!(resurrected, None);
        });
    }

    /// A sweep may begin between the two counters of a bump. Were the bump counted before it has settled, the sweep would take
    /// all entries of the group for such as the bump does not concern, and no later one would look again.
    #[test]
    fn a_bump_that_a_sweep_has_heard_of_is_seen_in_all_entries() {
        let groups = Groups::new();
        let root = groups.new_root();
        let mine: GroupSet = [groups.intern("mine")].into_iter().collect();
        let counters = &groups.0.counters;
        let missed = beside_bumps(&groups, "mine", 10_000_000, || {
            // Both begin with the first bump, and every bump here counts: those that were heard of have settled.
            let heard = counters.effective_bumps.load(Ordering::Acquire);
            counters.settled.load(Ordering::Acquire) <= heard
        });
        assert_eq!(missed, None);
        let born = AtomicGeneration::new(groups.generation());
        groups.invalidate("mine");
        assert!(!groups.settled(&born, &root, &mine));
    }

    /// A name that nobody knows comes into being while it is bumped, with an entry from before that. No sweep hears of such a
    /// bump, so whoever adds the entry has to see that it is dead.
    #[test]
    fn a_bump_that_no_sweep_hears_of_is_seen_by_who_adds_an_entry() {
        let groups = Groups::new();
        let root = groups.new_root();
        let missed = beside_bumps(&groups, "late", 5_000, || {
            let born = groups.generation();
            let entry = AtomicGeneration::new(born);
            while groups.generation() == born {
                std::thread::yield_now();
            }
            let late = [groups.intern("late")].into_iter().collect::<GroupSet>();
            let heard = groups.effective_bumps();
            let taken_for_alive = groups.settled(&entry, &root, &late);
            // Once another bump has begun, this one has returned.
            while groups.generation() <= Generation(born.0 + 1) {
                std::thread::yield_now();
            }
            taken_for_alive && groups.effective_bumps() == heard
        });
        assert_eq!(missed, None);
    }

    /// Has a thread bump a group all the time, and returns in which of many rounds `misses` said yes.
    fn beside_bumps(groups: &Groups, group: &str, rounds: u32, misses: impl Fn() -> bool) -> Option<u32> {
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    groups.invalidate(group);
                }
            });
            let missed = (0..rounds).find(|_| misses());
            done.store(1, Ordering::Relaxed);
            missed
        })
    }

    /// A shard counts what is older than the last clear it knows of as dead.
    #[test]
    fn who_is_born_with_a_clear_knows_of_it() {
        let groups = Groups::new();
        let root = groups.new_root();
        groups.bump_root(&root);
        std::thread::scope(|scope| {
            let clears = scope.spawn(|| (0..2_000_000).for_each(|_| groups.bump_root(&root)));
            while !clears.is_finished() {
                for _ in 0..1_000 {
                    // As `generation` and `last_kill` do, one right after the other: what is looked for lasts no longer.
                    let born = groups.0.counters.begun.load(Ordering::Acquire);
                    assert!(root.killed.load(Ordering::Acquire) >= born);
                }
            }
        });
    }

    #[test]
    fn clear_reaches_every_root() {
        let groups = Groups::new();
        let (first, second) = (groups.new_root(), groups.new_root());
        let born = groups.generation();
        groups.clear();
        assert!(first.killed_since(born) && second.killed_since(born));
    }
}
