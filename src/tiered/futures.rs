//! The verbs of a tiered cache that wait, for futures: on any runtime, and without blocking whoever polls them.
//!
//! Exchanges with the remote tier run on the namespace's own threads. Dropping a future half-way frees what it has claimed; a
//! change that it had begun is carried out all the same, or its undoing is.

use std::future::Future;
use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::{Added, TieredCache, Write};
use crate::batch::Batch;
use crate::error::LoadError;
use crate::key::ToKey;
use crate::load::Step;
use crate::namespace::Bump;
use crate::options::{EntryOptions, Load};
use crate::remote::batch::Caller;
use crate::remote::key::RemoteKey;

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Returns the value for `key`: [`get`](Self::get) for futures. A local hit is ready at once.
    pub async fn get_async<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        match self.get_local(key) {
            Some(value) => Some(value),
            None => self.read(Caller::Task, &[key]).await.pop().flatten(),
        }
    }

    /// Calls `f` with a reference to the value for `key`: [`with`](Self::with) for futures.
    pub async fn with_async<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        match self.with_local(key, f) {
            Ok(answer) => Some(answer),
            Err(f) => self.read(Caller::Task, &[key]).await.pop().flatten().map(|value| f(&value)),
        }
    }

    /// Returns the value for each key, in order: [`get_many`](Self::get_many) for futures.
    pub async fn get_many_async<'q, Q, I>(&self, keys: I) -> Vec<Option<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.read_many(Caller::Task, keys).await
    }

    /// Returns whether either tier has a value for `key`: [`contains`](Self::contains) for futures.
    pub async fn contains_async<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.local().contains(key) || self.get_async(key).await.is_some()
    }

    /// Returns the value for `key`, or loads it and stores it in both tiers: [`get_or_load`](Self::get_or_load) for futures.
    ///
    /// The load runs as part of the returned future. Dropping that half-way drops the load and frees the key, here and in the
    /// remote tier.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_async<Q, E, F, Fut>(&self, key: &Q, loader: F) -> Result<V, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let first = match self.look_first(key)? {
            Some(Step::Done(value)) => return Ok(value),
            other => other,
        };
        self.load_one(Caller::Task, key, first, loader).await
    }

    /// Returns the value for each key, in order, and loads all that neither tier has at once:
    /// [`get_many_or_load`](Self::get_many_or_load) for futures.
    ///
    /// # Errors
    /// As [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// # Panics
    /// As [`get_many_or_load`](Self::get_many_or_load).
    pub async fn get_many_or_load_async<'q, Q, I, E, F, Fut>(
        &self,
        keys: I,
        loader: F,
    ) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
        E: Send + Sync + 'static,
        F: FnOnce(Batch<K, V>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        self.load_many(Caller::Task, keys, loader).await
    }

    /// Stores `value` under `key` in both tiers: [`insert`](Self::insert) for futures. In the local tier from the first poll
    /// on. If the future is dropped half-way, what the remote tier holds under the key is to be deleted.
    pub async fn insert_async(&self, key: K, value: V) -> Write {
        self.insert_with_async(key, value, EntryOptions::new()).await
    }

    /// Stores `value` under `key` in both tiers with these options: [`insert_with`](Self::insert_with) for futures, as
    /// [`insert_async`](Self::insert_async).
    pub async fn insert_with_async(&self, key: K, value: V, options: EntryOptions) -> Write {
        let written = self.write_all(Caller::Task, [(key, value)], options).await;
        written.into_iter().next().unwrap_or(Write::Through)
    }

    /// Stores every pair: [`insert_many`](Self::insert_many) for futures, as [`insert_async`](Self::insert_async).
    pub async fn insert_many_async(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Vec<Write> {
        self.write_all(Caller::Task, pairs, EntryOptions::new()).await
    }

    /// Stores `value` under `key` in both tiers unless either has a value: [`add`](Self::add) for futures. If the future is
    /// dropped half-way, neither tier keeps the value for long.
    pub async fn add_async(&self, key: K, value: V) -> Added {
        self.add_one(Caller::Task, key, value).await
    }

    /// Replaces the value for `key` in both tiers: [`update`](Self::update) for futures. If the future is dropped half-way,
    /// the value is in both tiers or in neither.
    pub async fn update_async<Q>(&self, key: &Q, f: impl Fn(&V) -> V) -> Option<V>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.update_one(Caller::Task, key, f).await
    }

    /// Removes the value for `key` from both tiers: [`remove`](Self::remove) for futures. In the local tier from the first
    /// poll on; if the future is dropped half-way, the removal is carried out all the same.
    pub async fn remove_async<Q>(&self, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        self.remove_all(Caller::Task, [key]).await
    }

    /// Removes the value for each key: [`remove_many`](Self::remove_many) for futures, as
    /// [`remove_async`](Self::remove_async).
    pub async fn remove_many_async<'q, Q, I>(&self, keys: I) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized + 'q,
        I: IntoIterator<Item = &'q Q>,
    {
        self.remove_all(Caller::Task, keys).await
    }

    /// Makes the value for `key` stale in both tiers: [`expire`](Self::expire) for futures. In the local tier from the first
    /// poll on; if the future is dropped half-way, what the remote tier holds under the key is to be deleted.
    pub async fn expire_async<Q>(&self, key: &Q) -> Bump
    where
        Q: Hash + Equivalent<K> + RemoteKey + ?Sized,
    {
        self.expire_one(Caller::Task, key).await
    }

    /// Makes every entry of this cache dead: [`clear`](Self::clear) for futures.
    pub async fn clear_async(&self) -> Bump {
        self.clear_all(Caller::Task).await
    }

    /// Makes every entry of `group` dead; see [`Namespace::invalidate_group_async`](crate::Namespace::invalidate_group_async).
    pub async fn invalidate_group_async(&self, group: &str) -> Bump {
        self.namespace().invalidate_group_async(group).await
    }

    /// Makes every entry of `group` stale; see [`Namespace::expire_group_async`](crate::Namespace::expire_group_async).
    pub async fn expire_group_async(&self, group: &str) -> Bump {
        self.namespace().expire_group_async(group).await
    }

    /// Makes every entry of each group dead; see
    /// [`Namespace::invalidate_groups_async`](crate::Namespace::invalidate_groups_async).
    pub async fn invalidate_groups_async<I>(&self, groups: I) -> Bump
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.namespace().invalidate_groups_async(groups).await
    }
}
