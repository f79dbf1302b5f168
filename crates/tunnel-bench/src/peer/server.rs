//! The server process: serves the service over one of the transports.

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tunnel_client::ReverseTunnelServer;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use super::{Options, input, listen, say, telemetry, work};
use crate::carrier;
use crate::job::Greeting;
use crate::proto::bench_server::BenchServer;
use crate::variant::Way;

/// The HTTP/2 windows and frames of the tuned variant, at both ends. They equal the preset for
/// connections that carry tunnels.
pub(super) const WINDOW: u32 = 16 << 20;
pub(super) const FRAME: u32 = 1 << 20;

/// Serves until standard input ends.
pub(crate) async fn run(options: Options, dial: Option<u16>) -> Result<()> {
    let _input = input();
    work::start_other_tasks(options.busy_percent);
    telemetry::start(options.variant)?;
    if let Way::Reverse { inline } = options.variant {
        let gateway = dial.context("a server of reverse tunnels needs a port to dial")?;
        return dial_out(&options, gateway, inline).await;
    }
    let (listener, port) = listen().await?;
    say(&Greeting::Port(port))?;
    match options.variant {
        Way::Plain => serve(Server::builder(), routes(&options), listener).await,
        Way::Tuned => serve(tuned(), routes(&options), listener).await,
        Way::Yamux => carrier::yamux::serve(listener, routes(&options)).await,
        Way::Http2 => carrier::http2::serve(listener, routes(&options)).await,
        way @ (Way::Forward { .. } | Way::Observed(_)) => {
            let handler = TunnelServiceHandler::builder()
                .add_service(BenchServer::new(options.service()))
                .config(options.config()?)
                .poll_handlers_inline(way == Way::Forward { inline: true })
                .build();
            let server = server_for_tunnels(Server::builder());
            serve(server, Routes::new(handler.service()), listener).await
        }
        Way::Reverse { .. } => Ok(()),
    }
}

fn routes(options: &Options) -> Routes {
    Routes::new(BenchServer::new(options.service()))
}

fn tuned() -> Server {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
}

async fn serve(mut server: Server, routes: Routes, listener: TcpListener) -> Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = server.add_routes(routes);
    Ok(server.serve_with_incoming(incoming).await?)
}

/// Serves through reverse tunnels to a gateway.
async fn dial_out(options: &Options, gateway: u16, inline: bool) -> Result<()> {
    let gateway = Endpoint::from_shared(format!("http://127.0.0.1:{gateway}"))?;
    let stopped = ReverseTunnelServer::builder(gateway)
        .tunnels_per_gateway(options.tunnels)
        .add_service(BenchServer::new(options.service()))
        .config(options.config()?)
        .poll_handlers_inline(inline)
        .run()
        .await;
    bail!("{stopped}")
}
