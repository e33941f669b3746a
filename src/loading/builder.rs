//! Registering a loader with a cache that is being built.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::pool::{MAX_THREADS, Pool};
use super::{AsyncLoader, Loader, Loading, LoadingCache, Registered, Source, Spawner, Typed};
use crate::batch::Batch;
use crate::builder::CacheBuilder;
use crate::error::BuildError;
use crate::load::BoxFuture;
use crate::sync::Arc;
#[cfg(feature = "tiered")]
use crate::{loading::LoadingTieredCache, remote::key::RemoteKey, tiered::TieredCacheBuilder};

/// How many threads load in the background, unless the builder says otherwise.
const LOAD_THREADS: usize = 4;

/// How long no other refresh is tried after one that failed, unless the cache's builder says otherwise.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Builds a [`Loading`] cache: `B`, the builder of the cache, with a loader whose errors are `E`.
///
/// Made by [`CacheBuilder::loader`] and its like. Settings of the cache come before, those of loading after.
#[must_use = "a builder does nothing until it is built"]
pub struct LoadingBuilder<B: Typed, E> {
    cache: B,
    source: Source<B::Key, B::Value, E>,
    soft_timeout: Duration,
    hard_timeout: Option<Duration>,
    load_threads: usize,
    spawner: Option<Spawner>,
}

impl<B: Typed, E> LoadingBuilder<B, E> {
    pub(crate) fn new(cache: B, source: Source<B::Key, B::Value, E>) -> Self {
        LoadingBuilder {
            cache,
            source,
            soft_timeout: Duration::ZERO,
            hard_timeout: None,
            load_threads: LOAD_THREADS,
            spawner: None,
        }
    }

    /// Sets how long the caller that begins a refresh waits for it, before it is served the stale value. Default: zero, not at
    /// all. Longer than the hard timeout is an error.
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = timeout;
        self
    }

    /// Sets how long a load may take before it is given up, and how long a caller waits for one. Default: none. Zero is an
    /// error. Loads that somebody waits for run in the background then, so that the caller can leave them.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = Some(timeout);
        self
    }

    /// Sets how many threads load in the background at most, named `larder-load-N`. Default: 4. From 1 to 1,024. They are
    /// started as there are loads for them. Futures share them, and wait without one.
    pub fn load_threads(mut self, threads: usize) -> Self {
        self.load_threads = threads;
        self
    }

    /// Sets who runs loads that are futures, in the background: a runtime of the user's, as a rule. Default: the cache's own
    /// threads. An error for a loader that blocks, which must not run on a runtime. A panic of `spawn` passes through to the
    /// caller that begins the load.
    ///
    /// # Examples
    /// ```
    /// use larder::{Cache, Load};
    ///
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// let handle = runtime.handle().clone();
    /// let names = Cache::builder()
    ///     .capacity(100)
    ///     .async_loader(|id: u32, _: Load<String>| async move { Ok::<_, std::io::Error>(format!("user {id}")) })
    ///     .spawner(move |load| drop(handle.spawn(load)))
    ///     .build()?;
    /// assert_eq!(runtime.block_on(names.load_async(&7))?, "user 7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawner(mut self, spawn: impl Fn(BoxFuture) + Send + Sync + 'static) -> Self {
        self.spawner = Some(Box::new(spawn));
        self
    }

    fn check(&self) -> Result<(), BuildError> {
        let (soft, threads) = (self.soft_timeout, self.load_threads);
        if self.hard_timeout == Some(Duration::ZERO) {
            return Err(BuildError::new(
                "hard_timeout is zero, so every load would be given up at once; set how long one may take, or leave it out",
            ));
        }
        if let Some(hard) = self.hard_timeout
            && soft > hard
        {
            return Err(BuildError::new(format!(
                "soft_timeout ({soft:?}) is longer than hard_timeout ({hard:?}), after which there is nothing to wait for; \
                 set it to {hard:?} or less"
            )));
        }
        if threads == 0 || threads > MAX_THREADS {
            return Err(BuildError::new(format!("load_threads is {threads}; set 1 to {MAX_THREADS}")));
        }
        if self.spawner.is_some() && self.source.blocks() {
            return Err(BuildError::new(
                "spawner is set, but the loader blocks, and would block the runtime; register it by async_loader or \
                 async_batch_loader, or leave the spawner out and set load_threads",
            ));
        }
        Ok(())
    }

    /// Checks the settings and builds the cache by `build`, which returns it with its name.
    fn finish<C>(self, build: impl FnOnce(B) -> Result<(C, Arc<str>), BuildError>) -> Result<Loading<C, E>, BuildError>
    where
        C: Typed<Key = B::Key, Value = B::Value>,
    {
        self.check()?;
        let (cache, name) = build(self.cache)?;
        let registered = Registered {
            name,
            source: Arc::new(self.source),
            soft_timeout: self.soft_timeout,
            hard_timeout: self.hard_timeout,
            spawner: self.spawner,
            pool: Pool::new(self.load_threads),
        };
        Ok(Loading { cache, registered: Arc::new(registered) })
    }
}

