//! What else than removals and bumps reaches the local tiers of other processes.

use shared::order::Shelf::Texts;

use crate::scene::Scene;

const KEY: &str = "key";

#[test]
fn an_insert_replaces_the_copies_of_others() {
    let scene = Scene::new();
    let workers = scene.crew();
    workers[0].insert(Texts, KEY, "old").wait_until_known();
    for worker in &workers {
        assert_eq!(worker.get(Texts, KEY).as_deref(), Some("old"));
    }
    workers[1].insert(Texts, KEY, "new").wait_until_known();
    for worker in &workers {
        assert_eq!(worker.get(Texts, KEY).as_deref(), Some("new"));
    }
}

#[test]
fn an_expired_key_is_refreshed_by_whoever_asks_next() {
    let scene = Scene::new();
    let workers = scene.crew();
    workers[0].insert(Texts, KEY, "old").wait_until_known();
    for worker in &workers {
        assert_eq!(worker.get(Texts, KEY).as_deref(), Some("old"));
    }
    workers[1].expire(Texts, KEY).wait_until_known();
    // Served for want of anything better, and not taken for fresh by who can load.
    assert_eq!(workers[2].get(Texts, KEY).as_deref(), Some("old"));
    assert_eq!(workers[2].load_now(Texts, KEY, "new"), "new");
}
