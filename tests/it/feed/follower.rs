//! A follower loses nothing, whatever fails and whenever, and stops when it is told to.

use std::time::{Duration, Instant};

use larder::{Cache, Change, ChangeFeed, Connected, FeedState, Groups};

use super::source::{Fault, Point, Source};
use super::{group, present, records, saved, store};
use crate::scene::{PATIENCE, eventually, within_patience};

const HOUR: Duration = Duration::from_secs(3_600);

/// What a follower may be asked to go on after, and is told of, never goes back.
fn assert_forward(source: &Source) {
    source.look(|state| {
        assert!(state.connected.is_sorted(), "{:?}", state.connected);
        assert!(state.acknowledged.is_sorted(), "{:?}", state.acknowledged);
    });
}

#[test]
fn every_change_is_applied_wherever_the_feed_fails() {
    for point in [Point::Connect, Point::Next, Point::NextOfBatch, Point::Acknowledge] {
        for fault in [Fault::Error, Fault::Panic] {
            let (cache, source) = (records(&Groups::new()), Source::durable());
            source.fail([(point, fault)]);
            let mut follower = cache.follow("records", source.feed()).unwrap();
            source.commit((0..3).map(|key| saved([key])));
            source.failed();
            source.settled();
            source.commit((3..5).map(|key| saved([key])));
            source.settled();
            assert_eq!(present(&cache), [5, 6, 7, 8, 9], "{point:?}, {fault:?}");
            assert_forward(&source);
            let health = follower.health();
            assert_eq!((health.errors, health.connections, health.gaps), (1, connections(point), 0), "{health:?}");
            assert!(health.last_error.unwrap().contains(&format!("at {point:?}")));
            assert!(health.changes >= 5 && health.batches >= 2 && health.pending == 0);
            assert!(follower.stop(PATIENCE));
            assert_eq!(follower.health().state, FeedState::Stopped);
        }
    }
}

/// How often a feed is connected that fails once.
fn connections(point: Point) -> u64 {
    if point == Point::Connect { 1 } else { 2 }
}

#[test]
fn what_the_feed_brought_before_it_failed_is_applied_at_once() {
    let (cache, source) = (records(&Groups::new()), Source::forgetful(Change::default()));
    source.pause(HOUR);
    let follower = cache.follow("records", source.feed()).unwrap();
    source.asked_again();
    source.fail([(Point::NextOfBatch, Fault::Error)]);
    source.commit([saved([1])]);
    eventually("it pauses", || follower.health().state == FeedState::Pausing);
    assert!(!cache.contains(&1));
    assert_eq!(source.look(|state| state.acknowledged.clone()), [1]);
}

/// It was applied, and the feed did not hear of it: the next connection goes on after it.
#[test]
fn what_could_not_be_acknowledged_is_not_applied_twice_in_one_life() {
    let (cache, source) = (records(&Groups::new()), Source::durable());
    source.fail([(Point::Acknowledge, Fault::Error)]);
    source.commit([saved([1])]);
    let _follower = cache.follow("records", source.feed()).unwrap();
    eventually("it connects again", || source.look(|state| state.connected.len() == 2));
    assert_eq!(source.look(|state| state.connected.clone()), [None, Some(1)]);
}

/// As after a crash: the next follower knows no position, and the feed goes on after what was acknowledged.
#[test]
fn the_next_follower_gets_what_was_not_acknowledged_again() {
    let (cache, source) = (records(&Groups::new()), Source::durable());
    source.commit([saved([1])]);
    let mut follower = cache.follow("records", source.feed()).unwrap();
    source.settled();
    source.fail([(Point::Acknowledge, Fault::Panic)]);
    source.pause(HOUR);
    source.commit([saved([2])]);
    source.failed();
    assert!(follower.stop(PATIENCE));
    store(&cache, 1);
    store(&cache, 2);
    source.pause(Duration::ZERO);
    let _next = cache.follow("records", source.feed()).unwrap();
    source.settled();
    assert_eq!((cache.contains(&1), cache.contains(&2)), (true, false));
    assert_eq!(source.look(|state| state.connected.clone()), [None, None]);
}

