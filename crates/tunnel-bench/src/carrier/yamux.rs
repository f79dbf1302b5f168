//! tonic over yamux over TCP.
//!
//! Invariant: a TCP connection has one yamux connection and one stream of it. yamux sizes the
//! stream's window by itself, from the round-trip time that it measures.

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

/// How much is gathered before it goes to the socket, or from tonic to yamux; and the largest frame
/// of yamux. Without this it does worse: by a fifth with small calls, by a third with small messages.
const BUFFER: usize = 64 << 10;

type Session = Connection<Compat<BufStream<TcpStream>>>;
type Buffered = BufWriter<Compat<yamux::Stream>>;

/// A tonic channel through yamux to a port of this host.
pub(crate) async fn connect(port: u16) -> Result<Channel> {
    let connector = tower::service_fn(move |_| async move { open(port).await.map(TokioIo::new) });
    Ok(super::endpoint(port)?
        .connect_with_connector(connector)
        .await?)
}

/// Serves what comes through yamux.
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
    // yamux writes and reads the head of a frame apart from its body.
    let socket = BufStream::with_capacity(BUFFER, BUFFER, socket);
    let mut config = Config::default();
    config.set_split_send_size(BUFFER);
    Connection::new(socket.compat(), config, mode)
}

/// A stream of a connection of its own.
async fn open(port: u16) -> io::Result<Buffered> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let mut session = session(socket, Mode::Client);
    let stream = poll_fn(|context| session.poll_new_outbound(context)).await;
    let stream = stream.map_err(io::Error::other)?;
    // A server opens no streams; looking out for them is what moves the others' bytes.
    tokio::spawn(inbound(session).for_each(async |_| {}));
    Ok(buffered(stream))
}

/// Hands on the streams of a connection until one of the ends is over.
async fn accept_streams(session: Session, opened: mpsc::Sender<Buffered>) {
    let mut streams = std::pin::pin!(inbound(session));
    while let Some(stream) = streams.next().await {
        if opened.send(buffered(stream)).await.is_err() {
            return;
        }
    }
}

/// The streams that the other end opens, until the connection ends.
fn inbound(mut session: Session) -> impl futures::Stream<Item = yamux::Stream> {
    stream::poll_fn(move |context| session.poll_next_inbound(context))
        .take_while(|next| std::future::ready(next.is_ok()))
        .filter_map(async |next| next.ok())
}

/// tonic writes the head of a frame apart from its body where writing is not vectored; each would
/// be a frame of yamux.
fn buffered(stream: yamux::Stream) -> Buffered {
    BufWriter::with_capacity(BUFFER, stream.compat())
}
