//! What the processes of one test share: a memcached, the truth, and the machine.

use std::fs::File;
use std::time::Duration;

use shared::order::Settings;
use shared::truth::Truth;
use tempfile::TempDir;

use crate::crew::Worker;
use crate::support::memcached::Server;

// The defaults of larder.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);
pub(crate) const TRUST: Duration = Duration::from_millis(500);
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

/// What is no fault of memcached's must not look like one on a machine with many more threads than cores.
const PATIENT: Duration = Duration::from_secs(5);

/// A short one, so that tests which wait it out are short too: the least that larder takes.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) truth: Truth,
    pub(crate) folder: TempDir,
    _turn: Turn,
}

/// A test's turn on this machine, until it is dropped, whether other tests are threads of this process or processes.
struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for it: `alone`, or in company of others that do not need to be alone.
    fn take(alone: bool) -> Turn {
        let file = |path| File::create(path).expect("a file to lock");
        // Whoever waits to be alone keeps all others waiting in line behind itself, or its turn would never come.
        let line = file(concat!(env!("CARGO_TARGET_TMPDIR"), "/line"));
        line.lock().expect("a place in the line");
        let turn = file(concat!(env!("CARGO_TARGET_TMPDIR"), "/turn"));
        if alone { turn.lock() } else { turn.lock_shared() }.expect("this test's turn");
        Turn { _lock: turn }
    }
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene::with_memcached(&[])
    }

    /// For a test whose limits are too close for a machine that does anything else.
    pub(crate) fn alone() -> Scene {
        Scene::set(Turn::take(true), &[])
    }

    /// With further command line options for memcached.
    pub(crate) fn with_memcached(options: &[&str]) -> Scene {
        Scene::set(Turn::take(false), options)
    }

    fn set(turn: Turn, options: &[&str]) -> Scene {
        let folder = tempfile::Builder::new().prefix("larder-procs-").tempdir().expect("a folder");
        let truth = Truth::create(folder.path()).expect("the truth");
        Scene { server: Server::start_with(options), truth, folder, _turn: turn }
    }

    /// Starts three workers: one that acts, one that changes what it does, and one that looks on.
    pub(crate) fn crew(&self) -> Vec<Worker> {
        (0..3).map(|_| Worker::start(&self.settings())).collect()
    }

    /// Returns how workers are set up, unless a test wants it otherwise.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            memcached: self.server.addr().to_string(),
            namespace: "procs".to_owned(),
            version: "1".to_owned(),
            folder: self.folder.path().to_owned(),
            timeout: PATIENT,
            poll_interval: POLL_INTERVAL,
            trust: TRUST,
            lease: LEASE,
        }
    }
}
