//! How processes learn what others have invalidated.
//!
//! Whoever invalidates something appends an entry to the [`journal`], an item of the store ([`announce`]). Every process
//! looks at it all the time ([`poller`]), knows how far it has come ([`follower`]), and serves from its local tier only as
//! long as its last look is not too long ago ([`trust`]). What a look brings is returned, for the caches to apply.
//!
//! An invalidation that did not get through is owed ([`debts`]), and sent until it is through ([`outbox`]).

pub(crate) mod announce;
mod backoff;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace will use it"))]
pub(crate) mod behind;
mod debts;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace will use it"))]
pub(crate) mod follower;
mod item;
pub(crate) mod journal;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace will use it"))]
pub(crate) mod outbox;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace will use it"))]
pub(crate) mod poller;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace will use it"))]
pub(crate) mod slip;
#[cfg_attr(not(test), expect(dead_code, reason = "the namespace will use it"))]
pub(crate) mod trust;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod support;
