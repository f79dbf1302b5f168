//! The rates of devices, from the counters of two moments.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::admin::list::{Sum, gateways, last_error};
use crate::admin::{api, human};
use crate::age;

/// The columns of rows. GATEWAY is left out for a gateway that is alone.
pub(super) const HEADER: [&str; 9] = [
    "KEY",
    "TUNNELS",
    "IN FLIGHT",
    "CALLS/S",
    "SENT/S",
    "RECEIVED/S",
    "RTT",
    GATEWAY,
    "LAST ERROR",
];

const GATEWAY: &str = "GATEWAY";

/// Remembers the counters of the moment before.
#[derive(Debug, Default)]
pub(super) struct Model {
    before: Option<Before>,
}

/// The counters of a moment.
#[derive(Debug)]
struct Before {
    at: Instant,
    all: Counters,
    /// The gateways that have not answered. Their counters are missing.
    unreachable: Vec<String>,
    /// By the key and the id of the tunnel.
    tunnels: HashMap<(String, String), Counters>,
}

/// Counters that grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counters {
    calls: u64,
    sent: u64,
    received: u64,
}

impl Counters {
    /// What was added since `before`.
    fn since(self, before: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(before.calls),
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }

    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    stats: api::StatsResponse,
    rates: Rates,
    /// The busiest first.
    pub(super) rows: Vec<Row>,
}

/// Numbers a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    calls: f64,
    sent: f64,
    received: f64,
}

impl Rates {
    fn new(added: Counters, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        let rate = |number: u64| match seconds > 0.0 {
            true => number as f64 / seconds,
            false => 0.0,
        };
        Self {
            calls: rate(added.calls),
            sent: rate(added.sent),
            received: rate(added.received),
        }
    }
}

/// A device.
#[derive(Debug)]
pub(super) struct Row {
    key: String,
    tunnels: usize,
    sum: Sum,
    rates: Rates,
    gateways: String,
    last_error: String,
}

impl Model {
    /// The rates since the last update. The first update has none.
    pub(super) fn update(
        &mut self,
        stats: api::StatsResponse,
        devices: &[api::Device],
        now: Instant,
    ) -> Snapshot {
        let all = Counters {
            calls: stats.calls_total,
            sent: stats.bytes_sent,
            received: stats.bytes_received,
        };
        let before = self.before.take();
        // If other gateways answer than before, the counters cannot be compared.
        let before = before.filter(|before| before.unreachable == stats.unreachable);
        let is_first = before.is_none();
        let before = before.unwrap_or_else(|| Before {
            at: now,
            all,
            unreachable: Vec::new(),
            tunnels: HashMap::new(),
        });
        let time = now.duration_since(before.at);
        let mut tunnels = HashMap::new();
        let mut rows: Vec<_> = devices
            .iter()
            .map(|device| {
                let mut added = Counters::default();
                for tunnel in &device.tunnels {
                    let counters = counters(tunnel);
                    let id = (device.key.clone(), tunnel.id.clone());
                    // A tunnel that is new since then has begun at zero.
                    let since = before.tunnels.get(&id).copied().unwrap_or_default();
                    added.add(counters.since(since));
                    tunnels.insert(id, counters);
                }
                if is_first {
                    added = Counters::default();
                }
                Row {
                    key: device.key.clone(),
                    tunnels: device.tunnels.len(),
                    sum: Sum::of(device),
                    rates: Rates::new(added, time),
                    gateways: gateways(device),
                    last_error: last_error(device),
                }
            })
            .collect();
        rows.sort_by(|a, b| {
            let calls = b.rates.calls.total_cmp(&a.rates.calls);
            let in_flight = b.sum.calls_in_flight.cmp(&a.sum.calls_in_flight);
            calls.then(in_flight).then_with(|| a.key.cmp(&b.key))
        });
        self.before = Some(Before {
            at: now,
            all,
            unreachable: stats.unreachable.clone(),
            tunnels,
        });
        Snapshot {
            rates: Rates::new(all.since(before.all), time),
            stats,
            rows,
        }
    }
}

