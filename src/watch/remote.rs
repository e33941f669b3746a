//! What is told of exchanges with the remote tier, and when a namespace's figures are published.

use std::future::Future;
#[cfg(feature = "tracing")]
use std::future::poll_fn;
#[cfg(feature = "tracing")]
use std::pin::pin;
#[cfg(feature = "metrics")]
use std::time::{Duration, Instant};

#[cfg(feature = "metrics")]
use metrics::Label;
#[cfg(feature = "tracing")]
use tracing::{Level, field::Empty, span};

#[cfg(feature = "metrics")]
use super::figures::{EXCHANGE_COMMANDS, EXCHANGE_SECONDS, record, tell};
#[cfg(feature = "metrics")]
use super::publish::publish_namespace;
#[cfg(feature = "tracing")]
use super::spans::GuardedSpan;
#[cfg(feature = "metrics")]
use crate::clock::{Deadline, real};
use crate::namespace::core::Core;
use crate::remote::batch::Answers;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::remote::error::RemoteErrorKind;
use crate::remote::request::Request;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::remote::tier::Action;
use crate::remote::tier::{Command, ServerHealth};
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::sync::Arc;

/// How often a namespace publishes the figures of its caches: as often as the quickest scrapers come.
#[cfg(feature = "metrics")]
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Who uses a way to the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct WayWatch {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    namespace: Arc<str>,
    /// Whether it is that of the thread that follows the journal, whose exchanges are told apart from those of callers.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    follows: bool,
}

/// One server, as who uses a way to it is told of it.
#[derive(Clone, Debug)]
pub(crate) struct LaneWatch {
    #[cfg(feature = "metrics")]
    way: WayWatch,
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    server: Arc<str>,
}

