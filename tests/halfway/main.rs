//! Calls that are dropped, overtaken or cut off half-way, on a store that lets a test in between two exchanges.
#![cfg(feature = "tiered")]

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../it/tiered/gate.rs"]
mod gate;
mod leases;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use larder::{Namespace, NamespaceBuilder, RawBytes, TieredCache, TieredCacheBuilder};

use self::gate::Gate;

/// What the gate needs of the tests that it was made for.
mod support {
    pub(crate) use super::PATIENCE;
}

/// How long a test waits for what must come; on any machine, longer than it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Far from every deadline that a test does not move.
const HOUR: Duration = Duration::from_secs(3_600);

type Pages = TieredCache<String, String>;

/// Returns a process whose thread that follows the journal has had its first look, and its last one for the time of a test.
fn process(gate: &Gate, set: impl FnOnce(NamespaceBuilder) -> NamespaceBuilder) -> Pages {
    let look = gate.next_look();
    let builder = Namespace::builder("halfway", gate.clone()).poll_interval(HOUR).trust(1_000 * HOUR).timeout(PATIENCE);
    let namespace = set(builder).build().unwrap();
    look.wait();
    eventually("the journal is heard", || namespace.poll_now().is_ok() && !namespace.health().trust_left.is_zero());
    pages(&namespace, |pages| pages)
}

fn pages(
    namespace: &Namespace,
    set: impl FnOnce(TieredCacheBuilder<String, String>) -> TieredCacheBuilder<String, String>,
) -> Pages {
    let builder = TieredCache::builder(namespace, "pages").capacity(1_000).soft_ttl(HOUR).codec(RawBytes);
    set(builder).build().unwrap()
}

/// Waits until a condition holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A call that has begun, for whoever drops it.
struct Begun(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Begun {
    /// Polls a call once, which is not over by that.
    fn new(call: impl Future<Output = ()> + Send + 'static) -> Begun {
        let mut call = Box::pin(call);
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it is over");
        Begun(Mutex::new(Some(call)))
    }

    fn drop_it(&self) {
        let call = self.0.lock().unwrap().take();
        drop(call.expect("dropped once"));
    }
}

fn own(text: &str) -> String {
    text.to_owned()
}
