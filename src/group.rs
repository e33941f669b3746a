//! Groups: names that entries belong to, and the generations that invalidate them all at once.
//!
//! One counter numbers the moments of a registry. A *bump* takes the next number and raises the group's `killed` or
//! `expired` generation to it; an entry remembers the counter as it was before its load began, and is dead (or stale) by a
//! group whose generation is larger. So a bump costs the same whatever the group holds, and a load that began before it is
//! found out whenever it ends and however late it names its groups.

use std::fmt;

use hashbrown::HashTable;

use crate::sync::{Arc, AtomicU64, Mutex, OnceLock, Ordering, Weak};

/// How many locks the names of a registry spread over.
const STRIPES: usize = 32;

/// How many floors (see [`Floor`]) a registry has: a load whose new group shares one with a bumped name is fenced for
/// nothing, so there are many.
const FLOORS: usize = 4_096;

/// A moment in the life of a registry of groups: how many bumps there had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(u64);

impl Generation {
    pub(crate) const ZERO: Generation = Generation(0);
}

/// The generations of one group. Its two kinds of bump are remembered apart, their maximum beside them.
pub(crate) struct Group {
    /// The larger of the other two: all that a hit looks at.
    touched: AtomicU64,
    killed: AtomicU64,
    expired: AtomicU64,
    /// Where the name is interned; `None` for a root, which has no name.
    interned: Option<Interned>,
}

struct Interned {
    name: Arc<str>,
    hash: u64,
    registry: Arc<Registry>,
}

/// How a bump changes the entries of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bump {
    /// They are dead.
    Kill,
    /// They are stale.
    Expire,
}

impl Group {
    fn new(floor: Floor, interned: Option<Interned>) -> Group {
        Group {
            touched: AtomicU64::new(floor.killed.max(floor.expired)),
            killed: AtomicU64::new(floor.killed),
            expired: AtomicU64::new(floor.expired),
            interned,
        }
    }

    /// Returns whether any bump came after `born`.
    #[inline]
    pub(crate) fn moved_since(&self, born: Generation) -> bool {
        // Acquire pairs with the Release in `raise`: who sees `touched` move sees which of the others did.
        self.touched.load(Ordering::Acquire) > born.0
    }

    /// Returns whether a bump of the kind that kills came after `born`.
    pub(crate) fn killed_since(&self, born: Generation) -> bool {
        self.killed.load(Ordering::Acquire) > born.0
    }

    /// Returns the generation of the last bump that killed.
    #[inline]
    pub(crate) fn last_kill(&self) -> Generation {
        Generation(self.killed.load(Ordering::Acquire))
    }

    fn raise(&self, bump: Bump, to: Generation) {
        let generation = match bump {
            Bump::Kill => &self.killed,
            Bump::Expire => &self.expired,
        };
        // `touched` last, and with Release, for the reader in `moved_since`.
        generation.fetch_max(to.0, Ordering::Release);
        self.touched.fetch_max(to.0, Ordering::Release);
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.interned.as_ref().map(|interned| &interned.name))
            .field("killed", &self.killed)
            .field("expired", &self.expired)
            .finish()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(interned) = &self.interned {
            interned.registry.forget(interned.hash, std::ptr::from_ref(self));
        }
    }
}

/// The groups that an entry belongs to beside its cache's root. None and one cost no allocation.
#[derive(Clone, Debug, Default)]
pub(crate) enum GroupSet {
    #[default]
    Empty,
    One(Arc<Group>),
    // Boxed twice, so that the two common cases cost an entry 16 bytes and not 24.
    Many(Box<Box<[Arc<Group>]>>),
}

impl GroupSet {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[Arc<Group>] {
        match self {
            GroupSet::Empty => &[],
            GroupSet::One(group) => std::slice::from_ref(group),
            GroupSet::Many(groups) => groups,
        }
    }

    #[inline]
    pub(crate) fn moved_since(&self, born: Generation) -> bool {
        self.as_slice().iter().any(|group| group.moved_since(born))
    }

    pub(crate) fn killed_since(&self, born: Generation) -> bool {
        self.as_slice().iter().any(|group| group.killed_since(born))
    }

    /// Returns the names, in the order they were given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.as_slice().iter().filter_map(|group| group.interned.as_ref()).map(|interned| &*interned.name)
    }
}

