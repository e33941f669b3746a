//! Claims over both tiers: the right, and the ticket, to fill one key by hand, among all processes.

use std::fmt;
use std::future::{Future, ready};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::TieredCache;
use super::consult::{Consulted, Ticket, Wanted};
use super::load::{Outgoing, Pauses};
use super::read::Seen;
use crate::cache::Lookup;
use crate::call::CallOptions;
use crate::claim::{Claim, Fill};
use crate::clock::{Deadline, real};
use crate::entry::{Freshness, Handle};
use crate::error::LoadError;
use crate::flight::Joined;
use crate::key::ToKey;
use crate::namespace::core::Standing;
use crate::options::{EntryOptions, Load};
use crate::remote::batch::Caller;
use crate::remote::key::RemoteKey;
use crate::store::Look;

/// The right to fill one key in both tiers. One holder at a time among all processes; dropping it frees the key for all.
///
/// A claim is taken by [`TieredCache::lookup`], and is over in two cases: when its key or a group of its value is invalidated,
/// by whatever process, and when its grace has passed and it was not [extended](Self::extend), so that a holder that vanished
/// blocks nobody for long. Its fill is then refused, unless it refreshes a value that nobody has replaced yet. One that was
/// taken while the remote tier could not be asked is good for the local tier alone, and its fill stays there.
///
/// # Blocking
/// Whoever took it by a verb for threads waits for one exchange with the remote tier when dropping it, so that the next call
/// finds the key free. One that was taken by a future is given back in the background.
#[must_use = "a dropped claim frees the key for the next caller"]
pub struct TieredClaim<K, V, S = ahash::RandomState> {
    // In the order in which they are dropped: who takes the key here next finds it free in the remote tier.
    ticket: Ticket,
    claim: Claim<K, V>,
    cache: TieredCache<K, V, S>,
}

impl<K, V, S> TieredClaim<K, V, S> {
    /// Returns the key to fill.
    #[must_use]
    pub fn key(&self) -> &K {
        self.claim.key()
    }

    /// Returns the stale value to replace; `None` where there is none, or the local tier has no room for it.
    #[must_use]
    pub fn stale(&self) -> Option<&V> {
        self.claim.stale()
    }

    /// Keeps the claim for `grace` from now on, in both tiers, for fills that take longer than the key's grace.
    ///
    /// Returns whether the claim still holds: `false` says that another caller may have the key by now, here or in another
    /// process, and that a fill is likely to be refused. Does no I/O: the lease in the remote tier is renewed in the background.
    pub fn extend(&self, grace: Duration) -> bool {
        let until = Deadline::after(self.cache.remote.core().clock.now(), grace);
        self.claim.stands() && self.ticket.keep(until) && self.claim.extend(grace)
    }
}

