//! Many devices: a gateway calls devices that nobody can dial, each by its key or all in turn.
//!
//! One device goes away and comes back. Meanwhile calls to it fail at once or wait for it, as the
//! caller chooses, and calls to the others go on.

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use example_support::echo::NamedEcho;
use example_support::serve::on_loopback;
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::test::echo_service_server::EchoServiceServer;
use futures::StreamExt as _;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tunnel_client::{ReverseTunnelServer, StopReason};
use tunnel_server::{AffinityKey, Opening, ReverseChannel, TunnelEvent, TunnelServiceHandler};
use tunnel_server::{WhenNoTunnel, server_for_tunnels};

/// Calls many devices through reverse tunnels.
#[derive(Parser)]
struct Args {
    /// The number of devices.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=1000))]
    devices: u16,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { devices } = Args::parse();
    let handler = TunnelServiceHandler::builder()
        // What a device says of itself. Where devices are not to be trusted the key comes from a
        // certificate (`mutual-tls`) or a token (`token-auth`).
        .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
        .max_tunnels_per_key(2)
        .build();
    let mut events = handler.events();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let address = on_loopback(server).await?;

    let keys: Vec<_> = (1..=devices).map(|n| format!("device-{n}")).collect();
    let started = keys.iter().map(|key| start_device(key, address));
    let mut running = started.collect::<Result<Vec<_>>>()?;
    let mut open = 0;
    while open < keys.len() {
        if let TunnelEvent::Opened(_) = events.next().await.context("no more events")? {
            open += 1;
        }
    }
    println!("{open} devices are connected");

    for key in &keys {
        let answer = call(handler.key_as_channel(key.as_str())).await?;
        ensure!(answer == format!("{key}: Hello"), "{key} got {answer:?}");
    }
    println!("each was called by its key");

    let mut answers = HashSet::new();
    for _ in &keys {
        answers.insert(call(handler.as_channel()).await?);
    }
    ensure!(answers.len() == keys.len(), "not all had their turn");
    println!("all were called in turn, over one channel");

    let (key, channel) = (&keys[0], handler.key_as_channel(keys[0].as_str()));
    running[0].abort();
    let event = events.next().await.context("no more events")?;
    let TunnelEvent::Closed { info, reason, .. } = event else {
        bail!("the wrong event: {event:?}");
    };
    println!("{} is gone: {reason}", info.key().context("no key")?);
    let status = call(channel.clone()).await.err().context("it answered")?;
    ensure!(status.code() == Code::Unavailable, "{status:?}");
    println!("a call to it fails at once: {}", status.message());
    let patient = channel.when_no_tunnel(WhenNoTunnel::Wait);
    let waiting = tokio::spawn(call(patient));
    for key in &keys[1..] {
        call(handler.key_as_channel(key.as_str())).await?;
    }
    println!("calls to the others go on");

    running[0] = start_device(key, address)?;
    let answer = waiting.await??;
    println!("it is back, and answers the call that has waited: {answer}");
    println!("✓ Every call was answered by the device that was meant");
    Ok(())
}

async fn call(channel: ReverseChannel) -> Result<String, Status> {
    let request = EchoRequest {
        message: "Hello".into(),
    };
    let answer = EchoServiceClient::new(channel).echo(request).await?;
    Ok(answer.into_inner().message)
}

/// Starts a device, which keeps a tunnel to the gateway up.
fn start_device(key: &str, gateway: SocketAddr) -> Result<JoinHandle<StopReason>> {
    let mut metadata = MetadataMap::new();
    metadata.insert("device-id", key.parse()?);
    let endpoint = Endpoint::from_shared(format!("http://{gateway}"))?;
    let device = ReverseTunnelServer::builder(endpoint)
        .metadata(metadata)
        .add_service(EchoServiceServer::new(NamedEcho(key.to_owned())));
    Ok(tokio::spawn(device.run()))
}
