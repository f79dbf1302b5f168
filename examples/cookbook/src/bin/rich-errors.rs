//! Rich errors: a status with typed details, of `google.rpc`, through a tunnel.
//!
//! Details travel in the `grpc-status-details-bin` trailer. `tonic-types` writes and reads it; a tunnel
//! carries it as it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use example_support::serve::on_loopback;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::{EchoService, EchoServiceServer};
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tunnel_client::ForwardChannel;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// Says what is wrong with each request, for programs to read.
struct Strict;

#[tonic::async_trait]
impl EchoService for Strict {
    async fn echo(&self, _: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let mut details = ErrorDetails::new();
        details
            .add_bad_request_violation("message", "must not be empty")
            .set_retry_info(Some(Duration::from_secs(30)))
            .set_localized_message("de-DE", "Die Nachricht darf nicht leer sein.");
        let message = "the request is not valid";
        Err(Status::with_error_details(
            Code::InvalidArgument,
            message,
            details,
        ))
    }

    async fn echo_error(
        &self,
        _: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("not offered here"))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Strict))
        .build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let address = on_loopback(server).await?;

    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = ForwardChannel::builder(endpoint).connect().await?;
    let answer = EchoServiceClient::new(channel)
        .echo(EchoRequest::default())
        .await;
    let status = answer.err().context("an empty message was accepted")?;
    println!("{:?}: {}", status.code(), status.message());

    let details = status.get_error_details();
    let violations = details.bad_request().context("no violations")?;
    for violation in &violations.field_violations {
        println!("  {}: {}", violation.field, violation.description);
    }
    let retry = details.retry_info().and_then(|retry| retry.retry_delay);
    println!("  try again in {:?}", retry.context("no retry info")?);
    let localized = details
        .localized_message()
        .context("no localized message")?;
    println!("  {}: {}", localized.locale, localized.message);
    ensure!(violations.field_violations.len() == 1, "{violations:?}");
    println!("✓ All details of the error have arrived");
    Ok(())
}
