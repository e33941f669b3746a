//! The remote tier: what it stores, how it is written on the wire, and the stores that hold it.

#[expect(dead_code, reason = "callers move to it")]
pub(crate) mod batch;
pub(crate) mod codec;
pub(crate) mod debt;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod key;
pub(crate) mod keyspace;
pub(crate) mod link;
pub(crate) mod reader;
#[cfg_attr(not(test), expect(dead_code, reason = "callers move to it"))]
pub(crate) mod request;
pub(crate) mod tier;

pub(crate) mod in_memory;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;

#[cfg(feature = "memcached")]
mod breaker;
mod time;
