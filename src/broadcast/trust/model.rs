//! The lease between those who apply news and extend it and those who serve under it, in every order that the memory model allows:
//! `RUSTFLAGS="--cfg larder_loom" cargo test --package larder --lib --release --features memcached model::`.

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::*;
use crate::sync::{Arc, Ordering};

const LEASE: Duration = Duration::from_millis(50);

/// News of the journal, and what was noted before it was asked for them.
struct Scene {
    trust: Trust,
    clock: Clock,
    /// What the first and the second look have brought. Relaxed, as what news are applied to may be.
    news: [AtomicU64; 2],
}

impl Scene {
    fn new() -> Arc<Scene> {
        let (clock, _) = Clock::manual();
        let trust = Trust::new(clock.clone(), LEASE);
        Arc::new(Scene { trust, clock, news: [AtomicU64::new(0), AtomicU64::new(0)] })
    }

    fn look(&self, number: usize, noted: Timestamp) {
        self.news[number].store(1, Ordering::Relaxed);
        self.trust.extend(noted);
    }

    fn knows(&self, number: usize) -> bool {
        self.news[number].load(Ordering::Relaxed) == 1
    }
}

/// A reader asks for the lease and then looks at an entry, while news of that entry are applied and the lease is extended.
fn read_while_news_come(holds: fn(&Trust) -> bool) {
    loom::model(move || {
        let scene = Scene::new();
        let poller = thread::spawn({
            let scene = scene.clone();
            move || scene.look(0, scene.clock.now())
        });
        if holds(&scene.trust) {
            assert!(scene.knows(0), "who is trusted has the news");
        }
        poller.join().unwrap();
        assert!(scene.trust.holds());
    });
}

#[test]
fn who_sees_the_lease_extended_sees_the_news() {
    read_while_news_come(Trust::holds);
}

/// The same with a look that orders nothing.
#[test]
#[should_panic(expected = "who is trusted has the news")]
fn a_look_without_an_order_misses_the_news() {
    read_while_news_come(|trust| !trust.until.get().has_passed(trust.clock.now()));
}

/// Two threads extend the lease, one of them under an older look: the lease is never shorter for that, and who is served under
/// either has its news.
#[test]
fn of_two_looks_the_later_one_counts() {
    loom::model(|| {
        let scene = Scene::new();
        let early = scene.clock.now();
        let late = Timestamp::from_ms(early.as_ms() + 10);
        let poller = thread::spawn({
            let scene = scene.clone();
            move || scene.look(1, late)
        });
        let caller = thread::spawn({
            let scene = scene.clone();
            move || scene.look(0, early)
        });
        let left = scene.trust.left();
        if left > LEASE {
            assert!(scene.knows(1));
        } else if !left.is_zero() {
            assert!(scene.knows(0));
        }
        poller.join().unwrap();
        caller.join().unwrap();
        assert_eq!(scene.trust.left(), LEASE + Duration::from_millis(10));
    });
}
