//! Foreign code that panics on the threads of a namespace: subscribers, stores, codecs, wakers. Each thread goes on.
#![cfg(all(feature = "tiered", feature = "tracing"))]

mod subscriber;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use larder::{
    Action, Codec, CodecError, CodecId, Command, InMemoryRemote, Namespace, NamespaceBuilder, RawBytes, RemoteError,
    RemoteTier, Reply, Route, TieredCache, WireKey, Write, WriteMode,
};

use self::subscriber::{Method, with_panics_in};

/// How long a test waits for what must come; on any machine, longer than it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that panics on the threads whose names begin as a test says.
#[derive(Clone)]
struct Store {
    memory: InMemoryRemote,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    panics_on: Mutex<Option<&'static str>>,
    panics: AtomicU64,
    /// Renewals of leases.
    touches: AtomicU64,
}

impl Store {
    fn new() -> Store {
        Store { memory: InMemoryRemote::new(), script: Arc::default() }
    }

    /// Has the store panic on some threads from here on.
    fn panic_on(&self, threads: Option<&'static str>) {
        *self.script.panics_on.lock().unwrap() = threads;
    }

    fn panics(&self) -> u64 {
        self.script.panics.load(Ordering::SeqCst)
    }

    fn act(&self) {
        let threads = *self.script.panics_on.lock().unwrap();
        let name = std::thread::current().name().map(str::to_owned).unwrap_or_default();
        if threads.is_some_and(|threads| name.starts_with(threads)) {
            self.script.panics.fetch_add(1, Ordering::SeqCst);
            panic!("as the test wants it");
        }
    }
}

impl RemoteTier for Store {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        self.act();
        let touches = batch.iter().filter(|command| matches!(command.action, Action::Get { touch: Some(_), .. }));
        self.script.touches.fetch_add(touches.count() as u64, Ordering::SeqCst);
        self.memory.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.memory.max_value_len()
    }

    // Two, of which only the first is used, so that it is asked where things go.
    fn servers(&self) -> usize {
        2
    }

    fn server_of(&self, _: &WireKey, _: Route) -> usize {
        self.act();
        0
    }
}

fn namespace(store: &Store) -> NamespaceBuilder {
    Namespace::builder("panics", store.clone())
        .timeout(PATIENCE)
        .poll_interval(Duration::from_millis(5))
        .trust(PATIENCE)
}

type Pages = TieredCache<String, String>;

fn pages(namespace: &Namespace) -> Pages {
    TieredCache::builder(namespace, "pages").capacity(100).codec(RawBytes).build().unwrap()
}

fn own(text: &str) -> String {
    text.to_owned()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whatever a subscriber panics in, calls of threads and of tasks, loads and news from elsewhere go on as without it.
#[test]
fn a_subscriber_that_panics_ends_no_call_and_no_thread() {
    for method in Method::ALL {
        with_panics_in(method, || {
            let store = Store::new();
            let (here, elsewhere) = (namespace(&store).build().unwrap(), namespace(&store).build().unwrap());
            let (here, elsewhere) = (pages(&here), pages(&elsewhere));
            assert!(here.insert(own("a"), own("1")).is_through(), "{method:?}");
            assert!(block_on(here.insert_async(own("b"), own("1"))).is_through(), "{method:?}");
            let load = || Ok::<_, ()>(own("1"));
            assert_eq!(elsewhere.get_or_load("c", |_| load()).unwrap(), "1", "{method:?}");
            assert_eq!(block_on(elsewhere.get_or_load_async("d", async |_| load())).unwrap(), "1", "{method:?}");
            // Of an exchange that fails there is something to tell, on the thread that makes it.
            store.panic_on(Some("larder-io"));
            let lost = block_on(here.insert_async(own("b"), own("2")));
            let Write::LocalOnly(_, receipt) = lost else { panic!("{method:?}: {lost:?}") };
            store.panic_on(None);
            assert!(receipt.wait(PATIENCE), "{method:?}");
            assert!(block_on(here.insert_async(own("b"), own("3"))).is_through(), "{method:?}");
            // And of the thread that follows the journal.
            let before = store.panics();
            store.panic_on(Some("larder-poll"));
            eventually("both followers have failed", || store.panics() > before + 3);
            store.panic_on(None);
            assert!(here.insert(own("c"), own("2")).is_through(), "{method:?}");
            eventually("the news are heard", || elsewhere.local().peek("c").is_none());
        });
    }
}

/// The deletion is owed: the thread of the outbox finds a store that panics, tells of it, and tries again.
#[test]
fn the_outbox_outlives_a_store_that_panics_and_a_subscriber_that_does() {
    with_panics_in(Method::Event, || {
        let store = Store::new();
        let pages = pages(&namespace(&store).build().unwrap());
        store.memory.offline(true);
        store.panic_on(Some("larder-outbox"));
        let larder::Bump::Pending(receipt) = pages.remove("k") else { panic!("nothing can be acknowledged") };
        eventually("the outbox tries", || store.panics() > 0);
        store.memory.offline(false);
        store.panic_on(None);
        assert!(receipt.wait(PATIENCE));
    });
}

/// Text, whose encoding panics where it says so.
struct Fragile;

impl Codec<String> for Fragile {
    fn id(&self) -> CodecId {
        CodecId::custom::<0>()
    }
    fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
        assert_ne!(value, "panic", "as the test wants it");
        RawBytes.encode(value, out)
    }
    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        RawBytes.decode(bytes)
    }
}

