//! Servers fit for tunnels.

use tonic::transport::Server;

/// The HTTP/2 windows: what can be under way to this end on one tunnel's stream, and on one
/// connection. A tunnel's own windows do the fine work; these should never hold it back.
const WINDOW: u32 = 16 << 20;

/// HTTP/2 frames as large as a batch, so that a chunk and its envelope never straddle two:
/// measured as a fifth less CPU for each MiB.
const MAX_FRAME: u32 = 1 << 20;

/// Sets a server up for tunnels: HTTP/2 windows of 16 MiB, frames of up to 1 MiB,
/// `TCP_NODELAY`.
///
/// `TCP_NODELAY` is for sockets that the server accepts itself: with `serve_with_incoming` set
/// it on the incoming connections
/// ([`TcpIncoming::with_nodelay`](tonic::transport::server::TcpIncoming::with_nodelay)).
///
/// Keepalive is left as it was, which is off: without
/// [`http2_keepalive_interval`](Server::http2_keepalive_interval) the tunnel of a client that
/// vanished without closing its connection stays open.
///
/// Do not turn adaptive windows on: connections with small windows and many small frames are
/// ended by the HTTP/2 layer.
///
/// ```
/// use tonic::transport::Server;
/// let server = tunnel_server::server_for_tunnels(Server::builder());
/// # let _ = server;
/// ```
pub fn server_for_tunnels(server: Server) -> Server {
    server
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true)
}
