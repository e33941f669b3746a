//! What larder tells of itself: figures through the facade `metrics`, spans and events through `tracing`.
//!
//! The rest of the crate calls what is here whatever the features; without them all of it compiles to nothing. A hit calls
//! none of it: counters are published from snapshots, and a span begins where a load or an exchange does.
//!
//! Recorders and subscribers are foreign code: none is called under a lock, and a panic of theirs goes no further.

mod cache;
#[cfg(any(feature = "tiered", feature = "tracing"))]
mod events;
#[cfg(feature = "metrics")]
mod figures;
#[cfg(feature = "metrics")]
mod publish;
#[cfg(feature = "tiered")]
mod remote;
#[cfg(feature = "tracing")]
mod spans;
#[cfg(not(feature = "tracing"))]
#[path = "watch/inert.rs"]
mod spans;

pub(crate) use self::cache::CacheWatch;
#[cfg(feature = "tiered")]
pub(crate) use self::events::Limit;
#[cfg(any(feature = "tiered", feature = "tracing"))]
pub(crate) use self::events::event;
#[cfg(feature = "metrics")]
pub(crate) use self::figures::Figure;
#[cfg(all(feature = "metrics", feature = "tiered"))]
pub(crate) use self::publish::publish_tiers;
#[cfg(feature = "tiered")]
pub(crate) use self::remote::{LaneWatch, Publisher, WayWatch};
pub(crate) use self::spans::{Background, EnteredSpan, LoadSpan, PANICKED};