fn counters(tunnel: &api::Tunnel) -> Counters {
    let stats = tunnel.stats.unwrap_or_default();
    Counters {
        calls: stats.calls_total,
        sent: stats.bytes_sent,
        received: stats.bytes_received,
    }
}

fn bytes_a_second(rate: f64) -> String {
    format!("{}/s", human::bytes(rate as u64))
}

impl Snapshot {
    /// The gateway in a line.
    pub(super) fn summary(&self) -> String {
        let Self { stats, rates, .. } = self;
        let ready = match stats.ready {
            true => "ready",
            false => "NOT READY",
        };
        let uptime = human::duration(stats.uptime)
            .map(age::short)
            .unwrap_or_default();
        let silent = match stats.unreachable.is_empty() {
            true => String::new(),
            false => format!(
                "NOT REACHED: {}; ",
                human::clean(&stats.unreachable.join(", "))
            ),
        };
        format!(
            "{silent}{ready}, up {uptime}: {} devices, {} tunnels, {} calls in flight, {:.0} calls/s, sent {}, received {}",
            stats.devices_connected,
            stats.tunnels_open,
            stats.calls_in_flight,
            rates.calls,
            bytes_a_second(rates.sent),
            bytes_a_second(rates.received),
        )
    }
}

impl Snapshot {
    fn in_fleet(&self) -> bool {
        !self.stats.gateways.is_empty()
    }

    /// The columns.
    pub(super) fn header(&self) -> Vec<&'static str> {
        let shown = |name: &&str| self.in_fleet() || *name != GATEWAY;
        HEADER.into_iter().filter(shown).collect()
    }

    /// The cells of a row, in the order of the columns.
    pub(super) fn cells(&self, row: &Row) -> Vec<String> {
        let cells = HEADER.into_iter().zip(row.cells());
        let shown = cells.filter(|(name, _)| self.in_fleet() || *name != GATEWAY);
        shown.map(|(_, cell)| cell).collect()
    }
}

impl Row {
    fn cells(&self) -> [String; 9] {
        [
            human::clean(&self.key),
            self.tunnels.to_string(),
            self.sum.calls_in_flight.to_string(),
            format!("{:.0}", self.rates.calls),
            human::bytes(self.rates.sent as u64),
            human::bytes(self.rates.received as u64),
            self.sum
                .round_trip
                .map(human::round_trip)
                .unwrap_or_default(),
            self.gateways.clone(),
            self.last_error.clone(),
        ]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn device(key: &str, id: &str, calls: u64) -> api::Device {
        let stats = api::TunnelStats {
            calls_total: calls,
            bytes_sent: calls * 1000,
            ..Default::default()
        };
        let tunnel = api::Tunnel {
            id: id.to_owned(),
            stats: Some(stats),
            ..Default::default()
        };
        api::Device {
            key: key.to_owned(),
            tunnels: vec![tunnel],
            ..Default::default()
        }
    }

    /// Two seconds of a gateway with three devices.
    pub(in crate::admin::top) fn snapshot() -> Snapshot {
        let mut model = Model::default();
        let now = Instant::now();
        let before = [
            device("a", "1", 1000),
            device("b", "1", 0),
            device("c", "1", 50),
        ];
        let first = model.update(api::StatsResponse::default(), &before, now);
        assert!(first.rows.iter().all(|row| row.rates == Rates::default()));
        let after = [
            device("a", "1", 1002),
            device("b", "1", 8),
            device("c", "2", 10),
        ];
        let stats = api::StatsResponse {
            calls_total: 20,
            ready: true,
            ..Default::default()
        };
        model.update(stats, &after, now + Duration::from_secs(2))
    }

    #[test]
    fn rates_are_what_was_added_and_the_busiest_device_is_first() {
        let snapshot = snapshot();
        let rates = |row: &Row| (row.key.clone(), row.rates.calls, row.rates.sent);
        let rows: Vec<_> = snapshot.rows.iter().map(rates).collect();
        let expected = [("c", 5.0), ("b", 4.0), ("a", 1.0)];
        assert_eq!(
            rows,
            expected.map(|(key, rate)| (key.to_owned(), rate, rate * 1000.0))
        );
        let summary = snapshot.summary();
        assert!(summary.contains("10 calls/s"), "{summary}");
    }
}
