//! A remote tier in this process's memory, with memcached's semantics.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::bytes::SharedBytes;
use super::error::{RemoteError, RemoteErrorKind};
use super::key::WireKey;
use super::tier::{
    Action, Cas, Command, DEFAULT_MAX_VALUE_LEN, Expiry, Item, RemoteTier, Reply, SetMode, next_connection_id,
};
use super::time::whole_secs;
use crate::clock::{Clock, Deadline, Timestamp};
use crate::sync::{Arc, Mutex};

/// The memory that keys and values may take together. Past it the least recently used go, as memcached's do.
const MAX_BYTES: usize = 64 << 20;

/// What an item costs beside its key and value, about as in memcached; so that empty items are bounded too.
const ITEM_OVERHEAD: usize = 64;

/// A [`RemoteTier`] in memory: the default of programs without a memcached, and the oracle of tests.
///
/// Clones share one store, as processes share one memcached. It answers as memcached's meta commands do: a new cas for
/// every change, leases by empty items, stale items whose first reader wins, expiry in whole seconds (rounded up). It holds
/// at most 64 MiB and drops the least recently used beyond that.
///
/// A real store fails in ways that this one has to be told to: see [`offline`](Self::offline),
/// [`fail_next`](Self::fail_next), [`lose_replies`](Self::lose_replies), [`restart`](Self::restart),
/// [`flush`](Self::flush) and [`evict`](Self::evict).
///
/// # Blocking
/// No call waits for more than a short lock, whatever the time limit of a batch.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use larder::{Action, Command, Expiry, InMemoryRemote, RemoteTier, Reply, Route, SetMode, WireKey};
///
/// let remote = InMemoryRemote::new();
/// let key = WireKey::new("greeting")?;
/// let set = Action::Set { value: b"hello", expiry: Expiry::Never, mode: SetMode::Always, cas: None };
/// let get = Action::Get { value: true, lease: None, touch: None };
/// let batch = [set, get].map(|action| Command { key: &key, route: Route::ByKey, action });
/// let replies = remote.run(&batch, Duration::from_millis(100));
/// assert!(matches!(&replies[1], Ok(Reply::Hit(item)) if item.value == b"hello"));
/// # Ok::<(), larder::RemoteError>(())
/// ```
#[derive(Clone)]
pub struct InMemoryRemote {
    store: Arc<Mutex<Store>>,
    max_value_len: usize,
    clock: Clock,
}

impl InMemoryRemote {
    /// Makes an empty store that is online.
    #[must_use]
    pub fn new() -> Self {
        Self {
            store: Arc::new(Mutex::new(Store::new(MAX_BYTES))),
            max_value_len: DEFAULT_MAX_VALUE_LEN,
            clock: Clock::system(),
        }
    }

    /// Sets by which clock items expire, of this handle and of those cloned from it. Default: the system's. With a manual one
    /// a test decides when an item, or a lease, is over; give the same to each [`NamespaceBuilder`](crate::NamespaceBuilder).
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes this handle refuse values longer than `bytes`. Default: 1 MiB less 512 bytes, as memcached's.
    #[must_use]
    pub fn with_max_value_len(mut self, bytes: usize) -> Self {
        self.max_value_len = bytes;
        self
    }

    /// Cuts the store off or brings it back, for all clones. While it is off, every command answers
    /// [`Unavailable`](RemoteErrorKind::Unavailable); its items stay, but what was read before is
    /// [`Fenced`](Reply::Fenced) after, because a new connection has taken the old one's place.
    pub fn offline(&self, offline: bool) {
        let mut store = self.store.lock();
        if !store.offline && offline {
            store.connection = next_connection_id();
        }
        store.offline = offline;
    }

    /// Makes the next `commands` commands fail without being carried out, although they say that they may have been
    /// ([`Interrupted`](RemoteErrorKind::Interrupted)). A second call replaces the number.
    pub fn fail_next(&self, commands: u64) {
        self.store.lock().failing = commands;
    }

    /// Makes the next `commands` commands fail although they are carried out: the other half of
    /// [`Interrupted`](RemoteErrorKind::Interrupted). Counts after those of [`fail_next`](Self::fail_next). A second call
    /// replaces the number.
    pub fn lose_replies(&self, commands: u64) {
        self.store.lock().losing = commands;
    }

    /// Loses every item and starts the cas numbers over, as a restarted memcached does. What was read before is
    /// [`Fenced`](Reply::Fenced), even where the same number is given out again.
    pub fn restart(&self) {
        let mut store = self.store.lock();
        store.clear();
        store.last_cas = 0;
        store.connection = next_connection_id();
    }