#[test]
fn a_change_that_comes_twice_does_no_harm() {
    let (cache, source) = (records(&Groups::new()), Source::durable());
    source.commit([saved([1]), saved([1]), saved([2])]);
    let _follower = cache.follow("records", source.feed()).unwrap();
    source.settled();
    store(&cache, 1);
    assert_eq!(cache.get(&1), Some(1));
}

/// Notes what the cache has at its two first calls.
struct Watching {
    cache: Cache<u32, u32>,
    seen: std::sync::mpsc::Sender<(&'static str, usize)>,
}

impl ChangeFeed for Watching {
    type Position = ();
    type Error = String;

    fn connect(&mut self, _after: Option<&()>) -> Result<Connected, String> {
        self.seen.send(("connect", present(&self.cache).len())).unwrap();
        Ok(Connected::Gap(Change::invalidate((0..4).map(group))))
    }

    fn next(&mut self, _within: Duration) -> Result<Option<(Change, ())>, String> {
        // Nobody listens after the first call.
        let _ = self.seen.send(("next", present(&self.cache).len()));
        Ok(None)
    }
}

/// In the other order, a change between the invalidation and the subscription would be lost.
#[test]
fn a_gap_is_invalidated_after_the_subscription_and_before_any_change() {
    let cache = records(&Groups::new());
    let (seen, calls) = std::sync::mpsc::channel();
    let _follower = cache.follow("records", Watching { cache: cache.clone(), seen }).unwrap();
    let next = || calls.recv_timeout(PATIENCE).unwrap();
    assert_eq!([next(), next()], [("connect", 10), ("next", 6)]);
}

#[test]
fn a_feed_that_cannot_go_back_loses_nothing_that_it_missed() {
    let (cache, source) = (records(&Groups::new()), Source::forgetful(Change::everything()));
    let follower = cache.follow("records", source.feed()).unwrap();
    source.asked_again();
    assert_eq!(present(&cache).len(), 0, "nobody knows what was missed before");
    (0..10).for_each(|key| store(&cache, key));
    source.commit([saved([1])]);
    source.settled();
    assert_eq!(present(&cache).len(), 9);
    // While it is away, a change is committed that it will never bring.
    source.fail([(Point::Next, Fault::Error), (Point::Connect, Fault::Error), (Point::Connect, Fault::Panic)]);
    source.failed();
    source.commit([saved([2])]);
    eventually("it has connected again", || follower.health().gaps == 2);
    eventually("what it missed is invalidated", || !cache.contains(&2));
    let health = follower.health();
    assert_eq!((health.errors, health.connections, health.gaps), (3, 2, 2));
}

#[test]
fn pauses_count_failures_in_a_row_and_start_over_after_a_good_round() {
    let source = Source::durable();
    let fails = |points: &[Point]| source.fail(points.iter().map(|point| (*point, Fault::Error)));
    fails(&[Point::Connect, Point::Connect, Point::Connect, Point::Next, Point::Next]);
    let _follower = Groups::new().follow("records", source.feed()).unwrap();
    source.failed();
    source.asked_again();
    assert_eq!(source.look(|state| state.attempts.clone()), [0, 1, 2, 3, 4], "to connect alone proves nothing");
    // Nor does it to bring a change and break behind it.
    fails(&[Point::Next]);
    source.fail([(Point::NextOfBatch, Fault::Panic); 3]);
    eventually("the first fault", || source.look(|state| state.attempts.len() == 6));
    source.asked_again();
    source.commit([(); 4].map(|()| Change::default()));
    source.settled();
    assert_eq!(source.look(|state| state.attempts[5..].to_vec()), [0, 0, 1, 2]);
}

/// A queue that forgets what it has handed out, and panics when it is asked for the second of a batch.
struct Queue {
    changes: Vec<Change>,
    panics: usize,
}

impl ChangeFeed for Queue {
    type Position = ();
    type Error = String;

    fn connect(&mut self, _after: Option<&()>) -> Result<Connected, String> {
        Ok(Connected::Resumed)
    }

