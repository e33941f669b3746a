//! The integration tests: larder as its users see it, through the public API alone.

mod builder;
mod fences;
mod freshness;
mod groups;
mod misc;
mod model;
mod removal;
mod scene;
mod single_flight;
mod stats;
mod weights;

#[cfg(feature = "tiered")]
mod honest;
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
