//! HTTP/2 inside a gRPC stream: a bidirectional call carries the bytes of a tonic connection.
//!
//! Invariant: a [`Pipe`] is one call. It carries bytes in order and without loss; message
//! boundaries have no meaning.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::Result;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::proto::Piece;
use super::proto::carrier_client::CarrierClient;
use super::proto::carrier_server::{Carrier, CarrierServer};

/// The largest message, in bytes.
const PIECE: usize = 64 << 10;
/// The most messages queued for the outer connection. Few enough that its back-pressure reaches the
/// inner connection, and enough that neither waits for the other.
const WAITING: usize = 16;

/// Connects to a port on this host through a call of another tonic channel.
pub(crate) async fn connect(port: u16) -> Result<Channel> {
    let outer = CarrierClient::new(super::endpoint(port)?.connect().await?);
    let connector = tower::service_fn(move |_| {
        let outer = outer.clone();
        async move { open(outer).await.map(TokioIo::new) }
    });
    Ok(super::endpoint(port)?
        .connect_with_connector(connector)
        .await?)
}

/// Serves the connections that arrive as calls.
pub(crate) async fn serve(listener: TcpListener, routes: Routes) -> Result<()> {
    let (opened, pipes) = mpsc::channel(1);
    let outer = super::server()
        .add_service(CarrierServer::new(Calls { opened }))
        .serve_with_incoming(super::incoming(listener));
    let outer = async { Ok(outer.await?) };
    tokio::try_join!(outer, super::serve_on(ReceiverStream::new(pipes), routes))?;
    Ok(())
}

async fn open(mut outer: CarrierClient<Channel>) -> Result<Pipe, Status> {
    let (sender, pieces) = mpsc::channel(WAITING);
    let received = outer.carry(ReceiverStream::new(pieces)).await?;
    Ok(Pipe::new(received.into_inner(), sender))
}

/// A service that turns each call into a pipe.
struct Calls {
    opened: mpsc::Sender<Pipe>,
}

/// The response stream of a call. It never yields an error.
type Answer = futures::stream::Map<ReceiverStream<Piece>, fn(Piece) -> Result<Piece, Status>>;

#[tonic::async_trait]
impl Carrier for Calls {
    type CarryStream = Answer;

    async fn carry(
        &self,
        request: Request<Streaming<Piece>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        let (sender, pieces) = mpsc::channel(WAITING);
        let pipe = Pipe::new(request.into_inner(), sender);
        self.opened
            .send(pipe)
            .await
            .map_err(|_| Status::unavailable("the server is over"))?;
        Ok(Response::new(ReceiverStream::new(pieces).map(Ok)))
    }
}

/// A call as a byte stream.
struct Pipe {
    received: Streaming<Piece>,
    /// The unread part of the last message.
    rest: Bytes,
    sender: PollSender<Piece>,
}

impl Pipe {
    fn new(received: Streaming<Piece>, sender: mpsc::Sender<Piece>) -> Self {
        Self {
            received,
            rest: Bytes::new(),
            sender: PollSender::new(sender),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.received).poll_next(context)) {
                Some(piece) => self.rest = piece.map_err(io::Error::other)?.data,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.sender.poll_reserve(context)).map_err(gone)?;
        let piece = gather(bytes);
        let count = piece.len();
        if count > 0 {
            self.sender.send_item(Piece { data: piece }).map_err(gone)?;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.close();
        Poll::Ready(Ok(()))
    }
}

/// Copies the slices into one message, up to [`PIECE`] bytes.
fn gather(slices: &[IoSlice<'_>]) -> Bytes {
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut piece = BytesMut::with_capacity(total.min(PIECE));
    for slice in slices {
        let count = slice.len().min(PIECE - piece.len());
        piece.extend_from_slice(&slice[..count]);
    }
    piece.freeze()
}
