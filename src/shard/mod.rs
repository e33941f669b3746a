//! A shard: the part of a cache that one lock guards. It knows nothing of that lock, runs no code of the user's but
//! `Hash` and `Eq`, and hands out whatever leaves it, to be dropped once the lock is free.

mod state;
mod sweep;
mod table;

pub(crate) use self::state::{Leaving, Shard};
