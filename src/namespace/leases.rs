//! Leases: items of the store that say that this process is at a key, renewed for as long as it is.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use crate::clock::{AtomicDeadline, Clock, Deadline, real};
use crate::remote::batch::{Batcher, Caller};
use crate::remote::error::RemoteError;
use crate::remote::key::WireKey;
use crate::remote::request::{Request, Requests};
use crate::remote::tier::{Action, Cas, Expiry, Item, Reply, Route};
use crate::sync::{Arc, Condvar, Mutex, thread};
use crate::watch::event;

/// A lease is renewed each time that this part of it is over, so that two attempts may fail.
const RENEWALS_PER_TERM: u32 = 3;

/// How soon after a look at a lease the next one may be: a clock that a test moves stands still close to a deadline.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// How many leases are renewed with one exchange.
const MAX_BATCH: usize = 64;

/// The leases that this process holds, and the thread that renews them.
///
/// There are as many as there are loads under way.
pub(crate) struct Leases {
    batcher: Arc<Batcher>,
    /// That of the local tiers, by which futures hold their claims.
    clock: Clock,
    held: Mutex<Held>,
    /// Another lease is due first, or the thread is to end.
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    leases: HashMap<u64, Renewal>,
    /// When each is to be renewed.
    due: BTreeSet<(Instant, u64)>,
    last_id: u64,
    is_running: bool,
    is_stopped: bool,
}

#[derive(Clone)]
struct Renewal {
    key: WireKey,
    cas: Cas,
    term: Duration,
    /// When it is to be looked at next: to be renewed, or because its holder's time may be over.
    due: Instant,
    renew_at: Instant,
    /// From here on the lease is not renewed: its holder seems to have vanished.
    held_until: Arc<AtomicDeadline>,
    /// Whether it is given back at that moment, instead of running out. So with claims that are held by hand, whose time is
    /// what they were taken for; a load may only have been polled late.
    lapses: bool,
}

/// What is due.
struct Due {
    renewals: Vec<(u64, Renewal)>,
    lapsed: Requests,
}

/// What a renewal found in the place of a lease.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Lease,
    /// Nothing, or something else.
    Other,
    /// It could not be asked. The next look is in time.
    Unknown,
}