impl FromIterator<Arc<Group>> for GroupSet {
    /// Collects the groups, each once.
    fn from_iter<I: IntoIterator<Item = Arc<Group>>>(groups: I) -> Self {
        let mut groups = groups.into_iter();
        let Some(first) = groups.next() else { return GroupSet::Empty };
        let Some(second) = groups.find(|group| !Arc::ptr_eq(group, &first)) else { return GroupSet::One(first) };
        let mut many = vec![first, second];
        for group in groups {
            if !many.iter().any(|known| Arc::ptr_eq(known, &group)) {
                many.push(group);
            }
        }
        GroupSet::Many(Box::new(many.into()))
    }
}

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
        self.0.bump(self.0.naming.hash(group), Some(group), Bump::Kill);
    }

    /// Makes every entry of `group`, in all caches of this registry, stale: still served, while one caller refreshes each.
    ///
    /// Costs and fences as [`invalidate`](Self::invalidate) does.
    pub fn expire(&self, group: &str) {
        self.0.bump(self.0.naming.hash(group), Some(group), Bump::Expire);
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
        self.0.intern(self.0.naming.hash(name), Some(name), || name.into())
    }

    /// Returns the generation that a load which begins now is judged by.
    #[inline]
    pub(crate) fn generation(&self) -> Generation {
        // Acquire pairs with the Release in `next_generation`: a load that is born after a bump sees all that the bumper
        // wrote before it.
        Generation(self.0.generation.load(Ordering::Acquire))
    }

    /// Returns how many bumps have touched what can have entries: a group that was known, or a root. Counted once the group
    /// has moved, so not in the order of the generations.
    #[inline]
    pub(crate) fn effective_bumps(&self) -> u64 {
        // Acquire pairs with the Release in `count_effective`: a sweep that sees a bump here sees its group moved.
        self.0.effective_bumps.load(Ordering::Acquire)
    }

    /// Returns a new root: the nameless group that every entry of one cache belongs to.
    pub(crate) fn new_root(&self) -> Arc<Group> {
        let root = Arc::new(Group::new(Floor::default(), None));
        let mut roots = self.0.roots.lock();
        roots.retain(|root| root.strong_count() > 0);
        roots.push(Arc::downgrade(&root));
        root
    }

    /// Makes every entry under `root` dead.
    pub(crate) fn bump_root(&self, root: &Group) {
        let generation = self.0.next_generation();
        root.raise(Bump::Kill, generation);
        self.0.count_effective();
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

#[cfg(feature = "tiered")]
impl GroupSet {
    /// Returns the hashes by which a registry made [`by_hash`](Groups::by_hash) knows the groups.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.as_slice().iter().filter_map(|group| group.interned.as_ref()).map(|interned| interned.hash)
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
    fn hash(&self, name: &str) -> u64 {
        match self {
            Naming::ByName(state) => state.hash_one(name),
            #[cfg(feature = "tiered")]
            Naming::ByHash(hash) => hash(name),
        }
    }

    /// Returns whether a known group is the one with this hash, and this name where names count.
    fn is(&self, known: &Name, hash: u64, name: Option<&str>) -> bool {
        known.hash == hash
            && match self {
                Naming::ByName(_) => name == Some(&*known.name),
                #[cfg(feature = "tiered")]
                Naming::ByHash(_) => true,
            }
    }
}

struct Registry {
    generation: AtomicU64,
    effective_bumps: AtomicU64,
    naming: Naming,
    stripes: [Mutex<HashTable<Name>>; STRIPES],
    /// Made by the first bump: a registry that never sees one stays small.
    floors: OnceLock<Box<[Mutex<Floor>]>>,
    roots: Mutex<Vec<Weak<Group>>>,
}

/// A known name. The group lives while an entry or a load holds it.
struct Name {
    hash: u64,
    name: Arc<str>,
    group: Weak<Group>,
}

/// Where the generations of a group start that comes into being: at the last bump of any name that shares this floor, since
/// a load from before that bump may be the one that names the group now.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    killed: u64,
    expired: u64,
}

fn floor_index(hash: u64) -> usize {
    (hash >> 40) as usize % FLOORS
}

