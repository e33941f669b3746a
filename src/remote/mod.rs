//! The remote tier: what it stores, how it is written on the wire, and the stores that hold it.

pub(crate) mod codec;
#[cfg_attr(not(test), expect(dead_code, reason = "the tiered cache will use it"))]
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod key;
#[cfg_attr(not(test), expect(dead_code, reason = "the tiered cache will use it"))]
pub(crate) mod keyspace;
pub(crate) mod reader;
pub(crate) mod tier;
