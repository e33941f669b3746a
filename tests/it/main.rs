//! The integration tests: larder as its users see it, through the public API alone.

mod ahead;
mod builder;
mod calls;
mod eviction;
mod feed;
mod fences;
mod freshness;
mod groups;
mod keeping;
mod loading;
mod misc;
mod model;
mod negative;
mod removal;
mod scene;
mod single_flight;
mod stats;
mod warm_up;
mod weights;

#[cfg(feature = "http")]
mod http;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod watch;

#[cfg(feature = "tiered")]
mod honest;
#[cfg(feature = "tiered")]
mod parity;
#[cfg(feature = "tiered")]
mod remote_tier;
#[cfg(feature = "tiered")]
mod rules;
#[cfg(feature = "tiered")]
mod tiered;

#[cfg(feature = "memcached")]
mod memcached;
#[cfg(feature = "memcached")]
mod oracle;
#[cfg(feature = "memcached")]
mod support;
