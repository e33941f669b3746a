//! A sharded in-process cache with soft and hard deadlines, groups, and an optional second tier in memcached.
//!
//! Values age in two steps: first *stale*, still served while one caller refreshes them, then *dead*, never served.
//! They belong to groups, each of which is invalidated in constant time, whatever it holds. Callers that miss one key
//! at once share one load, and a load that was overtaken by an invalidation leaves nothing behind.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use larder::Cache;
//!
//! let pages: Cache<String, String> = Cache::builder()
//!     .capacity(10_000)
//!     .soft_ttl(Duration::from_secs(60)) // stale after a minute, dead after eight
//!     .build()?;
//!
//! let page = pages.get_or_load("/user/7", |load| {
//!     load.groups(["user:7", "team:2"]);
//!     Ok::<_, std::io::Error>("Ann's page".to_owned())
//! })?;
//! assert_eq!(page, "Ann's page");
//!
//! pages.invalidate_group("team:2");
//! assert_eq!(pages.get("/user/7"), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where to start: [`Cache`] for one process, [`TieredCache`] for several. [`Cache::get_or_load`] is the verb of most
//! callers; [`Cache::lookup`] is for those who fill a key by hand. The module [`design`] says how all of it works.
//!
//! # Concepts
//!
//! **Fresh, stale, dead.** A value is *fresh* until its soft deadline, *stale* until its hard one, then *dead*. Each
//! entry may have its own ([`EntryOptions`], or a loader's [`Load`]), otherwise the cache's hold. [`Cache::get`]
//! returns fresh and stale values alike and refreshes nothing. The loading verbs return fresh values at once; of the
//! callers that find a stale one, one refreshes it and the others get it as it is.
//!
//! **Groups.** A name that any number of entries belong to, and an entry may belong to several.
//! [`Cache::invalidate_group`] makes its entries dead, [`Cache::expire_group`] stale. Neither visits them: each
//! registry of groups counts its invalidations, a group remembers the number of its last one, and an entry the number
//! that was reached when its load began. The larger number decides, on every read. Caches may share a registry
//! ([`Groups`]); the caches of a [`Namespace`] do.
//!
//! **Claims.** The right to fill one key, which one caller at a time holds. The loading verbs take and use it by
//! themselves; [`Cache::lookup`] hands it out as a [`Claim`]. Dropping it frees the key at once, and one whose holder
//! has vanished can be taken over after the key's grace ([`CacheBuilder::grace`]). Those of [`TieredCache::lookup`] hold
//! for all processes.
//!
//! **Options of a call.** Verbs that end in `_with` take [`CallOptions`]: which tier the call passes by, whether it
//! refreshes or copies anything, how long it waits, and how long its claim lasts.
//!
//! **Warming up.** [`Cache::warm_up`] stores what is known beforehand as long as there is room, and
//! [`TieredCache::warm_up_from_remote`] copies what the remote tier has. Neither evicts or replaces anything.
//!
//! **Refreshes.** The loader of a refresh sees the stale value and its validator ([`Load::validator`]), and may answer
//! that nothing has changed ([`Load::not_modified`]): the value's time begins anew, which costs a second tier a touch and
//! no write. [`CacheBuilder::refresh_ahead`] and [`CacheBuilder::early_refresh`] refresh values before they are stale.
//! That there is no value is worth remembering too, for a time of its own ([`CacheBuilder::negative_ttl`]).
//!
//! **Single flight.** Whoever finds no value and no claim to be had waits for the holder's result, as a thread or as a
//! future, for at most [`CacheBuilder::load_wait`]. Errors of the loader are shared as well.
//!
//! **Registered loaders.** A cache that is built with [`CacheBuilder::loader`] and its like is a [`Loading`] cache: it
//! refreshes stale values in the background while they are served, gives up loads that take longer than
//! [`hard_timeout`](LoadingBuilder::hard_timeout), and leaves a stale value in service while its refreshes fail.
//! Callers wait for a load no longer than they are told to, whatever the loader does.
//!
//! **Fences.** A fill is judged by the moment its claim was taken. If the key has been removed, expired or stored
//! since, or any of the value's groups invalidated, the fill is *fenced*: the caller gets the value it made
//! ([`Fill::Fenced`], or simply the result of its load), those who have waited since before the invalidation get it
//! too, and nobody else does.
//!
//! **Change feeds.** Where others save, too, the cache hears of it from the source: [`Cache::invalidate_from`] takes
//! [`Change`]s from an iterator or a stream until it ends, and [`Cache::follow`] keeps a thread at a [`ChangeFeed`] (a
//! database's log, `LISTEN`, a queue), which it connects again when it fails, from the last position that it applied. What a
//! feed may have missed is invalidated. [`ChangeFeed`] says which loads that makes safe, and which it cannot.
//!
//! # Guarantees
//!
//! Under any interleaving of callers of one process:
//!
//! - One load of a key runs at a time, save beside one that is fenced already, or whose claim has outlived its grace.
//! - A value whose load began before an invalidation of its key or of one of its groups is never returned as fresh to
//!   who comes after it: not from the cache, and not by joining the load. This includes groups that the loader names
//!   only at its end.
//! - [`Cache::update`] loses no update, [`Cache::add`] succeeds for one of several callers.
//! - Weight never exceeds capacity, at any moment; one that [`Cache::set_capacity`] lowers, once that returns. An entry
//!   that alone is heavier is [`Rejected`], and what it was to replace is gone.
//! - A hit waits for nobody's I/O, loader, or closure.
//! - A panic in a loader frees the key and reaches the caller that ran it, if one did; those who wait get an error. A
//!   panic in the removal listener is caught and counted.
//!
//! With a second tier:
//!
//! - A value from there counts only while each of its groups has the random token that was recorded with the value. So
//!   whatever the store loses, evicts or forgets in a restart is a miss.
//! - A value is written there only in the place of what its writer has read, so that neither a slow loader nor a
//!   command that the store carries out late overwrites anything newer. What is touched and turns out to be another's is
//!   deleted.
//! - Of all processes that miss a key, one loads it. A load that an invalidation overtakes, by whichever process and of
//!   whatever group, named early or late, is stored nowhere.
//! - Once an invalidation is acknowledged, this process never serves the old value again, connected ones stop within
//!   [`poll_interval`](NamespaceBuilder::poll_interval) and two round trips, and one that is cut off from the store within
//!   [`trust`](NamespaceBuilder::trust).
//! - Every exchange has a time limit ([`NamespaceBuilder::timeout`]). A failed read is a miss. A failed write or
//!   invalidation says so ([`Write`], [`Bump`]) and is tried again until it is through; until then, this process takes
//!   nothing from the store that it concerns.
//!
//! # What it does not do
//!
//! - There is no time to idle, and no thread of larder's that refreshes values nobody asks for.
//! - Eviction is by shard and approximate, as recency is: two bits an entry.
//!
//! And what cannot be had: a read that began before an invalidation may return after it. A write whose answer got lost
//! may or may not have happened. An invalidation that is [`Pending`](Bump::Pending) is lost if its process crashes; one that
//! ends in good order calls [`Namespace::shutdown`]. A virtual machine that is paused may not know that time has passed, and
//! serve what it should not.
//!
//! # Memory
//!
//! Beyond the size of its key and its value and what those own, an entry of a full cache takes
//!
//! | for | bytes | |
//! |---|---|---|
//! | itself | 64 | a generation, two deadlines, when and how long it was loaded, grace, recency, one group, weight, hash, and 8 for its slot in a chunk |
//! | the index | 12 | 64 for six entries, and an eighth to spare |
//! | the order of eviction | 12 | |
//! | lists of chunks | 1 | up to 7 where shards are small |
//! | what was evicted | 6 | once something has been: two fingerprints, with when and how they left |
//! | two or more groups | 80 | and 8 for each from three on, as if there were four, eight and so on |
//!
//! as requested from the allocator, on 64-bit machines. That is, for each of
//!
//! | entries, `u64` keys, one group | just come | others long evicted |
//! |---|---|---|
//! | a million | 89 | 95 |
//! | 100,000 | 89 | 96 |
//! | 1,000, in eight shards | 116 | 140 |
//!
//! with all else that a cache takes: at most 12,000 bytes and 800 for each shard while it holds nothing; another 1,280 for each
//! shard that holds anything, and a chunk of entries, half of which are vacant on average: 8 to 64, about the square root of the
//! number that the shard is to hold; and the [places of values](#when-values-are-dropped) that wait to be dropped. A table
//! grows to its full size, twice what it had before, once a little more than half of the entries are there.
//!
//! The places of entries that left are for those to come. A cache that has been emptied, or whose capacity was lowered, keeps
//! them as long as it lives: all of the above but lists of groups and, after [`Cache::run_maintenance`], the index; what keys
//! and values own is freed. One that gets by with less from some time on is best built anew.
//!
//! A group takes 160 bytes and its name while an entry or a load refers to it. What it leaves behind does not grow with the
//! number of groups: at most 48 KiB in the registry, and 64 KiB from the first invalidation of a group on.
//!
//! No read of a key allocates, but what [`Cache::inspect`] tells and, once, 128 bytes for a thread, which are for another when it
//! has ended. Nor does an insert that evicts or replaces, a removal, or an invalidation but the first, in the long run:
//! the lists of what waits to be dropped grow, and stay. A cache that fills takes chunks and tables. A group's name of more than
//! 22 bytes is allocated for each insert that gives it; two or more groups are two lists, of their names and of what they are.
//!
//! # When values are dropped
//!
//! A value that is replaced, removed or evicted cannot be found any more once the call that did it returns, and the removal
//! listener has been told. But since hits take no lock, somebody may be looking at it, and so it is dropped a little later, by
//! one of the next writes and outside of locks. Once 512 values of the cache have come together, or a sixteenth of its capacity
//! by weight (of less than 1,024: up to 64, and no more than a quarter), one write finds out which of them nobody looks at. From
//! then on each value that is inserted drops one of those and takes its place, and where more leave than are inserted, each that
//! leaves has one dropped. So at most 1,280 wait, or 5/32 of the capacity by weight (of less than 1,024: 160, and no more than
//! 5/8); where many threads write at the same time, for a moment up to three times as many.
//!
//! What must be dropped at once, say because a file is to be closed, is dropped by [`Cache::run_maintenance`], unless a reader
//! is looking at it at that moment, or something under way holds on to it: an iterator, a refresh. So is what waits in a cache
//! that nobody writes to. A value that owns a handle to its own cache keeps that alive until then, even after it was removed.
//!
//! A value that died by a deadline or a group stays in memory and in [`Cache::len`] until it is found, and one that died by
//! [`Cache::clear`] in memory alone: every insert looks at four entries of its shard while there can be dead ones, one that
//! needs room at up to 64 before it evicts a live one, and [`Cache::run_maintenance`] at all. No read goes in search of any.
//!
//! # Whose code runs under a lock
//!
//! `Eq` of keys, under one shard's lock, where a key is stored, removed, expired, missed, or looked up to be loaded and found
//! stale: keep it short, and do not call the cache from it. Everything else of yours (loaders, weigher, listener, codec,
//! closures, `Clone`, `Drop`, wakers) runs outside all locks and may call the cache. A loader that asks for its own key gets an error, [`Reentrant`](LoadErrorKind::Reentrant), where it would
//! wait for itself.
//!
//! # Pages of a web server
//!
//! With the feature `http`, [`ResponseCache`](http::ResponseCache) is a layer for tower, and so for axum, that keeps responses
//! as `Cache-Control` allows a shared cache to, and answers who holds a page already with a 304. Handlers name the records
//! that a page was made from ([`Depends`](http::Depends)); who saves a record invalidates its group, and every page made
//! from it is gone, in all processes.
//!
//! # Watching it
//!
//! [`Cache::stats`] counts what a cache has done, [`Namespace::health`] says how it and its remote tier are. With the feature
//! `metrics`, these figures and the times of loads and exchanges go to the recorder of the `metrics` facade: by themselves
//! for a namespace and its caches, by [`Cache::publish_metrics`] for a cache of its own. Reads that larder makes for itself,
//! to refresh, to update or to copy a value, are not counted as reads.
//!
//! With the feature `tracing` there are spans around loads and calls of the remote tier, which nest in those of the caller,
//! and events for what no caller is told: a breaker that opens, trust that is lost, queues that are full. The module
//! [`watching`] lists all of it.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | – | [`Cache`] and all that belongs to it | yes |
//! | `tiered` | [`Namespace`], [`TieredCache`], [`Counter`], the codec [`RawBytes`], and [`InMemoryRemote`], a second tier for tests | no |
//! | `memcached` | [`Memcached`], the second tier in memcached 1.6.18 or later; includes `tiered` | no |
//! | `http` | [`ResponseCache`](http::ResponseCache), a tower layer that caches responses and answers conditional requests | no |
//! | `lz4` | [`Compression`] of what is in the second tier; includes `tiered` | no |
//! | `metrics` | counters, gauges and histograms through the `metrics` facade: see [`watching`] | no |
//! | `serde` | [`Postcard`], a codec for every type that serde can write and read; includes `tiered` | no |
//! | `tracing` | spans around loads and remote calls, and events for what goes wrong: see [`watching`] | no |
// The guide and the design page speak of all features, whichever are on.
#![cfg_attr(
    not(all(feature = "http", feature = "lz4", feature = "memcached", feature = "metrics", feature = "serde")),
    allow(rustdoc::broken_intra_doc_links)
)]

