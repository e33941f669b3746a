//! Errors of the local tier.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::sync::Arc;

/// An entry was not stored because it alone weighs more than the cache may hold.
///
/// Whatever the key held before is gone: the cache does not go on serving a value that was to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// What the entry weighs.
    pub weight: u64,
    /// What the cache may hold in all.
    pub capacity: u64,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the entry weighs {}, and the cache holds {} in all", self.weight, self.capacity)
    }
}

impl Error for Rejected {}

/// A cache could not be built as asked for.
///
/// The message names the value and what to do about it. The type is opaque, so that new checks need no new variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    message: String,
}

impl BuildError {
    pub(crate) fn new(message: impl Into<String>) -> BuildError {
        BuildError { message: message.into() }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for BuildError {}

/// A value could not be loaded, by this caller or by the one it waited for.
///
/// Errors of a loader are shared by all who waited for it; cloning costs a reference count. The type is opaque, so that it
/// can learn new causes: look at [`kind`](Self::kind).
pub struct LoadError<E>(Cause<E>);

enum Cause<E> {
    Loader(Arc<E>),
    Panicked,
    Cancelled,
    TimedOut(Duration),
    Reentrant,
    Overloaded,
    Absent,
    #[cfg(feature = "tiered")]
    Untrusted,
}

/// The kinds of [`LoadError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadErrorKind {
    /// The loader returned an error: see [`LoadError::loader`].
    Loader,
    /// The loader that this caller waited for panicked. The panic itself goes to the caller that ran it, if one did.
    Panicked,
    /// The load that was to bring the value ended without it, and this caller's loader cannot run again: the runtime that was
    /// to run the load dropped it; or, for a key of a batch that another caller was loading, that load was dropped or
    /// overtaken by an invalidation. Trying again may help.
    Cancelled,
    /// The load took longer than its hard timeout, or than this caller may wait for another's.
    TimedOut,
    /// A loader asked the cache for the very key that it was loading.
    Reentrant,
    /// More callers wait for this load than the cache keeps track of, or more loads are under way than a [`Loading`] cache
    /// begins.
    ///
    /// [`Loading`]: crate::Loading
    Overloaded,
    /// There is no value and none was made: the call was to change nothing ([`CallOptions::read_only`]), or the loader of
    /// batches left the key out.
    ///
    /// [`CallOptions::read_only`]: crate::CallOptions::read_only
    Absent,
    /// The local tier must not answer without the remote one, which cannot be reached.
    Untrusted,
}

impl<E> LoadError<E> {
    pub(crate) fn shared(error: Arc<E>) -> Self {
        LoadError(Cause::Loader(error))
    }

    pub(crate) fn panicked() -> Self {
        LoadError(Cause::Panicked)
    }

    pub(crate) fn cancelled() -> Self {
        LoadError(Cause::Cancelled)
    }

    pub(crate) fn timed_out(waited: Duration) -> Self {
        LoadError(Cause::TimedOut(waited))
    }

    pub(crate) fn reentrant() -> Self {
        LoadError(Cause::Reentrant)
    }

    pub(crate) fn overloaded() -> Self {
        LoadError(Cause::Overloaded)
    }

    pub(crate) fn absent() -> Self {
        LoadError(Cause::Absent)
    }

    #[cfg(feature = "tiered")]
    pub(crate) fn untrusted() -> Self {
        LoadError(Cause::Untrusted)
    }

    /// Returns why there is no value, in kind.
    #[must_use]
    pub fn kind(&self) -> LoadErrorKind {
        match self.0 {
            Cause::Loader(_) => LoadErrorKind::Loader,
            Cause::Panicked => LoadErrorKind::Panicked,
            Cause::Cancelled => LoadErrorKind::Cancelled,
            Cause::TimedOut(_) => LoadErrorKind::TimedOut,
            Cause::Reentrant => LoadErrorKind::Reentrant,
            Cause::Overloaded => LoadErrorKind::Overloaded,
            Cause::Absent => LoadErrorKind::Absent,
            #[cfg(feature = "tiered")]
            Cause::Untrusted => LoadErrorKind::Untrusted,
        }
    }

    /// Returns the loader's own error, if it returned one.
    #[must_use]
    pub fn loader(&self) -> Option<&E> {
        match &self.0 {
            Cause::Loader(error) => Some(error),
            _ => None,
        }
    }
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        LoadError(match &self.0 {
            Cause::Loader(error) => Cause::Loader(error.clone()),
            Cause::Panicked => Cause::Panicked,
            Cause::Cancelled => Cause::Cancelled,
            Cause::TimedOut(waited) => Cause::TimedOut(*waited),
            Cause::Reentrant => Cause::Reentrant,
            Cause::Overloaded => Cause::Overloaded,
            Cause::Absent => Cause::Absent,
            #[cfg(feature = "tiered")]
            Cause::Untrusted => Cause::Untrusted,
        })
    }
}

impl<E: fmt::Debug> fmt::Debug for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadError").field("kind", &self.kind()).field("loader", &self.loader()).finish()
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Loader(error) => write!(f, "the loader failed: {error}"),
            Cause::Panicked => f.write_str("the loader panicked"),
            Cause::Cancelled => f.write_str("the load was dropped before it ended"),
            Cause::TimedOut(waited) => write!(f, "the load took longer than {waited:?}"),
            Cause::Reentrant => f.write_str("the loader asked for the key that it was loading"),
            Cause::Overloaded => f.write_str("too many callers wait for this load, or too many loads are under way"),
            Cause::Absent => f.write_str("there is no value, and none was loaded"),
            #[cfg(feature = "tiered")]
            Cause::Untrusted => f.write_str("the local tier must not answer while the remote one cannot be reached"),
        }
    }
}

impl<E: Error + 'static> Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.loader().map(|error| error as &(dyn Error + 'static))
    }
}
