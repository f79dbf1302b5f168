//! Settings of servers that accept tunnels.

use std::time::Duration;

use tonic::transport::Server;

/// The HTTP/2 window of a stream: how much can be in flight to this end on one tunnel. It is so large
/// that only the tunnel's own windows limit its calls.
const STREAM_WINDOW: u32 = 16 << 20;

/// The HTTP/2 window of a connection: fifteen streams may be full and unread before others wait.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// The window of a stream if ordinary calls share the connection: tonic's default.
const SHARED_STREAM_WINDOW: u32 = 1 << 20;

/// The window of a connection that ordinary calls share: the maximum, for two thousand unread streams.
const SHARED_CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// HTTP/2 frames are as large as a batch of the tunnel, so that no chunk is split between two.
const MAX_FRAME: u32 = 1 << 20;

/// The shortest and the longest time of pings. Hyper would panic on a time beyond the clock's range.
const PINGS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1 << 32));

/// The default time until a frozen or vanished peer is noticed.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Sets a server up for tunnels: HTTP/2 windows of 16 MiB for a stream and 256 MiB for a connection,
/// frames of up to 1 MiB, `TCP_NODELAY`, and a keepalive that closes the connection of a frozen or
/// vanished client within 15 s (a ping after 10 s of silence, and 5 s for its answer).
///
/// An unread stream holds up to its window in memory and uses as much of the connection's window. After
/// 16 of them no other stream of the connection can go on. Tunnels are always read, except those of
/// revision zero with unread calls, and openings that wait for
/// [`admit`](crate::TunnelServiceHandlerBuilder::admit). So one connection can make this end hold
/// 256 MiB in addition to the memory budget. If ordinary clients use the same listener, use
/// [`server_for_tunnels_and_calls`].
///
/// `TCP_NODELAY` applies to sockets that the server accepts itself. With `serve_with_incoming` set it on
/// the incoming connections
/// ([`TcpIncoming::with_nodelay`](tonic::transport::server::TcpIncoming::with_nodelay)).
///
/// Do not turn on adaptive windows: the HTTP/2 layer would end connections with small windows and many
/// small frames.
///
/// ```
/// use tonic::transport::Server;
/// let server = tunnel_server::server_for_tunnels(Server::builder());
/// # let _ = server;
/// ```
pub fn server_for_tunnels(server: Server) -> Server {
    server_for_tunnels_with(server, DETECTION_TIMEOUT)
}

/// The same as [`server_for_tunnels`], with another timeout after which a frozen or vanished client is
/// noticed. A ping is sent after two thirds of it in silence, and one third is for the answer. A
/// very short timeout closes connections that are only slow.
///
/// ```
/// # use std::time::Duration;
/// use tonic::transport::Server;
/// let detection_timeout = Duration::from_secs(2);
/// let server = tunnel_server::server_for_tunnels_with(Server::builder(), detection_timeout);
/// # let _ = server;
/// ```
pub fn server_for_tunnels_with(server: Server, detection_timeout: Duration) -> Server {
    let answer = detection_timeout / 3;
    let sane = |time: Duration| Some(time.clamp(PINGS.0, PINGS.1));
    server
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true)
        .http2_keepalive_interval(sane(detection_timeout - answer))
        .http2_keepalive_timeout(sane(answer))
}

/// Sets a server up as [`server_for_tunnels`] does, for a listener that ordinary clients use too: with
/// HTTP/2 windows of 1 MiB for a stream (tonic's default) and 2 GiB for a connection.
///
/// An ordinary call whose request is not read, such as a slow upload, leaves its stream's window unread.
/// With these windows 2,000 such calls do not stop the other streams of their connection. In return
/// a tunnel receives at most 1 MiB for each round trip (10 MB/s with 100 ms), and one connection can
/// make this end hold 2 GiB; tonic's `max_concurrent_streams` lowers that to 1 MiB for each stream.
///
/// ```
/// use tonic::transport::Server;
/// let server = tunnel_server::server_for_tunnels_and_calls(Server::builder());
/// # let _ = server;
/// ```
pub fn server_for_tunnels_and_calls(server: Server) -> Server {
    server_for_tunnels(server)
        .initial_stream_window_size(SHARED_STREAM_WINDOW)
        .initial_connection_window_size(SHARED_CONNECTION_WINDOW)
}
