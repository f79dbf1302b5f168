//! Health: of a device, through its tunnel, and of the gateway, for load balancers.
//!
//! A device offers the standard health service, so a gateway checks it as it would check any server. The
//! gateway has one of its own: when it is to stop it reports NOT_SERVING first, and goes on serving while
//! load balancers notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use example_support::echo::Echo;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tokio::sync::oneshot;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;
use tunnel_client::ReverseTunnelServer;
use tunnel_server::{AffinityKey, Opening, Shutdown, TunnelServiceHandler};
use tunnel_server::{TunnelServiceServer, server_for_tunnels};

/// A little longer than the interval in which load balancers probe.
const NOTICE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let handler = TunnelServiceHandler::builder()
        .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
        .build();
    let (reporter, health) = health_reporter();
    reporter.set_serving::<TunnelServiceServer>().await;
    let server = server_for_tunnels(Server::builder())
        .add_service(handler.service())
        .add_service(health);
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown =
        Shutdown::on(async { stopped.await.unwrap_or(()) }).not_ready(NOTICE, async move {
            reporter.set_not_serving::<TunnelServiceServer>().await;
        });
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let endpoint = Endpoint::from_shared(format!("http://{}", incoming.local_addr()?))?;
    let gateway = handler.clone();
    let gateway = tokio::spawn(async move { gateway.serve(server, incoming, shutdown).await });

    // A device with a health service beside its own.
    let (device_reporter, device_health) = health_reporter();
    let mut metadata = MetadataMap::new();
    metadata.insert("device-id", "device-17".parse()?);
    let device = ReverseTunnelServer::builder(endpoint.clone())
        .metadata(metadata)
        .add_service(EchoServiceServer::new(Echo))
        .add_service(device_health);
    tokio::spawn(device.run());

    let channel = handler.key_as_channel("device-17");
    channel.wait_for_ready(Duration::from_secs(30)).await?;
    let mut device_health = HealthClient::new(channel.clone());
    for status in [ServingStatus::Serving, ServingStatus::NotServing] {
        device_reporter.set_service_status("sensor", status).await;
        let answer = device_health.check(of("sensor")).await?.into_inner();
        println!("the sensor of device-17: {}", answer.status().as_str_name());
        ensure!(answer.status() == status.into(), "it is {status}");
    }

    // A load balancer watches the gateway. Others call `check` every few seconds.
    let mut probe = HealthClient::new(endpoint.connect().await?);
    let service = "grpctunnel.v1.TunnelService";
    let mut states = probe.watch(of(service)).await?.into_inner();
    let state = states.message().await?.context("no state")?.status();
    println!("the gateway: {}", state.as_str_name());
    ensure!(state == ServingStatus::Serving.into(), "it should serve");

    let _ = stop.send(());
    let state = states.message().await?.context("no state")?.status();
    println!("the gateway is asked to stop: {}", state.as_str_name());
    ensure!(state == ServingStatus::NotServing.into(), "it should not");
    let request = EchoRequest {
        message: "still there?".into(),
    };
    let answer = EchoServiceClient::new(channel).echo(request).await?;
    println!(
        "during the notice calls go on: {}",
        answer.into_inner().message
    );

    // The watch is a call in flight, which the gateway would wait for.
    drop((states, probe));
    gateway.await??;
    println!("✓ The gateway was reported as not ready before it stopped");
    Ok(())
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}
