//! The instructions of a unary call through a tunnel, without and with telemetry.
//!
//! ```text
//! cargo bench -p tunnel-bench --bench telemetry [-- ROW...]
//! cargo bench -p tunnel-bench --bench telemetry --no-default-features -- off
//! ```
//!
//! The second has the libraries without the feature `metrics`.
//!
//! Both ends of the tunnel are in one thread, without a socket. Each row runs twice in a process of its own under
//! `valgrind --tool=callgrind`, with N and 2 N calls; the difference is the cost of N calls at both ends, tonic's
//! stubs and tokio included. A busy machine does not change these figures.

use std::env;
use std::process::{Command, ExitCode};

use example_support::echo::Echo;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tracing::Level;
use tunnel_client::ForwardTunnel;
use tunnel_server::TunnelServiceHandler;

const CALLS: usize = 1000;

/// What is switched on.
const ROWS: [(&str, &str); 4] = [
    ("off", "no subscriber, no recorder"),
    ("info", "a subscriber at info"),
    ("metrics", "a Prometheus recorder"),
    (
        "debug",
        "a subscriber at debug: a span and a line for each end",
    ),
];

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args[..] {
        [flag, row, calls] if flag == "--child" => {
            child(row, calls.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        // Under `cargo test` there is nothing to do.
        args if !args.iter().any(|arg| arg == "--bench") => ExitCode::SUCCESS,
        args => match table(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn table(rows: &[String]) -> Result<(), String> {
    let mut off = None;
    println!("{:<54}{:>12}{:>8}", "telemetry", "instructions", "ratio");
    let all = !ROWS
        .iter()
        .any(|(row, _)| rows.iter().any(|wanted| wanted == row));
    for (row, about) in ROWS {
        if !all && !rows.iter().any(|wanted| wanted == row) {
            continue;
        }
        let (once, twice) = (total(row, CALLS)?, total(row, 2 * CALLS)?);
        let each = twice.saturating_sub(once) as f64 / CALLS as f64;
        let off = *off.get_or_insert(each);
        println!("{about:<54}{each:>12.0}{:>8.3}", each / off);
    }
    Ok(())
}

/// The instructions of a process that makes this many calls.
fn total(row: &str, calls: usize) -> Result<u64, String> {
    let program = env::current_exe().map_err(|e| format!("this program has no path: {e}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--child", row, &calls.to_string()])
        .output()
        .map_err(|e| format!("valgrind does not start: {e} (apt-get install valgrind)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // "==PID== Collected : 123456"
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind failed:\n{said}"))
}

fn child(row: &str, calls: usize) {
    let level = match row {
        "info" => Some(Level::INFO),
        "debug" => Some(Level::DEBUG),
        _ => None,
    };
    if let Some(level) = level {
        let lines = tracing_subscriber::fmt().with_max_level(level);
        lines.with_writer(std::io::sink).init();
    }
    if row == "metrics" {
        record_metrics();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let handler = TunnelServiceHandler::builder()
            .add_service(EchoServiceServer::new(Echo))
            .build();
        let tunnel = ForwardTunnel::new(handler.service()).open().await;
        let mut echo = EchoServiceClient::new(tunnel.expect("accepted"));
        for _ in 0..calls {
            let request = EchoRequest {
                message: "sixteen bytes ok".into(),
            };
            echo.echo(request).await.expect("answered");
        }
    });
}

#[cfg(feature = "metrics")]
fn record_metrics() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new();
    let recorder = recorder.set_buckets(&[0.01, 0.1, 1.0]).expect("valid");
    recorder.install_recorder().expect("there is no other");
}

#[cfg(not(feature = "metrics"))]
fn record_metrics() {
    panic!("this row needs the feature metrics");
}
