//! The integration tests: larder as its users see it, through the public API alone.

#[cfg(feature = "tiered")]
mod remote_tier;

#[cfg(feature = "memcached")]
mod memcached;
#[cfg(feature = "memcached")]
mod oracle;
#[cfg(feature = "memcached")]
mod support;
#[cfg(feature = "tiered")]
mod tiered;