impl<K, V, S> TieredClaim<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Stores `value` under the claim's key in both tiers, with the cache's defaults.
    ///
    /// The fill is judged by the moment the claim was taken: an invalidation since then refuses it, by whichever process.
    /// `Stored` says that the value is in one tier at least: a failure of the remote one is counted in
    /// [`RemoteStats::errors`](crate::RemoteStats::errors), and so is, as for a load, no reason to withhold it here. `Rejected`
    /// says that it is in neither.
    ///
    /// # Blocking
    /// On one exchange with the remote tier as a rule, and up to two more, for at most the namespace's timeout each.
    pub fn fill(self, value: V) -> Fill<V> {
        self.fill_with(value, EntryOptions::new())
    }

    /// Stores `value` under the claim's key in both tiers, with these options; otherwise as [`fill`](Self::fill).
    ///
    /// The fill is judged by the moment the claim was taken, also for groups that are named only here.
    ///
    /// # Blocking
    /// As [`fill`](Self::fill).
    pub fn fill_with(self, value: V, options: EntryOptions) -> Fill<V> {
        real::block_on(self.fill_by(Caller::Thread, value, options))
    }

    /// Stores `value` under the claim's key in both tiers: [`fill`](Self::fill) for futures. Dropping the future half-way frees
    /// the key; the value may be in the remote tier then.
    pub async fn fill_async(self, value: V) -> Fill<V> {
        self.fill_by(Caller::Task, value, EntryOptions::new()).await
    }

    /// Stores `value` under the claim's key in both tiers, with these options: [`fill_with`](Self::fill_with) for futures, as
    /// [`fill_async`](Self::fill_async).
    pub async fn fill_with_async(self, value: V, options: EntryOptions) -> Fill<V> {
        self.fill_by(Caller::Task, value, options).await
    }

    /// Runs `loader` on this thread, stores what it returns in both tiers, and returns it.
    ///
    /// The claim does not run out while the loader runs. The value is returned even where it may not be stored.
    ///
    /// # Errors
    /// As [`Claim::load`].
    ///
    /// # Panics
    /// A panic of the loader passes through; the key is free by then.
    ///
    /// # Blocking
    /// On the loader, and on the remote tier as [`fill`](Self::fill).
    pub fn load<E, F>(mut self, loader: F) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Result<V, E>,
    {
        self.pass_to(Caller::Thread);
        let TieredClaim { cache, ticket, claim } = self;
        real::block_on(cache.run_one(Caller::Thread, claim, ticket, |load| ready(loader(load))))
    }

    /// Runs the future that `loader` returns, stores what it resolves to in both tiers, and returns it. Runs on any runtime.
    ///
    /// Dropping the future half-way frees the key. The claim is extended by its grace whenever the future is polled.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    ///
    /// # Panics
    /// As [`load`](Self::load).
    pub async fn load_async<E, F, Fut>(mut self, loader: F) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce(Load<V>) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.pass_to(Caller::Task);
        let TieredClaim { cache, ticket, claim } = self;
        cache.run_one(Caller::Task, claim, ticket, loader).await
    }

    async fn fill_by(mut self, caller: Caller, value: V, options: EntryOptions) -> Fill<V> {
        self.pass_to(caller);
        let TieredClaim { cache, ticket, mut claim } = self;
        let spec = options.resolve(&cache.core().groups);
        // The value may be as old as the claim, and is vouched for no longer than if a load had brought it.
        let took = cache.core().clock.now().since(claim.flight().begun);
        let entry = claim.entry(value, spec, took);
        cache.fill_one(caller, claim, ticket, entry).await
    }

    /// Makes the claim that of `caller`, who is about to end it.
    fn pass_to(&mut self, caller: Caller) {
        let until = match caller {
            // The holder is here, on this stack: it cannot vanish.
            Caller::Thread => Deadline::NEVER,
            Caller::Task => Deadline::after(self.cache.core().clock.now(), self.claim.grace()),
        };
        self.claim.flight().held_until.set(until);
        self.ticket.pass_to(caller, until);
    }
}

