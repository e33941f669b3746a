//! Spans around what takes time: loads, and calls of the remote tier.
//!
//! They are made on the caller's side and entered whenever it runs, as a thread or as a future, so that they nest in the
//! spans of the user. None names a key: keys are many, and may be secret.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;

use tracing::field::Empty;
use tracing::span::Id;
use tracing::{Span, Value, info_span};

use super::cache::CacheWatch;
use crate::clock::{Clock, Stopwatch};
use crate::sync::{Arc, Mutex};
use crate::task::guarded;

/// The span of a load, kept with the flight that leads it.
///
/// It opens when the loader is first run or polled, and closes when the load has ended in whatever way. Of a batch, the first
/// flight's span is that of all.
#[derive(Default)]
pub(crate) struct LoadSpan(Mutex<State>);

#[derive(Default)]
enum State {
    /// There is no load, or it is over.
    #[default]
    Closed,
    /// The loader is about to run.
    Begun(Begun),
    Open(Arc<Open>),
}

struct Begun {
    cache: CacheWatch,
    stopwatch: Stopwatch,
}

struct Open {
    begun: Begun,
    span: GuardedSpan,
}

/// The span of a load, entered on this thread until this is dropped.
pub(crate) struct EnteredSpan {
    open: Arc<Open>,
    /// It has to be left on the thread that has entered it.
    thread: PhantomData<*const ()>,
}

impl Drop for EnteredSpan {
    fn drop(&mut self) {
        self.open.span.exit();
    }
}

impl LoadSpan {
    /// Begins the load, whose time counts from now on.
    pub(crate) fn begin(&self, cache: &CacheWatch, clock: &Clock) {
        self.set(State::Begun(Begun { cache: cache.clone(), stopwatch: clock.stopwatch() }));
    }

    /// Enters the span, of a load of so many keys, on this thread. `None` where no load has begun.
    pub(crate) fn enter(&self, keys: usize) -> Option<EnteredSpan> {
        let open = match self.set(State::Closed) {
            State::Closed => return None,
            // One thread at a time runs the loader, so that nobody else opens it meanwhile.
            State::Begun(begun) => Arc::new(Open { span: begun.open(keys), begun }),
            State::Open(open) => open,
        };
        self.set(State::Open(open.clone()));
        open.span.enter();
        Some(EnteredSpan { open, thread: PhantomData })
    }

    /// Ends the load, if it has not ended yet, and says how.
    pub(crate) fn end(&self, outcome: &'static str) {
        if let State::Open(open) = self.set(State::Closed) {
            open.span.record("outcome", outcome);
            open.span.record("seconds", open.begun.stopwatch.elapsed().as_secs_f64());
            if outcome == PANICKED {
                open.span.in_scope(|| open.begun.cache.loader_panicked());
            }
        }
    }

    /// Changes the state, and returns the one before, for the caller to look at and drop: subscribers are foreign code, and
    /// are not called under the lock.
    fn set(&self, state: State) -> State {
        std::mem::replace(&mut *self.0.lock(), state)
    }
}

impl fmt::Debug for LoadSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadSpan").finish_non_exhaustive()
    }
}

/// How a load ends whose loader panics.
pub(crate) const PANICKED: &str = "panicked";

impl Begun {
    fn open(&self, keys: usize) -> GuardedSpan {
        let cause = CAUSE.try_with(|cause| cause.borrow().clone()).unwrap_or_default();
        let span = GuardedSpan::new(|| {
            info_span!(
                target: "larder",
                "larder.load",
                cache = &**self.cache.cache(),
                namespace = self.cache.namespace().map(|namespace| &**namespace),
                background = cause.is_some(),
                keys,
                outcome = Empty,
                seconds = Empty,
            )
        });
        if let Some(Cause(Some(id))) = cause {
            span.follows_from(&id);
        }
        span
    }
}

/// A span that goes on without its subscriber where that panics: it is foreign code, and is told of what has to be done in any
/// case, on threads that have more to do.
pub(super) struct GuardedSpan(Span);

impl GuardedSpan {
    pub(super) fn new(make: impl FnOnce() -> Span) -> GuardedSpan {
        GuardedSpan(guarded(make).unwrap_or_else(Span::none))
    }

    /// Runs `work` in the span.
    pub(super) fn in_scope<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Exit<'s>(&'s GuardedSpan);
        impl Drop for Exit<'_> {
            fn drop(&mut self) {
                self.0.exit();
            }
        }
        self.enter();
        let _exit = Exit(self);
        work()
    }

    pub(super) fn record(&self, field: &'static str, value: impl Value) {
        guarded(|| self.0.record(field, value).is_none());
    }

    fn follows_from(&self, cause: &Id) {
        guarded(|| self.0.follows_from(cause).is_none());
    }

    // By hand: a guard of `tracing` would close the span while it unwinds from a panic of `exit`, and a second panic there
    // would end the process.
    fn enter(&self) {
        self.0.with_subscriber(|(id, subscriber)| guarded(|| subscriber.enter(id)));
    }

    fn exit(&self) {
        self.0.with_subscriber(|(id, subscriber)| guarded(|| subscriber.exit(id)));
    }
}

impl Drop for GuardedSpan {
    fn drop(&mut self) {
        let span = std::mem::replace(&mut self.0, Span::none());
        guarded(|| drop(span));
    }
}

thread_local! {
    /// Why loads that begin on this thread run in the background; `None` where they do not.
    static CAUSE: RefCell<Option<Cause>> = const { RefCell::new(None) };
}

/// The span in which a load in the background was begun, which it follows from and does not keep open.
#[derive(Clone)]
struct Cause(Option<Id>);

/// What runs in the background for the caller that made this.
pub(crate) struct Background(Cause);

impl Background {
    /// Notes the caller's span.
    pub(crate) fn new() -> Background {
        Background(Cause(guarded(|| Span::current().id()).flatten()))
    }

    /// Runs `work` as what was begun by the caller.
    pub(crate) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let outer = CAUSE.try_with(|cause| cause.replace(Some(self.0.clone())));
        // Also where `work` panics.
        let _restore = Restore(outer.unwrap_or_default());
        work()
    }

    /// Polls `future` as what was begun by the caller.
    pub(crate) async fn follow<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| self.run(|| future.as_mut().poll(context))).await
    }
}

struct Restore(Option<Cause>);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = CAUSE.try_with(|cause| cause.replace(self.0.take()));
    }
}
