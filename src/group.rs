//! Groups: names that entries belong to, and the generations that invalidate them all at once.
//!
//! One counter numbers the moments of a registry. A *bump* takes the next number and raises the group's `killed` or
//! `expired` generation to it; an entry remembers the counter as it was before its load began, and is dead (or stale) by a
//! group whose generation is larger. So a bump costs the same whatever the group holds, and a load that began before it is
//! found out whenever it ends and however late it names its groups.
//!
//! Bumps take turns, and each moves a second counter once its group is raised. An entry as young as that one is untouched by
//! every bump there has been, and a hit need not look at its groups at all (see [`Groups::settled`]).

mod recent;
mod registry;

use std::fmt;

use smallvec::SmallVec;

pub use self::registry::Groups;
use self::registry::Registry;
use crate::sync::{Arc, AtomicU64, Ordering};

/// A moment in the life of a registry of groups: how many bumps there had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(u64);

impl Generation {
    pub(crate) const ZERO: Generation = Generation(0);
}

/// The generation by which an entry is judged: no bump up to it concerns the entry. Moves up while the entry is left alone.
///
/// It begins as the generation from before the entry's load, and every other value is one that [`Groups::settled`] has found
/// to be true: all bumps up to it had raised their groups by then, and none of them the entry's. That stays true for good,
/// since a later bump takes a later number. So whichever of several racing stores is the last, an older generation after a
/// newer one even, what stands here is true; an older one costs another look, no more. Nothing is true that reaches a bump
/// which does concern the entry, so an entry that is dead or stale by a group never comes back.
#[derive(Debug)]
pub(crate) struct AtomicGeneration(AtomicU64);

impl AtomicGeneration {
    #[inline]
    pub(crate) fn new(born: Generation) -> AtomicGeneration {
        AtomicGeneration(AtomicU64::new(born.0))
    }

    // Relaxed, as the store: what is said here is true whatever else its reader has seen.
    #[inline]
    pub(crate) fn get(&self) -> Generation {
        Generation(self.0.load(Ordering::Relaxed))
    }

    /// Notes that no bump up to `generation` concerns the entry.
    #[inline]
    fn confirm(&self, generation: Generation) {
        self.0.store(generation.0, Ordering::Relaxed);
    }
}

/// The generations of one group. Its two kinds of bump are remembered apart, their maximum beside them.
pub(crate) struct Group {
    /// The larger of the other two: all that tells an entry that it was left alone.
    touched: AtomicU64,
    killed: AtomicU64,
    expired: AtomicU64,
    kind: Kind,
}

/// What a group stands for.
enum Kind {
    /// All entries of a cache.
    Root,
    Named(Interned),
    /// Several groups that one entry belongs to. Has no generations of its own, and is seen by its [`GroupSet`] alone.
    /// As large as a name, so that two are in no allocation of their own.
    Union(SmallVec<[Arc<Group>; 2]>),
}

struct Interned {
    name: Arc<str>,
    hash: u64,
    registry: Arc<Registry>,
}

const _: () = assert!(size_of::<SmallVec<[Arc<Group>; 2]>>() <= size_of::<Interned>());

/// How a bump changes the entries of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bump {
    /// They are dead.
    Kill,
    /// They are stale.
    Expire,
}

impl Group {
    fn new(killed: u64, expired: u64, kind: Kind) -> Group {
        Group {
            touched: AtomicU64::new(killed.max(expired)),
            killed: AtomicU64::new(killed),
            expired: AtomicU64::new(expired),
            kind,
        }
    }

    /// Returns whether any bump came after `born`.
    #[inline]
    pub(crate) fn moved_since(&self, born: Generation) -> bool {
        // Acquire pairs with the Release in `touch`: who sees `touched` move sees which of the others did.
        self.touched.load(Ordering::Acquire) > born.0
    }

