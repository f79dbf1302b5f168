//! The span and the metrics of one call.

use std::time::Instant;

use http::HeaderMap;
use tracing::Span;
use tracing::field::Empty;
use tunnel_core::{Code, Side};

use super::{InjectTrace, Telemetry, catch_panic, is_server_error};
use crate::info::AffinityKey;

/// The span of a call, and when the call began.
#[derive(Debug)]
pub(crate) struct CallTelemetry {
    side: Side,
    span: Span,
    /// `None` if nobody asks for the time, and after the end.
    started: Option<Instant>,
    finished: bool,
}

/// Makes the span of a call. Level and kind are constants, because the metadata of spans is.
macro_rules! call_span {
    ($level:ident, $parent:expr, $kind:literal, $telemetry:expr, $path:expr) => {{
        let (service, method) = $path.rsplit_once('/').unwrap_or(("", $path));
        let info = &$telemetry.info;
        tracing::span!(
            target: "tunnel_tonic::call",
            parent: $parent,
            tracing::Level::$level,
            "call",
            otel.name = $path,
            otel.kind = $kind,
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = Empty,
            tunnel.id = info.shared_id(),
            tunnel.key = info.key().map(AffinityKey::as_str),
        )
    }};
}

/// The span of a call: at `info` if the call is part of a trace, otherwise at `debug`.
///
/// A caller's span is a child of the current span. A handler's span has no parent here: that is at the
/// caller's end.
fn span_of(telemetry: &Telemetry, side: Side, path: &str, traced: bool) -> Span {
    let path = path.strip_prefix('/').unwrap_or(path);
    let current = Span::current;
    match (side, traced) {
        (Side::Caller, true) => call_span!(INFO, &current(), "client", telemetry, path),
        (Side::Caller, false) => call_span!(DEBUG, &current(), "client", telemetry, path),
        (Side::Handler, true) => call_span!(INFO, None, "server", telemetry, path),
        (Side::Handler, false) => call_span!(DEBUG, None, "server", telemetry, path),
    }
}

/// The span of a call that is about to be made and the metadata that the hook of its tunnel adds to it; `None`
/// without a hook.
pub(crate) fn injected(telemetry: &Telemetry, path: &str) -> Option<(Span, HeaderMap)> {
    let InjectTrace(inject) = telemetry.inject.get()?;
    let span = span_of(telemetry, Side::Caller, path, true);
    let mut added = HeaderMap::new();
    catch_panic("inject_trace", || inject(&span, &mut added));
    Some((span, added))
}

impl CallTelemetry {
    /// A call begins, in the span that was made for it or in a new one.
    pub(crate) fn of_caller(telemetry: &Telemetry, path: &str, span: Option<Span>) -> Self {
        let span = span.unwrap_or_else(|| span_of(telemetry, Side::Caller, path, false));
        Self::new(telemetry, Side::Caller, span)
    }

    /// A call begins; `traced` if its parent is in its metadata.
    pub(crate) fn of_handler(telemetry: &Telemetry, path: &str, traced: bool) -> Self {
        let span = span_of(telemetry, Side::Handler, path, traced);
        Self::new(telemetry, Side::Handler, span)
    }

    fn new(telemetry: &Telemetry, side: Side, span: Span) -> Self {
        let metrics = telemetry
            .metrics()
            .is_some_and(|metrics| metrics.call_started());
        let started = (metrics || !span.is_disabled()).then(Instant::now);
        Self {
            side,
            span,
            started,
            finished: false,
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// The call has ended. Only the first end counts.
    pub(crate) fn finish(&mut self, telemetry: &Telemetry, code: Code) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let Some(started) = self.started else {
            return;
        };
        let duration = started.elapsed();
        if let Some(metrics) = telemetry.metrics() {
            metrics.call_finished(code, duration);
        }
        let span = std::mem::replace(&mut self.span, Span::none());
        if span.is_disabled() {
            return;
        }
        span.record("rpc.grpc.status_code", code as i64);
        let is_error = match self.side {
            Side::Caller => code != Code::Ok,
            Side::Handler => is_server_error(code),
        };
        if is_error {
            span.record("otel.status_code", "ERROR");
        }
        tracing::debug!(
            target: "tunnel_tonic::call",
            parent: &span,
            duration_ms = duration.as_secs_f64() * 1e3,
            "call finished"
        );
    }
}
