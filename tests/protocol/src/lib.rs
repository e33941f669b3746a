//! A model of how processes share the remote tier, explored exhaustively within small bounds.
//!
//! The states are those of the code: what memcached holds ([`store`]), what a process knows ([`process`]), and where each of
//! its calls is ([`calls`]). A step is what happens at one moment: a command is carried out, an answer arrives, a loader
//! returns, or something fails ([`model`]). [`search`] visits every state that can be reached, nearest first, and reports the
//! shortest way to one in which a promise is broken. Each of the [`rules`] can be dropped, to see that it is needed, and that
//! the model would notice. [`configurations`] are the bounds.
//!
//! **What a value is.** It stands for what its load could have seen: the set of changes (invalidations, inserts) that had
//! been called when the load began. A value is too old for a reader if it lacks a change that the reader must see.
//!
//! **What is random or counted in the code** (tokens, epochs, versions) is a number here, and numbers that are in use are
//! renamed to the smallest, so that states which differ in names alone are one. A generation is not counted: whatever
//! carries a `born` carries the groups that have moved since.

pub mod actions;
pub mod calls;
mod canonical;
pub mod configurations;
mod faults;
pub mod model;
mod numbers;
pub mod process;
mod promises;
mod relevance;
pub mod rules;
pub mod search;
pub mod store;