#[test]
fn the_queue_of_writes_outlives_a_codec_that_panics_and_a_subscriber_that_does() {
    with_panics_in(Method::Event, || {
        let namespace = namespace(&Store::new()).write_mode(WriteMode::Behind { queue: 9 }).build().unwrap();
        let pages: Pages = TieredCache::builder(&namespace, "pages").capacity(9).codec(Fragile).build().unwrap();
        for (key, text) in [("a", "panic"), ("b", "text")] {
            let Write::Queued(receipt) = pages.insert(own(key), own(text)) else { panic!("it is not queued") };
            // The first settles with the deletion that it leaves behind.
            assert!(receipt.wait(PATIENCE), "{text}");
        }
    });
}

/// A store is asked where the commands of a renewal go, and may panic then.
#[test]
fn the_thread_that_renews_leases_outlives_a_store_that_panics() {
    let store = Store::new();
    let pages = pages(&namespace(&store).lease(Duration::from_secs(3)).build().unwrap());
    store.panic_on(Some("larder-lease"));
    let loaded = pages.get_or_load("k", |_| {
        eventually("a renewal fails", || store.panics() > 0);
        store.panic_on(None);
        eventually("the lease is renewed", || store.script.touches.load(Ordering::SeqCst) > 0);
        Ok::<_, ()>(own("1"))
    });
    assert_eq!(loaded.unwrap(), "1");
}

/// A waker that counts how often it has panicked.
#[derive(Default)]
struct Panics(AtomicU64);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("as the test wants it");
    }
}

/// All timers of a process wait on one thread, which nobody starts again.
#[test]
fn a_waker_that_panics_stops_no_timer() {
    let cache = larder::Cache::builder().capacity(10).load_wait(Duration::from_millis(50)).build().unwrap();
    let larder::Lookup::Vacant(_claim) = cache.lookup(&1) else { panic!("it is vacant") };
    let wait = || Box::pin(cache.get_or_load_async(&1, async |_| Ok::<u32, ()>(1)));
    let (panics, mut first) = (Arc::new(Panics::default()), wait());
    assert!(first.as_mut().poll(&mut Context::from_waker(&Waker::from(panics.clone()))).is_pending());
    eventually("the first timer rings", || panics.0.load(Ordering::SeqCst) > 0);
    assert_eq!(block_on(wait()).unwrap_err().kind(), larder::LoadErrorKind::TimedOut);
}

/// Of several futures that wait for one load, the first to be woken panics in its waker.
#[test]
fn a_waker_that_panics_keeps_the_news_from_nobody() {
    #[derive(Default)]
    struct Told(AtomicU64);
    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let cache = larder::Cache::<u32, u32>::new(10);
    let told = Arc::new(Told::default());
    let wait = || Box::pin(cache.get_or_load_async(&1, async |_| Err::<u32, ()>(())));
    let (mut first, mut second) = (wait(), wait());
    let loaded = cache.get_or_load(&1, |_| {
        // Elsewhere: on this thread the load would wait for itself.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let panics = Waker::from(Arc::new(Panics::default()));
                assert!(first.as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
                assert!(second.as_mut().poll(&mut Context::from_waker(&Waker::from(told.clone()))).is_pending());
            });
        });
        Ok::<_, ()>(7)
    });
    assert_eq!((loaded.unwrap(), told.0.load(Ordering::SeqCst)), (7, 1));
    assert_eq!(block_on(second).unwrap(), 7);
}
