//! The protocol of a claim's holder and of those who wait for it, take it over or fence it, in every order that the memory model
//! allows: `RUSTFLAGS="--cfg larder_loom" cargo test --package larder --lib --release --features memcached model::`.
//!
//! What stands in a shard is one flight here, behind a lock of its own. Each model that needs an order of steps also goes through
//! the other order, and has to fail there.

use std::task::Wake;

use loom::sync::atomic::AtomicBool;
use loom::thread::{self, Thread};

use super::*;
use crate::group::Groups;

type Held = Arc<Flight<u32, u32>>;

/// A shard with one key.
struct Shard {
    groups: Groups,
    root: Arc<Group>,
    clock: Clock,
    flight: Mutex<Option<Held>>,
    value: Mutex<Option<u32>>,
}

impl Shard {
    /// Returns a shard with a flight that was begun now, and that flight.
    fn new(grace: Duration) -> (Arc<Shard>, Held) {
        let groups = Groups::new();
        let shard = Shard {
            root: groups.new_root(),
            groups,
            clock: Clock::manual().0,
            flight: Mutex::new(None),
            value: Mutex::new(None),
        };
        let flight = shard.begin(grace);
        *shard.flight.lock() = Some(flight.clone());
        (Arc::new(shard), flight)
    }

    fn begin(&self, grace: Duration) -> Held {
        let (groups, now) = (&self.groups, self.clock.now());
        Arc::new(Flight::new(1, 1, groups.generation(), now, grace, Draft::new(groups.clone()), GroupSet::EMPTY))
    }

    fn stands(&self, flight: &Held) -> bool {
        self.flight.lock().as_ref().is_some_and(|standing| Arc::ptr_eq(standing, flight))
    }

    /// Takes the flight out, if it is there yet.
    fn retract(&self, flight: &Held) {
        self.flight.lock().take_if(|standing| Arc::ptr_eq(standing, flight));
    }

    /// Stores a value, if the flight stands yet.
    fn fill(&self, flight: &Held, value: u32) -> bool {
        let mut standing = self.flight.lock();
        let stands = standing.take_if(|standing| Arc::ptr_eq(standing, flight)).is_some();
        if stands {
            *self.value.lock() = Some(value);
        }
        stands
    }

    /// Joins the flight that stands, unless it is known to be fenced.
    fn join(&self) -> Option<Joined<u32, u32>> {
        let arrived = self.groups.generation();
        let standing = self.flight.lock();
        standing.as_ref().filter(|flight| !flight.is_fenced(&self.root)).and_then(|flight| flight.join(arrived))
    }

    /// Takes the key over from a holder whose time is up.
    fn take_over(&self) -> Option<Held> {
        let mut standing = self.flight.lock();
        if standing.as_ref().is_some_and(|flight| !self.clock.has_passed(flight.held_until.get())) {
            return None;
        }
        let flight = self.begin(Duration::MAX);
        let superseded = standing.replace(flight.clone());
        drop(standing);
        if let Some(superseded) = superseded {
            superseded.land(Outcome::Abandoned);
        }
        Some(flight)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits until the flight has ended. Where nobody ever wakes this thread, the checker reports a deadlock.
fn wait(joined: &Joined<u32, u32>) -> Arc<Outcome<u32>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut landed = std::pin::pin!(joined.landed());
    loop {
        match landed.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => thread::park(),
        }
    }
}

/// Which of two steps of a protocol comes first.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    AsItIs,
    Swapped,
}

/// A caller joins between the moment when the holder looks whether anybody waits, and its landing; or registers its waker while the
/// flight lands.
fn join_while_it_lands(order: Order) {
    loom::model(move || {
        let (shard, flight) = Shard::new(Duration::MAX);
        let caller = thread::spawn({
            let shard = shard.clone();
            move || shard.join().map(|joined| joined.settle::<()>(&wait(&joined)).unwrap())
        });
        // As `Claim::land_with` does: nobody joins any more once the flight is out, so that a copy is made only if it is needed.
        let early = flight.is_awaited();
        shard.retract(&flight);
        let is_awaited = if order == Order::AsItIs { flight.is_awaited() } else { early };
        flight.land(if is_awaited { Outcome::Loaded { value: 7, fenced: false } } else { Outcome::Abandoned });
        if let Some(got) = caller.join().unwrap() {
            assert_eq!(got, Some(7), "who has joined gets the value");
        }
        assert!(!flight.is_awaited());
    });
}

#[test]
fn who_joins_a_flight_that_lands_gets_its_value() {
    join_while_it_lands(Order::AsItIs);
}

