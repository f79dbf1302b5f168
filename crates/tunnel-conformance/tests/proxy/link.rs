//! A proxy with both of its ends controlled by the test.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tunnel_conformance::FaultProxy;
pub(crate) use tunnel_conformance::testing::{eventually, guarded};

/// A proxy to a listener that the test controls.
pub(crate) struct Link {
    pub(crate) proxy: FaultProxy,
    listener: TcpListener,
}

impl Link {
    pub(crate) async fn start() -> Self {
        let listener = listener().await;
        let proxy = FaultProxy::to(listener.local_addr().expect("bound")).await;
        Self { proxy, listener }
    }

    /// Connects through the proxy. Returns the client's end and the server's end.
    pub(crate) async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = connect(self.proxy.address()).await;
        (client, self.accept().await)
    }

    /// The server's end of the next connection.
    pub(crate) async fn accept(&self) -> TcpStream {
        accept(&self.listener).await
    }
}

/// Listens on a free port of the loopback interface.
pub(crate) async fn listener() -> TcpListener {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    listener.expect("a free port")
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).await;
    prompt(socket.expect("the port has a listener"))
}

pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    let (socket, _) = listener.accept().await.expect("a connection");
    prompt(socket)
}

fn prompt(socket: TcpStream) -> TcpStream {
    socket.set_nodelay(true).expect("a socket that works");
    socket
}

/// Reads this many bytes.
pub(crate) async fn receive(socket: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let whole = socket.read_exact(&mut bytes).await;
    whole.expect("all of it comes");
    bytes
}

/// Sends some bytes and waits until they arrive.
pub(crate) async fn assert_passes(from: &mut TcpStream, to: &mut TcpStream) {
    let sent = from.write_all(b"still there?").await;
    sent.expect("the connection works");
    assert_eq!(receive(to, 12).await, b"still there?");
}

/// Panics unless the stream has ended cleanly, with nothing more to read.
pub(crate) async fn assert_ended(socket: &mut TcpStream) {
    let mut byte = [0];
    let end = socket.read(&mut byte).await;
    assert_eq!(end.expect("a clean end"), 0, "a byte came");
}

/// Panics unless the connection was reset, with nothing more to read.
pub(crate) async fn assert_reset(socket: &mut TcpStream) {
    let mut byte = [0];
    let error = socket.read(&mut byte).await;
    let error = error.expect_err("a connection that is not reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Panics unless the attempt fails, or its connection is reset without data.
pub(crate) async fn assert_refused(address: SocketAddr) {
    match TcpStream::connect(address).await {
        Ok(mut socket) => assert_reset(&mut socket).await,
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// Ends a connection with a reset.
pub(crate) fn abort(socket: TcpStream) {
    socket.set_zero_linger().expect("a socket that works");
}

/// Bytes in short numbered runs, so that a loss, a repetition or a reordering shows.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    for (number, run) in bytes.chunks_exact_mut(251).enumerate() {
        run.fill(number as u8);
        run[..8].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Makes round trips on another link. Bytes that move by mistake have the time to move.
pub(crate) async fn elsewhere(rounds: usize) {
    let link = Link::start().await;
    let (mut client, mut server) = link.connect().await;
    for _ in 0..rounds {
        assert_passes(&mut client, &mut server).await;
        assert_passes(&mut server, &mut client).await;
    }
}
