//! Write-behind: a bounded queue of writes on their way to the store, and the thread that sends them.
//!
//! **Two writes of one key are never reordered.** A key has at most one write that waits and one that is being sent. A newer
//! write takes the place of the one that waits; it waits behind the one that is being sent. One that failed goes back to
//! wait, unless a newer one waits by then: then that one stands for both. Only one thread sends, a batch at a time, so what
//! waits goes out after what was sent before it has ended. A failed write is tried a few times more and then given up: the
//! item is owed a deletion, so that what the store holds instead does not stay.
//!
//! **A removal purges.** It takes the waiting write out and has the one that is being sent dropped where it stands, then
//! waits until it is ([`Purged::over`]), and only then deletes. That suffices though a command of the dropped write may
//! be under way yet: it stores under the CAS of what it read before, so a deletion fences it (R9), and a read stores
//! nothing. Until it is through, the key counts as held ([`Shade`]): what the store has is older than the purged write, which
//! this process has answered with. A removal that cannot wait so long, for a codec that is stuck, owes the deletion; should the write end
//! all the same, the item is owed another one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::debts::Subject;
use super::outbox::Outbox;
use super::slip::Slip;
use crate::clock::real::now;
use crate::clock::{Clock, Deadline};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::WireKey;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, thread};
use crate::task::guarded;
use crate::watch::{Limit, event};

/// How many writes are under way at once. They share round trips, and a batch ends with the slowest of them.
const WRITES_PER_BATCH: usize = 64;

/// How often a write is sent before it is given up: with the pauses in between, a second or two without the store.
const MAX_ATTEMPTS: u32 = 8;

/// How long the thread waits for more when the queue is empty.
const LINGER: Duration = Duration::from_secs(10);

/// One attempt to send a write.
pub(crate) type Attempt = Pin<Box<dyn Future<Output = Result<(), RemoteError>> + Send>>;

/// A write that can wait.
pub(crate) trait QueuedWrite: Send + Sync + 'static {
    fn key(&self) -> &WireKey;

    /// Returns what stands for the key in the journal.
    fn fingerprint(&self) -> u64;

    /// Returns a future that sends the write once, and resolves to `Ok` when the store holds it or something newer.
    ///
    /// It may be dropped at any point, and must not store anything but under a CAS that it has read itself. It is polled on
    /// the queue's thread; a panic, of a codec say, gives up this write alone.
    fn send(self: Arc<Self>) -> Attempt;
}

/// The queue. Dropping it ends its thread after the batch that is under way, waits for nothing, and logs what was not sent.
pub(crate) struct Behind(Arc<Shared>);

struct Shared {
    capacity: usize,
    outbox: Arc<Outbox>,
    /// How many keys are held, for those who ask whether there are any at all. Written under the lock.
    queued: AtomicUsize,
    state: Mutex<State>,
    /// A write came or ended, or the thread is to end.
    changed: Condvar,
    overflows: Limit,
}

#[derive(Default)]
struct State {
    waiting: HashMap<WireKey, Waiting>,
    /// The keys of `waiting`, by when they are due and, of one moment, in the order in which they came.
    order: BTreeMap<Place, WireKey>,
    sending: HashMap<WireKey, Sending>,
    /// The keys whose writes were purged, by how many removals that are not through yet.
    shaded: HashMap<WireKey, usize>,
    last_place: u64,
    /// How many writes have left the queue whose receipts have yet to be told.
    settling: usize,
    /// Wakes the thread while it waits for its batch.
    driver: Option<Waker>,
    running: bool,
    stopped: bool,
    /// How many writes were given up.
    given_up: u64,
    /// Whether what fails now is given up at once.
    gives_up: bool,
    last_error: Option<RemoteError>,
}

type Place = (Instant, u64);

/// A write that waits.
struct Waiting {
    write: Arc<dyn QueuedWrite>,
    place: Place,
    /// The first is what the next receipt gets.
    slips: Vec<Arc<Slip>>,
    failures: u32,
    backoff: Backoff,
}

/// What others need to know of a write that is being sent.
struct Sending {
    slips: Vec<Arc<Slip>>,
    purged: Arc<AtomicBool>,
    /// Closed when the attempt is over.
    over: Arc<Slip>,
}

