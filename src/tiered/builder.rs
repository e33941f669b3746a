//! Building a tiered cache: the settings of its local tier, and how its values are written in the remote one.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::inbox::Inbox;
use super::sightings::Sightings;
use super::{Counters, Remote, TieredCache};
use crate::builder::CacheBuilder;
use crate::error::BuildError;
use crate::namespace::Namespace;
use crate::remote::codec::Codec;
use crate::remote::key::RemoteKey;
use crate::remote::packing::Packing;
#[cfg(feature = "lz4")]
use crate::remote::packing::lz4::Compression;
use crate::stats::RemovalCause;
use crate::sync::{Arc, Weak};

/// Builds a [`TieredCache`]. Made by [`TieredCache::builder`].
///
/// Settings are those of [`CacheBuilder`] for the local tier, without groups and clock, which are the namespace's; and a
/// codec, which is required.
#[must_use = "a builder does nothing until it is built"]
pub struct TieredCacheBuilder<K, V, S = ahash::RandomState> {
    namespace: Namespace,
    name: String,
    local: CacheBuilder<K, V, S>,
    codec: Option<Box<dyn Codec<V>>>,
    packing: Packing,
}

impl<K, V> TieredCacheBuilder<K, V> {
    pub(super) fn new(namespace: &Namespace, name: &str) -> Self {
        TieredCacheBuilder {
            namespace: namespace.clone(),
            name: name.to_owned(),
            local: CacheBuilder::new()
                .name(name)
                .groups(namespace.core().groups.clone())
                .clock(namespace.core().clock.clone()),
            codec: None,
            packing: Packing::default(),
        }
    }
}

impl<K, V, S> TieredCacheBuilder<K, V, S> {
    /// Sets how values are written in the remote tier. Required.
    pub fn codec(mut self, codec: impl Codec<V>) -> Self {
        self.codec = Some(Box::new(codec));
        self
    }

    /// Compresses values in the remote tier. Default: they are stored as their codec writes them. Limits that cannot be are an
    /// error.
    #[cfg(feature = "lz4")]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.packing.compression = Some(compression);
        self
    }

    /// Sets how keys are hashed in the local tier; as [`CacheBuilder::hasher`].
    pub fn hasher<T>(self, hasher: T) -> TieredCacheBuilder<K, V, T> {
        TieredCacheBuilder {
            namespace: self.namespace,
            name: self.name,
            local: self.local.hasher(hasher),
            codec: self.codec,
            packing: self.packing,
        }
    }

    fn map(mut self, set: impl FnOnce(CacheBuilder<K, V, S>) -> CacheBuilder<K, V, S>) -> Self {
        self.local = set(self.local);
        self
    }

    /// Sets how much weight the local tier may hold; as [`CacheBuilder::capacity`]. Zero leaves everything to the remote tier;
    /// a stale value can then neither be served while it is refreshed nor answer for a refresh that failed.
    pub fn capacity(self, capacity: u64) -> Self {
        self.map(|local| local.capacity(capacity))
    }

    /// Sets what an entry weighs in the local tier; as [`CacheBuilder::weigher`].
    pub fn weigher(self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.map(|local| local.weigher(weigher))
    }

    /// Sets the number of shards of the local tier; as [`CacheBuilder::shards`].
    pub fn shards(self, shards: usize) -> Self {
        self.map(|local| local.shards(shards))
    }

    /// Sets a hard deadline alone, for both tiers; as [`CacheBuilder::ttl`].
    pub fn ttl(self, ttl: Duration) -> Self {
        self.map(|local| local.ttl(ttl))
    }

    /// Sets the soft deadline, for both tiers; as [`CacheBuilder::soft_ttl`].
    ///
    /// The remote tier counts whole seconds, and an entry that comes from there is taken to be up to two seconds older than
    /// it is, never younger: give values that are to be shared deadlines of more than a few seconds.
    pub fn soft_ttl(self, ttl: Duration) -> Self {
        self.map(|local| local.soft_ttl(ttl))
    }

    /// Sets the hard deadline, for both tiers; as [`CacheBuilder::hard_ttl`].
    pub fn hard_ttl(self, ttl: Duration) -> Self {
        self.map(|local| local.hard_ttl(ttl))
    }

    /// Sets how many times as long as the soft deadline the hard one is; as [`CacheBuilder::hard_ttl_factor`].
    pub fn hard_ttl_factor(self, factor: u32) -> Self {
        self.map(|local| local.hard_ttl_factor(factor))
    }

    /// Sets how long a claim lasts in this process; as [`CacheBuilder::grace`].
    pub fn grace(self, grace: Duration) -> Self {
        self.map(|local| local.grace(grace))
    }

    /// Shortens deadlines at random; as [`CacheBuilder::jitter`].
    pub fn jitter(self, part: f64) -> Self {
        self.map(|local| local.jitter(part))
    }

    /// Refreshes values ahead of their soft deadline; as [`CacheBuilder::early_refresh`].
    pub fn early_refresh(self, beta: f64) -> Self {
        self.map(|local| local.early_refresh(beta))
    }

    /// Refreshes values ahead of their soft deadline, after a part of the time; as [`CacheBuilder::refresh_ahead`]. The remote
    /// tier is asked first: of all processes, one refreshes a value.
    pub fn refresh_ahead(self, part: f64) -> Self {
        self.map(|local| local.refresh_ahead(part))
    }

    /// Sets how a value's validator is told; as [`CacheBuilder::validator`]. A load that says
    /// [`not_modified`](crate::Load::not_modified) costs the remote tier a touch where that does, and not a write.
    pub fn validator(self, validator: impl Fn(&V) -> Option<String> + Send + Sync + 'static) -> Self {
        self.map(|local| local.validator(validator))
    }

    /// Answers with the stale value when its refresh fails; as [`CacheBuilder::stale_if_error`].
    pub fn stale_if_error(self, retry_after: Duration) -> Self {
        self.map(|local| local.stale_if_error(retry_after))
    }

    /// Sets the same for a cache whose refreshes have no caller that could be told of an error, unless it is set already.
    pub(crate) fn stale_if_error_by_default(self, retry_after: Duration) -> Self {
        self.map(|local| local.stale_if_error_by_default(retry_after))
    }

    /// Sets how long a caller waits for the load of another; as [`CacheBuilder::load_wait`].
    pub fn load_wait(self, wait: Duration) -> Self {
        self.map(|local| local.load_wait(wait))
    }

    /// Sets who is told of every entry that leaves the local tier; as [`CacheBuilder::on_removal`].
    ///
    /// What another process removes or replaces is told of on the thread that follows the journal, which learns nothing else
    /// meanwhile: one that takes long delays invalidations, up to the trust lease.
    pub fn on_removal(self, listener: impl Fn(&K, &V, RemovalCause) + Send + Sync + 'static) -> Self {
        self.map(|local| local.on_removal(listener))
    }
}

