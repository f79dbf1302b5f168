//! Reflection: asks a device behind a reverse tunnel which services it offers.
//!
//! The reflection service is added like any other. Tools such as `grpcurl` reach it through a gateway that
//! proxies calls: see `proxy-by-key`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use example_support::echo::Echo;
use example_support::serve::on_loopback;
use example_support::test::FILE_DESCRIPTOR_SET;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::transport::{Endpoint, Server};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::server::Builder;
use tunnel_client::ReverseTunnelServer;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

#[tokio::main]
async fn main() -> Result<()> {
    let handler = TunnelServiceHandler::builder().build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let address = on_loopback(server).await?;

    let reflection = Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let device = ReverseTunnelServer::builder(endpoint)
        .add_service(EchoServiceServer::new(Echo))
        .add_service(reflection);
    tokio::spawn(device.run());

    let channel = handler.as_channel();
    channel.wait_for_ready(Duration::from_secs(30)).await?;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let requests = tokio_stream::once(request);
    let mut answers = client.server_reflection_info(requests).await?.into_inner();
    let answer = answers.message().await?.context("no answer")?;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        bail!("the wrong answer: {answer:?}");
    };
    for service in &list.service {
        println!("the device offers {}", service.name);
    }
    let echo = list.service.iter().any(|s| s.name == "test.EchoService");
    ensure!(echo, "the echo service is missing");
    println!("✓ The services of a device that nobody can dial are listed");
    Ok(())
}