#[test]
#[should_panic(expected = "who has joined gets the value")]
fn who_asks_for_waiters_before_the_flight_is_out_forgets_one() {
    join_while_it_lands(Order::Swapped);
}

/// A caller gives up waiting while the flight is abandoned: its waker is taken by the one or the other.
#[test]
fn a_wait_that_ends_while_the_flight_is_abandoned_leaves_nothing() {
    loom::model(|| {
        let (shard, flight) = Shard::new(Duration::MAX);
        let quitter = thread::spawn({
            let joined = shard.join().unwrap();
            move || {
                let mut landed = Box::pin(joined.landed());
                let _ = landed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
        });
        let patient = thread::spawn({
            let joined = shard.join().unwrap();
            move || assert!(matches!(*wait(&joined), Outcome::Abandoned))
        });
        shard.retract(&flight);
        flight.land(Outcome::Abandoned);
        quitter.join().unwrap();
        patient.join().unwrap();
        assert!(!flight.is_awaited() && flight.landing.lock().wakers.is_empty());
    });
}

/// Of a holder that fills and one that is about to take the key over, one wins; who waits for the former is told in any case.
#[test]
fn a_fill_and_a_takeover_exclude_each_other() {
    loom::model(|| {
        let (shard, flight) = Shard::new(Duration::ZERO);
        let joined = shard.join().unwrap();
        let successor = thread::spawn({
            let shard = shard.clone();
            move || {
                let flight = shard.take_over().expect("the first holder's time is up");
                assert!(shard.fill(&flight, 2));
            }
        });
        let filled = shard.fill(&flight, 1);
        flight.land(Outcome::Loaded { value: 1, fenced: !filled });
        let told = wait(&joined);
        successor.join().unwrap();
        assert!(filled || matches!(*told, Outcome::Abandoned | Outcome::Loaded { fenced: true, .. }));
        assert_eq!(*shard.value.lock(), Some(2), "what is stored under the later claim stays");
    });
}

/// A holder extends its claim while another caller looks whether its time is up.
fn extend_while_another_takes_over(order: Order) {
    loom::model(move || {
        let (shard, flight) = Shard::new(Duration::ZERO);
        let successor = thread::spawn({
            let shard = shard.clone();
            move || shard.take_over().is_some()
        });
        // As `Claim::extend` does.
        let early = shard.stands(&flight);
        flight.held_until.set(Deadline::NEVER);
        let extended = if order == Order::AsItIs { shard.stands(&flight) } else { early };
        let taken_over = successor.join().unwrap();
        assert!(extended != taken_over, "a claim that is said to hold is not another's");
    });
}

#[test]
fn a_claim_that_was_extended_is_not_taken_over() {
    extend_while_another_takes_over(Order::AsItIs);
}

#[test]
#[should_panic(expected = "a claim that is said to hold is not another's")]
fn who_looks_before_the_deadline_has_moved_may_have_lost_the_claim() {
    extend_while_another_takes_over(Order::Swapped);
}

/// A load names a group at its very end. Who comes after that group's bump cannot know, and joins: it must not get the value.
fn bump_while_it_lands(order: Order) {
    loom::model(move || {
        let (shard, flight) = Shard::new(Duration::MAX);
        let late = shard.groups.intern("late");
        let bumped = Arc::new(AtomicBool::new(false));
        let bumper = thread::spawn({
            let (shard, bumped) = (shard.clone(), bumped.clone());
            move || {
                shard.groups.invalidate("late");
                bumped.store(true, Ordering::Release);
            }
        });
        let caller = thread::spawn({
            let shard = shard.clone();
            move || {
                let came_after = bumped.load(Ordering::Acquire);
                let got = shard.join().and_then(|joined| joined.settle::<()>(&wait(&joined)).unwrap());
                assert!(!(came_after && got.is_some()), "nobody gets what was invalidated before");
            }
        });
        // As `Claim::refuse` does: from when the flight is out nobody joins, and only then is it judged.
        let fenced = || flight.is_fenced(&shard.root) || late.moved_since(flight.born);
        let early = fenced();
        shard.retract(&flight);
        let fenced = if order == Order::AsItIs { fenced() } else { early };
        flight.land(Outcome::Loaded { value: 7, fenced });
        bumper.join().unwrap();
        caller.join().unwrap();
    });
}

#[test]
fn who_comes_after_a_bump_gets_nothing_from_before_it() {
    bump_while_it_lands(Order::AsItIs);
}

#[test]
#[should_panic(expected = "nobody gets what was invalidated before")]
fn who_judges_before_the_flight_is_out_serves_what_was_invalidated() {
    bump_while_it_lands(Order::Swapped);
}
