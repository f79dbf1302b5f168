//! Connections fit for tunnels.

use tonic::transport::Endpoint;

use crate::Keepalive;

/// The HTTP/2 windows: what can be under way to this end on the tunnel's stream. A tunnel's
/// own windows do the fine work; this one should never be what holds it back.
const WINDOW: u32 = 16 << 20;

/// HTTP/2 frames as large as a batch, so that a chunk and its envelope never straddle two:
/// measured as a fifth less CPU for each MiB.
const MAX_FRAME: u32 = 1 << 20;

/// Sets an endpoint up for tunnels: HTTP/2 windows of 16 MiB, frames of up to 1 MiB,
/// `TCP_NODELAY`, and keepalive that notices a peer which vanished within 15 s.
///
/// A gRPC server that is not ours may end connections that are pinged more often than every
/// five minutes: [`endpoint_for_tunnels_with`] takes another [`Keepalive`]. What is set here can
/// also be set again on the endpoint that is returned.
///
/// ```
/// use tonic::transport::Endpoint;
/// let endpoint = tunnel_client::endpoint_for_tunnels(Endpoint::from_static("http://gateway:50051"));
/// # let _ = endpoint;
/// ```
pub fn endpoint_for_tunnels(endpoint: Endpoint) -> Endpoint {
    endpoint_for_tunnels_with(endpoint, Keepalive::default())
}

/// The same as [`endpoint_for_tunnels`], with a keepalive of one's own choice.
///
/// ```
/// use tonic::transport::Endpoint;
/// use tunnel_client::{Keepalive, endpoint_for_tunnels_with};
/// let endpoint = Endpoint::from_static("http://somebody-elses:50051");
/// let endpoint = endpoint_for_tunnels_with(endpoint, Keepalive::patient());
/// # let _ = endpoint;
/// ```
pub fn endpoint_for_tunnels_with(endpoint: Endpoint, keepalive: Keepalive) -> Endpoint {
    let endpoint = endpoint
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true);
    keepalive.apply(endpoint)
}
