//! tonic over yamux over TCP.
//!
//! Invariant: a TCP connection carries one yamux connection with one stream. yamux sizes the
//! stream's window from the round-trip time that it measures.

use std::future::poll_fn;
use std::io;

use anyhow::Result;
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use tokio::io::{BufStream, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tonic::service::Routes;
use tonic::transport::Channel;
use yamux::{Config, Connection, Mode};

/// The size of the buffers between tonic, yamux and the socket, and the largest yamux frame. The
/// buffers make yamux faster, so that the comparison is fair.
const BUFFER: usize = 64 << 10;

type Session = Connection<Compat<BufStream<TcpStream>>>;
type Buffered = BufWriter<Compat<yamux::Stream>>;

/// Connects to a port on this host through yamux.
pub(crate) async fn connect(port: u16) -> Result<Channel> {
    let connector = tower::service_fn(move |_| async move { open(port).await.map(TokioIo::new) });
    Ok(super::endpoint(port)?
        .connect_with_connector(connector)
        .await?)
}

/// Serves the connections that arrive through yamux.
pub(crate) async fn serve(listener: TcpListener, routes: Routes) -> Result<()> {
    let (opened, streams) = mpsc::channel(1);
    let accept = async {
        let mut sockets = std::pin::pin!(super::incoming(listener));
        while let Some(socket) = sockets.next().await {
            tokio::spawn(accept_streams(
                session(socket?, Mode::Server),
                opened.clone(),
            ));
        }
        Ok(())
    };
    tokio::try_join!(
        accept,
        super::serve_on(ReceiverStream::new(streams), routes)
    )?;
    Ok(())
}

fn session(socket: TcpStream, mode: Mode) -> Session {
    // yamux reads and writes the head of a frame separately from its body.
    let socket = BufStream::with_capacity(BUFFER, BUFFER, socket);
    let mut config = Config::default();
    config.set_split_send_size(BUFFER);
    Connection::new(socket.compat(), config, mode)
}

/// Opens a stream on a new TCP connection.
async fn open(port: u16) -> io::Result<Buffered> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let mut session = session(socket, Mode::Client);
    let stream = poll_fn(|context| session.poll_new_outbound(context)).await;
    let stream = stream.map_err(io::Error::other)?;
    // The server opens no streams, but polling for them drives the connection.
    tokio::spawn(inbound(session).for_each(async |_| {}));
    Ok(buffered(stream))
}

/// Sends the streams of a connection to `opened`, until the connection or the receiver ends.
async fn accept_streams(session: Session, opened: mpsc::Sender<Buffered>) {
    let mut streams = std::pin::pin!(inbound(session));
    while let Some(stream) = streams.next().await {
        if opened.send(buffered(stream)).await.is_err() {
            return;
        }
    }
}

/// The streams that the peer opens, until the connection ends.
fn inbound(mut session: Session) -> impl futures::Stream<Item = yamux::Stream> {
    stream::poll_fn(move |context| session.poll_next_inbound(context))
        .take_while(|next| std::future::ready(next.is_ok()))
        .filter_map(async |next| next.ok())
}

/// Buffers writes: without vectored writes tonic writes the head of a frame separately from its
/// body, and each write would be a yamux frame.
fn buffered(stream: yamux::Stream) -> Buffered {
    BufWriter::with_capacity(BUFFER, stream.compat())
}
