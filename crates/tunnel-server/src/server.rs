//! Servers fit for tunnels.

use std::time::Duration;

use tonic::transport::Server;

/// The HTTP/2 window of a stream: what can be under way to this end on one tunnel. A tunnel's own
/// windows do the fine work; this one should never hold it back.
const STREAM_WINDOW: u32 = 16 << 20;

/// The HTTP/2 window of a connection: sixteen streams that nobody reads leave room for the others.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// The window of a stream where ordinary calls share the connection: tonic's own default.
const SHARED_STREAM_WINDOW: u32 = 1 << 20;

/// The window of a connection that ordinary calls share: the largest there is, for two thousand
/// streams that nobody reads.
const SHARED_CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// HTTP/2 frames as large as a batch, so that a chunk and its envelope never straddle two:
/// measured as a fifth less CPU for each MiB.
const MAX_FRAME: u32 = 1 << 20;

/// No ping is sent more often than this, nor waited for less long or longer: HTTP/2 would panic on
/// times beyond the clock's end.
const PINGS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1 << 32));

/// Within which time a peer that has frozen or vanished is noticed, unless set otherwise.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// Sets a server up for tunnels: HTTP/2 windows of 16 MiB for a stream and 256 MiB for a
/// connection, frames of up to 1 MiB, `TCP_NODELAY`, and keepalive that ends the connection, and
/// the tunnels, of a client that has frozen or vanished within 15 s (a ping after 10 s of silence,
/// 5 s for its answer).
///
/// A stream that nobody reads holds up to its window here, and takes as much from the
/// connection's: with 16 of them no other stream of that connection goes on. Tunnels are always
/// read, but for those of revision zero whose calls are not, and openings that wait for
/// [`admit`](crate::TunnelServiceHandlerBuilder::admit). So one connection can make this end hold
/// 256 MiB that no budget of tunnels counts. Where ordinary clients call services at the same
/// listener, use [`server_for_tunnels_and_calls`].
///
/// `TCP_NODELAY` is for sockets that the server accepts itself: with `serve_with_incoming` set
/// it on the incoming connections
/// ([`TcpIncoming::with_nodelay`](tonic::transport::server::TcpIncoming::with_nodelay)).
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
    server_for_tunnels_within(server, NOTICED_WITHIN)
}

/// The same with another time within which a client that has frozen or vanished is noticed, for
/// example two seconds. It pings after two thirds of it without a word from the client, and
/// leaves a third for the answer: too short a time ends connections that are merely slow.
///
/// ```
/// # use std::time::Duration;
/// use tonic::transport::Server;
/// let noticed = Duration::from_secs(2);
/// let server = tunnel_server::server_for_tunnels_within(Server::builder(), noticed);
/// # let _ = server;
/// ```
pub fn server_for_tunnels_within(server: Server, noticed: Duration) -> Server {
    let answer = noticed / 3;
    let sane = |time: Duration| Some(time.clamp(PINGS.0, PINGS.1));
    server
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true)
        .http2_keepalive_interval(sane(noticed - answer))
        .http2_keepalive_timeout(sane(answer))
}

/// Sets a server up as [`server_for_tunnels`] does, for a listener at which ordinary clients call
/// services too: with HTTP/2 windows of 1 MiB for a stream (tonic's default) and 2 GiB for a
/// connection.
///
/// An ordinary call whose request nobody reads, as a slow upload has, leaves its stream's window
/// unread. Here 2,000 of them leave room for the other streams of their connection, tunnels among
/// them; with windows of one size a single one stops all. In return a tunnel receives at most 1 MiB
/// for each round trip (10 MB/s over 100 ms), and one connection can make this end hold 2 GiB; tonic's
/// `max_concurrent_streams` lowers that to 1 MiB for each stream.
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