/// An exchange that has begun.
#[must_use = "what is told of an exchange is how it ended"]
pub(crate) struct ExchangeWatch<'a> {
    #[cfg(feature = "metrics")]
    begun: (Instant, &'static str, usize),
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "there is nobody to tell"))]
    lane: &'a LaneWatch,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl WayWatch {
    pub(crate) fn new(namespace: &str, follows: bool) -> WayWatch {
        WayWatch { namespace: namespace.into(), follows }
    }

    /// Returns what commands are for, in one word.
    pub(super) fn operation<'c>(&self, mut commands: impl Iterator<Item = Command<'c>>) -> &'static str {
        if self.follows {
            return "journal";
        }
        let kind = |command: Command<'_>| match command.action {
            Action::Get { .. } => "get",
            Action::Touch { .. } => "touch",
            Action::Set { .. } => "set",
            Action::Delete { .. } => "delete",
            Action::MarkStale { .. } => "expire",
            Action::Increment { .. } | Action::Decrement { .. } => "count",
        };
        let first = commands.next().map_or("none", kind);
        if commands.all(|command| kind(command) == first) { first } else { "mixed" }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl LaneWatch {
    pub(crate) fn new(way: &WayWatch, servers: &[ServerHealth], server: usize) -> LaneWatch {
        let server =
            servers.get(server).map_or_else(|| server.to_string().into(), |known| known.address.as_str().into());
        #[cfg(not(feature = "metrics"))]
        let _ = way;
        LaneWatch {
            #[cfg(feature = "metrics")]
            way: way.clone(),
            server,
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn server(&self) -> &Arc<str> {
        &self.server
    }
}

#[cfg(not(any(feature = "metrics", feature = "tracing")))]
impl WayWatch {
    pub(crate) fn new(_namespace: &str, _follows: bool) -> WayWatch {
        WayWatch {}
    }
}

#[cfg(not(any(feature = "metrics", feature = "tracing")))]
impl LaneWatch {
    pub(crate) fn new(_way: &WayWatch, _servers: &[ServerHealth], _server: usize) -> LaneWatch {
        LaneWatch {}
    }
}

impl LaneWatch {
    /// Begins an exchange.
    #[cfg(feature = "metrics")]
    pub(crate) fn exchange(&self, commands: &[Command<'_>]) -> ExchangeWatch<'_> {
        let operation = self.way.operation(commands.iter().copied());
        ExchangeWatch { begun: (real::now(), operation, commands.len()), lane: self }
    }

    #[cfg(not(feature = "metrics"))]
    #[inline]
    pub(crate) fn exchange(&self, _commands: &[Command<'_>]) -> ExchangeWatch<'_> {
        ExchangeWatch { lane: self }
    }
}

impl ExchangeWatch<'_> {
    /// Ends the exchange with what came of it.
    #[cfg(feature = "metrics")]
    pub(crate) fn end(self, answers: &Answers) {
        let (begun, operation, commands) = self.begun;
        let took = real::now().saturating_duration_since(begun);
        let LaneWatch { way, server } = self.lane;
        let lane = || vec![Label::new("namespace", way.namespace.clone()), Label::new("server", server.clone())];
        let mut labels = lane();
        labels.push(Label::from_static_parts("operation", operation));
        labels.push(Label::from_static_parts("outcome", outcome(answers)));
        record(&EXCHANGE_SECONDS, labels, took.as_secs_f64());
        record(&EXCHANGE_COMMANDS, lane(), commands as f64);
    }

    #[cfg(not(feature = "metrics"))]
    #[inline]
    pub(crate) fn end(self, _answers: &Answers) {}
}

/// Returns how an exchange ended, in one word: that of its first failure, if there is one.
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(super) fn outcome(answers: &Answers) -> &'static str {
    match answers.iter().find_map(|answer| answer.as_ref().err()).map(crate::RemoteError::kind) {
        None => "ok",
        Some(RemoteErrorKind::Unavailable) => "unavailable",
        Some(RemoteErrorKind::TimedOut) => "timed_out",
        Some(RemoteErrorKind::Interrupted) => "interrupted",
        Some(RemoteErrorKind::Protocol) => "protocol",
        Some(RemoteErrorKind::Refused) => "refused",
        Some(RemoteErrorKind::TooLarge) => "too_large",
        Some(RemoteErrorKind::Codec) => "codec",
        Some(RemoteErrorKind::Config) => "config",
    }
}

/// Returns the one server that all parts of a call go to, which are several where they insist on different connections.
#[cfg(feature = "tracing")]
fn one_of<'s>(mut servers: impl Iterator<Item = &'s str>) -> Option<&'s str> {
    let first = servers.next()?;
    servers.all(|other| other == first).then_some(first)
}

/// A call of the remote tier, of one exchange or more.
pub(crate) struct CallWatch {
    #[cfg(feature = "tracing")]
    span: GuardedSpan,
}

impl WayWatch {
    /// Begins a call: what goes to which server.
    #[cfg(feature = "tracing")]
    pub(crate) fn call<'r>(
        &self,
        shares: &(impl Iterator<Item = (&'r LaneWatch, &'r [Request])> + Clone),
    ) -> CallWatch {
        let requests = || shares.clone().flat_map(|(_, requests)| requests);
        let server = one_of(shares.clone().map(|(lane, _)| &*lane.server)).unwrap_or("several");
        let operation = self.operation(requests().map(Request::command));
        let commands = requests().count();
        let namespace = &*self.namespace;
        macro_rules! call {
            ($level:expr) => {
                span!(target: "larder", $level, "larder.exchange", namespace, server, operation, commands, outcome = Empty)
            };
        }
        // Some twenty a second of each process, for all that the others do.
        CallWatch { span: GuardedSpan::new(|| if self.follows { call!(Level::TRACE) } else { call!(Level::DEBUG) }) }
    }

    #[cfg(not(feature = "tracing"))]
    #[inline]
    pub(crate) fn call<'r>(
        &self,
        _shares: &(impl Iterator<Item = (&'r LaneWatch, &'r [Request])> + Clone),
    ) -> CallWatch {
        CallWatch {}
    }
}

impl CallWatch {
    /// Sees a call to its end.
    #[cfg(feature = "tracing")]
    pub(crate) async fn follow(self, call: impl Future<Output = Answers>) -> Answers {
        let mut call = pin!(call);
        let answers = poll_fn(|context| self.span.in_scope(|| call.as_mut().poll(context))).await;
        self.span.record("outcome", outcome(&answers));
        answers
    }

    #[cfg(not(feature = "tracing"))]
    #[inline]
    pub(crate) fn follow<F: Future<Output = Answers>>(self, call: F) -> F {
        call
    }
}

/// Publishes the figures of a namespace now and then.
#[derive(Default)]
pub(crate) struct Publisher {
    #[cfg(feature = "metrics")]
    due: Option<Deadline>,
}

impl Publisher {
    /// Publishes what there is to publish, if it is time.
    #[cfg(feature = "metrics")]
    pub(crate) fn turn(&mut self, core: &Core) {
        let now = core.clock.now();
        if self.due.is_some_and(|due| !due.has_passed(now)) {
            return;
        }
        self.due = Some(Deadline::after(now, PUBLISH_EVERY));
        tell(|| publish_namespace(core));
    }

    #[cfg(not(feature = "metrics"))]
    #[inline]
    pub(crate) fn turn(&mut self, _core: &Core) {}
}

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_call_may_go_to_one_server() {
        assert_eq!(one_of(["a"].into_iter()), Some("a"));
        assert_eq!(one_of(["a", "a"].into_iter()), Some("a"));
        assert_eq!(one_of(["a", "b", "a"].into_iter()), None);
        assert_eq!(one_of([].into_iter()), None);
    }
}
