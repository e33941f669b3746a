//! The integration tests: larder as its users see it, through the public API alone.

mod fences;
mod model;
mod removal;
mod scene;
mod single_flight;
mod weights;
