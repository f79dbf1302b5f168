//! What runs in processes of its own: the server, and devices with a tunnel each.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tunnel_client::{ReverseTunnelServer, endpoint_for_tunnels};

use crate::certificates::Certificates;

/// How many tunnels are being opened at once.
const OPENINGS: usize = 64;

/// The name of device N.
pub(crate) fn key(number: usize) -> String {
    format!("device-{number}")
}

async fn until_input_ends() -> Result<()> {
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Serves the health service.
pub(crate) async fn serve() -> Result<()> {
    let incoming =
        TcpIncoming::bind("127.0.0.1:0".parse()?).map_err(|error| anyhow::anyhow!("{error}"))?;
    let incoming = incoming.with_nodelay(Some(true));
    println!("server: listening at {}", incoming.local_addr()?);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().add_service(health);
    tokio::select! {
        served = server.serve_with_incoming(incoming) => Ok(served?),
        ended = until_input_ends() => ended,
    }
}

/// Opens a tunnel for each of `count` devices.
pub(crate) async fn open(
    count: usize,
    first: usize,
    gateway: SocketAddr,
    certificates: Option<&Path>,
) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let certificates = certificates.map(Certificates::at);
    let mut devices = JoinSet::new();
    let opened = futures::stream::iter(first..first + count).map(|number| {
        let device = device(&key(number), gateway, certificates.as_ref());
        let spawned = device.map(|device| {
            let handle = device.handle();
            devices.spawn(device.run());
            handle
        });
        async move {
            spawned?.connected().await?;
            anyhow::Ok(())
        }
    });
    let mut opened = std::pin::pin!(opened.buffer_unordered(OPENINGS));
    while let Some(opened) = opened.next().await {
        opened?;
    }
    println!("open");
    until_input_ends().await
}

fn device(
    key: &str,
    gateway: SocketAddr,
    certificates: Option<&Certificates>,
) -> Result<ReverseTunnelServer> {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let endpoint = match certificates {
        None => Endpoint::from_shared(format!("http://{gateway}"))?,
        Some(certificates) => {
            let (certificate, key) = certificates.issue(key)?;
            let endpoint = Endpoint::from_shared(format!("https://{gateway}"))?;
            endpoint.tls_config(certificates.tls(&certificate, &key)?)?
        }
    };
    let mut metadata = MetadataMap::new();
    metadata.insert("tunnel-key", key.parse()?);
    Ok(ReverseTunnelServer::builder(endpoint_for_tunnels(endpoint))
        .add_service(health)
        .metadata(metadata)
        .build())
}
