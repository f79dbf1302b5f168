//! Servers fit for tunnels.

use std::time::Duration;

use tonic::transport::Server;

/// The HTTP/2 windows: what can be under way to this end on one tunnel's stream, and on one
/// connection. A tunnel's own windows do the fine work; these should never hold it back.
const WINDOW: u32 = 16 << 20;

/// HTTP/2 frames as large as a batch, so that a chunk and its envelope never straddle two:
/// measured as a fifth less CPU for each MiB.
const MAX_FRAME: u32 = 1 << 20;

/// No ping is sent more often than this, nor waited for less long or longer: HTTP/2 would panic on
/// times beyond the clock's end.
const PINGS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1 << 32));

/// Within which time a peer that has frozen or vanished is noticed, unless set otherwise.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// Sets a server up for tunnels: HTTP/2 windows of 16 MiB, frames of up to 1 MiB, `TCP_NODELAY`,
/// and keepalive that ends the connection, and the tunnels, of a client that has frozen or
/// vanished within 15 s (a ping after 10 s of silence, 5 s for its answer).
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
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true)
        .http2_keepalive_interval(sane(noticed - answer))
        .http2_keepalive_timeout(sane(answer))
}
