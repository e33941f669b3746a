//! A subscriber that panics where a test says so, on all threads of the process.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What a subscriber is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Enabled,
    NewSpan,
    Record,
    Event,
    Enter,
    Exit,
    Close,
    All,
}

impl Method {
    pub(crate) const ALL: [Method; 8] = [
        Method::Enabled,
        Method::NewSpan,
        Method::Record,
        Method::Event,
        Method::Enter,
        Method::Exit,
        Method::Close,
        Method::All,
    ];
}

/// The method to panic in, as one more than its place in [`Method::ALL`]; 0 for none.
static PANICS_IN: AtomicUsize = AtomicUsize::new(0);

/// Runs `test` while the subscriber panics in `method`: on this thread, and on those of all namespaces.
pub(crate) fn with_panics_in(method: Method, test: impl FnOnce()) {
    static TURN: Mutex<()> = Mutex::new(());
    static SET: Once = Once::new();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    SET.call_once(|| tracing::subscriber::set_global_default(Panicking::default()).unwrap());
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            PANICS_IN.store(0, Ordering::SeqCst);
        }
    }
    let _reset = Reset;
    PANICS_IN.store(1 + Method::ALL.iter().position(|known| *known == method).unwrap(), Ordering::SeqCst);
    test();
}

#[derive(Default)]
struct Panicking {
    last_id: AtomicU64,
}

fn called_for(method: Method) {
    let panics_in = PANICS_IN.load(Ordering::SeqCst).checked_sub(1).map(|at| Method::ALL[at]);
    // A span that is there already was made before: all else of it panics with `All`.
    let all = panics_in == Some(Method::All) && method != Method::NewSpan && method != Method::Enabled;
    assert!(!all && panics_in != Some(method), "as the test wants it: {method:?}");
}

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        called_for(Method::Enabled);
        metadata.target() == "larder"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        called_for(Method::NewSpan);
        Id::from_u64(1 + self.last_id.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        called_for(Method::Record);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {
        called_for(Method::Record);
    }

    fn event(&self, _: &Event<'_>) {
        called_for(Method::Event);
    }

    fn enter(&self, _: &Id) {
        called_for(Method::Enter);
    }

    fn exit(&self, _: &Id) {
        called_for(Method::Exit);
    }

    fn try_close(&self, _: Id) -> bool {
        called_for(Method::Close);
        false
    }
}
