//! The server process: the same service directly and through tunnels of both directions.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tunnel_client::ReverseTunnelServer;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use crate::proto::bench_server::{Bench, BenchServer};
use crate::proto::{Blob, DownloadRequest, Total};

struct Service;

#[tonic::async_trait]
impl Bench for Service {
    type DownloadStream = BoxStream<'static, Result<Blob, Status>>;

    async fn unary(&self, request: Request<Blob>) -> Result<Response<Blob>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn download(
        &self,
        request: Request<DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let DownloadRequest { size, count } = request.into_inner();
        let data = Bytes::from(vec![7; size as usize]);
        let blobs = stream::iter((0..count).map(move |_| Ok(Blob { data: data.clone() })));
        Ok(Response::new(blobs.boxed()))
    }

    async fn upload(&self, request: Request<Streaming<Blob>>) -> Result<Response<Total>, Status> {
        let mut blobs = request.into_inner();
        let mut bytes = 0;
        while let Some(blob) = blobs.message().await? {
            bytes += blob.data.len() as u64;
        }
        Ok(Response::new(Total { bytes }))
    }
}

/// Serves until the input ends, which it does when the client process does: directly, through
/// forward tunnels, and through a reverse tunnel to a gateway at a port.
pub(crate) async fn serve(gateway: u16) -> Result<()> {
    let handler = TunnelServiceHandler::builder()
        .add_service(BenchServer::new(Service))
        .build();
    // Two servers, so that plain tonic is measured with the windows it comes with.
    let plain = listen().await?;
    let tunnel = listen().await?;
    println!("{} {}", plain.1, tunnel.1);
    let plain = Server::builder()
        .add_service(BenchServer::new(Service))
        .serve_with_incoming(plain.0);
    let tunnel = server_for_tunnels(Server::builder())
        .add_service(handler.service())
        .serve_with_incoming(tunnel.0);
    let gateway = Endpoint::from_shared(format!("http://127.0.0.1:{gateway}"))?;
    let reverse = ReverseTunnelServer::builder(gateway)
        .add_service(BenchServer::new(Service))
        .run();
    let mut input = tokio::io::stdin();
    let mut buf = [0; 64];
    tokio::select! {
        served = plain => served?,
        served = tunnel => served?,
        stopped = reverse => bail!("{stopped}"),
        _ = async { while input.read(&mut buf).await.is_ok_and(|n| n > 0) {} } => {}
    }
    Ok(())
}

/// Listens on a free port.
pub(crate) async fn listen() -> Result<(TcpIncoming, u16)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .context("cannot listen on loopback")?;
    let port = listener.local_addr()?.port();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok((incoming, port))
}
