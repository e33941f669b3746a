//! A sharded in-process cache with soft and hard deadlines, groups, and an optional second tier in memcached.

#[cfg(feature = "tiered")]
mod remote;
#[cfg(feature = "tiered")]
mod sync;

#[cfg(feature = "memcached")]
pub use remote::memcached::{Memcached, MemcachedBuilder};
#[cfg(feature = "tiered")]
pub use remote::{
    error::{RemoteError, RemoteErrorKind},
    in_memory::InMemoryRemote,
    key::WireKey,
    tier::{Action, Cas, Command, Expiry, Item, RemoteTier, Reply, Route, SetMode},
};
