//! A model of how processes share the remote tier, explored exhaustively within small bounds.
//!
//! The states are those of the code: what memcached holds ([`store`]), what a process knows ([`process`]), and where each of
//! its calls is ([`calls`]); together they are a state of the [`model`]. A step is what happens at one moment: a command is
//! carried out, an answer arrives, a loader returns, or something fails ([`actions`]). [`search`] visits every state that can
//! be reached, nearest first, and reports the shortest way to one in which a promise is broken. Each of the [`rules`] can be
//! dropped, to see that it is needed, and that the model would notice. [`configurations`] are the bounds.
//!
//! **What a value is.** It stands for what its load could have seen: the set of changes (invalidations, inserts) that had
//! been called when the load began. A value is too old for a reader if it lacks a change that the reader must see.
//!
//! **What is random or counted in the code** (tokens, epochs, versions) is a number here, and of numbers only those that are
//! compared with another are told apart. A generation is not counted: whatever carries a `born` carries the groups that have
//! moved since.
//!
//! **What is forgotten.** Each state is made one of few: of a call, what no later step of it looks at; of a change, who has heard
//! of it, once every value knows it; of a process, all that it knows, once it neither has nor reads anything; of the journal,
//! how its entries stand between one position that somebody knows and the next. What is lost by eviction, flush or crash is
//! lost just before the step that can tell. And where no value lacks a change, and no change is left to be called, nothing
//! is looked for. That this hides no broken promise is a test of its own, which forgets nothing ([`model::Model::exact`]).

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
