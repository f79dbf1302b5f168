//! A proxy by key: any gRPC client reaches any service of any device, named in the call's metadata.
//!
//! Neither the gateway nor the device knows the services. The gateway passes on what it does not serve
//! itself to the device whose key the call names, and the device passes it on to a server beside it.
//!
//! ```text
//! client ── plain gRPC ──▶ gateway ══ reverse tunnel ══▶ device ── plain gRPC ──▶ local server
//! ```

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use example_support::echo::Echo;
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Status};
use tower::{ServiceExt as _, service_fn};
use tunnel_client::ReverseTunnelServer;
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels_and_calls};

#[tokio::main]
async fn main() -> Result<()> {
    // The server beside the device: ordinary, and reachable from the device only.
    let local = Server::builder().add_service(EchoServiceServer::new(Echo));
    let local = on_loopback(local).await?;
    let local = Endpoint::from_shared(format!("http://{local}"))?.connect_lazy();

    let handler = TunnelServiceHandler::builder()
        .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
        .build();
    // tonic's router is axum's, and has its fallback.
    let devices = handler.clone();
    let routes = Routes::new(handler.service())
        .into_axum_router()
        .fallback_service(service_fn(move |call| to_device(devices.clone(), call)));
    let server = server_for_tunnels_and_calls(Server::builder()).add_routes(Routes::from(routes));
    let gateway = Endpoint::from_shared(format!("http://{}", on_loopback(server).await?))?;

    let mut metadata = MetadataMap::new();
    metadata.insert("device-id", "device-17".parse()?);
    let device = ReverseTunnelServer::builder(gateway.clone())
        .metadata(metadata)
        .fallback(service_fn(move |call| forward(local.clone(), call)));
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

/// Passes a call on to the device that it names. A real gateway decides here who may call which device.
async fn to_device<B>(
    handler: TunnelServiceHandler,
    call: http::Request<B>,
) -> Result<http::Response<Body>, Infallible>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let key = call.headers().get("device-id");
    let Some(key) = key.and_then(|key| key.to_str().ok()) else {
        let missing = Status::invalid_argument("the metadata device-id names no device");
        return Ok(missing.into_http());
    };
    forward(handler.key_as_channel(key), call).await
}

/// Passes a call on to a channel of any kind: messages, metadata, deadline, cancellation, status.
async fn forward<C, B, R>(
    channel: C,
    call: http::Request<B>,
) -> Result<http::Response<Body>, Infallible>
where
    C: Service<http::Request<Body>, Response = http::Response<R>>,
    C::Error: Into<StdError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<StdError>,
{
    let response = channel.oneshot(call.map(Body::new)).await;
    Ok(match response {
        Ok(response) => response.map(Body::new),
        Err(error) => Status::from_error(error.into()).into_http(),
    })
}
