//! Tokens: a gateway that admits devices by bearer tokens and revokes them.
//!
//! A revoked token must end the tunnel that it has opened, and open no other one. So the token is
//! forgotten first, and then the device's tunnels are closed with the reason.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use example_support::echo::NamedEcho;
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tunnel_client::{LinkState, ReverseTunnelServer, ReverseTunnelServerBuilder, TunnelError};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

/// How long a device may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tokens in force, and the devices they were issued to. In production this is a database.
#[derive(Clone, Default)]
struct Tokens(Arc<Mutex<HashMap<String, String>>>);

impl Tokens {
    fn issue(&self, token: &str, device: &str) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), device.to_owned());
    }

    fn revoke(&self, device: &str) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, owner| owner != device);
    }

    /// The device that has this token.
    fn device(&self, metadata: &MetadataMap) -> Option<AffinityKey> {
        let header = metadata.get("authorization")?.to_str().ok()?;
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let device = tokens.get(header.strip_prefix("Bearer ")?)?;
        Some(AffinityKey::from(device.as_str()))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let tokens = Tokens::default();
    let keys = tokens.clone();
    let handler = TunnelServiceHandler::builder()
        .affinity_key(move |opening: &Opening| keys.device(opening.metadata()))
        .admit(|opening: Opening| async move {
            match opening.key() {
                Some(_) => Ok(()),
                None => Err(Status::unauthenticated("unknown token")),
            }
        })
        .build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let address = on_loopback(server).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;

    let guessed = device(&endpoint, "guessed").serve();
    match timeout(PATIENCE, guessed).await? {
        Err(TunnelError::Refused(status)) if status.code() == Code::Unauthenticated => {
            println!(
                "a device with a guessed token was refused: {}",
                status.message()
            );
        }
        other => bail!("a guessed token was not refused: {other:?}"),
    }

    tokens.issue("s3cret", "device-17");
    let device = device(&endpoint, "s3cret").build();
    let handle = device.handle();
    tokio::spawn(device.run());
    let channel = handler.key_as_channel("device-17");
    channel.wait_for_ready(PATIENCE).await?;
    let request = EchoRequest {
        message: "Hello".into(),
    };
    let mut echo = EchoServiceClient::new(channel);
    let answer = echo.echo(request.clone()).await?.into_inner().message;
    ensure!(answer == "device: Hello", "got {answer:?}");
    println!("device-17 was admitted and called: {answer}");

    tokens.revoke("device-17");
    let revoked = Status::permission_denied("the token of device-17 was revoked");
    let closed = handler.close_key_with("device-17", revoked);
    ensure!(closed == 1, "{closed} tunnels were closed");

    // The device is told, and tries again only after a long time.
    let is_refused =
        |state: &LinkState| matches!(state, LinkState::BackingOff { refused: true, .. });
    let mut links = handle.watch();
    let links = links.wait_for(|links| links.iter().all(|link| is_refused(link.state())));
    let links = links.await?.clone();
    let reason = links.first().and_then(|link| link.last_down_reason());
    println!("the device says: {}", reason.context("it has a reason")?);

    let status = echo.echo(request).await.err().context("it was called")?;
    ensure!(status.code() == Code::Unavailable, "{status:?}");
    println!("✓ A revoked device has no tunnel: {}", status.message());
    Ok(())
}

/// A device that sends its token whenever it opens a tunnel.
fn device(gateway: &Endpoint, token: &'static str) -> ReverseTunnelServerBuilder {
    ReverseTunnelServer::builder(gateway.clone())
        .credentials(move |_attempt| async move {
            // A real device would get a fresh token here.
            let mut metadata = MetadataMap::new();
            let token = format!("Bearer {token}").parse();
            let token = token.map_err(|_| Status::internal("the token is not ASCII"))?;
            metadata.insert("authorization", token);
            Ok(metadata)
        })
        .add_service(EchoServiceServer::new(NamedEcho("device".to_owned())))
}
