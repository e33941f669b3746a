//! Threads that share a breaker behind a lock, as those of one server do, in every order:
//! `RUSTFLAGS="--cfg larder_loom" cargo test --package larder --lib --release --features memcached model::`.

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::*;
use crate::sync::Arc;
use crate::sync::model::Mutex;

/// No jitter.
const FULL: u64 = 0;

/// A server that was given up, whose pause is over, and a permit from before it was.
struct Scene {
    breaker: Mutex<Breaker>,
    now: Instant,
    probes: AtomicU32,
}

impl Scene {
    fn new() -> (Arc<Scene>, Permit) {
        let start = Instant::now();
        let mut breaker = Breaker::new(LONGEST_PAUSE);
        let early = breaker.admit(start).unwrap();
        for _ in 0..FAILURES_TO_OPEN {
            let permit = breaker.admit(start).unwrap();
            breaker.fail(permit, start, FULL);
        }
        let scene = Scene { breaker: Mutex::new(breaker), now: start + FIRST_PAUSE, probes: AtomicU32::new(0) };
        (Arc::new(scene), early)
    }

    /// Sends a command, if one may go, and returns whether it did.
    fn send(&self, end: fn(&mut Breaker, Permit, Instant)) -> bool {
        let admitted = self.breaker.lock().admit(self.now);
        let Ok(permit) = admitted else { return false };
        assert_eq!(self.probes.fetch_add(1, Ordering::Relaxed), 0, "one probe at a time");
        self.probes.fetch_sub(1, Ordering::Relaxed);
        end(&mut self.breaker.lock(), permit, self.now);
        true
    }
}

fn fail(breaker: &mut Breaker, permit: Permit, now: Instant) {
    breaker.fail(permit, now, FULL);
}

/// Two callers come as the pause ends: the second finds the probe under way, or that it failed.
#[test]
fn one_of_two_callers_sends_a_probe_that_fails() {
    loom::model(|| {
        let (scene, _) = Scene::new();
        let other = thread::spawn({
            let scene = scene.clone();
            move || scene.send(fail)
        });
        let went = scene.send(fail);
        assert!(went != other.join().unwrap());
        assert_eq!(scene.breaker.lock().state(), BreakerState::Open);
    });
}

/// A probe is given up, and another may go at once: then, and not while the first is under way.
#[test]
fn after_a_probe_that_is_abandoned_another_goes() {
    loom::model(|| {
        let (scene, _) = Scene::new();
        let other = thread::spawn({
            let scene = scene.clone();
            move || scene.send(Breaker::abandon)
        });
        let went = scene.send(Breaker::abandon);
        assert!(other.join().unwrap() || went);
        assert_eq!(scene.breaker.lock().state(), BreakerState::Open);
        assert!(scene.send(fail));
    });
}

/// What was sent before the breaker opened fails while a probe is under way, or after it: that says nothing of the server as it is.
#[test]
fn a_late_failure_does_not_undo_a_probe_that_succeeds() {
    loom::model(|| {
        let (scene, early) = Scene::new();
        let late = thread::spawn({
            let scene = scene.clone();
            move || scene.breaker.lock().fail(early, scene.now, FULL)
        });
        assert!(scene.send(|breaker, permit, _| breaker.succeed(permit)));
        late.join().unwrap();
        assert_eq!(scene.breaker.lock().state, State::Closed { failures: 0 });
    });
}

/// A probe that was given up for lost succeeds while the next one fails: the later one's word counts.
#[test]
fn a_lost_probe_does_not_speak_for_the_next_one() {
    loom::model(|| {
        let (scene, _) = Scene::new();
        let lost = scene.breaker.lock().admit(scene.now).unwrap();
        let late = thread::spawn({
            let scene = scene.clone();
            move || scene.breaker.lock().succeed(lost)
        });
        let later = scene.now + PROBE_PATIENCE;
        let admitted = scene.breaker.lock().admit(later);
        if let Ok(probe) = admitted {
            scene.breaker.lock().fail(probe, later, FULL);
        }
        late.join().unwrap();
        let state = scene.breaker.lock().state();
        // Closed where the lost one came back before the next was sent, which is then a command like any other.
        let failed_while_closed = scene.breaker.lock().state == State::Closed { failures: 1 };
        assert!(state == BreakerState::Open || failed_while_closed, "{state:?}");
    });
}