mod batch;
mod budget;
mod builder;
mod cache;
mod call;
mod claim;
mod clock;
mod compact;
mod entry;
mod error;
mod feed;
mod flight;
mod group;
mod index;
mod key;
mod limit;
mod load;
mod loading;
mod options;
mod policy;
mod shard;
mod signal;
mod stats;
mod store;
mod sync;
mod task;
mod warm_up;
mod watch;

#[cfg(feature = "http")]
pub mod http;

#[cfg(all(fuzzing, feature = "http", feature = "lz4", feature = "tiered"))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(feature = "tiered")]
mod broadcast;
#[cfg(all(test, feature = "tiered"))]
mod golden;
#[cfg(feature = "tiered")]
mod namespace;
#[cfg(feature = "tiered")]
mod remote;
#[cfg(feature = "tiered")]
mod tiered;

pub use batch::Batch;
pub use builder::CacheBuilder;
pub use cache::{Cache, Iter, Lookup};
pub use call::CallOptions;
pub use claim::{Claim, Fill};
pub use clock::{Clock, ManualClock};
pub use entry::EntryInfo;
pub use equivalent::Equivalent;
pub use error::{BuildError, LoadError, LoadErrorKind, Rejected};
pub use feed::{Change, ChangeFeed, Connected, FeedHealth, FeedState, Follower};
pub use group::Groups;
pub use key::ToKey;
pub use load::BoxFuture;
pub use loading::{AsyncLoader, Loader, Loading, LoadingBuilder, LoadingCache};
pub use options::{EntryOptions, Load};
pub use stats::{RemovalCause, Stats};

