//! Single flight: one caller fills a key, and the others wait for what it brings.
//!
//! A *flight* stands in its shard's table from the moment a caller claims a key until the key is filled, given up or
//! invalidated. Being in the table is the ticket: a fill succeeds only while its flight still stands there, under the lock
//! that every invalidation of the key takes to remove it.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{AtomicDeadline, Clock, Deadline, Timestamp};
use crate::error::LoadError;
use crate::group::{Generation, Group, GroupSet};
use crate::limit::Limit;
use crate::options::Draft;
use crate::sync::model::{AtomicU32, Mutex};
use crate::sync::{Arc, OnceLock, Ordering, thread_local};
use crate::task::guarded;
use crate::watch::{EnteredSpan, LoadSpan, PANICKED};

/// How many callers may wait for one flight. Each is a thread or a future of the caller's, so this bounds nothing but the
/// list of them, and the crowd that wakes at once.
const MAX_WAITERS: u32 = 1 << 16;

/// A key on its way to be filled.
#[derive(Debug)]
pub(crate) struct Flight<K, V> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    /// The generation from before the load began, by which its result will be judged.
    pub(crate) born: Generation,
    /// When the claim was taken.
    #[cfg(feature = "tiered")]
    pub(crate) begun: Timestamp,
    /// From here on another caller may take the key over: the holder of the claim seems to have vanished.
    pub(crate) held_until: AtomicDeadline,
    /// The hard timeout of the load, if it has one.
    limit: OnceLock<Arc<Limit>>,
    pub(crate) draft: Arc<Draft>,
    pub(crate) span: LoadSpan,
    /// The groups of the entry that this flight refreshes or replaces. The new value is likely to be in them too.
    pub(crate) suspects: GroupSet,
    /// How many callers have joined and not left. Raised under the shard's lock, while the flight stands in its table.
    waiters: AtomicU32,
    landing: Mutex<Landing<V>>,
}

#[derive(Debug)]
struct Landing<V> {
    outcome: Option<Arc<Outcome<V>>>,
    wakers: Vec<(u64, Waker)>,
    next_waker: u64,
}

/// How a flight ended, for those who waited.
#[derive(Debug)]
pub(crate) enum Outcome<V> {
    /// With a value. `fenced` says that an invalidation came after the load began.
    Loaded { value: V, fenced: bool },
    /// With an error of the loader, an `Arc<E>` of whatever type.
    Failed(Arc<dyn Any + Send + Sync>),
    /// With a panic of the loader.
    Panicked,
    /// Without a value for this key, from the loader of a batch. `fenced` as above.
    Absent { fenced: bool },
    /// With nothing: the claim was dropped, or taken over. Whoever waited may try.
    Abandoned,
    /// With nothing after so much time, all that the load was allowed.
    TimedOut(Duration),
    /// With nothing: there are too many loads to begin this one.
    Overloaded,
}

impl<V> Outcome<V> {
    /// Returns how the load has ended, as its span says it.
    fn name(&self) -> &'static str {
        match self {
            Outcome::Loaded { .. } | Outcome::Absent { .. } => "ok",
            Outcome::Failed(_) => "error",
            Outcome::Panicked => PANICKED,
            Outcome::Abandoned => "dropped",
            Outcome::TimedOut(_) => "timed_out",
            Outcome::Overloaded => "overloaded",
        }
    }
}

impl<K, V> Flight<K, V> {
    pub(crate) fn new(
        hash: u64,
        key: K,
        born: Generation,
        begun: Timestamp,
        grace: Duration,
        draft: Draft,
        suspects: GroupSet,
    ) -> Self {
        Flight {
            hash,
            key,
            born,
            #[cfg(feature = "tiered")]
            begun,
            held_until: AtomicDeadline::new(Deadline::after(begun, grace)),
            limit: OnceLock::new(),
            draft: Arc::new(draft),
            span: LoadSpan::default(),
            suspects,
            waiters: AtomicU32::new(0),
            landing: Mutex::new(Landing { outcome: None, wakers: Vec::new(), next_waker: 0 }),
        }
    }

    /// Returns whether an invalidation is known to have come after the load began, so that nobody may join any more.
    pub(crate) fn is_fenced(&self, root: &Group) -> bool {
        root.moved_since(self.born) || self.suspects.moved_since(self.born) || self.draft.moved_since(self.born)
    }

    /// Makes the load subject to `limit`, which covers this flight already. The first one holds.
    pub(crate) fn set_limit(&self, limit: &Arc<Limit>) {
        let _ = self.limit.set(limit.clone());
    }

    pub(crate) fn limit(&self) -> Option<&Arc<Limit>> {
        self.limit.get()
    }

