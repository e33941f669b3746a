//! One loader across processes, also when it dies.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::clock::{now_ns, ns};
use shared::order::{Loaded, Loading, Order, Report, Shelf};
use shared::truth::loads_of;

use crate::crew::{Task, Worker};
use crate::scene::{LEASE, Scene};
use crate::support::eventually;

const PROCESSES: usize = 4;
const CALLERS: usize = 16;

/// From the order to the moment at which all callers ask, so that they do it together.
const HEAD_START: Duration = Duration::from_millis(300);

/// A load that is killed takes longer, and dies before the holder renews its lease (every third of it).
const LONG_LOAD: Duration = Duration::from_millis(1_500);
const DIES_AFTER: Duration = Duration::from_millis(700);

/// memcached counts whole seconds, losers look again after a pause, and the machine may be busy.
const SLACK: Duration = Duration::from_secs(2);

/// Has all callers of all workers ask for one key at one moment.
fn ask(workers: &[Worker], takes: Duration) -> Vec<Task> {
    let at_ns = now_ns() + ns(HEAD_START);
    let load = |worker: &Worker| Order::Load {
        shelf: Shelf::Texts,
        key: "cold".to_owned(),
        value: format!("by {}", worker.process()),
        callers: CALLERS,
        at_ns,
        loading: Loading::Takes(takes),
    };
    workers.iter().map(|worker| worker.begin(load(worker))).collect()
}

fn answers(task: &Task) -> Vec<Loaded> {
    loop {
        match task.report() {
            Report::Began => {}
            Report::Loaded(answers) => return answers,
            other => panic!("the worker reports {other:?}"),
        }
    }
}

fn loads(scene: &Scene) -> Vec<u32> {
    loads_of(scene.folder.path(), "cold").expect("the loads are noted")
}

#[test]
fn one_load_of_a_cold_key_among_4_processes_x_16_threads() {
    let scene = Scene::new();
    let workers: Vec<_> = (0..PROCESSES).map(|_| Worker::start(&scene.settings())).collect();
    let tasks = ask(&workers, Duration::from_millis(300));
    let answers: Vec<_> = tasks.iter().flat_map(answers).collect();
    assert_eq!(answers.len(), PROCESSES * CALLERS);
    let loads = loads(&scene);
    assert_eq!(loads.len(), 1, "loads by processes {loads:?}");
    let values: BTreeSet<_> = answers.into_iter().map(|answer| answer.value).collect();
    assert_eq!(values, BTreeSet::from([format!("by {}", loads[0])]));
}

#[test]
fn a_loader_that_is_killed_is_replaced_once_after_its_lease() {
    let scene = Scene::new();
    let mut workers: Vec<_> = (0..PROCESSES).map(|_| Worker::start(&scene.settings())).collect();
    let mut tasks = ask(&workers, LONG_LOAD);
    let loader = eventually("a load to begin", || loads(&scene).first().copied());
    let at = workers.iter().position(|worker| worker.process() == loader).expect("one of the workers loads");
    std::thread::sleep(DIES_AFTER);
    workers[at].kill();
    tasks.remove(at);
    let answers: Vec<_> = tasks.iter().flat_map(answers).collect();
    assert_eq!(answers.len(), (PROCESSES - 1) * CALLERS);
    let loads = loads(&scene);
    assert_eq!(loads.len(), 2, "loads by processes {loads:?}, of which {loader} was killed");
    assert_ne!(loads[1], loader);
    let values: BTreeSet<_> = answers.iter().map(|answer| answer.value.clone()).collect();
    assert_eq!(values, BTreeSet::from([format!("by {}", loads[1])]));
    let longest = answers.iter().map(|answer| answer.took).max().unwrap();
    println!("longest wait {longest:.1?}, lease {LEASE:?}, load {LONG_LOAD:?}");
    assert!(longest <= LEASE + LONG_LOAD + SLACK, "a caller waited {longest:?}");
}
