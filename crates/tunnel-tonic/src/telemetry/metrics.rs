//! The metrics of tunnels, through the `metrics` facade.
//!
//! Invariant: labels have few values. Names that a peer chooses, such as methods, are never labels; keys
//! are on request.

use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Label, SharedString, Unit, counter, describe_counter,
    describe_gauge, describe_histogram, gauge, histogram,
};
use tunnel_core::{Code, Limit, Side, Stats};

use crate::info::{Direction, NetworkRole, TunnelInfo};

const OPEN: &str = "tunnel.open";
const OPENINGS: &str = "tunnel.openings";
const CLOSED: &str = "tunnel.closed";
const DURATION: &str = "tunnel.duration";
const RECONNECTS: &str = "tunnel.reconnects";
const BACKOFF: &str = "tunnel.backoff";
const STARTED: &str = "tunnel.calls.started";
const ACTIVE: &str = "tunnel.calls.active";
const NOT_SENT: &str = "tunnel.calls.not_sent";
const CLIENT_DURATION: &str = "rpc.client.call.duration";
const SERVER_DURATION: &str = "rpc.server.call.duration";
const MESSAGES: &str = "tunnel.messages";
const BYTES: &str = "tunnel.message.size";
const STALLS: &str = "tunnel.stalls";
const STALLED: &str = "tunnel.stalled";
const ROUND_TRIP: &str = "tunnel.round_trip";
const LIMITS: &str = "tunnel.limits";
const MEMORY_USED: &str = "tunnel.memory.used";
const MEMORY_LIMIT: &str = "tunnel.memory.limit";

/// The label of a limit that is not one of a tunnel.
const MEMORY_BUDGET: &str = "memory_budget";

/// The number of gRPC codes.
const CODES: usize = 17;

/// Describes the metrics to the recorder that is installed, once in a process.
fn describe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(describe_metrics);
}

/// Describes the metrics to the recorder that is installed: their units, and what they mean. The first tunnel of
/// a process does so by itself. Does nothing without the feature `metrics`.
pub fn describe_metrics() {
    describe_gauge!(OPEN, Unit::Count, "Tunnels that take calls or drain");
    describe_counter!(OPENINGS, Unit::Count, "Attempts to open a tunnel");
    describe_counter!(CLOSED, Unit::Count, "Tunnels that were open and are closed");
    describe_histogram!(DURATION, Unit::Seconds, "How long tunnels were open");
    describe_counter!(RECONNECTS, Unit::Count, "Tunnels opened in place of others");
    describe_histogram!(BACKOFF, Unit::Seconds, "Waits before the next attempt");
    describe_counter!(STARTED, Unit::Count, "Calls that have begun");
    describe_gauge!(ACTIVE, Unit::Count, "Calls in flight");
    describe_counter!(NOT_SENT, Unit::Count, "Calls that no tunnel took");
    describe_histogram!(CLIENT_DURATION, Unit::Seconds, "Calls made, by code");
    describe_histogram!(SERVER_DURATION, Unit::Seconds, "Calls served, by code");
    describe_counter!(MESSAGES, Unit::Count, "Messages of calls");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of messages");
    describe_counter!(STALLS, Unit::Count, "Streams that ran out of credit");
    describe_counter!(
        STALLED,
        Unit::Milliseconds,
        "Time of streams without credit"
    );
    describe_histogram!(ROUND_TRIP, Unit::Seconds, "Round trips of heartbeats");
    describe_counter!(LIMITS, Unit::Count, "How often a limit was reached");
    describe_gauge!(MEMORY_USED, Unit::Bytes, "Memory that tunnels hold");
    describe_gauge!(MEMORY_LIMIT, Unit::Bytes, "The memory budgets of handlers");
}

/// The metrics of one tunnel. The handles are made once, so that a call looks up no names.
pub(crate) struct TunnelMetrics {
    labels: Vec<Label>,
    open: Gauge,
    started: Counter,
    active: Gauge,
    duration: &'static str,
    /// By code, made when first needed.
    durations: [OnceLock<Histogram>; CODES],
    messages: Directions,
    bytes: Directions,
    stalls: Counter,
    stalled: Counter,
    round_trip: Histogram,
    memory: Gauge,
    published: Mutex<Published>,
}

/// A counter for each direction of traffic.
struct Directions {
    sent: Counter,
    received: Counter,
}

impl Directions {
    fn new(name: &'static str, labels: &[Label]) -> Self {
        let of = |direction| {
            let labels = with(labels, "network.io.direction", direction);
            counter!(name, labels)
        };
        Self {
            sent: of("transmit"),
            received: of("receive"),
        }
    }
}

/// What was published last.
#[derive(Default)]
struct Published {
    stats: Stats,
    memory: usize,
}

fn with(labels: &[Label], name: &'static str, value: impl Into<SharedString>) -> Vec<Label> {
    let mut labels = labels.to_vec();
    labels.push(Label::new(name, value));
    labels
}

fn labels(direction: Direction, role: NetworkRole) -> Vec<Label> {
    vec![
        Label::from_static_parts("tunnel.direction", direction.name()),
        Label::from_static_parts("tunnel.role", role.name()),
    ]
}

