//! What has changed.

/// What a source of changes says has changed: groups whose entries are to be dead or stale, or everything.
///
/// # Examples
/// ```
/// use larder::Change;
///
/// // A record was saved; pages that list it may be served once more, while they are made anew.
/// let saved = Change::invalidate(["record:7"]).and(Change::expire(["lists"]));
/// # assert_ne!(saved, Change::everything());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a change does nothing until it is applied"]
pub struct Change {
    pub(super) invalidated: Vec<String>,
    pub(super) expired: Vec<String>,
    pub(super) everything: bool,
}

impl Change {
    /// Every entry of each of these groups is out of date, and must not be served.
    pub fn invalidate<I>(groups: I) -> Change
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Change { invalidated: groups.into_iter().map(Into::into).collect(), ..Change::default() }
    }

    /// Every entry of each of these groups is out of date, and may be served while one caller refreshes it.
    pub fn expire<I>(groups: I) -> Change
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Change { expired: groups.into_iter().map(Into::into).collect(), ..Change::default() }
    }

    /// Nobody knows what is out of date, so that everything is: all that `clear` of the cache, the registry of groups or the
    /// namespace reaches to which the change is applied.
    pub fn everything() -> Change {
        Change { everything: true, ..Change::default() }
    }

    /// Joins two changes to one.
    pub fn and(mut self, other: Change) -> Change {
        self.invalidated.extend(other.invalidated);
        self.expired.extend(other.expired);
        self.everything |= other.everything;
        self
    }
}
