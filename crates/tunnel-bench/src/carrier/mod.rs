//! The alternatives to a tunnel: other carriers for an ordinary tonic connection.
//!
//! `yamux` and `http2` each carry a byte stream, on which tonic speaks HTTP/2.
//!
//! Invariant: a carrier carries one tonic connection and nothing else. The HTTP/2 connection has
//! large windows with both carriers, so that the comparison shows the carrier only.

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

/// The generated service of the `http2` carrier.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
mod proto {
    include!("../generated/tunnel.carrier.v1.rs");
}

/// The HTTP/2 windows of tuned tonic, in bytes.
const WINDOW: u32 = 16 << 20;
/// The largest HTTP/2 frame of tuned tonic, in bytes.
const MAX_FRAME: u32 = 1 << 20;

/// An endpoint on this host with large windows.
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

/// Accepts TCP connections, with `TCP_NODELAY`.
fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Serves the routes on carried streams.
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

/// A carried stream for tonic's server, without connect info.
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
