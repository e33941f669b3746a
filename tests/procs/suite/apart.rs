//! Caches, namespaces and versions that share one memcached, and do not see each other.

use shared::order::{Settings, Shelf};

use crate::crew::Worker;
use crate::scene::Scene;

const KEY: &str = "7";

fn all(worker: &Worker) -> [Option<String>; 3] {
    [Shelf::Texts, Shelf::Notes, Shelf::Numbers].map(|shelf| worker.get(shelf, KEY))
}

fn three(texts: &str, notes: &str, numbers: &str) -> [Option<String>; 3] {
    [texts, notes, numbers].map(|value| Some(value.to_owned()))
}

#[test]
fn caches_of_several_types_share_one_memcached_and_not_their_values() {
    let scene = Scene::new();
    let [one, other] = [(), ()].map(|()| Worker::start(&scene.settings()));
    _ = one.insert(Shelf::Texts, KEY, "text");
    assert_eq!(all(&other), [Some("text".to_owned()), None, None]);
    _ = one.insert(Shelf::Notes, KEY, "note");
    _ = one.insert(Shelf::Numbers, KEY, "42");
    assert_eq!(all(&other), three("text", "note", "42"));
}

#[test]
fn clearing_a_cache_reaches_other_processes_and_no_other_cache() {
    let scene = Scene::new();
    let [one, other] = [(), ()].map(|()| Worker::start(&scene.settings()));
    _ = one.insert(Shelf::Texts, KEY, "text");
    _ = one.insert(Shelf::Notes, KEY, "note");
    _ = one.insert(Shelf::Numbers, KEY, "42");
    assert_eq!(all(&other), three("text", "note", "42"));
    assert_eq!(other.copy(Shelf::Texts, KEY).as_deref(), Some("text"));
    let cleared = one.clear(Shelf::Texts);
    assert_eq!(one.local(Shelf::Texts, KEY), None);
    cleared.wait_until_known();
    assert_eq!(other.local(Shelf::Texts, KEY), None);
    assert_eq!(all(&other), [None, Some("note".to_owned()), Some("42".to_owned())]);
    assert_eq!(all(&one), [None, Some("note".to_owned()), Some("42".to_owned())]);
}

#[test]
fn namespaces_and_versions_share_one_memcached_and_not_their_values() {
    let scene = Scene::new();
    let start = |namespace: &str, version: &str| {
        let (namespace, version) = (namespace.to_owned(), version.to_owned());
        Worker::start(&Settings { namespace, version, ..scene.settings() })
    };
    let deployments = [("shop", "1"), ("shop", "2"), ("blog", "1")];
    let workers = deployments.map(|(namespace, version)| start(namespace, version));
    for (worker, (namespace, version)) in workers.iter().zip(deployments) {
        assert_eq!(all(worker), [None, None, None], "{namespace} {version}");
        _ = worker.insert(Shelf::Texts, KEY, &format!("{namespace} {version}"));
    }
    for (namespace, version) in deployments {
        let seen = start(namespace, version).get(Shelf::Texts, KEY);
        assert_eq!(seen, Some(format!("{namespace} {version}")));
    }
    // And a clear, or a removal, is of one of them alone.
    _ = workers[0].clear(Shelf::Texts);
    _ = workers[1].remove(Shelf::Texts, KEY);
    assert_eq!(start("shop", "1").get(Shelf::Texts, KEY), None);
    assert_eq!(start("shop", "2").get(Shelf::Texts, KEY), None);
    assert_eq!(start("blog", "1").get(Shelf::Texts, KEY).as_deref(), Some("blog 1"));
}
