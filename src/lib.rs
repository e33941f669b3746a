//! A sharded in-process cache with soft and hard deadlines, groups, and an optional second tier in memcached.

#[cfg(feature = "tiered")]
mod broadcast;
#[cfg(all(test, feature = "tiered"))]
mod golden;
#[cfg(feature = "tiered")]
mod remote;

#[cfg(feature = "tiered")]
pub use remote::{
    codec::{Codec, CodecError, CodecId, RawBytes},
    error::{RemoteError, RemoteErrorKind},
    key::{RemoteKey, WireKey},
    tier::{Action, Cas, Command, Expiry, Item, RemoteTier, Reply, Route, SetMode},
};

#[cfg(feature = "serde")]
pub use remote::codec::Postcard;
