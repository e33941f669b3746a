//! Counters in the remote tier.

use std::fmt;
use std::time::Duration;

use super::Namespace;
use crate::clock::real;
use crate::remote::batch::Caller;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::WireKey;
use crate::remote::request::Request;
use crate::remote::tier::{Action, Expiry, Reply, Route, SetMode};
use crate::remote::unexpected;

/// The most digits that 64 bits have.
const MAX_DIGITS: usize = 20;

/// A number in the remote tier that any process may change, one after the other. Made by [`Namespace::counter`].
///
/// It is 64 bits without a sign. It lives in the remote tier alone, so that it is lost with its server, and counts from its
/// initial value again then: good for limits and statistics, not for identity.
///
/// # Errors
/// Every operation fails where the remote tier cannot be reached, and where what it holds under the name is no number
/// ([`Refused`](RemoteErrorKind::Refused)). A change that may have been made all the same says so
/// ([`RemoteError::is_indeterminate`]); it is never repeated by itself.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::{InMemoryRemote, Namespace};
///
/// let namespace = Namespace::builder("shop", InMemoryRemote::new()).build()?;
/// let logins = namespace.counter("logins:ann").ttl(Duration::from_secs(60));
/// assert_eq!(logins.incr(1)?, 1);
/// assert_eq!(logins.incr(2)?, 3);
/// assert_eq!(logins.decr(5)?, 0);
/// assert_eq!(logins.get()?, Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Counter {
    namespace: Namespace,
    key: WireKey,
    initial: u64,
    expiry: Expiry,
}

impl Counter {
    pub(super) fn new(namespace: Namespace, name: &str) -> Counter {
        let key = namespace.core().keys.counter(name);
        Counter { namespace, key, initial: 0, expiry: Expiry::Never }
    }

    /// Sets how long the counter lives from when it comes into being, by a change or by [`set`](Self::set); changes do not
    /// prolong it. Whole seconds, rounded up, at least 1. Default: until the remote tier is short of memory.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Counter {
        self.expiry = Expiry::After(ttl);
        self
    }

    /// Sets what a counter that is not there counts from. Default: 0.
    #[must_use]
    pub fn initial(mut self, initial: u64) -> Counter {
        self.initial = initial;
        self
    }

    /// Adds `n`, and returns the sum. It goes on from 0 past 2^64 - 1.
    ///
    /// # Errors
    /// See [`Counter`].
    ///
    /// # Blocking
    /// On one exchange with the remote tier, for at most the namespace's timeout.
    pub fn incr(&self, n: u64) -> Result<u64, RemoteError> {
        real::block_on(self.add(Caller::Thread, n))
    }

    /// Adds `n`: [`incr`](Self::incr) for futures. If the future is dropped half-way, nobody knows whether it was added.
    ///
    /// # Errors
    /// See [`Counter`].
    pub async fn incr_async(&self, n: u64) -> Result<u64, RemoteError> {
        self.add(Caller::Task, n).await
    }

    /// Subtracts `n`, but not below 0, and returns what is left.
    ///
    /// # Errors
    /// See [`Counter`].
    ///
    /// # Blocking
    /// As [`incr`](Self::incr).
    pub fn decr(&self, n: u64) -> Result<u64, RemoteError> {
        real::block_on(self.subtract(Caller::Thread, n))
    }

    /// Subtracts `n`: [`decr`](Self::decr) for futures. If the future is dropped half-way, nobody knows whether it was
    /// subtracted.
    ///
    /// # Errors
    /// See [`Counter`].
    pub async fn decr_async(&self, n: u64) -> Result<u64, RemoteError> {
        self.subtract(Caller::Task, n).await
    }

    /// Returns the counter's value; `None` if it is not there.
    ///
    /// # Errors
    /// See [`Counter`].
    ///
    /// # Blocking
    /// As [`incr`](Self::incr).
    pub fn get(&self) -> Result<Option<u64>, RemoteError> {
        real::block_on(self.read(Caller::Thread))
    }

    /// Returns the counter's value: [`get`](Self::get) for futures.
    ///
    /// # Errors
    /// See [`Counter`].
    pub async fn get_async(&self) -> Result<Option<u64>, RemoteError> {
        self.read(Caller::Task).await
    }

    /// Makes the counter `n`, whatever it was; its time to live starts anew.
    ///
    /// # Errors
    /// See [`Counter`].
    ///
    /// # Blocking
    /// As [`incr`](Self::incr).
    pub fn set(&self, n: u64) -> Result<(), RemoteError> {
        real::block_on(self.write(Caller::Thread, n))
    }

    /// Makes the counter `n`: [`set`](Self::set) for futures. If the future is dropped half-way, nobody knows whether it is.
    ///
    /// # Errors
    /// See [`Counter`].
    pub async fn set_async(&self, n: u64) -> Result<(), RemoteError> {
        self.write(Caller::Task, n).await
    }

    async fn add(&self, caller: Caller, delta: u64) -> Result<u64, RemoteError> {
        // The store takes the initial value as it is, without what was to be added to it.
        let initial = Some((self.initial.wrapping_add(delta), self.expiry));
        self.change(caller, Action::Increment { delta, initial }).await
    }

    async fn subtract(&self, caller: Caller, delta: u64) -> Result<u64, RemoteError> {
        let initial = Some((self.initial.saturating_sub(delta), self.expiry));
        self.change(caller, Action::Decrement { delta, initial }).await
    }

    async fn change(&self, caller: Caller, action: Action<'static>) -> Result<u64, RemoteError> {
        match self.run(caller, Request::new(self.key.clone(), Route::ByKey, action)).await? {
            Reply::Number(number) => Ok(number),
            _ => Err(unexpected("to a change of a counter")),
        }
    }

    async fn read(&self, caller: Caller) -> Result<Option<u64>, RemoteError> {
        match self.run(caller, Request::get(self.key.clone(), Route::ByKey)).await? {
            Reply::Hit(item) => self.parse(&item.value).map(Some),
            Reply::Miss => Ok(None),
            _ => Err(unexpected("to a read of a counter")),
        }
    }

    async fn write(&self, caller: Caller, n: u64) -> Result<(), RemoteError> {
        let digits = n.to_string().into_bytes();
        let set = Request::set(self.key.clone(), Route::ByKey, digits, self.expiry, SetMode::Always, None);
        match self.run(caller, set).await? {
            Reply::Done => Ok(()),
            _ => Err(unexpected("to a write of a counter")),
        }
    }

    /// Reads the digits of a counter; the store leaves spaces behind them when they become fewer.
    fn parse(&self, bytes: &[u8]) -> Result<u64, RemoteError> {
        let digits = bytes.trim_ascii_end();
        let plain = (1..=MAX_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        let number = if plain { std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) } else { None };
        number.ok_or_else(|| {
            RemoteError::new(
                RemoteErrorKind::Refused,
                format!("what the store holds under {:?} is no number", self.key),
            )
        })
    }

    async fn run(&self, caller: Caller, request: Request) -> Result<Reply, RemoteError> {
        self.namespace.core().run_one(caller, request).await
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter")
            .field("key", &self.key)
            .field("initial", &self.initial)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}
