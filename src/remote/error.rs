//! Why a remote call failed.

use std::error::Error;
use std::fmt;

use crate::sync::Arc;

/// A failure of the remote tier.
///
/// The local tier has done its part whatever this says; a read that meets one counts it and goes on as a miss. The type is
/// opaque, so that the client library behind it can change: look at [`kind`](Self::kind).
#[derive(Clone)]
pub struct RemoteError {
    kind: RemoteErrorKind,
    message: Arc<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kinds of [`RemoteError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemoteErrorKind {
    /// The command never left this process: no connection, or its breaker is open.
    Unavailable,
    /// No answer within the time limit. The command may have been carried out.
    TimedOut,
    /// The connection broke with the command under way. It may have been carried out.
    Interrupted,
    /// The store answered what it should not: wrong protocol, wrong version, or garbage.
    Protocol,
    /// The store refused the command: out of memory, say, or a value that is no counter.
    Refused,
    /// The value is larger than the store takes. It was not sent.
    TooLarge,
    /// The value or its header could not be written or read.
    Codec,
    /// The configuration cannot work: no server, a bad address, a server too old.
    Config,
}

impl RemoteError {
    /// Makes an error, for an implementation of [`RemoteTier`](crate::RemoteTier).
    pub fn new(kind: RemoteErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into().into(), source: None }
    }

    #[cfg_attr(not(feature = "memcached"), allow(dead_code))]
    pub(crate) fn with_source(
        kind: RemoteErrorKind,
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, message: message.into().into(), source: Some(Arc::new(source)) }
    }

    /// A value of `len` bytes, which is more than the `max` that the store takes.
    pub(super) fn too_large(len: usize, max: usize) -> Self {
        Self::new(RemoteErrorKind::TooLarge, format!("a value of {len} bytes is larger than the store's {max}"))
    }

    /// Returns what went wrong, in kind.
    #[must_use]
    pub fn kind(&self) -> RemoteErrorKind {
        self.kind
    }

    /// Returns whether the store may have carried the command out all the same.
    ///
    /// A store that answers garbage has read the command first.
    #[must_use]
    pub fn is_indeterminate(&self) -> bool {
        matches!(self.kind, RemoteErrorKind::TimedOut | RemoteErrorKind::Interrupted | RemoteErrorKind::Protocol)
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
