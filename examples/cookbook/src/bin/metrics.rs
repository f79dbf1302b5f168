//! Metrics: tunnels and calls at a Prometheus endpoint.
//!
//! The feature `metrics` of `tunnel-client` and `tunnel-server` records through the `metrics` facade. A program
//! installs an exporter, here that of Prometheus, before it opens tunnels. `docs/METRICS.md` lists what there is;
//! `docs/grafana.json` is a
//! dashboard for it, `docs/alerts.yml` has alerts.
//!
//! With `--keep` it goes on until Ctrl-C, for a Prometheus that scrapes it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::get;
use clap::Parser;
use example_support::caller::Caller;
use example_support::echo::Echo;
use example_support::serve::on_loopback;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{ForwardChannel, ForwardTunnel, ReverseTunnelServer};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// The buckets of durations, in seconds. Without buckets the exporter makes summaries.
const SECONDS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 60.0, 3600.0];

/// Shows the metrics of tunnels at a Prometheus endpoint.
#[derive(Parser)]
struct Args {
    /// The address of the endpoint. Port 0 means any free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Make a call a second until Ctrl-C.
    #[arg(long)]
    keep: bool,

    /// Print all metrics in the end.
    #[arg(long)]
    print: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let exporter = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("tunnel.round_trip".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("tunnel.backoff".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("duration".into()), &SECONDS)?
        .install_recorder()?;
    let listener = TcpListener::bind(args.listen).await?;
    let endpoint = listener.local_addr()?;
    let page = exporter.clone();
    let metrics = get(move || std::future::ready(page.render()));
    let router = Router::new().route("/metrics", metrics);
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            // Drops the samples of histograms that were counted.
            exporter.run_upkeep();
        }
    });

    // A gateway that takes two tunnels, one of each direction.
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Echo))
        .max_tunnels(2)
        .build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let gateway = Endpoint::from_shared(format!("http://{}", on_loopback(server).await?))?;
    let channel = ForwardChannel::builder(gateway.clone()).connect().await?;
    let device = ReverseTunnelServer::builder(gateway.clone());
    tokio::spawn(device.add_service(EchoServiceServer::new(Echo)).run());
    let devices = handler.as_channel();
    devices.wait_for_ready(Duration::from_secs(30)).await?;

    let forward = Caller::new(EchoServiceClient::new(channel));
    let reverse = Caller::new(EchoServiceClient::new(devices));
    forward.echo("Hello").await?;
    reverse.echo("Hello").await?;
    forward.expect_error(Code::NotFound, "as asked").await?;
    let third = ForwardTunnel::new(gateway.connect().await?).open().await;
    ensure!(third.is_err(), "the gateway takes two tunnels");

    let page = scrape(endpoint).await?;
    for line in [
        r#"tunnel_open{tunnel_direction="reverse",tunnel_role="server"} 1"#,
        r#"tunnel_openings{tunnel_direction="forward",tunnel_role="server",outcome="max_tunnels"} 1"#,
        r#"rpc_response_status_code="NOT_FOUND"} 1"#,
    ] {
        let found = page.lines().find(|found| found.ends_with(line));
        println!("{}", found.with_context(|| format!("no {line}"))?);
    }
    println!("✓ Prometheus can scrape http://{endpoint}/metrics");
    if args.print {
        println!("{page}");
    }
    if args.keep {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            forward.echo("Hello").await?;
        }
    }
    Ok(())
}

/// Gets the page as Prometheus does.
async fn scrape(address: SocketAddr) -> Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    let request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    connection.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    connection.read_to_string(&mut page).await?;
    Ok(page)
}
