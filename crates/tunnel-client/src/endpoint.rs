//! Settings of connections that carry tunnels.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::Keepalive;

/// The HTTP/2 window of a stream: how much can be in flight to this end on the tunnel's stream. It
/// is so large that only the tunnel's own windows limit its calls.
const STREAM_WINDOW: u32 = 16 << 20;

/// The HTTP/2 window of the connection: three other streams may be full and unread before the
/// tunnel has to wait.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// How long connecting may take. The addresses of a name share this time equally.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// HTTP/2 frames are as large as a batch of the tunnel, so that no chunk is split between two.
const MAX_FRAME: u32 = 1 << 20;

/// Sets an endpoint up for tunnels: HTTP/2 windows of 16 MiB for a stream and 64 MiB for the
/// connection, frames of up to 1 MiB, `TCP_NODELAY`, a keepalive that notices a vanished peer within
/// 15 s, and a connect timeout of 6 s if the endpoint has none. All of them can be changed on the
/// returned endpoint.
///
/// The addresses of a name share the connect timeout. If a name has two addresses and the first does
/// not answer, the second is tried after 3 s. Without a timeout it would be tried after minutes.
///
/// A peer can make this end hold 64 MiB for each connection. Three streams of a connection may be full
/// and unread without stopping the others.
///
/// Other gRPC servers may close connections that are pinged more often than once in five minutes. For
/// these, give [`endpoint_for_tunnels_with`] another [`Keepalive`].
///
/// ```
/// use tonic::transport::Endpoint;
/// let endpoint = tunnel_client::endpoint_for_tunnels(Endpoint::from_static("http://gateway:50051"));
/// # let _ = endpoint;
/// ```
pub fn endpoint_for_tunnels(endpoint: Endpoint) -> Endpoint {
    endpoint_for_tunnels_with(endpoint, Keepalive::default())
}

/// The same as [`endpoint_for_tunnels`] with another keepalive.
///
/// ```
/// use tonic::transport::Endpoint;
/// use tunnel_client::{Keepalive, endpoint_for_tunnels_with};
/// let endpoint = Endpoint::from_static("http://somebody-elses:50051");
/// let endpoint = endpoint_for_tunnels_with(endpoint, Keepalive::patient());
/// # let _ = endpoint;
/// ```
pub fn endpoint_for_tunnels_with(endpoint: Endpoint, keepalive: Keepalive) -> Endpoint {
    let connect_timeout = endpoint.get_connect_timeout().unwrap_or(CONNECT_TIMEOUT);
    let endpoint = endpoint
        .connect_timeout(connect_timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true);
    keepalive.apply(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::OPEN_TIMEOUT;

    #[test]
    fn connecting_leaves_time_for_the_tunnel_and_an_own_timeout_stands() {
        let endpoint = Endpoint::from_static("http://gateway");
        let set_up = endpoint_for_tunnels(endpoint.clone());
        assert!(set_up.get_connect_timeout() < Some(OPEN_TIMEOUT / 2));
        let own = Duration::from_secs(60);
        let set_up = endpoint_for_tunnels(endpoint.connect_timeout(own));
        assert_eq!(set_up.get_connect_timeout(), Some(own));
    }
}