impl Leases {
    pub(crate) fn new(batcher: Arc<Batcher>, clock: Clock) -> Leases {
        Leases { batcher, clock, held: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes over a lease of `term` that was taken just now, and renews it until it is let go.
    ///
    /// That of a future is renewed for `term` at first, and then for as long as [`Lease::held_until`] says: a future may be
    /// kept without ever being polled again.
    pub(crate) fn hold(self: &Arc<Self>, caller: Caller, key: WireKey, cas: Cas, term: Duration) -> Lease {
        let due = real::now() + term / RENEWALS_PER_TERM;
        let held_until = Arc::new(AtomicDeadline::new(match caller {
            // The holder is here, on this stack: it cannot vanish.
            Caller::Thread => Deadline::NEVER,
            Caller::Task => Deadline::after(self.clock.now(), term),
        }));
        let mut held = self.held.lock();
        held.last_id += 1;
        let id = held.last_id;
        let is_first = held.due.first().is_none_or(|first| (due, id) < *first);
        held.due.insert((due, id));
        let renewal =
            Renewal { key: key.clone(), cas, term, due, renew_at: due, held_until: held_until.clone(), lapses: false };
        held.leases.insert(id, renewal);
        let starts = !held.is_running && !held.is_stopped;
        held.is_running |= starts;
        drop(held);
        if starts {
            self.start();
        } else if is_first {
            self.changed.notify_one();
        }
        Lease { leases: self.clone(), caller, key, cas: Some(cas), id, held_until }
    }

    /// Ends the thread. Leases that are held yet run out by themselves.
    pub(crate) fn stop(&self) {
        self.held.lock().is_stopped = true;
        self.changed.notify_one();
    }

    fn give_back(&self, caller: Caller, requests: Requests) {
        match caller {
            // At once, so that the next call of this thread finds the key free.
            Caller::Thread => drop(real::block_on(self.batcher.run(Caller::Thread, requests))),
            Caller::Task => self.batcher.post(requests),
        }
    }

    fn let_go(&self, id: u64) {
        let mut held = self.held.lock();
        if let Some(renewal) = held.leases.remove(&id) {
            held.due.remove(&(renewal.due, id));
        }
    }

    fn start(self: &Arc<Self>) {
        let leases = self.clone();
        let spawned = thread::Builder::new().name("larder-lease".to_owned()).spawn(move || leases.renew_all());
        if let Err(error) = spawned {
            event!(
                warn,
                "no thread to renew leases: loads that take longer than one are done elsewhere as well: {error}"
            );
            self.held.lock().is_running = false;
        }
    }

    /// Renews what is due, until it is stopped.
    fn renew_all(&self) {
        let mut held = self.held.lock();
        while !held.is_stopped {
            match held.due.first().copied() {
                Some((due, _)) if due <= real::now() => {
                    let Due { renewals, lapsed } = held.take_due(real::now(), &self.clock);
                    drop(held);
                    if !lapsed.is_empty() {
                        self.batcher.post(lapsed);
                    }
                    let lost = if renewals.is_empty() { Vec::new() } else { self.renew(&renewals) };
                    held = self.held.lock();
                    for (id, _) in renewals.iter().zip(lost).filter_map(|(renewed, lost)| lost.then_some(renewed)) {
                        if let Some(renewal) = held.leases.remove(id) {
                            held.due.remove(&(renewal.due, *id));
                        }
                    }
                }
                Some((due, _)) => drop(self.changed.wait_until(&mut held, due)),
                None => self.changed.wait(&mut held),
            }
        }
    }

    /// Renews leases, and returns for each whether it is lost: the item is gone, or is another one.
    ///
    /// In two steps, since a read cannot be told to touch only the item that it expects: without the first look, it would
    /// touch whatever another process has put in the lease's place. In the moment between the two that can still happen. A
    /// value that is kept for another time than its own would be taken for younger or older than it is, so it is deleted.
    fn renew(&self, batch: &[(u64, Renewal)]) -> Vec<bool> {
        let look = |(_, lease): &(u64, Renewal)| {
            Request::new(lease.key.clone(), Route::ByKey, Action::Get { value: false, lease: None, touch: None })
        };
        let replies = real::block_on(self.batcher.run(Caller::Thread, batch.iter().map(look).collect::<Requests>()));
        // The key of such a lease was expired meanwhile, and the look has taken what that had freed.
        let freed = |((_, lease), reply): (&(u64, Renewal), &Result<Reply, RemoteError>)| match reply {
            Ok(Reply::Won(cas)) => Some(Request::delete(lease.key.clone(), Some(*cas))),
            _ => None,
        };
        let given_back: Requests = batch.iter().zip(&replies).filter_map(freed).collect();
        if !given_back.is_empty() {
            self.batcher.post(given_back);
        }
        let found = |((_, lease), reply): (&(u64, Renewal), Result<Reply, RemoteError>)| match reply {
            // On whatever connection: a server gives a number to one version alone, until it restarts and has no leases.
            Ok(Reply::Busy(cas)) if cas.value == lease.cas.value => Found::Lease,
            Ok(Reply::Busy(_) | Reply::Won(_) | Reply::Hit(_) | Reply::Miss) => Found::Other,
            Ok(_) | Err(_) => Found::Unknown,
        };
        let mut found: Vec<Found> = batch.iter().zip(replies).map(found).collect();
        let alive: Vec<usize> = (0..batch.len()).filter(|&at| found[at] == Found::Lease).collect();
        let touch = |&at: &usize| {
            let lease = &batch[at].1;
            let touch = Some(Expiry::After(lease.term));
            Request::new(lease.key.clone(), Route::ByKey, Action::Get { value: false, lease: None, touch })
        };
        let touched = real::block_on(self.batcher.run(Caller::Thread, alive.iter().map(touch).collect::<Requests>()));
        let mut spoilt = Vec::new();
        for (at, reply) in alive.into_iter().zip(touched) {
            let key = &batch[at].1.key;
            match reply {
                Ok(Reply::Hit(Item { cas, .. }) | Reply::Won(cas)) => {
                    found[at] = Found::Other;
                    spoilt.push(Request::delete(key.clone(), Some(cas)));
                }
                Ok(Reply::Miss) => found[at] = Found::Other,
                Ok(_) | Err(_) => {}
            }
        }
        if !spoilt.is_empty() {
            drop(real::block_on(self.batcher.run(Caller::Thread, spoilt)));
        }
        found.into_iter().map(|found| found == Found::Other).collect()
    }
}

impl Held {
    /// Returns what is due and held yet, and makes what is due so again later; and what is to be given back, which is held no
    /// more from here on.
    fn take_due(&mut self, now: Instant, clock: &Clock) -> Due {
        let ids: Vec<_> = self.due.range(..=(now, u64::MAX)).take(MAX_BATCH).copied().collect();
        let mut due = Due { renewals: Vec::with_capacity(ids.len()), lapsed: Requests::new() };
        for (at, id) in ids {
            self.due.remove(&(at, id));
            let Some(renewal) = self.leases.get_mut(&id) else { continue };
            let is_over = renewal.held_until.get().has_passed(clock.now());
            if is_over && renewal.lapses {
                due.lapsed.push(Request::delete(renewal.key.clone(), Some(renewal.cas)));
                self.leases.remove(&id);
                continue;
            }
            if renewal.renew_at <= now {
                renewal.renew_at = now + renewal.term / RENEWALS_PER_TERM;
                if !is_over {
                    due.renewals.push((id, renewal.clone()));
                }
            }
            renewal.due = renewal.next_look(now, clock);
            self.due.insert((renewal.due, id));
        }
        due
    }
}

impl Renewal {
    /// Returns when the lease is to be looked at next.
    fn next_look(&self, now: Instant, clock: &Clock) -> Instant {
        match self.held_until.get().remaining(clock.now()) {
            Some(left) if self.lapses => self.renew_at.min(now + left.clamp(SHORTEST_LOOK, self.term)),
            _ => self.renew_at,
        }
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("held", &self.held.lock().leases.len()).finish_non_exhaustive()
    }
}

/// A lease that this process holds. Dropping it gives it back, so that nobody waits for it to run out: also where a loader or
/// a codec panics, or a future is dropped half-way.
#[must_use = "a dropped lease is given back at once"]
pub(crate) struct Lease {
    leases: Arc<Leases>,
    caller: Caller,
    key: WireKey,
    /// What to delete; `None` where the item is to be left alone.
    cas: Option<Cas>,
    id: u64,
    held_until: Arc<AtomicDeadline>,
}

impl Lease {
    /// Returns the version of the item, under which it may be filled.
    pub(crate) fn cas(&self) -> Option<Cas> {
        self.cas
    }

    /// Returns until when the lease is renewed, for who holds it to put off.
    pub(crate) fn held_until(&self) -> &Arc<AtomicDeadline> {
        &self.held_until
    }

    /// Keeps the lease until `until`, for a claim that is held by hand: it is given back then. Returns whether it is held yet.
    pub(crate) fn keep(&self, until: Deadline) -> bool {
        let mut held = self.leases.held.lock();
        let held = &mut *held;
        // Under the lock that what is over is given back under: either that was before, or it sees the new deadline.
        let Some(renewal) = held.leases.get_mut(&self.id) else { return false };
        renewal.held_until.set(until);
        renewal.lapses = true;
        let due = renewal.next_look(real::now(), &self.leases.clock);
        if due < renewal.due {
            held.due.remove(&(renewal.due, self.id));
            renewal.due = due;
            held.due.insert((due, self.id));
            self.leases.changed.notify_one();
        }
        true
    }

    /// Passes a lease that was kept by hand to what `caller` does now, which puts off its deadline itself.
    pub(crate) fn pass_to(&mut self, caller: Caller, until: Deadline) {
        self.caller = caller;
        if let Some(renewal) = self.leases.held.lock().leases.get_mut(&self.id) {
            renewal.held_until.set(until);
            renewal.lapses = false;
        }
    }

    /// Leaves the item alone: it is a value now, or somebody else's.
    pub(crate) fn forget(mut self) {
        self.cas = None;
    }

    /// Gives several leases back with one exchange, as dropping each does with one of its own.
    pub(crate) fn give_back(leases: Vec<Lease>) {
        let Some(first) = leases.first() else { return };
        let (all, caller) = (first.leases.clone(), first.caller);
        let delete = |mut lease: Lease| lease.cas.take().map(|cas| Request::delete(lease.key.clone(), Some(cas)));
        all.give_back(caller, leases.into_iter().filter_map(delete).collect());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.let_go(self.id);
        let Some(cas) = self.cas else { return };
        self.leases.give_back(self.caller, Requests::from_iter([Request::delete(self.key.clone(), Some(cas))]));
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("key", &self.key).field("cas", &self.cas).finish_non_exhaustive()
    }
}