/// A write that is being sent, as the thread has it.
struct UnderWay {
    write: Arc<dyn QueuedWrite>,
    failures: u32,
    backoff: Backoff,
    purged: Arc<AtomicBool>,
    attempt: Option<Attempt>,
}

/// How it stands with a queue.
#[derive(Clone, Debug)]
pub(crate) struct BehindHealth {
    /// How many writes wait or are being sent.
    pub(crate) queued: usize,
    /// How many writes were given up, and their items owed a deletion.
    pub(crate) given_up: u64,
    /// Why the last attempt failed that did.
    pub(crate) last_error: Option<RemoteError>,
}

/// What a purge found.
#[must_use = "the write that is being sent may not be over yet"]
pub(crate) struct Purged {
    /// The slips of the writes that will not be sent any more: to be settled with what takes their place.
    pub(crate) slips: Vec<Arc<Slip>>,
    under_way: Option<Arc<Slip>>,
    /// To be kept until the removal is through, or the deletion is owed; `None` where there was no write.
    pub(crate) shade: Option<Shade>,
}

/// Keeps this process from taking what the store holds under a key whose write was purged.
pub(crate) struct Shade {
    queue: Arc<Shared>,
    key: WireKey,
}

impl Drop for Shade {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if let Entry::Occupied(mut removals) = state.shaded.entry(self.key.clone()) {
            *removals.get_mut() -= 1;
            if *removals.get() == 0 {
                removals.remove();
            }
        }
        self.queue.count(&state);
    }
}

impl Purged {
    /// Waits until no write of the key is being sent: for as long as one poll of it takes.
    pub(crate) async fn over(&self) {
        if let Some(under_way) = &self.under_way {
            under_way.closed().await;
        }
    }
}

impl Behind {
    /// Makes an empty queue of at most `capacity` writes. What is given up is owed in `outbox`.
    pub(crate) fn new(capacity: usize, outbox: Arc<Outbox>) -> Behind {
        Behind(Arc::new(Shared {
            capacity,
            outbox,
            queued: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
            overflows: Limit::default(),
        }))
    }

    /// Queues a write. Its slip is settled once the store holds it or a newer one, or once a deletion that it left behind
    /// is done.
    ///
    /// # Errors
    /// [`Unavailable`](RemoteErrorKind::Unavailable), at once, when the queue is full or shut down. An older write of the
    /// key may be on its way yet: the caller has to [`purge`](Self::purge) it, as a removal does.
    pub(crate) fn push(&self, write: Arc<dyn QueuedWrite>) -> Result<Arc<Slip>, RemoteError> {
        let due = now();
        let mut state = self.0.state.lock();
        if state.stopped {
            return Err(RemoteError::new(RemoteErrorKind::Unavailable, "the queue of writes is shut down"));
        }
        if let Some(waiting) = state.waiting.get_mut(write.key()) {
            let replaced = std::mem::replace(&mut waiting.write, write);
            waiting.failures = 0;
            let slip = waiting.slips[0].clone();
            drop(state);
            // It holds a value of the user's, which is dropped outside the lock.
            drop(replaced);
            return Ok(slip);
        }
        if state.waiting.len() + state.sending.len() >= self.0.capacity {
            drop(state);
            if let Some(others) = self.0.overflows.pass() {
                let waiting = self.0.capacity;
                event!(
                    warn,
                    [others = others.0],
                    "the queue of writes is full, of {waiting}: a write is refused{others}"
                );
            }
            let message = format!("the queue of writes is full: {} wait", self.0.capacity);
            return Err(RemoteError::new(RemoteErrorKind::Unavailable, message));
        }
        let slip = Slip::new();
        state.enqueue(write, vec![slip.clone()], 0, Backoff::new(), due);
        self.0.count(&state);
        let start = !std::mem::replace(&mut state.running, true);
        drop(state);
        if start {
            self.0.start();
        } else {
            self.0.changed.notify_all();
        }
        Ok(slip)
    }

    /// Takes every write of `key` out of the queue, and has the one that is being sent dropped. Writes that are queued from
    /// now on stay.
    pub(crate) fn purge(&self, key: &WireKey) -> Purged {
        self.0.purge(key)
    }

    /// Returns whether a write of `key` waits, is being sent, or was purged by a removal that is not through, so that what the
    /// store holds is older than what this process has. To be asked before the item is.
    pub(crate) fn holds(&self, key: &WireKey) -> bool {
        self.0.holds_any() && self.0.state.lock().holds(key)
    }

