//! A shard: the part of a cache that one lock guards. It knows nothing of that lock, runs no code of the user's but
//! `Eq`, and hands out whatever leaves it, to be dropped once the lock is free.

mod leaving;
mod pauses;
mod state;
mod sweep;

pub(crate) use self::leaving::Leaving;
pub(crate) use self::state::Shard;
