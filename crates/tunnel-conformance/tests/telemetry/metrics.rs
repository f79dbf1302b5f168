//! Metrics, as `docs/METRICS.md` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use metrics_util::layers::FanoutBuilder;
use tonic::{Code, Status};
use tunnel_client::{Config, ForwardTunnel};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::testing::{LongCall, assert_usable, eventually, guarded, short_call};
use tunnel_conformance::{Kind, Probe};

use crate::record::Recorded as Log;
use crate::{Ends, builder};

/// The table, as name → (kind, unit, labels).
fn table() -> BTreeMap<String, (String, String, BTreeSet<String>)> {
    let page = include_str!("../../../../docs/METRICS.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let rows = rows.filter(|cells| cells.len() == 7);
    let plain = |cell: &str| cell.trim_matches('`').to_owned();
    rows.map(|cells| {
        let labels = cells[4].split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(plain).collect();
        (
            plain(cells[1]),
            (cells[2].to_owned(), cells[3].to_owned(), labels),
        )
    })
    .collect()
}

/// The name of the metric that a line of the exporter's page is about.
fn first_word(line: &str) -> &str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.split(|c| !is_name(c)).next().unwrap_or_default()
}

/// The names of the metrics in a query: what is left without selectors and labels.
fn metrics_of(query: &str) -> Vec<String> {
    let mut inside = false;
    let mut outside = String::new();
    for c in query.replace(" by (", " {").chars() {
        inside |= c == '{';
        outside.push(if inside { ' ' } else { c });
        inside &= !matches!(c, '}' | ')');
    }
    let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("tunnel_") || word.starts_with("rpc_"));
    ours.map(str::to_owned).collect()
}

/// A series: its name and its labels, sorted.
type Series = (String, BTreeMap<String, String>);

struct Recorded {
    snapshotter: Snapshotter,
    /// The snapshotter takes what it reads.
    sums: BTreeMap<Series, f64>,
    kinds: BTreeMap<String, (MetricKind, String)>,
    /// Without a subscriber on this thread, the log lines of other tests could be turned off.
    _log: Log,
}

impl Recorded {
    /// The sum of a counter, the value of a gauge, or the number of samples of a histogram, over the series
    /// that have these labels.
    fn value(&mut self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.read();
        let has = |series: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(k, v)| series.get(*k).map(String::as_str) == Some(v))
        };
        let of = self.sums.iter().filter(|((n, l), _)| n == name && has(l));
        of.map(|(_, value)| value).sum()
    }

    fn read(&mut self) {
        for (key, unit, _, value) in self.snapshotter.snapshot().into_vec() {
            let (kind, key) = key.into_parts();
            let labels = key
                .labels()
                .map(|l| (l.key().to_owned(), l.value().to_owned()));
            let series = (key.name().to_owned(), labels.collect());
            let unit = unit.map_or("none", |unit| unit.as_str()).to_owned();
            self.kinds.insert(series.0.clone(), (kind, unit));
            let sum = self.sums.entry(series).or_default();
            match value {
                DebugValue::Counter(n) => *sum += n as f64,
                DebugValue::Gauge(n) => *sum += n.into_inner(),
                DebugValue::Histogram(samples) => *sum += samples.len() as f64,
            }
        }
    }
}

fn recorder() -> (DebuggingRecorder, Recorded) {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded {
        snapshotter: recorder.snapshotter(),
        sums: BTreeMap::new(),
        kinds: BTreeMap::new(),
        _log: Log::start(),
    };
    (recorder, recorded)
}

const NEAR: (&str, &str) = ("tunnel.role", "client");
const FAR: (&str, &str) = ("tunnel.role", "server");