    /// Returns whether a write of `key` waits, so that what the local tier has may be newer than what is being sent.
    pub(crate) fn awaits(&self, key: &WireKey) -> bool {
        self.0.holds_any() && self.0.state.lock().waiting.contains_key(key)
    }

    /// Returns how it stands.
    pub(crate) fn health(&self) -> BehindHealth {
        let state = self.0.state.lock();
        BehindHealth { queued: state.len(), given_up: state.given_up, last_error: state.last_error.clone() }
    }

    /// Sends what waits, then stops for good: what is queued from then on is an error. Calling it again tries again.
    ///
    /// # Errors
    /// How many writes were not sent within `limit`, and the last error. Those who wait for them are told.
    ///
    /// # Blocking
    /// For `limit` at most.
    pub(crate) fn shutdown(&self, limit: Duration) -> Result<(), (usize, Option<RemoteError>)> {
        self.0.shutdown(limit)
    }

    /// Gives up what a shutdown has left: the items are owed a deletion. Writes hold on to their cache, and so to this queue,
    /// which would keep all of it alive for ever.
    pub(crate) fn give_up(&self) {
        let mut state = self.0.state.lock();
        state.gives_up = true;
        state.order.clear();
        let waiting = std::mem::take(&mut state.waiting);
        state.given_up += waiting.len() as u64;
        drop(state);
        for Waiting { write, slips, .. } in waiting.into_values() {
            let subject = Subject::Item { key: write.key().clone(), fingerprint: write.fingerprint(), heir: None };
            self.0.outbox.owe_for(subject, slips);
            drop_quietly(write);
        }
        // Only now: at no moment does this process take the old values for good.
        let state = self.0.state.lock();
        self.0.count(&state);
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        let told = std::mem::replace(&mut state.stopped, true);
        let (unsent, slips) = (state.len(), state.slips());
        drop(state);
        self.0.changed.notify_all();
        slips.iter().for_each(|slip| slip.abandon());
        if unsent > 0 && !told {
            event!(warn, "dropped with {unsent} queued writes that the remote tier has not taken");
        }
    }
}

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Behind").field(&self.health()).finish()
    }
}

impl State {
    fn len(&self) -> usize {
        self.waiting.len() + self.sending.len()
    }

    fn holds(&self, key: &WireKey) -> bool {
        self.waiting.contains_key(key) || self.sending.contains_key(key) || self.shaded.contains_key(key)
    }

    fn slips(&self) -> Vec<Arc<Slip>> {
        let waiting = self.waiting.values().flat_map(|waiting| &waiting.slips);
        waiting.chain(self.sending.values().flat_map(|sending| &sending.slips)).cloned().collect()
    }

    fn enqueue(
        &mut self,
        write: Arc<dyn QueuedWrite>,
        slips: Vec<Arc<Slip>>,
        failures: u32,
        backoff: Backoff,
        due: Instant,
    ) {
        self.last_place += 1;
        let place = (due, self.last_place);
        self.order.insert(place, write.key().clone());
        self.waiting.insert(write.key().clone(), Waiting { write, place, slips, failures, backoff });
    }

    fn dequeue(&mut self, key: &WireKey) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        self.order.remove(&waiting.place);
        Some(waiting)
    }

    /// Moves what is due, as much as is sent at once, to those that are being sent.
    fn take_due(&mut self, now: Instant) -> Vec<UnderWay> {
        let mut batch = Vec::new();
        while batch.len() < WRITES_PER_BATCH
            && let Some(first) = self.order.first_entry().filter(|first| first.key().0 <= now)
        {
            let key = first.remove();
            let Some(Waiting { write, slips, failures, backoff, .. }) = self.waiting.remove(&key) else { continue };
            let purged = Arc::new(AtomicBool::new(false));
            self.sending.insert(key, Sending { slips, purged: purged.clone(), over: Slip::new() });
            batch.push(UnderWay { write, failures, backoff, purged, attempt: None });
        }
        batch
    }
}

impl Shared {
    /// Notes the number of keys for those who do not take the lock. Called under it.
    fn count(&self, state: &State) {
        // Release pairs with the Acquire in `holds_any`.
        self.queued.store(state.len() + state.shaded.len(), Ordering::Release);
    }

