//! TLS: a forward tunnel to a server that proves its name.
//!
//! TLS is tonic's, so tunnels have no settings for it: the server gets its certificate by
//! `Server::tls_config`, and the client says whom it trusts by `Endpoint::tls_config`. Each tunnel that a
//! `ForwardChannel` opens is verified anew, because it has its own connection.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use example_support::certificates::Authority;
use example_support::echo::Echo;
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tonic::transport::{ClientTlsConfig, Endpoint, Server, ServerTlsConfig};
use tunnel_client::{ForwardChannel, Report};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// The name in the server's certificate.
const NAME: &str = "gateway.example";

#[tokio::main]
async fn main() -> Result<()> {
    let authority = Authority::new("the operator")?;
    let address = start_server(&authority).await?;

    let endpoint = endpoint(address, &authority)?;
    let channel = ForwardChannel::builder(endpoint).connect().await?;
    let mut echo = EchoServiceClient::new(channel);
    let request = EchoRequest {
        message: "Hello over TLS".into(),
    };
    let answer = echo.echo(request).await?.into_inner().message;
    ensure!(answer == "Echo: Hello over TLS", "got {answer:?}");
    println!("{NAME} has answered: {answer}");

    // A client that trusts somebody else opens no tunnel.
    let stranger = Authority::new("a stranger")?;
    let endpoint = self::endpoint(address, &stranger)?;
    match ForwardChannel::builder(endpoint).connect().await {
        Ok(_) => bail!("a server with an unknown certificate was trusted"),
        Err(error) => println!("not trusted: {}", Report(&error)),
    }
    println!("✓ Calls travel over TLS, and only to the server whose name was verified");
    Ok(())
}

async fn start_server(authority: &Authority) -> Result<SocketAddr> {
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Echo))
        .build();
    let tls = ServerTlsConfig::new().identity(authority.issue(NAME)?);
    let mut server = server_for_tunnels(Server::builder()).tls_config(tls)?;
    on_loopback(server.add_service(handler.service())).await
}

fn endpoint(address: SocketAddr, trusted: &Authority) -> Result<Endpoint> {
    // `domain_name` is the name to verify. Without it, that is the host that was dialled.
    let tls = ClientTlsConfig::new()
        .ca_certificate(trusted.certificate())
        .domain_name(NAME);
    Ok(Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?)
}