    fn next(&mut self, within: Duration) -> Result<Option<(Change, ())>, String> {
        if within.is_zero() && self.panics > 0 {
            self.panics -= 1;
            panic!("behind a change that was taken");
        }
        Ok(self.changes.pop().map(|change| (change, ())))
    }
}

/// The follower has the change by then, and nobody else does.
#[test]
fn what_was_brought_before_a_panic_is_applied() {
    let cache = records(&Groups::new());
    let queue = Queue { changes: vec![saved([1]), saved([2])], panics: 1 };
    let follower = cache.follow("records", queue).unwrap();
    eventually("both changes are applied", || follower.health().changes == 2);
    assert!(!cache.contains(&1) && !cache.contains(&2));
    assert_eq!(follower.health().errors, 1);
}

#[test]
fn a_panic_in_the_choice_of_a_pause_ends_nothing() {
    let (cache, source) = (records(&Groups::new()), Source::durable());
    source.fail([(Point::Connect, Fault::Error), (Point::Backoff, Fault::Panic)]);
    source.commit([saved([1])]);
    let _follower = cache.follow("records", source.feed()).unwrap();
    source.settled();
    assert!(!cache.contains(&1));
}

#[test]
fn it_stops_while_it_waits_and_while_it_pauses() {
    let cache = records(&Groups::new());
    let waiting = Source::durable();
    let mut follower = cache.follow("waiting", waiting.feed()).unwrap();
    waiting.asked_again();
    assert!(follower.stop(PATIENCE) && waiting.look(|state| state.dropped));

    let pausing = Source::durable();
    pausing.pause(HOUR);
    pausing.fail([(Point::Connect, Fault::Error)]);
    let mut follower = cache.follow("pausing", pausing.feed()).unwrap();
    eventually("it pauses", || follower.health().state == FeedState::Pausing);
    assert!(follower.stop(PATIENCE));
    assert_eq!(pausing.look(|state| state.connected.len()), 1);
    assert!(follower.stop(Duration::ZERO), "it has stopped");
}

#[test]
fn nobody_waits_for_a_feed_that_hangs() {
    let cache = records(&Groups::new());
    let (told, dropped) = (Source::durable(), Source::durable());
    let gates = [told.hang(), dropped.hang()];
    let mut follower = cache.follow("told", told.feed()).unwrap();
    gates[0].reached();
    assert!(!follower.stop(Duration::ZERO));
    let another = cache.follow("dropped", dropped.feed()).unwrap();
    gates[1].reached();
    within_patience("the drop of a follower", move || drop(another));
    gates.iter().for_each(crate::scene::Gate::open);
    assert!(follower.stop(PATIENCE));
    eventually("both threads end", || told.look(|state| state.dropped) && dropped.look(|state| state.dropped));
}

/// Never waits, and tells of each call.
struct Hasty(std::sync::mpsc::Sender<Instant>);

impl ChangeFeed for Hasty {
    type Position = ();
    type Error = String;

    fn connect(&mut self, _after: Option<&()>) -> Result<Connected, String> {
        Ok(Connected::Resumed)
    }

    fn next(&mut self, _within: Duration) -> Result<Option<(Change, ())>, String> {
        // Nobody listens in the end.
        let _ = self.0.send(Instant::now());
        Ok(None)
    }
}

#[test]
fn a_feed_that_never_waits_takes_no_processor_for_itself() {
    let (calls, told) = std::sync::mpsc::channel();
    let _follower = Groups::new().follow("hasty", Hasty(calls)).unwrap();
    let first = told.recv_timeout(PATIENCE).unwrap();
    let last = (0..20).fold(first, |_, _| told.recv_timeout(PATIENCE).unwrap());
    assert!(last - first >= Duration::from_millis(150), "21 calls within {:?}", last - first);
}

#[test]
fn names_are_checked() {
    let follow = |name: &str| Groups::new().follow(name, Source::durable().feed());
    for name in ["", "a\0b", "\u{e9}", "a\nb", &"x".repeat(65)] {
        let error = follow(name).unwrap_err();
        assert!(error.to_string().contains("1 to 64 bytes of printable ASCII"), "{error}");
    }
    follow(&"x".repeat(64)).unwrap();
}
