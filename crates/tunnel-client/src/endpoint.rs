//! Connections fit for tunnels.

use tonic::transport::Endpoint;

/// The HTTP/2 windows: what can be under way to this end on the tunnel's stream. A tunnel's
/// own windows do the fine work; this one should never be what holds it back.
const WINDOW: u32 = 16 << 20;

/// HTTP/2 frames as large as a batch, so that a chunk and its envelope never straddle two:
/// measured as a fifth less CPU for each MiB.
const MAX_FRAME: u32 = 1 << 20;

/// Sets an endpoint up for tunnels: HTTP/2 windows of 16 MiB, frames of up to 1 MiB, and
/// `TCP_NODELAY`.
///
/// Keepalive is left as it was: a gRPC server that is not ours may end connections that ping
/// more often than every five minutes. Without it a peer that vanishes without closing the
/// connection is not noticed. Towards a server that allows it, set
/// [`http2_keep_alive_interval`](Endpoint::http2_keep_alive_interval),
/// [`keep_alive_timeout`](Endpoint::keep_alive_timeout) and
/// [`keep_alive_while_idle`](Endpoint::keep_alive_while_idle).
///
/// ```
/// use tonic::transport::Endpoint;
/// let endpoint = tunnel_client::endpoint_for_tunnels(Endpoint::from_static("http://gateway:50051"));
/// # let _ = endpoint;
/// ```
pub fn endpoint_for_tunnels(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true)
}
