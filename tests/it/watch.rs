//! What larder tells of itself, with recorders and subscribers that keep what they are told.

#[cfg(all(feature = "tracing", feature = "tiered"))]
mod events;
#[cfg(feature = "metrics")]
mod figures;
#[cfg(feature = "tracing")]
mod log;
#[cfg(feature = "tracing")]
mod spans;