    /// Drops every item, as memcached's `flush_all` does; cas numbers and connections go on.
    pub fn flush(&self) {
        self.store.lock().clear();
    }

    /// Drops one item, as memcached does under pressure. Returns whether it was there.
    pub fn evict(&self, key: &WireKey) -> bool {
        let mut store = self.store.lock();
        let there = store.live(key, self.clock.now()).is_some();
        store.take(key);
        there
    }
}

impl Default for InMemoryRemote {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InMemoryRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.store.lock();
        f.debug_struct("InMemoryRemote")
            .field("items", &store.items.len())
            .field("bytes", &store.bytes)
            .field("offline", &store.offline)
            .finish()
    }
}

impl RemoteTier for InMemoryRemote {
    fn run(&self, batch: &[Command<'_>], _timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let now = self.clock.now();
        let mut store = self.store.lock();
        batch.iter().map(|command| store.answer(command, self.max_value_len, now)).collect()
    }

    fn max_value_len(&self) -> usize {
        self.max_value_len
    }
}

/// The items, and what keeps them bounded.
struct Store {
    items: HashMap<WireKey, Stored>,
    /// Every item by its last use, so the first one is the first to go.
    by_use: BTreeMap<u64, WireKey>,
    /// The cost of all items; at most `max_bytes` after every command.
    bytes: usize,
    max_bytes: usize,
    last_cas: u64,
    last_use: u64,
    connection: u64,
    offline: bool,
    failing: u64,
    losing: u64,
}

struct Stored {
    value: Vec<u8>,
    cas: u64,
    used: u64,
    expires: Deadline,
    stale: bool,
    /// Whether somebody holds the right to fill or refresh the item.
    lease_taken: bool,
}

impl Store {
    fn new(max_bytes: usize) -> Self {
        Self {
            items: HashMap::new(),
            by_use: BTreeMap::new(),
            bytes: 0,
            max_bytes,
            last_cas: 0,
            last_use: 0,
            connection: next_connection_id(),
            offline: false,
            failing: 0,
            losing: 0,
        }
    }

    fn answer(&mut self, command: &Command<'_>, max_value_len: usize, now: Timestamp) -> Result<Reply, RemoteError> {
        if let Action::Set { value, .. } = command.action
            && value.len() > max_value_len
        {
            return Err(RemoteError::too_large(value.len(), max_value_len));
        }
        if let Some(cas) = command.action.cas()
            && cas.connection != self.connection
        {
            return Ok(Reply::Fenced);
        }
        if self.offline {
            return Err(RemoteError::new(RemoteErrorKind::Unavailable, "the store in memory is offline"));
        }
        if self.failing > 0 {
            self.failing -= 1;
            return Err(interrupted());
        }
        let answer = self.carry_out(command.key, command.action, max_value_len, now);
        if self.losing > 0 {
            self.losing -= 1;
            return Err(interrupted());
        }
        answer
    }

    fn carry_out(
        &mut self,
        key: &WireKey,
        action: Action<'_>,
        max_value_len: usize,
        now: Timestamp,
    ) -> Result<Reply, RemoteError> {
        match action {
            Action::Get { value, lease, touch } => Ok(self.get(key, value, lease, touch, now)),
            Action::Touch { expiry, cas: _ } => Ok(self.get(key, false, None, Some(expiry), now)),
            Action::Set { value, expiry: _, mode: SetMode::Append, cas } => {
                Ok(self.append(key, value, cas, max_value_len, now))
            }
            Action::Set { value, expiry, mode, cas } => Ok(self.set(key, value, expiry, mode, cas, now)),
            Action::Delete { cas } => Ok(self.delete(key, cas, now)),
            Action::MarkStale { expiry } => Ok(self.mark_stale(key, expiry, now)),
            Action::Increment { delta, initial } => self.count(key, initial, now, |count| count.wrapping_add(delta)),
            Action::Decrement { delta, initial } => self.count(key, initial, now, |count| count.saturating_sub(delta)),
        }
    }