impl<K, T, S> TieredCacheBuilder<K, Option<T>, S> {
    /// Keeps the knowledge that there is no value, in both tiers; as [`CacheBuilder::negative_ttl`]. The codec has to write
    /// `None` too: [`Optional`](crate::Optional) teaches that to one which does not.
    pub fn negative_ttl(self, ttl: Duration) -> Self {
        self.map(|local| local.negative_ttl(ttl))
    }
}

impl<K, V, S> TieredCacheBuilder<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Builds the cache. Does no I/O.
    ///
    /// # Errors
    /// [`BuildError`] if the name or a setting cannot be used, or the codec is missing; the message says which, and what to
    /// do.
    pub fn build(self) -> Result<TieredCache<K, V, S>, BuildError> {
        let codec = self.codec.ok_or_else(|| {
            BuildError::new(
                "codec is not set; set how values are written in the remote tier: RawBytes, Postcard or your own",
            )
        })?;
        #[cfg(feature = "lz4")]
        self.packing.compression.map(Compression::check).transpose()?;
        let core = self.namespace.core();
        let keys = core.keys.cache(&self.name).map_err(|error| BuildError::new(error.to_string()))?;
        let local = self.local.build()?;
        local.store.watch().join(core.keys.namespace());
        let counters = Arc::<Counters>::default();
        let inbox = Inbox::new(local.store.clone(), keys.root_group(), core.next_sender(), counters.clone());
        let inbox = Arc::new(inbox);
        let audience: Weak<Inbox<K, V>> = Arc::downgrade(&inbox);
        core.join(audience);
        let (packing, namespace, sightings) = (self.packing, self.namespace, Sightings::default());
        let remote = Remote { keys, codec, packing, counters, inbox, namespace, sightings };
        Ok(TieredCache { local, remote: Arc::new(remote) })
    }
}

impl<K, V, S> fmt::Debug for TieredCacheBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCacheBuilder").field("local", &self.local).finish_non_exhaustive()
    }
}
