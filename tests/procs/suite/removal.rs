//! `remove` in one process at the three moments of a load in another: always a cleared cache, in every local tier and
//! remotely.

use shared::order::Shelf::Texts;

use crate::crew::Worker;
use crate::scene::Scene;
use crate::script::Acknowledged;

const KEY: &str = "key";

/// Fails unless every process gets the value, and has it in its local tier then: or its removal would show nothing.
fn expect_everywhere(workers: &[Worker], value: &str) {
    for worker in workers {
        assert_eq!(worker.copy(Texts, KEY).as_deref(), Some(value));
    }
}

/// Fails unless the key is gone remotely, and from all local tiers when the bound has passed.
fn expect_cleared(scene: &Scene, workers: &[Worker], removed: Acknowledged) {
    assert_eq!(Worker::start(&scene.settings()).get(Texts, KEY), None, "the remote tier");
    removed.wait_until_known();
    for worker in workers {
        assert_eq!(worker.local(Texts, KEY), None, "a local tier");
        assert_eq!(worker.get(Texts, KEY), None);
    }
}

#[test]
fn a_removal_before_the_claim_clears_what_was_there() {
    let scene = Scene::new();
    let workers = scene.crew();
    assert_eq!(workers[0].load_now(Texts, KEY, "old"), "old");
    expect_everywhere(&workers, "old");
    let removed = workers[1].remove(Texts, KEY);
    expect_cleared(&scene, &workers, removed);
    assert_eq!(workers[0].load_now(Texts, KEY, "new"), "new");
    expect_everywhere(&workers, "new");
}

#[test]
fn a_removal_between_claim_and_fill_fences_the_fill() {
    let scene = Scene::new();
    let workers = scene.crew();
    let load = workers[0].load(Texts, KEY, "old");
    let removed = workers[1].remove(Texts, KEY);
    assert_eq!(workers[0].finish(&load), "old", "whoever asked before the removal gets it all the same");
    expect_cleared(&scene, &workers, removed);
}

#[test]
fn a_load_that_a_removal_has_fenced_does_not_disturb_a_later_one() {
    let scene = Scene::new();
    let workers = scene.crew();
    let overtaken = workers[0].load(Texts, KEY, "old");
    let removed = workers[1].remove(Texts, KEY);
    assert_eq!(workers[2].load_now(Texts, KEY, "new"), "new");
    assert_eq!(workers[0].finish(&overtaken), "old");
    removed.wait_until_known();
    assert_eq!(Worker::start(&scene.settings()).get(Texts, KEY).as_deref(), Some("new"));
    expect_everywhere(&workers, "new");
}

#[test]
fn a_removal_after_the_fill_clears_it_everywhere() {
    let scene = Scene::new();
    let workers = scene.crew();
    assert_eq!(workers[0].load_now(Texts, KEY, "old"), "old");
    expect_everywhere(&workers, "old");
    let removed = workers[2].remove(Texts, KEY);
    expect_cleared(&scene, &workers, removed);
}
