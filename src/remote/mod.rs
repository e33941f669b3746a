//! The remote tier: what it stores, how it is written on the wire, and the stores that hold it.

pub(crate) mod batch;
pub(crate) mod bytes;
pub(crate) mod codec;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod key;
pub(crate) mod keyspace;
pub(crate) mod packing;
pub(crate) mod reader;
pub(crate) mod request;
pub(crate) mod tier;
pub(crate) mod tokens;

pub(crate) mod in_memory;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;

#[cfg(feature = "memcached")]
mod breaker;
mod time;

use self::error::{RemoteError, RemoteErrorKind};

/// Returns the error for an answer that no command of its kind has.
pub(crate) fn unexpected(to_what: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Protocol, format!("the store gave an answer that makes no sense {to_what}"))
}
