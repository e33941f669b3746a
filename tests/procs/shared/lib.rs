//! What the tests and the worker processes that they start have in common.

pub mod clock;
pub mod flood;
pub mod notes;
pub mod order;
pub mod stalls;
pub mod truth;
