//! Nested tunnels: a reverse tunnel inside a forward tunnel.
//!
//! A site reaches the world only through an edge server, and has one connection to it. A device of the site
//! serves a gateway behind the edge: its reverse tunnel to the gateway is one call of the forward tunnel to
//! the edge. The edge sees neither the calls nor their messages as calls of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use example_support::echo::{Echo, NamedEcho};
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{ForwardChannel, Gateway, ReverseTunnelServer};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

#[tokio::main]
async fn main() -> Result<()> {
    // The gateway is a service of the edge like any other. Here both are in one process; a real edge
    // would forward the calls to the gateway, as `proxy-by-key` does.
    let gateway = TunnelServiceHandler::builder().build();
    let edge = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Echo))
        .add_service(gateway.service())
        .build();
    let server = server_for_tunnels(Server::builder()).add_service(edge.service());
    let address = on_loopback(server).await?;

    // The outer tunnel carries calls to the services of the edge ...
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let outer = ForwardChannel::builder(endpoint).connect().await?;
    let request = EchoRequest {
        message: "Hello".into(),
    };
    let mut echo = EchoServiceClient::new(outer.clone());
    let answer = echo.echo(request.clone()).await?.into_inner().message;
    ensure!(answer == "Echo: Hello", "got {answer:?}");
    println!("out, through the outer tunnel: {answer}");

    // ... and any number of tunnels, which are kept up when the outer one is replaced.
    let device = ReverseTunnelServer::builder(Gateway::over(outer))
        .add_service(EchoServiceServer::new(NamedEcho("device".into())));
    tokio::spawn(device.run());
    let channel = gateway.as_channel();
    channel.wait_for_ready(Duration::from_secs(30)).await?;
    let mut echo = EchoServiceClient::new(channel);
    let answer = echo.echo(request).await?.into_inner().message;
    ensure!(answer == "device: Hello", "got {answer:?}");
    println!("in, through the inner tunnel: {answer}");

    let (outer, inner) = (edge.tunnels().len(), gateway.tunnels().len());
    ensure!((outer, inner) == (1, 1), "{outer} and {inner} tunnels");
    println!("✓ Calls of both directions share one connection that was dialled from inside");
    Ok(())
}