#[tokio::test]
async fn calls_tunnels_and_traffic_are_counted_at_both_ends() {
    let (recorder, mut recorded) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    guarded(async {
        let ends = Ends::open().await;
        for _ in 0..3 {
            assert_usable(&ends.client).await;
        }
        let script = Script::named("fails").fail(Code::NotFound, "as asked");
        let outcome = run(&ends.client, Kind::Unary, &script, vec![request(1, 10)]).await;
        outcome.expect_failure(Code::NotFound);
        let long = LongCall::begin(&ends.client, &ends.probe, "long").await;
        for end in [NEAR, FAR] {
            assert_eq!(recorded.value("tunnel.open", &[end]), 1.0);
            assert_eq!(
                recorded.value("tunnel.openings", &[end, ("outcome", "opened")]),
                1.0
            );
            assert_eq!(recorded.value("tunnel.calls.started", &[end]), 5.0);
            assert_eq!(recorded.value("tunnel.calls.active", &[end]), 1.0);
        }
        long.finish().await.expect_success();
        ends.tunnel.close().await;
        eventually(|| ends.handler.tunnels().is_empty()).await;
        eventually(|| recorded.value("tunnel.closed", &[]) == 2.0).await;
        for (end, calls) in [
            (NEAR, "rpc.client.call.duration"),
            (FAR, "rpc.server.call.duration"),
        ] {
            let finished = |recorded: &mut Recorded, code| {
                recorded.value(calls, &[end, ("rpc.response.status_code", code)])
            };
            assert_eq!(finished(&mut recorded, "OK"), 4.0);
            assert_eq!(finished(&mut recorded, "NOT_FOUND"), 1.0);
            assert_eq!(recorded.value(calls, &[end]), 5.0);
            assert_eq!(recorded.value("tunnel.open", &[end]), 0.0);
            assert_eq!(recorded.value("tunnel.calls.active", &[end]), 0.0);
            assert_eq!(recorded.value("tunnel.duration", &[end]), 1.0);
        }
        let stats = ends.tunnel.stats();
        for (direction, messages, bytes) in [
            ("transmit", stats.messages_sent, stats.bytes_sent),
            ("receive", stats.messages_received, stats.bytes_received),
        ] {
            let labels = [NEAR, ("network.io.direction", direction)];
            assert_eq!(recorded.value("tunnel.messages", &labels), messages as f64);
            assert_eq!(recorded.value("tunnel.message.size", &labels), bytes as f64);
        }
        assert_eq!(recorded.value("tunnel.memory.used", &[]), 0.0);
        assert_eq!(
            recorded.value("tunnel.memory.limit", &[]),
            f64::from(1 << 30)
        );
        drop(ends);
        assert_eq!(recorded.value("tunnel.memory.limit", &[]), 0.0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn refusals_and_limits_are_counted_by_name() {
    let (recorder, mut recorded) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    guarded(async {
        let small = Config::builder()
            .max_message_size(100)
            .build()
            .expect("valid");
        let probe = Probe::default();
        let handler = builder(&probe).config(small).max_tunnels_per_key(1).build();
        let ends = Ends::over(handler.clone(), probe).await;
        let second = ForwardTunnel::new(handler.service()).open().await;
        second.expect_err("the key is full");
        let full = ("outcome", "max_tunnels_per_key");
        assert_eq!(recorded.value("tunnel.openings", &[FAR, full]), 1.0);
        assert_eq!(
            recorded.value("tunnel.openings", &[NEAR, ("outcome", "refused")]),
            1.0
        );
        short_call(&ends.client)
            .await
            .expect_failure(Code::OutOfRange);
        let limit = [FAR, ("limit", "max_message_size")];
        while recorded.value("tunnel.limits", &limit) < 1.0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let missing = handler.key_as_channel("nobody");
        let client =
            tunnel_conformance::client::unlimited(tunnel_conformance::TestChannel::new(missing));
        short_call(&client).await.expect_failure(Code::Unavailable);
        assert_eq!(
            recorded.value("tunnel.calls.not_sent", &[("reason", "no_tunnel")]),
            1.0
        );
    })
    .await;
}

#[tokio::test]
async fn a_key_is_a_label_only_on_request() {
    let (recorder, mut recorded) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    guarded(async {
        let ends = Ends::open().await;
        assert_usable(&ends.client).await;
        let key = [("tunnel.key", "k")];
        assert_eq!(recorded.value("tunnel.calls.started", &key), 0.0);
        let probe = Probe::default();
        let handler = builder(&probe).metrics_by_key(true).build();
        let ends = Ends::over(handler, probe).await;
        assert_usable(&ends.client).await;
        assert_eq!(recorded.value("tunnel.calls.started", &key), 1.0);
    })
    .await;
}

/// A device that loses its gateway, is refused, and comes back; with heartbeats, and with a reader that
/// stalls its sender.
#[tokio::test(start_paused = true)]
async fn every_metric_is_in_the_table_and_the_dashboard_and_the_other_way_round() {
    let (recorder, mut recorded) = recorder();
    let exporter = PrometheusBuilder::new().set_buckets(&[1.0]).expect("valid");
    let exporter = exporter.build_recorder();
    let page = exporter.handle();
    let both = FanoutBuilder::default();
    let both = both.add_recorder(recorder).add_recorder(exporter).build();
    let _guard = metrics::set_default_local_recorder(&both);
    // Described once in a process, and there are other tests.
    tunnel_tonic::telemetry::describe_metrics();
    guarded(async {
        let probe = Probe::default();
        let narrow = Config::builder().initial_window(65_536).max_window(65_536);
        let handler = builder(&probe)
            .config(narrow.build().expect("valid"))
            .build();
        let refusing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let refuse = refusing.clone();
        let gateway = tonic::service::interceptor::InterceptedService::new(
            handler.service(),
            move |request| match refuse.load(std::sync::atomic::Ordering::Relaxed) {
                true => Err(Status::unavailable("as the test wants it")),
                false => Ok(request),
            },
        );
        let channel = tunnel_client::ForwardChannel::builder(tunnel_client::Gateway::over(gateway));
        let channel = channel.connect().await.expect("accepted");
        let client = tunnel_conformance::client::unlimited(tunnel_conformance::TestChannel::new(
            channel.clone(),
        ));
        // More than a window, which the handler does not read for a while.
        let script = Script::named("slow").wait("gate").receive_all();
        let upload = {
            let client = client.clone();
            let kind = Kind::ClientStream;
            async move { run(&client, kind, &script, vec![request(1, 200_000)]).await }
        };
        let upload = tokio::spawn(upload);
        probe.started("slow").await;
        // Time passes only while nothing else can happen: heartbeats are exchanged.
        let mut waits = tokio::time::interval(Duration::from_secs(1));
        while recorded.value("tunnel.round_trip", &[]) == 0.0 {
            waits.tick().await;
        }
        probe.open("gate");
        upload.await.expect("no panic").expect_success();
        // The gateway kicks the tunnel, refuses the next one, and accepts again.
        refusing.store(true, std::sync::atomic::Ordering::Relaxed);
        handler.close_key_with("k", Status::aborted("kicked"));
        while recorded.value("tunnel.backoff", &[]) < 2.0 {
            waits.tick().await;
        }
        refusing.store(false, std::sync::atomic::Ordering::Relaxed);
        while recorded.value("tunnel.reconnects", &[]) == 0.0 {
            waits.tick().await;
        }
        let small = Config::builder()
            .max_message_size(100)
            .build()
            .expect("valid");
        let ends = Ends::over(builder(&probe).config(small).build(), probe.clone()).await;
        short_call(&ends.client)
            .await
            .expect_failure(Code::OutOfRange);
        let missing = handler.key_as_channel("nobody");
        let client =
            tunnel_conformance::client::unlimited(tunnel_conformance::TestChannel::new(missing));
        short_call(&client).await.expect_failure(Code::Unavailable);
        while recorded.value("tunnel.limits", &[]) == 0.0 {
            waits.tick().await;
        }

        let table = table();
        assert_eq!(table.len(), 19);
        let emitted: BTreeSet<_> = recorded.kinds.keys().cloned().collect();
        let listed: BTreeSet<_> = table.keys().cloned().collect();
        assert_eq!(emitted, listed);
        for (name, (kind, unit)) in &recorded.kinds {
            let (listed_kind, listed_unit, _) = &table[name];
            assert_eq!(format!("{kind:?}").to_lowercase(), *listed_kind, "{name}");
            assert_eq!(unit, listed_unit, "{name}");
        }
        let common = ["tunnel.direction", "tunnel.role"].map(str::to_owned);
        for (name, labels) in recorded.sums.keys() {
            let mut expected = table[name].2.clone();
            let alone = matches!(
                name.as_str(),
                "tunnel.calls.not_sent" | "tunnel.memory.limit"
            );
            if !alone {
                expected.extend(common.clone());
            }
            assert_eq!(
                labels.keys().cloned().collect::<BTreeSet<_>>(),
                expected,
                "{name}"
            );
        }

        // The dashboard and the alerts ask for what the exporter shows, and the dashboard for all of it.
        let page = page.render();
        let shown: BTreeSet<_> = page.lines().map(first_word).collect();
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../../../docs/grafana.json")).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array());
        let queries: Vec<_> = targets
            .flatten()
            .map(|target| target["expr"].as_str().expect("a query"))
            .collect();
        let alerts = include_str!("../../../../docs/alerts.yml").lines();
        let alerts: Vec<_> = alerts
            .filter_map(|line| line.split_once(" expr: "))
            .collect();
        assert_eq!(alerts.len(), 5);
        let of_alerts = alerts.iter().flat_map(|(_, query)| metrics_of(query));
        for asked in queries
            .iter()
            .flat_map(|query| metrics_of(query))
            .chain(of_alerts)
        {
            assert!(shown.contains(&*asked), "{asked} is not exported");
        }
        for name in &listed {
            let name = name.replace('.', "_");
            let is_shown = queries.iter().any(|query| query.contains(&name));
            assert!(is_shown, "{name} is not in the dashboard");
        }
    })
    .await;
}