impl Registry {
    fn new(naming: Naming) -> Registry {
        Registry {
            generation: AtomicU64::new(1),
            effective_bumps: AtomicU64::new(0),
            naming,
            stripes: std::array::from_fn(|_| Mutex::new(HashTable::new())),
            floors: OnceLock::new(),
            roots: Mutex::new(Vec::new()),
        }
    }

    fn stripe(&self, hash: u64) -> &Mutex<HashTable<Name>> {
        &self.stripes[(hash >> 32) as usize % STRIPES]
    }

    /// Returns where a group starts that comes into being now.
    fn floor(&self, hash: u64) -> Floor {
        self.floors.get().map_or(Floor::default(), |floors| *floors[floor_index(hash)].lock())
    }

    fn raise_floor(&self, hash: u64, bump: Bump, to: Generation) {
        let floors = self.floors.get_or_init(|| (0..FLOORS).map(|_| Mutex::default()).collect());
        let mut floor = floors[floor_index(hash)].lock();
        let raised = match bump {
            Bump::Kill => &mut floor.killed,
            Bump::Expire => &mut floor.expired,
        };
        *raised = (*raised).max(to.0);
    }

    fn next_generation(&self) -> Generation {
        // Release pairs with the Acquire in `Groups::generation`.
        Generation(self.generation.fetch_add(1, Ordering::AcqRel) + 1)
    }

    fn count_effective(&self) {
        // After the group was raised; Release pairs with the Acquire in `Groups::effective_bumps`.
        self.effective_bumps.fetch_add(1, Ordering::Release);
    }

    fn bump(&self, hash: u64, name: Option<&str>, bump: Bump) {
        let generation = self.next_generation();
        // The floor moves whether the group is known or not, and before the look at the names: a group that dies between
        // two looks takes its generations with it, and one that is interned meanwhile starts from the floor.
        self.raise_floor(hash, bump, generation);
        let known =
            self.stripe(hash).lock().find(hash, |known| self.naming.is(known, hash, name)).map(|n| n.group.clone());
        if let Some(group) = known.and_then(|group| group.upgrade()) {
            group.raise(bump, generation);
            self.count_effective();
        }
    }

    /// Returns the group with this hash, and this name where names count; `call` names one that is not known.
    fn intern(self: &Arc<Self>, hash: u64, name: Option<&str>, call: impl FnOnce() -> Arc<str>) -> Arc<Group> {
        let mut names = self.stripe(hash).lock();
        if let Some(known) = names.find_mut(hash, |known| self.naming.is(known, hash, name)) {
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
        Arc::new(Group::new(self.floor(hash), Some(Interned { name, hash, registry: self.clone() })))
    }

    fn forget(&self, hash: u64, group: *const Group) {
        let mut names = self.stripe(hash).lock();
        if let Ok(known) = names.find_entry(hash, |known| std::ptr::eq(known.group.as_ptr(), group)) {
            known.remove();
        }
        // A burst of names gives its memory back; the factor keeps the table from shrinking and growing in turns.
        if names.capacity() > 64 && names.len() < names.capacity() / 8 {
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
        let held: Vec<_> = (0..100_000).map(|name| groups.intern(&name.to_string())).collect();
        drop(held);
        assert!(groups.is_empty());
        assert!(groups.0.stripes.iter().all(|stripe| stripe.lock().capacity() < 128));
    }

    #[test]
    fn a_set_holds_each_group_once() {
        let groups = Groups::new();
        let set = |names: &[&str]| names.iter().map(|name| groups.intern(name)).collect::<GroupSet>();
        assert!(matches!(set(&[]), GroupSet::Empty));
        assert!(matches!(set(&["a", "a"]), GroupSet::One(_)));
        assert_eq!(set(&["a", "b", "a", "c", "b"]).names().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    /// The bump with the smaller generation raises its group last: whoever counted bumps before that has to hear of it.
    #[test]
    fn bumps_that_overtake_each_other_are_both_heard_of() {
        let groups = Groups::new();
        let (slow, _fast) = (groups.intern("slow"), groups.intern("fast"));
        let generation = groups.0.next_generation();
        groups.invalidate("fast");
        let heard = groups.effective_bumps();
        slow.raise(Bump::Kill, generation);
        groups.0.count_effective();
        assert!(groups.effective_bumps() > heard);
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
