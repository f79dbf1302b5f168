//! Mutual TLS: a gateway that knows its devices by their certificates.
//!
//! The key of a reverse tunnel decides who receives the calls for it. Here it is the name in the
//! certificate that the device has proved in the handshake, so no device can take another's calls.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use example_support::certificates::Authority;
use example_support::echo::NamedEcho;
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{ClientTlsConfig, Endpoint, Server, ServerTlsConfig};
use tunnel_client::{Report, ReverseTunnelServer};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How long a device may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let authority = Authority::new("the operator")?;
    let handler = TunnelServiceHandler::builder()
        .affinity_key(verified_name)
        .admit(|opening: Opening| async move {
            match opening.key() {
                Some(_) => Ok(()),
                None => Err(Status::permission_denied("the certificate has no name")),
            }
        })
        .build();
    let tls = ServerTlsConfig::new()
        .identity(authority.issue("gateway.example")?)
        // Without a certificate of this authority there is no connection.
        .client_ca_root(authority.certificate());
    let mut server = server_for_tunnels(Server::builder()).tls_config(tls)?;
    let address = on_loopback(server.add_service(handler.service())).await?;

    let device = device("device-17", &authority, &authority, address)?;
    tokio::spawn(device.run());
    let channel = handler.key_as_channel("device-17");
    channel.wait_for_ready(PATIENCE).await?;
    let request = EchoRequest {
        message: "Hello".into(),
    };
    let answer = EchoServiceClient::new(channel).echo(request).await?;
    let answer = answer.into_inner().message;
    ensure!(answer == "device-17: Hello", "got {answer:?}");
    println!("called by the name in its certificate: {answer}");

    // The same name, but from an authority that the gateway does not trust.
    let forger = Authority::new("a forger")?;
    let forged = self::device("device-17", &forger, &authority, address)?;
    match timeout(PATIENCE, forged.serve()).await? {
        Ok(_) => bail!("a forged certificate was accepted"),
        Err(error) => println!("refused: {}", Report(&error)),
    }
    let open = handler.tunnels_of_key("device-17").len();
    ensure!(open == 1, "{open} tunnels are open");
    println!("✓ A device receives the calls for the name in its certificate, and nobody else does");
    Ok(())
}

/// The first DNS name of the peer's certificate, which the handshake has verified.
fn verified_name(opening: &Opening) -> Option<AffinityKey> {
    let certificates = opening.request().peer_certs()?;
    let (_, certificate) = X509Certificate::from_der(certificates.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut names = names.value.general_names.iter();
    names.find_map(|name| match name {
        GeneralName::DNSName(name) => Some(AffinityKey::from(*name)),
        _ => None,
    })
}

/// A device with a certificate of `issuer`, which expects the gateway to have one of `trusted`.
fn device(
    name: &str,
    issuer: &Authority,
    trusted: &Authority,
    gateway: SocketAddr,
) -> Result<ReverseTunnelServer> {
    let tls = ClientTlsConfig::new()
        .identity(issuer.issue(name)?)
        .ca_certificate(trusted.certificate())
        .domain_name("gateway.example");
    let endpoint = Endpoint::from_shared(format!("https://{gateway}"))?.tls_config(tls)?;
    let echo = EchoServiceServer::new(NamedEcho(name.to_owned()));
    Ok(ReverseTunnelServer::builder(endpoint)
        .add_service(echo)
        .build())
}