    fn get(
        &mut self,
        key: &WireKey,
        with_value: bool,
        lease: Option<Duration>,
        touch: Option<Expiry>,
        now: Timestamp,
    ) -> Reply {
        let connection = self.connection;
        if let Some(used) = self.live(key, now).map(|item| item.used) {
            self.by_use.remove(&used);
            let used = self.next_use(key);
            if let Some(item) = self.items.get_mut(key) {
                item.used = used;
            }
        }
        let Some(item) = self.live(key, now) else {
            let Some(lease) = lease else { return Reply::Miss };
            let expires = expires(touch.unwrap_or(Expiry::After(lease)), now);
            let cas = self.put(key, Stored { lease_taken: true, ..Stored::new(Vec::new(), expires) });
            return Reply::Won(Cas { value: cas, connection });
        };
        if let Some(expiry) = touch {
            item.expires = expires(expiry, now);
        }
        let won = item.stale && !item.lease_taken;
        item.lease_taken |= won;
        let cas = Cas { value: item.cas, connection };
        if item.value.is_empty() && item.lease_taken {
            return if won { Reply::Won(cas) } else { Reply::Busy(cas) };
        }
        Reply::Hit(Item {
            value: if with_value { item.value.clone().into() } else { SharedBytes::default() },
            len: item.value.len(),
            cas,
            expires_in: item.expires.remaining(now),
            stale: item.stale,
            won,
        })
    }

    fn set(
        &mut self,
        key: &WireKey,
        value: &[u8],
        expiry: Expiry,
        mode: SetMode,
        cas: Option<Cas>,
        now: Timestamp,
    ) -> Reply {
        let found = self.live(key, now).map(|item| item.cas);
        match (mode, found, cas) {
            // As memcached has it, an `add` of a missing item ignores its cas.
            (SetMode::Add, Some(_), _) => return Reply::NotStored,
            (SetMode::Add, None, _) => {}
            (_, Some(found), Some(cas)) if found != cas.value => return Reply::Fenced,
            (_, None, Some(_)) => return Reply::Fenced,
            _ => {}
        }
        self.put(key, Stored::new(value.to_vec(), expires(expiry, now)));
        Reply::Done
    }

    fn append(&mut self, key: &WireKey, value: &[u8], cas: Option<Cas>, max_value_len: usize, now: Timestamp) -> Reply {
        let Some(item) = self.live(key, now) else { return Reply::NotStored };
        if cas.is_some_and(|cas| cas.value != item.cas) {
            return Reply::Fenced;
        }
        if item.value.len() + value.len() > max_value_len {
            return Reply::NotStored;
        }
        // A new item takes the old one's place: neither stale nor leased any more.
        let grown = Stored::new([&item.value, value].concat(), item.expires);
        self.put(key, grown);
        Reply::Done
    }

    fn delete(&mut self, key: &WireKey, cas: Option<Cas>, now: Timestamp) -> Reply {
        let Some(item) = self.live(key, now) else { return Reply::Miss };
        if cas.is_some_and(|cas| cas.value != item.cas) {
            return Reply::Fenced;
        }
        self.take(key);
        Reply::Done
    }

    fn mark_stale(&mut self, key: &WireKey, expiry: Option<Expiry>, now: Timestamp) -> Reply {
        if self.live(key, now).is_none() {
            return Reply::Miss;
        }
        if let Some(mut item) = self.take(key) {
            item.stale = true;
            item.lease_taken = false;
            if let Some(expiry) = expiry {
                item.expires = expires(expiry, now);
            }
            self.put(key, item);
        }
        Reply::Done
    }

    fn count(
        &mut self,
        key: &WireKey,
        initial: Option<(u64, Expiry)>,
        now: Timestamp,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<Reply, RemoteError> {
        if self.live(key, now).is_none() {
            let Some((initial, expiry)) = initial else { return Ok(Reply::Miss) };
            self.put(key, Stored::new(initial.to_string().into_bytes(), expires(expiry, now)));
            return Ok(Reply::Number(initial));
        }
        let item = self.live(key, now).and_then(|item| counter(&item.value));
        let Some(count) = item else {
            return Err(RemoteError::new(RemoteErrorKind::Refused, "the item holds no counter"));
        };
        let count = change(count);
        let digits = count.to_string().into_bytes();
        if let Some(mut item) = self.take(key) {
            if digits.len() > item.value.len() {
                item = Stored::new(digits, item.expires);
            } else {
                // A shorter number is written over the longer one, with spaces after it; as memcached does, unless its
                // LRU refers to the item at this moment.
                item.value.fill(b' ');
                item.value[..digits.len()].copy_from_slice(&digits);
            }
            self.put(key, item);
        }
        Ok(Reply::Number(count))
    }

    /// Returns the item under `key`, unless its time is over.
    fn live(&mut self, key: &WireKey, now: Timestamp) -> Option<&mut Stored> {
        if self.items.get(key)?.expires.has_passed(now) {
            self.take(key);
        }
        self.items.get_mut(key)
    }

    /// Stores `item` under a new cas in place of what was there, and evicts what no longer fits.
    fn put(&mut self, key: &WireKey, mut item: Stored) -> u64 {
        self.take(key);
        self.last_cas += 1;
        item.cas = self.last_cas;
        self.bytes += cost(key, &item);
        item.used = self.next_use(key);
        self.items.insert(key.clone(), item);
        while self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.take(&oldest);
        }
        self.last_cas
    }