    /// Returns whether the load was given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.limit().is_some_and(|limit| limit.is_over())
    }

    /// Returns the limit of a load that is past it, for the caller to give the load up.
    pub(crate) fn overdue(&self, clock: &Clock) -> Option<&Arc<Limit>> {
        self.limit().filter(|limit| limit.is_overdue(clock.near(limit.at())))
    }

    /// Returns from when on it is no use to wait for this flight: its claim is over then, or has run out.
    pub(crate) fn awaited_until(&self) -> Deadline {
        let held_until = self.held_until.get();
        self.limit().map_or(held_until, |limit| held_until.min(limit.at()))
    }

    /// Returns whether anybody waits. Final once the flight has left its table.
    pub(crate) fn is_awaited(&self) -> bool {
        // Relaxed: the shard's lock, under which the flight left the table, orders this after every join.
        self.waiters.load(Ordering::Relaxed) > 0
    }

    /// Joins those who wait; `None` when they are too many. Called under the shard's lock, while the flight stands in its
    /// table, so that whoever takes it out knows of everybody who joined.
    pub(crate) fn join(self: &Arc<Self>, arrived: Generation) -> Option<Joined<K, V>> {
        if self.waiters.fetch_add(1, Ordering::Relaxed) >= MAX_WAITERS {
            self.waiters.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Joined { flight: self.clone(), arrived })
    }

    /// Returns how the flight has ended, if it has.
    pub(crate) fn outcome(&self) -> Option<Arc<Outcome<V>>> {
        self.landing.lock().outcome.clone()
    }

    /// Ends the flight and wakes everybody. Only the first outcome counts.
    pub(crate) fn land(&self, outcome: Outcome<V>) {
        self.span.end(outcome.name());
        let mut landing = self.landing.lock();
        if landing.outcome.is_some() {
            // The value in a second outcome is dropped outside the lock.
            drop(landing);
            drop(outcome);
            return;
        }
        landing.outcome = Some(Arc::new(outcome));
        let wakers = std::mem::take(&mut landing.wakers);
        drop(landing);
        // Foreign code, which must not keep the news from the others.
        for (_, waker) in wakers {
            guarded(|| waker.wake());
        }
    }
}

/// A caller that waits for a flight of another.
#[derive(Debug)]
pub(crate) struct Joined<K, V> {
    pub(crate) flight: Arc<Flight<K, V>>,
    /// The generation when this caller came: it takes no value that was invalidated before.
    arrived: Generation,
}

impl<K, V> Joined<K, V> {
    /// Returns a future of the flight's outcome.
    pub(crate) fn landed(&self) -> Landed<'_, K, V> {
        Landed { flight: &self.flight, waker: None }
    }

    /// Returns whether the load has ended and found that there is no value, which counts for this caller as a value would.
    pub(crate) fn found_absent(&self) -> bool {
        match self.flight.landing.lock().outcome.as_deref() {
            Some(Outcome::Absent { fenced }) => !(*fenced && self.arrived > self.flight.born),
            _ => false,
        }
    }
}

impl<K, V: Clone> Joined<K, V> {
    /// Returns what `outcome` means to this caller: `Ok(None)` if it has to look again.
    pub(crate) fn settle<E: Send + Sync + 'static>(&self, outcome: &Outcome<V>) -> Result<Option<V>, LoadError<E>> {
        match outcome {
            // A fence that may have come before this caller did: what began before an invalidation is nothing to those who
            // come after it. Without a bump since the load began, the fence is younger than this caller.
            Outcome::Loaded { fenced: true, .. } if self.arrived > self.flight.born => Ok(None),
            Outcome::Loaded { value, .. } => Ok(Some(value.clone())),
            // A loader with another type of error: this caller cannot be told, so it runs its own.
            Outcome::Failed(error) => match error.clone().downcast::<E>() {
                Ok(error) => Err(LoadError::shared(error)),
                Err(_) => Ok(None),
            },
            Outcome::Panicked => Err(LoadError::panicked()),
            Outcome::TimedOut(allowed) => Err(LoadError::timed_out(*allowed)),
            Outcome::Overloaded => Err(LoadError::overloaded()),
            Outcome::Absent { .. } | Outcome::Abandoned => Ok(None),
        }
    }
}

impl<K, V> Drop for Joined<K, V> {
    fn drop(&mut self) {
        self.flight.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resolves when a flight has ended. Dropping it at any point leaves nothing behind.
pub(crate) struct Landed<'a, K, V> {
    flight: &'a Flight<K, V>,
    waker: Option<u64>,
}

impl<K, V> Future for Landed<'_, K, V> {
    type Output = Arc<Outcome<V>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloning and dropping a waker is foreign code, and stays outside the lock.
        let waker = context.waker().clone();
        let mut landing = self.flight.landing.lock();
        if let Some(outcome) = &landing.outcome {
            return Poll::Ready(outcome.clone());
        }
        let replaced = match self.waker.and_then(|id| landing.wakers.iter_mut().find(|(known, _)| *known == id)) {
            Some((_, known)) => Some(std::mem::replace(known, waker)),
            None => {
                let id = landing.next_waker;
                landing.next_waker += 1;
                landing.wakers.push((id, waker));
                self.waker = Some(id);
                None
            }
        };
        drop(landing);
        drop(replaced);
        Poll::Pending
    }
}