#[cfg(feature = "memcached")]
pub use remote::memcached::{Memcached, MemcachedBuilder};
#[cfg(feature = "tiered")]
pub use remote::{
    bytes::SharedBytes,
    codec::{Codec, CodecError, CodecId, Optional, RawBytes},
    error::{RemoteError, RemoteErrorKind},
    in_memory::InMemoryRemote,
    key::{RemoteKey, WireKey},
    tier::{Action, BreakerState, Cas, Command, Expiry, Item, RemoteTier, Reply, Route, ServerHealth, SetMode},
};

#[cfg(feature = "tiered")]
pub use broadcast::outbox::Unsent;
#[cfg(feature = "tiered")]
pub use namespace::{Announce, Bump, Counter, Health, LostTrust, Namespace, NamespaceBuilder, Receipt, WriteMode};
#[cfg(feature = "tiered")]
pub use tiered::{Added, LocalView, RemoteStats, TieredCache, TieredCacheBuilder, TieredClaim, Write};

#[cfg(feature = "tiered")]
pub use loading::LoadingTieredCache;

#[cfg(feature = "serde")]
pub use remote::codec::Postcard;
#[cfg(feature = "lz4")]
pub use remote::packing::lz4::Compression;

/// What simulations are run with: see `tests/sim`.
#[cfg(larder_sim)]
pub mod sim {
    pub use crate::sync::sim::Bell;
    pub use crate::sync::sim::world::{
        Delay, Joiner, Options, Outcome, Process, fail, here, kill, now, pause, process, random, resume, run,
        sleep_until, spawn,
    };
}

#[doc = include_str!("docs/design.md")]
pub mod design {}

#[doc = include_str!("docs/security.md")]
pub mod security {}

#[doc = include_str!("docs/bad_input.md")]
pub mod bad_input {}

#[doc = include_str!("docs/scale.md")]
#[cfg(feature = "tiered")]
pub mod scale {}

#[doc = include_str!("docs/protocol.md")]
#[cfg(feature = "tiered")]
pub mod protocol {}

#[doc = include_str!("docs/simulation.md")]
#[cfg(feature = "tiered")]
pub mod simulation {}

#[doc = include_str!("docs/watching.md")]
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub mod watching {}

/// The examples of the README, as tests.
#[cfg(all(doctest, feature = "memcached"))]
#[doc = include_str!("../README.md")]
struct Readme;