    fn holds_any(&self) -> bool {
        // Acquire pairs with the Release in `Shared::count`: who finds nothing queued sees what became of it. One who asks
        // before it reads, and finds none, could have come just before the write was queued.
        self.queued.load(Ordering::Acquire) > 0
    }

    fn purge(self: &Arc<Self>, key: &WireKey) -> Purged {
        let mut purged = Purged { slips: Vec::new(), under_way: None, shade: None };
        if !self.holds_any() {
            return purged;
        }
        let mut state = self.state.lock();
        let waiting = state.dequeue(key);
        let mut driver = None;
        if let Some(sending) = state.sending.get_mut(key) {
            // Relaxed: the lock orders it. The thread leaves its waker under the lock before it looks.
            sending.purged.store(true, Ordering::Relaxed);
            purged.slips.append(&mut sending.slips);
            purged.under_way = Some(sending.over.clone());
            driver = state.driver.clone();
        }
        // Also where another removal has purged it: that one may be through before this one.
        if waiting.is_some() || state.holds(key) {
            *state.shaded.entry(key.clone()).or_default() += 1;
            purged.shade = Some(Shade { queue: self.clone(), key: key.clone() });
        }
        self.count(&state);
        drop(state);
        self.changed.notify_all();
        if let Some(driver) = driver {
            driver.wake();
        }
        if let Some(waiting) = waiting {
            purged.slips.extend(waiting.slips);
        }
        purged
    }

    /// Starts the thread. Its place is taken already.
    fn start(self: &Arc<Self>) {
        let shared = self.clone();
        if let Err(error) = thread::Builder::new().name("larder-behind".to_owned()).spawn(move || shared.work()) {
            // The next write tries again.
            event!(error, "no thread could be started that sends queued writes: {error}");
            self.state.lock().running = false;
            self.changed.notify_all();
        }
    }

    /// The thread.
    fn work(&self) {
        while let Some(batch) = self.wait_for_due() {
            Clock::system().block_on(Batch { queue: self, batch }, Deadline::NEVER);
        }
    }

    /// Waits for writes that are due. Returns `None` when the thread is to end; that is noted under the lock, so that the next
    /// write either finds the thread waiting or starts another.
    fn wait_for_due(&self) -> Option<Vec<UnderWay>> {
        let idle_until = now() + LINGER;
        let mut state = self.state.lock();
        loop {
            let now = now();
            if !state.stopped {
                let batch = state.take_due(now);
                if !batch.is_empty() {
                    return Some(batch);
                }
            }
            let next = state.order.first_key_value().map(|(place, _)| place.0);
            if state.stopped || (next.is_none() && now >= idle_until) {
                state.running = false;
                return None;
            }
            self.changed.wait_until(&mut state, next.unwrap_or(idle_until));
        }
    }

    /// Ends one attempt. `outcome` is `None` if it was dropped for a purge.
    fn conclude(&self, under_way: UnderWay, outcome: Option<Result<(), RemoteError>>) {
        let UnderWay { write, failures, mut backoff, purged, attempt } = under_way;
        // Foreign code, which drops before anybody is told that the attempt is over.
        drop_quietly(attempt);
        let key = write.key();
        let subject = || Subject::Item { key: key.clone(), fingerprint: write.fingerprint(), heir: None };
        let mut settled = Vec::new();
        let mut abandoned = Vec::new();
        let mut given_up = None;
        let mut over = None;
        let mut state = self.state.lock();
        let mut slips =
            state.sending.get_mut(key).map(|sending| std::mem::take(&mut sending.slips)).unwrap_or_default();
        match outcome {
            None => {}
            Some(_) if purged.load(Ordering::Relaxed) => given_up = Some(Vec::new()),
            Some(Ok(())) => {
                settled = slips;
            }
            Some(Err(error)) => {
                let hopeless = is_hopeless(&error) || failures + 1 >= MAX_ATTEMPTS || state.gives_up;
                state.last_error = Some(error);
                if let Some(newer) = state.waiting.get_mut(key) {
                    // Those of which no receipt is left would pile up with every write that fails.
                    slips.retain(|slip| Arc::strong_count(slip) > 1);
                    newer.slips.append(&mut slips);
                } else if hopeless {
                    state.given_up += 1;
                    given_up = Some(slips);
                } else {
                    if state.stopped {
                        abandoned.clone_from(&slips);
                    }
                    let due = now() + backoff.pause();
                    state.enqueue(write.clone(), slips, failures + 1, backoff, due);
                    // At once, or it would take two places in the queue for a moment, and another write might find none.
                    over = state.sending.remove(key).map(|sending| sending.over);
                }
            }
        }
        drop(state);
        // Before the key is free: at no moment does this process take the old value for good.
        if let Some(slips) = given_up {
            self.outbox.owe_for(subject(), slips);
        }
        let mut state = self.state.lock();
        let over = over.or_else(|| state.sending.remove(key).map(|sending| sending.over));
        self.count(&state);
        state.settling += 1;
        drop(state);
        // After the key is free: whoever has waited for the write finds it in the store.
        settled.iter().for_each(|slip| slip.settle());
        abandoned.iter().for_each(|slip| slip.abandon());
        over.iter().for_each(|over| over.settle());
        // It may be the last to hold a value of the user's.
        drop_quietly(write);
        // A shutdown waits for this, so that it finds all receipts settled.
        self.state.lock().settling -= 1;
        self.changed.notify_all();
    }

