//! Connections that must say something soon.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// The length of what every client of HTTP/2 sends first. The server waits for all of it.
const PREFACE: usize = 24;

/// A connection that fails if its first bytes are not received in time. Later it may be silent: HTTP/2 has pings.
#[derive(Debug)]
pub(crate) struct Punctual<S> {
    stream: S,
    deadline: Option<Pin<Box<Sleep>>>,
    received: usize,
}

impl<S> Punctual<S> {
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self {
            stream,
            deadline: Some(Box::pin(tokio::time::sleep(timeout))),
            received: 0,
        }
    }
}

impl<S: Connected> Connected for Punctual<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Punctual<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some(deadline) = &mut this.deadline else {
            return read;
        };
        if read.is_ready() {
            this.received += buf.filled().len() - before;
            if this.received >= PREFACE {
                this.deadline = None;
            }
            return read;
        }
        ready!(deadline.as_mut().poll(cx));
        let message = "the connection was silent for too long";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Punctual<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_must_come_soon_and_others_need_not() {
        let timeout = Duration::from_secs(10);
        for (bytes, late) in [(1, true), (PREFACE, false)] {
            let (mut client, server) = duplex(64);
            let mut server = Punctual::new(server, timeout);
            client
                .write_all(&[0; PREFACE][..bytes])
                .await
                .expect("sent");
            let mut read = vec![0; bytes];
            server.read_exact(&mut read).await.expect("received");
            let next = tokio::time::timeout(timeout * 2, server.read_u8()).await;
            assert_eq!(next.is_ok_and(|read| read.is_err()), late, "{bytes}");
        }
    }
}