impl TunnelMetrics {
    pub(crate) fn new(info: &TunnelInfo, role: NetworkRole, by_key: bool) -> Self {
        describe();
        let mut labels = labels(info.direction(), role);
        if let Some(key) = info.key().filter(|_| by_key) {
            labels.push(Label::new("tunnel.key", key.as_str().to_owned()));
        }
        Self {
            open: gauge!(OPEN, labels.clone()),
            started: counter!(STARTED, labels.clone()),
            active: gauge!(ACTIVE, labels.clone()),
            duration: match role.side(info.direction()) {
                Side::Caller => CLIENT_DURATION,
                Side::Handler => SERVER_DURATION,
            },
            durations: Default::default(),
            messages: Directions::new(MESSAGES, &labels),
            bytes: Directions::new(BYTES, &labels),
            stalls: counter!(STALLS, labels.clone()),
            stalled: counter!(STALLED, labels.clone()),
            round_trip: histogram!(ROUND_TRIP, labels.clone()),
            memory: gauge!(MEMORY_USED, labels.clone()),
            published: Mutex::default(),
            labels,
        }
    }

    pub(crate) fn opened(&self) {
        self.open.increment(1.0);
        counter!(OPENINGS, with(&self.labels, "outcome", "opened")).increment(1);
    }

    pub(crate) fn closed(&self, reason: &'static str, open_for: Duration) {
        self.open.decrement(1.0);
        counter!(CLOSED, with(&self.labels, "reason", reason)).increment(1);
        histogram!(DURATION, self.labels.clone()).record(open_for);
    }

    /// Whether the call is timed.
    pub(crate) fn call_started(&self) -> bool {
        self.started.increment(1);
        self.active.increment(1.0);
        true
    }

    pub(crate) fn call_finished(&self, code: Code, duration: Duration) {
        self.active.decrement(1.0);
        if let Some(histogram) = self.durations.get(code as usize) {
            let histogram = histogram.get_or_init(|| {
                let labels = with(&self.labels, "rpc.system.name", "grpc");
                let labels = with(&labels, "rpc.response.status_code", code.name());
                histogram!(self.duration, labels)
            });
            histogram.record(duration);
        }
    }

    /// Publishes what has changed since the last time. `read` returns the counters and the memory, and is
    /// called under a lock, so that no task publishes older ones later.
    pub(crate) fn traffic(&self, read: impl FnOnce() -> (Stats, usize)) {
        let mut last = self.published();
        let (now, memory) = read();
        let before = std::mem::replace(&mut *last, Published { stats: now, memory });
        drop(last);
        let was = before.stats;
        let changes = [
            (&self.messages.sent, now.messages_sent, was.messages_sent),
            (
                &self.messages.received,
                now.messages_received,
                was.messages_received,
            ),
            (&self.bytes.sent, now.bytes_sent, was.bytes_sent),
            (&self.bytes.received, now.bytes_received, was.bytes_received),
            (&self.stalls, now.stalls, was.stalls),
            (&self.stalled, millis(now.stalled), millis(was.stalled)),
        ];
        for (counter, now, was) in changes {
            if now > was {
                counter.increment(now - was);
            }
        }
        if now.round_trips > was.round_trips
            && let Some(round_trip) = now.round_trip
        {
            self.round_trip.record(round_trip);
        }
        for limit in Limit::ALL {
            let (now, was) = (now.limit_reached(limit), was.limit_reached(limit));
            if now > was {
                let labels = with(&self.labels, "limit", limit.name());
                counter!(LIMITS, labels).increment(now - was);
            }
        }
        self.change_memory(before.memory, memory);
    }

    /// The tunnel holds no memory any more.
    pub(crate) fn forget_memory(&self) {
        let before = std::mem::take(&mut self.published().memory);
        self.change_memory(before, 0);
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change_memory(&self, before: usize, now: usize) {
        if now > before {
            self.memory.increment((now - before) as f64);
        } else if now < before {
            self.memory.decrement((before - now) as f64);
        }
    }
}

impl std::fmt::Debug for TunnelMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelMetrics").finish_non_exhaustive()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The metrics of a memory budget.
pub(crate) struct BudgetMetrics {
    limit: f64,
    /// Kept, so that the limit is taken back where it was added.
    gauge: Gauge,
}

impl BudgetMetrics {
    pub(crate) fn new(limit: usize) -> Self {
        describe();
        let limit = limit as f64;
        let gauge = gauge!(MEMORY_LIMIT);
        gauge.increment(limit);
        Self { limit, gauge }
    }

    /// Calls were ended for their memory.
    pub(crate) fn shed(&self, calls: usize) {
        counter!(LIMITS, "limit" => MEMORY_BUDGET).increment(calls as u64);
    }
}

impl Drop for BudgetMetrics {
    fn drop(&mut self) {
        self.gauge.decrement(self.limit);
    }
}

/// Counts a tunnel that was not opened, by the name of the limit or the reason. Does nothing without the
/// feature `metrics`.
pub fn not_opened(direction: Direction, role: NetworkRole, outcome: &'static str) {
    describe();
    counter!(OPENINGS, with(&labels(direction, role), "outcome", outcome)).increment(1);
}

/// Counts a tunnel that is opened in place of a lost one. Does nothing without the feature `metrics`.
pub fn reconnecting(direction: Direction) {
    counter!(RECONNECTS, labels(direction, NetworkRole::Client)).increment(1);
}

/// Records a wait before the next attempt to open a tunnel. Does nothing without the feature `metrics`.
pub fn backing_off(direction: Direction, wait: Duration) {
    histogram!(BACKOFF, labels(direction, NetworkRole::Client)).record(wait);
}

/// Counts a call that no tunnel took.
pub(crate) fn not_sent(reason: &'static str) {
    counter!(NOT_SENT, "reason" => reason).increment(1);
}