    fn shutdown(self: &Arc<Self>, limit: Duration) -> Result<(), (usize, Option<RemoteError>)> {
        let started = now();
        let deadline = started.checked_add(limit);
        let mut state = self.state.lock();
        state.stopped = false;
        state.gives_up = false;
        // At once, what pauses as well.
        let keys: Vec<WireKey> = state.order.values().cloned().collect();
        state.order.clear();
        for (place, key) in (0..).zip(keys) {
            if let Some(waiting) = state.waiting.get_mut(&key) {
                waiting.place = (started, place);
                state.order.insert((started, place), key);
            }
        }
        state.last_place = state.last_place.max(state.order.len() as u64);
        if state.len() > 0 && !std::mem::replace(&mut state.running, true) {
            drop(state);
            self.start();
            state = self.state.lock();
        }
        self.changed.notify_all();
        // No thread: none could be started, or another shutdown has run out of time.
        while (state.len() > 0 || state.settling > 0) && state.running && !state.stopped {
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => break,
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
        state.stopped = true;
        let (unsent, slips, error) = (state.len(), state.slips(), state.last_error.clone());
        drop(state);
        self.changed.notify_all();
        slips.iter().for_each(|slip| slip.abandon());
        if unsent > 0 { Err((unsent, error)) } else { Ok(()) }
    }
}

/// Drops what holds a value of the user's: should that panic, the thread goes on with the other writes.
fn drop_quietly<T>(held: T) {
    if guarded(|| drop(held)).is_none() {
        event!(error, "a queued value panicked when it was dropped");
    }
}

/// Returns whether another attempt could not end otherwise.
fn is_hopeless(error: &RemoteError) -> bool {
    matches!(error.kind(), RemoteErrorKind::TooLarge | RemoteErrorKind::Codec | RemoteErrorKind::Config)
}

/// Resolves when all writes of a batch have ended. Each is concluded as soon as it has.
struct Batch<'a> {
    queue: &'a Shared,
    batch: Vec<UnderWay>,
}

