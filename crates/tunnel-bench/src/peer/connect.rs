//! The connections and tunnels of the client process.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tunnel_client::{ForwardTunnel, TunnelChannel, endpoint_for_tunnels};
use tunnel_server::{ReverseChannel, TunnelServiceHandler, server_for_tunnels};

use super::server::{FRAME, WINDOW};
use super::{Options, listen, say};
use crate::job::Greeting;

/// The time limit for opening all tunnels.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// The number of connections made at the same time. A thousand at once would overflow the backlog
/// of a busy listener.
const AT_A_TIME: usize = 32;

/// An endpoint with default settings or, if `tuned`, with the windows and frames of connections for
/// tunnels.
pub(super) fn endpoint(port: u16, tuned: bool) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(match tuned {
        false => endpoint,
        true => endpoint
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME),
    })
}

/// Opens `options.tunnels` plain connections.
pub(super) async fn plain(endpoint: Endpoint, options: &Options) -> Result<Vec<Channel>> {
    let connections = stream::iter(0..options.tunnels).map(|_| endpoint.connect());
    let connections = connections.buffered(AT_A_TIME).try_collect().await;
    connections.context("cannot connect to the server")
}

/// Opens `options.tunnels` forward tunnels, each on its own connection.
pub(super) async fn forward(port: u16, options: &Options) -> Result<Vec<TunnelChannel>> {
    let endpoint = endpoint_for_tunnels(endpoint(port, false)?);
    let config = options.config()?;
    let tunnels = stream::iter(plain(endpoint, options).await?);
    let tunnels = tunnels.map(|c| ForwardTunnel::new(c).config(config.clone()).open());
    let tunnels = tunnels.buffered(AT_A_TIME).try_collect().await;
    tunnels.context("cannot open a tunnel")
}

/// Starts a gateway, waits until all reverse tunnels are open, and returns its channel.
pub(super) async fn reverse(options: &Options) -> Result<ReverseChannel> {
    let (listener, port) = listen().await?;
    let gateway = TunnelServiceHandler::builder()
        .config(options.config()?)
        .build();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = server_for_tunnels(Server::builder()).add_service(gateway.service());
    tokio::spawn(server.serve_with_incoming(incoming));
    say(&Greeting::Port(port))?;
    let channel = gateway.as_channel();
    let all = all_open(&channel, options.tunnels);
    let opened = tokio::time::timeout(OPENED_WITHIN, all).await;
    let open = channel.tunnels().len();
    ensure!(
        opened.is_ok(),
        "only {open} of {} reverse tunnels have opened",
        options.tunnels
    );
    Ok(channel)
}

async fn all_open(channel: &ReverseChannel, wanted: usize) {
    while channel.tunnels().len() < wanted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
