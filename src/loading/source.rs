//! Registered loaders: what users implement, and what the cache calls.

use std::future::{Future, ready};
use std::pin::Pin;

use crate::batch::Batch;
use crate::options::Load;
use crate::sync::Arc;

/// Loads values for a cache, by blocking the thread that asks for them.
///
/// Registered by [`CacheBuilder::loader`](crate::CacheBuilder::loader). Implemented for closures
/// `Fn(&K, Load<V>) -> Result<V, E>`; implement it for a type of your own to load many keys at once as well.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
/// use std::io;
/// use larder::{Batch, Cache, Load, Loader};
///
/// struct Prices(HashMap<u32, u64>);
///
/// impl Loader<u32, u64> for Prices {
///     type Error = io::Error;
///
///     fn load(&self, article: &u32, _load: Load<u64>) -> io::Result<u64> {
///         self.0.get(article).copied().ok_or_else(|| io::Error::other("no such article"))
///     }
///
///     fn load_many(&self, batch: Batch<u32, u64>) -> io::Result<Vec<(u32, u64)>> {
///         Ok(batch.keys().filter_map(|article| Some((*article, *self.0.get(article)?))).collect())
///     }
/// }
///
/// let prices = Cache::builder().capacity(100).loader(Prices(HashMap::from([(7, 250)]))).build()?;
/// assert_eq!(prices.load(&7)?, 250);
/// assert_eq!(prices.load_many(&[7, 8])?, [Some(250), None]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Loader<K, V>: Send + Sync + 'static {
    /// Why a value could not be loaded. Shared by all who waited for it.
    type Error: Send + Sync + 'static;

    /// Returns the value for `key`.
    ///
    /// # Errors
    /// Why there is none. It is not kept: the next caller tries again, but for a stale value, which is served for a while
    /// before another refresh is tried.
    fn load(&self, key: &K, load: Load<V>) -> Result<V, Self::Error>;

    /// Returns the values for the keys of a batch, in any order. A key that is left out has no value.
    ///
    /// As provided, loads one key after the other, and ends with the first error.
    ///
    /// # Errors
    /// Why there are none; it concerns all keys of the batch.
    fn load_many(&self, batch: Batch<K, V>) -> Result<Vec<(K, V)>, Self::Error> {
        let load = |(key, load): (K, Load<V>)| self.load(&key, load).map(|value| (key, value));
        batch.into_iter().map(load).collect()
    }
}

impl<K, V, E, F> Loader<K, V> for F
where
    F: Fn(&K, Load<V>) -> Result<V, E> + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    type Error = E;

    fn load(&self, key: &K, load: Load<V>) -> Result<V, E> {
        self(key, load)
    }
}

/// Loads values for a cache by futures, which run on its own threads, on the runtime that its spawner names, or as part of the
/// caller that waits for them.
///
/// Registered by [`CacheBuilder::async_loader`](crate::CacheBuilder::async_loader). Implemented for closures
/// `Fn(K, Load<V>) -> Fut`. A future that needs a certain runtime (a socket of tokio's, say) needs a
/// [`spawner`](crate::LoadingBuilder::spawner) too.
///
/// # Examples
/// ```
/// use larder::{Cache, Load};
///
/// let names = Cache::builder()
///     .capacity(100)
///     .async_loader(|id: u32, _: Load<String>| async move { Ok::<_, std::io::Error>(format!("user {id}")) })
///     .build()?;
/// assert_eq!(futures::executor::block_on(names.load_async(&7))?, "user 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AsyncLoader<K: Clone + Send, V: Send>: Send + Sync + 'static {
    /// Why a value could not be loaded. Shared by all who waited for it.
    type Error: Send + Sync + 'static;

    /// Returns the value for `key`; as [`Loader::load`].
    fn load(&self, key: K, load: Load<V>) -> impl Future<Output = Result<V, Self::Error>> + Send;

    /// Returns the values for the keys of a batch; as [`Loader::load_many`].
    fn load_many(&self, batch: Batch<K, V>) -> impl Future<Output = Result<Vec<(K, V)>, Self::Error>> + Send {
        async move {
            let mut values = Vec::with_capacity(batch.len());
            for (key, load) in batch {
                values.push((key.clone(), self.load(key, load).await?));
            }
            Ok(values)
        }
    }
}