impl<K, V, S> TieredCache<K, V, S>
where
    K: Hash + Eq + RemoteKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Looks for the value of `key` in both tiers, and claims the key if it is vacant or stale and nobody else fills it: nobody
    /// in this process, nor in any other.
    ///
    /// So [`Lookup::or_claim`] is the get that prevents dog-piling across processes. Where another one fills the key, a stale
    /// value is returned without a claim, from whichever tier has it, and `Busy` where there is none. The claim lasts for the
    /// value's grace, or the cache's ([`grace`](crate::TieredCacheBuilder::grace)), and gives way when the key or a group of
    /// the value is invalidated, by whichever process.
    ///
    /// While the remote tier cannot be asked, claims are those of the local tier: one for each process. Once the trust lease
    /// has lapsed, with [`LostTrust::Refuse`](crate::LostTrust::Refuse), the answer is `Busy`.
    ///
    /// # Blocking
    /// A local hit never waits. Otherwise on one exchange with the remote tier as a rule, and up to four, for at most the
    /// namespace's timeout each. Never waits for another caller's claim: see [`lookup_wait`](Self::lookup_wait).
    ///
    /// # Examples
    /// ```
    /// use larder::{InMemoryRemote, Namespace, RawBytes, TieredCache};
    ///
    /// let namespace = Namespace::builder("shop", InMemoryRemote::new()).version("1").build()?;
    /// let pages: TieredCache<String, String> =
    ///     TieredCache::builder(&namespace, "pages").capacity(10_000).codec(RawBytes).build()?;
    ///
    /// let page = match pages.lookup("/").or_claim() {
    ///     Ok(page) => page,
    ///     Err(None) => "come back in a moment".to_owned(),
    ///     Err(Some(claim)) => {
    ///         let page = "rendered at great cost".to_owned();
    ///         let _ = claim.fill(page.clone());
    ///         page
    ///     }
    /// };
    /// assert_eq!(pages.get("/"), Some(page));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lookup<Q>(&self, key: &Q) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.lookup_with(key, CallOptions::new())
    }

    /// Looks for the value of `key` as [`lookup`](Self::lookup) does, with these options.
    ///
    /// With [`skip_local`](CallOptions::skip_local), the answer is the remote tier's, and a fill goes there alone; one caller of
    /// this process holds the claim all the same. With [`skip_remote`](CallOptions::skip_remote), all is as for a cache
    /// of one tier. With [`read_only`](CallOptions::read_only) no claim is taken, and `Busy` says that there is no value. With
    /// [`no_refresh`](CallOptions::no_refresh) none is taken of a stale value. [`grace`](CallOptions::grace) is how long the
    /// claim lasts, in both tiers. Where the remote tier has not answered within
    /// [`hard_timeout`](CallOptions::hard_timeout), the call goes on as if it could not be asked.
    ///
    /// # Blocking
    /// As [`lookup`](Self::lookup), for at most the hard timeout in all, if there is one.
    pub fn lookup_with<Q>(&self, key: &Q, options: CallOptions) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        real::block_on(self.look_up(Caller::Thread, key, None, options))
    }

    /// Looks for the value of `key` as [`lookup`](Self::lookup) does, and where another caller fills it, of this process or of
    /// another, waits for that. Stale values are not waited for.
    ///
    /// Returns `Busy` if the key is still being filled after `wait`.
    ///
    /// # Blocking
    /// As [`lookup`](Self::lookup), and up to `wait` while another caller fills the key. A caller that holds the claim itself
    /// waits in vain.
    pub fn lookup_wait<Q>(&self, key: &Q, wait: Duration) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        real::block_on(self.look_up(Caller::Thread, key, Some(wait), CallOptions::new()))
    }

    /// Looks for the value of `key` in both tiers, and claims the key if it is vacant or stale and nobody else fills it. Waits
    /// for `wait` where somebody does.
    pub(super) async fn look_up<Q>(
        &self,
        caller: Caller,
        key: &Q,
        wait: Option<Duration>,
        options: CallOptions,
    ) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let Some(limit) = options.hard_timeout.filter(|_| !options.skip_remote) else {
            return self.look_up_in(caller, key, wait, options, true).await;
        };
        // As for reads: the exchange of a thread of its own could not be left.
        match real::timeout(limit, self.look_up_in(Caller::Task, key, wait, options, true)).await {
            Some(lookup) => lookup,
            None => self.look_up_in(caller, key, None, options.skip_remote(), false).await,
        }
    }

    async fn look_up_in<Q>(
        &self,
        caller: Caller,
        key: &Q,
        wait: Option<Duration>,
        options: CallOptions,
        mut is_first: bool,
    ) -> Lookup<V, TieredClaim<K, V, S>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        let hash = self.local.hash(key);
        let clock = &self.core().clock;
        let deadline = Deadline::after(clock.now(), wait.unwrap_or_default());
        let mut pauses = Pauses::within(wait.unwrap_or_default());
        loop {
            let standing = self.standing_for(caller, options).await;
            if standing == Standing::Refused {
                self.local.count(&Look::Busy(None));
                return Lookup::Busy;
            }
            let look = self.glance_with(standing, hash, key, options);
            if is_first && !options.skip_local {
                self.local.count(&look);
            }
            let claim = match look {
                Look::Fresh(value) => return Lookup::Fresh(value),
                Look::Stale { value, claim: None } => return Lookup::Stale { value, claim: None },
                // A stale value there will do as well, and is not claimed either.
                Look::Vacant(claim) if options.no_refresh && is_first && standing != Standing::CutOff => {
                    drop(claim);
                    if let Some(seen) = self.read(caller, &[key], options).await.pop().flatten() {
                        return seen.into();
                    }
                    is_first = false;
                    continue;
                }
                Look::Stale { claim: Some(claim), .. } | Look::Vacant(claim) => claim,
                // Somebody of this process is at it. What there is meanwhile may be in the remote tier alone; and whoever it is
                // may only have been reading, and be gone by then.
                Look::Busy(_) if is_first && standing != Standing::CutOff => {
                    is_first = false;
                    match self.read_aside(caller, key, options).await {
                        Some(seen) => return seen.into(),
                        None => continue,
                    }
                }
                // Before a wait, not after it: what landed in the last moment is there.
                Look::Busy(Some(joined)) if !deadline.has_passed(clock.now()) => {
                    is_first = false;
                    self.await_landing(caller, &joined, deadline).await;
                    continue;
                }
                Look::Busy(_) => return Lookup::Busy,
            };
            let mut wanted = Wanted { key, claim, at: self.remote.locate(key) };
            if !is_first {
                // It has been asked once, beside the claim.
                let _ = wanted.claim.ask();
            }
            if standing == Standing::CutOff {
                let (claim, ticket) = self.without_remote(caller, wanted);
                return self.hand_over(claim, ticket, options);
            }
            // What passes the local tier by is not copied, as where a copy would not be served.
            let standing = if options.skip_local { Standing::Lapsed } else { standing };
            loop {
                match self.consult(caller, standing, vec![wanted], options.no_refresh).await.pop() {
                    Some(Consulted::Answer(value, freshness)) => return Seen { value, freshness }.into(),
                    Some(Consulted::Load(claim, ticket)) => return self.hand_over(claim, ticket, options),
                    Some(Consulted::Busy(busy, _)) if !deadline.has_passed(clock.now()) && pauses.pause().await => {
                        wanted = busy;
                    }
                    Some(Consulted::Busy(..)) | None => return Lookup::Busy,
                }
            }
        }
    }

    /// Hands a claim out to be filled by hand, for as long as its grace.
    fn hand_over(&self, claim: Claim<K, V>, ticket: Ticket, options: CallOptions) -> Lookup<V, TieredClaim<K, V, S>> {
        let stale = claim.stale().cloned();
        if let (Some(value), true) = (&stale, options.no_refresh) {
            // Of a value that has come since the call has looked.
            return Lookup::Stale { value: value.clone(), claim: None };
        }
        let until = Deadline::after(self.core().clock.now(), claim.grace());
        claim.flight().held_until.set(until);
        ticket.keep(until);
        let claim = TieredClaim { ticket, claim, cache: self.clone() };
        match stale {
            Some(value) => Lookup::Stale { value, claim: Some(claim) },
            None => Lookup::Vacant(claim),
        }
    }

    /// Returns what the remote tier has, for a call that finds another caller of this process at the key; copies nothing.
    async fn read_aside<Q>(&self, caller: Caller, key: &Q, options: CallOptions) -> Option<Seen<V>>
    where
        Q: Hash + ToKey<K> + RemoteKey + ?Sized,
    {
        self.read(caller, &[key], options.skip_local()).await.pop().flatten()
    }

    async fn await_landing(&self, caller: Caller, joined: &Joined<K, V>, deadline: Deadline) {
        let until = deadline.min(joined.flight.awaited_until());
        let clock = &self.core().clock;
        match caller {
            Caller::Thread => drop(clock.block_on(joined.landed(), until)),
            Caller::Task => drop(clock.timeout(joined.landed(), until).await),
        }
    }

    /// Stores in both tiers, as far as no invalidation has overtaken it, what a claim was filled with by hand.
    async fn fill_one(&self, caller: Caller, claim: Claim<K, V>, ticket: Ticket, entry: Handle<K, V>) -> Fill<V> {
        if ticket.cas().is_none() {
            return claim.commit(entry);
        }
        if !claim.stands() {
            return self.fenced(claim, entry);
        }
        let outgoing = [Outgoing { claim, ticket, entry }];
        let sent = self.send_loads(caller, &outgoing).await.pop().expect("each value that is sent has an outcome");
        let [outgoing] = outgoing;
        let (ticket, fill) = self.conclude_load(caller, outgoing, sent).await;
        drop(ticket);
        fill
    }
}

impl<V, C> From<Seen<V>> for Lookup<V, C> {
    fn from(Seen { value, freshness }: Seen<V>) -> Self {
        match freshness {
            Freshness::Fresh => Lookup::Fresh(value),
            Freshness::Stale | Freshness::Dead => Lookup::Stale { value, claim: None },
        }
    }
}

impl<K: fmt::Debug, V, S> fmt::Debug for TieredClaim<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredClaim").field("key", self.key()).field("refreshes", &self.stale().is_some()).finish()
    }
}
