//! A sharded in-process cache with soft and hard deadlines, groups, and an optional second tier in memcached.

mod batch;
mod budget;
mod builder;
mod cache;
mod claim;
mod clock;
mod entry;
mod error;
mod flight;
mod group;
mod key;
mod load;
mod options;
mod policy;
mod shard;
mod stats;
mod store;
mod sync;

#[cfg(feature = "tiered")]
mod broadcast;
#[cfg(all(test, feature = "tiered"))]
mod golden;
#[cfg(feature = "tiered")]
mod namespace;
#[cfg(feature = "tiered")]
mod remote;
#[cfg(feature = "tiered")]
mod tiered;

pub use batch::Batch;
pub use builder::CacheBuilder;
pub use cache::{Cache, Iter, Lookup};
pub use claim::{Claim, Fill};
pub use clock::{Clock, ManualClock};
pub use entry::EntryInfo;
pub use equivalent::Equivalent;
pub use error::{BuildError, LoadError, LoadErrorKind, Rejected};
pub use group::Groups;
pub use key::ToKey;
pub use load::BoxFuture;
pub use options::{EntryOptions, Load};
pub use stats::{RemovalCause, Stats};

#[cfg(feature = "memcached")]
pub use remote::memcached::{Memcached, MemcachedBuilder};
#[cfg(feature = "tiered")]
pub use remote::{
    codec::{Codec, CodecError, CodecId, RawBytes},
    error::{RemoteError, RemoteErrorKind},
    in_memory::InMemoryRemote,
    key::{RemoteKey, WireKey},
    tier::{Action, Cas, Command, Expiry, Item, RemoteTier, Reply, Route, SetMode},
};

#[cfg(feature = "tiered")]
pub use namespace::{Bump, Namespace, NamespaceBuilder, Receipt};
#[cfg(feature = "tiered")]
pub use tiered::{Added, LocalView, RemoteStats, TieredCache, TieredCacheBuilder, Write};

#[cfg(feature = "serde")]
pub use remote::codec::Postcard;
