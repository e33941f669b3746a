//! Caching HTTP responses, and answering conditional requests: a layer for tower, which axum takes.
//!
//! [`ResponseCache`] is the place to start.

mod asked;
mod body;
mod cache;
mod cache_control;
#[cfg(feature = "tiered")]
mod codec;
mod conditions;
mod depends;
mod etag;
mod layer;
mod page;
mod run;
mod serve;
mod shelf;
mod status;
mod storing;
mod visit;

#[cfg(all(fuzzing, feature = "tiered"))]
pub(crate) use self::codec::reread;

pub use self::body::ResponseBody;
pub use self::cache::{ResponseCache, ResponseCacheBuilder};
pub use self::cache_control::CacheControl;
pub use self::depends::Depends;
pub use self::etag::{ETag, IfNoneMatch, InvalidETag};
pub use self::layer::{CachedService, ResponseCacheLayer};