impl<K, V, S, E> LoadingBuilder<CacheBuilder<K, V, S>, E>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Builds the cache. Starts no thread yet.
    ///
    /// # Errors
    /// [`BuildError`] if a setting of the cache or of its loading is missing, out of range, or at odds with another; the
    /// message says which, and what to do.
    pub fn build(self) -> Result<LoadingCache<K, V, E, S>, BuildError> {
        self.finish(|cache| {
            let cache = cache.stale_if_error_by_default(RETRY_AFTER).build()?;
            let name = Arc::from(&*cache.store.settings.name);
            Ok((cache, name))
        })
    }
}

#[cfg(feature = "tiered")]
impl<K, V, S, E> LoadingBuilder<TieredCacheBuilder<K, V, S>, E>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Builds the cache. Does no I/O, and starts no thread yet.
    ///
    /// # Errors
    /// [`BuildError`] if a setting of the cache or of its loading is missing, out of range, or at odds with another; the
    /// message says which, and what to do.
    pub fn build(self) -> Result<LoadingTieredCache<K, V, E, S>, BuildError> {
        self.finish(|cache| {
            let cache = cache.stale_if_error_by_default(RETRY_AFTER).build()?;
            let name = cache.name().into();
            Ok((cache, name))
        })
    }
}

/// The ways to register a loader, of both builders.
macro_rules! registration {
    ($builder:ident) => {
        impl<K, V, S> $builder<K, V, S>
        where
            K: Clone + Send + 'static,
            V: Send + 'static,
        {
            /// Registers what loads values, by blocking its thread: a closure `Fn(&K, Load<V>) -> Result<V, E>`, or a
            /// [`Loader`]. The settings that follow are those of loading.
            ///
            /// Say the types of a closure's arguments: they cannot be inferred.
            pub fn loader<L: Loader<K, V>>(self, loader: L) -> LoadingBuilder<Self, L::Error> {
                LoadingBuilder::new(self, Source::blocking(loader))
            }

            /// Registers what loads values by futures: a closure `Fn(K, Load<V>) -> Fut`, or an [`AsyncLoader`]; otherwise as
            /// [`loader`](Self::loader).
            pub fn async_loader<L: AsyncLoader<K, V>>(self, loader: L) -> LoadingBuilder<Self, L::Error> {
                LoadingBuilder::new(self, Source::futures(loader))
            }

            /// Registers what loads several values at once, by blocking its thread. A single key is loaded as a batch of one. A
            /// key that the loader leaves out has no value; asked for by itself, that is
            /// [`Absent`](crate::LoadErrorKind::Absent).
            pub fn batch_loader<F, E>(self, loader: F) -> LoadingBuilder<Self, E>
            where
                F: Fn(Batch<K, V>) -> Result<Vec<(K, V)>, E> + Send + Sync + 'static,
                E: Send + Sync + 'static,
            {
                LoadingBuilder::new(self, Source::blocking_batches(loader))
            }

            /// Registers what loads several values at once by futures; otherwise as [`batch_loader`](Self::batch_loader).
            pub fn async_batch_loader<F, Fut, E>(self, loader: F) -> LoadingBuilder<Self, E>
            where
                F: Fn(Batch<K, V>) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<Vec<(K, V)>, E>> + Send + 'static,
                E: Send + Sync + 'static,
            {
                LoadingBuilder::new(self, Source::batches_of_futures(loader))
            }
        }
    };
}

registration!(CacheBuilder);
#[cfg(feature = "tiered")]
registration!(TieredCacheBuilder);

impl<B: Typed + fmt::Debug, E> fmt::Debug for LoadingBuilder<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadingBuilder")
            .field("cache", &self.cache)
            .field("soft_timeout", &self.soft_timeout)
            .field("hard_timeout", &self.hard_timeout)
            .field("load_threads", &self.load_threads)
            .finish_non_exhaustive()
    }
}
