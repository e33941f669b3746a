//! How processes learn what others have invalidated.
//!
//! Whoever invalidates something appends an entry to the [`journal`], an item of the store ([`announce`]). Every process
//! looks at it all the time ([`poller`]), knows how far it has come ([`follower`]), and serves from its local tier only as
//! long as its last look is not too long ago ([`trust`]). What a look brings is returned, for the caches to apply.
//!
//! An invalidation that did not get through is owed ([`debts`]), and sent until it is through ([`outbox`]).

pub(crate) mod announce;
mod backoff;
pub(crate) mod behind;
pub(crate) mod debts;
pub(crate) mod follower;
mod item;
pub(crate) mod journal;
pub(crate) mod outbox;
pub(crate) mod poller;
pub(crate) mod slip;
pub(crate) mod trust;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod support;
