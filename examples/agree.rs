//! Processes that agree on what is out of date, shown in one program: two namespaces over one store.
//!
//! `cargo run --release --example agree`

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use larder::{BuildError, Bump, InMemoryRemote, Namespace, RawBytes, TieredCache};

const PATH: &str = "/user/7";
const GROUP: &str = "user:7";

/// How long a process may serve what another has invalidated, even if it is cut off.
const TRUST: Duration = Duration::from_millis(500);

/// How long to wait for what has no bound on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One process of the application, with a local tier and threads of its own.
struct Process {
    namespace: Namespace,
    pages: TieredCache<String, String>,
}

impl Process {
    fn start(store: &InMemoryRemote) -> Result<Process, BuildError> {
        let namespace = Namespace::builder("shop", store.clone()).trust(TRUST).timeout(PATIENCE).build()?;
        let pages = TieredCache::builder(&namespace, "pages").capacity(1_000).codec(RawBytes).build()?;
        Ok(Process { namespace, pages })
    }

    /// Returns the user's page; the database has the user's name by now, whatever the cache thinks.
    fn page(&self, database: &AtomicU32) -> String {
        let page = self.pages.get_or_load(PATH, |load| {
            load.groups([GROUP]);
            Ok::<_, Infallible>(format!("page {}", database.load(Ordering::SeqCst)))
        });
        page.expect("nothing can fail here")
    }

    /// Waits until this process no longer serves `old` from its memory, and returns how long after `since` that was.
    fn stops_serving(&self, old: &str, since: Instant) -> Duration {
        loop {
            let began = since.elapsed();
            if self.pages.local().get(PATH).as_deref() != Some(old) {
                return began;
            }
            assert!(began <= TRUST, "{old} is served {began:?} after it was invalidated");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (store, database) = (InMemoryRemote::new(), AtomicU32::new(1));
    let (writer, reader) = (Process::start(&store)?, Process::start(&store)?);
    assert_eq!((writer.page(&database), reader.page(&database)), ("page 1".into(), "page 1".into()));
    println!("both processes have page 1 in memory");

    database.store(2, Ordering::SeqCst);
    assert!(writer.namespace.invalidate_group(GROUP).is_acknowledged());
    let acknowledged = Instant::now();
    assert_eq!(writer.page(&database), "page 2");
    println!("the writer has invalidated it: acknowledged, and the writer has page 2");
    let took = reader.stops_serving("page 1", acknowledged);
    assert_eq!(reader.page(&database), "page 2");
    println!("the reader stopped serving page 1 after {took:.1?}, and has page 2");

    store.offline(true);
    database.store(3, Ordering::SeqCst);
    let Bump::Pending(receipt) = writer.namespace.invalidate_group(GROUP) else {
        panic!("nobody can have acknowledged")
    };
    let pending = Instant::now();
    assert_eq!((writer.page(&database), writer.namespace.health().pending_bumps), ("page 3".into(), 1));
    println!("the store is offline: an invalidation is pending, and the writer has page 3 all the same");
    let took = reader.stops_serving("page 2", pending);
    assert_eq!(reader.page(&database), "page 3");
    println!("the reader, cut off, stopped trusting page 2 after {took:.1?}, and asked the database");

    assert!(!receipt.is_settled());
    store.offline(false);
    assert!(receipt.wait(PATIENCE), "it was not sent again");
    assert_eq!(writer.namespace.owed(), 0);
    assert_eq!(Process::start(&store)?.page(&database), "page 3");
    println!("the store is back: the invalidation has been sent again, and a new process finds no page 2");

    writer.namespace.shutdown(PATIENCE)?;
    reader.namespace.shutdown(PATIENCE)?;
    Ok(())
}
