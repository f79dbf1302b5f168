//! A proxy by key: any gRPC client reaches any service of any device, named in the call's metadata.
//!
//! Neither the gateway nor the device knows the services. The gateway passes on what it does not serve
//! itself to the device whose key the call names, and the device passes it on to a server beside it.
//!
//! ```text
//! client ── plain gRPC ──▶ gateway ══ reverse tunnel ══▶ device ── plain gRPC ──▶ local server
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use example_support::echo::Echo;
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request};
use tunnel_client::ReverseTunnelServer;
use tunnel_server::{
    AffinityKey, KeyFrom, Opening, TunnelServiceHandler, server_for_tunnels_and_calls,
};

#[tokio::main]
async fn main() -> Result<()> {
    // The server beside the device: ordinary, and reachable from the device only.
    let local = Server::builder().add_service(EchoServiceServer::new(Echo));
    let local = on_loopback(local).await?;
    let local = Endpoint::from_shared(format!("http://{local}"))?.connect_lazy();

    let handler = TunnelServiceHandler::builder()
        .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
        .build();
    // Who can reach this can call all devices: a real gateway has an interceptor around it. The router is that
    // of axum, and has its fallback.
    let proxy = handler.proxy(KeyFrom::metadata("device-id"));
    let routes = Routes::new(handler.service())
        .into_axum_router()
        .fallback_service(proxy);
    let server = server_for_tunnels_and_calls(Server::builder()).add_routes(Routes::from(routes));
    let gateway = Endpoint::from_shared(format!("http://{}", on_loopback(server).await?))?;

    let mut metadata = MetadataMap::new();
    metadata.insert("device-id", "device-17".parse()?);
    let device = ReverseTunnelServer::builder(gateway.clone())
        .metadata(metadata)
        .forward_to(local);
    tokio::spawn(device.run());
    let channel = handler.key_as_channel("device-17");
    channel.wait_for_ready(Duration::from_secs(30)).await?;

    // The client knows the address of the gateway and the name of the device, and nothing of tunnels.
    let echo = EchoServiceClient::new(gateway.connect().await?);
    let call = |device: Option<&'static str>| {
        let mut request = Request::new(EchoRequest {
            message: "Hello".into(),
        });
        if let Some(device) = device {
            let device = MetadataValue::from_static(device);
            request.metadata_mut().insert("device-id", device);
        }
        let mut echo = echo.clone();
        async move { echo.echo(request).await }
    };
    let answer = call(Some("device-17")).await?.into_inner().message;
    ensure!(answer == "Echo: Hello", "got {answer:?}");
    println!("the server beside device-17: {answer}");

    for (device, code) in [
        (Some("device-18"), Code::Unavailable),
        (None, Code::InvalidArgument),
    ] {
        let status = call(device).await.err().context("it was answered")?;
        println!("{:?}: {}", status.code(), status.message());
        ensure!(status.code() == code, "it should be {code:?}");
    }
    println!("✓ An ordinary client reaches a service that only the device can reach");
    Ok(())
}
