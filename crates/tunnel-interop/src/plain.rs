//! Plain HTTP/2 servers in this process, and the windows of plain connections.
//!
//! They are not tonic's, because that enforces the deadlines of calls, with another code than a
//! tunnel.

use std::net::SocketAddr;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

/// The HTTP/2 window of a plain connection, in bytes.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// The HTTP/2 window of a stream of a plain connection, in bytes: so small that streams that are not
/// read never stop the others.
const STREAM_WINDOW: u32 = 1 << 16;

/// Serves a router on a free port, until the runtime ends.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a port of the loopback interface is free");
    let address = listener.local_addr();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            // It fails only for a connection that is lost.
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let mut builder = Builder::new(TokioExecutor::new());
                builder
                    .http2()
                    .max_concurrent_streams(None)
                    .max_header_list_size(1 << 20)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .initial_stream_window_size(STREAM_WINDOW);
                // How a connection ends is what a case sees.
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address.expect("a bound listener has an address")
}

/// An endpoint for an address.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("a valid address")
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
}