    /// Returns whether a bump of the kind that kills came after `born`.
    #[inline]
    pub(crate) fn killed_since(&self, born: Generation) -> bool {
        self.killed.load(Ordering::Acquire) > born.0
    }

    /// Returns the generation of the last bump that killed.
    ///
    /// For a root: who holds an entry that is not older than this sees this. So a shard that asks before it takes an entry in
    /// knows of every clear that the entry survives, and of all that it holds, what is older than the last clear it has seen
    /// is what that clear kills.
    #[inline]
    pub(crate) fn last_kill(&self) -> Generation {
        // Acquire pairs with the Release in `mark`, and is there for who has read the generation that was moved after it.
        Generation(self.killed.load(Ordering::Acquire))
    }

    /// Notes which kind of bump comes to the group. At the bump's turn, so that what is there is smaller.
    fn mark(&self, bump: Bump, generation: Generation) {
        let kind = match bump {
            Bump::Kill => &self.killed,
            Bump::Expire => &self.expired,
        };
        kind.store(generation.0, Ordering::Release);
    }

    /// Makes a bump that was [marked](Self::mark) seen.
    fn touch(&self, generation: Generation) {
        // Release pairs with the Acquire in `moved_since`.
        self.touched.store(generation.0, Ordering::Release);
    }

    fn interned(&self) -> Option<&Interned> {
        match &self.kind {
            Kind::Named(interned) => Some(interned),
            Kind::Root | Kind::Union(_) => None,
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.interned().map(|interned| &interned.name))
            .field("killed", &self.killed)
            .field("expired", &self.expired)
            .finish()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(interned) = self.interned() {
            interned.registry.forget(interned.hash, std::ptr::from_ref(self));
        }
    }
}

/// The groups that an entry belongs to beside its cache's root, in one word. None and one cost nothing beyond it.
#[derive(Clone, Default)]
pub(crate) struct GroupSet(Option<Arc<Group>>);

const _: () = assert!(size_of::<GroupSet>() == size_of::<usize>());

impl GroupSet {
    pub(crate) const EMPTY: GroupSet = GroupSet(None);

    #[inline]
    pub(crate) fn one(group: Arc<Group>) -> GroupSet {
        GroupSet(Some(group))
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[Arc<Group>] {
        match &self.0 {
            None => &[],
            Some(group) => match &group.kind {
                Kind::Union(members) => members,
                Kind::Root | Kind::Named(_) => std::slice::from_ref(group),
            },
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
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
        self.as_slice().iter().filter_map(|group| group.interned()).map(|interned| &*interned.name)
    }
}

impl fmt::Debug for GroupSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl FromIterator<Arc<Group>> for GroupSet {
    /// Collects the groups, each once.
    #[inline]
    fn from_iter<I: IntoIterator<Item = Arc<Group>>>(groups: I) -> Self {
        let mut groups = groups.into_iter();
        let Some(first) = groups.next() else { return GroupSet::EMPTY };
        let Some(second) = groups.find(|group| !Arc::ptr_eq(group, &first)) else { return GroupSet(Some(first)) };
        let mut many = SmallVec::from([first, second]);
        for group in groups {
            if !many.iter().any(|known| Arc::ptr_eq(known, &group)) {
                many.push(group);
            }
        }
        GroupSet(Some(Arc::new(Group::new(0, 0, Kind::Union(many)))))
    }
}

#[cfg(feature = "tiered")]
impl GroupSet {
    /// Returns the hashes by which a registry made [`by_hash`](Groups::by_hash) knows the groups.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.as_slice().iter().filter_map(|group| group.interned()).map(|interned| interned.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_each_group_once() {
        let groups = Groups::new();
        let set = |names: &[&str]| names.iter().map(|name| groups.intern(name)).collect::<GroupSet>();
        assert!(set(&[]).is_empty());
        assert!(matches!(set(&["a", "a"]).0.unwrap().kind, Kind::Named(_)));
        assert_eq!(set(&["a", "b", "a", "c", "b"]).names().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