impl<K, V, E, F, Fut> AsyncLoader<K, V> for F
where
    K: Clone + Send,
    V: Send,
    F: Fn(K, Load<V>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<V, E>> + Send,
    E: Send + Sync + 'static,
{
    type Error = E;

    fn load(&self, key: K, load: Load<V>) -> impl Future<Output = Result<V, E>> + Send {
        self(key, load)
    }
}

/// What a load resolves to.
pub(crate) type Loaded<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// A loader, whatever its type. A blocking one has run by the time it returns its future.
trait AnyLoader<K, V, E>: Send + Sync {
    fn load(self: Arc<Self>, key: K, load: Load<V>) -> Loaded<V, E>;
    fn load_many(self: Arc<Self>, batch: Batch<K, V>) -> Loaded<Vec<(K, V)>, E>;
}

struct Blocking<L>(L);

impl<K, V: Send + 'static, L: Loader<K, V>> AnyLoader<K, V, L::Error> for Blocking<L>
where
    K: Send + 'static,
{
    fn load(self: Arc<Self>, key: K, load: Load<V>) -> Loaded<V, L::Error> {
        Box::pin(ready(self.0.load(&key, load)))
    }

    fn load_many(self: Arc<Self>, batch: Batch<K, V>) -> Loaded<Vec<(K, V)>, L::Error> {
        Box::pin(ready(self.0.load_many(batch)))
    }
}

struct Futures<L>(L);

impl<K, V, L> AnyLoader<K, V, L::Error> for Futures<L>
where
    K: Clone + Send + 'static,
    V: Send + 'static,
    L: AsyncLoader<K, V>,
{
    fn load(self: Arc<Self>, key: K, load: Load<V>) -> Loaded<V, L::Error> {
        Box::pin(async move { self.0.load(key, load).await })
    }

    fn load_many(self: Arc<Self>, batch: Batch<K, V>) -> Loaded<Vec<(K, V)>, L::Error> {
        Box::pin(async move { self.0.load_many(batch).await })
    }
}

/// Loads batches alone.
type AnyBatchLoader<K, V, E> = Box<dyn Fn(Batch<K, V>) -> Loaded<Vec<(K, V)>, E> + Send + Sync>;

/// Where a cache's values come from.
pub(crate) struct Source<K, V, E> {
    kind: Kind<K, V, E>,
    /// Whether a load keeps its thread until it has ended.
    blocks: bool,
}

enum Kind<K, V, E> {
    Keys(Arc<dyn AnyLoader<K, V, E>>),
    Batches(AnyBatchLoader<K, V, E>),
}

impl<K, V, E> Source<K, V, E>
where
    K: Clone + Send + 'static,
    V: Send + 'static,
    E: Send + Sync + 'static,
{
    pub(crate) fn blocking(loader: impl Loader<K, V, Error = E>) -> Self {
        Source { kind: Kind::Keys(Arc::new(Blocking(loader))), blocks: true }
    }

    pub(crate) fn futures(loader: impl AsyncLoader<K, V, Error = E>) -> Self {
        Source { kind: Kind::Keys(Arc::new(Futures(loader))), blocks: false }
    }

    pub(crate) fn blocking_batches<F>(loader: F) -> Self
    where
        F: Fn(Batch<K, V>) -> Result<Vec<(K, V)>, E> + Send + Sync + 'static,
    {
        Source { kind: Kind::Batches(Box::new(move |batch| Box::pin(ready(loader(batch))))), blocks: true }
    }

    pub(crate) fn batches_of_futures<F, Fut>(loader: F) -> Self
    where
        F: Fn(Batch<K, V>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<(K, V)>, E>> + Send + 'static,
    {
        Source { kind: Kind::Batches(Box::new(move |batch| Box::pin(loader(batch)))), blocks: false }
    }
}

impl<K, V, E> Source<K, V, E> {
    /// Returns whether a load blocks the thread that begins it.
    pub(crate) fn blocks(&self) -> bool {
        self.blocks
    }

    /// Returns whether single keys are loaded as batches of one.
    pub(crate) fn is_by_batches(&self) -> bool {
        matches!(self.kind, Kind::Batches(_))
    }

    pub(crate) fn load(&self, key: K, load: Load<V>) -> Loaded<V, E> {
        match &self.kind {
            Kind::Keys(loader) => loader.clone().load(key, load),
            Kind::Batches(_) => unreachable!("a loader of batches is handed batches"),
        }
    }

    pub(crate) fn load_many(&self, batch: Batch<K, V>) -> Loaded<Vec<(K, V)>, E> {
        match &self.kind {
            Kind::Keys(loader) => loader.clone().load_many(batch),
            Kind::Batches(load_many) => load_many(batch),
        }
    }
}
