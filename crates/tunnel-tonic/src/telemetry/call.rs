//! The span and the metrics of one call.

use std::time::Instant;

use tracing::Span;
use tracing::field::Empty;
use tunnel_core::{Code, Side};

use super::{Telemetry, is_server_error};
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

/// Makes the span of a call. The kinds are constants, because the metadata of spans is.
macro_rules! call_span {
    ($parent:expr, $kind:literal, $telemetry:expr, $path:expr) => {{
        let (service, method) = $path.rsplit_once('/').unwrap_or(("", $path));
        let info = &$telemetry.info;
        tracing::debug_span!(
            target: "tunnel_tonic::call",
            parent: $parent,
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

impl CallTelemetry {
    /// A call begins. A caller's span is a child of the current span. A handler's span has no parent here:
    /// that is at the caller's end, and a layer can set it from the metadata of the call.
    pub(crate) fn new(telemetry: &Telemetry, side: Side, path: &str) -> Self {
        let span = match tracing::enabled!(target: "tunnel_tonic::call", tracing::Level::DEBUG) {
            false => Span::none(),
            true => {
                let path = path.strip_prefix('/').unwrap_or(path);
                match side {
                    Side::Caller => {
                        let parent = Span::current();
                        call_span!(&parent, "client", telemetry, path)
                    }
                    Side::Handler => call_span!(None, "server", telemetry, path),
                }
            }
        };
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
