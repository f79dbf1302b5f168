//! A subscriber that keeps the lines of this thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// A line: an event, with the fields of its spans.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// The names of its spans, outermost first.
    pub(crate) spans: Vec<&'static str>,
    fields: Fields,
}

impl Line {
    /// The value of a field; empty if it is missing.
    pub(crate) fn get(&self, field: &str) -> &str {
        self.fields.0.get(field).map_or("", String::as_str)
    }
}

/// Fields, with their values as text.
#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// The lines of this thread, until it is dropped.
pub(crate) struct Recorded {
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

impl Recorded {
    /// Records from now on, on this thread.
    pub(crate) fn start() -> Self {
        Self::start_at(LevelFilter::TRACE)
    }

    /// Records what has at most this level.
    pub(crate) fn start_at(level: LevelFilter) -> Self {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::registry();
        let subscriber = subscriber.with(level).with(lines.clone());
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines so far of this library, and those of the test.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.0.lock().expect("no panic").clone()
    }

    /// The lines with this message.
    pub(crate) fn said(&self, message: &str) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.get("message") == message);
        lines
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = ctx.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let metadata = event.metadata();
        let ours = ["tunnel_", "telemetry"];
        if !ours.iter().any(|name| metadata.target().starts_with(name)) {
            return;
        }
        let mut line = Line {
            level: *metadata.level(),
            spans: Vec::new(),
            fields: Fields::default(),
        };
        for span in ctx
            .event_scope(event)
            .into_iter()
            .flat_map(|s| s.from_root())
        {
            line.spans.push(span.name());
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.fields.0.extend(fields.0.clone());
            }
        }
        event.record(&mut line.fields);
        self.0.lock().expect("no panic").push(line);
    }
}
