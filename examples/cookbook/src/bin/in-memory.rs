//! In memory: tunnels of both directions without a socket, for tests.
//!
//! The service of a handler is itself a channel that a tunnel can be opened over. So a test of a gateway or
//! a device needs no port and no server, and everything else is as in production: hooks, keys, layers.

use std::time::Duration;

use anyhow::{Result, ensure};
use example_support::echo::{Echo, NamedEcho};
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::metadata::MetadataMap;
use tunnel_client::{ForwardTunnel, Gateway, ReverseTunnelServer};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler};

#[tokio::main]
async fn main() -> Result<()> {
    a_client_calls_the_services_of_a_server().await?;
    println!("✓ A forward tunnel in memory");
    a_gateway_calls_a_device_by_its_key().await?;
    println!("✓ A reverse tunnel in memory, kept up and found by its key");
    Ok(())
}

async fn a_client_calls_the_services_of_a_server() -> Result<()> {
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Echo))
        .build();

    let tunnel = ForwardTunnel::new(handler.service()).open().await?;
    let mut echo = EchoServiceClient::new(tunnel);
    let request = EchoRequest {
        message: "Hello".into(),
    };
    let answer = echo.echo(request).await?.into_inner().message;
    ensure!(answer == "Echo: Hello", "got {answer:?}");
    Ok(())
}

async fn a_gateway_calls_a_device_by_its_key() -> Result<()> {
    let handler = TunnelServiceHandler::builder()
        .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
        .build();

    let mut metadata = MetadataMap::new();
    metadata.insert("device-id", "device-17".parse()?);
    let device = ReverseTunnelServer::builder(Gateway::over(handler.service()))
        .metadata(metadata)
        .add_service(EchoServiceServer::new(NamedEcho("device-17".into())))
        .build();
    let handle = device.handle();
    let running = tokio::spawn(device.run());

    let channel = handler.key_as_channel("device-17");
    channel.wait_for_ready(Duration::from_secs(30)).await?;
    let request = EchoRequest {
        message: "Hello".into(),
    };
    let answer = EchoServiceClient::new(channel).echo(request).await?;
    let answer = answer.into_inner().message;
    ensure!(answer == "device-17: Hello", "got {answer:?}");

    // A test ends as it began: with nothing open.
    handle.drain(Duration::from_secs(10)).await;
    running.await?;
    ensure!(handler.tunnels().is_empty(), "a tunnel is left");
    Ok(())
}