    /// Notes a use of `key`, and returns its place in the order.
    fn next_use(&mut self, key: &WireKey) -> u64 {
        self.last_use += 1;
        self.by_use.insert(self.last_use, key.clone());
        self.last_use
    }

    fn take(&mut self, key: &WireKey) -> Option<Stored> {
        let item = self.items.remove(key)?;
        self.by_use.remove(&item.used);
        self.bytes -= cost(key, &item);
        Some(item)
    }

    fn clear(&mut self) {
        self.items.clear();
        self.by_use.clear();
        self.bytes = 0;
    }
}

impl Stored {
    /// An item of no version yet: [`Store::put`] gives it one.
    fn new(value: Vec<u8>, expires: Deadline) -> Self {
        Self { value, cas: 0, used: 0, expires, stale: false, lease_taken: false }
    }
}

fn cost(key: &WireKey, item: &Stored) -> usize {
    key.as_bytes().len() + item.value.len() + ITEM_OVERHEAD
}

fn expires(expiry: Expiry, now: Timestamp) -> Deadline {
    match expiry {
        Expiry::Never => Deadline::NEVER,
        Expiry::After(duration) => Deadline::after(now, Duration::from_secs(whole_secs(duration))),
    }
}

/// Reads a counter: digits up to the end or to the first space, behind which memcached does not look.
fn counter(value: &[u8]) -> Option<u64> {
    let digits = value.split(u8::is_ascii_whitespace).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn interrupted() -> RemoteError {
    RemoteError::new(RemoteErrorKind::Interrupted, "the store in memory was told to fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::tier::Route;

    fn set(store: &mut Store, key: &str, value: &[u8]) -> Reply {
        let key = WireKey::new(key).unwrap();
        let action = Action::Set { value, expiry: Expiry::Never, mode: SetMode::Always, cas: None };
        store
            .answer(&Command { key: &key, route: Route::ByKey, action }, DEFAULT_MAX_VALUE_LEN, Clock::system().now())
            .unwrap()
    }

    impl Store {
        fn validate(&self) {
            assert_eq!(self.bytes, self.items.iter().map(|(key, item)| cost(key, item)).sum::<usize>());
            assert_eq!(self.items.len(), self.by_use.len());
            for (key, item) in &self.items {
                assert_eq!(self.by_use.get(&item.used), Some(key));
            }
            assert!(self.bytes <= self.max_bytes);
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_when_memory_is_short() {
        let mut store = Store::new(10 * (ITEM_OVERHEAD + 2 + 8));
        for turn in 10..50 {
            set(&mut store, &turn.to_string(), b"8 bytes.");
            store.get(&WireKey::new("10").unwrap(), true, None, None, Clock::system().now());
            store.validate();
        }
        let mut left: Vec<_> = store.items.keys().map(|key| key.as_bytes().to_vec()).collect();
        left.sort();
        let expected = std::iter::once(10).chain(41..50).map(|turn| turn.to_string().into_bytes());
        assert_eq!(left, expected.collect::<Vec<_>>());
    }

    #[test]
    fn an_item_larger_than_the_store_is_dropped_at_once() {
        let mut store = Store::new(100);
        set(&mut store, "a", b"small");
        set(&mut store, "b", &[0; 200]);
        store.validate();
        assert_eq!(store.items.len(), 0);
    }

    #[test]
    fn an_expired_item_is_gone_and_its_memory_with_it() {
        let mut store = Store::new(MAX_BYTES);
        let key = WireKey::new("a").unwrap();
        let (clock, time) = Clock::manual();
        let expiry = Expiry::After(Duration::from_millis(1_500));
        store.set(&key, b"value", expiry, SetMode::Always, None, clock.now());
        time.advance(Duration::from_millis(1_999));
        assert!(store.live(&key, clock.now()).is_some());
        time.advance(Duration::from_millis(1));
        assert!(store.live(&key, clock.now()).is_none());
        assert_eq!(store.bytes, 0);
        store.validate();
    }
}
