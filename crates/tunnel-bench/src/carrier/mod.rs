//! What one can do today in place of a tunnel: other carriers for an ordinary tonic connection.
//!
//! What lives where: `yamux` and `http2` each carry a byte stream that tonic speaks HTTP/2 over.
//!
//! Invariant: one tonic connection is one carried stream, and nothing else shares what carries it.
//! Its HTTP/2 connection has large windows in both, so that what is compared is the carrier.

pub(crate) mod http2;
pub(crate) mod yamux;

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Endpoint, Server};

/// The service of `http2`, generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
mod proto {
    include!("../generated/tunnel.carrier.v1.rs");
}

/// The windows of tonic, where it is tuned.
const WINDOW: u32 = 16 << 20;
/// The largest HTTP/2 frame of tonic, where it is tuned.
const MAX_FRAME: u32 = 1 << 20;

/// An endpoint of this host, with large windows.
fn endpoint(port: u16) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
        .tcp_nodelay(true))
}

/// A server with large windows.
fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
}

/// Accepts connections that send at once what they are given.
fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Serves on carried streams.
async fn serve_on<I, T>(carried: I, routes: Routes) -> Result<()>
where
    I: Stream<Item = T>,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    use futures::StreamExt;
    let carried = carried.map(|stream| io::Result::Ok(Carried(stream)));
    server()
        .add_routes(routes)
        .serve_with_incoming(carried)
        .await?;
    Ok(())
}

/// A carried stream as tonic's server wants it: nobody asks who is at its other end.
struct Carried<T>(T);

impl<T> Connected for Carried<T> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<T: AsyncRead + Unpin> AsyncRead for Carried<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Carried<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