impl<K, V> Drop for Landed<'_, K, V> {
    fn drop(&mut self) {
        if let Some(id) = self.waker {
            let mut landing = self.flight.landing.lock();
            let mine = landing.wakers.iter().position(|(known, _)| *known == id);
            let waker = mine.map(|at| landing.wakers.swap_remove(at));
            drop(landing);
            drop(waker);
        }
    }
}

thread_local! {
    /// The flights whose loaders run on this thread, innermost last, by address.
    static LEADING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Marks this thread as running the loader of some flights, for as long as it lives.
pub(crate) struct Leading {
    outer: usize,
    /// That of the load, in which its loader runs.
    _span: Option<EnteredSpan>,
}

impl Leading {
    pub(crate) fn enter<'a, K: 'a, V: 'a>(flights: impl IntoIterator<Item = &'a Arc<Flight<K, V>>>) -> Leading {
        // A thread that is being torn down keeps no such list any more: there, waits for oneself end by their time limit.
        let mut led = None;
        let mut keys = 0;
        let outer = LEADING.try_with(|leading| {
            let mut leading = leading.borrow_mut();
            let outer = leading.len();
            leading.extend(flights.into_iter().inspect(|flight| led = led.or(Some(*flight))).map(address));
            keys = leading.len() - outer;
            outer
        });
        Leading { outer: outer.unwrap_or(0), _span: led.and_then(|flight| flight.span.enter(keys)) }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        let _ = LEADING.try_with(|leading| leading.borrow_mut().truncate(self.outer));
    }
}

/// Returns whether this thread is running the loader of `flight`, and would wait for itself.
pub(crate) fn is_led_here<K, V>(flight: &Arc<Flight<K, V>>) -> bool {
    LEADING.try_with(|leading| leading.borrow().contains(&address(flight))).unwrap_or(false)
}

fn address<K, V>(flight: &Arc<Flight<K, V>>) -> usize {
    Arc::as_ptr(flight).addr()
}

#[cfg(all(test, larder_loom))]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, Groups};

    fn flight(groups: &Groups) -> Arc<Flight<u32, u32>> {
        let draft = Draft::new(groups.clone());
        let now = Clock::system().now();
        Arc::new(Flight::new(1, 1, groups.generation(), now, Duration::MAX, draft, GroupSet::EMPTY))
    }

    #[test]
    fn everybody_who_joined_gets_the_first_outcome() {
        let groups = Groups::new();
        let flight = flight(&groups);
        let joined: Vec<_> = (0..4).map(|_| flight.join(groups.generation()).unwrap()).collect();
        assert!(flight.is_awaited());
        let waiting: Vec<_> = joined
            .into_iter()
            .map(|joined| {
                std::thread::spawn(move || {
                    let outcome = Clock::system().block_on(joined.landed(), Deadline::NEVER).unwrap();
                    joined.settle::<()>(&outcome).unwrap()
                })
            })
            .collect();
        flight.land(Outcome::Loaded { value: 7, fenced: false });
        flight.land(Outcome::Abandoned);
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap() == Some(7)));
        assert!(!flight.is_awaited());
    }

    #[test]
    fn a_fenced_value_is_nothing_to_those_who_came_after_a_bump() {
        let groups = Groups::new();
        let flight = flight(&groups);
        let early = flight.join(groups.generation()).unwrap();
        groups.invalidate("late");
        let late = flight.join(groups.generation()).unwrap();
        let outcome = Outcome::Loaded { value: 7, fenced: true };
        assert_eq!(early.settle::<()>(&outcome).unwrap(), Some(7));
        assert_eq!(late.settle::<()>(&outcome).unwrap(), None);
    }

    #[test]
    fn a_wait_that_is_dropped_leaves_no_waker_behind() {
        let groups = Groups::new();
        let flight = flight(&groups);
        let joined = flight.join(groups.generation()).unwrap();
        let mut landed = Box::pin(joined.landed());
        let mut context = Context::from_waker(Waker::noop());
        assert!(landed.as_mut().poll(&mut context).is_pending());
        assert!(landed.as_mut().poll(&mut context).is_pending());
        assert_eq!(flight.landing.lock().wakers.len(), 1);
        drop(landed);
        assert!(flight.landing.lock().wakers.is_empty());
    }

    #[test]
    fn an_error_of_another_type_is_no_answer() {
        let groups = Groups::new();
        let flight = flight(&groups);
        let joined = flight.join(groups.generation()).unwrap();
        let outcome = Outcome::Failed(Arc::new("text"));
        assert_eq!(joined.settle::<&'static str>(&outcome).unwrap_err().loader(), Some(&"text"));
        assert_eq!(joined.settle::<u8>(&outcome).unwrap(), None);
    }

    #[test]
    fn a_thread_knows_which_loaders_it_runs() {
        let groups = Groups::new();
        let (outer, inner) = (flight(&groups), flight(&groups));
        let leading = Leading::enter([&outer]);
        {
            let _leading = Leading::enter([&inner]);
            assert!(is_led_here(&outer) && is_led_here(&inner));
        }
        assert!(is_led_here(&outer) && !is_led_here(&inner));
        drop(leading);
        assert!(!is_led_here(&outer));
    }
}