impl Future for Batch<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Before the look at `purged`: whoever purges either is seen here, or finds the waker.
        this.queue.state.lock().driver = Some(context.waker().clone());
        let mut at = 0;
        while let Some(under_way) = this.batch.get_mut(at) {
            let outcome =
                if under_way.purged.load(Ordering::Relaxed) { Some(None) } else { under_way.poll(context).map(Some) };
            match outcome {
                None => at += 1,
                Some(outcome) => {
                    // Those behind it keep their order.
                    let under_way = this.batch.remove(at);
                    this.queue.conclude(under_way, outcome);
                }
            }
        }
        if this.batch.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl UnderWay {
    /// Sends the write, or goes on with that; `None` while it is under way.
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Result<(), RemoteError>> {
        let poll = || {
            let attempt = self.attempt.get_or_insert_with(|| self.write.clone().send());
            attempt.as_mut().poll(context)
        };
        match guarded(poll) {
            Some(Poll::Pending) => None,
            Some(Poll::Ready(outcome)) => Some(outcome),
            None => {
                event!(error, "a queued write panicked, in its codec perhaps, and is given up");
                Some(Err(RemoteError::new(RemoteErrorKind::Codec, "the write panicked")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::broadcast::slip::Standing;
    use crate::remote::batch::Batcher;
    use crate::remote::in_memory::InMemoryRemote;
    use crate::remote::keyspace::Keyspace;

    /// How long a test waits for what another thread is about to do, before it fails.
    const PATIENCE: Duration = Duration::from_secs(30);

    type Log = Arc<Mutex<Vec<(u32, u32)>>>;

    /// A write of a number under a key, whose attempts end as the test says.
    struct Scripted {
        key: WireKey,
        at: (u32, u32),
        log: Log,
        attempts: AtomicUsize,
        attempt: Box<dyn Fn(usize) -> Attempt + Send + Sync>,
    }

    impl QueuedWrite for Scripted {
        fn key(&self) -> &WireKey {
            &self.key
        }
        fn fingerprint(&self) -> u64 {
            self.at.0.into()
        }
        fn send(self: Arc<Self>) -> Attempt {
            let attempt = (self.attempt)(self.attempts.fetch_add(1, Ordering::Relaxed));
            Box::pin(async move {
                attempt.await?;
                self.log.lock().push(self.at);
                Ok(())
            })
        }
    }

    fn wire_key(key: u32) -> WireKey {
        WireKey::new(format!("k{key}")).unwrap()
    }

    fn failure(kind: RemoteErrorKind) -> RemoteError {
        RemoteError::new(kind, "as the test says")
    }

    struct Scene {
        remote: InMemoryRemote,
        outbox: Arc<Outbox>,
        behind: Behind,
        log: Log,
    }

    impl Scene {
        fn new(capacity: usize) -> Scene {
            let remote = InMemoryRemote::new();
            let batcher = Batcher::new(Arc::new(remote.clone()), Duration::from_secs(1));
            let keys = Keyspace::new("app", "").unwrap();
            let outbox = Arc::new(Outbox::new(Arc::new(batcher), keys, 1, |_| {}));
            let behind = Behind::new(capacity, outbox.clone());
            Scene { remote, outbox, behind, log: Log::default() }
        }

        fn write(&self, at: (u32, u32), attempt: impl Fn(usize) -> Attempt + Send + Sync + 'static) -> Arc<Scripted> {
            let (key, log, attempts) = (wire_key(at.0), self.log.clone(), AtomicUsize::new(0));
            Arc::new(Scripted { key, at, log, attempts, attempt: Box::new(attempt) })
        }

        fn push(&self, at: (u32, u32)) -> Arc<Slip> {
            self.behind.push(self.write(at, |_| Box::pin(async { Ok(()) }))).unwrap()
        }

        /// Queues a write and waits until it is being sent. It ends as `outcome` says once the slip is closed.
        fn push_held(&self, at: (u32, u32), outcome: Result<(), RemoteErrorKind>) -> (Arc<Slip>, Arc<Slip>) {
            let (gate, (begins, begun)) = (Slip::new(), mpsc::channel());
            let write = self.write(at, {
                let gate = gate.clone();
                move |attempt| {
                    begins.send(()).unwrap();
                    let gate = gate.clone();
                    Box::pin(async move {
                        gate.closed().await;
                        if attempt == 0 { outcome.map_err(failure) } else { Ok(()) }
                    })
                }
            });
            let slip = self.behind.push(write).unwrap();
            begun.recv().unwrap();
            (slip, gate)
        }
    }

    fn closes(slip: &Arc<Slip>) -> Option<bool> {
        let clock = Clock::system();
        clock.block_on(slip.closed(), Deadline::after(clock.now(), PATIENCE))
    }

    #[test]
    fn writes_go_out_in_their_order() {
        let scene = Scene::new(1000);
        let (_, gate) = scene.push_held((0, 0), Ok(()));
        let slips: Vec<_> = (1..300).map(|key| scene.push((key, 0))).collect();
        assert!(scene.behind.holds(&wire_key(0)) && scene.behind.holds(&wire_key(299)));
        gate.settle();
        assert!(slips.iter().all(|slip| closes(slip) == Some(true)));
        assert_eq!(*scene.log.lock(), (0..300).map(|key| (key, 0)).collect::<Vec<_>>());
        assert!(scene.behind.shutdown(PATIENCE).is_ok() && !scene.behind.holds(&wire_key(0)));
    }

    #[test]
    fn a_newer_write_replaces_the_one_that_waits_and_waits_for_the_one_that_is_being_sent() {
        let scene = Scene::new(2);
        let (first, gate) = scene.push_held((1, 1), Ok(()));
        let second = scene.push((1, 2));
        let third = scene.push((1, 3));
        assert_eq!(scene.behind.health().queued, 2);
        gate.settle();
        assert_eq!([&first, &second, &third].map(closes), [Some(true); 3]);
        assert_eq!(*scene.log.lock(), [(1, 1), (1, 3)]);
    }

    #[test]
    fn a_full_queue_is_an_error_at_once() {
        let scene = Scene::new(2);
        let (_, gate) = scene.push_held((1, 1), Ok(()));
        scene.push((2, 1));
        let error = scene.behind.push(scene.write((3, 1), |_| Box::pin(async { Ok(()) }))).unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Unavailable);
        // What takes another's place needs none.
        let slip = scene.push((2, 2));
        gate.settle();
        assert_eq!(closes(&slip), Some(true));
        assert_eq!(*scene.log.lock(), [(1, 1), (2, 2)]);
    }

    #[test]
    fn a_write_that_fails_is_sent_again() {
        let scene = Scene::new(2);
        let write = scene.write((1, 1), |attempt| {
            let fails = attempt < 3;
            Box::pin(async move { if fails { Err(failure(RemoteErrorKind::TimedOut)) } else { Ok(()) } })
        });
        assert_eq!(closes(&scene.behind.push(write.clone()).unwrap()), Some(true));
        let health = scene.behind.health();
        assert_eq!((write.attempts.load(Ordering::Relaxed), health.given_up), (4, 0));
        assert_eq!(health.last_error.unwrap().kind(), RemoteErrorKind::TimedOut);
    }

    #[test]
    fn a_newer_write_stands_for_one_that_failed() {
        let scene = Scene::new(2);
        let (first, gate) = scene.push_held((1, 1), Err(RemoteErrorKind::TimedOut));
        let second = scene.push((1, 2));
        gate.settle();
        assert_eq!([&first, &second].map(closes), [Some(true); 2]);
        assert_eq!(*scene.log.lock(), [(1, 2)]);
    }

    #[test]
    fn a_write_that_is_given_up_leaves_a_deletion_behind() {
        let scene = Scene::new(2);
        scene.remote.offline(true);
        let write = scene.write((1, 1), |_| Box::pin(async { Err(failure(RemoteErrorKind::Unavailable)) }));
        let slip = scene.behind.push(write.clone()).unwrap();
        let deadline = now() + PATIENCE;
        while scene.behind.holds(&wire_key(1)) {
            assert!(now() < deadline, "it is never given up");
            thread::yield_now();
        }
        assert_eq!(write.attempts.load(Ordering::Relaxed), MAX_ATTEMPTS as usize);
        assert!(scene.outbox.owes_item(&wire_key(1)) && slip.standing() == Standing::Open);
        assert_eq!(scene.behind.health().given_up, 1);
        scene.remote.offline(false);
        assert_eq!(closes(&slip), Some(true));
        assert!(!scene.outbox.owes_item(&wire_key(1)));
    }

    #[test]
    fn a_panic_gives_up_one_write_alone() {
        let scene = Scene::new(9);
        let (_, gate) = scene.push_held((0, 0), Ok(()));
        let early = scene.behind.push(scene.write((1, 1), |_| panic!("before there is a future"))).unwrap();
        let late = scene.write((2, 1), |_| Box::pin(async { panic!("in the future") }));
        let late = scene.behind.push(late).unwrap();
        let other = scene.push((3, 1));
        gate.settle();
        assert_eq!([&early, &late, &other].map(closes), [Some(true); 3]);
        assert_eq!(scene.behind.health().given_up, 2);
        assert_eq!(*scene.log.lock(), [(0, 0), (3, 1)]);
    }

    #[test]
    fn a_purge_takes_out_what_waits_and_drops_what_is_being_sent() {
        let scene = Scene::new(9);
        let (first, gate) = scene.push_held((1, 1), Ok(()));
        let second = scene.push((1, 2));
        let purged = scene.behind.purge(&wire_key(1));
        let clock = Clock::system();
        assert!(clock.block_on(purged.over(), Deadline::after(clock.now(), PATIENCE)).is_some());
        drop(purged.shade);
        assert!(!scene.behind.holds(&wire_key(1)) && !scene.outbox.owes_item(&wire_key(1)));
        // The removal that purged them speaks for them.
        assert_eq!([&first, &second].map(|slip| slip.standing()), [Standing::Open; 2]);
        purged.slips.iter().for_each(|slip| slip.settle());
        assert_eq!([&first, &second].map(closes), [Some(true); 2]);
        gate.settle();
        assert_eq!(closes(&scene.push((1, 3))), Some(true));
        assert_eq!(*scene.log.lock(), [(1, 3)]);
    }

    /// The store has the value from before the write. A reader that came between the purge and the deletion took it, although
    /// this process had answered with the write since it was queued.
    #[test]
    fn a_key_whose_write_was_purged_is_held_until_every_removal_of_it_is_through() {
        let scene = Scene::new(9);
        let (_, gate) = scene.push_held((0, 0), Ok(()));
        scene.push((1, 1));
        let first = scene.behind.purge(&wire_key(1));
        let second = scene.behind.purge(&wire_key(1));
        let others = scene.behind.purge(&wire_key(2));
        assert!(others.shade.is_none(), "nothing was taken out");
        assert_eq!(scene.behind.health().queued, 1, "it takes no place in the queue");
        gate.settle();
        drop(first);
        assert!(scene.behind.holds(&wire_key(1)));
        drop(second);
        assert!(!scene.behind.holds(&wire_key(1)));
    }

    #[test]
    fn a_write_that_ends_in_spite_of_a_purge_is_deleted() {
        let scene = Scene::new(9);
        scene.remote.offline(true);
        let behind = Arc::new(Mutex::new(None));
        let write = scene.write((1, 1), {
            let behind = behind.clone();
            move |_| {
                let behind: Arc<Mutex<Option<Arc<Shared>>>> = behind.clone();
                Box::pin(async move {
                    // The removal comes while this poll runs, and nothing can stop it any more.
                    let shared = behind.lock().take().unwrap();
                    drop(shared.purge(&wire_key(1)));
                    Ok(())
                })
            }
        });
        *behind.lock() = Some(scene.behind.0.clone());
        scene.behind.push(write).unwrap();
        let deadline = now() + PATIENCE;
        while scene.behind.holds(&wire_key(1)) {
            assert!(now() < deadline, "it never ends");
            thread::yield_now();
        }
        assert_eq!(*scene.log.lock(), [(1, 1)]);
        assert!(scene.outbox.owes_item(&wire_key(1)));
    }

    #[test]
    fn a_shutdown_sends_what_waits_or_says_how_much_is_left() {
        let scene = Scene::new(9);
        let (_, gate) = scene.push_held((1, 1), Ok(()));
        let slip = scene.push((2, 1));
        assert_eq!(scene.behind.shutdown(Duration::ZERO).unwrap_err().0, 2);
        assert_eq!(closes(&slip), Some(false));
        assert!(scene.behind.push(scene.write((3, 1), |_| Box::pin(async { Ok(()) }))).is_err());
        gate.settle();
        assert!(scene.behind.shutdown(PATIENCE).is_ok());
        assert_eq!(*scene.log.lock(), [(1, 1), (2, 1)]);
    }

    #[test]
    fn a_shutdown_is_over_when_what_is_left_has_been_given_up() {
        let scene = Scene::new(200);
        scene.remote.offline(true);
        let failing = |_| -> Attempt { Box::pin(async { Err(failure(RemoteErrorKind::Unavailable)) }) };
        (0..100).for_each(|key| drop(scene.behind.push(scene.write((key, 1), failing)).unwrap()));
        assert!(scene.behind.shutdown(PATIENCE).is_ok());
        assert_eq!((scene.behind.health().given_up, scene.outbox.owed()), (100, 100));
    }

    #[test]
    fn dropping_it_waits_for_nothing_and_ends_the_thread() {
        let scene = Scene::new(9);
        let (first, gate) = scene.push_held((1, 1), Ok(()));
        let second = scene.push((2, 1));
        let shared = Arc::downgrade(&scene.behind.0);
        let Scene { behind, log, .. } = scene;
        drop(behind);
        assert_eq!([&first, &second].map(closes), [Some(false); 2]);
        gate.settle();
        let deadline = now() + PATIENCE;
        while shared.strong_count() > 0 {
            assert!(now() < deadline, "the thread never ends");
            thread::yield_now();
        }
        assert_eq!(*log.lock(), [(1, 1)]);
    }
}
