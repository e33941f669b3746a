//! A subscriber that keeps what it is told of spans and events.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// What was told so far, by the threads that it listens to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    spans: Vec<(Id, TracedSpan)>,
    events: Vec<TracedEvent>,
}

type Fields = BTreeMap<&'static str, String>;

#[derive(Clone, Debug)]
pub(crate) struct TracedSpan {
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    pub(crate) fields: Fields,
    /// The name of the span around it.
    pub(crate) parent: Option<&'static str>,
    /// The names of those that it follows from.
    pub(crate) follows: Vec<&'static str>,
    pub(crate) closed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct TracedEvent {
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) fields: Fields,
    /// The name of the span that it happened in.
    pub(crate) span: Option<&'static str>,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log::default()
    }

    /// Runs `work`, and keeps what this thread tells meanwhile.
    pub(crate) fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        // While there is one subscriber alone, `tracing` takes a place in the code that another thread comes by first for one that
        // nobody listens to. So there are two.
        static BESIDE: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));
        let _beside = &*BESIDE;
        tracing::subscriber::with_default(self.subscriber(), work)
    }

    pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        tracing_subscriber::registry().with(self.clone())
    }

    /// Returns the spans of this name, in the order in which they were opened.
    pub(crate) fn spans(&self, name: &str) -> Vec<TracedSpan> {
        let told = self.0.lock().unwrap();
        told.spans.iter().map(|(_, span)| span.clone()).filter(|span| span.name == name).collect()
    }

    pub(crate) fn events(&self) -> Vec<TracedEvent> {
        self.0.lock().unwrap().events.clone()
    }

    /// Returns the level of the first event that says `part`, none of those for who looks for mistakes, and how many there are.
    ///
    /// What happens again within seconds is held back, so that there may be fewer of them than there were occasions.
    pub(crate) fn said(&self, part: &str) -> (Option<Level>, usize) {
        let events =
            self.events().into_iter().filter(|event| event.level <= Level::INFO && event.message.contains(part));
        let levels: Vec<Level> = events.map(|event| event.level).collect();
        (levels.first().copied(), levels.len())
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut TracedSpan)) {
        // The last one: ids are used again.
        if let Some((_, span)) = self.0.lock().unwrap().spans.iter_mut().rfind(|(known, _)| known == id) {
            change(span);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut fields = Fields::new();
        attributes.record(&mut Visitor(&mut fields));
        let traced = TracedSpan {
            name: span.name(),
            level: *span.metadata().level(),
            fields,
            parent: span.parent().map(|parent| parent.name()),
            follows: Vec::new(),
            closed: false,
        };
        self.0.lock().unwrap().spans.push((id.clone(), traced));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _context: Context<'_, S>) {
        self.change(id, |span| values.record(&mut Visitor(&mut span.fields)));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let cause = context.span(follows).map(|span| span.name());
        self.change(id, |span| span.follows.extend(cause));
    }

    fn on_close(&self, id: Id, _context: Context<'_, S>) {
        self.change(&id, |span| span.closed = true);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        let message = fields.remove("message").unwrap_or_default();
        let span = context.event_span(event).map(|span| span.name());
        let level = *event.metadata().level();
        self.0.lock().unwrap().events.push(TracedEvent { level, message, fields, span });
    }
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
