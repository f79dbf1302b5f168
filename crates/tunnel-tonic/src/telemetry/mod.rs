//! What operators see of tunnels and their calls: log lines, spans and metrics.
//!
//! - `info` tells when a tunnel opens, drains and closes, each in the tunnel's span. A call logs
//!   nothing at this level.
//! - `debug` adds a span for each call, and a line when it has finished. The targets are
//!   `tunnel_tonic::tunnel` and `tunnel_tonic::call`.
//! - Metrics are recorded with the feature `metrics`; the repository's `docs/METRICS.md` lists them.
//!
//! No subscriber and no recorder is called under a lock: they are user code.

mod call;
#[cfg_attr(not(feature = "metrics"), path = "no_metrics.rs")]
mod metrics;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::HeaderMap;
use tracing::Span;
use tracing::field::Empty;
use tunnel_core::{Code, ConnectionError, EndReason, Report, Stats};

use crate::info::{NetworkRole, TunnelInfo};

pub(crate) use call::{CallTelemetry, injected};
pub(crate) use metrics::{BudgetMetrics, TunnelMetrics, not_sent};
pub use metrics::{backing_off, describe_metrics, not_opened, reconnecting};

/// Called with the span of a call that is made and the metadata to send with it; from
/// [`Tunnel::inject_trace`](crate::Tunnel::inject_trace). Cheap to clone.
#[derive(Clone)]
pub struct InjectTrace(Arc<Inject>);

type Inject = dyn Fn(&Span, &mut HeaderMap) + Send + Sync;

impl InjectTrace {
    /// Calls this function.
    pub fn new(inject: impl Fn(&Span, &mut HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(inject))
    }
}

impl fmt::Debug for InjectTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectTrace").finish_non_exhaustive()
    }
}

/// The telemetry of one tunnel.
#[derive(Debug)]
pub(crate) struct Telemetry {
    info: TunnelInfo,
    role: NetworkRole,
    span: Span,
    by_key: AtomicBool,
    /// Whether the tunnel is open only when the peer routes calls to it.
    waits: AtomicBool,
    inject: OnceLock<InjectTrace>,
    /// Set when the tunnel is started.
    metrics: OnceLock<TunnelMetrics>,
    /// When the tunnel took its first calls.
    opened: OnceLock<Instant>,
}

impl Telemetry {
    pub(crate) fn new(info: TunnelInfo, role: NetworkRole) -> Self {
        let span = tracing::info_span!(
            target: "tunnel_tonic::tunnel",
            parent: None,
            "tunnel",
            tunnel.id = info.shared_id(),
            tunnel.direction = info.direction().name(),
            tunnel.role = role.name(),
            tunnel.key = Empty,
            tunnel.peer = Empty,
        );
        if role == NetworkRole::Server {
            describe(&span, &info);
        }
        Self {
            info,
            role,
            span,
            by_key: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            inject: OnceLock::new(),
            metrics: OnceLock::new(),
            opened: OnceLock::new(),
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Labels the metrics of the tunnel with its key. Must be called before the tunnel is started.
    pub(crate) fn label_by_key(&self) {
        self.by_key.store(true, Ordering::Relaxed);
    }

    /// The tunnel is started: the far end has accepted it.
    /// `waits` if the peer announces when it routes calls, and the tunnel counts as open from then on.
    pub(crate) fn start(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
        if self.role == NetworkRole::Client {
            describe(&self.span, &self.info);
        }
        let by_key = self.by_key.load(Ordering::Relaxed);
        self.metrics
            .get_or_init(|| TunnelMetrics::new(&self.info, self.role, by_key));
    }

    pub(crate) fn metrics(&self) -> Option<&TunnelMetrics> {
        self.metrics.get()
    }

    pub(crate) fn inject_trace(&self, inject: InjectTrace) {
        // A second one is dropped, as documented.
        let _ = self.inject.set(inject);
    }

    /// The tunnel is negotiated.
    pub(crate) fn ready(&self) {
        if !self.waits.load(Ordering::Relaxed) {
            self.opened();
        }
    }

    /// The tunnel takes calls.
    pub(crate) fn opened(&self) {
        if self.opened.set(Instant::now()).is_ok() {
            tracing::info!(target: "tunnel_tonic::tunnel", parent: &self.span, "tunnel open");
            if let Some(metrics) = self.metrics() {
                metrics.opened();
            }
        }
    }

    /// The tunnel takes no new calls.
    pub(crate) fn draining(&self) {
        tracing::info!(target: "tunnel_tonic::tunnel", parent: &self.span, "tunnel draining");
    }

    /// The tunnel is closed.
    pub(crate) fn closed(&self, reason: &EndReason, stats: &Stats) {
        if let Some(metrics) = self.metrics() {
            metrics.forget_memory();
        }
        let report = Report(reason);
        let Some(opened) = self.opened.get() else {
            tracing::debug!(
                target: "tunnel_tonic::tunnel",
                parent: &self.span,
                reason = %report,
                "tunnel closed before it took calls"
            );
            return;
        };
        let duration = opened.elapsed();
        tracing::info!(
            target: "tunnel_tonic::tunnel",
            parent: &self.span,
            reason = %report,
            duration_s = duration.as_secs_f64(),
            calls = stats.streams_total,
            bytes_sent = stats.bytes_sent,
            bytes_received = stats.bytes_received,
            "tunnel closed"
        );
        if let Some(metrics) = self.metrics() {
            metrics.closed(end_name(reason), duration);
        }
    }
}

/// Runs a hook of the application, and catches its panic.
pub(crate) fn catch_panic(name: &str, hook: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        tracing::error!("{name} has panicked");
    }
}

/// Records the key and the peer of a tunnel. The end that dialled knows them when the tunnel is accepted.
fn describe(span: &Span, info: &TunnelInfo) {
    if let Some(key) = info.key() {
        span.record("tunnel.key", key.as_str());
    }
    if let Some(gateway) = info.gateway() {
        span.record("tunnel.peer", gateway);
    } else if let Some(peer) = info.peer_addr() {
        span.record("tunnel.peer", tracing::field::display(peer));
    }
}

/// The name of an end in labels.
fn end_name(reason: &EndReason) -> &'static str {
    match reason {
        EndReason::Closed => "closed",
        EndReason::ClosedWith(_) => "closed_with_status",
        EndReason::Drained => "drained",
        EndReason::PeerDrained => "peer_drained",
        EndReason::PeerClosed => "peer_closed",
        EndReason::Error(error) => match error {
            ConnectionError::TransportLost(_) => "transport_lost",
            ConnectionError::PeerSilent(_) => "peer_silent",
            ConnectionError::EndedByPeer(_) => "ended_by_peer",
            ConnectionError::Limit(_) => "limit",
            ConnectionError::SettingsTimeout => "settings_timeout",
            _ => "protocol_error",
        },
        _ => "other",
    }
}

/// Whether a code is an error in the span of a handler, by OpenTelemetry's conventions. In a caller's span
/// every code but OK is.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
